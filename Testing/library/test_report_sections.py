"""The report's sections: findings with pictures; the others folded, explained ones with reasons in words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from export_samples import GONE_MM, GRID, ball, content, finding, findings, grown, quality
from report_page import Page

from ChangeMapJointLib.change.sections import REASONS
from ChangeMapJointLib.export.content import ReportContent
from ChangeMapJointLib.export.overview import change_points
from ChangeMapJointLib.export.panels import WEAK_SHARE, shown_from
from ChangeMapJointLib.export.report import render_report
from ChangeMapJointLib.export.unseen import unseen_of_records, unseen_sentences
from ChangeMapJointLib.export.wording import probability

FOUND = finding(1, probability=0.932)
POSSIBLE = finding(2, kind="increase", probability=0.3, section="possible", centre_mm=(0.0, 0.0, 30.0))
WALL = finding(3, kind="decrease", probability=0.004, section="explained", reason="wall", centre_mm=GONE_MM)
STABLE = replace(grown(4), probability=0.1, section="stable", centre_mm=(0.0, 20.0, -30.0))


def judged(**changes: object) -> ReportContent:
    """One change in each section."""
    listed = findings(FOUND, POSSIBLE, WALL, STABLE)
    listed = replace(listed, items=(FOUND,), others=(POSSIBLE, WALL, STABLE), operating_point="standard")
    return replace(content(), findings=listed, **changes)


@pytest.fixture(scope="module")
def text() -> str:
    return render_report(judged(not_seen=("Solid nodules below about 3 mm.",)))


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_only_findings_are_counted_pictured_and_numbered(page) -> None:
    assert "1 finding " in page.text
    assert "Also measured: 1 possible, 1 explained, 1 stable." in page.text
    assert "Operating point: standard (0.1 false findings in a scan when tested)." in page.text
    assert sum("finding 1" in image["alt"] for image in page.images) == 12
    assert not any(f"finding {number}" in image["alt"] for number in (2, 3, 4) for image in page.images)


def test_the_other_sections_are_folded_with_their_counts(text, page) -> None:
    assert page.tags.count("details") == 3
    assert not [name for tag, name, _ in page.attributes if tag == "details" and name == "open"]
    for title in ("Possible (1)", "Explained (1)", "Stable (1)"):
        assert title in page.text
    assert {"possible", "explained", "stable"} <= {value for _, name, value in page.attributes if name == "id"}
    assert "#possible::details-content { content-visibility: visible" in text  # printed open
    assert "#explained::details-content" not in text


def test_an_explained_change_is_told_with_its_reason_in_words(page) -> None:
    header, row = page.table("Reason")
    told = dict(zip(header, row, strict=True))
    assert told["Reason"] == REASONS["wall"]
    assert (told["No."], told["Kind"], told["Probability"]) == ("3", "▼ Less dense", "< 1 %")
    assert told["Stored slice"] == "15 of 40"


def test_a_stable_lesion_is_called_so_with_its_sizes(page) -> None:
    (row,) = [row for table in page.tables for row in table if row[:1] == ["4"]]
    assert row[1] == "Stable"
    told = [cell.replace("\u00a0", " ") for cell in row]
    assert "15.5 × 14.9" in told
    assert "11.7 × 11.7" in told


def test_findings_have_a_probability_only_where_they_were_judged(page) -> None:
    header, row = page.table("Volume now (ml)")
    assert dict(zip(header, row, strict=True))["Probability"] == "93 %"
    assert "Probability" not in Page(render_report(content(finding()))).text
    assert [probability(value) for value in (None, 0.0, 0.5, 1.0)] == [
        "–",
        "<\u00a01\u00a0%",
        "50\u00a0%",
        ">\u00a099\u00a0%",
    ]


def test_no_finding_among_judged_changes_is_said_without_a_threshold() -> None:
    none = replace(judged().findings, items=(), others=(POSSIBLE,), labels=np.zeros(GRID.shape, np.int32))
    said = Page(render_report(judged(not_seen=("Small ones.",)))).text
    empty = Page(render_report(replace(judged(not_seen=("Small ones.",)), findings=none))).text
    assert "no change was probable enough to be listed" in empty
    assert "on the map. Smaller" not in empty
    assert "Possible (1)" in empty
    assert "Small ones." in said  # always, not only here
    assert "Small ones." in empty


def test_a_failed_registration_shows_no_section() -> None:
    page = Page(render_report(judged(quality=quality("do not use"))))
    assert "Explained" not in page.text
    assert REASONS["wall"] not in page.text
    assert page.tags.count("details") == 0


def test_explained_changes_are_pale_in_the_overview() -> None:
    points, _, explained = change_points(judged())
    inside = np.linalg.norm(points - np.asarray(GONE_MM), axis=1) <= 9.0
    np.testing.assert_array_equal(explained, inside)
    assert explained.sum() == ball(GRID, GONE_MM, 9.0).sum()
    assert not change_points(content(finding()))[2].any()


def test_a_finding_below_the_threshold_of_the_map_is_coloured_from_its_own_peak_on() -> None:
    weak = replace(FOUND, peak=0.5)
    assert shown_from(judged(), FOUND) == 0.68
    assert shown_from(judged(), weak) == pytest.approx(0.5 * WEAK_SHARE)
    listed = replace(judged().findings, items=(weak,))
    assert (
        "colour from 0.30 on, since the peak is below 0.68"
        in Page(render_report(replace(judged(), findings=listed))).text
    )


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("good", "Registration: good"),
        ("look closely", "Registration: look closely"),
        ("do not use", "Registration: do not use"),
    ],
)
def test_the_verdict_is_on_the_registration(verdict: str, words: str) -> None:
    assert words in Page(render_report(content(quality=quality(verdict)))).text


# -- what cannot be seen ----------------------------------------------------------------
def test_limits_come_from_the_run_or_from_its_figures() -> None:
    assert unseen_sentences(["A."], lowest=0.4) == ("A.",)
    faint, outside, distrusted, elsewhere = unseen_sentences(lowest=0.68, overlap=0.9, trusted_percent=93.0)
    assert "714 HU" in faint
    assert outside.startswith("10 % of the current scan's lungs")
    assert "7 % of the lungs" in distrusted
    assert "outside the lungs" in elsewhere
    assert unseen_sentences(lowest=0.68, overlap=1.0, trusted_percent=100.0) == (faint, elsewhere)


def test_limits_of_a_run_are_read_from_its_files() -> None:
    figures = {"overlap": 1.0, "trusted_percent": 90.0}
    run = {"quality": {"quality": figures}, "findings": {"threshold": 0.68}, "candidates": {"threshold": 0.4}}
    assert "714 HU" in unseen_of_records(run)[0]  # an older run lists what its map shows
    assert "10 % of the lungs" in unseen_of_records(run)[1]
    run["findings"]["operating_point"] = "standard"
    assert "420 HU" in unseen_of_records(run)[0]
    run["quality"]["not_seen"] = [{"key": "small", "sentence": "Small ones."}, {"key": "new"}, 3]
    assert unseen_of_records(run) == ("Small ones.",)
    assert unseen_of_records({"quality": {}}) == ()  # method rigid
