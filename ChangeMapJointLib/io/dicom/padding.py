"""Finds the padding of a CT slice by PixelPaddingValue and PixelPaddingRangeLimit.

By the standard, every pixel with that value is padding. Few scanners comply, and with a value of 0 and signed HU, all
pixels that happen to have 0 HU would become holes. Only patches that reach the edge of the slice therefore count.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from scipy import ndimage

MIN_EDGE_PIXELS = 5  # of one patch at the edge; a body that is cut off there may have a few pixels with the value
PATIENT_HU = (-200.0, 2000.0)  # a range that overlaps this one is not padding
_NEIGHBOURS = ndimage.generate_binary_structure(2, 1)


def padding_mask(
    stored: NDArray[np.integer], used: NDArray[np.integer], dataset: Dataset, slope: float, intercept: float
) -> NDArray[np.bool_] | None:
    """Find the padding of a slice.

    Args:
        stored: pixels ``[y, x]`` with all allocated bits.
        used: the same without the unused bits.
        dataset: the description of the pixels.
        slope: HU per stored unit.
        intercept: HU of a stored 0.

    Returns:
        bool ``[y, x]``; None if the header names no padding value, or no padding reaches the edge.
    """
    value, limit = dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")
    if not isinstance(value, int):
        return None
    signed = bool(int(dataset.PixelRepresentation))
    padding = np.zeros(stored.shape, dtype=bool)
    variants = [(stored, int(dataset.BitsAllocated))]
    if used is not stored:  # some programs include the unused bits in the padding value, some do not
        variants.append((used, int(dataset.BitsStored)))
    for values, bits in variants:
        ends = [_as_stored(end, bits, signed) for end in (value, limit if isinstance(limit, int) else value)]
        low, high = sorted(slope * end + intercept for end in ends)
        if low < PATIENT_HU[1] and high > PATIENT_HU[0]:
            ends[1] = ends[0]
        padding |= (values >= min(ends)) & (values <= max(ends))
    return _reaching_the_edge(padding)


def _as_stored(end: int, bits: int, signed: bool) -> int:
    """Convert an end of the range to the pixels' type: some files give negative values as unsigned, or the reverse."""
    if signed and 2 ** (bits - 1) <= end < 2**bits:
        return end - int(2**bits)
    return end + 2**bits if end < 0 and not signed else end


def _reaching_the_edge(mask: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """Keep the patches that reach the edge of the slice in a corner or with several pixels; None if there are none."""
    sides = (np.s_[0, :], np.s_[-1, :], np.s_[1:-1, 0], np.s_[1:-1, -1])
    if not any(mask[side].any() for side in sides):
        return None
    labels, count = ndimage.label(mask, _NEIGHBOURS)
    at_edge = np.bincount(np.concatenate([labels[side] for side in sides]), minlength=count + 1)
    outer = at_edge >= MIN_EDGE_PIXELS
    outer[labels[[0, 0, -1, -1], [0, -1, 0, -1]]] = True
    outer[0] = False
    return outer[labels] if outer.any() else None
