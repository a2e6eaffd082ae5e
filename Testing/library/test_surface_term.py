"""The lungs' surface in R comes to lie on that in T: closed forms, and what it does to a registration."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from phantoms import rotation
from scipy import ndimage

from ChangeMapJointLib.core.grid import FloatArray, Grid
from ChangeMapJointLib.registration.deformable import surface_term
from ChangeMapJointLib.registration.deformable.bspline import ControlGrid
from ChangeMapJointLib.registration.deformable.objective import Weights
from ChangeMapJointLib.registration.deformable.register import RegistrationOptions, register_deformable
from ChangeMapJointLib.registration.deformable.surface_term import (
    SurfaceDistance,
    SurfaceTerm,
    lung_surface,
)
from ChangeMapJointLib.registration.pyramid import ScanView
from ChangeMapJointLib.scan.pair import ScanPair
from ChangeMapJointLib.scan.volume import Volume

OBLIQUE = rotation(10, 20, 30)
GRIDS = (
    Grid((40, 44, 48), (2.0, 2.0, 2.0), (-47.0, -43.0, -39.0)),
    Grid((34, 58, 64), (1.4, 1.6, 2.5), (-45.0, -46.0, -41.0)),
    Grid((40, 44, 48), (2.0, 2.0, 2.0), tuple(np.asarray(OBLIQUE) @ (-47.0, -43.0, -39.0)), OBLIQUE),
)


def points_of(grid: Grid) -> FloatArray:
    return grid.to_physical(np.indices(grid.shape)[::-1].reshape(3, -1).T.astype(float)).reshape(*grid.shape, 3)


def ball(grid: Grid, radius_mm: float, centre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> np.ndarray:
    return np.linalg.norm(points_of(grid) - centre_mm, axis=-1) < radius_mm


def view(mask: np.ndarray, grid: Grid) -> ScanView:
    return ScanView(torch.zeros(grid.shape), torch.as_tensor(mask, dtype=torch.float32), grid)


@pytest.mark.parametrize("grid", GRIDS)
def test_the_surface_of_a_ball_is_found_below_voxel_size(grid: Grid) -> None:
    off = np.linalg.norm(lung_surface(view(ball(grid, 30.0), grid)).points_mm, axis=1) - 30.0
    assert abs(off.mean()) < 0.1
    assert np.percentile(np.abs(off), 95) < 0.35 * max(grid.spacing_mm)


def test_a_lung_that_the_field_of_view_cuts_has_no_surface_there() -> None:
    grid = GRIDS[0]
    low = grid.origin_mm[2]
    points = lung_surface(view(ball(grid, 30.0, (0.0, 0.0, low)), grid)).points_mm
    assert np.abs(np.linalg.norm(points - (0.0, 0.0, low), axis=1) - 30.0).max() < 2.0  # none in the cut's middle


@pytest.mark.parametrize("grid", GRIDS)
def test_the_distance_is_that_to_the_ball_and_its_gradient_points_away(grid: Grid) -> None:
    distance = SurfaceDistance(lung_surface(view(ball(grid, 25.0), grid)))
    rng = np.random.default_rng(0)
    way = rng.normal(size=(200, 3))
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    radius = rng.uniform(18.0, 32.0, 200)
    found, slope = distance.at(radius[:, None] * way)
    assert np.abs(found - (radius - 25.0)).max() < 0.6 * max(grid.spacing_mm)
    assert np.abs(found - (radius - 25.0)).mean() < 0.25
    assert (slope * way).sum(axis=1).mean() == pytest.approx(1.0, abs=0.05)


def test_the_compiled_distance_equals_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on the last voxel and beyond it."""
    grid = GRIDS[2]
    distance = SurfaceDistance(lung_surface(view(ball(grid, 25.0), grid)))
    index = np.random.default_rng(1).uniform(-2, np.array(grid.size) + 1, (500, 3))
    points = grid.to_physical(np.concatenate([index, np.round(index[:100])]))
    fast = distance.at(points)
    monkeypatch.setattr(surface_term, "compiled_available", lambda: False)
    for ours, theirs in zip(fast, distance.at(points), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-9)


def test_outside_the_scan_nothing_is_known_and_nothing_pulls() -> None:
    found, slope = SurfaceDistance(lung_surface(view(ball(GRIDS[0], 25.0), GRIDS[0]))).at(np.array([[500.0, 0.0, 0.0]]))
    assert found[0] == 0.0
    assert not slope.any()


def test_two_balls_give_the_formula() -> None:
    """Every point of a ball of 22 mm lies 3 mm within one of 25 mm: d^2 / (1 + (d / s)^2), d less 0.1 mm."""
    grid = GRIDS[0]
    control = ControlGrid(grid, (6.0, 6.0, 6.0))
    points = lung_surface(view(ball(grid, 22.0), grid)).clear_points(2000)
    term = SurfaceTerm(
        points, SurfaceDistance(lung_surface(view(ball(grid, 25.0), grid))), control, np.eye(4), outlier_mm=2.0
    )
    value, _ = term.evaluate(torch.zeros(*control.shape, 3))
    assert value == pytest.approx(2.9**2 / (1 + 2.9**2 / 4), rel=0.05)


def test_the_gradient_is_that_of_the_value() -> None:
    grid = GRIDS[2]
    control = ControlGrid(grid, (6.0, 5.0, 7.0))
    shift = np.eye(4)
    shift[:3, 3] = 1.0, -2.0, 0.5
    points = lung_surface(view(ball(grid, 22.0), grid)).clear_points(500)
    term = SurfaceTerm(
        points, SurfaceDistance(lung_surface(view(ball(grid, 25.0), grid))), control, shift, outlier_mm=3.0
    )
    c = torch.randn(*control.shape, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    _, gradient = term.evaluate(c)
    for seed in range(3):
        step = 1e-6 * torch.randn(c.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        difference = term.evaluate(c + step)[0] - term.evaluate(c - step)[0]
        assert difference == pytest.approx(2 * float((gradient * step).sum()), rel=1e-3, abs=1e-11)


def flat_lung(grid: Grid, radius_mm: float, centre_mm: tuple[float, float, float]) -> tuple[Volume, np.ndarray]:
    """A lung without any structure, so that only its surface says where it is."""
    lungs = ball(grid, radius_mm, centre_mm)
    return Volume(np.where(lungs, -850.0, 40.0).astype(np.float32), grid), lungs


def off_the_surface_mm(weights: Weights, prior: tuple[Volume, np.ndarray], radius_mm: float) -> FloatArray:
    """Distance of the points of the current lung's surface (20 mm), moved by y, from the prior's."""
    current, lungs = flat_lung(GRIDS[0], 20.0, (0.0, 0.0, 0.0))
    options = RegistrationOptions(iterations=(30, 20), working_mm=2.0, weights=weights)
    found = register_deformable(ScanPair.of(current, prior[0], lungs, prior[1]), options=options)
    assert found.folding_percent == 0.0
    moved = found.field.apply(lung_surface(view(lungs, GRIDS[0])).clear_points(2000))
    return np.abs(np.linalg.norm(moved - (2.0, 0.0, 3.0), axis=1) - radius_mm)


@pytest.mark.parametrize("radius_mm", [24.0, 17.0])
def test_a_lung_that_breathed_keeps_its_surface_on_its_surface(radius_mm: float) -> None:
    """It grows or shrinks without any structure inside; the distance of masks alone leaves a gap where it grew."""
    prior = flat_lung(GRIDS[0], radius_mm, (2.0, 0.0, 3.0))
    assert np.percentile(off_the_surface_mm(Weights(ngf=0.0), prior, radius_mm), 95) < 0.8


def test_without_the_term_a_prior_lung_that_is_larger_is_not_reached() -> None:
    prior = flat_lung(GRIDS[0], 24.0, (2.0, 0.0, 3.0))
    assert np.percentile(off_the_surface_mm(Weights(ngf=0.0, surface=0.0), prior, 24.0), 95) > 3.0


def test_where_half_the_lung_filled_up_the_other_half_still_fits() -> None:
    """An effusion takes the lower half of the current lung: its level is no surface of the prior lung."""
    grid = GRIDS[0]
    prior_lungs = ball(grid, 25.0)
    vessels = ndimage.gaussian_filter(np.random.default_rng(3).standard_normal(grid.shape), 1.0)
    prior = np.where(prior_lungs, -850.0 + 1500.0 * np.clip(vessels, 0, None), 40.0).astype(np.float32)
    current, lungs = prior.copy(), prior_lungs & (points_of(grid)[..., 2] > -6.0)
    current[prior_lungs & ~lungs] = 10.0
    options = RegistrationOptions(iterations=(30, 20), working_mm=2.0)
    found = register_deformable(
        ScanPair.of(Volume(current, grid), Volume(prior, grid), lungs, prior_lungs), options=options
    )
    above = lung_surface(view(lungs, grid)).clear_points(4000)
    above = above[above[:, 2] > 4.0]
    assert np.linalg.norm(found.field.at(above), axis=1).max() < 1.0
