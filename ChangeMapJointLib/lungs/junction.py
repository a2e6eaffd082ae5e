"""The sheet between the lungs, where they touch and a threshold cannot tell right from left."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.filters import Mask
from ChangeMapJointLib.core.hu import AIR_HU

_REACH_MM = 40.0  # the junction lines lie this near the midline
_STEEPEST = 3  # voxels aside per voxel backwards
_STEP_PRICE = 0.02


def junction_surface(hu: NDArray[np.float32], air: Mask, midline_vox: float, spacing_mm: float) -> NDArray[np.int32]:
    """The sheet x = s(y, z) between the lungs that passes through the densest tissue.

    Where the lungs touch, the junction line is a membrane of 1 to 2 mm that a threshold cannot see but
    that is denser than the lung on either side. In every axial slice the cheapest path from front to
    back is found by dynamic programming; the cost is 1 in lung of -1000 HU and 0 in tissue.

    Args:
        hu: ``[z, y, x]``.
        air: voxels that cost; all else is free.
        midline_vox: x of the middle; the path keeps within 40 mm of it.
        spacing_mm: of ``hu``.

    Returns:
        Index x of the first voxel on the left lung's side, ``[z, y]``.
    """
    reach = round(_REACH_MM / spacing_mm)
    low = int(np.clip(round(midline_vox) - reach, 0, hu.shape[2] - 1))
    high = int(np.clip(round(midline_vox) + reach + 1, low + 1, hu.shape[2]))
    density = np.clip((hu[:, :, low:high] - AIR_HU) / 700, 0, 1)
    density = ndimage.gaussian_filter1d(density, 1.0, axis=0)  # neighbouring slices agree
    away = np.abs(np.arange(low, high) - midline_vox) / reach
    cost = np.where(air[:, :, low:high], 1.05 - density, 0.0) + 0.002 * away
    paths = _cheapest_paths(cost.astype(np.float32), steepest=_STEEPEST, price=_STEP_PRICE)
    first_left: NDArray[np.int32] = low + ndimage.median_filter(paths, size=(5, 3))
    return first_left


def _cheapest_paths(cost: NDArray[np.float32], *, steepest: int, price: float) -> NDArray[np.int32]:
    """For every z the path x(y) with the least sum of ``cost [z, y, x]`` plus ``price`` per step aside."""
    nz, ny, nx = cost.shape
    best = cost[:, 0]
    came_from = np.zeros(cost.shape, dtype=np.int8)
    for y in range(1, ny):
        previous, best = best, best.copy()
        for step in range(1, min(steepest, nx - 1) + 1):
            dearer = previous + np.float32(price * step)
            for side in (-step, step):  # where the path was one row before, relative to here
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
