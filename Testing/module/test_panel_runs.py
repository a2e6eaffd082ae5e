"""Apply, Cancel and what follows: real workers, started and ended by clicks."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import panel_samples
import pytest
import slicer
from panel_samples import children
from panel_views import look_at, on_screen, only_the_overlay, painted, rows
from slicerhost import boot, dialogs, errors, leave_module, user

sys.path.append(str(Path(__file__).resolve().parents[1] / "library"))

from job_samples import QUICK
from phantoms import Sphere, chest_phantom
from rigid_samples import mirrored, scan
from warm_python import warm_python

from ChangeMapJointLib.scene.nodes import CURRENT
from ChangeMapJointLib.scene.volumes import grid_of, node_of

DEADLINE_S = 300.0


def choose(widget, reference, template) -> None:
    user.choose(widget.ui.referenceSelector, reference)
    user.choose(widget.ui.templateSelector, template)


def wait_for_end(widget) -> None:
    user.wait_until(lambda: not widget.logic.runs.running, DEADLINE_S)
    slicer.app.processEvents()


def in_scene(volume, name):
    return node_of(volume.array, volume.grid, name, kind="scan")


def closed_form_pair():
    """Scans that take a few seconds to compare, with a new and a resolved nodule."""
    now = chest_phantom(edge_mm=5.0, lesions=[Sphere((60.0, 0.0, 20.0), 12.0)])
    moved = lambda points: points + np.array((4.0, 0.0, 4.0))  # noqa: E731
    before = chest_phantom(edge_mm=5.0, lesions=[Sphere((-65.0, 0.0, -10.0), 12.0)], moved=moved)
    return in_scene(now, "Now"), in_scene(before, "Before")


def quickly(widget, folder: Path) -> None:
    """Few and coarse steps."""
    (folder / "options.json").write_text(json.dumps(QUICK))
    widget.ui.configurationPathLineEdit.currentPath = str(folder / "options.json")


@pytest.fixture
def warm(monkeypatch) -> None:
    """Workers start in milliseconds."""
    monkeypatch.setattr("ChangeMapJointGui.process.pythonOfSlicer", warm_python)


def test_apply_paints_exactly_what_the_map_says(widget, tmp_path) -> None:
    quickly(widget, tmp_path)
    choose(widget, *closed_form_pair())
    user.click(widget.ui.applyButton)
    assert widget.ui.applyButton.text == "Cancel"
    assert widget.ui.progressBar.visible
    user.wait_until(lambda: widget.ui.progressBar.value > 0, DEADLINE_S)
    (worker,) = children()
    assert "ChangeMapJointLib.background.worker" in worker.cmdline()
    assert " s" in widget.ui.statusLabel.text
    wait_for_end(widget)
    assert widget.ui.statusLabel.text.startswith("Done in ")
    assert widget.ui.applyButton.text == "Apply"
    assert children() == []
    results = widget.panel.session.results
    assert f"Registration: {results.verdict}" in widget.ui.verdictLabel.text
    assert {"new", "resolved"} <= {row[0] for row in rows(widget)}  # and what so coarse a registration leaves

    only_the_overlay(widget)
    change = slicer.util.arrayFromVolume(results.change_map)
    signed, grid = slicer.util.arrayFromVolume(results.signed), grid_of(results.change_map)
    strong = [finding for finding in results.rows if finding["peak"] >= 0.68]  # others have no color
    for finding in sorted(strong, key=lambda finding: -finding["volume_ml"])[:2]:
        look_at(finding["centre_mm"])
        for name in CURRENT:
            wanted, clear = on_screen(name, change, signed, grid, 0.68)
            assert (painted(name) == wanted)[clear].all()
            assert np.any(wanted)


def test_cancel_leaves_nothing_and_the_panel_is_ready_again(widget) -> None:
    choose(widget, *panel_samples.nodes())
    before = slicer.mrmlScene.GetNumberOfNodes()
    user.click(widget.ui.applyButton)
    user.wait_until(children, DEADLINE_S)
    user.wait_until(lambda: widget.ui.applyButton.enabled, DEADLINE_S)
    user.click(widget.ui.applyButton)
    wait_for_end(widget)
    assert widget.ui.statusLabel.text == "Cancelled; nothing was kept."
    assert (widget.ui.applyButton.text, widget.ui.applyButton.enabled) == ("Apply", True)
    assert children() == []
    assert not list(Path(widget.logic.runs.root).iterdir())
    assert slicer.mrmlScene.GetNumberOfNodes() == before


def test_a_pair_that_cannot_be_aligned_is_told_in_words_and_the_log_opens(widget, warm, tmp_path) -> None:
    quickly(widget, tmp_path)
    patient = scan()
    choose(widget, *(in_scene(one[0], name) for one, name in ((patient, "Now"), (mirrored(patient, 2), "Mirrored"))))
    user.click(widget.ui.applyButton)
    wait_for_end(widget)
    assert "do not show the same chest" in widget.ui.statusLabel.text
    assert "Mirrored" in widget.ui.statusLabel.text
    assert widget.ui.logTextEdit.visible
    assert widget.panel.session is None


def test_a_killed_worker_is_told_in_words(widget) -> None:
    choose(widget, *panel_samples.nodes())
    user.click(widget.ui.applyButton)
    user.wait_until(children, DEADLINE_S)
    user.wait_until(lambda: widget.ui.progressBar.value > 0, DEADLINE_S)
    for one in children():
        one.kill()
    wait_for_end(widget)
    assert "killed by the system" in widget.ui.statusLabel.text
    assert widget.logic.runs.lastJob.log_file.exists()


def test_rigid_only_shows_the_prior_and_says_that_there_is_no_map(widget, warm, tmp_path) -> None:
    quickly(widget, tmp_path)
    choose(widget, *closed_form_pair())
    box = widget.ui.methodComboBox
    box.setCurrentIndex(box.findData("rigid"))
    user.click(widget.ui.applyButton)
    wait_for_end(widget)
    assert widget.panel.session is not None
    assert not widget.ui.mapCollapsibleButton.enabled
    assert widget.ui.findingsCountLabel.text == "Rigid only: no change map and no findings."
    assert "Registration: look closely" in widget.ui.verdictLabel.text
    widget.ui.priorComboBox.setCurrentIndex(1)  # follows the rigid motion
    user.click(widget.ui.edgesCheckBox)


def test_a_run_that_ends_while_the_scene_is_closed_can_be_recovered(widget) -> None:
    pair = panel_samples.nodes()
    choose(widget, *pair)
    job = panel_samples.finished_job(widget.logic.runs.root, *pair)
    slicer.mrmlScene.Clear(0)
    slicer.app.processEvents()
    assert not widget.panel.loadJob(job)  # its scans are gone: not shown by itself
    widget.panel.run.refresh()
    user.click(widget.ui.recoverButton)
    assert widget.ui.statusLabel.text == "The last run was loaded."
    assert widget.ui.referenceSelector.currentNode().GetName() == "Current"
    assert len(rows(widget)) == 2
    assert not widget.ui.recoverButton.visible


def test_a_run_whose_scans_are_gone_everywhere_cannot_be_recovered(widget) -> None:
    job = panel_samples.finished_job(widget.logic.runs.root, *panel_samples.nodes())
    slicer.mrmlScene.Clear(0)
    job.input_file("template").unlink()
    widget.panel.run.refresh()
    user.click(widget.ui.recoverButton)
    assert "run the comparison again" in dialogs.texts("error")[-1]
    assert widget.ui.statusLabel.text == ""
    assert widget.panel.session is None
    assert not slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")


def test_process_waits_for_the_result_from_a_script(widget, warm, tmp_path) -> None:
    quickly(widget, tmp_path)
    results = widget.logic.process(
        *closed_form_pair(), method="rigid", configurationFile=str(tmp_path / "options.json")
    )
    assert results.verdict == "look closely"
    assert results.change_map is None
    with pytest.raises(RuntimeError, match="lung"):
        widget.logic.process(*panel_samples_without_lungs())


def test_what_a_script_loads_is_shown_in_the_panel(shown) -> None:
    from ChangeMapJoint import ChangeMapJointLogic

    first = shown.panel.session.results
    pair = panel_samples.nodes()
    logic = ChangeMapJointLogic()
    results = logic.runs.load(panel_samples.finished_job(logic.runs.root, *pair))
    assert first.record.GetScene() is not None  # runs lie side by side
    assert shown.panel.session.results is results
    assert shown.ui.referenceSelector.currentNode() is pair[0]
    shown.cleanup()
    logic.runs.load(panel_samples.finished_job(logic.runs.root, *pair))  # nobody is told any more


def panel_samples_without_lungs():
    hu = np.where(panel_samples.lungs() > 0, 40, panel_samples.chest())
    front = hu[:, : hu.shape[1] // 8]  # air that was measured: padding has no noise
    front[:] = np.random.default_rng(0).normal(-990, 10, front.shape)
    pair = panel_samples.nodes()
    for node in pair:
        slicer.util.updateVolumeFromArray(node, hu.astype(np.int16))
    return pair


def test_one_run_at_a_time(widget, warm) -> None:
    pair = panel_samples.nodes()
    widget.logic.process(*pair, waitForCompletion=False)
    with pytest.raises(RuntimeError, match="already running"):
        widget.logic.runs.start(*pair)
    widget.logic.runs.cancel()
    wait_for_end(widget)


def test_a_declined_package_leaves_a_clear_sentence(widget, monkeypatch) -> None:
    from ChangeMapJointGui import packages

    def declined(folder: str) -> None:
        raise packages.PackagesDeclined("torch is missing; press Apply to be asked again.")

    monkeypatch.setattr(packages, "ensure", declined)
    choose(widget, *panel_samples.nodes())
    user.click(widget.ui.applyButton)
    assert dialogs.texts("warning") == ["torch is missing; press Apply to be asked again."]
    assert widget.ui.statusLabel.text == "Not started."
    assert widget.ui.applyButton.text == "Apply"


def test_an_options_file_that_cannot_be_read_is_told(widget, tmp_path) -> None:
    choose(widget, *panel_samples.nodes())
    (tmp_path / "options.json").write_text("{")
    widget.ui.configurationPathLineEdit.currentPath = str(tmp_path / "options.json")
    user.click(widget.ui.applyButton)
    assert "not JSON" in dialogs.texts("error")[-1]
    assert not widget.logic.runs.running


def test_leaving_closing_and_quitting_end_everything(widget, warm) -> None:
    choose(widget, *panel_samples.nodes())
    user.click(widget.ui.applyButton)
    user.wait_until(children, DEADLINE_S)
    leave_module("ChangeMapJoint")
    assert children()  # another module is used meanwhile
    slicer.app.moduleManager().moduleAboutToBeUnloaded.emit("ChangeMapJoint")
    user.wait_until(lambda: not children(), 5.0)
    assert not str(errors)
    assert boot() is slicer.app
