"""Coarser copies of a scan equal what a Gaussian, then linear interpolation give."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from ChangeMapJointLib.core.blur import FWHM
from ChangeMapJointLib.core.filters import resample_parallel
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.core.resample import resample
from ChangeMapJointLib.registration.pyramid import resample_to_spacing

OBLIQUE = ((0.8, -0.6, 0.0), (0.6, 0.8, 0.0), (0.0, 0.0, -1.0))
GRID = Grid((23, 40, 37), (0.7, 0.8, 1.25), (-12.0, 30.5, -700.25), OBLIQUE)


@pytest.fixture
def hu() -> np.ndarray:
    return np.random.default_rng(0).integers(-1500, 500, GRID.shape).astype(np.int16)


@pytest.mark.parametrize("spacing_mm", [(1.5, 1.5, 1.5), (3.0, 3.0, 3.0), (0.7, 2.0, 1.25), (40.0, 40.0, 40.0)])
def test_a_coarser_copy_is_a_gaussian_and_linear_interpolation(spacing_mm, hu) -> None:
    small, grid = resample_to_spacing(hu, GRID, spacing_mm, (-1000.0, 50.0))
    assert grid == GRID.with_spacing(spacing_mm)
    sigma = [
        np.sqrt(max(new**2 - old**2, 0.0)) / FWHM / old for new, old in zip(spacing_mm, GRID.spacing_mm, strict=True)
    ]
    clipped = np.clip(hu, -1000, 50).astype(np.float32)
    smooth = ndimage.gaussian_filter(clipped, sigma[::-1], mode="nearest", truncate=3.0)
    assert_allclose(small, resample(smooth, GRID, grid, outside=-1000.0), atol=0.05)


def test_a_copy_at_its_own_spacing_is_only_clipped(hu) -> None:
    small, grid = resample_to_spacing(hu, GRID, GRID.spacing_mm, (-1000.0, 50.0))
    assert grid is GRID
    assert_array_equal(small, np.clip(hu, -1000, 50))
    assert hu.min() < -1000  # the scan stays as it is


@pytest.mark.parametrize("spacing_mm", [(2.0, 2.0, 2.0), (0.3, 0.3, 0.3), (0.4, 2.5, 1.25)])
def test_resampling_to_finer_voxels_is_linear_and_to_coarser_ones_keeps_the_mean(spacing_mm, hu) -> None:
    grid = GRID.with_spacing(spacing_mm)
    found = resample_parallel(hu, GRID, grid)
    finest = resample_parallel(hu, GRID, grid, lowpass=False)
    assert_allclose(finest, resample(hu, GRID, grid, outside=0.0), atol=0.05)
    if spacing_mm[0] < 0.7 and spacing_mm[1] < 0.8:
        assert_array_equal(found, finest)
    assert found[2:-2, 2:-2, 2:-2].mean() == pytest.approx(hu.mean(), abs=15.0)
    assert resample_parallel(hu, GRID, grid, clip=(-1000.0, 0.0)).min() >= -1000.001
