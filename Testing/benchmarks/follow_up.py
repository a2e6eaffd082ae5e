"""The real pair of a baseline and a follow-up, in both directions: rigid, landmarks, lung surfaces, and the list.

    python Testing/benchmarks/follow_up.py DATA [--method joint]

DATA holds ``pairs/followup_lung``: the right lung of one patient, scanned twice, without a known lesion, and landmarks,
of which the 50 good ones count. They lie on voxels of 1.4 x 1.4 x 2.5 mm in both scans: landmarks that are right but
rounded to voxels leave 1.1 to 1.2 mm by themselves (``landmark_rounding_mm``, computed here), so a smaller error cannot
be told from a larger one. Surfaces are those of the masks that come with the data, which no method sees, by region.
Every change that is listed is false as far as anybody knows. Writes ``results/follow_up.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from record import measure, metadata, write_results
from registration import THREADS
from scipy.spatial.transform import Rotation

import ChangeMapJointLib as cmj
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.grid import FloatArray, Grid, apply_affine
from ChangeMapJointLib.io.read import read_volume
from ChangeMapJointLib.registration.surface_agreement import surface_agreement
from ChangeMapJointLib.scan.pair import ScanPair
from ChangeMapJointLib.scan.scan import Scan

DIRECTIONS = {
    "follow-up against baseline": ("followup", "baseline"),
    "baseline against follow-up": ("baseline", "followup"),
}
BARS = {"mean_mm": 1.05, "p95_mm": 1.9, "rigid_above_best_mm": 0.5, "surface_p95_mm": 1.5, "listed": 1}
SEED = 5


def main() -> None:
    """Measure both directions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--method", default="sequential", choices=("sequential", "joint"))
    arguments = parser.parse_args()
    os.environ.update(THREADS)
    started, folder = metadata(), arguments.data / "pairs" / "followup_lung"
    for name, (reference, template) in DIRECTIONS.items():
        found: dict[str, Any] = {"bars": BARS}
        with tempfile.TemporaryDirectory() as scratch:
            found[f"changemap {arguments.method}"] = ours(folder, reference, template, Path(scratch), arguments.method)
        found["landmark_rounding_mm"] = rounding_mm(read_volume(image(folder, reference)).grid)
        print(name, json.dumps(found, indent=1), flush=True)
        write_results("follow_up", {f"{name}, {arguments.method}": found}, started)


def ours(folder: Path, reference: str, template: str, scratch: Path, method: str) -> dict[str, Any]:
    """A whole run, and what came of it."""
    out = scratch / "run"
    files = ["--reference", image(folder, reference), "--template", image(folder, template), "--out", out]
    timed = measure([str(Path(sys.executable).with_name("changemap")), "run", "--method", method, *map(str, files)])
    saved = cmj.load_result(out)
    here, there = landmarks(folder, reference, template)
    left = errors(apply_affine(saved.rigid, here), there)
    best = errors(apply_affine(best_rigid(here, there), here), there)
    sections = {name: sum(f["section"] == name for f in others(out)) for name in ("possible", "explained", "stable")}
    return {
        "rigid": left,
        "best_rigid": best,
        "rigid_above_best_mm": round(left["mean_mm"] - best["mean_mm"], 3),
        **judged(folder, reference, template, saved.deformation.field),
        "listed": len(saved.findings),
        **sections,
        "verdict": saved.quality.verdict,
        "wall_s": timed.wall_s,
        "cpu_s": timed.cpu_s,
        "peak_memory_mb": timed.peak_memory_mb,
    }


def judged(folder: Path, reference: str, template: str, field: DisplacementField) -> dict[str, Any]:
    """Error at the landmarks, and distance of the lungs' surfaces by the masks that come with the data."""
    here, there = landmarks(folder, reference, template)
    scans = [
        Scan.of(read_volume(image(folder, s)), read_volume(mask(folder, s)).array > 0) for s in (reference, template)
    ]
    surface = surface_agreement(ScanPair(*scans, np.eye(4)), field)
    assert surface is not None
    regions = {f"surface_{name}_p95_mm": part.p95_mm for name, part in surface.regions.items()}
    distances = {"surface_mean_mm": surface.mean_mm, "surface_p95_mm": surface.p95_mm, "surface_max_mm": surface.max_mm}
    return errors(field.apply(here), there) | {k: round(v, 2) for k, v in (distances | regions).items()}


def image(folder: Path, name: str) -> Path:
    return folder / f"3DCT_lung_{name}.mha"


def mask(folder: Path, name: str) -> Path:
    return folder / f"3DCT_lung_{name}_mask.mha"


def others(out: Path) -> list[dict[str, Any]]:
    """The changes that are not listed."""
    entries: list[dict[str, Any]] = json.loads((out / "candidates.json").read_text("utf-8"))["findings"]
    return entries


def landmarks(folder: Path, reference: str, template: str) -> tuple[FloatArray, FloatArray]:
    """The good landmarks in both scans, ``[n, 3]`` each, LPS in mm."""
    rows = np.genfromtxt(folder / "landmarks.csv", delimiter=",", names=True)
    rows = rows[rows["good"] == 1]
    columns = {"followup": "follow", "baseline": "base"}
    here, there = (np.stack([rows[f"{columns[s]}_{a}"] for a in "xyz"], axis=1) for s in (reference, template))
    return here, there


def errors(moved: FloatArray, there: FloatArray) -> dict[str, float]:
    apart = np.linalg.norm(moved - there, axis=1)
    figures = {"mean_mm": apart.mean(), "p95_mm": np.percentile(apart, 95), "max_mm": apart.max()}
    return {name: round(float(value), 3) for name, value in figures.items()}


def best_rigid(here: FloatArray, there: FloatArray) -> NDArray[np.float64]:
    """The rigid 4x4 matrix that fits the landmarks best."""
    rotation, _ = Rotation.align_vectors(there - there.mean(0), here - here.mean(0))
    matrix = np.eye(4)
    matrix[:3, :3] = rotation.as_matrix()
    matrix[:3, 3] = there.mean(0) - matrix[:3, :3] @ here.mean(0)
    return matrix


def rounding_mm(grid: Grid) -> float:
    """Mean distance of two points that are the same but rounded to voxels, in each scan on its own."""
    rng = np.random.default_rng(SEED)
    off = (rng.uniform(-0.5, 0.5, (2, 100_000, 3)) * grid.spacing_mm).astype(float)
    return round(float(np.linalg.norm(off[0] - off[1], axis=1).mean()), 3)


if __name__ == "__main__":
    main()
