"""Measurement of a lesion in one scan: closed-form spheres, what they touch, and what is no lesion."""

from __future__ import annotations

import numpy as np
import pytest
from lung_shapes import LUNG_HU, OBLIQUE, SAGITTAL, Tube, Wall, ball_ml, cube, inside, scan
from phantoms import Sphere, centred_grid, voxel_points

from ChangeMapJointLib.core.grid import IDENTITY3, Grid, Matrix3, Vector3
from ChangeMapJointLib.lesions.diameter import axial_diameters
from ChangeMapJointLib.lesions.growth import sphere_diameter_mm, volume_change, voxel_error
from ChangeMapJointLib.lesions.measure import LesionMeasure, segment_lesion
from ChangeMapJointLib.scan.volume import Volume

CENTRE: Vector3 = (1.3, -2.1, 0.7)
ISO: Vector3 = (1.5, 1.5, 1.5)


def everywhere(volume: Volume) -> np.ndarray:
    return np.ones(volume.grid.shape, dtype=np.uint8)


def found(volume: Volume, seed_mm: object = CENTRE, lungs: np.ndarray | None = None) -> LesionMeasure | None:
    seeds = np.atleast_2d(np.asarray(seed_mm, dtype=float))
    lesion = segment_lesion(volume, everywhere(volume) if lungs is None else lungs, seeds)
    return None if lesion is None else lesion.measure


def measured(volume: Volume, seed_mm: object = CENTRE, lungs: np.ndarray | None = None) -> LesionMeasure:
    result = found(volume, seed_mm, lungs)
    assert result is not None
    return result


# -- spheres --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("spacing_mm", "direction"),
    [(ISO, IDENTITY3), ((0.7, 0.7, 2.5), IDENTITY3), ((0.8, 2.0, 0.8), SAGITTAL), ((0.8, 0.8, 2.0), OBLIQUE)],
    ids=["1.5 mm", "thick slices", "stored sagittally", "oblique"],
)
@pytest.mark.parametrize("radius_mm", [2.5, 4.0, 7.0])
def test_a_sphere_is_measured_on_any_grid(spacing_mm: Vector3, direction: Matrix3, radius_mm: float) -> None:
    grid = cube(spacing_mm, edge_mm=36, direction=direction)
    volume = scan(grid, Sphere(CENTRE, radius_mm), noise_hu=25.0)
    lesion = measured(volume)
    pixel = max(ISO)
    assert lesion.volume_ml == pytest.approx(ball_ml(radius_mm), rel=0.1 if radius_mm < 3 else 0.05)
    assert abs(np.log(lesion.volume_ml / ball_ml(radius_mm))) < lesion.volume_error
    assert lesion.long_diameter_mm == pytest.approx(2 * radius_mm, abs=pixel)
    assert lesion.perpendicular_diameter_mm == pytest.approx(2 * radius_mm, abs=pixel)
    assert lesion.perpendicular_diameter_mm <= lesion.long_diameter_mm
    assert np.linalg.norm(np.subtract(lesion.centre_mm, CENTRE)) < 0.5
    assert lesion.lung_hu == pytest.approx(LUNG_HU, abs=20)
    assert lesion.voxels == pytest.approx(lesion.volume_ml / grid.voxel_volume_ml, abs=1)


def test_the_densities_of_a_large_sphere() -> None:
    lesion = measured(scan(cube(), Sphere(CENTRE, 9.0, hu=-100.0)))
    assert lesion.peak_hu == pytest.approx(-100, abs=2)
    assert -250 < lesion.mean_hu < -100  # the blurred surface counts in the mean
    assert (lesion.long_diameter_mm + lesion.perpendicular_diameter_mm) / 2 == pytest.approx(18, abs=1)


def test_ground_glass_is_measured_at_its_own_threshold() -> None:
    lesion = measured(scan(cube(), Sphere(CENTRE, 6.0, hu=-600.0), noise_hu=20.0))
    assert lesion.volume_ml == pytest.approx(ball_ml(6.0), rel=0.1)


def test_a_seed_on_the_surface_finds_the_whole_lesion() -> None:
    volume = scan(cube(), Sphere(CENTRE, 7.0))
    rim = np.array([CENTRE]) + 6.0 * np.array([[1, 0, 0], [0.9, 0.4, 0], [0.9, 0, 0.4]])
    whole, from_rim = measured(volume), measured(volume, rim)
    assert from_rim.volume_ml == pytest.approx(whole.volume_ml, rel=0.02)
    np.testing.assert_allclose(from_rim.centre_mm, whole.centre_mm, atol=0.3)


def test_a_lesion_larger_than_the_first_look_is_measured_whole() -> None:
    volume = scan(cube((2, 2, 2), edge_mm=80), Sphere(CENTRE, 25.0), parts=2)
    assert measured(volume, np.add(CENTRE, (24.0, 0, 0))).volume_ml == pytest.approx(ball_ml(25.0), rel=0.05)


def test_a_cavity_belongs_to_its_lesion() -> None:
    volume = scan(cube(), Sphere(CENTRE, 9.0), Sphere(CENTRE, 5.0, hu=-950.0))
    wall = np.array(CENTRE) + 7.0 * np.concatenate([np.eye(3), -np.eye(3)])
    assert measured(volume, wall).volume_ml == pytest.approx(ball_ml(9.0), rel=0.06)


def test_the_scan_is_not_changed_and_the_result_repeats() -> None:
    volume = scan(cube(edge_mm=36), Sphere(CENTRE, 5.0))
    before = volume.array.copy()
    assert measured(volume) == measured(volume)
    np.testing.assert_array_equal(volume.array, before)


# -- what a lesion touches ------------------------------------------------------------
def test_a_vessel_through_a_lesion_is_cut_off() -> None:
    lesion = measured(scan(cube(), Sphere(CENTRE, 5.0), Tube(CENTRE, (1, 0.5, 0.2), 1.2)))
    assert lesion.volume_ml == pytest.approx(ball_ml(5.0), rel=0.2)
    assert lesion.long_diameter_mm < 10.0 + 2 * 2.5


def test_a_lesion_on_the_pleura_is_measured_within_the_lung_mask() -> None:
    grid = cube(edge_mm=60, centre_mm=(-8.0, 0.0, 0.0))
    volume = scan(grid, Wall(8.0), Sphere((3.0, 0.0, 0.0), 6.0))
    lungs = ~inside(Wall(8.0), voxel_points(grid))
    beyond = 1.0  # of the ball, behind the wall: a cap
    cap_ml = np.pi * beyond**2 * (3 * 6.0 - beyond) / 3 / 1000
    lesion = measured(volume, (3.0, 0.0, 0.0), lungs)
    assert lesion.volume_ml == pytest.approx(ball_ml(6.0) - cap_ml, rel=0.12)
    assert lesion.long_diameter_mm == pytest.approx(12.0, abs=1.5)


def test_lung_of_the_other_scan_completes_a_mask_that_cuts_a_lesion() -> None:
    volume = scan(cube(), Sphere(CENTRE, 6.0))
    x = voxel_points(volume.grid)[..., 0]
    lungs = x < CENTRE[0]  # half of the lesion
    seed = np.array([CENTRE]) - (2.0, 0, 0)
    cut = segment_lesion(volume, lungs, seed)
    whole = segment_lesion(volume, lungs, seed, also_lung=lambda points: points[:, 0] < CENTRE[0] + 20)
    assert cut is not None
    assert whole is not None
    assert cut.measure.volume_ml == pytest.approx(0.5 * ball_ml(6.0), rel=0.2)
    assert whole.measure.volume_ml == pytest.approx(ball_ml(6.0), rel=0.05)


# -- what is no lesion ----------------------------------------------------------------
@pytest.mark.parametrize(
    "volume",
    [
        scan(cube(edge_mm=36), noise_hu=40.0),
        scan(cube(), Tube(CENTRE, (0.2, 0.3, 1.0), 2.5)),
        scan(cube(), Tube(CENTRE, (0.2, 0.3, 1.0), 2.0), Tube(CENTRE, (1.0, 0.3, 0.1), 1.6)),
        scan(cube(edge_mm=36), Sphere(CENTRE, 1.0)),
    ],
    ids=["noise", "vessel", "crossing vessels", "2 mm"],
)
def test_nothing_is_measured_where_no_nodule_is(volume: Volume) -> None:
    assert found(volume) is None


def test_the_rim_of_a_wall_within_the_mask_is_no_lesion() -> None:
    grid = cube(edge_mm=60)
    volume = scan(grid, Wall(CENTRE[0] - 1.0))
    lungs = ~inside(Wall(CENTRE[0] + 3.0), voxel_points(grid))  # 4 mm of the wall
    assert found(volume, lungs=lungs) is None


def test_outside_the_scan_or_the_lungs_nothing_is_measured() -> None:
    volume = scan(cube(edge_mm=36), Sphere(CENTRE, 5.0))
    assert found(volume, (500.0, 0.0, 0.0)) is None
    assert found(volume, lungs=0 * everywhere(volume)) is None


def test_contains_knows_inside_near_and_outside() -> None:
    volume = scan(cube(), Sphere(CENTRE, 6.0))
    lesion = segment_lesion(volume, everywhere(volume), np.array([CENTRE]))
    assert lesion is not None
    points = np.array(CENTRE) + np.array([[0, 0, 0], [5, 0, 0], [0, 0, 7.5], [0, 10, 0], [300, 0, 0]])
    np.testing.assert_array_equal(lesion.contains(points), [True, True, False, False, False])
    np.testing.assert_array_equal(lesion.contains(points, margin_mm=2.5), [True, True, True, False, False])


# -- diameters ------------------------------------------------------------------------
def block(shape: tuple[int, int, int], size: tuple[int, int, int]) -> np.ndarray:
    """True in a block of ``size`` (z, y, x) voxels."""
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(2, 2 + n) for n in size)] = True
    return mask


def test_rows_of_voxels_measure_their_length() -> None:
    grid = Grid((9, 9, 16), (0.8, 0.7, 3.0))
    long_mm, across_mm = axial_diameters(block(grid.shape, (1, 1, 10)), grid)
    assert (long_mm, across_mm) == pytest.approx((8.0, 0.7))
    assert axial_diameters(block(grid.shape, (1, 5, 1)), grid) == pytest.approx((3.5, 0.8))
    assert axial_diameters(block(grid.shape, (6, 1, 1)), grid) == pytest.approx((0.8, 0.7))  # 18 mm along z
    assert axial_diameters(np.zeros(grid.shape, dtype=bool), grid) == (0.0, 0.0)


def test_the_slice_with_the_longest_diameter_counts() -> None:
    grid = Grid((6, 24, 24))
    mask = np.zeros(grid.shape, dtype=bool)
    mask[1, 5:15, 5:15] = True  # diagonal 9 sqrt(2) + 1 = 13.7
    mask[3, 4, 2:20] = True  # 18 mm long, 1 mm wide
    assert axial_diameters(mask, grid) == pytest.approx((18.0, 1.0))


@pytest.mark.parametrize("direction", [IDENTITY3, SAGITTAL, OBLIQUE], ids=["axial", "sagittal", "oblique"])
def test_axial_diameters_follow_the_patient_not_the_array(direction: Matrix3) -> None:
    grid = centred_grid((40, 40, 40), (1.0, 1.0, 1.0), direction=direction)
    x, y, z = np.moveaxis(voxel_points(grid), -1, 0)
    ellipsoid = (x / 10) ** 2 + (y / 6) ** 2 + (z / 15) ** 2 <= 1  # the longest axis is not axial
    long_mm, across_mm = axial_diameters(ellipsoid, grid)
    assert long_mm == pytest.approx(20, abs=1.1)  # a voxel
    assert across_mm == pytest.approx(12, abs=1.1)


# -- error of measurement -------------------------------------------------------------
def test_sphere_volume_and_diameter() -> None:
    assert sphere_diameter_mm(0.5236) == pytest.approx(10.0, abs=1e-3)
    assert sphere_diameter_mm(0.0) == 0.0


def test_voxel_error_is_half_a_voxel_at_both_ends_of_each_diameter() -> None:
    assert voxel_error(0.5236, (1, 1, 1)) == pytest.approx(np.sqrt(1.5) / 10, rel=1e-4)
    assert voxel_error(0.5236, (0, 0, 5)) == pytest.approx(0.5 / np.sqrt(2), rel=1e-4)  # as error in one diameter
    assert voxel_error(8 * 0.5236, (1, 1, 1)) == pytest.approx(0.5 * voxel_error(0.5236, (1, 1, 1)))
    assert voxel_error(0.0, (1, 1, 1)) == np.inf


def test_repeat_scan_noise_alone_bounds_the_interval() -> None:
    change, low, high = volume_change(1.29, 1.0)
    assert (change, low) == pytest.approx((29.0, 0.0))  # just what noise can make
    assert high == pytest.approx(100 * (1.29 / 0.75 - 1))
    assert volume_change(0.75, 1.0)[2] == pytest.approx(0.0)
    assert volume_change(1.25, 1.0)[1] < 0 < volume_change(1.30, 1.0)[1]


def test_coarse_voxels_widen_the_interval() -> None:
    _, low, high = volume_change(2.0, 1.0)
    _, lower, higher = volume_change(2.0, 1.0, now_error=0.3, before_error=0.4)
    assert lower == pytest.approx(100 * (2 * np.exp(-np.hypot(np.log(1.29), 0.5)) - 1))
    assert lower < low < high < higher
