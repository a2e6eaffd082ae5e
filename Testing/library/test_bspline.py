"""The control grid: what B-splines reproduce exactly, and their exact derivatives."""

import numpy as np
import pytest
import torch

from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.core.resample import index_points
from ChangeMapJointLib.registration.deformable.bspline import (
    ControlGrid,
    basis,
    basis_derivative,
    expand,
    refine_coefficients,
)

TURNED = ((0.0, -1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0))


@pytest.fixture
def control() -> ControlGrid:
    return ControlGrid(Grid((11, 14, 17), (1.5, 1.0, 2.0), (3.0, -7.0, 50.0), TURNED), (4.0, 4.0, 3.0))


def linear(control: ControlGrid) -> torch.Tensor:
    """Coefficients of u = A x: a cubic B-spline with linear coefficients is that linear function."""
    matrix = np.eye(4)
    matrix[:3, :3] = [[0.1, 0.02, 0], [0, -0.2, 0.05], [0.03, 0, 0.3]]
    points = control.positions()
    return index_points(points, matrix @ points.affine, like=torch.zeros(1, dtype=torch.float64))


def test_basis_is_a_partition_of_unity_with_known_knots() -> None:
    assert basis(torch.tensor([0.0, 1.0, -1.0, 2.0])).tolist() == pytest.approx([2 / 3, 1 / 6, 1 / 6, 0])
    offsets = torch.linspace(0, 1, 7, dtype=torch.float64)[:, None] - torch.arange(-2, 4)
    assert basis(offsets).sum(1).tolist() == pytest.approx([1.0] * 7)
    assert basis_derivative(offsets).sum(1).tolist() == pytest.approx([0.0] * 7, abs=1e-12)


def test_basis_derivative() -> None:
    x = torch.tensor([-1.7, -0.4, 0.2, 1.3], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.grad(basis(x).sum(), x)[0].tolist() == pytest.approx(basis_derivative(x.detach()).tolist())


def test_linear_displacement_is_reproduced(control: ControlGrid) -> None:
    u = expand(linear(control), control.matrices(torch.zeros(1, dtype=torch.float64)))
    matrix = np.eye(4)
    matrix[:3, :3] = [[0.1, 0.02, 0], [0, -0.2, 0.05], [0.03, 0, 0.3]]
    wanted = index_points(control.grid, matrix @ control.grid.affine, like=u)
    assert u.shape == (*control.grid.shape, 3)
    assert torch.allclose(u, wanted, atol=1e-9)


def test_knot_gradient_of_a_linear_displacement(control: ControlGrid) -> None:
    """du/d(axis) is A times the axis' direction."""
    gradient = control.knot_gradient(linear(control))
    matrix = np.array([[0.1, 0.02, 0], [0, -0.2, 0.05], [0.03, 0, 0.3]])
    for axis in range(3):
        wanted = matrix @ np.asarray(control.grid.direction)[:, axis]
        assert gradient[axis].reshape(-1, 3).numpy() == pytest.approx(
            np.broadcast_to(wanted, gradient[axis].reshape(-1, 3).shape), abs=1e-9
        )


def test_derivative_matrices_agree_with_differences(control: ControlGrid) -> None:
    like = torch.zeros(1, dtype=torch.float64)
    c = torch.randn(*control.shape, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wide = expand(c, control.matrices(like))
    exact = expand(c, control.matrices(like, derivative=0))
    central = (wide[:, :, 2:] - wide[:, :, :-2]) / (2 * control.grid.spacing_mm[0])
    error = (exact[:, :, 1:-1] - central).abs().max()
    assert float(error) < 0.15 * float(exact.abs().max())  # second order in a voxel of a quarter control spacing
    # and exactly at the knots, against the knot gradient
    assert torch.allclose(exact[::3, ::4, ::4][1:3, 1:3, 1:3], control.knot_gradient(c)[0][1:3, 1:3, 1:3], atol=1e-12)


@pytest.mark.parametrize("spacing", [1.0, 0.6, 2.3])
def test_refine_keeps_linear_displacements_everywhere(control: ControlGrid, spacing: float) -> None:
    fine = ControlGrid(control.grid.with_spacing((spacing,) * 3), (4.0, 4.0, 4.0))
    refined = refine_coefficients(linear(control), control, fine)
    assert torch.allclose(refined, linear(fine), atol=1e-9)


def test_refine_keeps_any_spline_whose_knots_are_kept() -> None:
    """Halving the control spacing about the same first voxel: the spaces are nested."""
    coarse = ControlGrid(Grid((41, 41, 41), (4.0, 4.0, 4.0)), (4.0, 4.0, 4.0))
    fine = ControlGrid(Grid((81, 81, 81), (2.0, 2.0, 2.0)), (4.0, 4.0, 4.0))
    generator = torch.Generator().manual_seed(3)
    c = torch.randn(*coarse.shape, 3, generator=generator, dtype=torch.float64)
    before = expand(c, coarse.matrices(c))
    refined = refine_coefficients(c, coarse, fine)
    after = expand(refined, fine.matrices(refined))[::2, ::2, ::2]
    inner = (slice(14, -14),) * 3  # the border's other extension fades by 0.27 a control point
    assert float((after - before)[inner].abs().max()) < 1e-3


def test_values_at_single_points_are_those_of_the_voxels(control: ControlGrid) -> None:
    """At voxels the sum over 64 control points is the expanded displacement; between them it is the spline itself."""
    c = torch.randn(*control.shape, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    u = expand(c, control.matrices(c))
    index = np.array([[0, 0, 0], [16, 13, 10], [5, 7, 3], [16, 0, 10]], float)
    nodes, values = control.at_points(index)
    found = (c.reshape(-1, 3)[nodes] * values[..., None]).sum(1)
    wanted = torch.stack([u[int(z), int(y), int(x)] for x, y, z in index])
    assert torch.allclose(found, wanted)
    assert values.sum(1).tolist() == pytest.approx([1.0] * 4)
    between = control.at_points(np.array([[4.3, 6.6, 2.2], [-9.0, 99.0, 2.2]]))
    line = linear(control).reshape(-1, 3)
    moved = (line[between[0]] * between[1][..., None]).sum(1).numpy()
    matrix = np.array([[0.1, 0.02, 0], [0, -0.2, 0.05], [0.03, 0, 0.3]])
    inside = control.grid.to_physical(np.array([[4.3, 6.6, 2.2], [0.0, 13.0, 2.2]]))  # beyond the border: its value
    assert moved == pytest.approx(inside @ matrix.T, abs=1e-9)
