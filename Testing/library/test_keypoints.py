"""Foerstner keypoints: golden numbers and invariances."""

import numpy as np
import pytest
from scipy import ndimage

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.registration.keypoints.detect import DERIVATIVE, KeypointOptions, distinctiveness, find_keypoints

GRID = Grid((40, 44, 48), (1.5, 1.5, 2.0), (10.0, -20.0, 30.0))


def textured(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    return ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5).astype(np.float32) * 1000


def test_the_derivative_of_a_ramp_is_its_slope() -> None:
    ramp = 3.0 * np.arange(9.0)
    assert ndimage.correlate1d(ramp, DERIVATIVE)[2:-2] == pytest.approx(np.full(5, 3.0))


@pytest.mark.parametrize(
    ("squares", "expected"), [((1.0, 1.0, 1.0), 1 / 3), ((4.0, 1.0, 1.0), 4 / 9), ((4.0, 4.0, 0.0), 0.0)]
)
def test_distinctiveness_of_known_structure_tensors(squares: tuple[float, float, float], expected: float) -> None:
    """Three sawtooths whose slopes change sign independently: the mean tensor is diag(squares)."""
    n = 64
    rng = np.random.default_rng(1)
    image = np.zeros((n, n, n), np.float32)
    for axis, square in enumerate(squares):
        signs = np.repeat(rng.permutation(np.repeat([-1.0, 1.0], n // 8)), 4)[:n]
        line = np.cumsum(signs) * np.sqrt(square)
        shape = [1, 1, 1]
        shape[axis] = n
        image += line.reshape(shape).astype(np.float32)
    found = distinctiveness(image, sigma_vox=6.0)[20:44, 20:44, 20:44]
    # where the slope turns, the five-tap derivative is smaller than the slope
    assert found.mean() == pytest.approx(expected, rel=0.35, abs=0.01)


def test_flat_places_edges_and_ridges_are_not_distinct() -> None:
    z, y, x = np.meshgrid(*[np.arange(24.0)] * 3, indexing="ij")
    flat, edge = np.full((24, 24, 24), 5.0), np.where(x > 12, 100.0, 0.0)
    ridge = 100 * np.exp(-((x - 12) ** 2 + (y - 12) ** 2) / 8)
    blob = 100 * np.exp(-((x - 12) ** 2 + (y - 12) ** 2 + (z - 12) ** 2) / 8)
    top = [float(distinctiveness(image, 1.4)[6:18, 6:18, 6:18].max()) for image in (flat, edge, ridge, blob)]
    assert top[0] == 0.0
    assert top[1] == pytest.approx(0.0, abs=1e-3)
    assert top[2] == pytest.approx(0.0, abs=1e-3)
    assert top[3] > 10.0


def test_it_grows_with_the_square_of_the_intensity() -> None:
    image = textured((20, 20, 20))
    assert distinctiveness(3 * image, 1.4)[5:15, 5:15, 5:15] == pytest.approx(
        9 * distinctiveness(image, 1.4)[5:15, 5:15, 5:15], rel=1e-3, abs=1.0
    )


def test_keypoints_lie_in_the_lungs_apart_and_where_blobs_are() -> None:
    image = np.full(GRID.shape, -850.0, np.float32)
    blobs = np.array([(10, 12, 14), (10, 30, 14), (28, 12, 34), (28, 30, 30), (20, 20, 4)])
    image[tuple(blobs.T)] = 5e4
    image = ndimage.gaussian_filter(image, 1.2)
    lungs = np.zeros(GRID.shape, bool)
    lungs[4:36, 4:40, 8:44] = True  # the last blob lies outside
    found = find_keypoints(image, lungs, GRID, KeypointOptions(least_percentile=99.0, apart_mm=6.0))
    index = GRID.to_index(found)[:, ::-1]
    nearest = np.linalg.norm(index[:, None] - blobs[None], axis=-1).min(1)
    assert len(found) == 4
    assert nearest.max() <= 2.0
    assert lungs[tuple(np.rint(index).astype(int).T)].all()


def test_where_there_are_too_many_they_are_spread() -> None:
    """One half has ten times the contrast: without spreading it would have all of the keypoints."""
    image = textured(GRID.shape)
    image[:, :, :24] *= 10
    lungs = np.ones(GRID.shape, bool)
    found = find_keypoints(image, lungs, GRID, KeypointOptions(most=100, least_percentile=0.0))
    weak = GRID.to_index(found)[:, 0] >= 24
    assert len(found) == 100
    assert weak.sum() >= 25
    strength = distinctiveness(image, 1.0)
    assert np.sort(strength[:, :, 26:].ravel())[-1] < np.sort(strength[:, :, :22].ravel())[-200]  # none by strength


def test_no_keypoints_without_lungs_or_in_flat_ones() -> None:
    image = textured(GRID.shape)
    assert find_keypoints(image, np.zeros(GRID.shape, bool), GRID).shape == (0, 3)
    assert find_keypoints(np.zeros(GRID.shape, np.float32), np.ones(GRID.shape, bool), GRID).shape == (0, 3)


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match="most"):
        KeypointOptions(most=0)
