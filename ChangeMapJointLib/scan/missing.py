"""Voxels without a number: programs that resample write NaN or infinity where they had nothing to resample from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.hu import NOT_SCANNED_HU, as_hu, is_finite

_ALL_NEIGHBOURS = ndimage.generate_binary_structure(3, 3)


Mask = NDArray[np.bool_]


def hu_and_unseen(array: NDArray[np.generic]) -> tuple[NDArray[np.int16] | NDArray[np.float32], Mask | None]:
    """Return ``array`` as HU, and where it has no numbers; see :func:`without_missing`.

    Args:
        array: ``[z, y, x]``, any real type; see :func:`~ChangeMapJointLib.core.hu.as_hu`.

    Returns:
        HU ``[z, y, x]``; and bool ``[z, y, x]``, None if every voxel has a number.

    Raises:
        InputError: voxels inside the volume have no number, or none has one.
    """
    numbers, missing = without_missing(array)
    return as_hu(numbers), missing


def without_missing(array: NDArray[np.generic]) -> tuple[NDArray[np.generic], Mask | None]:
    """Return ``array`` with -1024 where it has no numbers, and where that is.

    NaN and infinity that are connected to the outside of the volume are padding like any other fill: not seen by this
    scan. Inside the volume, nobody can tell what was there, and a hole in the body would look like air or change.

    Args:
        array: ``[z, y, x]``, any real type; it is not modified.

    Returns:
        ``array`` itself and None if every voxel has a number; else a copy, and bool ``[z, y, x]``.

    Raises:
        InputError: voxels inside the volume have no number, or none has one.

    Examples:
        >>> import numpy as np
        >>> numbers, missing = without_missing(np.array([[[40.0, np.nan]]]))
        >>> numbers.tolist(), missing.tolist()
        ([[[40.0, -1024.0]]], [[[False, True]]])
    """
    if not np.issubdtype(array.dtype, np.floating) or all(is_finite(plane).all() for plane in array):
        return array, None
    missing = np.stack([~is_finite(plane) for plane in array])
    if missing.all():
        raise InputError("all voxels are NaN or infinite", expected="HU", remedy="export it again")
    labels, count = ndimage.label(missing, _ALL_NEIGHBOURS)
    outer = np.zeros(count + 1, dtype=bool)
    for axis in range(3):
        outer[np.take(labels, [0, -1], axis)] = True
    outer[0] = False
    inner = missing & ~outer[labels]
    if inner.any():
        z, y, x = (int(i) for i in np.argwhere(inner)[0])
        raise InputError(
            f"{int(inner.sum())} voxel(s) inside the volume are NaN or infinite, the first at index ({x}, {y}, {z})",
            expected="such voxels at its outside only, as resampling leaves them",
            remedy="repair it or resample it again",
        )
    return np.where(missing, array.dtype.type(NOT_SCANNED_HU), array), missing
