"""The terms of Eq. (1): closed forms, golden numbers, and float64 gradients."""

import math

import pytest
import torch

from ChangeMapJointLib.registration.deformable.similarity import (
    edge_parameter,
    mask_distance,
    normalised_gradient_fields,
    weighted_mean,
)

UNIT = (1.0, 1.0, 1.0)
N = 8


def ramp(axis: int, slope: float = 10.0) -> torch.Tensor:
    """slope * x_axis on an N^3 grid, axis 0 = x."""
    line = slope * torch.arange(N, dtype=torch.float64)
    shape = [1, 1, 1]
    shape[2 - axis] = N
    return line.reshape(shape).expand(N, N, N).clone()


FLAT = torch.zeros(N, N, N, dtype=torch.float64)
INTERIOR = torch.zeros(N, N, N, dtype=torch.float64)
INTERIOR[1:-1, 1:-1, 1:-1] = 1.0

# slope 10/mm, edge parameter 1, 10, 100; per voxel in the interior
GOLDEN = [
    ("flat/flat", FLAT, FLAT, (0, 0, 0)),
    ("equal ramps", ramp(0), ramp(0), (0, 0, 0)),
    ("opposite ramps", ramp(0), -ramp(0), (0.0392, 1.0, 0.0392)),
    ("orthogonal ramps", ramp(0), ramp(1), (0.9999, 0.75, 0.0197)),
    ("ramp/flat", ramp(0), FLAT, (0.990, 0.5, 0.0099)),
]


@pytest.mark.parametrize(("name", "r", "t", "distances"), GOLDEN, ids=[g[0] for g in GOLDEN])
def test_ngf_golden_values(name, r, t, distances) -> None:
    for edge, expected in zip((1.0, 10.0, 100.0), distances, strict=True):
        value = normalised_gradient_fields(r, t, UNIT, edge_reference=edge, edge_template=edge, weight=INTERIOR)
        assert float(value) == pytest.approx(expected, abs=6e-5 if expected < 0.9 else 2e-4)


def test_ngf_sees_oscillation_from_voxel_to_voxel() -> None:
    """Checkerboard of amplitude 5 against flat, edge 10: 0.5; central differences would see nothing."""
    z, y, x = torch.meshgrid(*[torch.arange(N)] * 3, indexing="ij")
    board = 5.0 * (1 - 2 * ((x + y + z) % 2)).double()
    value = normalised_gradient_fields(board, FLAT, UNIT, edge_reference=10.0, edge_template=10.0, weight=INTERIOR)
    # |grad|^2 = 3 axes * 10^2, so 1 - 100^2 / ((300 + 100) * 100) = 0.75; one axis alone gives 0.5
    assert float(value) == pytest.approx(0.75)
    stripes = 5.0 * (1 - 2 * (x % 2)).double()
    value = normalised_gradient_fields(stripes, FLAT, UNIT, edge_reference=10.0, edge_template=10.0, weight=INTERIOR)
    assert float(value) == pytest.approx(0.5)


def test_ngf_compares_physical_angles_on_anisotropic_voxels() -> None:
    """Gradients that are orthogonal in mm stay so when voxels are not cubes."""
    h = (0.7, 0.7, 2.0)
    z, _, x = torch.meshgrid(*[torch.arange(N, dtype=torch.float64)] * 3, indexing="ij")
    r = 10 * (x * h[0] + z * h[2])
    t = 10 * (x * h[0] - z * h[2])
    value = normalised_gradient_fields(r, t, h, edge_reference=1e-6, edge_template=1e-6, weight=INTERIOR)
    assert float(value) == pytest.approx(1.0, abs=1e-6)


def test_ngf_ignores_contrast_of_equal_edges() -> None:
    value = normalised_gradient_fields(ramp(0), 3 * ramp(0), UNIT, edge_reference=1e-3, edge_template=1e-3)
    assert float(value) == pytest.approx(0.0, abs=1e-6)


def test_ngf_gradient() -> None:
    generator = torch.Generator().manual_seed(1)
    r, t = (torch.randn(4, 5, 3, generator=generator, dtype=torch.float64) * 20 for _ in range(2))
    w = torch.rand(4, 5, 3, generator=generator, dtype=torch.float64)
    t.requires_grad_(True)
    assert torch.autograd.gradcheck(
        lambda image: normalised_gradient_fields(
            r, image, (0.7, 0.8, 2.0), edge_reference=5.0, edge_template=8.0, weight=w
        ),
        (t,),
    )


def test_mask_distance_is_half_the_share_of_disagreement() -> None:
    a = torch.zeros(2, 4, 5, dtype=torch.float64)
    b = a.clone()
    b[0, 0, :4] = 1.0
    assert float(mask_distance(a, b)) == pytest.approx(0.5 * 4 / 40)
    assert torch.autograd.gradcheck(lambda m: mask_distance(a, m), (b.requires_grad_(True),))


def test_weighted_mean_of_nothing_is_zero() -> None:
    assert float(weighted_mean(torch.ones(3), torch.zeros(3))) == 0.0


def test_edge_parameter_of_a_ramp_and_of_a_flat_image() -> None:
    # differences are (10, 0, 0): sqrt((100 + 0 + 0) / 3)
    everywhere = torch.ones(N, N, N, dtype=torch.bool)
    assert edge_parameter(ramp(0), UNIT, everywhere) == pytest.approx(10 / math.sqrt(3))
    assert edge_parameter(FLAT, UNIT, everywhere) == 1e-3
    assert edge_parameter(ramp(0), UNIT, ~everywhere) == pytest.approx(10 / math.sqrt(3))


def test_edge_parameter_counts_only_the_mask() -> None:
    image = FLAT.clone()
    image[:, :, 6:] = 1000.0
    mask = torch.zeros(N, N, N, dtype=torch.bool)
    mask[:, :, :4] = True
    assert edge_parameter(image, UNIT, mask) == 1e-3
