"""Positions of the frames of a multi-frame file without functional groups, from the top level of its header.

Old converters and secondary captures write such files. Some give the position of each frame: by GridFrameOffsetVector
(as in dose grids), by SliceLocationVector (as in secondary captures), or by SliceVector with SpacingBetweenSlices (as
in nuclear medicine). A slice distance alone is not enough, since it does not tell which end comes first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray
from ChangeMapJointLib.io.dicom.values import as_numbers, as_text

VECTOR_TAGS = ("GridFrameOffsetVector", "SliceLocationVector", "SliceVector", "SpacingBetweenSlices")


def positions_without_groups(header: Dataset, count: int) -> list[tuple[float, float, float]] | None:
    """Return the position (LPS, mm) of each frame, or None if the header does not give it.

    Args:
        header: the top level of the header.
        count: number of frames.

    Raises:
        InputError: a vector, position or orientation has the wrong length.
    """
    first = as_numbers(header.get("ImagePositionPatient"), 3, "ImagePositionPatient")
    orientation = as_numbers(header.get("ImageOrientationPatient"), 6, "ImageOrientationPatient")
    offsets_mm = _offsets_mm(header, count)
    if first is None or orientation is None or offsets_mm is None:
        return None
    normal = np.cross(orientation[:3], orientation[3:])
    positions: FloatArray = np.asarray(first) + (offsets_mm - offsets_mm[0])[:, None] * normal
    return [(float(x), float(y), float(z)) for x, y, z in positions]


def _offsets_mm(header: Dataset, count: int) -> FloatArray | None:
    """Return the position of each frame along the slice normal, in mm."""
    for keyword in ("GridFrameOffsetVector", "SliceLocationVector"):
        offsets = _vector(header.get(keyword), count, keyword)
        if offsets is not None:
            return offsets
    numbers = _vector(header.get("SliceVector"), count, "SliceVector")
    distance = as_numbers(header.get("SpacingBetweenSlices"), 1, "SpacingBetweenSlices")
    return None if numbers is None or distance is None else numbers * distance[0]


def _vector(value: Any, count: int, keyword: str) -> FloatArray | None:
    if not as_text(value):
        return None
    try:
        numbers = np.asarray(value, dtype=float).ravel()
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if numbers.size != count or not np.isfinite(numbers).all():
        raise InputError(
            f"{keyword} does not hold {count} finite numbers, one per frame", remedy="export the series again"
        )
    return numbers
