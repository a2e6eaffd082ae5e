"""Distances in millimetres against scipy's, in volumes of many and of few voxels."""

import numpy as np
import pytest
from scipy import ndimage

from ChangeMapJointLib.core import filters
from ChangeMapJointLib.core.filters import dilate, squared_distance
from ChangeMapJointLib.lungs.hull import axial_hull


@pytest.mark.parametrize("shape", [(70, 60, 50), (3, 200, 300), (200, 2, 300), (1, 1, 40), (5, 6, 1)])
def test_squared_distance_is_that_of_scipy(shape: tuple[int, int, int]) -> None:
    mask = np.random.default_rng(0).random(shape) < 0.01
    mask.flat[0] = True
    start = np.where(mask, np.float32(0), np.float32(1e8))
    found = squared_distance(start, 1.5, 12.0)
    exact = ndimage.distance_transform_edt(~mask, sampling=1.5) ** 2
    near = exact <= 12.0**2
    assert found[near] == pytest.approx(exact[near], rel=1e-5, abs=1e-4)
    assert (found[~near] > 12.0**2).all()
    assert set(np.unique(start)) <= {0.0, np.float32(1e8)}  # the input stays as it is


def test_a_ball_is_drawn_with_its_radius() -> None:
    point = np.zeros((41, 41, 41), dtype=bool)
    point[20, 20, 20] = True
    ball = dilate(point, 15.0, 1.0)
    assert ball[20, 20, 35]
    assert not ball[20, 20, 36]
    assert ball.sum() == pytest.approx(4 / 3 * np.pi * 15**3, rel=0.01)


def test_the_hull_of_a_slice_is_what_no_half_plane_cuts_off() -> None:
    """Also of slices without, or with one voxel."""
    mask = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(6, 23, 31)), 2) > 0.08
    mask[1], mask[2] = False, False
    mask[2, 22, 0] = True
    y, x = np.ogrid[:23, :31]
    hull = np.broadcast_to(mask.any(axis=(1, 2), keepdims=True), mask.shape).copy()
    for angle in np.arange(32) * np.pi / 16:
        along = (np.cos(angle) * x + np.sin(angle) * y).astype(np.float32)
        hull &= along <= np.where(mask, along, -np.inf).max(axis=(1, 2), keepdims=True)
    assert np.array_equal(axial_hull(mask), hull)
    assert hull[2].sum() == 1


@pytest.mark.parametrize("kind", [np.uint8, np.int32])
def test_sizes_of_labels_are_counted_in_parts(kind: type[np.generic], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "_COUNTED", 2500)  # several parts, the last one smaller
    labels = np.random.default_rng(0).integers(0, 50, (40, 30, 7)).astype(kind).transpose(2, 1, 0)[:, ::2]
    known = [int((labels == number).sum()) for number in range(60)]
    assert filters.label_sizes(labels, minlength=60).tolist() == known
    assert len(filters.label_sizes(labels)) == 50
