"""Kind of nodule, place in the lung, intervals, mass and doubling time, on closed-form lesions."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from finding_samples import compare, labels_of, only
from lung_shapes import OBLIQUE, SAGITTAL, Shape, Tube, Wall, ball_ml, cube, scan
from phantoms import Sphere, voxel_points

from ChangeMapJointLib.change.location import third
from ChangeMapJointLib.core.grid import IDENTITY3, Matrix3, Vector3
from ChangeMapJointLib.lesions.growth import doubling_time, volume_interval
from ChangeMapJointLib.lesions.measure import LesionMeasure, segment_lesion
from ChangeMapJointLib.scan.lungs import LEFT, RIGHT
from ChangeMapJointLib.scan.scan import Scan
from ChangeMapJointLib.scan.volume import Acquisition, Volume

CENTRE: Vector3 = (1.3, -2.1, 0.7)
GRIDS = [((1.5, 1.5, 1.5), IDENTITY3), ((0.7, 0.7, 2.5), IDENTITY3), ((0.8, 2.0, 0.8), SAGITTAL)]


def measured(volume: Volume, lungs: np.ndarray | None = None) -> LesionMeasure:
    labels = np.ones(volume.grid.shape, np.uint8) if lungs is None else lungs
    lesion = segment_lesion(volume, labels, np.array([CENTRE]))
    assert lesion is not None
    return lesion.measure


@pytest.mark.parametrize(("spacing_mm", "direction"), GRIDS, ids=["1.5 mm", "thick slices", "stored sagittally"])
@pytest.mark.parametrize(
    ("shapes", "texture", "extent"),
    [
        ([Sphere(CENTRE, 5.0)], "solid", "whole"),
        ([Sphere(CENTRE, 4.0), Tube(CENTRE, (0.2, 0.9, 0.3), 1.5)], "solid", "whole"),
        ([Sphere(CENTRE, 6.0, hu=-600.0)], "ground-glass", "whole"),
        ([Sphere(CENTRE, 9.0, hu=-650.0), Sphere(CENTRE, 4.0)], "part-solid", "solid part"),
        ([Sphere(CENTRE, 1.5, hu=-650.0)], None, "whole"),
    ],
    ids=["solid", "solid on a vessel", "ground glass", "part-solid", "small and pale"],
)
def test_the_texture_is_told_from_the_voxels(
    spacing_mm: Vector3, direction: Matrix3, shapes: list[Shape], texture: str | None, extent: str
) -> None:
    volume = scan(cube(spacing_mm, direction=direction), *shapes, noise_hu=20.0)
    seed = np.array([CENTRE])
    lesion = segment_lesion(volume, np.ones(volume.grid.shape, np.uint8), seed)
    if texture is None:  # its edge blurs into the lung: nothing may be claimed of it
        assert lesion is None or lesion.measure.texture is None
        return
    assert lesion is not None
    assert (lesion.measure.texture, lesion.measure.extent) == (texture, extent)


def test_calcium_is_not_metal_and_contrast_medium_is_neither() -> None:
    grid = cube()
    values = {hu: measured(scan(grid, Sphere(CENTRE, 5.0, hu=hu))).calcified for hu in (40.0, 150.0, 600.0, 2800.0)}
    assert values == {40.0: False, 150.0: False, 600.0: True, 2800.0: False}
    centre_only = measured(scan(grid, Sphere(CENTRE, 7.0), Sphere(CENTRE, 3.0, hu=900.0)))
    assert centre_only.calcified


@pytest.mark.parametrize(("wall_mm", "touches"), [(5.0, True), (14.0, False)])
def test_a_nodule_at_the_wall_is_juxtapleural(wall_mm: float, *, touches: bool) -> None:
    wall = Wall(wall_mm)
    volume = scan(cube(), Sphere(CENTRE, 5.0), wall)
    assert measured(volume, labels_of(volume, wall)).juxtapleural == touches


@pytest.mark.parametrize("direction", [IDENTITY3, SAGITTAL, OBLIQUE], ids=["axial", "sagittal", "oblique"])
def test_thirds_are_of_the_patients_height(direction: Matrix3) -> None:
    grid = cube((2.0, 2.0, 3.0), edge_mm=180.0, direction=direction)
    points = voxel_points(grid)
    box = (np.abs(points) < (30.0, 20.0, 60.0)).all(axis=-1)  # 120 mm high
    lungs = np.where(box, np.where(points[..., 0] < 0, RIGHT, LEFT), 0)
    lung = Scan.of(Volume(np.zeros(grid.shape, np.int16), grid), lungs)
    heights = {z: third(lung, RIGHT, np.array([-10.0, 0.0, z])) for z in (-50.0, -24.0, -16.0, 16.0, 24.0, 50.0)}
    assert list(heights.values()) == ["lower", "lower", "middle", "middle", "upper", "upper"]


def test_no_third_of_a_lung_that_the_field_of_view_cuts() -> None:
    grid = cube((2.0, 2.0, 3.0), edge_mm=90.0)
    whole = np.zeros(grid.shape, np.uint8)
    whole[3:-3, 5:-5, 5:20] = RIGHT
    cut = whole.copy()
    cut[-3:, 5:-5, 5:20] = RIGHT
    plain = np.zeros(grid.shape, np.int16)
    assert third(Scan.of(Volume(plain, grid), whole), RIGHT, np.array([-20.0, 0.0, 35.0])) == "upper"
    assert third(Scan.of(Volume(plain, grid), cut), RIGHT, np.array([-20.0, 0.0, 35.0])) is None
    assert third(Scan.of(Volume(plain, grid), whole), LEFT, np.array([20.0, 0.0, 35.0])) is None


def test_mass_is_volume_times_density() -> None:
    lesion = measured(scan(cube(edge_mm=60.0), Sphere(CENTRE, 12.0, hu=0.0)))
    assert lesion.mass_mg == pytest.approx(1000.0 * ball_ml(12.0), rel=0.1)  # water: 1 mg in 1 mm3


def test_the_ratio_of_two_intervals_is_that_of_repeated_scans() -> None:
    low, high = volume_interval(2.0)
    assert math.log(2.0 / low) * math.sqrt(2.0) == pytest.approx(math.log(1.29))
    assert math.log(high / 2.0) * math.sqrt(2.0) == pytest.approx(-math.log(0.75))
    wider = volume_interval(2.0, 0.5)
    assert wider[0] < low
    assert wider[1] > high


def test_the_doubling_time_of_exponential_growth() -> None:
    rate = math.log(2.0) / 180.0  # doubles in 180 days
    grown = 100.0 * (math.exp(rate * 90.0) - 1.0)
    assert doubling_time(grown, 90) == pytest.approx(180.0)
    assert [doubling_time(*known) for known in ((0.0, 90), (-20.0, 90), (grown, 0), (grown, -90), (grown, None))] == [
        None
    ] * 5


def dated(volume: Volume, day: str | None) -> Volume:
    return replace(volume, acquisition=Acquisition(date=day))


@pytest.mark.parametrize(("before", "days"), [("2025-01-01", 90), (None, None), ("2025-04-01", 0)])
def test_a_grown_lesion_has_a_doubling_time_where_both_dates_are_known(before: str | None, days: int | None) -> None:
    grid = cube()
    now, prior = (scan(grid, Sphere(CENTRE, r), noise_hu=15.0, seed=int(r)) for r in (6.0, 4.0))
    found = only(compare(dated(now, "2025-04-01"), dated(prior, before)))
    assert found.kind == "grown"
    assert found.interval_days == days
    if not days:
        assert (found.doubling_time_days, found.doubling_time_interval_days) == (None, None)
        return
    truth = 90.0 * math.log(2.0) / math.log((6.0 / 4.0) ** 3)
    assert found.doubling_time_days == pytest.approx(truth, rel=0.06)
    fastest, slowest = found.doubling_time_interval_days
    assert fastest < truth < slowest
