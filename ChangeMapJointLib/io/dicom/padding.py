"""Which stored values of a CT slice are no image, by PixelPaddingValue and its range limit.

The standard says that every pixel of that value is padding. Nobody does so, and where the value is 0 and pixels are
signed HU it would make holes of all that happens to have 0 HU. So padding is what forms the outside of the picture.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from scipy import ndimage

MIN_EDGE_PIXELS = 5  # of one patch at the edge of the slice; a body that is cut there may have a pixel of the value
PATIENT_HU = (-200.0, 2000.0)  # a range that holds some of this is no range of padding
_NEIGHBOURS = ndimage.generate_binary_structure(2, 1)


def padding_mask(
    stored: NDArray[np.integer], used: NDArray[np.integer], dataset: Dataset, slope: float, intercept: float
) -> NDArray[np.bool_] | None:
    """Where a slice is only filled up; None where the header names no value or none of it is outside.

    Args:
        stored: pixels ``[y, x]`` with all bits that are allocated.
        used: the same without the bits that are not used.
        dataset: with the description of the pixels.
        slope: HU of one stored unit.
        intercept: HU of stored 0.
    """
    value, limit = dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")
    if not isinstance(value, int):
        return None
    signed = bool(int(dataset.PixelRepresentation))
    found = np.zeros(stored.shape, dtype=bool)
    kinds = [(stored, int(dataset.BitsAllocated))]
    if used is not stored:  # some count the value with the unused bits, some without
        kinds.append((used, int(dataset.BitsStored)))
    for values, bits in kinds:
        ends = [_as_stored(end, bits, signed) for end in (value, limit if isinstance(limit, int) else value)]
        low, high = sorted(slope * end + intercept for end in ends)
        if low < PATIENT_HU[1] and high > PATIENT_HU[0]:
            ends[1] = ends[0]
        found |= (values >= min(ends)) & (values <= max(ends))
    return _outside(found)


def _as_stored(end: int, bits: int, signed: bool) -> int:
    """An end of the range as the pixels have it: some write negative ones as unsigned numbers, and the reverse."""
    if signed and 2 ** (bits - 1) <= end < 2**bits:
        return end - int(2**bits)
    return end + 2**bits if end < 0 and not signed else end


def _outside(found: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """The patches that reach the edge of the slice in a corner or in several pixels."""
    sides = (np.s_[0, :], np.s_[-1, :], np.s_[1:-1, 0], np.s_[1:-1, -1])
    if not any(found[side].any() for side in sides):
        return None
    labels, count = ndimage.label(found, _NEIGHBOURS)
    at_edge = np.bincount(np.concatenate([labels[side] for side in sides]), minlength=count + 1)
    outer = at_edge >= MIN_EDGE_PIXELS
    outer[labels[[0, 0, -1, -1], [0, -1, 0, -1]]] = True
    outer[0] = False
    return outer[labels] if outer.any() else None
