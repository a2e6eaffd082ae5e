"""The number types in which CT values travel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.errors import InputError

LOWEST_HU = -1024  # of a CT: everything below is padding outside the field of view


def as_hu(array: NDArray[np.generic]) -> NDArray[np.int16] | NDArray[np.float32]:
    """``array`` with nothing below -1024, as int16 where that loses nothing, else float32.

    Args:
        array: ``[z, y, x]``, any real type; an int16 array that this function owns is changed in place.

    Raises:
        InputError: voxels that are NaN or infinite.
    """
    if array.dtype == np.int16:
        return np.maximum(array, LOWEST_HU, out=array if array.flags.writeable else None)  # type: ignore[no-any-return]
    limits = np.iinfo(np.int16)
    whole = True
    for part in array:  # slice by slice: no second volume in memory
        if np.issubdtype(part.dtype, np.floating):
            if not _fit(part).all():
                count = sum(int((~_fit(one)).sum()) for one in array)
                raise InputError(
                    f"{count} voxel(s) are NaN or infinite", expected="finite HU", remedy="repair or export again"
                )
            whole = whole and bool((np.rint(part) == part).all())
        whole = whole and bool(part.max() <= limits.max)
    result = np.empty(array.shape, dtype=np.int16 if whole else np.float32)
    for k, part in enumerate(array):
        result[k] = np.maximum(part.astype(np.float64), LOWEST_HU)
    return result


def _fit(part: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Where numbers are finite and stay so as float32."""
    return np.abs(part) <= np.finfo(np.float32).max  # type: ignore[no-any-return]
