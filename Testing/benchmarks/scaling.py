"""Does the cost of the registration grow linearly? 1, 2, 4 and 8 times the voxels of the same chest.

    python Testing/benchmarks/scaling.py DATA [--factors 1,2,4,8] [--coarsest-mm 2.5] [--repeat 3]

One scan is breathed out by the same known motion at ever finer voxels, and registered at these voxels, each pair in a
process of its own after a short registration that compiles the kernels. Control points and iterations stay as they are.
Writes ``results/scaling.json`` and, as a chart, ``results/scaling.png``; the slopes are those of straight lines through
the logarithms.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from record import RESULTS, measure, median, write_results

from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.io.read import read_volume
from ChangeMapJointLib.lungs.segment import segment_lungs
from ChangeMapJointLib.registration.deformable.register import RegistrationOptions, register_deformable
from ChangeMapJointLib.scan.pair import ScanPair
from ChangeMapJointLib.scan.volume import Volume
from ChangeMapJointLib.synthesis.motion import MotionOptions
from ChangeMapJointLib.synthesis.pairs import PairOptions, make_pair

SCAN = "ct15/LIDC-IDRI-0314_ct.nii.gz"
BAR = 1.1  # highest slope
INK, GRID, SERIES = "#1c2733", "#d5dbe1", {"cpu_s": "#0b6fb8", "wall_s": "#c4551d"}


def make(scan: Path, spacing_mm: float, out: Path) -> None:
    """The pair at one voxel size, with its lungs and points, as arrays."""
    volume = read_volume(scan)
    options = PairOptions(
        motion=MotionOptions(diaphragm_mm=20.0),
        reference_spacing_mm=(spacing_mm,) * 3,
        template_spacing_mm=(spacing_mm,) * 3,
        reference_noise_hu=20.0,
        template_noise_hu=20.0,
    )
    pair = make_pair(volume, segment_lungs(volume).mask, seed=1, options=options)
    sides = {"reference": (pair.reference, pair.lungs_reference), "template": (pair.template, pair.lungs_template)}
    arrays: dict[str, Any] = {"r": pair.points.reference_mm, "t": pair.points.template_mm, "spacing": spacing_mm}
    for side, (made, lungs) in sides.items():
        arrays |= {f"{side}_hu": made.array, f"{side}_lungs": lungs, f"{side}_origin": made.grid.origin_mm}
    np.savez(out, **arrays)


def register_once(path: Path) -> dict[str, Any]:
    """Cost of one registration of a made pair, and its error; run in a process of its own."""
    arrays = np.load(path)
    h = float(arrays["spacing"])
    pair, lungs = [], []
    for side in ("reference", "template"):
        hu = arrays[f"{side}_hu"]
        x, y, z = (float(v) for v in arrays[f"{side}_origin"])
        pair.append(Volume(hu, Grid(hu.shape, (h, h, h), (x, y, z))))
        lungs.append(arrays[f"{side}_lungs"])
    register_deformable(ScanPair.of(*pair, *lungs), options=RegistrationOptions(iterations=(1, 1, 1), working_mm=4.0))
    cpu, wall = time.process_time(), time.perf_counter()
    found = register_deformable(ScanPair.of(*pair, *lungs), options=RegistrationOptions(working_mm=h))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    error = np.linalg.norm(found.field.apply(arrays["r"]) - arrays["t"], axis=1)
    return {
        "spacing_mm": round(h, 3),
        "voxels": int(np.prod(pair[0].grid.shape)),
        "lung_voxels": int(lungs[0].sum()),
        "cpu_s": cpu,
        "wall_s": wall,
        "evaluations": [level.evaluations for level in found.levels],
        "tre_mean_mm": round(float(error.mean()), 3),
    }


def slope(rows: list[dict[str, Any]], name: str) -> float:
    """Of the straight line through the logarithms of voxels and cost."""
    logs = np.log([[row["lung_voxels"], row[name]] for row in rows])
    return round(float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0]), 3)


def chart(rows: list[dict[str, Any]], slopes: dict[str, float], path: Path) -> None:
    """Cost over voxels, both axes logarithmic, with a line of slope 1 to compare with."""
    width, height, left, top, right, bottom = 900, 600, 110, 60, 860, 500
    picture = Image.new("RGB", (width, height), "white")
    draw, font, small = ImageDraw.Draw(picture), ImageFont.load_default(18), ImageFont.load_default(15)
    voxels = np.array([row["lung_voxels"] for row in rows], dtype=float)
    costs = np.array([[row[name] for row in rows] for name in SERIES])
    x0, x1 = np.log(voxels.min() / 1.3), np.log(voxels.max() * 1.3)
    y0, y1 = np.log(costs.min() / 1.5), np.log(costs.max() * 1.5)

    def place(v: float, cost: float) -> tuple[float, float]:
        return (
            left + (np.log(v) - x0) / (x1 - x0) * (right - left),
            bottom - (np.log(cost) - y0) / (y1 - y0) * (bottom - top),
        )

    for seconds in (s * 10.0**e for e in range(-2, 4) for s in (1, 2, 5)):
        if y0 <= np.log(seconds) <= y1:
            level = place(voxels[0], seconds)[1]
            draw.line([(left, level), (right, level)], fill=GRID)
            draw.text((left - 12, level), f"{seconds:g} s", fill=INK, font=small, anchor="rm")
    for v in voxels:
        across = place(v, costs.min())[0]
        draw.line([(across, top), (across, bottom)], fill=GRID)
        draw.text((across, bottom + 10), f"{v / 1e6:.2f} M", fill=INK, font=small, anchor="ma")
    start = costs[0, 0]
    draw.line([place(v, start * v / voxels[0]) for v in voxels], fill="#8a949e", width=2)
    for n, (name, colour) in enumerate(SERIES.items()):
        points = [place(v, c) for v, c in zip(voxels, costs[n], strict=True)]
        draw.line(points, fill=colour, width=3)
        for x, y in points:
            draw.ellipse([x - 5, y - 5, x + 5, y + 5], fill=colour)
        label = f"{'CPU' if name == 'cpu_s' else 'wall'} time, slope {slopes[name]:.2f}"
        draw.text((left + 20, top + 10 + 26 * n), label, fill=colour, font=font)
    draw.text((left + 20, top + 62), "grey: slope 1", fill="#8a949e", font=font)
    draw.rectangle([left, top, right, bottom], outline=INK)
    draw.text(((left + right) / 2, top - 34), "Registration: cost over lung voxels", fill=INK, font=font, anchor="ma")
    draw.text(((left + right) / 2, bottom + 46), "voxels in the lungs", fill=INK, font=font, anchor="ma")
    picture.save(path, optimize=True)


def main() -> None:
    """Measure, fit, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--factors", default="1,2,4,8")
    parser.add_argument("--coarsest-mm", type=float, default=2.5)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--child", action="store_true", help="DATA is a made pair: register it once")
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(register_once(arguments.data)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for factor in (float(f) for f in arguments.factors.split(",")):
            pair = Path(scratch) / "pair.npz"
            make(arguments.data / SCAN, arguments.coarsest_mm * factor ** (-1 / 3), pair)
            runs = [measure([sys.executable, __file__, str(pair), "--child"]) for _ in range(arguments.repeat)]
            told = [json.loads(run.output.splitlines()[-1]) for run in runs]
            row = told[0] | {name: median([t[name] for t in told]) for name in SERIES}
            row |= {"factor": factor, "process_peak_memory_mb": median([run.peak_memory_mb for run in runs])}
            rows.append(row)
            print(json.dumps(row))
    slopes = {name: slope(rows, name) for name in SERIES}
    verdict = "met" if max(slopes.values()) <= BAR else "missed"
    print(f"slopes {slopes}, bar {BAR}: {verdict}")
    RESULTS.mkdir(exist_ok=True)
    chart(rows, slopes, RESULTS / "scaling.png")
    case = {"what": "1x to 8x voxels of one chest.", "repeats": arguments.repeat, "bar": BAR, "verdict": verdict}
    print(write_results("scaling", {"voxels": {**case, "slopes": slopes, "rows": rows}}))


if __name__ == "__main__":
    main()
