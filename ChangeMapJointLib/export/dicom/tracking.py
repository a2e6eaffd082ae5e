"""Follows lesions through time points: what an earlier export called a lesion, this one calls it, too.

The current scan of the earlier comparison is the prior scan of this one, so that both know its lesions at the same
points. Matching is by place alone: the earlier region of change or its middle must lie within :data:`NEAR_MM` of where
this comparison finds the lesion in that scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage

from ChangeMapJointLib.change.finding import Finding
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray, Vector3, apply_affine
from ChangeMapJointLib.io.dicom.images import SourceImages
from ChangeMapJointLib.io.dicom.values import parsing

NEAR_MM = 5.0
SEGMENTATION_FILE = "segmentation.dcm"


def earlier_tracking(folder: Path, findings: Sequence[Finding], template: SourceImages) -> dict[int, tuple[str, str]]:
    """Return (identifier, UID) of the findings whose lesion an earlier export tracks, by the id of the finding.

    Args:
        folder: of the earlier export; without a segmentation it had no finding.
        findings: of this comparison.
        template: images of this comparison's prior scan.

    Raises:
        InputError: the folder is not an export, its segmentation is damaged, or it belongs to another scan.
    """
    path = folder / SEGMENTATION_FILE
    if not path.exists():
        if not (folder / "measurements.dcm").exists():
            raise InputError("is not the folder of an export", field=("earlier", folder))
        return {}
    with parsing(path.name):
        segmentation = pydicom.dcmread(path)
        if segmentation.SOPClassUID != SegmentationStorage:
            raise InputError("is not a segmentation", field=path)
        series = str(segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID)
        if series != template.series_uid:
            raise InputError(
                "is the export of another scan",
                field=("earlier", folder),
                expected="an export whose current scan is this comparison's prior scan",
            )
        known = _segments(segmentation)
    distances = [
        (_distance_mm(points, _place(finding)), finding.id, key)
        for finding in findings
        if finding.kind not in ("new", "increase", "decrease") or finding.lesion_template is not None
        for key, points in known.items()
    ]
    result: dict[int, tuple[str, str]] = {}
    for distance, number, key in sorted(distances):  # the nearest first; each lesion once
        if distance <= NEAR_MM and number not in result and key not in result.values():
            result[number] = key
    return result


def _distance_mm(points: FloatArray, place_mm: Vector3) -> float:
    """Distance from a place to the nearest voxel of a region, or to its middle: that of a grown lesion is a rim."""
    ends = np.concatenate([points, points.mean(axis=0, keepdims=True)])
    return float(np.linalg.norm(ends - np.asarray(place_mm), axis=1).min())


def _place(finding: Finding) -> Vector3:
    """Where the lesion is in the prior scan."""
    return finding.centre_template_mm if finding.lesion_template is None else finding.lesion_template.centre_mm


def _segments(segmentation: Dataset) -> dict[tuple[str, str], FloatArray]:
    """Return the points ``[n, 3]`` in mm, LPS, of each segment that was still there, by its tracking."""
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    row, column = np.reshape([float(v) for v in shared.PlaneOrientationSequence[0].ImageOrientationPatient], (2, 3))
    across, along = (float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing)
    frames = np.atleast_3d(segmentation.pixel_array).reshape(-1, segmentation.Rows, segmentation.Columns)
    tracking = {int(s.SegmentNumber): (str(s.TrackingID), str(s.TrackingUID)) for s in segmentation.SegmentSequence}
    points: dict[tuple[str, str], list[FloatArray]] = {}
    for frame, groups in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        number = int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        matrix = np.eye(4)
        matrix[:3, 0], matrix[:3, 1] = row * along, column * across
        matrix[:3, 3] = [float(v) for v in groups.PlanePositionSequence[0].ImagePositionPatient]
        index = np.argwhere(frame)[:, ::-1]
        if len(index):
            moved = apply_affine(matrix, np.column_stack([index, np.zeros(len(index))]))
            points.setdefault(tracking[number], []).append(moved)
    return {key: np.concatenate(parts) for key, parts in points.items()}
