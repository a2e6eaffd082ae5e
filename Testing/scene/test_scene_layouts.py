"""Layouts, layers, windows and where views look."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest
import slicer
import slicer.util
from scene_samples import GRID, grid_with, rotation

from ChangeMapJointLib.scene import layouts
from ChangeMapJointLib.scene.nodes import CURRENT, PRIOR, composite_node, hide_extra, show_extra, slice_node
from ChangeMapJointLib.scene.volumes import node_of


@pytest.fixture
def ct(scene):
    return node_of(np.zeros(GRID.shape, np.int16), GRID, "ct", kind="scan")


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        (layouts.COMPARE, [*CURRENT, *PRIOR]),
        (layouts.READ, [*CURRENT]),
        (layouts.CHECK, ["Red", "ChangeMapPriorRed", "Green", "Yellow"]),
    ],
)
def test_descriptions_name_each_view_once(layout, expected):
    found = list(ElementTree.fromstring(layouts.description(layout)).iter("view"))
    assert [view.get("singletontag") for view in found] == expected
    for view in found:
        properties = {one.get("name"): one.text for one in view}
        assert properties["orientation"] == {"R": "Axial", "G": "Coronal", "Y": "Sagittal"}[properties["viewlabel"][-1]]
        assert properties["viewgroup"] == ("1" if view.get("singletontag") in PRIOR else "0")


def test_apply_registers_and_chooses_the_layout(scene):
    assert not layouts.apply(layouts.COMPARE)  # nothing to arrange here
    node = scene.AddNewNodeByClass("vtkMRMLLayoutNode")
    for layout in (layouts.COMPARE, layouts.READ, layouts.CHECK, layouts.COMPARE):
        assert layouts.apply(layout)
        assert node.GetViewArrangement() == layout
        assert node.GetLayoutDescription(layout) == layouts.description(layout)
    scene.RemoveNode(node)


def test_slicers_layout_logic_makes_the_views(scene):
    logic = slicer.vtkMRMLLayoutLogic()
    logic.SetMRMLScene(scene)
    layouts.apply(layouts.COMPARE)
    assert logic.GetLayoutNode().GetViewArrangement() == layouts.COMPARE
    nodes = logic.GetViewNodes()
    shown = [nodes.GetItemAsObject(i).GetLayoutName() for i in range(nodes.GetNumberOfItems())]
    assert set(shown) == {*CURRENT, *PRIOR}
    assert slice_node("ChangeMapPriorYellow").GetOrientation() == "Sagittal"
    assert slice_node("ChangeMapPriorYellow").GetViewGroup() == layouts.PRIOR_GROUP
    scene.RemoveNode(logic.GetLayoutNode())
    logic.SetMRMLScene(None)


def test_layers_of_the_named_views_only(ct, scene):
    label = node_of(np.zeros(GRID.shape, bool), GRID, "label", kind="label")
    layouts.set_layers(PRIOR[:1], background=ct, foreground=ct, label=label, opacity=0.25)
    composite = composite_node(PRIOR[0])
    assert composite.GetBackgroundVolumeID() == composite.GetForegroundVolumeID() == ct.GetID()
    assert composite.GetLabelVolumeID() == label.GetID()
    assert composite.GetForegroundOpacity() == 0.25
    for view in (*CURRENT, *PRIOR[1:]):
        assert composite_node(view).GetBackgroundVolumeID() is None
        assert composite_node(view).GetForegroundOpacity() != 0.25
    layouts.set_layers(PRIOR[:1], foreground=None)
    assert composite.GetForegroundVolumeID() is None
    assert composite.GetBackgroundVolumeID() == ct.GetID()


def test_further_layers_keep_their_opacity_when_one_goes(scene):
    nodes = [node_of(np.zeros(GRID.shape), GRID, str(i)) for i in range(3)]
    for node, opacity in zip(nodes, (0.2, 0.4, 0.6), strict=True):
        show_extra("Red", node, opacity)
    hide_extra("Red", nodes[0])
    hide_extra("Red", nodes[0])
    composite = composite_node("Red")
    found = [(composite.GetNthLayerVolumeID(i), composite.GetNthLayerOpacity(i)) for i in (3, 4)]
    assert composite.GetNumberOfAdditionalLayers() == 2
    assert found == [(nodes[1].GetID(), 0.4), (nodes[2].GetID(), 0.6)]


def test_linked_views_share_a_group(scene):
    layouts.link(PRIOR, layouts.PRIOR_GROUP)
    for view in PRIOR:
        assert slice_node(view).GetViewGroup() == layouts.PRIOR_GROUP
        assert composite_node(view).GetLinkedControl()
        assert composite_node(view).GetHotLinkedControl()
    layouts.link(PRIOR, layouts.PRIOR_GROUP, linked=False)
    assert not composite_node(PRIOR[0]).GetLinkedControl()


PRESETS = [("lung", 1500, -600), ("mediastinum", 400, 40), ("bone", 1800, 400)]


@pytest.mark.parametrize(("preset", "width", "level"), PRESETS)
def test_window_presets(ct, preset, width, level):
    ct.GetDisplayNode().AutoWindowLevelOn()
    layouts.apply_window([ct, None], preset)
    display = ct.GetDisplayNode()
    assert (display.GetWindow(), display.GetLevel(), display.GetAutoWindowLevel()) == (width, level, 0)


@pytest.mark.parametrize("direction", [np.eye(3), rotation((10, 20, 30)), np.diag([-1.0, 1.0, -1.0])])
def test_fit_shows_all_of_a_volume(views, scene, direction):
    grid = grid_with(direction, (20, 30, 40))
    ct = node_of(np.zeros(grid.shape, np.int16), grid, "ct", kind="scan")
    layouts.set_layers(CURRENT, background=ct)
    layouts.fit(CURRENT, ct)
    bounds = [0.0] * 6
    ct.GetRASBounds(bounds)
    middle = (np.array(bounds[::2]) + np.array(bounds[1::2])) / 2
    for view in CURRENT:
        node = slice_node(view)
        matrix = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
        np.testing.assert_allclose(matrix[:3, 3], middle, atol=1e-6)
        extent = np.abs(matrix[:3, :3]).T @ (np.array(bounds[1::2]) - np.array(bounds[::2]))
        width, height, _ = node.GetFieldOfView()
        assert min(width / extent[0], height / extent[1]) == pytest.approx(1)
        assert (views[view].picture() > 0).any()


def test_the_patients_right_is_on_the_left_of_the_screen(views, scene):
    array = np.full(GRID.shape, -1000, np.int16)
    array[:, :, :4] = 150  # low LPS x: the patient's right
    array[:, :3] = 150  # low LPS y: front
    ct = node_of(array, GRID, "ct", kind="scan")
    layouts.set_layers(("Red",), background=ct)
    layouts.fit(("Red",), ct)
    bright = views["Red"].picture()[..., 0] > 200
    rows, columns = np.nonzero(bright)
    assert columns.min() < 40
    assert bright[60, :60].any()
    assert not bright[80, 60:].any()
    assert rows.min() < 60


def test_jump_centres_the_views_and_sets_the_crosshair(ct, scene):
    layouts.fit((*CURRENT, *PRIOR), ct)
    before = slicer.util.arrayFromVTKMatrix(slice_node(PRIOR[0]).GetSliceToRAS())
    layouts.jump((3.0, -28.0, -20.5))
    for view in CURRENT:
        matrix = slicer.util.arrayFromVTKMatrix(slice_node(view).GetSliceToRAS())
        np.testing.assert_allclose(matrix[:3, 3], (3.0, -28.0, -20.5), atol=1e-9)
    np.testing.assert_array_equal(slicer.util.arrayFromVTKMatrix(slice_node(PRIOR[0]).GetSliceToRAS()), before)
    crosshair = scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    np.testing.assert_allclose(crosshair.GetCrosshairRAS(), (3.0, -28.0, -20.5))


def test_match_turns_scales_and_centres_a_view_as_another_one(ct):
    source = slice_node("Green")
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation((10, 20, 30)), (1, 2, 3)
    source.GetSliceToRAS().DeepCopy(slicer.util.vtkMatrixFromArray(matrix))
    source.UpdateMatrices()
    source.SetFieldOfView(60, 60, 1)
    layouts.match(PRIOR[1], "Green")
    np.testing.assert_allclose(slicer.util.arrayFromVTKMatrix(slice_node(PRIOR[1]).GetSliceToRAS()), matrix)
    layouts.match(PRIOR[1], "Green", (7.0, 8.0, 9.0))
    matrix[:3, 3] = (7, 8, 9)
    np.testing.assert_allclose(slicer.util.arrayFromVTKMatrix(slice_node(PRIOR[1]).GetSliceToRAS()), matrix)
    assert slice_node(PRIOR[1]).GetFieldOfView()[:2] == pytest.approx((60, 60))
    for view in ("Green", PRIOR[1]):
        slice_node(view).SetOrientation("Coronal")


def test_a_view_that_is_not_there_is_named(scene):
    with pytest.raises(LookupError, match="'Purple'"):
        slice_node("Purple")
