"""Scenes: saved and loaded again, closed, many runs on one scene, reload of the module."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import panel_samples
import pytest
import slicer
from headless import node_count, observation_count
from panel_samples import NEW_MM, SHIFT_MM
from panel_views import centre_lps, look_at, painted, rows
from slicerhost import dialogs, open_module, user

from ChangeMapJointLib.core.grid import lps_to_ras
from ChangeMapJointLib.scene.nodes import CURRENT, PRIOR, composite_node
from ChangeMapJointLib.scene.transforms import map_point


def show(widget) -> None:
    pair = widget.panel.parameters.reference, widget.panel.parameters.template
    pair = pair if all(pair) else panel_samples.nodes()
    assert widget.panel.loadJob(panel_samples.finished_job(widget.logic.runs.root, *pair))
    slicer.app.processEvents()


def test_a_saved_scene_comes_back_whole(widget, tmp_path) -> None:
    show(widget)
    user.drag(widget.ui.thresholdSlider, 0.45)
    user.click(widget.ui.nextFindingButton)
    first = widget.panel.findings.selected
    user.click(widget.ui.acceptButton)
    widget.ui.commentLineEdit.text = "größer, biopsy?"  # no key of the test's keyboard
    widget.ui.commentLineEdit.editingFinished.emit()
    user.choose(widget.ui.readerVerdictComboBox, "doubtful")
    listed = rows(widget)
    assert slicer.util.saveScene(str(tmp_path / "comparison.mrb"))

    slicer.mrmlScene.Clear(0)
    slicer.app.processEvents()
    assert widget.panel.session is None
    assert widget.ui.findingsTable.topLevelItemCount == 0
    slicer.util.loadScene(str(tmp_path / "comparison.mrb"))
    slicer.app.processEvents()

    parameters, session = widget.panel.parameters, widget.panel.session
    assert parameters.reference.GetName() == "Current"
    assert parameters.template.GetName() == "Prior"
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(parameters.reference), panel_samples.chest(NEW_MM))
    assert parameters.threshold == pytest.approx(0.45)
    assert rows(widget) == listed
    assert session.review(first.key) == {"verdict": "accepted", "comment": "größer, biopsy?"}
    assert widget.ui.readerVerdictComboBox.currentText == "doubtful"
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(session.results.change_map), panel_samples.change()[0])
    ras = lps_to_ras(NEW_MM)
    np.testing.assert_allclose(
        map_point(session.results.deformation, ras), lps_to_ras(np.add(NEW_MM, SHIFT_MM)), atol=1e-3
    )
    look_at(NEW_MM)
    assert (painted("Red") == 1).any()
    assert "Registration: good" in widget.ui.verdictLabel.text


def test_six_runs_that_the_user_removes_leave_no_more_than_two(widget) -> None:
    def use() -> None:
        if widget.panel.session is not None:
            dialogs.answer("confirmYesNo", True)
            user.click(widget.ui.removeComparisonButton)
        show(widget)
        user.click(widget.ui.nextFindingButton)
        widget.ui.priorComboBox.setCurrentIndex(1)
        user.click(widget.ui.edgesCheckBox)
        widget.ui.swipeSlider.value = 50
        widget.ui.swipeSlider.value = 0
        widget.ui.priorComboBox.setCurrentIndex(0)
        user.click(widget.ui.edgesCheckBox)
        slicer.app.processEvents()

    def counts() -> tuple[int, int]:
        gc.collect()  # observations of nodes that only Python still holds
        slicer.app.processEvents()
        return node_count(), observation_count()

    use()
    use()
    before = counts()
    for _ in range(4):
        use()
    assert counts() == before


def test_closing_the_scene_empties_the_panel(widget) -> None:
    show(widget)
    user.click(widget.ui.nextFindingButton)
    slicer.mrmlScene.Clear(0)
    slicer.app.processEvents()
    assert widget.panel.session is None
    assert not widget.ui.applyButton.enabled
    assert widget.ui.findingsCountLabel.text == "No comparison yet."
    show(widget)  # and it can be used again
    assert len(rows(widget)) == 2


def test_removing_the_reference_by_hand_breaks_nothing(widget) -> None:
    show(widget)
    slicer.mrmlScene.RemoveNode(widget.panel.parameters.reference)
    slicer.app.processEvents()
    user.click(widget.ui.nextFindingButton)
    user.drag(widget.ui.thresholdSlider, 0.3)
    assert not widget.ui.applyButton.enabled


@pytest.mark.usefixtures("own_imports")
def test_reload_starts_a_new_panel_on_the_same_scene(widget) -> None:
    show(widget)
    old = widget.panel
    widget.onReload()
    slicer.app.processEvents()
    again = open_module("ChangeMapJoint")
    assert again.panel is not old
    assert len(rows(again)) == 2
    look_at(NEW_MM)
    for name in PRIOR[:1]:
        np.testing.assert_allclose(centre_lps(name), np.add(NEW_MM, SHIFT_MM), atol=1e-3)


def test_a_panel_that_goes_takes_everything_off_the_views(widget) -> None:
    show(widget)
    user.click(widget.ui.edgesCheckBox)
    for overlay in ("none", "trust"):
        if widget.panel.session is None:
            widget.panel.showResultsOfScene()
        widget.panel.parameters.checkOverlay = overlay
        widget.panel.hide()
        for name in CURRENT:
            composite = composite_node(name)
            assert composite.GetNumberOfAdditionalLayers() == 0
            assert composite.GetLabelVolumeID() is None
            assert composite.GetForegroundVolumeID() is None
            assert composite.GetBackgroundVolumeID() == widget.panel.parameters.reference.GetID()


def test_a_result_is_drawn_once(widget, monkeypatch) -> None:
    from ChangeMapJointGui.session import Session

    calls = []
    for name in ("arrange", "showMap", "showCheck"):
        plain = getattr(Session, name)
        monkeypatch.setattr(Session, name, lambda *a, plain=plain, name=name: (calls.append(name), plain(*a))[1])
    widget.panel.parameters.map = "change_combined"  # of a run before, which this one does not have
    widget.panel.parameters.readerVerdict = "wrong"
    show(widget)
    assert calls == ["arrange", "showMap", "showCheck"]


def test_keys_rest_while_another_module_is_used(widget) -> None:
    show(widget)
    widget.exit()
    assert widget.panel.shortcuts._shortcuts == []
    widget.enter()
    assert widget.panel.shortcuts._shortcuts


def test_sample_data_is_loaded_without_a_download(widget, monkeypatch) -> None:
    (source,) = slicer.modules.sampleDataSources["Change Map Joint"]
    paths = [Path(str(uri).removeprefix("file://")) for uri in source.uris]
    assert [path.is_file() for path in paths] == [True, True]
    monkeypatch.setattr("socket.socket.connect", None)  # no network
    import SampleData

    pair = SampleData.SampleDataLogic().downloadSamples(source.sampleName)
    user.choose(widget.ui.referenceSelector, pair[0])
    user.choose(widget.ui.templateSelector, pair[1])
    assert widget.ui.applyButton.enabled
