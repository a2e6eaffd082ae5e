"""Voxels that no scanner measured: padding round the field of view, and what a resampling filled in.

Neither is air or tissue. Scanners write -2000 or -3024 outside a round field of view, converters -1024, programs that
resample -1000, 0 or whatever their default is. What is seen has no holes and no dents in a slice, so that whatever
is not reaches a corner of the slice, with one value that noise would not repeat.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.hu import LOWEST_HU, NOT_SCANNED_HU
from ChangeMapJointLib.scan.volume import Volume

_MARGIN_VOX = 2  # resampling before us may have mixed padding into its neighbours
_RUN_VOX = 5  # of one value from a corner along the edge of the slice: noise does not do that
_FILL_RANGE_HU = 6.0  # range in a square at the corner: less than any scanner's noise
_LEAST_VOX = 12  # smaller patches are chance
_IN_PLANE = ndimage.generate_binary_structure(2, 1)

Mask = NDArray[np.bool_]


def mark_unseen(volume: Volume) -> Volume:
    """``volume`` that knows where nothing was measured, and has -1024 HU there, whatever its file had.

    Args:
        volume: a scan; its array stays as it is.
    """
    fill = find_padding(volume.array)
    if fill is None:
        return replace(volume, unseen=None)
    array = volume.array
    if (array[fill] != NOT_SCANNED_HU).any():
        array = array.copy()
        array[fill] = NOT_SCANNED_HU
    return replace(volume, array=array, unseen=with_margin(fill))


def unseen_mask(volume: Volume) -> Mask | None:
    """Where ``volume`` shows nothing: as it says itself, or as its voxels say; None where it shows everything."""
    return volume.unseen if volume.unseen is not None else find_unseen(volume.array)


def find_unseen(hu: NDArray[np.generic]) -> Mask | None:
    """:func:`find_padding` with a margin: the voxels beside it may be mixtures.

    Args:
        hu: ``[z, y, x]``.

    Returns:
        bool ``[z, y, x]``; None where everything was measured.
    """
    fill = find_padding(hu)
    return None if fill is None else with_margin(fill)


def find_padding(hu: NDArray[np.generic]) -> Mask | None:
    """Where the picture is only filled up.

    That is, in each slice, what is joined to a corner and has its value, whatever that is, exactly or within less noise
    than any scanner has; and what has -1024 HU or less and is joined to any edge. Air round the patient that happens to
    be exactly that low, or that has no noise, counts as well, which does no harm: nothing is looked for there. The same
    value inside a lung does not count.

    Args:
        hu: ``[z, y, x]``.

    Returns:
        bool ``[z, y, x]``; None where there is none.
    """
    result: Mask | None = None
    for z, plane in enumerate(hu):
        fill = _fill_of_slice(plane)
        if fill is None:
            continue
        if result is None:
            result = np.zeros(hu.shape, dtype=bool)
        result[z] = fill
    return result


def with_margin(fill: Mask) -> Mask:
    """``fill`` and two voxels round it within each slice, and one above and below slices that are seen in part.

    Args:
        fill: bool ``[z, y, x]``.
    """
    result = fill.copy()
    before = grown = fill[0]
    for z, plane in enumerate(fill):
        if not plane.any() or plane.all():
            continue
        if z == 0 or not np.array_equal(plane, before):  # most often every slice is cut alike
            before, grown = plane, ndimage.binary_dilation(plane, _IN_PLANE, iterations=_MARGIN_VOX)
        result[z] |= grown
        for beside in (z - 1, z + 1):
            if 0 <= beside < len(fill):
                result[beside] |= plane
    return result


def _fill_of_slice(plane: NDArray[np.generic]) -> Mask | None:
    """The fill of one slice ``[y, x]``; None where there is none."""
    found: Mask | None = None
    low = np.less_equal(plane, LOWEST_HU)
    if any(side.any() for side in (low[0], low[-1], low[:, 0], low[:, -1])):
        found = _large(low, [low[0], low[-1], low[:, 0], low[:, -1]])
    for y, x in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        if found is not None and found[y, x]:
            continue
        alike = _like_corner(plane, y, x)
        if alike is None:
            continue
        corner = np.zeros(plane.shape, dtype=bool)
        corner[y, x] = True
        part = _large(alike, [corner])
        if part is not None:
            found = part if found is None else found | part
    return found


def _like_corner(plane: NDArray[np.generic], y: int, x: int) -> Mask | None:
    """What has the value of this corner, where that is a fill; None where the corner was measured."""
    if _runs(plane, y, x):
        return np.asarray(plane == plane[y, x])
    square = plane[
        slice(_RUN_VOX) if y == 0 else slice(-_RUN_VOX, None), slice(_RUN_VOX) if x == 0 else slice(-_RUN_VOX, None)
    ]
    values = square.astype(np.float64)
    if square.size < _RUN_VOX**2 or np.ptp(values) > _FILL_RANGE_HU:
        return None
    middle = (values.min() + values.max()) / 2  # lossy compression, or noise that was added later
    return np.asarray(np.abs(plane.astype(np.float64) - middle) <= _FILL_RANGE_HU)


def _runs(plane: NDArray[np.generic], y: int, x: int) -> bool:
    """Is one value repeated from this corner along an edge?"""
    along_x, along_y = (edge if end == 0 else edge[::-1] for edge, end in ((plane[y], x), (plane[:, x], y)))
    return any(len(edge) >= _RUN_VOX and bool((edge[:_RUN_VOX] == edge[0]).all()) for edge in (along_x, along_y))


def _large(mask: Mask, seeds: list[Mask]) -> Mask | None:
    """The parts of ``mask`` that hold a seed and are no chance; ``seeds`` are masks of the plane or of its edges."""
    if mask.all():
        return mask
    labels, count = ndimage.label(mask, _IN_PLANE)
    edges = [labels[0], labels[-1], labels[:, 0], labels[:, -1]]
    joined = np.zeros(count + 1, dtype=bool)
    for k, seed in enumerate(seeds):
        joined[(labels if seed.ndim == 2 else edges[k])[seed]] = True
    joined[0] = False
    joined &= np.bincount(labels.ravel(), minlength=count + 1) >= min(_LEAST_VOX, mask.size)
    return joined[labels] if joined.any() else None
