"""Voxels without a number: programs that resample write NaN or infinity where they had nothing to resample from.

Beside the array itself and a byte per voxel for the mask, all of this needs memory for a few slices only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.hu import NOT_SCANNED_HU, as_hu, is_finite

_ALL_NEIGHBOURS = ndimage.generate_binary_structure(2, 2)
_AROUND = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))  # (y, x)

Mask = NDArray[np.bool_]


def hu_and_unseen(
    array: NDArray[np.generic], *, overwrite: bool = False
) -> tuple[NDArray[np.int16] | NDArray[np.float32], Mask | None]:
    """Return ``array`` as HU, and where it has no numbers; see :func:`without_missing`.

    Args:
        array: ``[z, y, x]``, any real type; see :func:`~ChangeMapJointLib.core.hu.as_hu`.
        overwrite: use the memory of ``array`` where possible; it then holds no values worth keeping.

    Returns:
        HU ``[z, y, x]``; and bool ``[z, y, x]``, None if every voxel has a number.

    Raises:
        InputError: voxels inside the volume have no number, or none has one.
    """
    numbers, missing = without_missing(array, overwrite=overwrite)
    return as_hu(numbers, overwrite=overwrite), missing


def without_missing(array: NDArray[np.generic], *, overwrite: bool = False) -> tuple[NDArray[np.generic], Mask | None]:
    """Return ``array`` with -1024 where it has no numbers, and where that is.

    NaN and infinity that are connected to the outside of the volume are padding like any other fill: not seen by this
    scan. Inside the volume, nobody can tell what was there, and a hole in the body would look like air or change.

    Args:
        array: ``[z, y, x]``, any real type.
        overwrite: write into ``array`` where it is writeable, instead of into a copy.

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
    missing = np.empty(array.shape, dtype=bool)
    for k, plane in enumerate(array):
        np.logical_not(is_finite(plane), out=missing[k])
    if missing.all():
        raise InputError("all voxels are NaN or infinite", expected="HU", remedy="export it again")
    count, first = _enclosed(missing)
    if count:
        z, y, x = np.unravel_index(first, missing.shape)
        raise InputError(
            f"{count} voxel(s) inside the volume are NaN or infinite, the first at index ({x}, {y}, {z})",
            expected="such voxels at its outside only, as resampling leaves them",
            remedy="repair it or resample it again",
        )
    filled = array if overwrite and array.flags.writeable else array.copy()
    for plane, hole in zip(filled, missing, strict=True):
        plane[hole] = array.dtype.type(NOT_SCANNED_HU)
    return filled, missing


@dataclass(frozen=True)
class _Patches:
    """The connected patches of one slice.

    Attributes:
        labels: ``[y, x]``, numbered through the volume from 1; 0 elsewhere.
        voxels: number of voxels of each patch.
        first: index of its first voxel in the raveled volume.
        outer: whether it reaches a side of the volume.
    """

    labels: NDArray[np.int64]
    voxels: NDArray[np.int64]
    first: NDArray[np.int64]
    outer: Mask


def _enclosed(mask: Mask) -> tuple[int, int]:
    """Return the number of voxels of ``mask`` that are not connected to its sides, and the first one's raveled index.

    Voxels that share a face, an edge or a corner are connected. The patches of each slice are labelled and joined with
    those of the slice below, so that no labels of the whole volume are kept.
    """
    voxels, first, outer, joints = ([] for _ in range(4))
    below, total = None, 0
    for z, plane in enumerate(mask):
        patches = _patches(plane, total, z, all_outer=z in (0, len(mask) - 1))
        if below is not None:
            joints.append(_joints(below, patches.labels))
        below = patches.labels
        voxels.append(patches.voxels)
        first.append(patches.first)
        outer.append(patches.outer)
        total += len(patches.voxels)
    pairs = np.concatenate([*joints, np.empty((0, 2), dtype=np.int64)]) - 1
    graph = sparse.coo_array((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=(total, total))
    groups, group = sparse.csgraph.connected_components(graph, directed=False)
    reaches = np.zeros(groups, dtype=bool)
    reaches[group[np.concatenate(outer)]] = True
    inner = ~reaches[group]
    return int(np.concatenate(voxels)[inner].sum()), int(np.concatenate(first)[inner].min(initial=mask.size))


def _patches(plane: Mask, before: int, z: int, *, all_outer: bool) -> _Patches:
    """Label the patches of slice ``z``; ``before`` patches were numbered earlier."""
    labels, count = ndimage.label(plane, _ALL_NEIGHBOURS)
    there = np.flatnonzero(plane)
    numbers = labels.ravel()[there] - 1
    first = np.empty(count, dtype=np.int64)
    first[numbers[::-1]] = there[::-1]  # the last value that is assigned to an element stays
    outer = np.full(count + 1, all_outer)
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        outer[edge] = True
    return _Patches(
        np.where(plane, labels.astype(np.int64) + before, 0),
        np.bincount(numbers, minlength=count),
        first + z * plane.size,
        outer[1:],
    )


def _joints(below: NDArray[np.int64], above: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return which patches of two neighbouring slices are connected, ``[n, 2]``.

    Where a pixel is set in both slices, its neighbours belong to the same two patches: only those of pixels that are
    set in one slice alone are compared. Along a run of pixels that are set in both, the two patches stay the same.
    """
    both = (below > 0) & (above > 0)
    both[:, 1:] &= ~both[:, :-1]
    found = [np.stack([below[both], above[both]], axis=1)]
    y, x = np.nonzero((above > 0) & (below == 0))
    for dy, dx in _AROUND:
        inside = (y + dy >= 0) & (y + dy < above.shape[0]) & (x + dx >= 0) & (x + dx < above.shape[1])
        under = below[y[inside] + dy, x[inside] + dx]
        found.append(np.stack([under, above[y[inside], x[inside]]], axis=1)[under > 0])
    return np.unique(np.concatenate(found), axis=0)
