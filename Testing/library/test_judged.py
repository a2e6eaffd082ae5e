"""The judged list on closed-form pairs: what is listed, what is explained and why, ids, order, operating point."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from judge_samples import evidence_of
from lung_shapes import Tube, cube, scan
from phantoms import Sphere

from ChangeMapJointLib.change.findings import FindingOptions, Findings
from ChangeMapJointLib.change.judged import judge_changes, other_changes
from ChangeMapJointLib.change.sections import REASONS, reason_sentence
from ChangeMapJointLib.scan.volume import Volume

GROWN_NOW, GROWN_BEFORE = Sphere((-8, 0, 0), 4.6), Sphere((-8, 0, 0), 3.7)
VESSEL, MOVED = Tube((12, 0, 0), (0.1, 0.2, 1), 1.5), Tube((13.5, 0, 0), (0.1, 0.2, 1), 1.5)


def judged(reference: Volume, template: Volume, **options: Any) -> Findings:
    """The list of a pair that is aligned already."""
    evidence = evidence_of(reference, template)
    return judge_changes(evidence, lowest=0.4, options=FindingOptions(**options))


def pair(now: list[Any], before: list[Any], **options: Any) -> Findings:
    grid = cube()
    reference = scan(grid, *now, noise_hu=15.0, seed=1)
    return judged(reference, scan(grid, *before, noise_hu=15.0, seed=2), **options)


def test_growth_below_the_maps_threshold_is_listed_and_a_displaced_vessel_is_explained() -> None:
    found = pair([GROWN_NOW, MOVED], [GROWN_BEFORE, VESSEL])
    assert [item.kind for item in found.items] == ["grown"]
    assert found.items[0].probability > 0.5
    assert found.others
    assert {item.section for item in found.others} == {"explained"}
    assert all(item.probability < 0.5 and item.reason in REASONS for item in found.others)
    assert all(reason_sentence(item.reason) in item.remark or item.partner for item in found.others)


def test_ids_are_unique_over_all_sections_and_label_the_map() -> None:
    found = pair([GROWN_NOW, MOVED, Sphere((0, 15, 8), 4.0)], [GROWN_BEFORE, VESSEL])
    everything = (*found.items, *found.others)
    assert [item.id for item in everything] == list(range(1, len(everything) + 1))
    assert [item.kind for item in found.items] == ["grown", "new"] or [i.kind for i in found.items] == ["new", "grown"]
    assert set(np.unique(found.labels)) == {0, *(item.id for item in everything)}
    for item in everything:
        assert (found.labels == item.id).sum() == item.voxels
    assert found.section("explained") == found.others
    others = other_changes(found, 0.5)
    assert (others.items, others.others, others.threshold) == (found.others, (), 0.5)


def test_new_and_grown_lesions_come_before_resolved_ones() -> None:
    found = pair([Sphere((-8, 0, 0), 3.5)], [Sphere((10, 0, 0), 6.0)])
    assert [item.kind for item in found.items] == ["new", "resolved"]  # though the other one is larger


def test_equal_scans_have_nothing_to_list() -> None:
    volume = scan(cube(), GROWN_NOW, VESSEL, noise_hu=15.0, seed=1)
    found = judged(volume, volume)
    assert (found.items, found.others) == ((), ())


@pytest.mark.parametrize("operating_point", ["sensitive", "standard", "specific"])
def test_the_operating_point_moves_the_list_and_nothing_is_lost(operating_point: Any) -> None:
    found = pair([GROWN_NOW, MOVED], [GROWN_BEFORE, VESSEL], operating_point=operating_point)
    standard = pair([GROWN_NOW, MOVED], [GROWN_BEFORE, VESSEL])
    assert found.operating_point == operating_point
    assert len(found.items) + len(found.others) == len(standard.items) + len(standard.others)
    assert len(found.items) >= len(standard.items) or operating_point == "specific"


def test_a_failed_registration_withholds_all_sections() -> None:
    found = pair([GROWN_NOW, MOVED], [GROWN_BEFORE, VESSEL])
    withheld = found.withhold(("It folds.",))
    assert (withheld.items, withheld.others, withheld.withheld) == ((), (), len(found.items) + len(found.others))
    assert not withheld.labels.any()
