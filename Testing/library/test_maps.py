"""The subtraction maps: golden values, what lies outside, memory, and matching of the resolution."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from lung_shapes import LUNG_HU, OBLIQUE, cube, scan
from phantoms import Sphere

from ChangeMapJointLib.change.maps import (
    change_map,
    discrete_gaussian,
    lungs_of_both,
    match_voxel_blur,
    signed_change,
)
from ChangeMapJointLib.core.blur import missing_sigma_mm
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.core.resample import resample

FWHM2 = 8.0 * math.log(2.0)
EVERYWHERE = np.ones((1, 1, 1), dtype=bool)


def voxel(hu: float) -> np.ndarray:
    return np.full((1, 1, 1), hu, dtype=np.float32)


def random_pair(shape: tuple[int, int, int] = (6, 7, 8)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    r, t = rng.integers(-1100, 1200, (2, *shape)).astype(np.int16)
    return r, t, rng.random(shape) > 0.4


@pytest.mark.parametrize(
    ("now_hu", "before_hu", "expected"),
    [
        (40, -850, 0.848),  # new solid nodule
        (-300, -850, 0.524),  # part-solid
        (-600, -850, 0.238),  # ground glass
        (-136, -850, 0.68),  # 714 HU
        (-850, 40, 0.848),  # resolved
        (50, -1000, 1.0),
        (3000, -1024, 1.0),  # both clipped
        (1200, 60, 0.0),  # calcium in soft tissue
        (-1024, -1000, 0.0),  # padding against air
    ],
)
def test_golden_values(now_hu: float, before_hu: float, expected: float) -> None:
    cm = change_map(voxel(now_hu), voxel(before_hu), EVERYWHERE)
    assert cm.dtype == np.float32
    assert cm[0, 0, 0] == pytest.approx(expected, abs=5e-4)


def test_window_and_clipping_are_parameters() -> None:
    cm = change_map(voxel(100), voxel(-850), EVERYWHERE, window_hu=1400, low_hu=-800, high_hu=90)
    assert cm[0, 0, 0] == pytest.approx(890 / 1400, abs=1e-6)


def test_change_map_is_the_formula_inside_the_lungs_and_zero_outside() -> None:
    r, t, lungs = random_pair()
    difference = np.clip(r, -1000, 50).astype(float) - np.clip(t, -1000, 50)
    expected = np.where(lungs, np.minimum(np.abs(difference) / 1050, 1), 0)
    np.testing.assert_allclose(change_map(r, t, lungs), expected, atol=1e-6)
    np.testing.assert_array_equal(change_map(r, t, lungs), change_map(t, r, lungs))


def test_nothing_is_claimed_outside_the_templates_field_of_view() -> None:
    r, t, lungs = random_pair()
    lungs[:] = True
    seen = np.ones(r.shape, dtype=bool)
    seen[:, :, :3] = False
    unknown = t.astype(np.float32)
    unknown[~seen] = np.nan
    for warped, valid in ((unknown, None), (t, seen)):
        cm, signed = change_map(r, warped, lungs, valid=valid), signed_change(r, warped, valid=valid)
        assert not cm[~seen].any()
        assert not signed[~seen].any()
        np.testing.assert_array_equal(cm[seen], change_map(r, t, lungs)[seen])
        np.testing.assert_array_equal(signed[seen], signed_change(r, t)[seen])


def test_signed_change_is_unclipped_rounded_and_positive_where_denser_now() -> None:
    r = np.array([[[1200, -850, 40, 3000]]], dtype=np.int16)
    t = np.array([[[60.4, 40.0, -850.6, -40000.0]]], dtype=np.float32)
    signed = signed_change(r, t)
    assert signed.dtype == np.int16
    np.testing.assert_array_equal(signed, [[[1140, -890, 891, 32767]]])


def test_the_signs_of_both_maps_agree() -> None:
    r, t, _ = random_pair()
    changed = change_map(r, t, np.ones(r.shape, dtype=bool)) > 0
    clipped = np.clip(r, -1000, 50).astype(int) - np.clip(t, -1000, 50)
    np.testing.assert_array_equal(np.sign(signed_change(r, t))[changed], np.sign(clipped)[changed])


def test_inputs_stay_as_they_are_and_wrong_shapes_are_refused() -> None:
    r, t, lungs = random_pair()
    before = r.copy(), t.copy(), lungs.copy()
    change_map(r, t, lungs)
    signed_change(r, t)
    for now, then in zip((r, t, lungs), before, strict=True):
        np.testing.assert_array_equal(now, then)
    with pytest.raises(ValueError, match="warped_template_hu"):
        signed_change(r, t[1:])
    with pytest.raises(ValueError, match="'lungs'"):
        change_map(r, t, lungs[:, 1:])
    with pytest.raises(ValueError, match="window_hu"):
        change_map(r, t, lungs, window_hu=0)


# -- where to look ------------------------------------------------------------------------------
SPACINGS = [(0.7, 0.7, 0.7), (0.7, 0.7, 2.5), (1.5, 1.5, 5.0)]


def ball(grid: Grid, radius_mm: float) -> np.ndarray:
    z, y, x = np.indices(grid.shape)
    points = grid.to_physical(np.stack([x, y, z], axis=-1).reshape(-1, 3))
    return (np.linalg.norm(points, axis=1) <= radius_mm).reshape(grid.shape)


def room(spacing: tuple[float, float, float], half_mm: float = 35.0) -> Grid:
    """Centred on the origin."""
    shape = tuple(2 * round(half_mm / h) + 1 for h in spacing[::-1])
    x, y, z = (-(n // 2) * h for n, h in zip(shape[::-1], spacing, strict=True))
    return Grid(shape, spacing, (x, y, z))


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_thin_rim_beyond_rs_lungs_is_not_looked_at(spacing: tuple[float, float, float]) -> None:
    grid = room(spacing)
    ours, theirs = ball(grid, 20.0), ball(grid, 25.0)  # 5 mm: no ball of 8 mm across fits in
    np.testing.assert_array_equal(lungs_of_both(ours, theirs, grid), ours)
    np.testing.assert_array_equal(lungs_of_both(ours, theirs, grid, rim_mm=0.0), theirs)
    np.testing.assert_array_equal(lungs_of_both(theirs, ours, grid), theirs)  # R's own lungs are whole


@pytest.mark.parametrize("spacing", SPACINGS)
def test_what_filled_a_lung_since_is_looked_at(spacing: tuple[float, float, float]) -> None:
    grid = room(spacing)
    ours, theirs = ball(grid, 12.0), ball(grid, 30.0)  # 18 mm all round, as of an effusion
    both = lungs_of_both(ours, theirs, grid)
    assert (both <= theirs).all()
    assert (ours <= both).all()
    assert both.sum() > 0.98 * theirs.sum()
    hole = ball(grid, 30.0) & ~ball(grid, 6.0)  # R's lungs round a mass of 12 mm that their mask leaves out
    assert lungs_of_both(hole, ball(grid, 30.0), grid).sum() > 0.98 * ball(grid, 30.0).sum()


def test_lungs_of_both_at_the_border_of_a_scan_and_without_any() -> None:
    grid = room((1.0, 1.0, 1.0), 15.0)
    nowhere, everywhere = np.zeros(grid.shape, dtype=bool), np.ones(grid.shape, dtype=bool)
    assert not lungs_of_both(nowhere, nowhere, grid).any()
    assert lungs_of_both(nowhere, everywhere, grid).all()  # a lung goes on beyond the border
    ours, theirs, wide = (np.broadcast_to(np.arange(31) < n, grid.shape).copy() for n in (12, 17, 24))
    np.testing.assert_array_equal(lungs_of_both(ours, theirs, grid), ours)
    np.testing.assert_array_equal(lungs_of_both(ours, wide, grid), wide)
    np.testing.assert_array_equal(lungs_of_both(ours[..., ::-1], wide[..., ::-1], grid), wide[..., ::-1])
    for mask, count in ((ours, 12), (theirs, 17), (wide, 24)):  # inputs stay as they are
        assert mask.sum() == count * 31 * 31
    for kind in (np.uint8, np.float32):
        np.testing.assert_array_equal(lungs_of_both(ours.astype(kind) * 2, wide.astype(kind) * 2, grid), wide)
    with pytest.raises(ValueError, match="lungs_warped"):
        lungs_of_both(ours, ours[1:], grid)
    for wrong in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="rim_mm"):
            lungs_of_both(ours, wide, grid, rim_mm=wrong)


@pytest.mark.parametrize(
    ("slice_mm", "rim", "layer"), [(0.7, 9, 13), (1.0, 7, 9), (2.5, 3, 4), (5.0, 1, 2), (10.0, 0, 1)]
)
def test_a_layer_of_thick_slices_counts_by_its_thickness(slice_mm: float, rim: int, layer: int) -> None:
    """Less than 8 mm are a rim, and 9 mm and more are not, however many slices that is."""
    grid = room((1.0, 1.0, slice_mm), 24.0)
    ours = np.zeros(grid.shape, dtype=bool)
    ours[:2] = True
    for slices, kept in ((rim, False), (layer, True)):
        theirs = ours.copy()
        theirs[2 : 2 + slices] = True
        np.testing.assert_array_equal(lungs_of_both(ours, theirs, grid), theirs if kept else ours)


PEAKS = """
import tracemalloc
import numpy as np
from ChangeMapJointLib.change.maps import change_map, signed_change

r = np.zeros((64, 96, 96), dtype=np.int16)
t, lungs = np.zeros(r.shape, dtype=np.float32), np.ones(r.shape, dtype=bool)
for function in (lambda: change_map(r, t, lungs), lambda: signed_change(r, t)):
    tracemalloc.start()
    function()
    print(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
"""


def test_the_maps_need_no_temporary_of_the_volumes_size() -> None:
    """In a process of its own: here threads of a run that another test cancelled may still be at work."""
    said = subprocess.run([sys.executable, "-c", PEAKS], capture_output=True, text=True, check=True).stdout
    volume, ten_slices = 64 * 96 * 96, 10 * 4 * 96 * 96  # voxels; bytes of float32
    float_peak, int_peak = map(int, said.split())
    assert 4 * volume <= float_peak < 4 * volume + ten_slices
    assert 2 * volume <= int_peak < 2 * volume + ten_slices


# -- resolution -----------------------------------------------------------------------
@pytest.mark.parametrize("sigma", [0.2, 0.5, 1.3])
def test_discrete_gaussian_has_exactly_the_variance_asked_for(sigma: float) -> None:
    weights = discrete_gaussian(sigma)
    n = np.arange(len(weights)) - len(weights) // 2
    assert weights.sum() == pytest.approx(1.0)
    assert (weights * n**2).sum() == pytest.approx(sigma**2, rel=2e-3)


def variances_mm2(array: np.ndarray, grid: Grid) -> list[float]:
    """Of an image as a distribution, along the array's x, y, z axes."""
    result = []
    for axis in range(3):
        line = array.sum(axis=tuple(d for d in range(3) if d != 2 - axis)).astype(float)
        at = np.arange(len(line)) * grid.spacing_mm[axis]
        mean = (line * at).sum() / line.sum()
        result.append(float((line * (at - mean) ** 2).sum() / line.sum()))
    return result


def impulse(grid: Grid) -> np.ndarray:
    array = np.zeros(grid.shape, dtype=np.float32)
    array[tuple(n // 2 for n in grid.shape)] = 1.0
    return array


def test_equal_or_nearly_equal_grids_are_left_alone() -> None:
    a, b = Grid((4, 4, 4), (0.8, 0.8, 1.0), (5.0, 0.0, 0.0)), Grid((4, 4, 5), (0.9, 0.7, 1.19))
    r, t = np.zeros(a.shape, np.int16), np.zeros(b.shape, np.int16)
    for grid, other in ((a, t[:, :, :4]), (b, t)):
        template_grid = a if grid is a else b
        r2, t2 = match_voxel_blur(r, a, other, template_grid)
        assert r2 is r
        assert t2 is other


def test_the_finer_scan_gets_the_missing_variance_along_each_axis() -> None:
    fine, coarse = Grid((41, 41, 41), (0.78, 0.78, 1.0)), Grid((21, 21, 21), (1.5, 1.5, 5.0))
    r, t = match_voxel_blur(impulse(fine), fine, impulse(coarse), coarse)
    expected = [(1.5**2 - 0.78**2) / FWHM2] * 2 + [(25.0 - 1.0) / FWHM2]
    np.testing.assert_allclose(variances_mm2(r, fine), expected, rtol=0.01)
    assert r.sum() == pytest.approx(1.0, rel=1e-4)
    np.testing.assert_array_equal(t, impulse(coarse))
    t2, r2 = match_voxel_blur(impulse(coarse), coarse, impulse(fine), fine)  # roles swapped
    np.testing.assert_array_equal(r2, r)
    np.testing.assert_array_equal(t2, t)


def test_each_scan_is_smoothed_along_the_axes_where_it_is_the_finer_one() -> None:
    thin, sharp = Grid((31, 31, 31), (2.0, 2.0, 1.0)), Grid((31, 31, 31), (1.0, 1.0, 3.0))
    r, t = match_voxel_blur(impulse(thin), thin, impulse(sharp), sharp)
    np.testing.assert_allclose(variances_mm2(r, thin), [0, 0, 8 / FWHM2], atol=0.01)
    np.testing.assert_allclose(variances_mm2(t, sharp), [3 / FWHM2, 3 / FWHM2, 0], atol=0.01)


def test_axes_are_matched_by_direction_not_by_their_order() -> None:
    r_grid = Grid((21, 21, 21), (1.0, 1.0, 1.0))
    # the template's array x axis runs along the patient's z, its z axis along the patient's x
    t_grid = Grid((21, 21, 21), (5.0, 1.0, 1.0), direction=((0, 0, 1), (0, 1, 0), (1, 0, 0)))
    r, _ = match_voxel_blur(impulse(r_grid), r_grid, impulse(t_grid), t_grid)
    np.testing.assert_allclose(variances_mm2(r, r_grid), [0, 0, 24 / FWHM2], rtol=0.01, atol=1e-6)


def test_turned_axes_get_the_variance_along_them() -> None:
    fine, coarse = Grid((5, 5, 5)), Grid((5, 5, 5), (1.0, 1.0, 4.0), direction=OBLIQUE)
    turn = np.asarray(OBLIQUE)
    covariance = turn @ np.diag([1.0, 1.0, 16.0]) @ turn.T
    expected = np.sqrt((np.diag(covariance) - 1.0) / FWHM2)
    expected[np.diag(covariance) <= 1.2**2] = 0
    np.testing.assert_allclose(missing_sigma_mm(fine, coarse), expected, atol=1e-9)


def test_small_structures_are_less_change_between_thin_and_thick_slices() -> None:
    shapes = [Sphere((x, y, z), 2.0) for x in (-10, 0, 10) for y in (-10, 0, 10) for z in (-9, 1, 10)]
    thin, thick = scan(cube((1, 1, 1), edge_mm=36), *shapes), scan(cube((1, 1, 4), edge_mm=36), *shapes)
    lungs = np.ones(thin.grid.shape, dtype=bool)
    matched = match_voxel_blur(thin.array, thin.grid, thick.array, thick.grid)
    plain, smoothed = (
        change_map(r, resample(t, thick.grid, thin.grid, outside=LUNG_HU), lungs)
        for r, t in ((thin.array, thick.array), matched)
    )
    assert plain.max() > 0.4  # 420 HU of change that is none
    assert smoothed.max() < 0.6 * plain.max()
    assert smoothed.mean() < 0.6 * plain.mean()


def test_match_resolution_refuses_an_array_of_another_grid() -> None:
    grid = Grid((4, 4, 4))
    with pytest.raises(ValueError, match="shapes"):
        match_voxel_blur(np.zeros((4, 4, 3)), grid, np.zeros((4, 4, 4)), grid)
