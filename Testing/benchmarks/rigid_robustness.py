"""Rigid pre-alignment: how exact, how robust, and how clearly it tells one chest from another.

    python Testing/benchmarks/rigid_robustness.py DATA [--quick]

DATA holds ``ct15``, ``dicom``, ``pairs/known20mm`` and ``pairs/popi``. Pairs of one patient are made from real CTs
(moved, breathed, cropped, noisy, thick, one lung filled) except POPI, a real 4D CT, and the native DICOM series
against their own 1.5 mm versions. Pairs of two patients are all ordered pairs of the eight patients, also mirrored;
the rest are flips of one patient. The table of the agreement figures is what the bars of ``RigidOptions`` rest on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from record import write_results
from scipy import ndimage
from scipy.spatial.transform import Rotation

from ChangeMapJointLib.core.grid import FloatArray, Grid, apply_affine
from ChangeMapJointLib.core.resample import resample
from ChangeMapJointLib.registration.rigid import RigidAlignment, align_scans, prepare
from ChangeMapJointLib.registration.rigid_verdict import RigidOptions, unlike_chests, unlike_place
from ChangeMapJointLib.training.acquisition import Scan, moved_scan
from ChangeMapJointLib.training.motion import MotionOptions, draw_motion
from ChangeMapJointLib.volumes.lungs import segment_lungs
from ChangeMapJointLib.volumes.reading import read_volume
from ChangeMapJointLib.volumes.volume import Volume

FRAME_SHIFT_MM = np.array([300.0, -250.0, 420.0])  # scanners that do not share an origin
AIR_HU = -1024


@dataclass(frozen=True)
class Chest:
    """A scan with its lungs."""

    volume: Volume
    lungs: NDArray[np.bool_]

    def points_mm(self, count: int = 3000) -> FloatArray:
        """Physical points spread over the lungs."""
        index = np.argwhere(self.lungs)
        return self.volume.grid.to_physical(index[:: max(1, len(index) // count), ::-1])


@dataclass(frozen=True)
class Pair:
    """Two scans; ``truth`` are template points of ``reference.points_mm()`` where they are known."""

    group: str
    name: str
    reference: Chest
    template: Chest
    truth: tuple[FloatArray, FloatArray] | None = None


# -- how scans differ -----------------------------------------------------------------
def read_chest(path: Path) -> Chest:
    """A scan and its lungs as the product finds them."""
    volume = read_volume(path)
    return Chest(volume, segment_lungs(volume).mask)


def rigid(centre_mm: FloatArray, turn_deg: tuple[float, float, float], shift_mm: FloatArray) -> FloatArray:
    """4x4: turn about the centre, then shift."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", turn_deg, degrees=True).as_matrix()
    matrix[:3, 3] = centre_mm + shift_mm - matrix[:3, :3] @ centre_mm
    return matrix


def moved(chest: Chest, matrix: FloatArray, pad_vox: int = 0) -> Chest:
    """The chest at ``matrix @ x``, on its own grid (what leaves it is lost), or a padded one that follows the shift."""
    grid = chest.volume.grid
    if pad_vox:
        shift = apply_affine(matrix, grid.centre_mm) - grid.centre_mm
        grid = shifted_grid(grid.crop((-pad_vox,) * 3, np.add(grid.shape, pad_vox)), shift)
    back = np.linalg.inv(matrix)
    hu = resample(chest.volume.array, chest.volume.grid, grid, matrix=back, outside=AIR_HU)
    lungs = resample(chest.lungs, chest.volume.grid, grid, matrix=back) > 0.5
    return Chest(Volume(np.rint(hu).astype(np.int16), grid), lungs)


def shifted_grid(grid: Grid, shift_mm: FloatArray) -> Grid:
    x, y, z = (float(v) for v in np.add(grid.origin_mm, shift_mm))
    return replace(grid, origin_mm=(x, y, z))


def in_other_frame(chest: Chest) -> Chest:
    """The same voxels in the frame of another scanner."""
    return Chest(Volume(chest.volume.array, shifted_grid(chest.volume.grid, FRAME_SHIFT_MM)), chest.lungs)


def thick(chest: Chest, thickness_mm: float = 5.0) -> Chest:
    """Slices of 5 mm."""
    grid = chest.volume.grid
    slices = round(thickness_mm / grid.spacing_mm[2])
    blurred = ndimage.uniform_filter1d(chest.volume.array.astype(np.float32), slices, axis=0)
    target = grid.with_spacing((grid.spacing_mm[0], grid.spacing_mm[1], thickness_mm))
    hu = np.rint(resample(blurred, grid, target, outside=AIR_HU)).astype(np.int16)
    return Chest(Volume(hu, target), resample(chest.lungs, grid, target) > 0.5)


def noisy(chest: Chest, sigma_hu: float, seed: int) -> Chest:
    hu = chest.volume.array + np.random.default_rng(seed).normal(0.0, sigma_hu, chest.volume.array.shape)
    return Chest(Volume(np.clip(np.rint(hu), -1024, 3071).astype(np.int16), chest.volume.grid), chest.lungs)


def part(chest: Chest, low: float, high: float) -> Chest:
    """The slices between two heights of the lungs, 0 their bottom, 1 their top; beyond both everything is kept."""
    z = np.flatnonzero(chest.lungs.any(axis=(1, 2)))
    first = 0 if low <= 0 else int(z[0] + low * (z[-1] - z[0]))
    last = len(chest.lungs) if high >= 1 else int(z[0] + high * (z[-1] - z[0]))
    grid = chest.volume.grid.crop((first, 0, 0), (last, *chest.lungs.shape[1:]))
    return Chest(Volume(chest.volume.array[first:last], grid), chest.lungs[first:last])


def flipped(chest: Chest, *axes: int) -> Chest:
    """The content mirrored along array axes (0, 1, 2 for z, y, x)."""
    volume = Volume(np.ascontiguousarray(np.flip(chest.volume.array, axes)), chest.volume.grid)
    return Chest(volume, np.ascontiguousarray(np.flip(chest.lungs, axes)))


def one_lung_filled(chest: Chest, seed: int) -> Chest:
    """Soft tissue instead of the left lung, as after a collapse or a pneumonectomy."""
    left = chest.lungs.copy()
    left[:, :, : int(np.argwhere(chest.lungs)[:, 2].mean())] = False
    hu = chest.volume.array.copy()
    hu[left] = 30 + np.random.default_rng(seed).normal(0, 15, int(left.sum())).astype(np.int16)
    return Chest(Volume(hu, chest.volume.grid), chest.lungs & ~left)


def breathed(chest: Chest, seed: int, diaphragm_mm: float) -> tuple[Chest, tuple[FloatArray, FloatArray]]:
    """The chest at another depth of breathing, and where its lung points are in ``chest``."""
    grid = chest.volume.grid
    options = MotionOptions(
        diaphragm_mm=diaphragm_mm, ventral_mm=diaphragm_mm / 4, bump_mm=4.0, rotation_deg=4.0, translation_mm=10.0
    )
    motion = draw_motion(chest.lungs, grid, seed=seed, options=options)
    source = Scan(chest.volume.array.astype(np.float32), chest.lungs, np.zeros(grid.shape, np.int32), grid)
    scan = moved_scan(source, motion, grid)
    found = Chest(Volume(np.clip(np.rint(scan.hu), -1024, 3071).astype(np.int16), grid), scan.lungs)
    points = found.points_mm()
    return found, (points, motion(points))


# -- pairs ----------------------------------------------------------------------------
def same_patient(name: str, chest: Chest, seed: int) -> Iterator[Pair]:
    """What one scan can be compared with in a follow-up."""
    points = chest.points_mm()
    centre = points.mean(axis=0)
    yield Pair("itself", name, chest, chest, (points, points))
    small = rigid(centre, (3.0, -2.0, 3.4), np.array([8.0, -5.0, 12.0]))
    yield Pair(
        "moved (8, -5, 12) mm, 5 degrees", name, chest, moved(chest, small), (points, apply_affine(small, points))
    )
    for axis, angle in enumerate((20.0, -20.0, 20.0)):
        turn = rigid(centre, tuple(angle * (np.arange(3) == axis)), FRAME_SHIFT_MM)  # type: ignore[arg-type]
        far = moved(chest, turn, pad_vox=30)
        yield Pair(
            "turned 20 degrees, other frame", f"{name} {'xyz'[axis]}", chest, far, (points, apply_affine(turn, points))
        )
    yield Pair("5 mm slices", name, chest, thick(chest), (points, points))
    yield Pair("noise 80 HU", name, chest, noisy(chest, 80.0, seed), (points, points))
    for depth in (20.0, 40.0):
        other, truth = breathed(chest, seed, depth)
        yield Pair(f"breathed {depth:.0f} mm", name, other, chest, truth)
        yield Pair(f"breathed {depth:.0f} mm, swapped", name, chest, other)
        if depth > 20:
            continue
        worn = in_other_frame(thick(noisy(chest, 40.0, seed)))
        yield Pair("breathed, noise, 5 mm, other frame", name, other, worn, (truth[0], truth[1] + FRAME_SHIFT_MM))
        for half, limits in (("upper", (0.5, 1.0)), ("lower", (0.0, 0.5))):
            yield Pair(f"breathed, {half} half", name, other, in_other_frame(part(chest, *limits)))
        overlapping = in_other_frame(part(chest, 0.0, 0.65))
        yield Pair("breathed, upper against lower 65 %", name, part(other, 0.35, 1.0), overlapping)
        yield Pair("breathed, left lung filled", name, other, one_lung_filled(chest, seed))


def unlike(name: str, chest: Chest, others: dict[str, Chest]) -> Iterator[Pair]:
    """What must not be accepted."""
    for other_name, other in others.items():
        if other_name != name:
            yield Pair("other patient", f"{name} | {other_name}", chest, other)
            yield Pair("other patient, mirrored", f"{name} | {other_name}", chest, flipped(other, 2))
    for group, axes in (
        ("itself mirrored left-right", (2,)),
        ("itself upside down", (0,)),
        ("itself flipped front-back", (1,)),
        ("itself turned 180 degrees", (0, 2)),
        ("itself turned 180 degrees", (1, 2)),
    ):
        yield Pair(group, f"{name} {axes}", chest, flipped(chest, *axes))
    yield Pair("upper half against lower half", name, part(chest, 0.55, 1.0), part(chest, 0.0, 0.45))


def given_pairs(data: Path, chests: dict[str, Chest]) -> Iterator[Pair]:
    """Pairs that were not made here."""
    folder = data / "pairs" / "known20mm"
    rows = np.loadtxt(folder / "points.csv", delimiter=",", skiprows=1)
    rows = rows[rows[:, 6] == 0]
    r, t = (read_chest(folder / f"{role}.nii.gz") for role in ("reference", "template"))
    yield Pair("known20mm", "known20mm", r, t, (rows[:, :3], rows[:, 3:6]))
    phases = {p: read_chest(data / "pairs" / "popi" / f"phase_{p}.nii.gz") for p in ("00", "30", "50")}
    marks = {
        p: np.loadtxt(data / "pairs" / "popi" / f"phase_{p}_landmarks.csv", delimiter=",", skiprows=1) for p in phases
    }
    for a, b in (("00", "50"), ("00", "30"), ("30", "50")):
        yield Pair("POPI", f"{a} | {b}", phases[a], phases[b], (marks[a], marks[b]))
    for name, key in (("LIDC-IDRI-0314", "LIDC-IDRI-0314"), ("LungDx-A0001_kernelB", "LungDx-A0001_kernelB")):
        native = read_chest(data / "dicom" / f"{name}.zip")
        points = native.points_mm()
        yield Pair("native DICOM against its 1.5 mm version", name, native, chests[key], (points, points))
        abdomen = below_the_lungs(native)
        if abdomen is not None:
            yield Pair("chest against abdomen", f"LIDC-IDRI-0001 | {name}", chests["LIDC-IDRI-0001"], abdomen)


def below_the_lungs(chest: Chest) -> Chest | None:
    """The slices from 30 mm above the lungs' lower end downwards; the gas in them stands in for lungs."""
    grid = chest.volume.grid
    bottom = np.flatnonzero(chest.lungs.any(axis=(1, 2)))[0]
    last = int(bottom + 30.0 / grid.spacing_mm[2])
    below = part(chest, 0.0, 1.0)
    hu = below.volume.array[:last]
    gas = (hu < -300) & ndimage.binary_fill_holes(hu > -300, structure=np.ones((1, 3, 3)))
    grid = grid.crop((0, 0, 0), (last, *hu.shape[1:]))
    enough = float(gas.sum()) * grid.voxel_volume_ml > RigidOptions().least_lung_ml
    return Chest(Volume(hu, grid), gas) if enough else None


def all_pairs(data: Path, quick: bool) -> Iterator[Pair]:
    paths = sorted((data / "ct15").glob("*_ct.nii.gz"))[: 2 if quick else None]
    chests = {path.name.removesuffix("_ct.nii.gz"): read_chest(path) for path in paths}
    for seed, (name, chest) in enumerate(chests.items()):
        yield from same_patient(name, chest, seed)
    if not quick:
        yield from given_pairs(data, chests)
        chests["POPI"] = read_chest(data / "pairs" / "popi" / "phase_00.nii.gz")
    for name, chest in chests.items():
        yield from unlike(name, chest, chests)


# -- figures --------------------------------------------------------------------------
def errors_mm(matrix: FloatArray, truth: tuple[FloatArray, FloatArray]) -> dict[str, float]:
    """Distances of the moved points from their partners: after alignment, and for the best rigid motion there is."""
    points, partners = truth
    error = np.linalg.norm(apply_affine(matrix, points) - partners, axis=1)
    a, b = points - points.mean(axis=0), partners - partners.mean(axis=0)
    turn, _ = Rotation.align_vectors(b, a)
    best = np.linalg.norm(turn.apply(a) - b, axis=1)
    return {
        "error_mean_mm": round(float(error.mean()), 4),
        "error_max_mm": round(float(error.max()), 4),
        "best_rigid_mean_mm": round(float(best.mean()), 4),
    }


def measure(pair: Pair, options: RigidOptions) -> dict[str, Any]:
    """One row of the table."""
    start, cpu = time.monotonic(), time.process_time()
    fixed = prepare(pair.reference.volume, pair.reference.lungs, "reference", options)
    moving = prepare(pair.template.volume, pair.template.lungs, "template", options)
    found = align_scans(fixed, moving, options=options)
    row: dict[str, Any] = {
        "group": pair.group,
        "pair": pair.name,
        "wall_s": round(time.monotonic() - start, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
        "verdict": verdict(found, options),
    }
    if found is not None:
        row |= {"vessels": _round(found.similarity), "wall": _round(found.wall_similarity)}
        row |= {"lung_dice": _round(found.lung_dice), "overlap": [_round(v) for v in found.overlap]}
        if pair.truth is not None:
            row |= errors_mm(found.matrix, pair.truth)
    return row


def verdict(found: RigidAlignment | None, options: RigidOptions) -> str:
    if found is None or unlike_place(found.overlap, options):
        return "refused: no overlap"
    if unlike_chests(found.similarity, found.wall_similarity, options):
        return "refused: not the same chest"
    return "doubtful" if (found.similarity or 0.0) < options.warn_below else "accepted"


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """For every group of pairs: the range of every figure, what became of them, and the pairs themselves."""
    groups: dict[str, dict[str, Any]] = {}
    for group in dict.fromkeys(row["group"] for row in rows):
        members = [row for row in rows if row["group"] == group]
        line: dict[str, Any] = {"count": len(members)}
        for figure in ("vessels", "wall", "error_mean_mm", "error_max_mm", "best_rigid_mean_mm", "cpu_s"):
            values = [row[figure] for row in members if row.get(figure) is not None]
            if values:
                line[figure] = {"min": min(values), "median": _round(float(np.median(values))), "max": max(values)}
        verdicts = [row["verdict"] for row in members]
        line["verdicts"] = {v: verdicts.count(v) for v in sorted(set(verdicts))}
        groups[group] = {**line, "pairs": [{k: v for k, v in row.items() if k != "group"} for row in members]}
    return groups


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def main() -> None:
    """Measure every pair and write ``results/rigid_robustness.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--quick", action="store_true", help="two scans only, and nothing is written")
    arguments = parser.parse_args()
    options = RigidOptions()
    rows = []
    for pair in all_pairs(arguments.data, arguments.quick):
        rows.append(measure(pair, options))
        print(json.dumps(rows[-1]), flush=True)
    if not arguments.quick:
        print(write_results("rigid_robustness", summary(rows)))


if __name__ == "__main__":
    main()
