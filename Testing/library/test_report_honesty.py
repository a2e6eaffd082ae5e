"""The report says what is not known, not measured or not to be relied upon."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from export_samples import content, finding, findings, grown, quality
from report_page import Page, has_band

from ChangeMapJointLib.comparison.save import all_notes
from ChangeMapJointLib.export import report
from ChangeMapJointLib.export.panels import lung_rows
from ChangeMapJointLib.export.report import render_report
from ChangeMapJointLib.gate.answer import GateAnswer, GateReason
from ChangeMapJointLib.lungs.segment import _size_notes
from ChangeMapJointLib.scan.beside_lung import BesideLung
from ChangeMapJointLib.scan.lungs import LEFT, RIGHT


def test_no_findings_are_said_in_words():
    page = Page(render_report(content()))
    assert "No findings" in page.text
    assert "no change reached 0.68 on the map" in page.text
    assert "does not rule out change" not in page.text


@pytest.mark.parametrize("verdict", ["look closely", "do not use"])
def test_no_findings_mean_nothing_where_the_registration_is_doubtful(verdict):
    page = Page(render_report(content(quality=quality(verdict, ("The lungs overlap by 0.61.",)))))
    assert "this does not rule out change" in page.text
    assert "The lungs overlap by 0.61." in page.text
    assert "The registration can be used" not in page.text


def test_no_findings_mean_nothing_where_the_quality_is_unknown():
    page = Page(render_report(content(quality=None)))
    assert "Not measured" in page.text
    assert "this does not rule out change" in page.text


def test_do_not_use_cannot_be_missed():
    made = content(finding(), quality=quality("do not use"))
    page = Page(render_report(made))
    assert page.text.index("DO NOT USE") < page.text.index("Change report: chest CT, current against prior Research")
    marked = {image["data-role"] for image in page.images if has_band(image)}
    assert marked == {"warped", "signed"}
    assert {image["data-role"] for image in page.images} == {"reference", "warped", "signed"}


def test_do_not_use_lists_no_finding_and_shows_both_scans_rigidly():
    """Differences left by a failed registration are not findings: the page gives the reason and shows both scans."""
    held = findings(finding(), grown()).withhold(("The lungs overlap by 0.61.",))
    rigid = np.full(held.labels.shape, -700, np.int16)
    failed = quality("do not use", ("The lungs overlap by 0.61.",))
    page = Page(render_report(content(findings=held, quality=failed, rigid_template=rigid)))
    assert "2 regions of remaining difference are withheld" in page.text
    assert "The lungs overlap by 0.61." in page.text
    assert "Finding 1" not in page.text
    assert not [table for table in page.tables if "Remark" in table[0]]
    places = [
        page.text.index(words) for words in ("No findings", "Both scans, rigidly aligned", "Reason: differences after")
    ]
    assert places == sorted(places)
    shown = [image for image in page.images if image["data-role"] == "rigid"]
    assert len(shown) == 7
    assert not any(has_band(image) for image in shown)  # they can be looked at


def test_the_gate_stands_above_the_verdict():
    doubt = GateReason("date_order", "look", "WARNING: the template is newer.", "Exchange them.")
    page = Page(render_report(content(finding(), gate=GateAnswer.of([doubt]))))
    places = [
        page.text.index(words) for words in ("Inputs: look", "is newer. Exchange them.", "can be used.", "1 finding")
    ]
    assert places == sorted(places)
    assert "Inputs: fine" in Page(render_report(content(gate=GateAnswer()))).text
    assert "Inputs:" not in Page(render_report(content())).text


def test_a_good_page_has_no_warning_on_its_pictures():
    for row in lung_rows(content()):
        for picture in row.pictures:
            assert not has_band({"src": picture.uri, "width": str(picture.width), "height": str(picture.height)})


def test_findings_without_pictures_are_counted_in_words(monkeypatch):
    monkeypatch.setattr(report, "PICTURED", 1)
    made = content(finding(), grown(), finding(3))
    page = Page(render_report(replace(made, findings=replace(made.findings, dropped=17))))
    assert "The first 1 of the 3 findings are pictured below" in page.text
    assert "17 smaller regions of change are not listed" in page.text
    assert len(page.table("Remark")) == 4
    assert "Finding 2:" not in page.text


def test_rigid_shows_both_scans_and_neither_map_nor_findings():
    made = content(method="rigid", change_map=None, signed_hu=None, findings=None, quality=None)
    page = Page(render_report(made))
    assert {image["data-role"] for image in page.images} == {"reference", "rigid"}
    assert "Both scans, rigidly aligned" in page.text
    assert "Overview" not in page.text
    assert not [table for table in page.tables if "Remark" in table[0]]


def test_joint_does_not_say_that_the_map_is_a_difference_in_hu():
    page = Page(render_report(content(method="joint")))
    assert "map 0.68" not in page.text
    assert "One network" in page.text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "magic"}, "'magic'"),
        ({"change_map": None}, "change_map"),
        ({"warped_template": np.zeros((2, 2, 2), np.int16)}, "warped_template"),
    ],
)
def test_content_that_does_not_fit_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        content(**changes)


@pytest.mark.parametrize(
    ("lungs_ml", "beside", "rule"),
    [
        ({RIGHT: 3000.0, LEFT: 0.0}, None, "one_lung"),
        ({RIGHT: 400.0, LEFT: 3000.0}, None, "one_lung"),
        ({RIGHT: 3000.0, LEFT: 200.0}, BesideLung(LEFT, 12.0, 0.2), "one_sided"),
    ],
)
def test_that_a_lung_is_missing_is_said_once_for_each_scan(lungs_ml, beside, rule) -> None:
    """The gate says it with what it means; the note of the segmentation would say it again."""
    said = _size_notes(lungs_ml, beside)
    lungs = SimpleNamespace(notes=("The lungs touch.", *said))
    pair = SimpleNamespace(reference=SimpleNamespace(lungs=lungs), template=SimpleNamespace(lungs=lungs))
    gate = GateAnswer("look", (GateReason(rule, "look", "One lung is missing.", scan="Template"),))
    result = SimpleNamespace(pair=pair, gate=gate, given=None, joint=None, notes=())
    expected = (
        "Current scan: The lungs touch.",
        *(f"Current scan: {note}" for note in said),
        "Prior scan: The lungs touch.",
    )
    assert len(said) == 1
    assert all_notes(result) == expected
