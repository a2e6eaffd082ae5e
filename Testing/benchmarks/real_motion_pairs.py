"""Pairs of real scans that move as real patients breathed, with dense truth and lesions, as folders of ``synthesize``.

The motions are those of ten pairs of inspiration and expiration (Learn2Reg LungCT, correspondences by corrField).
Five of them ship with the project and may be trained on; the others are used for judging alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from registration_cases import Case, LesionCase, Points, Truth

from ChangeMapJointLib.io.read import read_array, read_volume
from ChangeMapJointLib.io.write import read_displacement
from ChangeMapJointLib.lungs.segment import segment_lungs
from ChangeMapJointLib.synthesis.motion import MotionOptions
from ChangeMapJointLib.synthesis.pairs import KnownPair, LesionPlan, PairOptions, make_pair
from ChangeMapJointLib.synthesis.real_motion import RealMotion, fit_motion
from ChangeMapJointLib.synthesis.synthesize import write_pair
from ChangeMapJointLib.synthesis.truth import read_truth

VOXEL_MM = np.array([1.75, 1.25, 1.75])
FIRST_SEED = 700
SHIPPED = (1, 3, 5, 7, 9)  # may be trained on; 2, 4, 6, 8 and 10 are for judging alone
LESIONS = (
    LesionPlan("new", 8.0, 0.0),
    LesionPlan("resolved", 0.0, 8.0, place="vessel"),
    LesionPlan("grown", 12.0, 8.0),
    LesionPlan("grown", 9.0, 6.0, place="pleura"),
    LesionPlan("shrunk", 7.0, 10.0, place="vessel"),
    LesionPlan("stable", 7.0, 7.0),
    LesionPlan("new", 12.0, 0.0, texture="ground-glass"),
)


@dataclass(frozen=True)
class RealPair:
    """One pair.

    Attributes:
        scan: file below DATA, without its ending.
        case: number of the motion.
        backward: from inspiration to expiration.
        size_mm: median distance by which two points in the lungs move against each other by it.
        depth_mm: motion of the diaphragm added to it, since the overall change of volume was taken out of the motions.
        rotation_deg: of the patient.
        noise_hu: of both scans; the template keeps its own as well.
        sliding: along the ribs.
        thick_mm: slice spacing of the template; 0: as the scan is.
    """

    scan: str
    case: int
    backward: bool
    size_mm: float
    depth_mm: float
    rotation_deg: float
    noise_hu: float = 15.0
    sliding: float = 0.8
    thick_mm: float = 0.0

    @property
    def patient(self) -> str:
        return self.scan.split("/")[1].removesuffix("_ct").removesuffix("_full")

    @property
    def shipped(self) -> bool:
        return self.case in SHIPPED


PAIRS = {
    "0314_m1": RealPair("ct15/LIDC-IDRI-0314_ct", 1, False, 8.0, 6.0, 2.0),
    "0314_m2": RealPair("ct15/LIDC-IDRI-0314_ct", 2, True, 8.0, -5.0, 1.0),
    "1011_m3": RealPair("ct15/LIDC-IDRI-1011_ct", 3, True, 12.0, 4.0, 3.0),
    "1011_m6": RealPair("ct15/LIDC-IDRI-1011_ct", 6, False, 14.0, -6.0, 1.5),
    "0001_m5": RealPair("ct15/LIDC-IDRI-0001_ct", 5, True, 6.0, -8.0, 3.0, noise_hu=25.0),
    "0001_m4": RealPair("ct15/LIDC-IDRI-0001_ct", 4, False, 8.0, 10.0, 2.0, noise_hu=25.0),
    "0014_m7": RealPair("native/QIN-LSC-0014_full_ct", 7, False, 10.0, -4.0, 2.0),
    "0014_m8": RealPair("native/QIN-LSC-0014_full_ct", 8, True, 10.0, 7.0, 1.0),
    "0028_m9": RealPair("native/QIN-LSC-0028_full_ct", 9, False, 14.0, 5.0, 4.0),
    "0028_m10": RealPair("native/QIN-LSC-0028_full_ct", 10, True, 8.0, -8.0, 2.0),
    "0063_m3": RealPair("native/LIDC-IDRI-0063_full_ct", 3, False, 5.0, 3.0, 1.5, noise_hu=25.0),
    "0063_m2": RealPair("native/LIDC-IDRI-0063_full_ct", 2, False, 12.0, 6.0, 3.0, noise_hu=25.0),
}


def motion_of(data: Path, case: int, *, backward: bool) -> RealMotion:
    """Fit the motion number ``case`` of DATA/motion."""
    rows = np.loadtxt(data / "motion" / f"case_{case:03d}.csv", delimiter=",")
    first, second = rows[:, :3] * VOXEL_MM, rows[:, 3:] * VOXEL_MM  # i, j and k run to the left, back and head: LPS
    name = f"Learn2Reg LungCT {case:03d}{', backward' if backward else ''}"
    return fit_motion(name, *((second, first) if backward else (first, second)))


def known(data: Path, name: str) -> KnownPair:
    """Make the pair of that name of :data:`PAIRS`, always the same."""
    pair = PAIRS[name]
    volume = read_volume(data / f"{pair.scan}.nii.gz")
    spacing = volume.grid.spacing_mm
    options = PairOptions(
        motion=MotionOptions(
            diaphragm_mm=pair.depth_mm,
            ventral_mm=0.2 * pair.depth_mm,
            lateral_mm=0.08 * pair.depth_mm,
            bumps=0,
            rotation_deg=pair.rotation_deg,
            translation_mm=8.0,
            minimum_det=0.25,
            real=motion_of(data, pair.case, backward=pair.backward),
            real_mm=pair.size_mm,
        ),
        sliding=pair.sliding,
        lesions=LESIONS,
        template_spacing_mm=(spacing[0], spacing[1], pair.thick_mm) if pair.thick_mm else None,
        reference_noise_hu=pair.noise_hu,
        template_noise_hu=pair.noise_hu,
        points=1500,
    )
    return make_pair(volume, segment_lungs(volume).mask, seed=FIRST_SEED + list(PAIRS).index(name), options=options)


def make(data: Path, name: str, folder: Path) -> None:
    """Write the pair into ``folder``, if it is not there."""
    if (folder / "truth.json").exists():
        return
    pair, seed = PAIRS[name], FIRST_SEED + list(PAIRS).index(name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_pair(folder, known(data, name), {"source": pair.patient, "seed": seed, "motion_case": pair.case})


def read(folder: Path, name: str, what: str) -> Case:
    """The pair in ``folder`` with its truth."""
    truth = read_truth(folder / "truth.json")
    assert truth.points is not None
    lesions, _ = read_array(folder / "lesions_template.nrrd")
    lungs = [read_array(folder / f"lungs_{side}.nrrd")[0] > 0 for side in ("reference", "template")]
    groups = np.where(truth.points.on_vessel, "vessel", "lung")
    shown = tuple(
        LesionCase(c.kind, np.array([c.centre_reference_mm]), np.array([c.centre_template_mm]), lesions == c.id)
        for c in truth.changes
    )
    return Case(
        name,
        what,
        folder / "reference.nrrd",
        folder / "template.nrrd",
        Points(truth.points.reference_mm, truth.points.template_mm, groups),
        Truth(read_displacement(folder / "deformation.nrrd"), *lungs),
        shown,
    )
