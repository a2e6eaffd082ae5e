"""One pair by two commits in turn: do results, time and memory stay when the code is rearranged?

    git worktree add --detach ../before COMMIT
    python Testing/benchmarks/two_commits.py ../before DATA [--repeat 3] [--only known20mm]

DATA holds ``pairs/known20mm`` and ``pairs/popi``; the sample pair ships with the project, and its method ``joint`` runs
as well. Each run is a whole process of the command line in this environment, timed from outside; the commits take
turns, so that both meet the same machine. Kernels are compiled in one run of each beforehand, which does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from main_job import columns, errors_mm, read_rows
from record import Measured, measure, median, write_results

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Pair:
    """Two scans, the method, and known correspondences ``[n, 6]`` (reference x, y, z, template x, y, z in mm)."""

    reference: Path
    template: Path
    method: str = "sequential"
    points: np.ndarray | None = None


def pairs(data: Path) -> dict[str, Pair]:
    """The pairs by name."""
    sample, known, popi = ROOT / "Resources" / "SamplePair", data / "pairs" / "known20mm", data / "pairs" / "popi"
    scans = sample / "reference.nrrd", sample / "template.nrrd"
    marks = [columns(read_rows(popi / f"phase_{phase}_landmarks.csv"), "x", "y", "z") for phase in ("00", "50")]
    points = columns(read_rows(known / "points.csv"), "rx", "ry", "rz", "tx", "ty", "tz")
    return {
        "known20mm": Pair(known / "reference.nii.gz", known / "template.nii.gz", points=points),
        "sample": Pair(*scans),
        "sample joint": Pair(*scans, "joint"),
        "sample rigid": Pair(*scans, "rigid"),
        "popi": Pair(popi / "phase_00.nii.gz", popi / "phase_50.nii.gz", points=np.hstack(marks)),
    }


def run(tree: Path, pair: Pair, out: Path) -> Measured:
    """``changemap run`` by the sources in ``tree``."""
    here = Path.cwd()
    os.environ["PYTHONPATH"] = str(tree)
    os.chdir(tree)  # python -m looks there first
    command = [sys.executable, "-m", "ChangeMapJointLib", "run", "--progress", "none", "--overwrite", "--device", "cpu"]
    sides = ["--reference", str(pair.reference), "--template", str(pair.template)]
    try:
        return measure([*command, *sides, "--method", pair.method, "--out", str(out)])
    finally:
        os.chdir(here)


def figures(out: Path, points: np.ndarray | None) -> dict[str, Any]:
    """What a run says: verdict, figures of the registration, findings, and the error at known points."""
    quality = json.loads((out / "quality.json").read_text("utf-8"))["quality"]
    row = {name: value for name, value in quality.items() if isinstance(value, (int, float, str))}
    findings = out / "findings.json"
    if findings.exists():
        listed = json.loads(findings.read_text("utf-8"))["findings"]
        row["findings"] = [[one["kind"], one["peak"], one["volume_change_percent"]] for one in listed]
    if points is not None:
        error = errors_mm(out, points[:, :3], points[:, 3:])
        row |= {"tre_mm": round(float(error.mean()), 4), "tre_p95_mm": round(float(np.percentile(error, 95)), 4)}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    trees = {"before": arguments.before.resolve(), "after": ROOT}
    git = ["git", "-C", str(arguments.before), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, pair in pairs(arguments.data.resolve()).items():
            if arguments.only and name not in arguments.only.split(","):
                continue
            measured: dict[str, list[Measured]] = {side: [] for side in trees}
            for turn in range(arguments.repeat + 1):
                for side, tree in trees.items():
                    one = run(tree, pair, Path(scratch, f"{name} {side}"))
                    if turn:
                        measured[side].append(one)
            rows[name] = {
                side: {
                    "wall_s": median([one.wall_s for one in runs]),
                    "cpu_s": median([one.cpu_s for one in runs]),
                    "peak_memory_mb": median([one.peak_memory_mb for one in runs]),
                    **figures(Path(scratch, f"{name} {side}"), pair.points),
                }
                for side, runs in measured.items()
            }
            print(name, json.dumps(rows[name]), flush=True)
    write_results("two_commits", {f"{name}, {commit} before": row for name, row in rows.items()})


if __name__ == "__main__":
    main()
