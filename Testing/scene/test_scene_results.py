"""A run as nodes: loaded, replaced, saved and found again."""

from __future__ import annotations

import gc
import weakref
import zipfile
from dataclasses import fields

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from headless import load_scene, observation_count, save_scene
from scene_samples import AFFINE, GRID, TEMPLATE_GRID, findings_document, write_run

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import apply_affine, lps_to_ras
from ChangeMapJointLib.scene import check, layouts
from ChangeMapJointLib.scene.decisions import SceneDecisions
from ChangeMapJointLib.scene.follow import PriorFollower
from ChangeMapJointLib.scene.nodes import CURRENT, PRIOR, composite_node, existing
from ChangeMapJointLib.scene.overlay import Overlay
from ChangeMapJointLib.scene.results import Results, load
from ChangeMapJointLib.scene.transforms import map_point
from ChangeMapJointLib.scene.volumes import grid_of, node_of, volume_of

COMMENT = 'größer & <neu>\n"?"'
JOINT = ("change_learned", "change_difference", "change_combined")


@pytest.fixture
def scans(scene):
    reference = node_of(np.full(GRID.shape, -700, np.int16), GRID, "current", kind="scan")
    template = node_of(np.full(TEMPLATE_GRID.shape, -750, np.int16), TEMPLATE_GRID, "prior", kind="scan")
    return reference, template


def array_of(node):
    return slicer.util.arrayFromVolume(node)


def test_a_run_becomes_nodes(scans, tmp_path):
    results = load(write_run(tmp_path / "run"), *scans)
    made = {one.name for one in fields(Results) if getattr(results, one.name) is not None}
    assert made == {one.name for one in fields(Results)} - set(JOINT)
    assert (results.reference, results.template) == scans
    np.testing.assert_allclose(array_of(results.change_map)[0, 0], np.linspace(0, 1, 16), atol=1e-6)
    assert grid_of(results.change_map).same_as(GRID)
    assert array_of(results.signed).dtype == np.int16
    assert results.lungs.IsA("vtkMRMLLabelMapVolumeNode")
    assert results.findings.GetNumberOfControlPoints() == 2
    assert results.rows == findings_document()["findings"]
    assert results.verdict == "good"
    assert results.jacobian.GetDisplayNode().GetColorNode().GetName() == "ChangeMap Jacobian"
    assert results.warped.GetDisplayNode().GetWindow() == 1500
    expected = lps_to_ras(apply_affine(AFFINE, GRID.centre_mm))
    for node in (results.deformation, results.rigid):
        np.testing.assert_allclose(map_point(node, lps_to_ras(GRID.centre_mm)), expected, atol=1e-3)


def test_a_rigid_run_has_no_map(scans, tmp_path):
    results = load(write_run(tmp_path / "run", method="rigid"), *scans)
    assert results.change_map is results.signed is results.deformation is results.findings is None
    assert results.rows == []
    assert results.warped is not None


def test_maps_of_the_joint_method_are_loaded(scans, tmp_path):
    folder = write_run(tmp_path / "run")
    for name in JOINT:
        (folder / f"{name}.nrrd").write_bytes((folder / "change_map.nrrd").read_bytes())
    results = load(folder, *scans)
    assert all(getattr(results, name).GetName().startswith("current: change map, ") for name in JOINT)


def test_no_results_in_an_empty_scene(scene):
    assert Results.all_of_scene() == []


def test_runs_live_side_by_side_until_one_is_removed(scans, tmp_path, scene):
    before = scene.GetNumberOfNodes()
    first = load(write_run(tmp_path / "first"), *scans)
    alone = scene.GetNumberOfNodes()
    check.edges_of(first.warped)
    check.hatch_of(first.trust, first.lungs)
    check.displacement_of(first.deformation)
    second = load(write_run(tmp_path / "second", peak=0.5), *scans)
    assert [results.run for results in Results.all_of_scene()] == [second.run, first.run]
    assert array_of(first.change_map).max() == pytest.approx(1.0)
    assert array_of(second.change_map).max() == pytest.approx(0.5)
    first.remove()
    assert first.change_map.GetScene() is None
    assert scene.GetNumberOfNodes() == alone
    second.remove()
    assert Results.all_of_scene() == []
    assert all(scan.GetScene() is scene for scan in scans)
    assert scene.GetNumberOfNodes() - before <= 3  # color tables, made once


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "run.json").unlink(), "run.json"),
        (lambda folder: (folder / "quality.json").write_text("{"), "quality.json"),
        (lambda folder: (folder / "trust.nrrd").write_bytes(b"NRRD0005\ncut"), "trust.nrrd"),
        (lambda folder: (folder / "rigid.tfm").write_text("cut"), "rigid.tfm"),
    ],
)
def test_a_damaged_run_leaves_the_scene_as_it_was(scans, tmp_path, scene, damage, message):
    first = load(write_run(tmp_path / "first"), *scans)
    folder = write_run(tmp_path / "second")
    damage(folder)
    count = scene.GetNumberOfNodes()
    with pytest.raises(InputError, match=message):
        load(folder, *scans)
    assert scene.GetNumberOfNodes() == count
    assert [results.run for results in Results.all_of_scene()] == [first.run]


def test_results_are_filed_beside_the_reference(scans, tmp_path, scene):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "patient")
    study = hierarchy.CreateStudyItem(patient, "study")
    hierarchy.CreateItem(study, scans[0])  # the application does this for every node
    folder = write_run(tmp_path / "run")
    for _ in range(3):
        load(folder, *scans).remove()
    results = load(folder, *scans)
    children = vtk.vtkIdList()
    hierarchy.GetItemChildren(study, children)
    names = [hierarchy.GetItemName(children.GetId(i)) for i in range(children.GetNumberOfIds())]
    assert names == ["current", "ChangeMap sequential"]
    for node in (results.change_map, results.deformation, results.findings):
        assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == children.GetId(1)


def test_twenty_runs_do_not_grow(scans, tmp_path, scene, views):
    folder, overlay, counts, dead = write_run(tmp_path / "run"), Overlay(), [], []
    layouts.set_layers(CURRENT, background=scans[0])
    for _ in range(20):
        results = load(folder, *scans)
        overlay.show(results.change_map, results.signed, CURRENT)
        overlay.set_legend(True)
        follower = PriorFollower(results.deformation)
        check.edges_of(results.warped)
        views["Red"].render()
        counts.append((scene.GetNumberOfNodes(), observation_count()))
        follower.remove()
        overlay.remove()
        results.remove()
        dead.append(weakref.ref(follower))
        del follower
    gc.collect()
    assert counts[1] == counts[-1]
    assert not any(one() for one in dead)  # an observer that was left would hold it


def test_all_comes_back_from_a_saved_scene_and_no_folder_of_this_computer(scans, tmp_path, scene, views):
    results = load(write_run(tmp_path / "Poisonfolder" / "run"), *scans)
    overlay = Overlay()
    overlay.show(results.change_map, results.signed, CURRENT)
    check.edges_of(results.warped)
    follower = PriorFollower(results.deformation)
    layouts.set_layers(CURRENT, background=scans[0])
    reading = SceneDecisions(results.reading)
    reading.threshold = 0.42
    reading.findings = results.rows
    reading.decide(2, "rejected", COMMENT)
    reading.registration = "fine"
    point = lps_to_ras(GRID.centre_mm)
    there = map_point(results.deformation, point)
    arrays = {
        role: array_of(getattr(results, role)).copy() for role in ("change_map", "signed", "warped", "trust", "lungs")
    }
    follower.remove()
    assert save_scene(tmp_path / "scene.mrb")
    with zipfile.ZipFile(tmp_path / "scene.mrb") as saved:
        assert not [name for name in saved.namelist() if b"Poisonfolder" in name.encode() + saved.read(name)]
    assert load_scene(tmp_path / "scene.mrb")

    (back,) = Results.all_of_scene()
    for role, array in arrays.items():
        np.testing.assert_array_equal(array_of(getattr(back, role)), array)
        assert grid_of(getattr(back, role)).same_as(GRID)
    assert volume_of(back.reference).grid.same_as(GRID)
    assert (back.reference.GetName(), back.template.GetName()) == ("current", "prior")
    assert volume_of(back.template).array.max() == -750
    for node in (back.deformation, back.rigid):
        np.testing.assert_allclose(map_point(node, point), there, atol=1e-3)
    assert back.findings.GetNumberOfControlPoints() == 2
    assert back.findings.GetLocked()
    assert back.rows == findings_document()["findings"]
    again = SceneDecisions(back.reading)
    assert (again.threshold, again.registration) == (0.42, "fine")
    assert (again.decision(2), again.comment(2)) == ("rejected", COMMENT)
    assert again.findings == back.rows
    assert back.jacobian.GetDisplayNode().GetColorNode().GetNumberOfColors() == 256
    assert not slicer.util.getNodes("ChangeMap overlay*")  # neither overlay nor derived nodes were saved
    assert not slicer.util.getNodes("Prior, edges")
    for view in existing((*CURRENT, *PRIOR)):
        assert composite_node(view).GetNumberOfAdditionalLayers() == 0
    overlay = Overlay()
    overlay.set_threshold(again.threshold)
    overlay.show(back.change_map, back.signed, CURRENT)
    assert composite_node("Red").GetBackgroundVolumeID() == back.reference.GetID()
    assert composite_node("Red").GetNumberOfAdditionalLayers() == 1
