"""Time and memory of ``changemap evaluate`` on 50 cases of 256 x 256 x 128 voxels, with everything that it can score.

    python Testing/benchmarks/evaluate_cost.py SCRATCH [--cases 50]

Every case has a change map, a deformation, trust, lung masks and label maps of both scans: noise with drawn lesions,
which says nothing of any method. Two sets of files are made; the cases are links to them under names of their own, so
that each volume of each case is read. That none is read twice is a test (``test_evaluation.py``). Writes
``results/evaluate_cost.json``.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
from pathlib import Path

import numpy as np
from record import measure, metadata, write_results

from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.io import run_files
from ChangeMapJointLib.io.write import write_displacement, write_nrrd

GRID = Grid((128, 256, 256), (1.4, 1.4, 2.3))
CASES, SETS, LESIONS, POINTS = 50, 2, 12, 300
VOLUMES = ("map", "deformation", "trust", "lungs_reference", "lungs_template", "lesions_reference", "lesions_template")


def make_set(folder: Path, seed: int) -> None:
    """One set of files: lesions of 4 to 9 voxels in radius, half of them new, and a map that sees most of them."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    shape = np.array(GRID.shape)
    now, before = (np.zeros(GRID.shape, np.uint8) for _ in range(2))
    change = rng.random(GRID.shape, np.float32) * np.float32(0.3)
    offsets = np.stack(np.meshgrid(*[np.arange(-10, 11)] * 3, indexing="ij"), -1)
    distance = np.linalg.norm(offsets, axis=-1)
    for label in range(1, LESIONS + 1):
        corner = rng.integers(20, shape - 40)
        box = tuple(slice(c, c + 21) for c in corner)
        inside = distance <= rng.uniform(4, 9)
        now[box][inside] = label
        if label % 2:
            before[box][distance <= 3] = label
        if rng.random() < 0.8:
            change[box][inside] = 0.9
    lungs = np.zeros(GRID.shape, np.uint8)
    lungs[10:-10, 20:-20, 20:120], lungs[10:-10, 20:-20, 136:-20] = 1, 2
    vectors = (5.0 + rng.standard_normal((*GRID.shape, 3), np.float32)).astype(np.float32)
    write_nrrd(folder / "map.nrrd", change, GRID, step=run_files.MAP_STEP)
    write_displacement(folder / "deformation.nrrd", DisplacementField(vectors, GRID))
    write_nrrd(folder / "trust.nrrd", rng.random(GRID.shape, np.float32), GRID, step=run_files.TRUST_STEP)
    for side, labels in (("reference", now), ("template", before)):
        write_nrrd(folder / f"lungs_{side}.nrrd", lungs, GRID)
        write_nrrd(folder / f"lesions_{side}.nrrd", labels, GRID)
    index = rng.uniform(30, shape[::-1] - 30, (POINTS, 3))
    points = GRID.to_physical(index)
    rows = np.column_stack([points, points + 5.0 + rng.normal(0, 1, points.shape)])
    np.savetxt(folder / "landmarks.csv", rows, fmt="%.3f", delimiter=",", header="rx,ry,rz,tx,ty,tz", comments="")


def make_cases(scratch: Path, count: int) -> Path:
    """The table of cases, each with links of its own."""
    for number in range(SETS):
        make_set(scratch / f"set{number}", number)
    table = scratch / "cases.csv"
    with table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("case", "patient", "days", "method", *VOLUMES, "landmarks"))
        for number in range(count):
            source, folder = scratch / f"set{number % SETS}", scratch / f"case{number:02d}"
            folder.mkdir()
            for file in source.iterdir():
                (folder / file.name).hardlink_to(file)
            names = [f"{folder.name}/{name}.nrrd" for name in VOLUMES]
            writer.writerow((folder.name, f"P{number // 2}", 180, "ours", *names, f"{folder.name}/landmarks.csv"))
    return table


def main() -> None:
    """Make, evaluate, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--cases", type=int, default=CASES, help="fewer try the script itself, and write no results")
    asked = parser.parse_args()
    started, scratch = metadata(), asked.scratch / "evaluate_cost"
    shutil.rmtree(scratch, ignore_errors=True)
    table = make_cases(scratch, asked.cases)
    command = [sys.executable, "-m", "ChangeMapJointLib", "evaluate", str(table), "--out", str(scratch / "out")]
    found = measure([*command, "--progress", "none"])
    figures = {
        "cases": asked.cases,
        "voxels": "256 x 256 x 128",
        "volumes_a_case": len(VOLUMES),
        "wall_s": found.wall_s,
        "cpu_s": found.cpu_s,
        "peak_memory_mb": found.peak_memory_mb,
    }
    print(figures)
    if asked.cases == CASES:
        write_results("evaluate_cost", {"evaluate": figures}, started)
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
