"""Window presets, keys and exports of the panel."""

from __future__ import annotations

import csv

import numpy as np
import panel_samples
import pytest
import slicer
from panel_samples import NEW_MM
from panel_views import look_at, painted
from PySide6.QtCore import Qt
from slicerhost import close_module, dialogs, open_module, user

from ChangeMapJointLib.scene.nodes import CURRENT, PRIOR, composite_node


# -- views and keys --------------------------------------------------------------------
def test_window_presets_change_all_scans(shown) -> None:
    for button, window, level in (("lung", 1500, -600), ("mediastinum", 400, 40), ("bone", 1800, 400)):
        getattr(shown.ui, f"{button}Button").click()
        for node in (shown.panel.session.results.reference, shown.panel.session.results.warped):
            display = node.GetDisplayNode()
            assert (display.GetWindow(), display.GetLevel()) == (window, level)


def test_layouts_show_the_scans_and_keep_what_was_chosen(shown) -> None:
    box, results = shown.ui.layoutComboBox, shown.panel.session.results
    for layout in ("read", "check", "compare"):
        box.setCurrentIndex(box.findData(layout))
        slicer.app.processEvents()
        seen = [name for name in (*CURRENT, *PRIOR) if slicer.app.layoutManager().sliceWidget(name).isVisible()]
        assert seen == {"read": [*CURRENT], "check": [*CURRENT, PRIOR[0]], "compare": [*CURRENT, *PRIOR]}[layout]
        for name in CURRENT:
            assert composite_node(name).GetBackgroundVolumeID() == results.reference.GetID()
            assert composite_node(name).GetLinkedControl()
        for name in PRIOR:
            assert composite_node(name).GetBackgroundVolumeID() == results.template.GetID()
        look_at(NEW_MM)
        assert (painted("Red") == 1).any()


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
    for key, width in ((Qt.Key.Key_2, 400), (Qt.Key.Key_3, 1800), (Qt.Key.Key_1, 1500)):
        user.press(window, key)
        assert shown.panel.session.results.reference.GetDisplayNode().GetWindow() == width


def test_letters_in_a_text_field_are_text_and_3d_views_keep_their_keys(shown) -> None:
    parameters, before = shown.panel.parameters, shown.panel.parameters.threshold
    user.click(shown.ui.nextFindingButton)
    user.type_text(shown.ui.commentLineEdit, "now-x", enter=False)
    assert shown.ui.commentLineEdit.text == "now-x"
    assert parameters.threshold == before
    slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    user.press(slicer.app.mainWindow(), Qt.Key.Key_Minus)
    assert parameters.threshold == before


def test_paths_are_chosen_as_what_they_are_and_remembered(shown, tmp_path, monkeypatch) -> None:
    from ChangeMapJointGui.runs import Runs

    (tmp_path / "options.json").write_text("{}")
    dialogs.answer("openFile", str(tmp_path / "options.json"))
    dialogs.answer("directory", str(tmp_path))
    for field in (shown.ui.configurationPathLineEdit, shown.ui.offlinePathLineEdit):
        field.browse()
    monkeypatch.setattr(Runs, "start", lambda *_a, **_k: True)
    user.click(shown.ui.applyButton)
    close_module("ChangeMapJoint")
    again = open_module("ChangeMapJoint")
    assert again.ui.offlinePathLineEdit.currentPath == str(tmp_path)
    assert again.ui.configurationPathLineEdit.currentPath == ""  # options are never used unseen
    again.ui.configurationPathLineEdit.retrieveHistory()
    assert again.ui.configurationPathLineEdit.currentPath == str(tmp_path / "options.json")


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
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "0 of 2 findings accepted, 1 rejected, 1 not judged." in page
    assert "=1+1" in page
    assert dialogs.texts("url")
    assert str(tmp_path / "page.html") in shown.ui.exportLabel.text


def test_export_of_the_scene(shown, tmp_path) -> None:
    dialogs.answer("saveFile", str(tmp_path / "größe.mrb"))
    user.click(shown.ui.sceneButton)
    assert "größe.mrb" in shown.ui.exportLabel.text
    slicer.util.loadScene(str(tmp_path / "größe.mrb"))
    slicer.app.processEvents()
    assert len(shown.panel.findings.rows) == 2


def test_an_export_that_is_called_off_or_fails_says_so(shown, tmp_path) -> None:
    dialogs.answer("saveFile", "", str(tmp_path / "missing" / "list.csv"))
    user.click(shown.ui.csvButton)
    assert shown.ui.exportLabel.text == ""
    user.click(shown.ui.csvButton)
    assert "missing" in dialogs.texts("error")[-1]
    assert shown.ui.exportLabel.text == ""
