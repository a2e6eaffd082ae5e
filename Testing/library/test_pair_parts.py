"""What pairs are made with: density, sampling, noise, sites."""

import numpy as np
import pytest
from pair_samples import GRID, INDEX, phantom

from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.core.resample import sample_array
from ChangeMapJointLib.synthesis.acquisition import (
    breathe_density,
    denoise,
    measured_noise_hu,
    sample_cubic,
    scan_noise,
)
from ChangeMapJointLib.synthesis.sites import Site, closed_lungs, find_sites, lung_maps


def test_density_keeps_mass_in_lung_and_leaves_blood():
    hu = np.array([[[-1000.0, -850, -600, 0, 60]]], dtype=np.float32)
    result = breathe_density(hu, np.full(hu.shape, 1.2, np.float32), np.ones(hu.shape))
    np.testing.assert_allclose(result.ravel(), [-1000, -1000 + 150 * 1.2, -1000 + 400 * 1.2, 0, 60], atol=1e-3)
    np.testing.assert_array_equal(breathe_density(hu, np.full(hu.shape, 1.2, np.float32), np.zeros(hu.shape)), hu)


def test_cubic_sampling_of_a_smooth_image_beats_its_grid():
    source, target = Grid((24, 24, 24)), Grid((12, 12, 12), (1.0, 1.0, 1.0), (5.3, 5.6, 5.8))

    def wave(grid: Grid) -> np.ndarray:
        x, y, z = np.moveaxis(grid.to_physical(np.indices(grid.shape)[::-1].transpose(1, 2, 3, 0)), -1, 0)
        return 100 * np.sin(x / 2.5) * np.cos(y / 3) * np.sin(z / 3.5)

    shift = DisplacementField(np.full((12, 12, 12, 3), 0.25, np.float32), target)
    moved = Grid(target.shape, target.spacing_mm, tuple(o + 0.25 for o in target.origin_mm))
    np.testing.assert_allclose(sample_cubic(wave(source), source, target, shift), wave(moved), atol=0.6)


def test_coarser_sampling_does_not_alias():
    fine, coarse = Grid((32, 32, 32)), Grid((8, 8, 8), (4.0, 4.0, 4.0))
    stripes = np.broadcast_to(np.where(np.arange(32) % 2, 100.0, -100.0), fine.shape)
    assert np.abs(sample_cubic(stripes, fine, coarse)[2:-2, 2:-2, 2:-2]).max() < 5
    assert sample_cubic(np.full(fine.shape, 7.0), fine, coarse) == pytest.approx(7.0, abs=1e-4)


def test_noise_is_measured_and_removed():
    grid = Grid((40, 40, 40), (1.5, 1.5, 1.5))
    clean = np.where(np.arange(40) < 20, 40.0, -850.0) + np.zeros(grid.shape)
    noisy = clean + scan_noise(np.random.default_rng(0), grid, sigma_hu=18.0, width_mm=0.9)
    assert measured_noise_hu(noisy) == pytest.approx(18, rel=0.15)
    smooth = denoise(noisy, grid)
    assert (smooth - clean)[..., :16].std() < 0.6 * 18
    np.testing.assert_allclose(smooth[..., 18:22].mean((0, 1)), clean[0, 0, 18:22], atol=15)  # the step stays


def test_noise_without_soft_tissue_is_assumed():
    assert measured_noise_hu(np.full((10, 10, 10), -900.0), fallback_hu=9.0) == 9.0


def test_closing_fills_vessels_but_not_the_gap_between_the_lungs():
    _, mask, _ = phantom()
    closed = closed_lungs(mask, GRID)
    assert (closed & ~mask).sum() > 300
    assert closed[mask].all()
    assert not closed[:, :, np.abs(INDEX[0, 0, :, 0]) < 5].any()


def test_vessel_site_is_beside_a_vessel():
    volume, mask, _ = phantom()
    maps = lung_maps(volume.array, closed_lungs(mask, GRID), GRID)
    (centre,) = find_sites(maps, [Site(6.0, "vessel")], rng=np.random.default_rng(0))
    away = float(sample_array(maps.vessel_mm, maps.grid, centre[None])[0])
    assert 0.4 * 6 < away < 0.8 * 6
