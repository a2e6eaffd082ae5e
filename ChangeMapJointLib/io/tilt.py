"""Slices that drift sideways, as under a tilted gantry, moved back onto a straight grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.hu import NOT_SCANNED_HU

Ends = tuple[int, int]


def added_pixels(shear_mm: tuple[float, float], slices: int, spacing_mm: Sequence[float]) -> tuple[Ends, Ends]:
    """Pixels by which the straight grid is wider than a slice: ((left, right), (top, bottom)).

    Args:
        shear_mm: sideways drift (along rows, along columns) from one slice to the next.
        slices: how many there are.
        spacing_mm: of the pixels, (x, y).
    """
    x, y = (drift * (slices - 1) / h for drift, h in zip(shear_mm, spacing_mm, strict=False))
    return (_beyond(-x), _beyond(x)), (_beyond(-y), _beyond(y))


def _beyond(pixels: float) -> int:
    return int(np.ceil(max(pixels, 0.0) - 1e-9))


def straighten_slice(
    picture: NDArray[np.generic], k: float, slices: int, shear_mm: tuple[float, float], spacing_mm: Sequence[float]
) -> NDArray[np.generic]:
    """Slice k of ``slices`` (HU, ``[y, x]``) moved back by its share of the drift, linear between pixels.

    Wider than ``picture`` by :func:`added_pixels`; what no slice saw is -1024. Whole HU stay whole.
    """
    if shear_mm == (0.0, 0.0):
        return picture
    hx, hy = spacing_mm[:2]
    (left, right), (top, bottom) = added_pixels(shear_mm, slices, spacing_mm)
    wide = np.pad(picture.astype(np.float32), ((top, bottom), (left, right)), constant_values=NOT_SCANNED_HU)
    shift = (shear_mm[1] * k / hy, shear_mm[0] * k / hx)
    moved: NDArray[np.float32] = ndimage.shift(wide, shift, order=1, cval=NOT_SCANNED_HU, prefilter=False)
    return np.rint(moved) if np.issubdtype(picture.dtype, np.integer) else moved
