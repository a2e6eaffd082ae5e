"""Pairs with known correspondences: given ones, and ones made from real CTs by the project's generator."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.grid import FloatArray, Grid
from ChangeMapJointLib.core.resample import resample
from ChangeMapJointLib.io.read import read_volume
from ChangeMapJointLib.lungs.segment import segment_lungs
from ChangeMapJointLib.scan.volume import Volume
from ChangeMapJointLib.synthesis.motion import MotionOptions
from ChangeMapJointLib.synthesis.pairs import KnownPair, LesionPlan, PairOptions, make_pair

LESIONS = (
    LesionPlan("new", 12.0, 0.0),
    LesionPlan("resolved", 0.0, 12.0),
    LesionPlan("grown", 16.0, 10.0),
    LesionPlan("shrunk", 9.0, 15.0),
    LesionPlan("stable", 12.0, 12.0),
)
VOXEL_MM = 1.75  # as known20mm


@dataclass(frozen=True)
class Points:
    """Corresponding points ``[n, 3]`` (LPS, mm), and to which group each belongs."""

    reference_mm: FloatArray
    template_mm: FloatArray
    group: NDArray[np.str_]


@dataclass(frozen=True)
class LesionCase:
    """One lesion: its centre in both scans (LPS, mm), and L^T, bool ``[z, y, x]`` on the template's grid."""

    kind: str
    reference_mm: FloatArray
    template_mm: FloatArray
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class Truth:
    """The true deformation on the reference's grid, and both lungs, bool on their own grids."""

    field: DisplacementField
    lungs_reference: NDArray[np.bool_]
    lungs_template: NDArray[np.bool_]


@dataclass(frozen=True)
class Case:
    """A pair as files, and what is known of it."""

    name: str
    what: str
    reference: Path
    template: Path
    points: Points
    truth: Truth | None = None
    lesions: tuple[LesionCase, ...] = ()


def made(
    what: str, scan: str, seed: int, *, half: bool = False, **options: object
) -> Callable[[Path, Path, str], Case]:
    """A case from the generator: 38 mm at the diaphragm and 40 HU of noise unless ``options`` say otherwise."""

    def make(data: Path, scratch: Path, name: str) -> Case:
        volume = read_volume(data / "ct15" / f"{scan}_ct.nii.gz")
        large = MotionOptions(diaphragm_mm=38.0, ventral_mm=9.5, bump_mm=6.0)
        given = PairOptions(
            motion=large,
            lesions=LESIONS,
            reference_spacing_mm=(VOXEL_MM,) * 3,
            template_spacing_mm=(VOXEL_MM,) * 3,
            reference_noise_hu=40.0,
            template_noise_hu=40.0,
        )
        pair = make_pair(volume, segment_lungs(volume).mask, seed=seed, options=replace(given, **options))  # type: ignore[arg-type]
        template = upper_part(pair.template, pair.lungs_template) if half else pair.template
        return write_case(scratch, name, what, pair, template)

    return make


def upper_part(volume: Volume, lungs: NDArray[np.bool_]) -> Volume:
    """The scan from the middle of the lungs upwards."""
    heights = np.flatnonzero(lungs.any(axis=(1, 2)))
    first = int(heights[0] + heights[-1]) // 2
    grid = volume.grid.crop((first, 0, 0), volume.grid.shape)
    return Volume(np.ascontiguousarray(volume.array[first:]), grid)


def write_case(scratch: Path, name: str, what: str, pair: KnownPair, template: Volume) -> Case:
    """The pair as NIfTI files, with the points and lesions that the template shows."""
    folder = scratch / name
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for side, volume in (("reference", pair.reference), ("template", template)):
        files.append(folder / f"{side}.nii.gz")
        write_nifti(files[-1], volume.array, volume.grid)
    there = pair.points
    seen = template.grid.contains(there.template_mm)
    groups = np.where(there.on_vessel, "vessel", "lung")
    shown = slice(pair.template.grid.shape[0] - template.grid.shape[0], None)  # all, or the upper part
    lesions = tuple(
        LesionCase(
            c.kind,
            np.array([c.centre_reference_mm]),
            np.array([c.centre_template_mm]),
            pair.lesions_template[shown] == c.id,
        )
        for c in pair.changes
        if template.grid.contains(np.array([c.centre_template_mm]))[0]
    )
    field = pair.field()
    points = field.grid.to_physical(np.argwhere(pair.lungs_reference)[:, ::-1].astype(float))
    lungs = pair.lungs_reference.copy()
    lungs[pair.lungs_reference] = template.grid.contains(field.apply(points))
    truth = Truth(field, lungs, pair.lungs_template[shown])
    points_seen = Points(there.reference_mm[seen], there.template_mm[seen], groups[seen])
    return Case(name, what, files[0], files[1], points_seen, truth, lesions)


def write_nifti(path: Path, array: NDArray[np.generic], grid: Grid) -> None:
    """For programs that read nothing else."""
    import SimpleITK as sitk

    sitk.WriteImage(grid.to_image(array), str(path))


def known20mm(data: Path, scratch: Path, name: str) -> Case:
    """The given pair of 20 mm; its true motion is known at 4,500 points, between them it is a spline."""
    folder = data / "pairs" / "known20mm"
    rows, lesions = rows_of(folder / "points.csv"), rows_of(folder / "lesions.csv")
    points = Points(
        *(np.array([[float(row[f"{s}{a}"]) for a in "xyz"] for row in rows]) for s in "rt"),
        np.array(["vessel" if float(row["on_vessel"]) > 0 else "lung" for row in rows]),
    )
    lungs = [read_volume(folder / f"{side}_lungs.nii.gz") for side in ("reference", "template")]
    masks = [volume.array > 0 for volume in lungs]
    field = interpolated(points, masks[0], lungs[0].grid)
    grid = lungs[1].grid
    everywhere = grid.to_physical(np.argwhere(np.ones(grid.shape, bool))[:, ::-1].astype(float))
    shown = []
    for row in lesions:
        r, t = (np.array([[float(row[f"{s}{a}"]) for a in "xyz"]]) for s in "rt")
        near = np.linalg.norm(everywhere - t, axis=1) <= float(row["radius_template_mm"])
        shown.append(LesionCase(row["kind"], r, t, near.reshape(grid.shape)))
    what = "A scan breathed out by a known motion of up to 20 mm, with six lesions."
    files = (folder / "reference.nii.gz", folder / "template.nii.gz")
    return Case(name, what, *files, points, Truth(field, masks[0], masks[1]), tuple(shown))


def interpolated(points: Points, lungs: NDArray[np.bool_], grid: Grid) -> DisplacementField:
    """U between ``points`` by a local quintic spline (0.03 mm off at points left out), every third voxel of ``lungs``.

    Farther than two such voxels from the lungs it is 0.
    """
    from scipy.interpolate import RBFInterpolator

    places, once = np.unique(points.reference_mm, axis=0, return_index=True)
    spline = RBFInterpolator(places, points.template_mm[once] - places, neighbors=200, kernel="quintic", degree=2)
    coarse = grid.with_spacing((3 * grid.spacing_mm[0], 3 * grid.spacing_mm[1], 3 * grid.spacing_mm[2]))
    near = ndimage.binary_dilation(resample(lungs, grid, coarse) > 0.02, iterations=2)
    u = np.zeros((*coarse.shape, 3), np.float32)
    u[near] = spline(coarse.to_physical(np.argwhere(near)[:, ::-1].astype(float)))
    return DisplacementField(u, coarse)


def popi(data: Path, scratch: Path, name: str) -> Case:
    """The given real 4D CT."""
    folder = data / "pairs" / "popi"
    r, t = (
        np.array([[float(row[a]) for a in "xyz"] for row in rows_of(folder / f"phase_{p}_landmarks.csv")])
        for p in ("00", "50")
    )
    what = "Two phases of a real 4D CT with landmarks (frame fitted: +-2 mm, for ranking only)."
    groups = np.full(len(r), "lung")
    return Case(name, what, folder / "phase_00.nii.gz", folder / "phase_50.nii.gz", Points(r, t, groups))


def rows_of(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV file."""
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


CASES: dict[str, Callable[[Path, Path, str], Case]] = {
    "known20mm": known20mm,
    "popi": popi,
    "hard38mm": made("38 mm at the diaphragm, noise 40 HU, five lesions.", "LIDC-IDRI-0314", 101),
    "hard38mm_b": made("The same from another patient.", "LIDC-IDRI-1011", 103),
    "sliding40mm": made(
        "40 mm at the diaphragm, the lungs slide along the ribs.",
        "LIDC-IDRI-0314",
        104,
        sliding=1.0,
        motion=MotionOptions(diaphragm_mm=40.0, ventral_mm=10.0, bump_mm=6.0),
    ),
    "half": made("The template shows the upper half of the lungs only.", "LIDC-IDRI-0314", 105, half=True),
    "thick": made(
        "Slices of 1 mm against 5 mm, 20 mm at the diaphragm.",
        "LIDC-IDRI-0314",
        106,
        motion=MotionOptions(diaphragm_mm=20.0),
        reference_spacing_mm=(1.5, 1.5, 1.5),
        template_spacing_mm=(1.5, 1.5, 5.0),
        reference_noise_hu=20.0,
        template_noise_hu=10.0,
    ),
}
