"""Trilinear sampling and resampling in torch, with the same code on the CPU and a GPU."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.compiled import compiled_available, over_slices
from ChangeMapJointLib.core.grid import ALIGN_CORNERS, FloatArray, Grid, apply_affine
from ChangeMapJointLib.core.lazy_torch import Tensor, functional, torch


def index_points(grid: Grid, matrix: FloatArray, slab: slice | None = None, like: Tensor | None = None) -> Tensor:
    """Map every voxel index of ``grid`` by ``matrix``.

    Args:
        grid: the grid whose voxels are enumerated.
        matrix: 4x4, applied to (i, j, k, 1); ``grid.affine`` gives physical points.
        slab: range of z; all slices by default.
        like: a tensor whose dtype and device are used; float32 on the CPU by default.

    Returns:
        Tensor ``[z, y, x, 3]`` with components ordered (x, y, z).
    """
    options = {"dtype": like.dtype, "device": like.device} if like is not None else {"dtype": torch.float32}
    nz, ny, nx = grid.shape
    z0, z1, _ = (slab or slice(None)).indices(nz)
    m = torch.as_tensor(matrix, dtype=torch.float64)
    axes = [torch.arange(a, b, dtype=torch.float64) for a, b in ((0, nx), (0, ny), (z0, z1))]
    columns = [(m[:3, c] * axes[c][:, None]).to(**options) for c in range(3)]  # (n, 3) each
    offset = m[:3, 3].to(**options)
    i, j, k = columns[0][None, None], columns[1][None, :, None], columns[2][:, None, None]
    return i + j + k + offset


def sample(volume: Tensor, points: Tensor, grid: Grid, outside: float | None = None) -> Tensor:
    """Sample ``volume`` trilinearly at physical points.

    Args:
        volume: ``[c, z, y, x]`` on ``grid``.
        points: ``[..., 3]`` in mm, LPS, ordered (x, y, z); at most three leading axes.
        grid: the grid of ``volume``.
        outside: value beyond the half-voxel border; ``None`` repeats the border.

    Returns:
        Tensor ``[c, ...]``, differentiable in ``volume`` and ``points``.
    """
    matrix = torch.as_tensor(grid.unit_from_index @ grid.inverse_affine, dtype=points.dtype, device=points.device)
    unit = points @ matrix[:3, :3].T + matrix[:3, 3]
    lead = unit.shape[:-1]
    flat = unit.reshape(1, *(1,) * (3 - len(lead)), *lead, 3)
    values = functional.grid_sample(volume[None], flat, "bilinear", "border", align_corners=ALIGN_CORNERS)
    values = values.reshape(volume.shape[0], *lead)
    if outside is None:
        return values
    half_voxel = torch.tensor([1.0 / max(n - 1, 1) for n in grid.size], dtype=unit.dtype, device=unit.device)
    inside = (unit.abs() <= 1.0 + half_voxel + 1e-6).all(dim=-1)
    return torch.where(inside, values, torch.as_tensor(outside, dtype=values.dtype, device=values.device))


def resample(
    array: NDArray[np.generic],
    source: Grid,
    target: Grid,
    *,
    matrix: FloatArray | None = None,
    outside: float = 0.0,
    slab_size: int = 32,
) -> NDArray[np.float32]:
    """Resample ``array`` trilinearly from ``source`` to ``target``, optionally through an affine map.

    Args:
        array: ``[z, y, x]`` on ``source``; any real type.
        source: the grid of ``array``.
        target: the grid of the result.
        matrix: 4x4 physical map from ``target``'s space to ``source``'s (identity by default).
        outside: value where a point lies outside ``source``.
        slab_size: slices of ``target`` per step, which bounds the memory.

    Returns:
        float32 ``[z, y, x]`` on ``target``. No low-pass filter: smooth before coarsening.
    """
    values = np.ascontiguousarray(array, dtype=np.float32)
    # from index to index in float64: physical coordinates of some scanners are too large for float32
    affine = source.inverse_affine @ (target.affine if matrix is None else matrix @ target.affine)
    result = np.empty(target.shape, dtype=np.float32)
    if compiled_available():
        from ChangeMapJointLib.core import kernels

        rows = np.ascontiguousarray(affine[:3])
        over_slices(partial(kernels.affine_slices, values, rows, np.float32(outside), result), len(result))
        return result
    volume, index_grid = torch.as_tensor(values)[None], Grid(source.shape)
    for z in range(0, target.shape[0], slab_size):
        slab = slice(z, z + slab_size)
        points = index_points(target, affine, slab)
        result[slab] = sample(volume, points, index_grid, outside)[0].numpy()
    return result


def sample_array(array: NDArray[np.generic], grid: Grid, points_mm: NDArray[np.generic]) -> NDArray[np.float32]:
    """Sample ``array`` ([z, y, x] or [z, y, x, c]) trilinearly at physical points ``[n, 3]`` in mm.

    Returns:
        float32 ``[n]`` or ``[n, c]``; outside, the border value is repeated.
    """
    volume = torch.as_tensor(np.ascontiguousarray(array, dtype=np.float32))
    volume = volume.movedim(-1, 0) if volume.ndim == 4 else volume[None]
    # indices in float64 first: physical coordinates of some scanners are too large for float32
    index = torch.as_tensor(apply_affine(grid.inverse_affine, points_mm), dtype=torch.float32)
    values = sample(volume, index, Grid(grid.shape)).numpy()
    return values.T if array.ndim == 4 else values[0]
