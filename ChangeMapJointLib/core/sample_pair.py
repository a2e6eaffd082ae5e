"""Recognizes the sample pair by its voxels, so that its synthetic change is never taken for a patient's."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

NOTICE = (
    "Sample pair: the second time point is SYNTHETIC change on a real CT: breathing motion, density, noise and "
    "lesions were added to the same patient's scan. It shows what the program does, not how well it reads patients."
)
# (z, y, x) and CRC-32 of the voxels as little-endian int16
SAMPLE_SCANS: dict[tuple[int, ...], int] = {(165, 158, 215): 2564725159, (203, 173, 235): 3427029733}


def is_sample(array: NDArray[Any]) -> bool:
    """Return whether voxels ``[z, y, x]`` are those of a scan of the sample pair, in any number type.

    Examples:
        >>> is_sample(np.zeros((165, 158, 215), np.int16))
        False
    """
    known = SAMPLE_SCANS.get(array.shape)
    if known is None:
        return False
    voxels = np.ascontiguousarray(array, dtype="<i2")
    return zlib.crc32(voxels.data) == known
