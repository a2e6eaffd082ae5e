"""The sheet that separates lungs which touch, where a threshold cannot tell right from left."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.filters import Mask
from ChangeMapJointLib.core.hu import AIR_HU

_REACH_MM = 40.0  # the junction lines lie within this distance of the midline
_STEEPEST = 3  # voxels sideways per voxel backwards
_STEP_PRICE = 0.02  # cost of one voxel sideways


def junction_surface(hu: NDArray[np.float32], air: Mask, midline_vox: float, spacing_mm: float) -> NDArray[np.int32]:
    """The sheet x = s(y, z) between the lungs that passes through the densest tissue.

    Where the lungs touch, the junction line is a membrane of 1 to 2 mm, too thin for a threshold but denser than the
    lung on either side. In each axial slice, dynamic programming finds the path of lowest cost from front to back; the
    cost is 1 in lung of -1000 HU and 0 in tissue.

    Args:
        hu: ``[z, y, x]``.
        air: bool ``[z, y, x]``: voxels that cost something; all others are free.
        midline_vox: x of the midline; the path stays within 40 mm of it.
        spacing_mm: voxel size of ``hu``.

    Returns:
        Index x of the first voxel on the left lung's side, ``[z, y]``.
    """
    reach = round(_REACH_MM / spacing_mm)
    low = int(np.clip(round(midline_vox) - reach, 0, hu.shape[2] - 1))
    high = int(np.clip(round(midline_vox) + reach + 1, low + 1, hu.shape[2]))
    density = np.clip((hu[:, :, low:high] - AIR_HU) / 700, 0, 1)
    density = ndimage.gaussian_filter1d(density, 1.0, axis=0)  # so that neighbouring slices agree
    away = np.abs(np.arange(low, high) - midline_vox) / reach
    cost = np.where(air[:, :, low:high], 1.05 - density, 0.0) + 0.002 * away
    paths = _cheapest_paths(cost.astype(np.float32), steepest=_STEEPEST, price=_STEP_PRICE)
    first_left: NDArray[np.int32] = low + ndimage.median_filter(paths, size=(5, 3))
    return first_left


def _cheapest_paths(cost: NDArray[np.float32], *, steepest: int, price: float) -> NDArray[np.int32]:
    """For each z, the path x(y) with the lowest sum of ``cost [z, y, x]`` plus ``price`` per voxel sideways."""
    nz, ny, nx = cost.shape
    best = cost[:, 0]
    came_from = np.zeros(cost.shape, dtype=np.int8)
    for y in range(1, ny):
        previous, best = best, best.copy()
        for step in range(1, min(steepest, nx - 1) + 1):
            dearer = previous + np.float32(price * step)
            for side in (-step, step):  # position of the path in the previous row, relative to here
                here = slice(step, None) if side < 0 else slice(None, -step)
                there = slice(None, -step) if side < 0 else slice(step, None)
                better = dearer[:, there] < best[:, here]
                best[:, here][better] = dearer[:, there][better]
                came_from[:, y][:, here][better] = side
        best += cost[:, y]
    path = np.empty((nz, ny), dtype=np.int32)
    path[:, -1] = best.argmin(axis=1)
    for y in range(ny - 1, 0, -1):
        path[:, y - 1] = path[:, y] + came_from[np.arange(nz), y, path[:, y]]
    return path
