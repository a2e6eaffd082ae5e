"""The judged list of a run's files at any operating point."""

from __future__ import annotations

from typing import Any

import pytest

from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.scene.judged_list import judged_sections, listing_thresholds, operating_point_of

GRID = Grid((10, 10, 10), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0))
POINTS = {"sensitive": 0.25, "standard": 0.5, "specific": 0.8}


def entry(number: int, kind: str, section: str, probability: float, peak_mm: tuple[float, ...] = ()) -> dict[str, Any]:
    place = list(peak_mm) or [2.0 * number, 4.0, 6.0]
    plain = {"id": number, "kind": kind, "section": section, "probability": probability, "reason": None}
    return {**plain, "centre_mm": place, "peak_mm": place, "peak": 0.7, "volume_ml": 0.5, "trust": 0.9, "remark": ""}


FINDINGS = {
    "operating_point": "standard",
    "listed_from": POINTS,
    "findings": [
        entry(1, "new", "finding", 0.93),
        entry(2, "grown", "finding", 0.55),
        entry(3, "resolved", "finding", 0.99),
    ],
}
CANDIDATES = {
    "findings": [
        entry(4, "grown", "possible", 0.4),
        entry(5, "increase", "possible", 0.1),
        entry(6, "decrease", "explained", 0.3),
        entry(7, "decrease", "explained", 0.01),
        entry(8, "increase", "stable", 0.1),
    ]
}


def ids(point: str) -> dict[str, list[int]]:
    sections = judged_sections(FINDINGS, CANDIDATES, GRID, point)  # type: ignore[arg-type]
    return {name: [row.measured["id"] for row in rows] for name, rows in sections.items()}


def test_the_runs_own_operating_point_gives_the_runs_list() -> None:
    assert ids("standard") == {"finding": [1, 2, 3], "possible": [4, 5], "explained": [6, 7], "stable": [8]}


def test_a_more_sensitive_point_adds_findings_by_kind_and_probability() -> None:
    assert ids("sensitive") == {"finding": [1, 2, 4, 3, 6], "possible": [5], "explained": [7], "stable": [8]}


def test_a_more_specific_point_makes_findings_possible() -> None:
    assert ids("specific") == {"finding": [1, 3], "possible": [2, 4, 5], "explained": [6, 7], "stable": [8]}


def test_an_explained_change_must_be_nearly_certain_and_a_stable_one_stays_so() -> None:
    others = {"findings": [entry(4, "new", "explained", 0.7), entry(5, "new", "stable", 0.99)]}
    at = {
        point: [row.measured["id"] for row in judged_sections(FINDINGS, others, GRID, point)["finding"]]
        for point in POINTS
    }
    assert 4 in at["sensitive"]
    assert 4 not in at["specific"]
    assert not any(5 in listed for listed in at.values())
    as_sensitive = {**FINDINGS, "operating_point": "sensitive"}
    assert 4 not in [row.measured["id"] for row in judged_sections(as_sensitive, others, GRID, "standard")["finding"]]


def test_rows_hold_sign_place_and_a_key_of_their_own() -> None:
    at = (6.0, 4.0, 2.0)
    twice = {"operating_point": "standard", "findings": [entry(n, "new", "finding", 0.9, at) for n in (1, 2)]}
    first, second = judged_sections(twice, {}, GRID, "standard")["finding"]
    assert (first.sign, first.centre_mm, first.key) == (1, at, 1 * 100 + 2 * 10 + 3)
    assert second.key == -2  # the same peak
    decrease = judged_sections(FINDINGS, CANDIDATES, GRID, "standard")["finding"][2]
    assert decrease.sign == -1


@pytest.mark.parametrize(
    "record",
    [{}, {"findings": []}, {"operating_point": None}, {"operating_point": "nonsense", "listed_from": POINTS}],
)
def test_a_run_that_judged_nothing_has_no_operating_point(record: dict[str, Any]) -> None:
    assert operating_point_of(record) is None
    assert listing_thresholds(record) == {}


def test_damaged_probabilities_are_left_out() -> None:
    record = {"operating_point": "standard", "listed_from": {"sensitive": 0.25, "standard": "x"}}
    assert listing_thresholds(record) == {"sensitive": 0.25}
    assert listing_thresholds({"operating_point": "standard", "listed_from": 3}) == {}
    broken = {"findings": [{**entry(9, "new", "possible", 0.9), "probability": None}]}
    assert not any(judged_sections(FINDINGS, broken, GRID, "specific")["finding"][2:])
