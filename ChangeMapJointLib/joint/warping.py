"""Warping, composing and det grad y on the one grid that the network sees.

R and T lie on the same axis-parallel grid of the network (T by the rigid pre-alignment), so that u needs no frame:
it is ``[n, 3, z, y, x]`` in mm, components (x, y, z) along the array's axes, ``T(y(x)) = T(x + u(x))``. A crop of R
needs all of T: its offset says which voxel of T's grid, (x, y, z), its first voxel is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ChangeMapJointLib.core.grid import ALIGN_CORNERS
from ChangeMapJointLib.registration.deformable.similarity import Spacing

Offset = tuple[int, int, int]
ORIGIN: Offset = (0, 0, 0)


def warp(volume: Tensor, displacement_mm: Tensor, spacing_mm: Spacing, offset: Offset = ORIGIN) -> Tensor:
    """``volume(x + u(x))``, trilinear, the border repeated outside.

    Args:
        volume: ``[n, c, z, y, x]``.
        displacement_mm: u, ``[n, 3, z, y, x]``; its grid is the one of the result.
        spacing_mm: of both, ordered (x, y, z).
        offset: voxel (x, y, z) of ``volume`` at which u begins, where u is of a crop.

    Returns:
        ``[n, c, z, y, x]`` in the precision of u, at least float32: positions of half precision are too coarse.
    """
    u = displacement_mm.float() if displacement_mm.dtype in (torch.float16, torch.bfloat16) else displacement_mm
    with torch.autocast(u.device.type, enabled=False):
        points = _points(u, spacing_mm, volume.shape[:1:-1], offset)
        return functional.grid_sample(volume.to(u), points, "bilinear", "border", align_corners=ALIGN_CORNERS)


def compose(first_mm: Tensor, then_mm: Tensor, spacing_mm: Spacing, offset: Offset = ORIGIN) -> Tensor:
    """U of ``y(x) = y1(y2(x))``: ``u2(x) + u1(x + u2(x))``.

    Args:
        first_mm: u1, which takes on to the template, ``[n, 3, z, y, x]``.
        then_mm: u2, which starts from the reference, on the same grid or a crop of it.
        spacing_mm: of both.
        offset: as :func:`warp`.
    """
    return then_mm + warp(first_mm, then_mm, spacing_mm, offset)


def inverse(displacement_mm: Tensor, spacing_mm: Spacing, steps: int = 30) -> Tensor:
    """V of ``y^-1``: ``v(x) = -u(x + v(x))``, by iteration, for y far from folding; arguments as :func:`warp`."""
    found = -displacement_mm
    for _ in range(steps):
        found = -warp(displacement_mm, found, spacing_mm)
    return found


def determinant(displacement_mm: Tensor, spacing_mm: Spacing) -> Tensor:
    """Det grad y at every voxel from central differences, one-sided at the border, with a graph.

    Args:
        displacement_mm: u, ``[..., 3, z, y, x]``, components and spacing ordered (x, y, z).
        spacing_mm: of the grid.

    Returns:
        ``[..., z, y, x]``; 1 keeps the volume, <= 0 folds.
    """
    rows = [torch.gradient(displacement_mm, spacing=spacing_mm[axis], dim=-1 - axis)[0] for axis in range(3)]
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(-4) for row in rows)  # d(ux, uy, uz) along x, y, z
    a, e, i = a + 1, e + 1, i + 1
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def resize(volume: Tensor, shape: Sequence[int]) -> Tensor:
    """``volume`` ``[n, c, z, y, x]`` with other voxels in the same box, trilinear between voxel centres."""
    return functional.interpolate(volume, tuple(shape), mode="trilinear", align_corners=False)


def displacement_at(displacement_mm: Tensor, index: Tensor) -> Tensor:
    """U at real voxel indices.

    Args:
        displacement_mm: u, ``[3, z, y, x]``.
        index: ``[n, 3]`` voxel index (x, y, z), any real number; beyond the border the border is taken.

    Returns:
        ``[n, 3]`` in mm.
    """
    size = torch.tensor(displacement_mm.shape[:0:-1]).to(index)  # (x, y, z)
    points = 2 * index / (size - 1).clamp_min(1) - 1
    grid = points.to(displacement_mm)[None, None, None]
    found = functional.grid_sample(displacement_mm[None], grid, "bilinear", "border", align_corners=ALIGN_CORNERS)
    return found[0, :, 0, 0].T


def _points(u: Tensor, spacing_mm: Spacing, size: Sequence[int], offset: Offset) -> Tensor:
    """Positions ``x + u(x)`` as grid_sample wants them, ``[n, z, y, x, 3]``; size of the volume, (x, y, z)."""
    parts = []
    for axis, (n, whole, h, start) in enumerate(zip(u.shape[:1:-1], size, spacing_mm, offset, strict=True)):
        scale = 2 / max(whole - 1, 1)
        shape = [1, 1, 1, 1]
        shape[3 - axis] = n
        place = (torch.arange(start, start + n, device=u.device, dtype=u.dtype) * scale - 1) * (whole > 1)
        parts.append(place.view(shape) + u[:, axis] * (scale / h))
    return torch.stack(parts, dim=-1)
