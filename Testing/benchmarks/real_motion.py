"""Registration of pairs that move as real patients breathed, against dense truth, ours beside peers in one run.

    python Testing/benchmarks/real_motion.py DATA [--pairs 0314_m1 ...] [--peers .venv-peers/bin/python] [--cache FOLDER]

DATA holds ``ct15``, ``native`` and ``motion``. Twelve pairs of six patients; half of the motions are for judging alone
and chose nothing (``real_motion_pairs.py``). Motion, lesions and their change are put into real scans; the motion's shape
was measured in other patients. Errors are |y - y_true| at every voxel of the true lungs of the reference whose true place
lies in the true lungs of the template, apart within 4 mm of their surface and deeper. The surface is where the true lungs
of the template, warped by y, end: its distance from that of the true lungs of the reference; by the true y it is not 0,
since masks have voxels. Times are of whole processes.

Pairs and figures stay in the cache: a stopped run goes on, another commit measures anew, ``--again`` always does.
Results: ``results/real_motion.json``.
"""  # noqa: E501

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import real_motion_pairs as made
from numpy.typing import NDArray
from record import measure, metadata, write_results
from registration import LABEL, OURS, PEERS, THREADS, command
from registration_cases import Case
from registration_measures import judge
from scipy import ndimage
from scipy.spatial.transform import Rotation

from ChangeMapJointLib.core.displacement import DisplacementField, warp
from ChangeMapJointLib.core.grid import FloatArray, Grid
from ChangeMapJointLib.io.read import read_array
from ChangeMapJointLib.synthesis.real_motion import relative_shift_mm

RIM_MM = 4.0
BARS = {"mean_mm": 0.45, "p95_mm": 1.3, "surface_p95_mm": 1.2, "folding_percent": 0.0}
MEASURED_WITH = (OURS, "greedy", "convexadam")
CACHE = Path(tempfile.gettempdir()) / "changemap-real-motion"


def main() -> None:
    """Measure every method on every pair."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--pairs", "--cases", nargs="+", default=list(made.PAIRS), choices=list(made.PAIRS))
    parser.add_argument("--peers", type=Path, help="Python of an environment with registration_peers.txt")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--again", action="store_true", help="measure also what this commit has measured")
    parser.add_argument("--dry", action="store_true", help="print, and leave results/real_motion.json alone")
    arguments = parser.parse_args()
    os.environ.update(THREADS)
    started = metadata()
    methods = MEASURED_WITH if arguments.peers else (OURS,)
    for name in arguments.pairs:
        folder = arguments.cache / name
        made.make(arguments.data, name, folder)
        case = made.read(folder, name, "")
        found = {"what": describe(case, made.PAIRS[name]), "methods": {}}
        for method in methods:
            figures = kept(folder, method, started["commit"], arguments.again) or run(case, method, arguments, folder)
            figures.setdefault("commit", started["commit"])
            (folder / f"{method}.json").write_text(json.dumps(figures))
            found["methods"][PEERS.get(method, LABEL)] = figures
            print(name, method, json.dumps(figures), flush=True)
        if not arguments.dry:
            write_results("real_motion", {name: found}, started)
    if not arguments.dry:
        document = json.loads(write_results("real_motion", {}, started).read_text("utf-8"))
        summary = {label: summarised(document, label) for label in labels(document)}
        write_results("real_motion", {"summary": {"bars": BARS, **summary}}, started)
        print(json.dumps(summary), flush=True)


def kept(folder: Path, method: str, commit: str, again: bool) -> dict[str, Any] | None:
    """What this commit has measured of ours, or any commit of a peer."""
    path = folder / f"{method}.json"
    if again or not path.exists():
        return None
    figures: dict[str, Any] = json.loads(path.read_text())
    return figures if figures["commit"] == commit or method in PEERS else None


def describe(case: Case, pair: made.RealPair) -> dict[str, Any]:
    """How the pair moves, before anything is registered."""
    assert case.truth is not None
    field, inside = case.truth.field, case.truth.lungs_reference
    points = field.grid.to_physical(np.argwhere(inside)[::7, ::-1])
    u = field.vectors_mm[inside][::7].astype(float)
    det = field.jacobian_determinant()[ndimage.binary_erosion(inside, iterations=2)]  # the surface slides
    return {
        "patient": pair.patient,
        "motion": f"case {pair.case:03d}{' backward' if pair.backward else ''}",
        "judged_only": not pair.shipped,
        "before_mm": round(float(np.linalg.norm(u, axis=1).mean()), 2),
        "best_rigid_mm": round(float(np.linalg.norm(rigid_rest(points, points + u), axis=1).mean()), 2),
        "relative_shift_mm": round(relative_shift_mm(u), 2),
        "det": [round(float(v), 2) for v in (det.min(), *np.percentile(det, (1, 99)), det.max())],
    }


def rigid_rest(a: FloatArray, b: FloatArray) -> FloatArray:
    """What is left of b - a after the best rigid motion."""
    rotation, _ = Rotation.align_vectors(b - b.mean(0), a - a.mean(0))
    return np.asarray(b - b.mean(0) - rotation.apply(a - a.mean(0)))


def run(case: Case, method: str, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Register by one method and judge it."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        out = Path(scratch)
        try:
            timed = measure(command("register", method, case, out, arguments.peers))
        except RuntimeError as error:
            return {"failed": str(error).splitlines()[0].split(" from ")[0]}
        measure(command("dense", method, case, out, arguments.peers))
        vectors = np.load(out / "dense.npy")
    costs = {"wall_s": timed.wall_s, "cpu_s": timed.cpu_s, "peak_memory_mb": timed.peak_memory_mb}
    return {**judged(case, vectors), **costs}


def judged(case: Case, vectors_mm: NDArray[np.float32]) -> dict[str, Any]:
    """Figures of u, float32 ``[z, y, x, 3]`` in mm on the reference's grid."""
    truth = case.truth
    assert truth is not None
    grid, inside = truth.field.grid, truth.lungs_reference
    template_grid = read_array(case.template)[1]
    # where the lungs slide, a voxel at their surface is part wall: its true place may lie outside the other's lungs
    tissue = inside & (warp(truth.lungs_template, template_grid, grid, truth.field) >= 0.5)
    error = np.linalg.norm(vectors_mm[tissue] - truth.field.vectors_mm[tissue], axis=1)
    deep = (ndimage.distance_transform_edt(inside, sampling=grid.spacing_mm[::-1]) > RIM_MM)[tissue]
    found = DisplacementField(vectors_mm, grid)
    levels = signed_distance(truth.lungs_template, template_grid), signed_distance(inside, grid)
    surface, at_best = (surface_mm(levels, template_grid, field) for field in (found, truth.field))
    figures = judge(case, vectors_mm)
    return {
        "left_out_percent": round(100 * (1 - float(tissue.sum() / inside.sum())), 2),
        **spread("", error),
        **spread("rim_", error[~deep]),
        **spread("deep_", error[deep]),
        "above_3_mm_percent": round(100 * float((error > 3).mean()), 3),
        **spread("surface_", surface),
        "surface_max_mm": round(float(surface.max()), 2),
        "surface_of_the_truth_mm": spread("", at_best),
        **{name: figures[name] for name in ("lung_dice", "folding_percent", "jacobian_min", "ncc", "ncc_of_the_truth")},
        "lesions": figures["lesions"],
    }


def spread(prefix: str, values: NDArray[np.floating]) -> dict[str, float]:
    mean, p95 = float(values.mean()), float(np.percentile(values, 95))
    return {f"{prefix}mean_mm": round(mean, 3), f"{prefix}p95_mm": round(p95, 3)}


def surface_mm(
    levels: tuple[NDArray[np.float32], NDArray[np.float32]], template_grid: Grid, field: DisplacementField
) -> NDArray[np.floating]:
    """Distances in mm from the surface of the warped template lungs to that of the reference's, below voxel size.

    The signed distance of the template's lungs, the first of ``levels``, is warped; its zeros between neighbours
    are the surface. The second is that of the reference's lungs.
    """
    to_surface = levels[1]
    level = warp(levels[0], template_grid, field.grid, field, outside=100.0)
    found = []
    for axis in range(3):
        a, b = (np.moveaxis(level, axis, 0)[s] for s in (slice(None, -1), slice(1, None)))
        crossed = np.argwhere((a < 0) != (b < 0))
        t = a[tuple(crossed.T)] / (a[tuple(crossed.T)] - b[tuple(crossed.T)])
        places = crossed.astype(float)
        places[:, 0] += t
        order = np.argsort([axis, *(i for i in range(3) if i != axis)])  # back to z, y, x
        found.append(np.abs(ndimage.map_coordinates(to_surface, places[:, order].T, order=1, mode="nearest")))
    return np.concatenate(found)


def signed_distance(mask: NDArray[np.bool_], grid: Grid) -> NDArray[np.float32]:
    """Distance to the surface in mm, negative inside; the surface lies halfway between voxels."""
    outside, inside = (_to_surface(part, grid) for part in (~mask, mask))
    return np.where(mask, -inside, outside).astype(np.float32)


def _to_surface(part: NDArray[np.bool_], grid: Grid) -> NDArray[np.float32]:
    """Distance of the voxels in ``part`` to the nearest voxel beyond it, less half a voxel in that direction."""
    spacing = np.array(grid.spacing_mm[::-1], dtype=np.float32)
    distance, nearest = ndimage.distance_transform_edt(part, sampling=spacing, return_indices=True)
    half = np.zeros(part.shape, np.float32)
    for axis in range(3):
        along = np.arange(part.shape[axis], dtype=np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        away = np.abs(nearest[axis] - along) * spacing[axis]
        half = np.maximum(half, 0.5 * spacing[axis] * away / np.maximum(distance, 1e-6))
    return np.asarray(distance - half, dtype=np.float32)


def labels(document: dict[str, Any]) -> list[str]:
    """Every method that was measured."""
    return list(dict.fromkeys(label for name in made.PAIRS for label in document.get(name, {}).get("methods", {})))


def summarised(document: dict[str, Any], label: str) -> dict[str, Any]:
    """Means over pairs with 95 % intervals (bootstrap over patients), and how many pairs meet each bar."""
    rows = [
        (document[name]["what"], document[name]["methods"][label])
        for name in made.PAIRS
        if label in document.get(name, {}).get("methods", {})
    ]
    good = [(what, figures) for what, figures in rows if "failed" not in figures]
    summary: dict[str, Any] = {"pairs": len(rows), "failed": len(rows) - len(good)}
    for group, chosen in (("all", (True, False)), ("judged_only", (True,))):
        part = [(what, figures) for what, figures in good if what["judged_only"] in chosen]
        if part:
            summary[group] = {
                name: interval(part, name) for name in (*BARS, "rim_mean_mm", "deep_mean_mm", "lung_dice")
            }
            summary[group]["meets"] = {
                name: f"{sum(figures[name] <= bar for _, figures in part)} of {len(part)}" for name, bar in BARS.items()
            }
    return summary


def interval(rows: list[tuple[dict[str, Any], dict[str, Any]]], name: str) -> list[float]:
    """Mean of a figure, and the limits between which it lies for 95 % of patients drawn with replacement."""
    patients = sorted({what["patient"] for what, _ in rows})
    values = [[figures[name] for what, figures in rows if what["patient"] == patient] for patient in patients]
    rng = np.random.default_rng(0)
    means = [
        np.concatenate([values[i] for i in rng.integers(len(patients), size=len(patients))]).mean() for _ in range(2000)
    ]
    return [round(float(v), 4) for v in (np.concatenate(values).mean(), *np.percentile(means, (2.5, 97.5)))]


if __name__ == "__main__":
    main()
