"""Curvature and volume control: golden numbers and float64 gradients."""

import pytest
import torch

from ChangeMapJointLib.registration.deformable.regularisers import curvature, volume_penalty, volume_regulariser

SHAPE, H = (6, 7, 8), (1.0, 1.0, 2.0)  # [z, y, x], spacing (x, y, z)


def field(u_x: torch.Tensor) -> torch.Tensor:
    u = torch.zeros(3, *SHAPE, dtype=torch.float64)
    u[0] = u_x
    return u


X = torch.arange(SHAPE[2], dtype=torch.float64).expand(SHAPE)
Z = (2.0 * torch.arange(SHAPE[0], dtype=torch.float64))[:, None, None].expand(SHAPE)


def test_affine_motion_costs_nothing() -> None:
    assert float(curvature(field(torch.ones(SHAPE)), H)) == 0
    assert float(curvature(field(0.1 * X), H)) == pytest.approx(0, abs=1e-12)


def test_quadratic_displacement_has_constant_curvature() -> None:
    """u = 0.5 x^2 has Laplacian 1: density 0.5 on the 6 of 8 inner voxels = 0.375."""
    assert float(curvature(field(0.5 * X**2), H)) == pytest.approx(0.375)


def test_spacing_counts_in_mm() -> None:
    """u = 0.5 z^2 with z in mm: Laplacian 1 on 4 of 6 slices, whatever the voxel size."""
    assert float(curvature(field(0.5 * Z**2), H)) == pytest.approx(0.5 * 4 / 6)


def test_laplacian_of_a_saddle_vanishes_inside() -> None:
    y = torch.arange(SHAPE[1], dtype=torch.float64)[None, :, None].expand(SHAPE)
    saddle = field(X**2 - y**2)
    inner = curvature(saddle[:, :, 1:-1, 1:-1], H)
    # only where one of the two second derivatives is cut off at the border does it count
    assert float(inner) < float(curvature(field(X**2), H))


def test_curvature_gradient() -> None:
    u = torch.randn(3, 3, 4, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: curvature(v, H), (u,))


def test_grid_too_thin_for_a_second_derivative() -> None:
    assert float(curvature(torch.randn(3, 2, 2, 2), H)) == 0


@pytest.mark.parametrize(("v", "psi"), [(0.1, 8.1), (0.5, 0.5), (0.8, 0.05), (1, 0), (1.25, 0.05), (2, 0.5), (10, 8.1)])
def test_volume_penalty_golden_values(v: float, psi: float) -> None:
    assert float(volume_penalty(torch.tensor(v, dtype=torch.float64))) == pytest.approx(psi)


def test_volume_penalty_goes_on_along_its_tangent_below_the_threshold() -> None:
    """psi'(0.1) = 1 - 1/0.01 = -99."""
    v = torch.tensor([0.0, -1.0], dtype=torch.float64, requires_grad=True)
    psi = volume_penalty(v)
    assert psi.tolist() == pytest.approx([8.1 + 9.9, 8.1 + 108.9])
    assert torch.autograd.grad(psi.sum(), v)[0].tolist() == pytest.approx([-99, -99])


def test_volume_penalty_gradient_is_continuous_and_right() -> None:
    v = torch.tensor([-0.5, 0.05, 0.3, 1.0, 4.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(volume_penalty, (v,))


def test_volume_change_is_a_weighted_mean() -> None:
    v = torch.tensor([1.0, 2.0, 0.5])
    assert float(volume_regulariser(v)) == pytest.approx(1 / 3)
    assert float(volume_regulariser(v, torch.tensor([1.0, 1.0, 0.0]))) == pytest.approx(0.25)
    assert float(volume_regulariser(v, torch.zeros(3))) == 0
