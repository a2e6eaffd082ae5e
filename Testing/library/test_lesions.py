"""Synthetic nodules: outlines of known size, and what painting does and does not change."""

from dataclasses import replace

import numpy as np
import pytest

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.lesions.diameter import axial_diameters
from ChangeMapJointLib.synthesis.acquisition import correlated_noise
from ChangeMapJointLib.synthesis.lesions import SyntheticLesion, paint_lesion
from ChangeMapJointLib.synthesis.shapes import LesionShape, draw_shape

SPHERE = LesionShape()
GRID = Grid((41, 41, 41), (1.0, 1.0, 1.0), (-20.0, -20.0, -20.0))
INDEX = GRID.to_physical(np.indices(GRID.shape)[::-1].transpose(1, 2, 3, 0))
DISTANCE = np.linalg.norm(INDEX, axis=-1)
EVERYWHERE = np.ones(GRID.shape, bool)


def lung(hu: float = -850.0) -> np.ndarray:
    return np.full(GRID.shape, hu, dtype=np.float32)


def paint(array: np.ndarray, lesion: SyntheticLesion, diameter_mm: float = 12.0, **others) -> np.ndarray:
    options = {"centre_mm": np.zeros(3), "lungs": EVERYWHERE, "rng": np.random.default_rng(0), **others}
    return paint_lesion(array, GRID, lesion, diameter_mm=diameter_mm, **options)


def drawn(seed: int, *, spiculated: bool = False) -> LesionShape:
    return draw_shape(np.random.default_rng(seed), spiculated=spiculated)


# -- painting ----------------------------------------------------------------------------


def test_solid_nodule_is_solid_inside_and_untouched_outside():
    array = lung()
    support = paint(array, SyntheticLesion(SPHERE, solid_hu=40.0))
    assert array[DISTANCE < 4].mean() == pytest.approx(40, abs=8)
    assert array[DISTANCE < 4].min() > 0
    np.testing.assert_array_equal(array[DISTANCE > 8], -850)
    np.testing.assert_array_equal(support, DISTANCE <= 6)


def test_border_is_feathered_without_a_seam():
    array = lung()
    paint(array, SyntheticLesion(SPHERE, solid_hu=40.0), feather_vox=2.0)
    border = np.abs(DISTANCE - 6) < 0.05
    assert array[border].mean() == pytest.approx((40 - 850) / 2, abs=20)  # alpha is one half there
    line = array[20, 20, 20:30]
    assert np.abs(np.diff(line)).max() < 890 / (2 * 2.0) + 30  # no step beyond the ramp's own


def test_axial_diameter_of_a_painted_sphere():
    support = paint(lung(), SyntheticLesion(SPHERE), diameter_mm=14.0)
    long_mm, across_mm = axial_diameters(support, GRID)
    assert long_mm == pytest.approx(14, abs=1.5)
    assert across_mm == pytest.approx(14, abs=1.5)


@pytest.mark.parametrize("texture", ["solid", "part-solid", "ground-glass"])
def test_no_voxel_becomes_less_dense_and_none_outside_the_lungs_changes(texture):
    rng = np.random.default_rng(1)
    array = rng.uniform(-1000, 300, GRID.shape).astype(np.float32)
    before, lungs = array.copy(), INDEX[..., 0] < 1.5
    support = paint(array, SyntheticLesion(drawn(1), texture), lungs=lungs, noise_hu=5.0)
    assert (array >= before - 1e-3).all()
    np.testing.assert_array_equal(array[~lungs], before[~lungs])
    assert not support[~lungs].any()
    assert (array > before + 50).any()


def test_vessels_shine_through_ground_glass():
    array = lung()
    vessel = np.hypot(INDEX[..., 0], INDEX[..., 1]) < 1.5
    array[vessel] = 60
    paint(array, SyntheticLesion(SPHERE, "ground-glass", ground_glass_hu=300.0), diameter_mm=26.0)
    inside = DISTANCE < 10
    assert array[inside & ~vessel].mean() == pytest.approx(-550, abs=40)
    np.testing.assert_array_equal(array[vessel], 60)


def test_part_solid_nodule_has_a_core_and_a_rim():
    array = lung()
    lesion = SyntheticLesion(SPHERE, "part-solid", solid_hu=30.0, ground_glass_hu=300.0, core=0.5)
    paint(array, lesion, diameter_mm=20.0)
    assert array[DISTANCE < 3.5].mean() == pytest.approx(30, abs=15)
    assert array[(DISTANCE > 6.5) & (DISTANCE < 8)].mean() == pytest.approx(-550, abs=50)


def test_solid_part_carries_the_scans_noise():
    spread = []
    for noise_hu in (0.0, 30.0):
        array = lung()
        paint(array, SyntheticLesion(SPHERE), diameter_mm=30.0, noise_hu=noise_hu)
        spread.append(array[DISTANCE < 12].std())
    assert np.sqrt(spread[1] ** 2 - spread[0] ** 2) == pytest.approx(30, rel=0.15)


def test_absent_or_far_lesion_changes_nothing():
    array = lung()
    assert not paint(array, SyntheticLesion(SPHERE), diameter_mm=0.0).any()
    assert not paint(array, SyntheticLesion(SPHERE), centre_mm=np.array([300.0, 0, 0])).any()
    np.testing.assert_array_equal(array, lung())


def test_lesion_at_the_edge_of_the_scan_is_cut():
    array = lung()
    support = paint(array, SyntheticLesion(SPHERE), centre_mm=np.array([20.0, 0, 0]))
    np.testing.assert_array_equal(support, np.linalg.norm(INDEX - (20, 0, 0), axis=-1) <= 6)


def test_softer_border_reaches_further():
    hard, soft = lung(), lung()
    paint(hard, SyntheticLesion(SPHERE))
    paint(soft, replace(SyntheticLesion(SPHERE), softness=3.0))
    assert (soft > -840).sum() > 1.2 * (hard > -840).sum()


def test_same_seed_same_picture():
    pictures = []
    for seed in (0, 0, 1):
        array = lung()
        paint(array, SyntheticLesion(drawn(0)), rng=np.random.default_rng(seed), noise_hu=20.0)
        pictures.append(array)
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert np.abs(pictures[0] - pictures[2]).max() > 5


def test_unknown_texture_is_refused():
    with pytest.raises(InputError, match="ground-glass"):
        SyntheticLesion(SPHERE, "glassy")


def test_noise_is_correlated_as_its_width_says():
    noise = correlated_noise(np.random.default_rng(0), (60, 60, 60), (0.9, 0.9, 0.9))
    assert noise.std() == pytest.approx(1)
    # neighbours of white noise smoothed by sigma correlate by exp(-1 / (4 sigma^2))
    neighbours = np.corrcoef(noise[1:].ravel(), noise[:-1].ravel())[0, 1]
    assert neighbours == pytest.approx(np.exp(-1 / (4 * 0.81)), abs=0.03)
