"""The panel with a finished run: every button, slider and key does to the views and the scene what it says."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import panel_samples
import pytest
import slicer
from panel_samples import GONE_MM, GRID, NEW_MM, SHIFT_MM, WEAK_MM
from PySide6.QtCore import Qt
from slicerhost import dialogs, load_module, open_module, user

from ChangeMapJointLib.core.grid import lps_to_ras
from ChangeMapJointLib.scene.nodes import CURRENT, PRIOR, composite_node, slice_node

MODULE = Path(__file__).parents[2] / "ChangeMapJoint" / "ChangeMapJoint.py"


@pytest.fixture
def widget(tmp_path, monkeypatch):
    """The open module; its jobs are kept in the test's own folder."""
    module = load_module(MODULE)
    from ChangeMapJointGui.runs import Runs

    monkeypatch.setattr(Runs, "root", tmp_path / "jobs")
    return open_module(module)


@pytest.fixture
def shown(widget):
    """The open module with a run on screen."""
    job = panel_samples.finished_job(widget.logic.runs.root, *panel_samples.nodes())
    assert widget.panel.loadJob(job)
    slicer.app.mainWindow().activateWindow()  # keys go to the active window
    slicer.app.processEvents()
    return widget


def view(name: str = "Red"):
    return slicer.app.layoutManager().sliceWidget(name).sliceView()


def picture(name: str = "Red") -> np.ndarray:
    slicer.app.processEvents()
    return slicer.app.layoutManager().sliceWidget(name).view().picture().astype(int)


def centre_lps(name: str) -> np.ndarray:
    ras = slicer.util.arrayFromVTKMatrix(slice_node(name).GetSliceToRAS())[:3, 3]
    return lps_to_ras(ras)


def look_at(point_lps) -> None:
    for name in CURRENT:
        slice_node(name).JumpSliceByCentering(*lps_to_ras(point_lps).tolist())


def expected(name: str, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Per pixel of a view: sign of what the map shows there, and whether the pixel lies clear of voxel borders."""
    change, signed = panel_samples.change()
    node = slice_node(name)
    width, height, _ = node.GetDimensions()
    columns, rows = np.meshgrid(np.arange(width), np.arange(height - 1, -1, -1))
    xy = np.stack([columns, rows, 0 * rows, 1 + 0 * rows], axis=-1).astype(float)
    index = GRID.to_index(lps_to_ras((xy @ slicer.util.arrayFromVTKMatrix(node.GetXYToRAS()).T)[..., :3]))
    nearest = np.rint(index).astype(int)
    inside = ((nearest >= 0) & (nearest < GRID.size)).all(axis=-1)
    clear = (np.abs(index - nearest) < 0.49).all(axis=-1)
    x, y, z = np.moveaxis(np.clip(nearest, 0, np.array(GRID.size) - 1), -1, 0)
    values = np.where(change[z, y, x] >= np.float32(threshold), np.where(signed[z, y, x] >= 0, 1, -1), 0)
    return np.where(inside, values, 0), clear


def only_the_overlay(widget) -> None:
    """Nothing else that is colored."""
    widget.panel.session.results.findings.GetDisplayNode().SetVisibility(False)
    if widget.ui.untrustedCheckBox.checked:
        user.click(widget.ui.untrustedCheckBox)


def painted(name: str) -> np.ndarray:
    """+1 where a view is orange, -1 where it is blue."""
    pixels = picture(name)
    red, blue = pixels[..., 0], pixels[..., 2]
    return np.where(red > blue + 20, 1, np.where(blue > red + 20, -1, 0))


def rows(widget) -> list[list[str]]:
    table = widget.ui.findingsTable
    return [[table.item(i, c).text() for c in range(6)] for i in range(table.rowCount)]


# -- opening ---------------------------------------------------------------------------
def test_opening_needs_neither_torch_nor_numba() -> None:
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent / "host")!r})
import slicerhost
slicerhost.boot()
slicerhost.open_module(slicerhost.load_module({str(MODULE)!r}))
print(sorted({{"torch", "numba"}} & set(sys.modules)), slicerhost.errors)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_can_be_done_before_there_is_something(widget) -> None:
    assert not widget.ui.applyButton.enabled
    assert widget.ui.applyButton.text == "Apply"
    for name in ("map", "findings", "check", "export"):
        assert not getattr(widget.ui, f"{name}CollapsibleButton").enabled
    assert not widget.ui.recoverButton.visible
    assert widget.ui.findingsCountLabel.text == "No comparison yet."


def test_the_joint_method_says_why_it_cannot_be_chosen(widget) -> None:
    box = widget.ui.methodComboBox
    item = box.model().item(box.findData("joint"))
    assert not item.isEnabled()
    assert "weights" in item.toolTip()


# -- inputs ----------------------------------------------------------------------------
def test_two_scans_are_checked_as_soon_as_both_are_chosen(widget) -> None:
    current, prior = panel_samples.nodes()
    user.choose(widget.ui.referenceSelector, current)
    assert widget.ui.inputCheckLabel.text == ""
    assert not widget.ui.applyButton.enabled
    user.choose(widget.ui.templateSelector, current)
    assert "the same volume" in widget.ui.inputCheckLabel.text
    assert not widget.ui.applyButton.enabled
    user.choose(widget.ui.templateSelector, prior)
    assert "nothing speaks against" in widget.ui.inputCheckLabel.text
    assert widget.ui.applyButton.enabled
    assert "84 x 74 x 66 voxels of 3 x 3 x 3 mm" in widget.ui.referenceDateLabel.text


def test_what_is_no_ct_is_refused_in_words(widget) -> None:
    current, _ = panel_samples.nodes()
    other = slicer.util.addVolumeFromArray(np.zeros((40, 40, 40), np.int16), name="Labels")
    user.choose(widget.ui.referenceSelector, current)
    user.choose(widget.ui.templateSelector, other)
    assert "Labels: " in widget.ui.inputCheckLabel.text
    assert not widget.ui.applyButton.enabled


def test_dates_come_from_dicom_and_the_wrong_order_is_told(widget) -> None:
    current, prior = panel_samples.nodes()
    for node, instance, date in ((current, "1.2.3", "20230501"), (prior, "1.2.4", "20240131")):
        node.SetAttribute("DICOM.instanceUIDs", f"{instance} {instance}.1")
        slicer.dicomDatabase.put(instance, **{"0008,0022": date})
    user.choose(widget.ui.referenceSelector, current)
    user.choose(widget.ui.templateSelector, prior)
    assert widget.ui.referenceDateLabel.text.startswith("2023-05-01;")
    assert "newer than the reference" in widget.ui.inputCheckLabel.text
    user.click(widget.ui.swapButton)
    assert widget.ui.referenceSelector.currentNode() is prior
    assert widget.ui.templateSelector.currentNode() is current
    assert "newer" not in widget.ui.inputCheckLabel.text


# -- the overlay -----------------------------------------------------------------------
@pytest.mark.parametrize("name", CURRENT)
def test_what_is_painted_is_the_map_from_the_threshold_on(shown, name: str) -> None:
    for point in (NEW_MM, GONE_MM, WEAK_MM):
        look_at(point)
        only_the_overlay(shown)
        for threshold in (0.3, 0.68, 0.9):
            user.drag(shown.ui.thresholdSlider, 0.5, threshold)
            assert shown.panel.parameters.threshold == pytest.approx(threshold)
            wanted, clear = expected(name, shown.panel.parameters.threshold)
            assert (painted(name) == wanted)[clear].all()
            middle = tuple(n // 2 for n in wanted.shape)  # where the view looks
            sign = -1 if point is GONE_MM else 1
            assert wanted[middle] == (sign if threshold < (0.5 if point is WEAK_MM else 0.8) else 0)


def test_directions_opacity_and_the_overlay_itself_can_be_switched_off(shown) -> None:
    only_the_overlay(shown)
    look_at(NEW_MM)
    orange = (painted("Red") == 1).sum()
    assert orange > 0
    user.click(shown.ui.increasesCheckBox)
    assert (painted("Red") == 0).all()
    assert [row[0] for row in rows(shown)] == ["resolved"]
    user.click(shown.ui.increasesCheckBox)
    user.click(shown.ui.overlayCheckBox)
    assert (painted("Red") == 0).all()
    assert len(rows(shown)) == 2  # the list does not depend on what is shown
    user.click(shown.ui.overlayCheckBox)
    strong = picture("Red")
    user.drag(shown.ui.opacitySlider, 0.3)
    assert (picture("Red") != strong).any()
    user.click(shown.ui.resetMapButton)
    assert (picture("Red") == strong).all()


# -- findings --------------------------------------------------------------------------
def test_the_table_follows_the_threshold_at_once(shown) -> None:
    assert sorted(row[0] for row in rows(shown)) == ["new", "resolved"]
    assert rows(shown)[0][1] == "20 x 19 mm"
    user.drag(shown.ui.thresholdSlider, 0.45)
    assert sorted(row[0] for row in rows(shown)) == ["denser", "new", "resolved"]
    assert ["denser", "20 x 19 mm", "+31 %", "0.50", "0.90", ""] in rows(shown)
    user.drag(shown.ui.thresholdSlider, 0.95)
    assert rows(shown) == []
    assert "weaker change may be there" in shown.ui.findingsCountLabel.text
    shown.ui.smallestSpinBox.value = 100000
    user.drag(shown.ui.thresholdSlider, 0.2)
    assert rows(shown) == []


def test_never_no_change_where_the_registration_failed(shown) -> None:
    shown.panel.session.results.content["quality"]["quality"]["verdict"] = "do not use"
    user.drag(shown.ui.thresholdSlider, 0.95)
    assert shown.ui.findingsCountLabel.text.startswith("Nothing can be said")


def test_next_and_previous_go_there_in_all_views(shown) -> None:
    shown.ui.priorComboBox.setCurrentIndex(1)  # as acquired: it follows through the deformation
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
    assert "1 judged" in shown.ui.findingsCountLabel.text
    user.click(shown.ui.rejectButton)
    assert not shown.ui.acceptButton.checked
    user.click(shown.ui.rejectButton)
    assert [row[5] for row in rows(shown) if row[0] == kind] == [""]
    assert shown.ui.commentLineEdit.text == "biopsy"


# -- registration check ----------------------------------------------------------------
def test_the_verdict_is_told_with_its_reasons(shown) -> None:
    assert "Registration good" in shown.ui.verdictLabel.text
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
    user.hold(view("Red"), Qt.Key.Key_W)
    assert (picture("Red") == during).all()
    user.let_go(view("Red"), Qt.Key.Key_W)
    assert (picture("Red") == before).all()


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
    changed = np.flatnonzero((half != current).any(axis=(0, 2)))
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


# -- views and keys --------------------------------------------------------------------
def test_window_presets_change_all_scans(shown) -> None:
    for button, window, level in (("lung", 1500, -600), ("mediastinum", 400, 40), ("bone", 1800, 400)):
        getattr(shown.ui, f"{button}Button").click()
        for node in (shown.panel.session.results.reference, shown.panel.session.results.warped):
            display = node.GetDisplayNode()
            assert (display.GetWindow(), display.GetLevel()) == (window, level)


def test_keys_do_what_the_help_says(shown) -> None:
    from ChangeMapJointGui.shortcuts import keyHelp

    for key, _text in keyHelp():
        assert f"<b>{key.replace('&', '&amp;')}</b>" in shown.ui.keysLabel.text
    parameters, window = shown.panel.parameters, slicer.app.mainWindow()
    before = parameters.threshold
    user.press(window, Qt.Key.Key_Minus)
    assert parameters.threshold == pytest.approx(before - 0.02)
    user.press(window, Qt.Key.Key_Plus)
    assert parameters.threshold == pytest.approx(before)
    for key, name in ((Qt.Key.Key_O, "showOverlay"), (Qt.Key.Key_E, "edges")):
        was = getattr(parameters, name)
        user.press(window, key)
        assert getattr(parameters, name) is not was
    user.press(window, Qt.Key.Key_N)
    first = shown.panel.findings.selected
    user.press(window, Qt.Key.Key_A)
    assert shown.panel.session.review(first.key)["verdict"] == "accepted"
    user.press(window, Qt.Key.Key_A)
    assert shown.panel.session.review(first.key)["verdict"] == ""
    user.press(window, Qt.Key.Key_X)
    assert shown.panel.session.review(first.key)["verdict"] == "rejected"
    user.press(window, Qt.Key.Key_N)
    assert shown.panel.findings.selected.key != first.key
    user.press(window, Qt.Key.Key_P)
    assert shown.panel.findings.selected.key == first.key
    user.press(window, Qt.Key.Key_2)
    assert shown.panel.session.results.reference.GetDisplayNode().GetWindow() == 400


def test_steps_of_the_threshold_are_finer_at_low_values(shown) -> None:
    shown.panel.parameters.threshold = 0.2
    user.press(slicer.app.mainWindow(), Qt.Key.Key_Minus)
    assert shown.panel.parameters.threshold == pytest.approx(0.195)
    assert shown.ui.thresholdSlider.singleStep == pytest.approx(0.005)


# -- export ----------------------------------------------------------------------------
def test_export_of_table_map_and_report(shown, tmp_path) -> None:
    user.click(shown.ui.nextFindingButton)
    kind = shown.panel.findings.selected.kind
    user.click(shown.ui.rejectButton)
    user.type_text(shown.ui.commentLineEdit, "=1+1")
    dialogs.answer("saveFile", str(tmp_path / "list.csv"), str(tmp_path / "map.nrrd"), str(tmp_path / "page.html"))
    user.click(shown.ui.csvButton)
    with (tmp_path / "list.csv").open(newline="") as stream:
        written = list(csv.DictReader(stream))
    assert [row["kind"] for row in written] == [row.kind for row in shown.panel.findings.rows]
    (judged,) = (row for row in written if row["kind"] == kind)
    assert (judged["verdict"], judged["comment"]) == ("rejected", "'=1+1")  # no formula for a spreadsheet
    user.click(shown.ui.mapButton)
    saved = slicer.util.loadVolume(str(tmp_path / "map.nrrd"))
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(saved), panel_samples.change()[0])
    user.click(shown.ui.reportButton)
    assert (tmp_path / "page.html").read_text() == "<html>report</html>"
    assert dialogs.texts("url")
    assert str(tmp_path / "page.html") in shown.ui.exportLabel.text


def test_an_export_that_is_called_off_or_fails_says_so(shown, tmp_path) -> None:
    dialogs.answer("saveFile", "", str(tmp_path / "missing" / "list.csv"))
    user.click(shown.ui.csvButton)
    assert shown.ui.exportLabel.text == ""
    user.click(shown.ui.csvButton)
    assert "missing" in dialogs.texts("error")[-1]
    assert shown.ui.exportLabel.text == ""
