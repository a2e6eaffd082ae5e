"""The list of findings and the registration check: every button does to views and scene what it says."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from panel_samples import GONE_MM, NEW_MM, SHIFT_MM, finished_job, nodes
from panel_views import centre_lps, click_row, items, look_at, painted, picture, rows, view
from PySide6.QtCore import Qt
from slicerhost import leave_module, user

from ChangeMapJointLib.scene.nodes import CURRENT, PRIOR, composite_node, existing


# -- findings --------------------------------------------------------------------------
def test_while_the_threshold_moves_the_views_come_before_the_table(shown) -> None:
    shown.panel.findings._rest.setInterval(3_600_000)  # it never rests
    look_at(NEW_MM)
    before = np.sum(painted("Red") == 1)
    user.drag(shown.ui.thresholdSlider, 0.9, 0.45)
    assert np.sum(painted("Red") == 1) >= before > 0
    user.drag(shown.ui.thresholdSlider, 0.95)
    assert not np.any(painted("Red") == 1)
    user.drag(shown.ui.thresholdSlider, 0.45)
    assert sorted(row[0] for row in rows(shown)) == ["new", "resolved"]  # as it was
    user.click(shown.ui.nextFindingButton)  # who asks for the list gets that of the threshold
    assert sorted(row[0] for row in rows(shown)) == ["denser", "new", "resolved"]
    user.drag(shown.ui.thresholdSlider, 0.95)
    assert shown.panel.findings.listed == []
    assert rows(shown) == []


def test_the_table_follows_the_threshold(shown) -> None:
    assert sorted(row[0] for row in rows(shown)) == ["new", "resolved"]
    assert rows(shown)[0][1] == "0 → 19.5"
    user.drag(shown.ui.thresholdSlider, 0.45)
    assert sorted(row[0] for row in rows(shown)) == ["denser", "new", "resolved"]
    assert ["denser", "? → 19.5", "+31 %", "0.50", "0.90", ""] in rows(shown)
    user.drag(shown.ui.thresholdSlider, 0.95)
    assert rows(shown) == []
    assert "to see weaker change" in shown.ui.findingsCountLabel.text
    shown.ui.smallestSpinBox.value = 100000
    user.drag(shown.ui.thresholdSlider, 0.2)
    assert rows(shown) == []


def test_never_no_change_where_the_registration_failed(shown) -> None:
    shown.panel.session.results.content["quality"]["quality"]["verdict"] = "do not use"
    user.drag(shown.ui.thresholdSlider, 0.95)
    assert shown.ui.findingsCountLabel.text.startswith("No findings can be given")
    user.drag(shown.ui.thresholdSlider, 0.3)
    assert rows(shown) == []


def test_a_failed_registration_lists_nothing_and_offers_rigid_side_by_side(widget) -> None:
    job = finished_job(widget.logic.runs.root, *nodes(), verdict="do not use")
    assert widget.panel.loadJob(job)
    assert rows(widget) == []
    said = widget.ui.findingsCountLabel.text
    assert "The lungs overlap by Dice 0.990. Nothing folds." in said
    assert "2 regions" in said
    assert not widget.ui.csvButton.enabled
    assert not widget.panel.parameters.showOverlay
    slicer.app.processEvents()
    assert composite_node("Red").GetNthLayerVolumeID(3) is None  # no overlay
    user.click(widget.ui.rigidButton)
    assert (widget.panel.parameters.prior, widget.panel.parameters.layout) == ("rigid", "check")
    template = widget.panel.session.results.template
    look_at(GONE_MM)
    for name in PRIOR:
        if existing([name]):
            assert composite_node(name).GetBackgroundVolumeID() == template.GetID()


def test_rigid_side_by_side_follows_the_rigid_part(shown) -> None:
    assert not shown.ui.rigidButton.visible
    shown.ui.priorComboBox.setCurrentIndex(2)
    look_at(NEW_MM)
    for name, prior in zip(CURRENT, PRIOR, strict=True):
        np.testing.assert_allclose(centre_lps(prior), centre_lps(name) + SHIFT_MM, atol=1e-3)


def test_the_gate_of_the_run_is_shown_with_its_inputs(widget) -> None:
    job = finished_job(widget.logic.runs.root, *nodes(), gate=("The lungs have 3.9 and 2.2 l.",))
    assert widget.panel.loadJob(job)
    assert "Inputs: look. The lungs have 3.9 and 2.2 l." in widget.ui.inputCheckLabel.text
    user.click(widget.ui.inputsCollapsibleButton)
    user.click(widget.ui.swapButton)  # another pair: what can be told of it now
    assert "The lungs have" not in widget.ui.inputCheckLabel.text


def test_next_and_previous_go_there_in_all_views(shown) -> None:
    visited = []
    for _ in range(2):
        user.click(shown.ui.nextFindingButton)
        visited.append(shown.panel.findings.selected.kind)
        point = {"new": NEW_MM, "resolved": GONE_MM}[visited[-1]]
        for name, prior in zip(CURRENT, PRIOR, strict=True):
            np.testing.assert_allclose(centre_lps(name), point, atol=2.0)
            np.testing.assert_allclose(centre_lps(prior), centre_lps(name) + SHIFT_MM, atol=1e-3)
    assert sorted(visited) == ["new", "resolved"]
    user.click(shown.ui.previousFindingButton)
    assert shown.panel.findings.selected.kind == visited[0]
    assert "on purpose" in shown.ui.findingRemarkLabel.text


def test_a_click_on_a_row_goes_there(shown) -> None:
    for item, row in zip(items(shown), shown.panel.findings.rows, strict=True):
        click_row(shown, item)
        assert shown.panel.findings.selected is row
        for name, prior in zip(CURRENT, PRIOR, strict=True):
            np.testing.assert_allclose(centre_lps(name), row.centre_mm, atol=1e-3)
            np.testing.assert_allclose(centre_lps(prior), np.add(row.centre_mm, SHIFT_MM), atol=1e-3)


def test_verdicts_and_comments_stay_with_their_finding(shown) -> None:
    user.click(shown.ui.nextFindingButton)
    kind = shown.panel.findings.selected.kind
    user.click(shown.ui.acceptButton)
    user.type_text(shown.ui.commentLineEdit, "biopsy")
    user.drag(shown.ui.thresholdSlider, 0.3)
    assert shown.panel.findings.selected.kind == kind  # still selected
    assert shown.ui.acceptButton.checked
    assert shown.ui.commentLineEdit.text == "biopsy"
    assert [row[5] for row in rows(shown) if row[0] == kind] == ["accepted"]
    assert "1 reviewed" in shown.ui.findingsCountLabel.text
    user.click(shown.ui.rejectButton)
    assert not shown.ui.acceptButton.checked
    user.click(shown.ui.rejectButton)
    assert [row[5] for row in rows(shown) if row[0] == kind] == [""]
    assert shown.ui.commentLineEdit.text == "biopsy"


# -- registration check ----------------------------------------------------------------
def test_the_verdict_is_told_with_its_reasons(shown) -> None:
    assert "Registration: good" in shown.ui.verdictLabel.text
    assert shown.ui.reasonsLabel.text == "The lungs overlap by Dice 0.990. Nothing folds."


def test_edges_and_hatching_are_drawn_and_taken_away(shown) -> None:
    look_at(GONE_MM)
    user.click(shown.ui.overlayCheckBox)
    hatched = picture("Red")
    user.click(shown.ui.untrustedCheckBox)
    plain = picture("Red")
    assert (hatched != plain).any()
    user.click(shown.ui.edgesCheckBox)
    edges = picture("Red")
    yellow = (edges[..., 0] > 150) & (edges[..., 1] > 140) & (edges[..., 2] < 110)
    assert yellow.sum() > 100
    user.click(shown.ui.edgesCheckBox)
    assert (picture("Red") == plain).all()


def test_holding_flicker_shows_the_warped_prior(shown) -> None:
    look_at(GONE_MM)
    user.click(shown.ui.overlayCheckBox)
    before = picture("Red")
    shown.ui.flickerButton.pressed.emit()
    during = picture("Red")
    shown.ui.flickerButton.released.emit()
    assert (before != during).any()  # the nodule that is gone
    assert (picture("Red") == before).all()
    user.hold(shown.ui.findingsTable, Qt.Key.Key_W)  # wherever the focus is, for example after a row was chosen
    user.let_go(shown.ui.findingsTable, Qt.Key.Key_W)
    assert (picture("Red") == during).all()
    user.press(view("Red"), Qt.Key.Key_W)
    assert (picture("Red") == before).all()
    user.press(view("Red"), Qt.Key.Key_W)
    shown.ui.commentLineEdit.setFocus()
    user.press(view("Red"), Qt.Key.Key_N)  # goes on to the next finding, the prior still shown
    leave_module("ChangeMapJoint")
    assert composite_node("Red").GetBackgroundVolumeID() == shown.panel.session.results.reference.GetID()


def test_swipe_shows_the_prior_in_a_share_of_the_view(shown) -> None:
    look_at(GONE_MM)
    user.click(shown.ui.overlayCheckBox)
    current = picture("Red")
    shown.ui.swipeSlider.value = 100
    whole = picture("Red")
    shown.ui.swipeSlider.value = 50
    half = picture("Red")
    shown.ui.swipeSlider.value = 0
    assert (picture("Red") == current).all()
    assert (whole != current).any()
    rows_of_it = slice(current.shape[0] // 3, None)  # below the labels of the line
    changed = np.flatnonzero((half != current)[rows_of_it].any(axis=(0, 2)))
    assert changed.min() > current.shape[1] * 0.4  # the patient's left: the right of the picture


@pytest.mark.parametrize("overlay", ["jacobian", "displacement", "trust"])
def test_other_overlays_take_the_place_of_the_change_map(shown, overlay: str) -> None:
    box = shown.ui.checkOverlayComboBox
    box.setCurrentIndex(box.findData(overlay))
    shown_node = slicer.mrmlScene.GetNodeByID(composite_node("Red").GetForegroundVolumeID())
    value = {"jacobian": 1.3, "trust": 0.9, "displacement": np.linalg.norm(SHIFT_MM)}[overlay]
    assert slicer.util.arrayFromVolume(shown_node).max() == pytest.approx(value, abs=1e-4)
    assert shown.ui.checkLegendLabel.visible
    assert composite_node("Red").GetNthLayerVolumeID(3) is None
    box.setCurrentIndex(box.findData("none"))
    assert composite_node("Red").GetForegroundVolumeID() is None
    look_at(NEW_MM)
    assert (painted("Red") == 1).any()


def test_the_readers_own_verdict_is_kept(shown) -> None:
    user.choose(shown.ui.readerVerdictComboBox, "doubtful")
    assert shown.panel.session.readerVerdict == "doubtful"
