"""Residual against preservation: what a softer registration gains in HU, it loses in growth.

    python Testing/benchmarks/tradeoff.py DATA

DATA holds ``ct15``. Two pairs with known motion (real CT, synthetic lesions) are registered with weights of the
curvature from 3 to 1000, with and without letting go where there is no partner (``change_hu``). Of every setting: mean
residual in the lungs, mean error, and the volume of L^T(y) over that with the true y for lesions that grew, shrank or
stayed (1: the change is kept whole). Writes ``results/tradeoff.json`` and ``.png``.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from record import RESULTS, write_results

from ChangeMapJointLib.core.displacement import warp
from ChangeMapJointLib.io.read import read_volume
from ChangeMapJointLib.lungs.segment import segment_lungs
from ChangeMapJointLib.registration.deformable.register import RegistrationOptions, register_deformable
from ChangeMapJointLib.registration.keypoints.match import find_correspondences
from ChangeMapJointLib.registration.quality import mean_residual
from ChangeMapJointLib.registration.rigid.align import align_rigid
from ChangeMapJointLib.scan.pair import ScanPair
from ChangeMapJointLib.scan.scan import Scan
from ChangeMapJointLib.synthesis.motion import MotionOptions
from ChangeMapJointLib.synthesis.pairs import KnownPair, LesionPlan, PairOptions, make_pair

CURVATURES = (3.0, 10.0, 30.0, 100.0, 150.0, 300.0, 1000.0)
SCANS = (("LIDC-IDRI-0002", 201), ("LIDC-IDRI-0314", 202))
LESIONS = (
    LesionPlan("grown", 16.0, 10.0),
    LesionPlan("grown", 12.0, 8.0),
    LesionPlan("shrunk", 10.0, 16.0),
    LesionPlan("shrunk", 8.0, 12.0),
    LesionPlan("stable", 12.0, 12.0),
    LesionPlan("stable", 16.0, 16.0),
)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    rows: dict[str, list[dict[str, Any]]] = {}
    for scan, seed in SCANS:
        for key, row in measured(data, scan, seed):
            rows.setdefault(key, []).append(row)
            print(scan, key, row, flush=True)
    results = {key: summary(found) for key, found in rows.items()}
    write_results("tradeoff", {"LIDC-IDRI-0002 and -0314, 20 mm, noise 20 HU": {"settings": list(results.values())}})
    draw(RESULTS / "tradeoff.png", list(results.values()))


def measured(data: Path, scan: str, seed: int) -> list[tuple[str, dict[str, Any]]]:
    """One row a setting."""
    volume = read_volume(data / "ct15" / f"{scan}_ct.nii.gz")
    options = PairOptions(
        motion=MotionOptions(diaphragm_mm=20.0),
        lesions=LESIONS,
        reference_spacing_mm=(1.75,) * 3,
        template_spacing_mm=(1.75,) * 3,
        reference_noise_hu=20.0,
        template_noise_hu=20.0,
    )
    pair = make_pair(volume, segment_lungs(volume).mask, seed=seed, options=options)
    r, t = pair.reference, pair.template
    lungs = [segment_lungs(v).mask for v in (r, t)]
    rigid = align_rigid(*map(Scan.of, (r, t), lungs)).matrix
    keypoints = find_correspondences(ScanPair.of(r, t, *lungs, rigid=rigid)).keypoints
    base = RegistrationOptions()
    rows = []
    for curvature in CURVATURES:
        for change_hu in (0.0, base.change_hu):
            setting = replace(base, change_hu=change_hu, weights=replace(base.weights, curvature=curvature))
            found = register_deformable(ScanPair.of(r, t, *lungs, rigid=rigid), keypoints=keypoints, options=setting)
            row = {"curvature": curvature, "change_hu": change_hu, **figures(pair, found.field)}
            rows.append((f"{curvature:g} {change_hu:g}", row))
    return rows


def figures(pair: KnownPair, field: Any) -> dict[str, Any]:
    """Residual, error and the preservation of every lesion by kind."""
    r, t = pair.reference, pair.template
    true = pair.field()
    error = np.linalg.norm(field.apply(pair.points.reference_mm) - pair.points.template_mm, axis=1)
    residual = mean_residual(r.array, warp(t.array, t.grid, r.grid, field, outside=-1000.0), pair.lungs_reference)
    kept: dict[str, list[float]] = {}
    for change in pair.changes:
        lesion = pair.lesions_template == change.id
        volumes = [float(warp(lesion, t.grid, r.grid, y).sum()) for y in (field, true)]
        kept.setdefault(change.kind, []).append(volumes[0] / volumes[1])
    return {"residual_hu": residual, "error_mm": float(error.mean()), **kept}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means of both pairs, medians of their lesions."""
    found: dict[str, Any] = {name: rows[0][name] for name in ("curvature", "change_hu")}
    for name in ("residual_hu", "error_mm"):
        found[name] = round(float(np.mean([row[name] for row in rows])), 3)
    for kind in ("grown", "shrunk", "stable"):
        found[kind] = round(float(np.median([value for row in rows for value in row[kind]])), 3)
    return found


def draw(path: Path, rows: list[dict[str, Any]]) -> None:
    """Preservation of grown lesions against the residual; the curvature stands at the points."""
    width, height, margin = 980, 720, 120
    image = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(20)
    left = min(row["residual_hu"] for row in rows) - 0.3
    right = max(row["residual_hu"] for row in rows) + 0.3
    top = max(row["grown"] for row in rows) + 0.05

    def place(x: float, y: float) -> tuple[float, float]:
        u, v = (x - left) / (right - left), (y - 0.9) / (top - 0.9)
        return margin + u * (width - 2 * margin), height - margin - v * (height - 2 * margin)

    pen.rectangle([place(left, 1.1), place(right, 0.9)], "#e8f2e8")
    for tick in np.arange(0.9, top, 0.1):
        x, y = place(left, float(tick))
        pen.line([(x, y), place(right, float(tick))], "#d8d8d8")
        pen.text((x - 10, y), f"{tick:.1f}", "black", font, "rm")
    step = 0.2 if right - left < 2 else max(np.ceil((right - left) / 8), 1.0)
    for tick in np.arange(np.ceil(left / step) * step, right, step):
        x, y = place(float(tick), 0.9)
        pen.line([(x, y), (x, y + 6)], "black")
        pen.text((x, y + 12), f"{tick:g}", "black", font, "ma")
    for change_hu, colour, name, side in ((0.0, "#c06030", "off", -1), (None, "#2060a0", "on", 1)):
        line = [row for row in rows if (row["change_hu"] == 0.0) == (change_hu == 0.0)]
        points = [place(row["residual_hu"], row["grown"]) for row in line]
        pen.line(points, colour, 3)
        for row, (x, y) in zip(line, points, strict=True):
            pen.ellipse([x - 6, y - 6, x + 6, y + 6], colour)
            if row["curvature"] not in (100.0, 30.0):  # they lie between their neighbours
                pen.text((x - side * 12, y), f"{row['curvature']:g}", colour, font, "rm" if side > 0 else "lm")
        x, y = width - margin - 330, margin + (0 if change_hu == 0.0 else 30)
        pen.line([(x, y), (x + 40, y)], colour, 3)
        pen.text((x + 50, y), f"letting go of change: {name}", "black", font, "lm")
    pen.text((width / 2, height - 45), "mean residual in the lungs, HU", "black", font, "mm")
    pen.text((margin, 30), "Volume of grown lesions after warping, by that with the true motion", "black", font)
    pen.text(
        (margin, 58),
        "1: the growth is kept; green: 0.9 to 1.1; figures: weight of the curvature (30 and 100 between)",
        "#606060",
        font,
    )
    image.save(path)


if __name__ == "__main__":
    main()
