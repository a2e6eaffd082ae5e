"""The panel among everything else that happens in the application: other modules, other patients, other scenes."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import panel_samples
import pytest
import slicer
import vtk
from panel_samples import NEW_MM, chest, finished_job, nodes
from panel_views import centre_lps, look_at, only_the_overlay, painted, picture
from PySide6.QtCore import Qt
from slicerhost import dialogs, hierarchy, leave_module, open_module, user

from ChangeMapJointLib.change.method_table import METHODS
from ChangeMapJointLib.io.write import write_nrrd
from ChangeMapJointLib.scene import layouts
from ChangeMapJointLib.scene.nodes import CURRENT, PRIOR, composite_node, slice_node
from ChangeMapJointLib.scene.volumes import node_of


def layers(view: str) -> tuple[str | None, str | None, str | None, int]:
    """Background, foreground and label of a view, and how many layers are above these."""
    one = composite_node(view)
    shown = one.GetBackgroundVolumeID(), one.GetForegroundVolumeID(), one.GetLabelVolumeID()
    return (*shown, one.GetNumberOfAdditionalLayers())


def of_another_patient(folder: Path):
    """Load a scan as from the menu: Slicer shows it in every view."""
    write_nrrd(folder / "other.nrrd", chest(), panel_samples.GRID)
    return slicer.util.loadVolume(str(folder / "other.nrrd"), {"name": "Other patient"})


# -- one patient's map over another's scan ---------------------------------------------------
def test_a_scan_that_is_loaded_takes_the_map_off(shown, tmp_path) -> None:
    user.click(shown.ui.edgesCheckBox)
    points = shown.panel.session.results.findings.GetDisplayNode()
    for overlay in ("none", "trust"):
        shown.panel.parameters.checkOverlay = overlay
        other = of_another_patient(tmp_path)
        slicer.app.processEvents()
        look_at(NEW_MM)
        for view in CURRENT:
            assert layers(view) == (other.GetID(), None, None, 0)
        assert not points.GetVisibility()
        gray = picture("Red")
        assert (gray[..., 0] == gray[..., 2]).mean() > 0.99  # the corners' letters are not
        assert composite_node(PRIOR[0]).GetBackgroundVolumeID() != other.GetID()
        shown.panel.parameters.opacity = 0.5  # draws again
        shown.panel.parameters.threshold = 0.6
        for _ in range(2):
            user.click(shown.ui.edgesCheckBox)
        assert [layers(view)[1:] for view in CURRENT] == [(None, None, 0)] * 3
        user.click(shown.ui.flickerButton)
        assert layers("Red")[0] == other.GetID()
        layouts.set_layers(CURRENT, background=shown.panel.session.results.reference)
        assert layers("Red")[3] == (2 if overlay == "none" else 1)
        assert points.GetVisibility()


def test_only_the_view_that_shows_another_scan_loses_the_map(shown) -> None:
    only_the_overlay(shown)
    other = node_of(chest(), panel_samples.GRID, "Other", kind="scan")
    layouts.set_layers(["Green"], background=other)
    assert [layers(view)[3] for view in CURRENT] == [1, 0, 1]
    assert [shown.panel.session._panes.title(view) for view in CURRENT] == ["CURRENT", "", "CURRENT"]
    look_at(NEW_MM)
    assert (painted("Red") == 1).any()


# -- other modules ---------------------------------------------------------------------------
def test_leaving_gives_everything_back_and_entering_goes_on(widget) -> None:
    pair = nodes()
    mine = node_of(chest(), panel_samples.GRID, "PET", kind="map")
    drawn = node_of(panel_samples.lungs(), panel_samples.GRID, "Segments", kind="label")
    manager, own = slicer.app.layoutManager(), slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView
    manager.setLayout(own)
    layouts.set_layers(CURRENT, background=pair[1], foreground=mine, label=drawn, opacity=0.3)
    pair[0].GetDisplayNode().SetAutoWindowLevel(0)
    pair[0].GetDisplayNode().SetWindowLevel(123.0, 45.0)
    composite_node("Red").SetHotLinkedControl(False)
    slice_node("Red").JumpSliceByCentering(1.0, 2.0, -150.0)
    before = [layers(view) for view in CURRENT], centre_lps("Red").tolist()
    assert widget.panel.loadJob(finished_job(widget.logic.runs.root, *pair))
    slicer.app.processEvents()
    widget.panel.parameters.prior = "warped"
    user.click(widget.ui.nextFindingButton)
    widget.panel.views.setWindow("bone")
    at = centre_lps("Red").tolist()

    for _ in range(2):
        leave_module("ChangeMapJoint")
        slicer.app.processEvents()
        assert manager.layout == own
        assert ([layers(view) for view in CURRENT], centre_lps("Red").tolist()) == before
        assert composite_node("Red").GetForegroundOpacity() == pytest.approx(0.3)
        assert not composite_node("Red").GetHotLinkedControl()
        assert pair[0].GetDisplayNode().GetWindow() == 123.0
        assert not widget.panel.session.results.findings.GetDisplayNode().GetVisibility()
        widget.panel.parameters.threshold = 0.6  # by a script: the views stay as they are
        assert [layers(view) for view in CURRENT] == before[0]

        open_module("ChangeMapJoint")
        slicer.app.processEvents()
        assert manager.layout == layouts.COMPARE
        assert layers("Red")[0] == pair[0].GetID()
        assert layers("Red")[3] == 1
        assert pair[0].GetDisplayNode().GetWindow() == 1800
        for view in ("Red", PRIOR[0]):
            np.testing.assert_allclose(centre_lps(view), at, atol=1e-3)
        assert widget.panel.findings.selected is not None


def test_a_run_that_ends_meanwhile_waits_for_the_user(widget) -> None:
    pair = nodes()
    job = finished_job(widget.logic.runs.root, *pair)
    leave_module("ChangeMapJoint")
    layout = slicer.app.layoutManager().layout
    before = [layers(view) for view in CURRENT]
    assert widget.panel.loadJob(job)
    slicer.app.processEvents()
    assert "is done" in slicer.app.mainWindow().statusBar().currentMessage()
    assert slicer.app.layoutManager().layout == layout
    assert [layers(view) for view in CURRENT] == before
    open_module("ChangeMapJoint")
    assert widget.panel.session.results.reference is pair[0]
    assert slicer.app.layoutManager().layout == layouts.COMPARE


@pytest.mark.usefixtures("own_imports")
def test_keys_work_after_a_reload(shown) -> None:
    shown.onReload()
    slicer.app.processEvents()
    again = slicer.modules.ChangeMapJointWidget
    slicer.app.mainWindow().activateWindow()
    slicer.app.processEvents()
    assert again.panel.session is not None
    before = again.panel.parameters.threshold
    user.press(slicer.app.mainWindow(), Qt.Key.Key_Minus)
    assert again.panel.parameters.threshold < before


# -- comparisons side by side ----------------------------------------------------------------
def test_a_second_run_keeps_the_first_with_its_verdicts(shown) -> None:
    first = shown.panel.session.results
    user.click(shown.ui.nextFindingButton)
    user.click(shown.ui.acceptButton)
    key, at = shown.panel.findings.selected.key, centre_lps("Red").tolist()
    user.drag(shown.ui.thresholdSlider, 0.55)
    job = finished_job(shown.logic.runs.root, first.reference, first.template)
    record = job.folder / "result" / "run.json"
    record.write_text(record.read_text("utf-8").replace("sequential", "joint"))
    assert shown.panel.loadJob(job)
    second = shown.panel.session.results
    assert first.record.GetScene() is not None
    assert shown.ui.comparisonComboBox.count == 2
    assert shown.panel.parameters.threshold == pytest.approx(0.68)  # the run's own
    assert shown.panel.parameters.method == "joint"
    assert shown.panel.session.review(key)["verdict"] == ""
    np.testing.assert_allclose(centre_lps("Red"), at, atol=1e-3)  # the same place by the other method
    user.press(slicer.app.mainWindow(), Qt.Key.Key_C)
    assert shown.panel.session.results.run == first.run
    assert shown.panel.session.review(key)["verdict"] == "accepted"
    assert shown.panel.parameters.threshold == pytest.approx(0.55)
    assert shown.panel.parameters.method == "sequential"
    assert "Current / Prior, Sequential" in shown.ui.comparisonComboBox.currentText
    np.testing.assert_allclose(centre_lps("Red"), at, atol=1e-3)

    dialogs.answer("confirmYesNo", False, True, True)
    user.click(shown.ui.removeComparisonButton)
    assert first.record.GetScene() is not None
    user.click(shown.ui.removeComparisonButton)
    assert first.record.GetScene() is None
    assert shown.panel.session.results.run == second.run
    user.click(shown.ui.removeComparisonButton)
    assert shown.panel.session is None
    assert not shown.ui.comparisonWidget.visible
    assert slicer.app.layoutManager().layout not in layouts.OURS


def test_the_next_method_changes_nothing_on_screen(shown) -> None:
    before = painted("Red")
    user.choose(shown.ui.methodComboBox, "Joint (network)")
    assert shown.panel.parameters.threshold == pytest.approx(0.68)
    assert (painted("Red") == before).all()
    assert shown.panel.run._threshold() == METHODS["joint"].threshold  # of the run that Apply starts


# -- scenes and sessions ---------------------------------------------------------------------
def test_layouts_are_known_from_the_start(widget) -> None:
    slicer.app.layoutManager().setLayout(layouts.CHECK)  # by a scene of an older version
    assert slicer.app.layoutManager().shown_views == [*CURRENT, PRIOR[0]]


def test_a_saved_scene_brings_no_layout_and_no_layers_along(shown, tmp_path) -> None:
    user.click(shown.ui.edgesCheckBox)
    assert slicer.util.saveScene(str(tmp_path / "one.mrb"))
    with zipfile.ZipFile(tmp_path / "one.mrb") as packed:
        (name,) = (one for one in packed.namelist() if one.endswith(".mrml"))
        text = packed.read(name).decode()
    assert not any(str(layout) in text for layout in layouts.OURS)
    for node in shown.panel.session._overlay.nodes:
        assert node.GetID() + '"' not in text
        assert node.GetID() + ";" not in text
    slicer.mrmlScene.Clear(0)
    assert slicer.app.layoutManager().layout not in layouts.OURS
    leave_module("ChangeMapJoint")
    slicer.app.layoutManager().forget_layouts()  # as without this extension
    slicer.util.loadScene(str(tmp_path / "one.mrb"))
    slicer.app.processEvents()
    assert slicer.app.layoutManager().shown_views == list(CURRENT)


def test_the_module_needs_no_pydicom_and_so_none_of_another_version() -> None:
    """Slicer 5.10 has imported 2.4.4 at its start, which lacks what the reader of DICOM files needs."""
    program = """
import importlib, sys
class Refuses:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "pydicom":
            raise ImportError(name)
sys.meta_path.insert(0, Refuses())
for name in sys.argv[1:]:
    importlib.import_module("ChangeMapJointLib." + name)
"""
    used = ("scene.results", "scene.check", "gate.checks", "io.dicom.values", "background.worker", "comparison.run")
    subprocess.run([sys.executable, "-c", program, *used], check=True, cwd=Path(__file__).parents[2])


def test_the_data_module_shows_scans_and_the_run_alone(shown) -> None:
    """Slicer makes an entry for each node that is not hidden when it is added."""
    parameters = shown.panel.parameters
    parameters.checkOverlay = "displacement"
    parameters.edges = True
    slicer.app.processEvents()
    shown.ui.swipeSlider.value = 40
    slicer.app.processEvents()
    entries = hierarchy.entries(slicer.mrmlScene)
    assert {name for name, above in entries.items() if not above} == {"Current", "Prior", "ChangeMap sequential"}
    assert all(name.startswith(("Current: ", "Prior: ")) for name, above in entries.items() if above)


def test_a_scene_that_closes_leaves_no_entry_of_its_nodes_behind(widget) -> None:
    """A node that comes to lie where one of the old scene lay would be taken for it."""
    job = finished_job(widget.logic.runs.root, *nodes())
    old = vtk.vtkWeakReference()
    old.Set(slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene))
    slicer.mrmlScene.Clear(0)
    slicer.app.processEvents()
    assert old.Get() is None
    assert not hierarchy.entries(slicer.mrmlScene)
    assert widget.panel.loadJob(job, recover=True)  # an error of VTK fails the test
    assert set(hierarchy.entries(slicer.mrmlScene)) >= {"Current", "Prior", "ChangeMap sequential"}


def test_no_path_of_this_computer_is_stored_in_the_scene(shown) -> None:
    assert str(shown.logic.runs.root) not in slicer.util.getNode("Current: run record").GetText()
    collection = slicer.mrmlScene.GetNodes()
    for node in (collection.GetItemAsObject(i) for i in range(collection.GetNumberOfItems())):
        values = [node.GetAttribute(name) or "" for name in node.GetAttributeNames()]
        assert not any(str(shown.logic.runs.root) in value for value in values), node.GetName()


@pytest.mark.parametrize("quits", [False, True])
def test_quitting_asks_about_a_comparison_that_runs(widget, quits) -> None:
    window = slicer.util.mainWindow()
    widget.panel.parameters.reference, widget.panel.parameters.template = nodes()
    widget.logic.runs.start(*nodes(), method="rigid")
    dialogs.answer("confirmYesNo", quits)
    window.close()
    assert window.visible is not quits
    assert "comparison is running" in dialogs.texts("confirmYesNo")[-1]
    widget.logic.runs.close()
    window.show()
    window.close()  # nothing runs: nobody asks
    window.show()


def test_two_cts_of_one_patient_are_chosen_by_their_dates(widget) -> None:
    """Nothing is guessed: both must say that they are CTs of the same patient, of different days."""
    leave_module("ChangeMapJoint")
    older, newer = nodes()
    tags = {"0008,0060": "CT", "0010,0020": "42", "0010,0010": "Roe^Jane"}
    slicer.dicomDatabase.put("1.1", **tags, **{"0008,0022": "20240105"})
    slicer.dicomDatabase.put("1.2", **tags, **{"0008,0022": "20250317"})
    older.SetAttribute("DICOM.instanceUIDs", "1.1")
    open_module("ChangeMapJoint")
    assert widget.panel.parameters.reference is None  # the other one says nothing of itself
    newer.SetAttribute("DICOM.instanceUIDs", "1.2")
    leave_module("ChangeMapJoint")
    open_module("ChangeMapJoint")
    assert (widget.panel.parameters.reference, widget.panel.parameters.template) == (newer, older)
    assert widget.ui.applyButton.enabled
    widget.panel.parameters.reference = widget.panel.parameters.template = None
    slicer.dicomDatabase.put("1.2", **{**tags, "0010,0020": "43"}, **{"0008,0022": "20250317"})
    leave_module("ChangeMapJoint")
    open_module("ChangeMapJoint")
    assert widget.panel.parameters.reference is None


@pytest.mark.parametrize("size", [(1280, 800), (1366, 768)])
def test_the_panel_is_never_cut_off(shown, size) -> None:
    """It scrolls up and down alone: what is wider than its dock cannot be reached."""
    slicer.app.mainWindow().resize(*size)
    shown.panel.parameters.checkOverlay = "jacobian"
    slicer.app.processEvents()
    panel = shown.panel.widget
    viewport = panel.parentWidget()
    while viewport.metaObject().className() != "QScrollArea":
        viewport = viewport.parentWidget()
    assert viewport.widget().width <= viewport.viewport().width
    assert slicer.app.mainWindow().width <= size[0]
