"""Warping and composing on the one grid that the network sees.

R and T lie on the same axis-parallel grid of the network (T by the rigid pre-alignment), so that u needs no frame:
it is ``[n, 3, z, y, x]`` in mm, components (x, y, z) along the array's axes, ``T(y(x)) = T(x + u(x))``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ChangeMapJointLib.core.grid import ALIGN_CORNERS
from ChangeMapJointLib.registration.distances import Spacing


def warp(volume: Tensor, displacement_mm: Tensor, spacing_mm: Spacing) -> Tensor:
    """``volume(x + u(x))``, trilinear, the border repeated outside.

    Args:
        volume: ``[n, c, z, y, x]``.
        displacement_mm: u, ``[n, 3, z, y, x]``; its grid is the one of the result.
        spacing_mm: of both, ordered (x, y, z).

    Returns:
        ``[n, c, z, y, x]`` in the precision of u, at least float32: positions of half precision are too coarse.
    """
    u = displacement_mm.float() if displacement_mm.dtype in (torch.float16, torch.bfloat16) else displacement_mm
    with torch.autocast(u.device.type, enabled=False):
        points = _points(u, spacing_mm)
        return functional.grid_sample(volume.to(u), points, "bilinear", "border", align_corners=ALIGN_CORNERS)


def compose(first_mm: Tensor, then_mm: Tensor, spacing_mm: Spacing) -> Tensor:
    """U of ``y(x) = y1(y2(x))``: ``u2(x) + u1(x + u2(x))``.

    Args:
        first_mm: u1, which takes on to the template, ``[n, 3, z, y, x]``.
        then_mm: u2, which starts from the reference, on the same grid.
        spacing_mm: of both.
    """
    return then_mm + warp(first_mm, then_mm, spacing_mm)


def resize(volume: Tensor, shape: Sequence[int]) -> Tensor:
    """``volume`` ``[n, c, z, y, x]`` with other voxels in the same box, trilinear between voxel centres."""
    return functional.interpolate(volume, tuple(shape), mode="trilinear", align_corners=False)


def at_points(displacement_mm: Tensor, index: Tensor) -> Tensor:
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


def _points(u: Tensor, spacing_mm: Spacing) -> Tensor:
    """Positions ``x + u(x)`` as grid_sample wants them, ``[n, z, y, x, 3]``."""
    size = u.shape[:1:-1]  # (x, y, z)
    axes = [torch.linspace(-1, 1, n, device=u.device, dtype=u.dtype) if n > 1 else u.new_zeros(1) for n in size]
    parts = []
    for axis, (place, n, h) in enumerate(zip(axes, size, spacing_mm, strict=True)):
        shape = [1, 1, 1, 1]
        shape[3 - axis] = n
        parts.append(place.view(shape) + u[:, axis] * (2 / (max(n - 1, 1) * h)))
    return torch.stack(parts, dim=-1)
