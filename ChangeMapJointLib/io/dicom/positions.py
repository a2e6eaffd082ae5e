"""Where the frames of a multi-frame file lie that has no functional groups, by what stands at the top of its header.

Old converters and secondary captures write such files; some say where each frame is: a GridFrameOffsetVector (as dose
grids have it), a SliceLocationVector (as secondary captures have it), or a SliceVector with SpacingBetweenSlices (as
nuclear medicine has it). A mere distance between slices is not enough: it does not tell which end comes first.
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
    """Position of each frame (LPS, mm), or None where the header does not tell.

    Args:
        header: its top level.
        count: number of frames.

    Raises:
        InputError: a vector, position or orientation of the wrong length.
    """
    first = as_numbers(header.get("ImagePositionPatient"), 3, "ImagePositionPatient")
    orientation = as_numbers(header.get("ImageOrientationPatient"), 6, "ImageOrientationPatient")
    along = _along_mm(header, count)
    if first is None or orientation is None or along is None:
        return None
    normal = np.cross(orientation[:3], orientation[3:])
    places: FloatArray = np.asarray(first) + (along - along[0])[:, None] * normal
    return [(float(x), float(y), float(z)) for x, y, z in places]


def _along_mm(header: Dataset, count: int) -> FloatArray | None:
    """Where along the normal each frame lies."""
    for keyword in ("GridFrameOffsetVector", "SliceLocationVector"):
        found = _vector(header.get(keyword), count, keyword)
        if found is not None:
            return found
    numbers = _vector(header.get("SliceVector"), count, "SliceVector")
    apart = as_numbers(header.get("SpacingBetweenSlices"), 1, "SpacingBetweenSlices")
    return None if numbers is None or apart is None else numbers * apart[0]


def _vector(value: Any, count: int, keyword: str) -> FloatArray | None:
    if not as_text(value):
        return None
    try:
        found = np.asarray(value, dtype=float).ravel()
    except (TypeError, ValueError):
        found = np.empty(0)
    if found.size != count or not np.isfinite(found).all():
        raise InputError(
            f"{keyword} does not hold {count} finite numbers, one a frame", remedy="export the series again"
        )
    return found
