"""Resampling, warping and the Jacobian: closed forms."""

import numpy as np
import pytest
import torch

from ChangeMapJointLib.core import displacement
from ChangeMapJointLib.core import resample as resampling
from ChangeMapJointLib.core.compiled import compiled_available
from ChangeMapJointLib.core.displacement import DisplacementField, jacobian_determinant, warp
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.core.resample import index_points, resample, sample, sample_array
from ChangeMapJointLib.registration import trust
from ChangeMapJointLib.registration.trust import inverse_consistency

TURNED = ((0.0, -1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0))  # 90 degrees about z
SLOPE = np.array([2.0, -3.0, 0.5])  # HU/mm


def ramp(grid: Grid) -> np.ndarray:
    """A linear function of the physical position; trilinear interpolation is exact on it."""
    return (index_points(grid, grid.affine).double().numpy() @ SLOPE).astype(np.float32)


@pytest.fixture(params=["straight", "turned"])
def grid(request: pytest.FixtureRequest) -> Grid:
    direction = TURNED if request.param == "turned" else Grid((1, 1, 1)).direction
    return Grid((9, 10, 11), (1.0, 1.5, 2.0), (-5.0, 3.0, 100.0), direction)


def test_sampling_a_linear_function_is_exact(grid: Grid) -> None:
    points = grid.to_physical(np.random.default_rng(0).uniform(0, 8, (50, 3)))
    assert sample_array(ramp(grid), grid, points) == pytest.approx(points @ SLOPE, abs=1e-3)


def test_outside_value_begins_half_a_voxel_beyond_the_border() -> None:
    grid = Grid((3, 3, 3))
    points = torch.tensor([[2.4, 1, 1], [2.6, 1, 1], [-0.6, 1, 1]])
    values = sample(torch.ones(1, 3, 3, 3), points, grid, outside=-9.0)[0]
    assert values.tolist() == [1.0, -9.0, -9.0]


def test_resample_between_turned_grids(grid: Grid) -> None:
    target = Grid((3, 3, 3), (1.0, 1.0, 1.0), grid.centre_mm)
    assert resample(ramp(grid), grid, target) == pytest.approx(ramp(target), abs=1e-3)


def test_warp_by_a_constant_displacement_adds_its_slope(grid: Grid) -> None:
    shift = np.array([0.5, -0.75, 1.0], dtype=np.float32)
    field = DisplacementField(np.broadcast_to(shift, (*grid.shape, 3)).copy(), grid)
    inner = grid.crop((3, 3, 3), (6, 6, 6))
    warped = warp(ramp(grid), grid, inner, field)
    assert warped == pytest.approx(ramp(inner) + float(shift @ SLOPE), abs=2e-3)


def test_warp_outside_the_template_gives_the_outside_value() -> None:
    grid = Grid((4, 4, 4))
    field = DisplacementField(np.full((4, 4, 4, 3), 100.0, np.float32), grid)
    assert (warp(np.zeros((4, 4, 4)), grid, grid, field, outside=-1024) == -1024).all()


def test_coarse_field_is_interpolated() -> None:
    fine, coarse = Grid((8, 8, 8)), Grid((4, 4, 4), (2.0, 2.0, 2.0), (0.5, 0.5, 0.5))
    matrix = np.eye(4)
    matrix[0, 0], matrix[2, 1] = 1.1, 0.2
    u = DisplacementField.from_affine(matrix, coarse)
    points = fine.to_physical([[2, 3, 4], [5, 5, 2]])
    assert u.apply(points) == pytest.approx(points @ matrix[:3, :3].T, abs=1e-5)


def test_jacobian_of_an_affine_map(grid: Grid) -> None:
    """Golden value of A = [[.1,.02,0],[0,-.2,.05],[.03,0,.3]]: det(I + A) = 1.144030."""
    matrix = np.eye(4)
    matrix[:3, :3] += [[0.1, 0.02, 0], [0, -0.2, 0.05], [0.03, 0, 0.3]]
    u = DisplacementField.from_affine(matrix, grid)
    assert u.jacobian_determinant() == pytest.approx(np.full(grid.shape, 1.144030), abs=2e-4)


def test_jacobian_sees_a_fold() -> None:
    grid = Grid((3, 3, 9))
    x = torch.arange(9.0)
    u = torch.zeros(3, 3, 9, 3)
    u[..., 0] = -2.0 * x  # y = -x
    assert (jacobian_determinant(u, grid) == -1).all()


def test_far_from_the_origin_equal_grids_still_give_equal_voxels() -> None:
    """Scanner frames may be metres away; float32 coordinates there are coarser than the noise allows."""
    grid = Grid((6, 7, 8), (0.7, 0.7, 1.0), (1e5, -2e5, 1e5))
    noise = np.random.default_rng(0).normal(0, 500, grid.shape).astype(np.float32)
    still = DisplacementField(np.zeros((*grid.shape, 3), np.float32), grid)
    assert np.abs(resample(noise, grid, grid) - noise).max() < 0.05
    assert np.abs(warp(noise, grid, grid, still) - noise).max() < 0.05


def test_a_linear_map_is_given_by_its_corners(grid: Grid) -> None:
    matrix = np.eye(4)
    matrix[:3, :3] += [[0.1, 0.02, 0], [0, -0.2, 0.05], [0.03, 0, 0.3]]
    points = grid.to_physical(np.random.default_rng(0).uniform(0, 8, (50, 3)))
    u = DisplacementField.from_affine(matrix, grid.corners())
    assert u.vectors_mm.shape == (2, 2, 2, 3)
    assert u.apply(points) == pytest.approx(points @ matrix[:3, :3].T, abs=1e-4)


def test_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="vectors_mm"):
        DisplacementField(np.zeros((2, 2, 2, 2), np.float32), Grid((2, 2, 2)))


def test_the_compiled_kernels_equal_torch(monkeypatch: pytest.MonkeyPatch, grid: Grid) -> None:
    """Volumes, fields and the Jacobian, inside, outside and on the border."""
    rng = np.random.default_rng(3)
    values = rng.normal(0, 300, grid.shape).astype(np.float32)
    coarse = Grid((4, 5, 6), (2.5, 3.0, 3.5), (-8.0, 1.0, 97.0), grid.direction)
    field = DisplacementField(rng.normal(0, 2.5, (*coarse.shape, 3)).astype(np.float32), coarse)
    own = DisplacementField(rng.normal(0, 2.5, (*grid.shape, 3)).astype(np.float32), grid)
    target = Grid((17, 8, 9), (1.1, 1.3, 1.7), (-7.0, 2.0, 99.0), TURNED)
    turned = np.array([[0.99, -0.1, 0, 2], [0.1, 0.99, 0, -1], [0, 0, 1, 0.5], [0, 0, 0, 1]])

    def everything() -> list[np.ndarray]:
        return [
            resample(values, grid, target, matrix=turned, outside=-7.0),
            warp(values, grid, target, field, outside=-7.0),
            warp(values, grid, grid, own, outside=np.nan),
            own.jacobian_determinant(),
            field.on(target, turned).vectors_mm,
            inverse_consistency(own, field),
        ]

    assert compiled_available()
    fast = everything()
    for module in (resampling, displacement, trust):
        monkeypatch.setattr(module, "compiled_available", lambda: False)
    for ours, theirs in zip(fast, everything(), strict=True):
        unlike = ~np.isclose(ours, theirs, atol=0.02, equal_nan=True)  # a point on the border may lie on either side
        assert unlike.mean() < 0.002


def test_a_scan_on_its_own_grid_is_itself(grid: Grid) -> None:
    values = np.random.default_rng(4).normal(0, 300, grid.shape).astype(np.float32)
    still = DisplacementField.from_affine(np.eye(4), grid.corners())
    assert np.array_equal(resample(values, grid, grid), values)
    assert warp(values, grid, grid, still) == pytest.approx(values, abs=1e-3)
