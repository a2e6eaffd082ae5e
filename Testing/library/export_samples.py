"""A small pair with hand-made findings, for the tests of the report and the tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ChangeMapJointLib.change.findings import Finding, Findings
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.export.content import ReportContent
from ChangeMapJointLib.lesions.measure import LesionMeasure
from ChangeMapJointLib.registration.quality import Quality
from ChangeMapJointLib.scan.volume import Acquisition, Volume

SHIFT_MM = (10.0, -6.0, 8.0)  # y(x) = x + SHIFT_MM
GRID = Grid((40, 36, 44), (3.0, 3.0, 3.0), (-64.5, -52.5, -58.5))
TEMPLATE_GRID = replace(GRID, origin_mm=(-54.5, -58.5, -50.5))  # moved by SHIFT_MM with the patient
NEW_MM, GONE_MM = (-30.0, 12.0, 20.0), (24.0, -9.0, -15.0)


def ball(grid: Grid, centre_mm: tuple[float, float, float], radius_mm: float) -> np.ndarray:
    """True in the ball, bool ``[z, y, x]``."""
    index = np.stack(np.indices(grid.shape)[::-1], axis=-1)
    return np.linalg.norm(grid.to_physical(index) - np.asarray(centre_mm), axis=-1) <= radius_mm


def measure(volume_ml: float, long_mm: float, across_mm: float) -> LesionMeasure:
    return LesionMeasure(
        centre_mm=(0.0, 0.0, 0.0),
        volume_ml=volume_ml,
        volume_error=0.1,
        long_diameter_mm=long_mm,
        perpendicular_diameter_mm=across_mm,
        mean_hu=-12.0,
        peak_hu=60.0,
        lung_hu=-850.0,
        voxels=50,
    )


def finding(number: int = 1, **changes: object) -> Finding:
    """A new nodule at NEW_MM unless ``changes`` say otherwise."""
    plain = Finding(
        id=number,
        kind="new",
        centre_mm=NEW_MM,
        centre_template_mm=(-20.0, 6.0, 28.0),
        peak_mm=(-19.0, 7.0, 29.0),
        lung="right",
        voxels=123,
        volume_ml=3.321,
        peak=0.8476,
        peak_hu=889.6,
        long_diameter_mm=18.0,
        perpendicular_diameter_mm=15.5,
        elongation=1.1,
        lesion_reference=measure(3.05, 17.25, 16.0),
        lesion_template=None,
        volume_change_percent=None,
        volume_change_interval_percent=None,
        diameter_change_mm=None,
        trust=0.93,
        partner=None,
        remark="A nodule that the prior scan does not show.",
    )
    return replace(plain, **changes)


def grown(number: int = 2) -> Finding:
    return finding(
        number,
        kind="grown",
        lung="left",
        centre_mm=GONE_MM,
        centre_template_mm=(34.0, -15.0, -7.0),
        volume_ml=0.0456,
        lesion_reference=measure(1.8, 15.5, 14.9),
        lesion_template=measure(0.72, 11.7, 11.7),
        volume_change_percent=150.6,
        volume_change_interval_percent=(81.2, 257.9),
        diameter_change_mm=3.8,
        trust=0.41,
        remark="The registration is uncertain here.",
    )


def quality(verdict: str = "good", reasons: tuple[str, ...] = ("Nothing folds.",)) -> Quality:
    return Quality(
        residual_hu=31.2,
        residual_rigid_hu=88.0,
        folding_percent=0.0,
        jacobian_min=0.71,
        jacobian_max=1.38,
        sd_log_jacobian=0.08,
        lung_dice=0.9921,
        lung_dice_rigid=0.941,
        inverse_consistency_mm=0.61,
        inverse_consistency_p95_mm=1.94,
        keypoint_error_mm=0.83,
        keypoints_found=1650,
        keypoints_dropped=212,
        overlap=0.985,
        trusted_percent=97.0,
        verdict=verdict,  # type: ignore[arg-type]
        reasons=reasons,
    )


def findings(*items: Finding) -> Findings:
    labels = np.zeros(GRID.shape, dtype=np.int32)
    for item in items:
        labels[ball(GRID, item.centre_mm, 9.0)] = item.id
    return Findings(items, labels)


def content(*items: Finding, **changes: object) -> ReportContent:
    """A new nodule at NEW_MM and a resolved one at GONE_MM in -850 HU; the prior is moved by SHIFT_MM."""
    new, gone = ball(GRID, NEW_MM, 9.0), ball(GRID, GONE_MM, 9.0)
    reference = np.where(new, 40, -850).astype(np.int16)
    warped = np.where(gone, 40, -850).astype(np.int16)
    signed = (reference - warped).astype(np.float32)
    matrix = np.eye(4)
    matrix[:3, 3] = SHIFT_MM
    plain = ReportContent(
        reference=Volume(reference, GRID, Path("current.nrrd"), Acquisition(date="2024-02-05", kernel="B30f")),
        template=Volume(warped, TEMPLATE_GRID, Path("prior.nrrd"), Acquisition(date="2023-02-05")),
        warped_template=warped,
        method="sequential",
        change_map=np.abs(signed) / 1050,
        signed_hu=signed,
        displacement=DisplacementField.from_affine(matrix, GRID),
        findings=findings(*items),
        quality=quality(),
    )
    return replace(plain, **changes)
