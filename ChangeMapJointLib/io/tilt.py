"""Correction of a gantry tilt: slices that drift sideways are shifted back onto a straight grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.hu import NOT_SCANNED_HU

Ends = tuple[int, int]  # pixels added at the start and at the end of an axis


def added_pixels(shear_mm: tuple[float, float], slices: int, spacing_mm: Sequence[float]) -> tuple[Ends, Ends]:
    """Return the pixels by which the straight grid is wider than a slice: ((left, right), (top, bottom)).

    Args:
        shear_mm: sideways drift in mm (along rows, along columns) from one slice to the next.
        slices: number of slices.
        spacing_mm: pixel spacing (x, y, ...).
    """
    x, y = (drift * (slices - 1) / h for drift, h in zip(shear_mm, spacing_mm, strict=False))
    return (_beyond(-x), _beyond(x)), (_beyond(-y), _beyond(y))


def _beyond(pixels: float) -> int:
    return int(np.ceil(max(pixels, 0.0) - 1e-9))


def straighten_slice(
    plane: NDArray[np.generic], k: float, slices: int, shear_mm: tuple[float, float], spacing_mm: Sequence[float]
) -> NDArray[np.generic]:
    """Shift a slice back by its share of the drift, interpolating linearly.

    Args:
        plane: HU ``[y, x]`` of slice ``k``.
        k: number of the slice, also fractional.
        slices: number of slices.
        shear_mm: sideways drift in mm (along rows, along columns) from one slice to the next.
        spacing_mm: pixel spacing (x, y, ...).

    Returns:
        HU ``[y, x]``, wider than ``plane`` by :func:`added_pixels`, with -1024 where nothing was scanned. Integers stay
        integers.
    """
    if shear_mm == (0.0, 0.0):
        return plane
    hx, hy = spacing_mm[:2]
    (left, right), (top, bottom) = added_pixels(shear_mm, slices, spacing_mm)
    padded = np.pad(plane.astype(np.float32), ((top, bottom), (left, right)), constant_values=NOT_SCANNED_HU)
    shift = (shear_mm[1] * k / hy, shear_mm[0] * k / hx)
    shifted: NDArray[np.float32] = ndimage.shift(padded, shift, order=1, cval=NOT_SCANNED_HU, prefilter=False)
    return np.rint(shifted) if np.issubdtype(plane.dtype, np.integer) else shifted
