"""Averages over blocks of voxels, computed slab by slab without a temporary of the fine volume's size."""

from __future__ import annotations

from itertools import product
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.grid import Grid, Shape3

Number = TypeVar("Number", bound=np.generic)


def block_grid(grid: Grid, factors: Shape3) -> Grid:
    """Return the grid of the block centres.

    Args:
        grid: the grid of the voxels.
        factors: voxels per block along (z, y, x), each at least 1 and at most the grid's shape. Voxels at the end of
            an axis that do not fill a block are left out.
    """
    _check(grid.shape, factors)
    fz, fy, fx = factors
    hx, hy, hz = grid.spacing_mm
    # the centre of the first block is half a block minus half a voxel from the centre of the first voxel
    x, y, z = (float(v) for v in grid.to_physical(((fx - 1) / 2, (fy - 1) / 2, (fz - 1) / 2)))
    nz, ny, nx = (n // f for n, f in zip(grid.shape, factors, strict=True))
    return Grid((nz, ny, nx), (hx * fx, hy * fy, hz * fz), (x, y, z), grid.direction)


def block_means(array: NDArray[Number], factors: Shape3) -> NDArray[Number]:
    """Return the means over blocks; integers are rounded to the nearest, halves to even.

    Args:
        array: ``[z, y, x]``, integer or float.
        factors: as for :func:`block_grid`.

    Returns:
        ``[z, y, x]`` with the same dtype, on the grid of :func:`block_grid`.
    """
    result = np.empty(_shape(array, factors), dtype=array.dtype)
    whole = np.issubdtype(array.dtype, np.integer)
    total = np.empty(result.shape[1:], dtype=np.float64)
    for z in range(len(result)):
        total[:] = 0.0
        for plane in _planes(array, factors, z):
            total += plane
        total /= np.prod(factors)
        result[z] = np.rint(total, out=total) if whole else total
    return result


def block_any(mask: NDArray[np.bool_], factors: Shape3) -> NDArray[np.bool_]:
    """Return whether any voxel of a block is True, bool on :func:`block_grid`; arguments as for :func:`block_means`."""
    result = np.zeros(_shape(mask, factors), dtype=bool)
    for z in range(len(result)):
        for plane in _planes(mask, factors, z):
            result[z] |= plane
    return result


def _planes(array: NDArray[np.generic], factors: Shape3, z: int) -> list[NDArray[np.generic]]:
    """Return the voxels that make up slice ``z`` of the result: one view ``[y, x]`` per position within a block."""
    fz, fy, fx = factors
    ny, nx = array.shape[1] // fy * fy, array.shape[2] // fx * fx
    return [array[z * fz + k, j:ny:fy, i:nx:fx] for k, j, i in product(range(fz), range(fy), range(fx))]


def _shape(array: NDArray[np.generic], factors: Shape3) -> Shape3:
    _check(array.shape, factors)
    nz, ny, nx = (n // f for n, f in zip(array.shape, factors, strict=True))
    return nz, ny, nx


def _check(shape: tuple[int, ...], factors: Shape3) -> None:
    if len(shape) != 3 or not all(1 <= f <= n for f, n in zip(factors, shape, strict=True)):
        raise ValueError(f"Blocks 'factors' must be 1 to the number of voxels along (z, y, x) {shape}, got {factors}")
