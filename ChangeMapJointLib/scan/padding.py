"""Voxels that no scanner measured: padding around the field of view, and values filled in by resampling.

They are neither air nor tissue. Scanners write -2000 or -3024 outside a round field of view, converters -1024, and
programs that resample -1000, 0 or any other default. The measured part of a slice has no holes and no dents, so padding
reaches a corner of the slice. It has a single value, which noise would not repeat; or it repeats the outermost voxels,
as programs do that extrapolate by the nearest voxel.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.filters import label_sizes
from ChangeMapJointLib.core.hu import LOWEST_HU, NOT_SCANNED_HU
from ChangeMapJointLib.scan.volume import Volume

_MARGIN_VOX = 2  # an earlier resampling may have mixed padding into its neighbours
_RUN_VOX = 5  # pixels of one value in a row from a corner along an edge: noise does not produce that
_PADDING_RANGE_HU = 6.0  # range of values in a square at the corner: below any scanner's noise
_LEAST_REPEATED = 2  # planes; one may be a copy of a slice
_NOISY_HU = -900.0  # air is often cut off at one value
_FLAT = 0.5  # of the neighbours are equal: drawn, not scanned
_LEAST_VOX = 12  # smaller patches occur by chance
_IN_PLANE = ndimage.generate_binary_structure(2, 1)

Mask = NDArray[np.bool_]


def mark_unseen(volume: Volume) -> Volume:
    """Find the padding of a scan; return the scan with ``unseen`` set and -1024 HU there, whatever its file had.

    Args:
        volume: a scan; its array is not modified. What it calls unseen remains so.
    """
    padding = find_padding(volume.array)
    if padding is None:
        return volume
    array = volume.array
    if (array[padding] != NOT_SCANNED_HU).any():
        array = array.copy()
        array[padding] = NOT_SCANNED_HU
    unseen = with_margin(padding)
    return replace(volume, array=array, unseen=unseen if volume.unseen is None else unseen | volume.unseen)


def unseen_mask(volume: Volume) -> Mask | None:
    """Return where nothing was measured, from ``volume.unseen`` or else from the voxels; None if all was measured."""
    return volume.unseen if volume.unseen is not None else find_unseen(volume.array)


def find_unseen(hu: NDArray[np.generic]) -> Mask | None:
    """Return the padding with a margin, since the voxels beside it may be mixtures.

    Args:
        hu: ``[z, y, x]``.

    Returns:
        bool ``[z, y, x]``; None where everything was measured.
    """
    padding = find_padding(hu)
    return None if padding is None else with_margin(padding)


def find_padding(hu: NDArray[np.generic]) -> Mask | None:
    """Find the padding of each slice.

    Padding is connected to a corner and has the corner's value, exactly or with less noise than any scanner has; or it
    is connected to an edge and has -1024 HU or less. Air around the patient that is exactly that low, or free of
    noise, counts as well, which does no harm, as nothing is evaluated there. The same value inside a lung does not
    count. Planes at a side of the scan that repeat the next one are padding, too, but not where all slices occur
    several times, as in a thick scan that was enlarged by the nearest voxel.

    Args:
        hu: ``[z, y, x]``.

    Returns:
        bool ``[z, y, x]``; None where there is none.
    """
    result = _repeated_planes(hu)
    for z, plane in enumerate(hu):
        padding = _slice_padding(plane)
        if padding is None:
            continue
        if result is None:
            result = np.zeros(hu.shape, dtype=bool)
        result[z] |= padding
    return result


def _repeated_planes(hu: NDArray[np.generic]) -> Mask | None:
    """Mark planes at the sides of a scan that repeat the plane next to them, along each axis; None without any."""
    result: Mask | None = None
    for axis in range(3):
        planes = np.moveaxis(hu, axis, 0)
        for start, step in ((0, 1), (len(planes) - 1, -1)):
            count = 0
            while count < len(planes) - 1 and np.array_equal(
                planes[start + step * count], planes[start + step * (count + 1)]
            ):
                count += 1
            if count < _LEAST_REPEATED or count == len(planes) - 1 or not _is_noisy(planes[start]):
                continue
            after = start + step * (count + 1)  # where this repeats, too, each slice of a thicker scan was repeated
            if 0 <= after + step < len(planes) and np.array_equal(planes[after], planes[after + step]):
                continue
            if result is None:
                result = np.zeros(hu.shape, dtype=bool)
            sides = np.moveaxis(result, axis, 0)
            sides[:count] |= start == 0
            sides[len(planes) - count :] |= start != 0
    return result


def _is_noisy(plane: NDArray[np.generic]) -> bool:
    """Return whether a plane shows noise in tissue: two planes with noise are never equal by chance."""
    one, other = plane[:, 1:], plane[:, :-1]
    tissue = np.greater(one, _NOISY_HU) & np.greater(other, _NOISY_HU)
    return bool(tissue.sum() >= _LEAST_VOX and (one == other)[tissue].mean() < _FLAT)


def with_margin(padding: Mask) -> Mask:
    """Add two voxels around the padding within each slice, and one voxel above and below partly padded slices.

    Args:
        padding: bool ``[z, y, x]``.
    """
    result = padding.copy()
    previous = grown = padding[0]
    for z, plane in enumerate(padding):
        if not plane.any() or plane.all():
            continue
        if z == 0 or not np.array_equal(plane, previous):  # usually all slices have the same padding
            previous, grown = plane, ndimage.binary_dilation(plane, _IN_PLANE, iterations=_MARGIN_VOX)
        result[z] |= grown
        for neighbour in (z - 1, z + 1):
            if 0 <= neighbour < len(padding):
                result[neighbour] |= plane
    return result


def _slice_padding(plane: NDArray[np.generic]) -> Mask | None:
    """Return the padding of one slice ``[y, x]``; None where there is none."""
    padding: Mask | None = None
    low = np.less_equal(plane, LOWEST_HU)
    if any(edge.any() for edge in (low[0], low[-1], low[:, 0], low[:, -1])):
        padding = _seeded_patches(low, [low[0], low[-1], low[:, 0], low[:, -1]])
    for y, x in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        if padding is not None and padding[y, x]:
            continue
        candidates = _like_corner(plane, y, x)
        if candidates is None:
            continue
        corner = np.zeros(plane.shape, dtype=bool)
        corner[y, x] = True
        patch = _seeded_patches(candidates, [corner])
        if patch is not None:
            padding = patch if padding is None else padding | patch
    return padding


def _like_corner(plane: NDArray[np.generic], y: int, x: int) -> Mask | None:
    """Mark the pixels with the value of this corner if the corner is padding; None if the corner was measured."""
    if _value_repeats(plane, y, x):
        return np.asarray(plane == plane[y, x])
    square = plane[
        slice(_RUN_VOX) if y == 0 else slice(-_RUN_VOX, None), slice(_RUN_VOX) if x == 0 else slice(-_RUN_VOX, None)
    ]
    values = square.astype(np.float64)
    if square.size < _RUN_VOX**2 or np.ptp(values) > _PADDING_RANGE_HU:
        return None
    middle = (values.min() + values.max()) / 2  # lossy compression, or noise that was added later
    return np.asarray(np.abs(plane.astype(np.float64) - middle) <= _PADDING_RANGE_HU)


def _value_repeats(plane: NDArray[np.generic], y: int, x: int) -> bool:
    """Return whether the corner's value is repeated along an edge."""
    along_x, along_y = (edge if end == 0 else edge[::-1] for edge, end in ((plane[y], x), (plane[:, x], y)))
    return any(len(edge) >= _RUN_VOX and bool((edge[:_RUN_VOX] == edge[0]).all()) for edge in (along_x, along_y))


def _seeded_patches(mask: Mask, seeds: list[Mask]) -> Mask | None:
    """Return the patches of ``mask`` that contain a seed and are not too small to be padding.

    Args:
        mask: bool ``[y, x]``.
        seeds: masks of the whole plane, or of its edges in the order top, bottom, left, right.
    """
    if mask.all():
        return mask
    labels, count = ndimage.label(mask, _IN_PLANE)
    edges = [labels[0], labels[-1], labels[:, 0], labels[:, -1]]
    joined = np.zeros(count + 1, dtype=bool)
    for k, seed in enumerate(seeds):
        joined[(labels if seed.ndim == 2 else edges[k])[seed]] = True
    joined[0] = False
    joined &= label_sizes(labels, minlength=count + 1) >= min(_LEAST_VOX, mask.size)
    return joined[labels] if joined.any() else None
