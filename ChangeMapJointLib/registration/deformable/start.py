"""Where the deformable registration starts: from the rigid alignment, or from a deformation that is close already."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.grid import FloatArray, Grid, apply_affine
from ChangeMapJointLib.core.lazy_torch import Tensor, torch
from ChangeMapJointLib.core.resample import index_points, resample
from ChangeMapJointLib.registration.deformable.bspline import ControlGrid, interpolation_coefficients

START_MM = 12.0  # a given start is smoothed with this sigma: control points lie farther apart at first
RIGID_SHARE = 0.02  # weight of the rigid map, against the share of lung around a point


def smooth_start(
    field: DisplacementField, lungs: NDArray[np.bool_], grid: Grid, rigid: FloatArray
) -> DisplacementField:
    """Smooth ``field`` in the lungs and extrapolate it beyond them, towards ``rigid`` far away.

    The data terms count in the lungs only, so nothing would correct the network's displacement of the ribs, and T's
    lungs would end up in the wrong place.

    Args:
        field: y, including the rigid part.
        lungs: bool ``[z, y, x]``: where ``field`` can be believed.
        grid: grid of ``lungs``.
        rigid: 4x4, reference to template.

    Returns:
        The smooth field, including the rigid part, on voxels of 6 mm over ``grid``.
    """
    coarse = grid.with_spacing((START_MM / 2,) * 3)
    inside = resample(gaussian_filter(lungs.astype(np.float32), _sigma(START_MM / 4, grid)), grid, coarse)
    points = coarse.to_physical(np.indices(coarse.shape)[::-1].reshape(3, -1).T.astype(float))
    nonrigid = (field.apply(points) - apply_affine(rigid, points)).reshape(*coarse.shape, 3)
    sigma = _sigma(START_MM, coarse)
    weight = gaussian_filter(inside, sigma)
    smooth = [gaussian_filter(nonrigid[..., c] * inside, sigma) / (weight + RIGID_SHARE) for c in range(3)]
    moved = apply_affine(rigid, points) - points
    return DisplacementField((np.stack(smooth, -1) + moved.reshape(*coarse.shape, 3)).astype(np.float32), coarse)


def _sigma(mm: float, grid: Grid) -> list[float]:
    """A standard deviation in mm as voxels along (z, y, x)."""
    return [mm / h for h in grid.spacing_mm[::-1]]


def initial_coefficients(
    field: DisplacementField | None, control: ControlGrid, rigid: FloatArray, *, like: Tensor
) -> Tensor:
    """B-spline coefficients of the displacement that ``field`` adds to ``rigid``, exact at the control points.

    Args:
        field: y, including the rigid part; None for ``rigid`` alone.
        control: the control grid.
        rigid: 4x4, reference to template.
        like: tensor whose dtype and device the result gets.

    Returns:
        ``[cz, cy, cx, 3]`` in mm.
    """
    if field is None:
        return like.new_zeros((*control.shape, 3))
    grid = control.positions()
    index = field.grid.to_index(index_points(grid, grid.affine).numpy().reshape(-1, 3))
    points = field.grid.to_physical(np.clip(index, 0, np.array(field.grid.size) - 1))  # repeat its border
    values = field.apply(points) - apply_affine(rigid, points)
    return interpolation_coefficients(torch.as_tensor(values).reshape(*control.shape, 3)).to(like)
