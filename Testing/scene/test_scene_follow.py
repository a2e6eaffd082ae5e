"""The prior's views look at y(x), and stop when told to."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import slicer
import slicer.util
from scene_samples import AFFINE, GRID

from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.grid import apply_affine, lps_to_ras
from ChangeMapJointLib.scene import layouts
from ChangeMapJointLib.scene.follow import CURSOR_EVENT, PriorFollower
from ChangeMapJointLib.scene.nodes import CURRENT, PRIOR, slice_node
from ChangeMapJointLib.scene.transforms import grid_transform


@pytest.fixture
def deformation(scene):
    return grid_transform(DisplacementField.from_affine(AFFINE, GRID), "u")


def centre(view):
    return slicer.util.arrayFromVTKMatrix(slice_node(view).GetSliceToRAS())[:3, 3]


def y_of(ras):
    """y(x) of the affine field, both in RAS."""
    return lps_to_ras(apply_affine(AFFINE, lps_to_ras(ras)))


def some_points():
    return lps_to_ras(GRID.to_physical([(4, 5, 6), (10, 3, 2), (7.5, 16.2, 9.9)]))


def test_prior_views_follow_to_y(deformation):
    follower = PriorFollower(deformation)
    for point in some_points():
        layouts.jump(point)
        for view in PRIOR:
            np.testing.assert_allclose(centre(view), y_of(point), atol=1e-3)
    follower.remove()


def test_scrolling_one_view_moves_its_partner_only(deformation):
    follower = PriorFollower(deformation)
    layouts.jump(some_points()[0])
    others = [centre(view).copy() for view in PRIOR[1:]]
    slice_node("Red").SetSliceOffset(slice_node("Red").GetSliceOffset() + 3)
    np.testing.assert_allclose(centre(PRIOR[0]), y_of(centre("Red")), atol=1e-3)
    np.testing.assert_array_equal([centre(view) for view in PRIOR[1:]], others)
    follower.remove()


def test_scale_and_orientation_follow(deformation):
    slice_node(PRIOR[0]).SetOrientation("Coronal")
    follower = PriorFollower(deformation)
    slice_node("Red").SetFieldOfView(90, 90, 1)
    assert slice_node(PRIOR[0]).GetFieldOfView()[:2] == pytest.approx((90, 90))
    assert slice_node(PRIOR[0]).GetOrientation() == "Axial"
    follower.remove()


def test_moving_the_prior_moves_nothing_else(deformation):
    follower = PriorFollower(deformation)
    layouts.jump(some_points()[0])
    before = [centre(view).copy() for view in CURRENT]
    slice_node(PRIOR[0]).SetSliceOffset(99)
    np.testing.assert_array_equal([centre(view) for view in CURRENT], before)
    assert slice_node(PRIOR[0]).GetSliceOffset() == pytest.approx(99)
    follower.remove()


def test_a_mark_follows_the_mouse_in_the_prior_views_only(deformation, scene, views):
    follower = PriorFollower(deformation)
    layouts.jump(some_points()[0])
    for view in ("Red", "Green"):
        slice_node(view).SetFieldOfView(12, 12, 1)  # mm, all of it in the field
    crosshair = scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    crosshair.SetCursorPositionXYZ([30.0, 40.0, 0.0], slice_node("Red"))
    ras = [0.0] * 3
    crosshair.GetCursorPositionRAS(ras)
    mark = slicer.util.getNode("ChangeMap cursor in prior")
    np.testing.assert_allclose(mark.GetNthControlPointPosition(0), y_of(ras), atol=1e-3)
    display = mark.GetDisplayNode()
    shown = {display.GetNthViewNodeID(i) for i in range(display.GetNumberOfViewNodeIDs())}
    assert shown == {slice_node(view).GetID() for view in PRIOR}
    assert display.GetVisibility()
    crosshair.SetCursorPositionXYZ([30.0, 40.0, 0.0], slice_node(PRIOR[0]))  # the prior itself has no y of it
    assert not display.GetVisibility()
    crosshair.SetCursorPositionXYZ([31.0, 40.0, 0.0], slice_node("Green"))
    assert display.GetVisibility()
    assert mark.GetNumberOfControlPoints() == 1
    follower.remove()


def test_remove_leaves_no_observer_and_no_node(deformation, scene):
    count = scene.GetNumberOfNodes()
    follower = PriorFollower(deformation)
    crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    assert crosshair.HasObserver(CURSOR_EVENT)
    layouts.jump(some_points()[0])
    follower.remove()
    follower.remove()
    assert not crosshair.HasObserver(CURSOR_EVENT)
    before = [centre(view).copy() for view in PRIOR]
    layouts.jump(some_points()[1])
    np.testing.assert_array_equal([centre(view) for view in PRIOR], before)
    assert scene.GetNumberOfNodes() == count
    held = weakref.ref(follower)
    del follower
    gc.collect()
    assert held() is None


def test_a_cleared_scene_does_no_harm(deformation, scene):
    follower = PriorFollower(deformation)
    scene.Clear(0)
    slice_node("Red").SetSliceOffset(5)
    scene.GetFirstNodeByClass("vtkMRMLCrosshairNode").SetCursorPositionXYZ([3.0, 4.0, 0.0], slice_node("Red"))
    follower.remove()
