"""Shares with their intervals, and the reliability curve of the judge's probabilities, for ``judge.py``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

BINS = np.linspace(0.0, 1.0, 11)
BOOTSTRAPS = 1000


def interval(found: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    if not total:
        return 0.0, 1.0
    z, share = 1.96, found / total
    middle = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z * np.sqrt(share * (1 - share) / total + z**2 / (4 * total**2)) / (1 + z**2 / total)
    return round(float(middle - half), 3), round(float(middle + half), 3)


def resampled(counts: Sequence[int], totals: Sequence[int] | None = None) -> tuple[float, float]:
    """The 95 % interval of a sum over another (the number of pairs by default) when pairs are drawn anew."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(counts), (BOOTSTRAPS, len(counts)))
    above = np.asarray(counts)[drawn].sum(1)
    below = np.full(BOOTSTRAPS, len(counts)) if totals is None else np.asarray(totals)[drawn].sum(1)
    low, high = np.percentile(above[below > 0] / below[below > 0], [2.5, 97.5])
    return round(float(low), 3), round(float(high), 3)


def reliability(p: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, list[list[float]]]:
    """Expected calibration error, and mean probability, share that is true and number of candidates of each bin."""
    rows, error = [], 0.0
    for low, high in pairwise(BINS):
        inside = (p >= low) & ((p < high) | (high == 1.0))
        if inside.any():
            mean, share = float(p[inside].mean()), float(y[inside].mean())
            error += abs(mean - share) * inside.sum() / len(p)
            rows.append([round(mean, 3), round(share, 3), int(inside.sum())])
    return round(error, 4), rows


def draw(path: Path, rows: list[list[float]], error: float) -> None:
    """The reliability curve."""
    edge, margin = 720, 90
    image = Image.new("RGB", (edge, edge), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(18)

    def place(x: float, y: float) -> tuple[float, float]:
        return margin + x * (edge - 2 * margin), edge - margin - y * (edge - 2 * margin)

    pen.line([place(0, 0), place(1, 1)], "#b0b0b0", 2)
    pen.rectangle([place(0, 1), place(1, 0)], outline="black")
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = place(tick, 0)
        pen.text((x, y + 8), f"{tick:g}", "black", font, "ma")
        x, y = place(0, tick)
        pen.text((x - 8, y), f"{tick:g}", "black", font, "rm")
    pen.line([place(p, share) for p, share, _ in rows], "#2060a0", 3)
    for p, share, count in rows:
        x, y = place(p, share)
        pen.ellipse([x - 5, y - 5, x + 5, y + 5], "#2060a0")
        pen.text((x + 8, y + 4), str(count), "#606060", font, "la")
    pen.text((edge / 2, edge - 30), "probability by the judge", "black", font, "mm")
    pen.text((margin, 20), f"Share that really changed, patients left out; mean error {error:.3f}", "black", font)
    pen.text((margin, 44), "numbers: candidates in that tenth", "#606060", font)
    image.save(path)
