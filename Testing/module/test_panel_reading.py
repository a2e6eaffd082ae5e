"""Reading with the panel: what a radiologist sees first, what every view says, and where the decisions go."""

from __future__ import annotations

import csv
import json

import numpy as np
import panel_samples
import pytest
import slicer
from panel_samples import NEW_MM, STABLE_MM, finished_job, nodes
from panel_views import centre_lps, look_at, painted, rows
from PySide6.QtCore import QPoint
from PySide6.QtGui import QColor, QPalette
from PySide6.QtWidgets import QApplication
from slicerhost import dialogs, leave_module, open_module, user

from ChangeMapJointLib.scene.nodes import CURRENT, PRIOR, composite_node, nodes_of_run, slice_node

DATES = {"reference": "2024-05-14", "template": "2023-10-02"}  # 225 days apart


@pytest.fixture
def read(widget):
    """The open module with a judged run of dated scans on screen."""
    job = finished_job(widget.logic.runs.root, *nodes(), is_judged=True)
    path = job.folder / "result" / "run.json"
    dated = {side: {"acquisition": {"date": date}} for side, date in DATES.items()}
    path.write_text(
        json.dumps({**json.loads(path.read_text("utf-8")), **dated, "notes": ["First note.", "Second note."]})
    )
    assert widget.panel.loadJob(job)
    slicer.app.processEvents()
    return widget


def titles(widget) -> list[str]:
    panes = widget.panel.session._panes
    return [panes.title(view) for view in (*CURRENT, *PRIOR)]


def y_of(widget, one, at_end: bool = False) -> int:
    return one.mapTo(widget.panel.widget, QPoint(0, 0)).y() + (one.height if at_end else 0)


# -- what comes first ------------------------------------------------------------------
def test_the_first_finding_is_on_screen_by_itself_and_fills_a_third_of_each_view(read) -> None:
    assert read.panel.findings.selected.kind == "new"
    for view in CURRENT:
        np.testing.assert_allclose(centre_lps(view), NEW_MM, atol=1e-3)
        assert min(slice_node(view).GetFieldOfView()[:2]) == pytest.approx(3 * 20.0)  # its long diameter is 20 mm
    user.click(read.ui.zoomCheckBox)
    assert min(slice_node("Red").GetFieldOfView()[:2]) > 150
    np.testing.assert_allclose(centre_lps("Red"), NEW_MM, atol=1e-3)


def test_verdict_reasons_and_notes_stand_under_apply_and_accept_is_in_sight(read) -> None:
    ui = read.ui
    assert ui.inputsCollapsibleButton.collapsed
    assert ui.methodCollapsibleButton.collapsed
    assert "Registration: good" in ui.verdictLabel.text
    assert y_of(read, ui.applyButton) < y_of(read, ui.verdictLabel) < y_of(read, ui.findingsTable)
    assert y_of(read, ui.acceptButton, at_end=True) < 650  # of 800 pixels, below Slicer's bars
    assert "First note." in ui.notesLabel.text
    assert "Second note." not in ui.notesLabel.text
    ui.notesLabel.linkActivated.emit("notes")
    assert "Second note." in ui.notesLabel.text


def test_a_click_on_a_header_sorts_within_the_sections_and_a_third_one_restores_the_order(read) -> None:
    header = read.ui.findingsTable.header()
    read.panel.parameters.unfolded = "possible explained stable"
    before = [row[0] for row in rows(read)]
    header.sectionClicked.emit(6)  # trust
    assert [row[4] for row in rows(read)[:2]] == ["0.20", "0.90"]
    assert read.panel.findings.selected.kind == "new"  # still
    header.sectionClicked.emit(6)
    header.sectionClicked.emit(6)
    assert [row[0] for row in rows(read)] == before


# -- what the views say ----------------------------------------------------------------
def test_every_view_says_which_scan_it_shows_in_every_layout(read) -> None:
    for layout in ("compare", "check", "read", "compare"):
        read.panel.parameters.layout = layout
        assert titles(read)[0] == "CURRENT 2024-05-14"
        if layout != "read":
            assert titles(read)[3] == "PRIOR 2023-10-02\nas acquired"
            expected = np.add(centre_lps("Red"), panel_samples.SHIFT_MM)
            np.testing.assert_allclose(centre_lps(PRIOR[0]), expected, atol=1e-3)  # linked
    user.choose(read.ui.priorComboBox, read.ui.priorComboBox.itemText(read.ui.priorComboBox.findData("warped")))
    assert titles(read)[3].endswith("warped: sizes are not its own")
    labels = read.panel.session._panes._labels
    assert [labels.letters(view) for view in CURRENT] == ["R L A P", "R L S I", "A P S I"]
    slice_node("Red").SetOrientationToSagittal()
    assert labels.letters("Red").split()[2:] == ["S", "I"]


def test_flicker_shows_the_scans_alone_and_says_so(read) -> None:
    look_at(NEW_MM)
    assert (painted("Red") == 1).any()
    read.ui.flickerButton.pressed.emit()
    assert titles(read)[0].startswith("PRIOR")
    pixels = painted("Red")
    read.ui.flickerButton.released.emit()
    assert not (pixels == 1).any()
    assert titles(read)[0].startswith("CURRENT")
    assert (painted("Red") == 1).any()


def test_swipe_divides_what_the_axial_view_shows(read) -> None:
    look_at(NEW_MM)
    panes = read.panel.session._panes._labels._panes
    read.ui.swipeSlider.value = 50
    assert panes["Red"]._cut.GetVisibility()
    width = slice_node("Red").GetDimensions()[0]
    assert panes["Red"]._cut_points[0].GetPoint(0)[0] == pytest.approx(width / 2, abs=0.05 * width)
    assert [text.GetInput() for text in panes["Red"]._cut_texts] == ["CURRENT", "PRIOR, warped"]
    assert not panes["Yellow"]._cut.GetVisibility()  # it lies in the plane
    read.ui.swipeSlider.value = 0
    assert not panes["Red"]._cut.GetVisibility()


def test_a_view_wholly_beyond_the_swipe_says_what_it_shows(read) -> None:
    """Seen in Slicer: the sagittal view held the warped prior under the title of the current scan."""
    look_at(NEW_MM)
    read.ui.swipeSlider.value = 50
    for x_mm, words in ((20.0, "PRIOR, warped"), (-20.0, "CURRENT")):  # +x is the patient's left
        look_at(np.add(NEW_MM, (x_mm, 0.0, 0.0)))
        assert read.panel.session._panes.title("Yellow").startswith(words)
    read.ui.swipeSlider.value = 100
    assert read.panel.session._panes.title("Yellow") == "PRIOR, warped"
    read.ui.swipeSlider.value = 0
    assert read.panel.session._panes.title("Yellow").startswith("CURRENT")


def test_the_window_of_one_scan_is_that_of_both(read) -> None:
    run = read.panel.session.results
    run.reference.GetDisplayNode().SetWindowLevel(333.0, -77.0)
    for node in (run.template, run.warped):
        assert (node.GetDisplayNode().GetWindow(), node.GetDisplayNode().GetLevel()) == (333.0, -77.0)


def test_the_values_under_the_cursor_are_told(read) -> None:
    crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    width, height, _ = slice_node("Red").GetDimensions()
    crosshair.SetCursorPositionXYZ([width / 2, height / 2, 0.0], slice_node("Red"))  # centred on the new nodule
    assert read.ui.cursorLabel.text == "Under the cursor: map 0.84, +880 HU, trust 0.90, Jacobian 1.30"


# -- where decisions go ----------------------------------------------------------------
def test_decisions_reach_table_report_and_text(read, tmp_path) -> None:
    user.click(read.ui.acceptButton)
    user.type_text(read.ui.commentLineEdit, "seen <before>")
    user.click(read.ui.nextFindingButton)
    user.click(read.ui.rejectButton)
    user.choose(read.ui.readerVerdictComboBox, "fine")
    for name in ("list.csv", "list.json"):
        dialogs.answer("saveFile", str(tmp_path / name))
        user.click(read.ui.csvButton)
    lines = list(csv.DictReader((tmp_path / "list.csv").open(encoding="utf-8")))
    assert [line["verdict"] for line in lines[:2]] == ["accepted", "rejected"]
    about = ("current_date", "interval_days", "registration_verdict", "reader_registration_verdict")
    assert [lines[0][name] for name in about] == ["2024-05-14", "225", "good", "fine"]
    assert lines[1]["prior_volume_ml"] == "4.2"
    content = json.loads((tmp_path / "list.json").read_text("utf-8"))
    assert content["findings"][0]["comment"] == "seen <before>"
    user.click(read.ui.copyAllButton)
    text = QApplication.clipboard().text()
    assert "225 days apart" in text
    assert "Finding 1: new" in text
    assert "Finding 2" not in text  # rejected
    assert "recommend" not in text


def test_findings_become_a_segmentation_and_a_table_beside_the_run(read) -> None:
    user.click(read.ui.segmentationButton)
    user.click(read.ui.tableButton)
    made = nodes_of_run(read.panel.session.results.run)
    segments = made["segmentation"].GetSegmentation()
    assert [segments.GetNthSegment(i).GetName().split(",")[1] for i in range(2)] == [" new", " resolved"]
    voxels = slicer.util.arrayFromSegmentBinaryLabelmap(made["segmentation"], segments.GetNthSegmentID(0))
    assert voxels.sum() == (panel_samples.distance_mm(NEW_MM) <= panel_samples.RADIUS_MM).sum()
    assert made["table"].GetNumberOfRows() == 5
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    parents = {
        hierarchy.GetItemParent(hierarchy.GetItemByDataNode(made[n])) for n in ("table", "segmentation", "record")
    }
    assert len(parents) == 1


def test_growth_is_told_with_its_rules(read) -> None:
    from ChangeMapJointGui import findings_words as words

    read.panel.parameters.unfolded = "stable"
    user.click(read.ui.previousFindingButton)  # the stable one is the last
    assert tuple(read.panel.findings.selected.centre_mm) == STABLE_MM
    assert "Within measurement error" in read.ui.findingRemarkLabel.text
    row = read.panel.findings.selectedRow()
    assert "Lung-RADS 2022, more than 1.5 mm within 12 months: met" in words.rulesText(row, 225)
    assert words.rowTexts(row, True, words.kindNames(), {}, read.panel.findings.facts)[words.DOUBLING] == ""


# -- patients and privacy --------------------------------------------------------------
def test_two_patient_numbers_are_a_red_warning_without_their_values(widget) -> None:
    current, prior = nodes()
    for uid, node, number in (("1.1", current, "MUELLER-77"), ("1.2", prior, "SCHMIDT-99")):
        node.SetAttribute("DICOM.instanceUIDs", uid)
        slicer.dicomDatabase.put(uid, **{"0010,0020": number, "0010,0030": "19500101", "0018,0015": "CHEST"})
    user.choose(widget.ui.referenceSelector, current)
    user.choose(widget.ui.templateSelector, prior)
    said = widget.ui.inputCheckLabel.text
    assert "TWO PATIENTS? The scans differ in patient ID." in said
    assert "birth date" not in said
    assert "MUELLER" not in said
    slicer.dicomDatabase.put("1.2", **{"0010,0020": "mueller 77", "0018,0015": "ABDOMEN"})
    user.choose(widget.ui.templateSelector, current)
    user.choose(widget.ui.templateSelector, prior)
    assert "TWO PATIENTS" not in widget.ui.inputCheckLabel.text
    assert "another body part: ABDOMEN" in widget.ui.inputCheckLabel.text


def test_lossy_compression_is_said_by_the_panel_as_by_the_gate(widget) -> None:
    current, prior = nodes()
    prior.SetAttribute("DICOM.instanceUIDs", "1.3")
    slicer.dicomDatabase.put("1.3", **{"0028,2110": "01", "0028,2112": "12.5"})
    user.choose(widget.ui.referenceSelector, current)
    user.choose(widget.ui.templateSelector, prior)
    assert "compressed with loss (ratio 12.5:1)" in widget.ui.inputCheckLabel.text


def test_stored_results_are_listed_with_their_size_and_deleted_on_request(read) -> None:
    root = read.logic.runs.root
    assert "1 of at most 5 results" in read.ui.storedLabel.text
    assert "MB" in read.ui.storedComboBox.currentText
    dialogs.answer("confirmYesNo", False)
    user.click(read.ui.deleteAllStoredButton)
    assert len(list(root.iterdir())) == 1
    dialogs.answer("confirmYesNo", True)
    user.click(read.ui.deleteStoredButton)
    assert list(root.iterdir()) == []
    assert "0 of at most 5" in read.ui.storedLabel.text
    assert composite_node("Red").GetBackgroundVolumeID() is not None  # the scene keeps what it has


def test_colors_are_legible_in_both_themes() -> None:
    from ChangeMapJointGui.colors import COLORS

    def luminance(color: str) -> float:
        channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    for light, dark in COLORS.values():
        for background in ("#ffffff", "#efefef"):
            assert (luminance(background) + 0.05) / (luminance(light) + 0.05) >= 4.5
        for background in ("#353535", "#232323"):
            assert (luminance(dark) + 0.05) / (luminance(background) + 0.05) >= 4.5


def test_texts_follow_a_change_of_theme_while_the_module_is_open(read) -> None:
    from ChangeMapJointGui.colors import COLORS
    from ChangeMapJointGui.findings_words import KIND

    def colors() -> list[str]:
        chosen = read.ui.findingsTable.currentItem()
        texts = (read.ui.verdictLabel.text, read.ui.notesLabel.text)
        sheets = (read.ui.increasesCheckBox.styleSheet, read.ui.decreasesCheckBox.styleSheet)
        return [*texts, *sheets, chosen.foreground(KIND).color().name()]

    def all_of(theme: int) -> bool:
        names = ("good", "less dense", "denser", "less dense", "denser")
        return all(COLORS[name][theme] in text for name, text in zip(names, colors(), strict=True))

    before, selected = QApplication.palette(), read.panel.findings.selected
    legend = read.ui.legendLabel.pixmap.toImage()
    assert all_of(0)
    dark = QPalette(QColor("#353535"))
    try:
        QApplication.setPalette(dark)
        slicer.app.processEvents()
        assert all_of(1)
        assert read.ui.legendLabel.pixmap.toImage() != legend
        assert read.panel.findings.selected is selected
        leave_module("ChangeMapJoint")
        QApplication.setPalette(before)
        open_module("ChangeMapJoint")
        assert all_of(0)
    finally:
        QApplication.setPalette(before)
        slicer.app.processEvents()


def test_sample_data_say_that_they_are_synthetic(widget) -> None:
    from ChangeMapJointGui.sample_data import isSynthetic, loadSamplePair

    for node in loadSamplePair():
        node.SetName("anything")
        assert isSynthetic(node)
    assert not isSynthetic(nodes()[0])
