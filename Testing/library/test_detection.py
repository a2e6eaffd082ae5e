"""Matching of findings with the truth: regions, the guard against giants, recall and precision."""

from dataclasses import dataclass

import numpy as np
import pytest

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.evaluation.detection import (
    ChangeRegion,
    HitRule,
    change_region,
    match_findings,
    match_labels,
    paint_findings,
)
from ChangeMapJointLib.synthesis.shapes import LesionShape
from ChangeMapJointLib.synthesis.truth import TrueChange

GRID = Grid((50, 60, 80), (1.0, 1.0, 2.0), (-40.0, -30.0, -250.0))
INDEX = GRID.to_physical(np.indices(GRID.shape)[::-1].transpose(1, 2, 3, 0))
A, B, C = (-20.0, 0.0, -200.0), (15.0, 5.0, -190.0), (15.0, -15.0, -170.0)


@dataclass(frozen=True)
class Found:
    id: int
    kind: str
    centre_mm: tuple[float, float, float]
    long_diameter_mm: float


def ball(centre, diameter: float) -> np.ndarray:
    return np.linalg.norm(INDEX - np.array(centre), axis=-1) <= diameter / 2


def true_change(number: int, kind: str, centre, now: float, before: float, **others) -> TrueChange:
    return TrueChange(number, kind, centre, (0.0, 0.0, 0.0), now, before, **others)


TRUTH = (
    true_change(1, "new", A, 10.0, 0.0),
    true_change(2, "grown", B, 16.0, 8.0),
    true_change(3, "stable", C, 12.0, 12.0),
)


def labels_of(*masks: np.ndarray) -> np.ndarray:
    labels = np.zeros(GRID.shape, np.int32)
    for number, mask in enumerate(masks, start=1):
        labels[mask] = number
    return labels


# -- regions -----------------------------------------------------------------------------


def test_region_of_a_grown_lesion_is_a_shell():
    region = change_region(TRUTH[1], GRID)
    whole = np.zeros(GRID.shape, bool)
    whole[region.box] = region.changed
    np.testing.assert_array_equal(whole, ball(B, 16) & ~ball(B, 8))
    whole[region.box] = region.lesion
    np.testing.assert_array_equal(whole, ball(B, 16))


def test_region_of_new_and_resolved_is_the_whole_lesion():
    for change in (true_change(1, "new", A, 10.0, 0.0), true_change(1, "resolved", A, 0.0, 10.0)):
        region = change_region(change, GRID)
        assert region.changed.sum() == ball(A, 10).sum()


def test_region_of_a_stable_lesion_is_empty():
    region = change_region(TRUTH[2], GRID)
    assert not region.changed.any()
    assert region.lesion.sum() == ball(C, 12).sum()


def test_region_follows_the_outline_and_stays_inside():
    shape = LesionShape(axes=(2.0, 1.0, 0.5))
    region = change_region(true_change(1, "new", A, 12.0, 0.0, shape=shape), GRID)
    k, _, i = np.nonzero(region.changed)
    assert np.ptp(i) + 1 == pytest.approx(24, abs=1)  # 1 mm voxels along x
    assert (np.ptp(k) + 1) * 2 == pytest.approx(6, abs=4)  # 2 mm voxels along z
    left_half = INDEX[..., 0] >= A[0]
    cut = change_region(true_change(1, "new", A, 12.0, 0.0, shape=shape), GRID, inside=left_half)
    assert 0 < cut.changed.sum() < 0.6 * region.changed.sum()


def test_region_beyond_the_grid_is_empty():
    region = change_region(true_change(1, "new", (500.0, 0.0, -200.0), 10.0, 0.0), GRID)
    assert region.changed.size == 0
    detection = match_labels(labels_of(ball(A, 4)), [true_change(1, "new", (500.0, 0.0, -200.0), 10.0, 0.0)], GRID)
    assert detection.recall() == 0


# -- hits --------------------------------------------------------------------------------


def test_findings_on_the_changes_are_hits_and_others_are_false():
    labels = labels_of(ball(A, 8), ball(B, 14), ball((0.0, 20.0, -230.0), 9))
    detection = match_labels(labels, TRUTH, GRID)
    assert detection.hits == {1: (1,), 2: (2,)}
    assert detection.recall() == 1
    assert detection.precision == pytest.approx(2 / 3)
    assert detection.false_volumes_ml == {3: pytest.approx(ball((0.0, 20.0, -230.0), 9).sum() * 0.002)}
    assert detection.largest_false_ml == pytest.approx(np.pi / 6 * 9**3 / 1000, rel=0.1)


def test_finding_on_a_stable_lesion_is_false():
    detection = match_labels(labels_of(ball(C, 12)), TRUTH, GRID)
    assert detection.recall() == 0
    assert list(detection.false_volumes_ml) == [1]
    assert detection.precision == 0


def test_finding_in_the_unchanged_core_is_no_hit():
    detection = match_labels(labels_of(ball(B, 5)), TRUTH, GRID)
    assert detection.hits[2] == ()


def test_one_component_that_fills_everything_finds_nothing():
    detection = match_labels(np.ones(GRID.shape, np.int32), TRUTH, GRID)
    assert detection.recall() == 0
    assert detection.precision == 0
    lenient = match_labels(np.ones(GRID.shape, np.int32), TRUTH, GRID, rule=HitRule(inside=0.0, overlap=0.0))
    assert lenient.recall() == 1  # what overlap alone would have said


def test_touch_needs_a_tenth_of_the_finding_near_the_lesion():
    touch = ball(A, 4)
    tail = (np.abs(INDEX[..., 1]) < 1.5) & (np.abs(INDEX[..., 2] - A[2]) < 2.5) & (INDEX[..., 0] > A[0])
    near = np.linalg.norm(INDEX - np.array(A), axis=-1) <= 5 + 3
    for length, expected in ((20.0, True), (58.0, False)):
        component = touch | (tail & (INDEX[..., 0] < A[0] + length))
        rule = HitRule(inside=0.3, overlap=1.0)
        assert ((component & near).mean() / component.mean() > 0.3) == expected  # the example is what it is meant to be
        assert bool(match_labels(labels_of(component), TRUTH, GRID, rule=rule).hits[1]) == expected


def test_fragments_of_one_lesion_count_once_in_recall():
    upper, lower = ball(A, 10) & (INDEX[..., 2] > A[2]), ball(A, 10) & (INDEX[..., 2] < A[2])
    detection = match_labels(labels_of(upper, lower), TRUTH, GRID)
    assert detection.hits[1] == (1, 2)
    assert detection.recall() == 0.5
    assert detection.precision == 1


def test_no_finding_at_all():
    detection = match_labels(np.zeros(GRID.shape, np.int32), TRUTH, GRID)
    assert detection.recall() == 0
    assert np.isnan(detection.precision)
    assert detection.largest_false_ml == 0
    assert [c.id for c in detection.missed()] == [1, 2]


def test_no_change_at_all():
    detection = match_labels(labels_of(ball(A, 6)), (TRUTH[2],), GRID)
    assert np.isnan(detection.recall())
    assert detection.precision == 0


def test_only_large_solid_changes_can_be_asked_for():
    truth = (
        true_change(1, "new", A, 10.0, 0.0, texture="ground-glass"),
        true_change(2, "grown", B, 16.0, 8.0),
        true_change(3, "shrunk", C, 9.0, 12.0),
    )
    detection = match_labels(labels_of(ball(B, 14)), truth, GRID)
    assert detection.recall() == pytest.approx(1 / 3)
    assert detection.recall(solid_only=True) == 0.5
    assert detection.recall(solid_only=True, least_change_mm=6) == 1
    assert [c.id for c in detection.missed(solid_only=True)] == [3]


def test_masks_replace_the_spheres():
    everything, mask = tuple(slice(0, n) for n in GRID.shape), ball(C, 8)
    elsewhere = ChangeRegion(1, everything, mask, mask)
    detection = match_labels(labels_of(ball(C, 8)), TRUTH[:1], GRID, regions=[elsewhere])
    assert detection.recall() == 1


def test_labels_of_another_grid_are_refused():
    with pytest.raises(InputError, match="labels"):
        match_labels(np.zeros((3, 3, 3), np.int32), TRUTH, GRID)


# -- findings ----------------------------------------------------------------------------


def test_kinds_are_compared_by_the_largest_finding():
    findings = [Found(1, "new", A, 8.0), Found(2, "shrunk", B, 3.0), Found(3, "grown", B, 14.0)]
    labels = labels_of(ball(A, 8), ball((B[0] + 6.0, B[1], B[2]), 3), ball(B, 14))
    labels[ball((B[0] + 6.0, B[1], B[2]), 3)] = 2
    detection = match_findings(findings, TRUTH, GRID, labels=labels)
    assert detection.hits == {1: (1,), 2: (2, 3)}
    assert detection.kinds == {1: ("new", "new"), 2: ("grown", "grown")}


def test_findings_without_labels_are_spheres():
    findings = [Found(4, "new", A, 9.0), Found(9, "decrease", (0.0, 20.0, -230.0), 6.0)]
    painted = paint_findings(findings, GRID)
    np.testing.assert_array_equal(painted == 4, ball(A, 9))
    detection = match_findings(findings, TRUTH, GRID)
    assert detection.hits == {1: (4,), 2: ()}
    assert list(detection.false_volumes_ml) == [9]
    assert detection.findings == 2


def test_tiny_finding_is_at_least_a_voxel():
    painted = paint_findings([Found(1, "new", (-20.3, 0.2, -200.4), 0.0)], GRID)
    assert painted.sum() == 1
    assert painted[25, 30, 20] == 1


def test_foreign_ids_are_refused():
    with pytest.raises(InputError, match="labels"):
        match_findings([Found(1, "new", A, 8.0)], TRUTH, GRID, labels=labels_of(ball(A, 8), ball(B, 8)))
