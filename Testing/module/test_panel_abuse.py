"""What users do to a running comparison and to its scans: nothing may break, and every end is told in words."""

from __future__ import annotations

import gc
import re
import shutil
import sys

import numpy as np
import panel_samples
import pytest
import slicer
from panel_samples import GRID, NEW_MM, children
from panel_views import look_at, painted, rows
from slicerhost import dialogs, errors, leave_module, load_module, open_module, user

from ChangeMapJointLib.comparison.outcome import End
from ChangeMapJointLib.scene.volumes import node_of

DEADLINE_S = 120.0


def finish(widget, job) -> None:
    """As when the worker of that job has just ended well."""
    widget.logic.runs.lastJob = job
    widget.panel.run.onEnd(End("finished", "Finished.", 0, job.result))
    slicer.app.processEvents()


def choose(widget, reference, template) -> None:
    user.choose(widget.ui.referenceSelector, reference)
    user.choose(widget.ui.templateSelector, template)


def shift(node, *, linear: bool = True) -> object:
    """Put a volume under a transform."""
    name = "vtkMRMLLinearTransformNode" if linear else "vtkMRMLGridTransformNode"
    transform = slicer.mrmlScene.AddNewNodeByClass(name)
    if linear:
        matrix = np.eye(4)
        matrix[0, 3] = 40.0
        transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    node.SetAndObserveTransformNodeID(transform.GetID())
    return transform


# -- inputs ----------------------------------------------------------------------------
def color_volume():
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "Color")
    slicer.util.updateVolumeFromArray(node, np.zeros((20, 20, 20, 3), np.uint8))
    return node


def with_nan():
    hu = panel_samples.chest().astype(np.float32)
    hu[2:-2, 10, 10] = np.nan  # inside: at the outside it would be padding
    return slicer.util.addVolumeFromArray(hu, name="Has NaN")


def one_slice():
    return slicer.util.addVolumeFromArray(panel_samples.chest()[:1].copy(), name="One slice")


def under_a_warp():
    node = node_of(panel_samples.chest(), GRID, "Warped by hand", kind="scan")
    from ChangeMapJointLib.core.displacement import DisplacementField
    from ChangeMapJointLib.scene.transforms import grid_transform

    warp = grid_transform(DisplacementField.from_affine(np.eye(4), GRID), "By hand")
    node.SetAndObserveTransformNodeID(warp.GetID())
    return node


@pytest.mark.parametrize(
    ("make", "words"),
    [(with_nan, "Has NaN"), (one_slice, "One slice"), (under_a_warp, "not linear")],
)
def test_what_cannot_be_compared_is_refused_before_apply(widget, make, words) -> None:
    current, _ = panel_samples.nodes()
    choose(widget, current, make())
    assert words in widget.ui.inputCheckLabel.text
    assert not widget.ui.applyButton.enabled


def test_color_images_are_refused_from_a_script(widget) -> None:
    current, _ = panel_samples.nodes()
    for other in (color_volume(), None):
        with pytest.raises(ValueError, match=r"expected a CT|two CT volumes"):
            widget.logic.process(current, other)
    assert not widget.logic.runs.running


def test_names_in_any_alphabet(widget) -> None:
    current, prior = panel_samples.nodes()
    current.SetName("Müller <b>&</b> 王/氏")
    prior.SetName("")
    choose(widget, current, prior)
    assert widget.ui.applyButton.enabled
    finish(widget, panel_samples.finished_job(widget.logic.runs.root, current, prior))
    assert len(rows(widget)) == 2


def test_a_folder_for_jobs_that_cannot_be_made(widget, monkeypatch, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(type(widget.logic.runs), "root", tmp_path / "file" / "jobs")
    choose(widget, *panel_samples.nodes())
    user.click(widget.ui.applyButton)
    assert "give another folder" in dialogs.texts("error")[-1]
    assert widget.ui.statusLabel.text == "Not started."
    assert widget.ui.applyButton.enabled


# -- while it runs ---------------------------------------------------------------------
def test_a_double_click_on_apply_does_not_cancel(widget) -> None:
    choose(widget, *panel_samples.nodes())
    user.click(widget.ui.applyButton)
    with pytest.raises(RuntimeError, match="cannot be clicked"):
        user.click(widget.ui.applyButton)
    assert widget.logic.runs.running
    user.wait_until(lambda: widget.ui.applyButton.enabled, DEADLINE_S)
    user.click(widget.ui.applyButton)
    assert not widget.ui.applyButton.enabled  # cancelled once
    widget.panel.parameters.threshold = 0.5
    assert not widget.ui.applyButton.enabled
    user.wait_until(lambda: not widget.logic.runs.running, DEADLINE_S)


def test_stage_time_and_what_is_left_are_told(widget) -> None:
    choose(widget, *panel_samples.nodes())
    user.click(widget.ui.applyButton)
    event = {"event": "progress", "stage": "register", "fraction": 0.25, "elapsed_s": 10.0, "remaining_s": 30.0}
    widget.panel.run.onEvent(event)
    assert re.fullmatch(r"Registration: \d+ s, about 30 s left", widget.ui.statusLabel.text)  # by the panel's own clock
    assert widget.ui.progressBar.value == 250
    assert "25%" in widget.ui.logTextEdit.toPlainText()
    assert not widget.ui.logTextEdit.visible
    user.click(widget.ui.logButton)
    assert widget.ui.logTextEdit.visible
    widget.logic.runs.cancel()
    user.wait_until(lambda: not widget.logic.runs.running, DEADLINE_S)


def test_cancel_in_the_first_instant(widget) -> None:
    choose(widget, *panel_samples.nodes())
    user.click(widget.ui.applyButton)
    widget.logic.runs.cancel()
    user.wait_until(lambda: not widget.logic.runs.running, DEADLINE_S)
    assert widget.ui.statusLabel.text == "Cancelled; nothing was kept."
    assert not list(widget.logic.runs.root.iterdir())
    assert not children()


def test_the_folder_of_a_run_that_is_deleted(widget) -> None:
    choose(widget, *panel_samples.nodes())
    user.click(widget.ui.applyButton)
    user.wait_until(lambda: widget.ui.progressBar.value > 0, DEADLINE_S)
    folder = widget.logic.runs.lastJob.folder
    while folder.exists():  # the worker writes into it at the same time
        shutil.rmtree(folder, ignore_errors=True)
    user.wait_until(lambda: not widget.logic.runs.running, DEADLINE_S)
    assert widget.ui.applyButton.text == "Apply"
    assert widget.ui.statusLabel.text
    assert not children()


@pytest.mark.usefixtures("own_imports")
def test_reload_in_the_middle_of_a_run(widget) -> None:
    choose(widget, *panel_samples.nodes())
    user.click(widget.ui.applyButton)
    user.wait_until(children, DEADLINE_S)
    widget.onReload()
    again = open_module("ChangeMapJoint")
    user.wait_until(lambda: not children(), DEADLINE_S)
    assert again.ui.applyButton.text == "Apply"
    assert again.ui.applyButton.enabled


def test_quitting_in_the_middle_of_a_run(widget) -> None:
    choose(widget, *panel_samples.nodes())
    user.click(widget.ui.applyButton)
    user.wait_until(children, DEADLINE_S)
    job = widget.logic.runs.lastJob
    slicer.app.quit_for_test()
    user.wait_until(lambda: not children(), 5.0)
    assert "3D Slicer was closed" in job.state().message
    assert not job.input_file("reference").exists()


# -- its scans, when it ends -----------------------------------------------------------
def test_a_renamed_scan_is_still_the_same(widget) -> None:
    current, prior = panel_samples.nodes()
    choose(widget, current, prior)
    job = panel_samples.finished_job(widget.logic.runs.root, current, prior)
    current.SetName("Renamed")
    finish(widget, job)
    assert len(rows(widget)) == 2
    assert not job.input_file("reference").exists()  # the scans have done their service


def test_a_hardened_transform_changes_nothing(widget) -> None:
    current, prior = panel_samples.nodes()
    matrix = np.eye(4)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    current.SetAndObserveTransformNodeID(transform.GetID())
    choose(widget, current, prior)
    job = panel_samples.finished_job(widget.logic.runs.root, current, prior)
    current.HardenTransform()
    finish(widget, job)
    assert len(rows(widget)) == 2


@pytest.mark.parametrize("change", ["moved", "edited", "removed", "warped"])
def test_a_map_is_never_laid_over_another_scan(widget, change) -> None:
    current, prior = panel_samples.nodes()
    choose(widget, current, prior)
    job = panel_samples.finished_job(widget.logic.runs.root, current, prior)
    if change == "moved":
        shift(current)
    elif change == "edited":
        slicer.util.arrayFromVolume(current)[:] = -1000
        slicer.util.arrayFromVolumeModified(current)
    elif change == "warped":
        shift(current, linear=False)
    else:
        slicer.mrmlScene.RemoveNode(current)
    finish(widget, job)
    assert widget.panel.session is None
    assert "use Recover last run" in widget.ui.statusLabel.text
    user.click(widget.ui.recoverButton)
    results = widget.panel.session.results
    assert results.reference is not current
    assert results.template is prior
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(results.reference), panel_samples.chest(NEW_MM))
    assert results.reference.GetStorageNode() is None  # a saved scene would point to the job's folder
    look_at(NEW_MM)
    assert (painted("Red") == 1).any()


def test_a_damaged_result_is_told_and_leaves_the_scene_alone(widget) -> None:
    pair = panel_samples.nodes()
    choose(widget, *pair)
    job = panel_samples.finished_job(widget.logic.runs.root, *pair)
    (job.folder / "result" / "change_map.nrrd").write_bytes(b"NRRD0005\n")
    before = slicer.mrmlScene.GetNumberOfNodes()
    finish(widget, job)
    assert "could not be loaded" in dialogs.texts("error")[-1]
    assert "could not be loaded" in widget.ui.statusLabel.text
    assert slicer.mrmlScene.GetNumberOfNodes() == before
    assert widget.ui.applyButton.enabled


def test_a_run_that_ends_while_another_module_is_used_and_the_scene_was_closed(widget) -> None:
    choose(widget, *panel_samples.nodes())
    leave_module("ChangeMapJoint")
    slicer.mrmlScene.Clear(0)
    assert widget.panel.parameters is None
    finish(widget, panel_samples.finished_job(widget.logic.runs.root, *panel_samples.nodes()))
    assert rows(widget) == []  # it waits: the views are another module's
    open_module("ChangeMapJoint")
    assert len(rows(widget)) == 2
    assert widget.ui.referenceSelector.currentNode().GetName() == "Current"


def test_the_scene_is_closed_while_the_result_is_shown(widget, monkeypatch) -> None:
    from ChangeMapJointGui.session import Session

    arrange = Session.arrange

    def closing(self, layout: str) -> None:
        arrange(self, layout)
        slicer.mrmlScene.Clear(0)

    monkeypatch.setattr(Session, "arrange", closing)
    pair = panel_samples.nodes()
    choose(widget, *pair)
    finish(widget, panel_samples.finished_job(widget.logic.runs.root, *pair))
    assert widget.panel.session is None
    assert widget.ui.findingsTable.topLevelItemCount == 0


# -- many, none, and the ends ----------------------------------------------------------
def test_the_threshold_at_its_ends(shown) -> None:
    for value in (0.05, 1.0):
        user.drag(shown.ui.thresholdSlider, 0.5, value)
        assert shown.panel.parameters.threshold == pytest.approx(value)
        shown.panel.map.step(1 if value == 1.0 else -1)
        assert shown.panel.parameters.threshold == pytest.approx(value)
    assert rows(shown) == []


def test_two_hundred_findings_and_none(widget) -> None:
    pair = panel_samples.nodes()
    job = panel_samples.finished_job(widget.logic.runs.root, *pair)
    change, signed = (np.zeros(GRID.shape, kind) for kind in (np.float32, np.int16))
    places = np.argwhere(np.ones(tuple(n // 5 for n in GRID.shape)))[:300] * 5
    for z, y, x in places:
        change[z : z + 2, y : y + 2, x : x + 2], signed[z : z + 2, y : y + 2, x : x + 2] = 0.9, 945
    from ChangeMapJointLib.io.write import write_nrrd

    write_nrrd(job.folder / "result" / "change_map.nrrd", change, GRID, compress=False)
    write_nrrd(job.folder / "result" / "signed_change.nrrd", signed, GRID, compress=False)
    finish(widget, job)
    assert len(rows(widget)) == 200
    user.click(widget.ui.previousFindingButton)  # the last one
    assert widget.panel.findings.selected is widget.panel.findings.rows[-1]
    user.drag(widget.ui.thresholdSlider, 0.95)
    assert rows(widget) == []
    assert not widget.ui.nextFindingButton.enabled
    user.press(slicer.app.mainWindow(), 0x4E)  # N


def test_a_rigid_run_after_a_sequential_one_and_back(widget) -> None:
    pair = panel_samples.nodes()
    for method in ("sequential", "rigid", "sequential"):
        job = panel_samples.finished_job(widget.logic.runs.root, *pair)
        if method == "rigid":
            for name in ("change_map", "signed_change", "jacobian", "trust", "deformation"):
                (job.folder / "result" / f"{name}.nrrd").unlink()
            for name in ("findings", "candidates"):
                (job.folder / "result" / f"{name}.json").unlink()
        finish(widget, job)
        assert widget.ui.mapCollapsibleButton.enabled == (method == "sequential")
        assert len(rows(widget)) == (2 if method == "sequential" else 0)
        look_at(NEW_MM)
        assert (painted("Red") == 1).any() == (method == "sequential")


@pytest.mark.usefixtures("no_weights")
def test_the_joint_method_chosen_by_a_script(widget) -> None:
    choose(widget, *panel_samples.nodes())
    widget.panel.parameters.method = "joint"
    assert "weights" in widget.ui.methodNoteLabel.text
    with pytest.raises(ValueError, match="weights"):
        widget.logic.process(*panel_samples.nodes(), method="joint")
    user.click(widget.ui.applyButton)
    assert "weights" in dialogs.texts("error")[-1]
    assert not widget.logic.runs.running
    with pytest.raises(ValueError, match="'rigid', 'sequential'"):
        widget.logic.process(*panel_samples.nodes(), method="nonsense")


# -- scenes and language ---------------------------------------------------------------
def test_a_scene_loaded_into_this_one_brings_its_run(widget, tmp_path) -> None:
    pair = panel_samples.nodes()
    finish(widget, panel_samples.finished_job(widget.logic.runs.root, *pair))
    widget.panel.parameters.threshold = 0.45
    assert slicer.util.saveScene(str(tmp_path / "one.mrb"))
    slicer.util.loadScene(str(tmp_path / "one.mrb"), {"clear": False})
    slicer.app.processEvents()
    session, parameters = widget.panel.session, widget.panel.parameters
    assert session is not None
    assert parameters.reference is session.results.reference
    assert parameters.template is session.results.template
    assert len(rows(widget)) == 3
    assert len(widget.logic.getAllParameterNodes()) == 1


def test_entering_again_and_again_leaves_no_observers(widget) -> None:
    from headless import observation_count

    def turn() -> int:
        leave_module("ChangeMapJoint")
        open_module("ChangeMapJoint")
        return observation_count()

    panel_samples.nodes()
    first = turn()
    gc.collect()  # what earlier tests left would go at any later moment
    first = turn()
    assert [turn() for _ in range(5)] == 5 * [first]


@pytest.mark.usefixtures("own_imports")
def test_another_language(widget, monkeypatch, tmp_path) -> None:
    for name in [name for name in sys.modules if name.startswith("ChangeMapJointGui")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("slicer.i18n.tr", lambda text: f"«{text}»")
    module = load_module(widget.resourcePath("../ChangeMapJoint.py"))
    from ChangeMapJointGui.runs import Runs

    monkeypatch.setattr(Runs, "root", tmp_path / "jobs")
    again = open_module(module)
    pair = panel_samples.nodes()
    choose(again, *pair)
    assert again.ui.applyButton.text == "«Apply»"
    finish(again, panel_samples.finished_job(again.logic.runs.root, *pair))
    assert sorted(row[0] for row in rows(again)) == ["«new»", "«resolved»"]
    user.click(again.ui.nextFindingButton)
    user.click(again.ui.acceptButton)
    assert again.panel.session.review(again.panel.findings.selected.key)["verdict"] == "accepted"
    assert not str(errors)
