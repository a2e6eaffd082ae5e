"""Dents in the costal surface of a lung: it is convex, so they are nodules, masses or plaques."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.filters import Mask, label_sizes, label_slices, square_erosion

_DIRECTIONS = 32  # a hull of 32 half-planes is too wide by 0.5 % of the lung's radius
_NEAR_VOX = 4  # distance that counts as on the hull of the thorax; at the back, the spine keeps the hull off the lungs
_ON_HULL = 0.8  # share of a dent's mouth that must lie on the hull of the thorax
_SHALLOW_VOX = 2.0  # a piece no deeper than this is a dent, whichever way it opens
_LEAST_ML = 0.1


def axial_hull(mask: Mask) -> Mask:
    """The convex hull of ``mask`` in each axial slice.

    In a row, the hull lies between two columns, and of the mask only the first and the last voxel matter.
    """
    nz, ny, nx = mask.shape
    occupied = np.asarray(mask.any(axis=2))
    ends = mask.argmax(axis=2), nx - 1 - mask[:, :, ::-1].argmax(axis=2)
    first, last = np.zeros((nz, ny), dtype=np.int64), np.full((nz, ny), nx, dtype=np.int64)
    last[~occupied.any(axis=1)] = 0
    y, x = np.ogrid[:ny, :nx]
    rows = np.arange(ny)
    for angle in np.arange(_DIRECTIONS) * (2 * np.pi / _DIRECTIONS):
        along = (np.cos(angle) * x + np.sin(angle) * y).astype(np.float32)
        farthest = np.maximum(along[rows, ends[0]], along[rows, ends[1]])
        limit = np.where(occupied, farthest, -np.inf).max(axis=1)
        # in a row, ``along`` rises or falls
        rises = along[0, -1] >= along[0, 0]
        for row in range(ny):
            if rises:
                np.minimum(last[:, row], np.searchsorted(along[row], limit, "right"), out=last[:, row])
            else:
                beyond = nx - np.searchsorted(along[row, ::-1], limit, "right")
                np.maximum(first[:, row], beyond, out=first[:, row])
    column = np.arange(nx)
    hull: Mask = (column >= first[:, :, None]) & (column < last[:, :, None])
    return hull


def slice_middles(body: Mask) -> NDArray[np.float64]:
    """Mean (y, x) of ``body`` in each slice, ``[nz, 2]``; the middle of the slice where it is empty."""
    voxels = body.sum(axis=(1, 2))
    rows = (body.sum(axis=2) * np.arange(body.shape[1])).sum(axis=1)
    columns = (body.sum(axis=1) * np.arange(body.shape[2])).sum(axis=1)
    means = np.stack([rows, columns], axis=1) / np.maximum(voxels, 1)[:, None]
    return np.where(voxels[:, None] > 0, means, (np.array(body.shape[1:]) - 1) / 2)


def thorax_hull(lungs: Mask, middles: NDArray[np.float64]) -> Mask:
    """The convex hull of both lungs and the middle of the body, in each axial slice with lung.

    Args:
        lungs: both lungs, closed, ``[z, y, x]``.
        middles: from :func:`slice_middles`.
    """
    slices = np.flatnonzero(lungs.any(axis=(1, 2)))
    rows, columns = middles[slices].astype(int).T
    with_middle = lungs.copy()
    with_middle[slices, rows, columns] = True
    return axial_hull(with_middle)


def costal_dents(lung: Mask, thorax: Mask, middles: NDArray[np.float64], spacing_mm: float) -> Mask:
    """Tissue in the dents of one lung that open towards the chest wall.

    In an axial slice, the pieces between a lung and its convex hull are the large concavity towards heart, spine or
    diaphragm, and dents in the costal surface. The mouth of a dent lies on the hull of the thorax, and farther from the
    middle of the body than its bottom.

    Args:
        lung: one lung after the closing, bool ``[z, y, x]``.
        thorax: from :func:`thorax_hull`.
        middles: from :func:`slice_middles`.
        spacing_mm: voxel size of the arrays.

    Returns:
        bool ``[z, y, x]``.
    """
    hull = axial_hull(lung)
    pieces, count = label_slices(hull & ~lung)
    mouth = np.where(square_erosion(hull, 1), 0, pieces)
    bottom = np.where(lung, ndimage.grey_dilation(pieces, footprint=_plane(1)), 0)
    on_thorax = ~square_erosion(thorax, _NEAR_VOX)
    z, y, x = np.nonzero((mouth > 0) | (bottom > 0))
    distance = np.hypot(y - middles[z, 0], x - middles[z, 1])
    mouths, to_mouth = _mean(distance, mouth[z, y, x], count)
    _, to_bottom = _mean(distance, bottom[z, y, x], count)
    _, on_hull = _mean(on_thorax[z, y, x], mouth[z, y, x], count)
    shallow = label_sizes(pieces, minlength=count + 1) < _SHALLOW_VOX * mouths
    costal = (on_hull > _ON_HULL) & (shallow | (to_mouth > to_bottom))
    rows, columns = middles.astype(int).T
    costal[pieces[np.arange(len(middles)), rows, columns]] = False  # the organ that the lung surrounds
    costal[0] = False
    dents, _ = ndimage.label(costal[pieces])
    large = label_sizes(dents) * spacing_mm**3 / 1000 >= _LEAST_ML
    large[0] = False
    large_dents: NDArray[np.bool_] = large[dents]
    return large_dents


def _mean(
    values: NDArray[np.generic], labels: NDArray[np.int32], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each label from 0 to ``count``, the number of voxels and the mean of their ``values``."""
    voxels = np.bincount(labels, minlength=count + 1)
    return voxels, np.bincount(labels, weights=values, minlength=count + 1) / np.maximum(voxels, 1)


def _plane(radius: int) -> Mask:
    """A square of 2 ``radius`` + 1 voxels within one slice."""
    return np.ones((1, 2 * radius + 1, 2 * radius + 1), dtype=bool)
