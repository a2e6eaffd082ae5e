"""Accuracy against time, one point a method; the lower left corner is the best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

INK, PALE, OURS, THEIRS = "#1c2733", "#d5dbe1", "#0b6fb8", "#8a5a2b"
SHOWN = ("known20mm", "hard38mm")
SIZE, LEFT, TOP, RIGHT, BOTTOM = (1500, 640), 80, 70, 710, 560
Label = tuple[float, float, str]


def draw(path: Path, document: dict[str, Any]) -> None:
    """One panel a case of :data:`SHOWN` that was measured."""
    image = Image.new("RGB", SIZE, "white")
    for number, name in enumerate(case for case in SHOWN if case in document):
        methods = {k: v for k, v in document[name]["methods"].items() if "wall_s" in v}
        panel(ImageDraw.Draw(image), 750 * number, name, methods)
    image.save(path, optimize=True)


def panel(pen: ImageDraw.ImageDraw, offset: int, name: str, methods: dict[str, Any]) -> None:
    """Mean TRE over wall seconds, both logarithmic."""
    font, small = ImageFont.load_default(18), ImageFont.load_default(14)
    left, right = LEFT + offset, RIGHT + offset
    seconds, errors = (np.array([m[k] for m in methods.values()]) for k in ("wall_s", "tre_mean_mm"))
    x0, x1 = np.log(seconds.min() / 1.6), np.log(seconds.max() * 1.6)
    y0, y1 = np.log(errors.min() / 1.5), np.log(errors.max() * 1.5)

    def place(s: float, e: float) -> tuple[float, float]:
        u, v = (np.log(s) - x0) / (x1 - x0), (np.log(e) - y0) / (y1 - y0)
        return float(left + u * (right - left)), float(BOTTOM - v * (BOTTOM - TOP))

    for tick in (s * 10.0**e for e in range(-2, 4) for s in (1, 2, 5)):
        if x0 <= np.log(tick) <= x1:
            x = place(tick, errors[0])[0]
            pen.line([(x, TOP), (x, BOTTOM)], PALE)
            pen.text((x, BOTTOM + 8), f"{tick:g}", INK, small, "ma")
        if y0 <= np.log(tick) <= y1:
            y = place(seconds[0], tick)[1]
            pen.line([(left, y), (right, y)], PALE)
            pen.text((left - 8, y), f"{tick:g}", INK, small, "rm")
    pen.rectangle([left, TOP, right, BOTTOM], outline=INK)
    pen.text(((left + right) / 2, TOP - 40), f"{name}: mean error in the lungs, mm", INK, font, "ma")
    pen.text(((left + right) / 2, BOTTOM + 36), "seconds, whole process, 2 cores", INK, font, "ma")
    taken: list[tuple[float, float, float, float]] = []
    for method, figures in methods.items():
        x, y = place(figures["wall_s"], figures["tre_mean_mm"])
        colour = OURS if method == "ChangeMapJoint" else THEIRS
        pen.ellipse([x - 7, y - 7, x + 7, y + 7], colour)
        taken.append((x - 9, y - 9, x + 9, y + 9))
    for method, figures in methods.items():
        x, y = place(figures["wall_s"], figures["tre_mean_mm"])
        colour = OURS if method == "ChangeMapJoint" else THEIRS
        width = pen.textlength(method, small)
        spots = [(x + 11, y - 8), (x - 11 - width, y - 8), (x - width / 2, y - 27), (x - width / 2, y + 10)]
        boxes = [(a, b, a + width, b + 16) for a, b in spots]
        free = [box for box in boxes if box[0] > left and box[2] < right and not any(_meet(box, t) for t in taken)]
        box = (free or boxes)[0]
        taken.append(box)
        pen.text(box[:2], method, colour, small)


def _meet(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
