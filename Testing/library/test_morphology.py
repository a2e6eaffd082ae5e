"""Distances in millimetres against scipy's, in volumes of many and of few voxels."""

import numpy as np
import pytest
from scipy import ndimage

from ChangeMapJointLib.core import filters
from ChangeMapJointLib.core.compiled import compiled_available
from ChangeMapJointLib.core.filters import cube_opening, dilate, erode, square_erosion, squared_distance
from ChangeMapJointLib.lungs.airways import _grow
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


def _blobs(shape: tuple[int, int, int]) -> np.ndarray:
    return ndimage.gaussian_filter(np.random.default_rng(1).normal(size=shape), 1.5) > 0.08


@pytest.mark.skipif(not compiled_available(), reason="needs Numba")
@pytest.mark.parametrize("shape", [(17, 30, 70), (1, 1, 40), (5, 6, 1)])
def test_the_compiled_envelope_is_that_of_numpy_bit_for_bit(
    shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    start = np.where(random.random(shape) < 0.05, random.random(shape), 1e8).astype(np.float32)
    compiled = squared_distance(start, (2.5, 0.7, 0.9), 7.0)
    monkeypatch.setattr(filters, "compiled_available", lambda: False)
    assert np.array_equal(compiled, squared_distance(start, (2.5, 0.7, 0.9), 7.0))


@pytest.mark.parametrize("radius_mm", [0.8, 2.0, 3.1])
def test_erosion_and_dilation_by_a_ball_are_those_of_distances_and_end_at_the_border(radius_mm: float) -> None:
    spacing = (2.5, 0.7, 0.9)
    mask = _blobs((11, 24, 30))
    mask[:, :, 20:] = False  # the mask ends inside the array on one side, and at its border on the others
    outwards, inwards = (ndimage.distance_transform_edt(part, sampling=spacing) for part in (~mask, mask))
    assert np.array_equal(dilate(mask, radius_mm, spacing), outwards <= radius_mm)
    assert np.array_equal(erode(mask, radius_mm, spacing), inwards > radius_mm)
    for whole in (np.zeros((3, 4, 5), bool), np.ones((3, 4, 5), bool)):
        assert np.array_equal(dilate(whole, radius_mm, spacing), whole)
        assert np.array_equal(erode(whole, radius_mm, spacing), whole)


@pytest.mark.parametrize("shape", [(11, 24, 30), (1, 2, 9)])
def test_cubes_and_squares_are_those_of_scipy(shape: tuple[int, int, int]) -> None:
    mask = _blobs(shape)
    for edge in (1, 2, 3):
        assert np.array_equal(cube_opening(mask, edge), ndimage.binary_opening(mask, np.ones((edge,) * 3)))
    for radius in (1, 4):
        square = np.ones((1, 2 * radius + 1, 2 * radius + 1))
        assert np.array_equal(square_erosion(mask, radius), ndimage.binary_erosion(mask, square, border_value=1))


def test_airways_are_followed_to_the_last_threshold_without_a_leak() -> None:
    """A branch opens at -700 HU, a blind end at -660, and the lung behind a wall at -640; what encloses them never."""
    hu = np.full((40, 40, 90), 0.0, np.float32)
    hu[10:30, 18:22, 18:22] = -990
    hu[12:14, 19:21, 22:30] = -705
    hu[16:18, 19:21, 22:30] = -665
    hu[20:22, 19:21, 22:30] = -645
    hu[:, :, 30:] = -850
    hu[12:14, 19:21, 29] = hu[16:18, 19:21, 29] = 0  # both ends are closed
    trachea = np.zeros(hu.shape, bool)
    trachea[10:30, 18:22, 18:22] = True
    known = trachea.copy()
    known[12:14, 19:21, 22:29] = known[16:18, 19:21, 22:29] = True
    assert np.array_equal(_grow(hu, np.ones(hu.shape, bool), trachea, 2.0), known)
