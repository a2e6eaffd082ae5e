"""Warping, composition and Jacobian determinant of displacements on the network's grid.

After rigid pre-alignment R and T share the network's axis-parallel grid, so that u needs no physical frame: it is
``[n, 3, z, y, x]`` in mm, components (x, y, z) along the array's axes, with ``T(y(x)) = T(x + u(x))``. Where R is a
crop, an offset (x, y, z) gives the voxel of T's grid at which the crop begins.
"""

from __future__ import annotations

from collections.abc import Sequence

from ChangeMapJointLib.core.grid import ALIGN_CORNERS
from ChangeMapJointLib.core.lazy_torch import Tensor, functional, torch
from ChangeMapJointLib.registration.deformable.similarity import Spacing

Offset = tuple[int, int, int]
ORIGIN: Offset = (0, 0, 0)


def warp_tensor(volume: Tensor, displacement_mm: Tensor, spacing_mm: Spacing, offset: Offset = ORIGIN) -> Tensor:
    """Warp a volume: ``volume(x + u(x))``, trilinear, border values repeated outside.

    Args:
        volume: ``[n, c, z, y, x]``.
        displacement_mm: u, ``[n, 3, z, y, x]``; the result is on its grid.
        spacing_mm: of both, ordered (x, y, z).
        offset: voxel (x, y, z) of ``volume`` at which u begins, where u belongs to a crop.

    Returns:
        ``[n, c, z, y, x]`` in the precision of u, but at least float32: half precision is too coarse for positions.
    """
    u = displacement_mm.float() if displacement_mm.dtype in (torch.float16, torch.bfloat16) else displacement_mm
    with torch.autocast(u.device.type, enabled=False):
        points = _points(u, spacing_mm, volume.shape[:1:-1], offset)
        return functional.grid_sample(volume.to(u), points, "bilinear", "border", align_corners=ALIGN_CORNERS)


def compose(first_mm: Tensor, then_mm: Tensor, spacing_mm: Spacing, offset: Offset = ORIGIN) -> Tensor:
    """Compose two maps: u of ``y(x) = y1(y2(x))``, which is ``u2(x) + u1(x + u2(x))``.

    Args:
        first_mm: u1, which ends in the template, ``[n, 3, z, y, x]``.
        then_mm: u2, which starts in the reference, on the same grid or a crop of it.
        spacing_mm: of both, ordered (x, y, z).
        offset: as in :func:`warp_tensor`.

    Returns:
        u in mm, on the grid of u2.
    """
    return then_mm + warp_tensor(first_mm, then_mm, spacing_mm, offset)


def inverse(displacement_mm: Tensor, spacing_mm: Spacing, steps: int = 30) -> Tensor:
    """Invert a map by fixed-point iteration: v of ``y^-1``, with ``v(x) = -u(x + v(x))``.

    Args:
        displacement_mm: u, ``[n, 3, z, y, x]``, far from folding.
        spacing_mm: of the grid, ordered (x, y, z).
        steps: iterations.
    """
    inverse_mm = -displacement_mm
    for _ in range(steps):
        inverse_mm = -warp_tensor(displacement_mm, inverse_mm, spacing_mm)
    return inverse_mm


def jacobian_on_network_grid(displacement_mm: Tensor, spacing_mm: Spacing) -> Tensor:
    """Jacobian determinant det grad y at every voxel, by central differences (one-sided at the border).

    It is differentiable with respect to u.

    Args:
        displacement_mm: u, ``[..., 3, z, y, x]``, components and spacing ordered (x, y, z).
        spacing_mm: of the grid.

    Returns:
        ``[..., z, y, x]``; 1 where the volume is kept, <= 0 where y folds.
    """
    rows = [torch.gradient(displacement_mm, spacing=spacing_mm[axis], dim=-1 - axis)[0] for axis in range(3)]
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(-4) for row in rows)  # d(ux, uy, uz) along x, y, z
    a, e, i = a + 1, e + 1, i + 1
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def resize(volume: Tensor, shape: Sequence[int]) -> Tensor:
    """Resample a volume ``[n, c, z, y, x]`` to another shape in the same physical box, trilinear."""
    return functional.interpolate(volume, tuple(shape), mode="trilinear", align_corners=False)


def displacement_at(displacement_mm: Tensor, index: Tensor) -> Tensor:
    """Interpolate u at continuous voxel indices.

    Args:
        displacement_mm: u, ``[3, z, y, x]``.
        index: ``[n, 3]`` continuous voxel indices (x, y, z); border values are repeated outside.

    Returns:
        ``[n, 3]`` in mm.
    """
    size = torch.tensor(displacement_mm.shape[:0:-1]).to(index)  # (x, y, z)
    points = 2 * index / (size - 1).clamp_min(1) - 1
    grid = points.to(displacement_mm)[None, None, None]
    values = functional.grid_sample(displacement_mm[None], grid, "bilinear", "border", align_corners=ALIGN_CORNERS)
    return values[0, :, 0, 0].T


def _points(u: Tensor, spacing_mm: Spacing, size: Sequence[int], offset: Offset) -> Tensor:
    """Positions ``x + u(x)`` in grid_sample's convention, ``[n, z, y, x, 3]``; ``size`` (x, y, z) is the volume's."""
    parts = []
    for axis, (n, volume_n, h, start) in enumerate(zip(u.shape[:1:-1], size, spacing_mm, offset, strict=True)):
        scale = 2 / max(volume_n - 1, 1)
        shape = [1, 1, 1, 1]
        shape[3 - axis] = n
        position = (torch.arange(start, start + n, device=u.device, dtype=u.dtype) * scale - 1) * (volume_n > 1)
        parts.append(position.view(shape) + u[:, axis] * (scale / h))
    return torch.stack(parts, dim=-1)
