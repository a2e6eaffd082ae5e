"""Lesions through three scans of closed form: which are one, how large they are in each, and what that means."""

from __future__ import annotations

import math

import numpy as np
import pytest
from finding_samples import compare, labels_of
from lung_shapes import cube, scan
from phantoms import Sphere

from ChangeMapJointLib.change.tracks import SeriesLink, map_points, track_lesions
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.lesions.course import CoursePoint, doubling_time_days, nadir, sums_of_diameters, target_lesions
from ChangeMapJointLib.lesions.measure import LesionMeasure
from ChangeMapJointLib.scan.deformation import Deformation
from ChangeMapJointLib.scan.scan import Scan

GRID = cube(edge_mm=72.0)
DAYS = (0.0, 100.0, 200.0)
PAIRS = ((1, 0), (2, 1), (2, 0))  # each follow-up against its prior and against the baseline
# radius in mm at the three time points by the lesion's place; 0 where it is absent
PATIENTS = {
    "grows, shrinks and is gone, is new": {
        (-18.0, -15.0, 5.0): (4.0, 5.0, 6.5),
        (15.0, 12.0, -8.0): (6.0, 4.0, 0.0),
        (-12.0, 18.0, -16.0): (0.0, 0.0, 5.0),
    },
    "stays, comes and goes": {
        (16.0, -14.0, 10.0): (5.0, 5.0, 5.0),
        (-15.0, 10.0, 12.0): (0.0, 5.5, 0.0),
    },
}
SHIFTS_MM = np.array([(0.0, 0.0, 0.0), (2.5, -1.5, 3.0), (-2.0, 2.0, -1.5)])  # the whole chest lies there


def series(lesions):
    """The three scans, and the comparisons by the known motion."""
    volumes = [
        scan(
            GRID,
            *(Sphere(tuple(np.add(place, shift)), r[time], 40.0) for place, r in lesions.items() if r[time]),
            noise_hu=15.0,
            seed=time,
        )
        for time, shift in enumerate(SHIFTS_MM)
    ]
    links = []
    for later, earlier in PAIRS:
        affine = np.eye(4)
        affine[:3, 3] = SHIFTS_MM[earlier] - SHIFTS_MM[later]
        field = DisplacementField.from_affine(affine, GRID)
        found = compare(volumes[later], volumes[earlier], field=field)
        links.append(SeriesLink(later, earlier, Deformation(field, GRID, GRID), found, f"{later}-{earlier}"))
    return [Scan.of(volume, labels_of(volume)) for volume in volumes], links


def ball_ml(radius_mm: float) -> float:
    return 4 / 3 * math.pi * radius_mm**3 / 1000


@pytest.mark.parametrize("patient", PATIENTS)
def test_every_changed_lesion_is_one_track_with_its_volume_in_each_scan(patient: str) -> None:
    lesions = {place: radii for place, radii in PATIENTS[patient].items() if len(set(radii)) > 1}
    tracks = track_lesions(*series(PATIENTS[patient]))
    assert len(tracks) == len(lesions)
    largest = [max(point.volume_ml or 0.0 for point in track.points) for track in tracks]
    assert largest == sorted(largest, reverse=True)
    for track in tracks:
        centre = np.array(track.points[track.anchor].measure.centre_mm) - SHIFTS_MM[track.anchor]
        place = min(lesions, key=lambda one: np.linalg.norm(np.subtract(one, centre)))
        assert np.linalg.norm(np.subtract(place, centre)) < 1.0
        assert track.lung == ("right" if place[0] < 0 else "left")
        for point, radius in zip(track.points, lesions.pop(place), strict=True):
            assert point.state == ("measured" if radius else "absent")
            assert point.volume_ml == pytest.approx(ball_ml(radius), rel=0.15)
        assert {mention.link for mention in track.mentions} <= {"1-0", "2-1", "2-0"}


def test_a_lesion_in_a_scan_that_nothing_joins_is_unknown_there_not_absent() -> None:
    scans, links = series(PATIENTS["stays, comes and goes"])
    (track,) = track_lesions(scans, links[:1])  # the third scan was compared with none
    assert [point.state for point in track.points] == ["absent", "measured", "unknown"]
    assert track.points[2].volume_ml is None


def test_points_are_mapped_over_several_comparisons_and_back() -> None:
    _, links = series({})
    points = np.array([[1.0, 2.0, 3.0], [-4.0, 0.5, 6.0]])
    for start, end in ((0, 2), (2, 0), (1, 1), (0, 1)):
        mapped = map_points(links[:2], start, end)  # 0 and 2 by way of 1
        assert mapped is not None
        np.testing.assert_allclose(mapped(points), points + SHIFTS_MM[end] - SHIFTS_MM[start], atol=1e-2)
    assert map_points(links[:1], 0, 2) is None


def test_inverting_a_bent_deformation_leads_back() -> None:
    rng = np.random.default_rng(0)
    z, y, x = np.meshgrid(*(np.linspace(0, math.pi, n) for n in GRID.shape), indexing="ij")
    vectors = np.stack([4 * np.sin(y) * np.sin(z), -3 * np.sin(x), 5 * np.sin(x) * np.cos(y)], axis=-1)
    bent = Deformation(DisplacementField(vectors.astype(np.float32), GRID), GRID, GRID)
    points = rng.uniform(-25, 25, (200, 3))
    np.testing.assert_allclose(bent.invert(bent.apply(points)), points, atol=0.02)
    assert bent.invert(np.zeros((0, 3))).shape == (0, 3)


# -- the course ------------------------------------------------------------------------------
def size(diameter_mm: float | None) -> CoursePoint:
    """A lesion of that long diameter; absent at 0, unknown at None."""
    if not diameter_mm:
        return CoursePoint("unknown" if diameter_mm is None else "absent")
    return CoursePoint(
        "measured", LesionMeasure((0.0, 0.0, 0.0), 1.0, 0.1, diameter_mm, diameter_mm, 0.0, 0.0, -850.0, 9)
    )


def test_doubling_time_and_nadir_use_what_is_known() -> None:
    volumes = [0.1 * 2 ** (day / 80.0) for day in DAYS]
    assert doubling_time_days(DAYS, volumes) == pytest.approx(80.0)
    assert doubling_time_days(DAYS, [volumes[0], None, volumes[2]]) == pytest.approx(80.0)
    assert doubling_time_days(DAYS, volumes[::-1]) == pytest.approx(-80.0)
    assert doubling_time_days(DAYS, [0.3, 0.0, None]) is None
    assert doubling_time_days(DAYS, [0.3, 0.3, 0.3]) is None
    assert nadir([None, 2.0, 1.5]) == 2
    assert nadir([None, None]) is None


@pytest.mark.parametrize(
    ("courses", "sums", "responses"),
    [
        ([(30, 20, 22), (20, 14, 12)], [50, 34, 34], ["baseline", "partial response", "partial response"]),
        ([(30, 20, 26)], [30, 20, 26], ["baseline", "partial response", "progression"]),  # +30 %, 6 mm over the nadir
        ([(12, 10, 13)], [12, 10, 13], ["baseline", "stable", "stable"]),  # +30 %, but 3 mm only
        ([(15, 0, 0)], [15, 0, 0], ["baseline", "complete response", "complete response"]),
        ([(15, 15, 15), (0, 0, 4)], [15, 15, 15], ["baseline", "stable", "progression"]),  # a new lesion
        ([(15, 15, 15), (0, 4, 4)], [15, 15, 15], ["baseline", "progression", "progression"]),  # and still there
        ([(15, 15, 15), (0, 4, 0)], [15, 15, 15], ["baseline", "progression", "stable"]),  # gone again
        ([(15, None, 15)], [15, None, 15], ["baseline", "unknown", "stable"]),
        ([(9, 9, 9)], [None, None, None], ["baseline", "unknown", "unknown"]),  # too small for a target
    ],
)
def test_the_sum_of_diameters_and_the_response(courses, sums, responses) -> None:
    points = sums_of_diameters([[size(d) for d in course] for course in courses])
    assert [point.sum_mm for point in points] == sums
    assert [point.response for point in points] == responses


def test_two_largest_lesions_are_targets() -> None:
    assert target_lesions([[size(12)], [size(40)], [size(9)], [size(20)]]) == (1, 3)
    assert sums_of_diameters([]) == ()
