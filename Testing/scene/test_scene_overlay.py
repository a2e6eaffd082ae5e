"""What is painted is what the map says, to the pixel."""

from __future__ import annotations

import numpy as np
import pytest
from scene_samples import GRID
from vtkmodules.util.numpy_support import vtk_to_numpy

from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.scene import layouts
from ChangeMapJointLib.scene.colors import level_table, rgba_of, show_levels
from ChangeMapJointLib.scene.nodes import slice_node
from ChangeMapJointLib.scene.overlay import Overlay, levels_of, signed_map
from ChangeMapJointLib.scene.volumes import node_of

N = 120  # pixels of a view and voxels of a slice: one voxel is one pixel
GREY = 127  # of the scan below: -600 HU in the lung window
CENTRED = Grid((5, N, N), (1.0, 1.0, 1.0), (-N / 2, 1 - N / 2, 0.0))  # pixels are at whole mm, as Slicer has them
THRESHOLDS = (0.0, 0.1, 0.5, 0.68, 0.9, 1.0)


@pytest.fixture
def pair():
    """A random map with values on both sides of every threshold, at it and at the ends; and its sign."""
    rng = np.random.default_rng(0)
    change = rng.random(CENTRED.shape, dtype=np.float32)
    change[:, :3, :6] = np.array(THRESHOLDS, np.float32)
    change[:, 3:6] = 0
    hu = np.where(rng.random(CENTRED.shape) < 0.5, 900, -900).astype(np.int16)
    return change, hu


@pytest.fixture
def shown(views, pair):
    """The pair laid over a grey scan, and a function that paints the axial slice: RGB on the map's axes."""
    change, hu = pair
    scan = node_of(np.full(CENTRED.shape, -600, np.int16), CENTRED, "scan", kind="scan")
    layouts.set_layers(("Red",), background=scan)
    look_at_the_middle()

    def paint() -> np.ndarray:
        return views["Red"].picture()

    overlay = Overlay()
    overlay.show(node_of(change, CENTRED, "map"), node_of(hu, CENTRED, "signed"), ("Red",))
    return overlay, paint


def look_at_the_middle():
    slice_node("Red").SetFieldOfView(N, N, 1)
    slice_node("Red").JumpSliceByCentering(0, 0, 2)


def parts(picture):
    """Where a picture is orange, and where blue."""
    red, blue = picture[..., 0].astype(int), picture[..., 2].astype(int)
    return red > blue, blue > red


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_shown_is_map_at_or_above_threshold(shown, pair, threshold):
    overlay, paint = shown
    overlay.set_threshold(threshold)
    change, hu = pair[0][2], pair[1][2]
    above = change >= np.float32(max(threshold, 0.001))  # the lowest that an overlay has
    orange, blue = parts(paint())
    np.testing.assert_array_equal(orange, above & (hu > 0))
    np.testing.assert_array_equal(blue, above & (hu < 0))


def test_each_sign_can_be_switched_off(shown, pair):
    overlay, paint = shown
    overlay.set_threshold(0.5)
    above, hu = pair[0][2] >= np.float32(0.5), pair[1][2]
    overlay.set_increases(False)
    orange, blue = parts(paint())
    assert not orange.any()
    np.testing.assert_array_equal(blue, above & (hu < 0))
    overlay.set_increases(True)
    overlay.set_decreases(False)
    orange, blue = parts(paint())
    np.testing.assert_array_equal(orange, above & (hu > 0))
    assert not blue.any()
    overlay.set_visible(False)
    assert (paint() == GREY).all()
    overlay.set_visible(True)
    assert parts(paint())[0].sum() == (above & (hu > 0)).sum()


@pytest.mark.parametrize("opacity", [1.0, 0.5, 0.25, 0.0])
def test_colors_and_opacity(shown, pair, opacity):
    overlay, paint = shown
    overlay.set_threshold(0.1)
    overlay.set_opacity(opacity)
    change, hu = pair[0][2], pair[1][2]
    picture = paint().astype(float)
    for sign, table, where in ((1, "increase", change), (-1, "decrease", 1 - change)):
        mask = (change >= np.float32(0.1)) & (np.sign(hu) == sign)
        index = np.clip((where[mask] * 256).astype(int), 0, 255)
        expected = opacity * 255 * rgba_of(table)[index, :3] + (1 - opacity) * GREY
        assert np.abs(picture[mask] - expected).max() <= 3  # rounding of three 8-bit steps


def test_a_second_map_replaces_the_first_with_no_new_nodes(shown, pair, scene):
    overlay, paint = shown
    overlay.set_threshold(0.5)
    paint()
    count = scene.GetNumberOfNodes()
    change, hu = node_of(1 - pair[0], CENTRED, "map"), node_of(-pair[1], CENTRED, "signed")
    grown = scene.GetNumberOfNodes() - count
    overlay.show(change, hu, ("Red",))
    assert scene.GetNumberOfNodes() - count == grown
    above = 1 - pair[0][2] >= np.float32(0.5)
    orange, blue = parts(paint())
    np.testing.assert_array_equal(orange, above & (pair[1][2] < 0))
    np.testing.assert_array_equal(blue, above & (pair[1][2] > 0))


def test_its_nodes_are_hidden_and_not_saved(shown):
    overlay, _ = shown
    (node,) = overlay.nodes
    for hidden in (node, node.GetDisplayNode(), node.GetDisplayNode().GetColorNode()):
        assert hidden.GetHideFromEditors()
        assert not hidden.GetSaveWithScene()


def test_every_threshold_of_the_slider_is_exact(views, scene):
    ticks = (np.arange(1, 1001) / 1000).astype(np.float32)
    below = np.nextafter(ticks, np.float32(0))
    levels = levels_of(np.stack([ticks, -ticks, below, -below])[:, None])
    want = np.arange(1, 1001)
    np.testing.assert_array_equal(levels[:, 0], [want, -want, want - 1, 1 - want])
    table = level_table(1000)
    rgba = vtk_to_numpy(table.GetLookupTable().GetTable())
    for level in want.tolist():
        show_levels(table, level, 1001 - level)
        np.testing.assert_array_equal(np.flatnonzero(rgba[1000:, 3]), np.arange(level, 1001))
        np.testing.assert_array_equal(np.flatnonzero(rgba[:1001, 3]), np.arange(level))


def test_a_new_threshold_tells_the_views_once(shown, views):
    overlay, paint = shown
    overlay.set_threshold(0.3)
    paint()
    told: list[str] = []
    tag = views["Red"].logic.AddObserver("ModifiedEvent", lambda *_: told.append("view"))
    overlay.set_threshold(0.4)
    once = len(told)
    overlay.set_threshold(0.4)
    overlay.set_increases(True)
    views["Red"].logic.RemoveObserver(tag)
    assert (once, len(told)) == (1, 1)


def test_remove_leaves_scene_and_view_as_before(shown, scene):
    overlay, paint = shown
    paint()
    count = scene.GetNumberOfNodes()
    overlay.set_legend(True)
    overlay.remove()
    assert scene.GetNumberOfNodes() == count - 3  # the volume, its display node and its colors
    assert (paint() == GREY).all()
    overlay.set_threshold(0.3)  # nothing left to change, and no error


def test_other_views_and_their_layers_are_left_alone(shown, views):
    _, paint = shown
    paint()
    for name in ("Green", "Yellow", "ChangeMapPriorRed"):
        assert views[name].composite.GetNumberOfAdditionalLayers() == 0
        assert views[name].composite.GetBackgroundVolumeID() is None


def test_a_layer_of_the_user_stays(shown, views, scene):
    overlay, _ = shown
    mine = node_of(np.ones(GRID.shape, np.float32), GRID, "mine")
    composite = views["Red"].composite
    composite.SetNthLayerVolumeID(3 + composite.GetNumberOfAdditionalLayers(), mine.GetID())
    overlay.set_increases(False)
    overlay.set_increases(True)
    overlay.remove()
    assert composite.GetNumberOfAdditionalLayers() == 1
    assert composite.GetNthLayerVolumeID(3) == mine.GetID()


def test_an_overlay_works_again_after_the_scene_was_cleared(shown, pair, views, scene):
    overlay, _ = shown
    scene.Clear(0)
    overlay.set_opacity(1.0)
    overlay.set_threshold(0.5)
    overlay.show(node_of(pair[0], CENTRED, "map"), node_of(pair[1], CENTRED, "signed"), ("Red",))
    assert [node.GetScene() is scene for node in overlay.nodes] == [True]


def test_the_legend_is_painted_and_goes(shown, views):
    overlay, paint = shown
    overlay.set_visible(False)
    overlay.set_legend(True)
    assert (paint() != GREY).any()
    overlay.set_legend(False)
    assert (paint() == GREY).all()
    assert views["Red"].composite.GetForegroundVolumeID() is None


def test_the_legend_leaves_a_foreground_in_place(shown, views, pair):
    overlay, _ = shown
    other = node_of(pair[0], CENTRED, "other")
    layouts.set_layers(("Red",), foreground=other)
    overlay.set_legend(True)
    overlay.set_legend(False)
    assert views["Red"].composite.GetForegroundVolumeID() == other.GetID()


def test_without_a_map_the_difference_itself_is_shown(views, scene):
    hu = np.zeros(CENTRED.shape, np.int16)
    hu[2, 10, 10], hu[2, 20, 20], hu[2, 30, 30], hu[2, 40, 40] = 525, 524, -525, -2000
    scan = node_of(np.full(CENTRED.shape, -600, np.int16), CENTRED, "scan", kind="scan")
    layouts.set_layers(("Red",), background=scan)
    overlay = Overlay()
    overlay.set_threshold(0.5)  # of 1050 HU
    overlay.show(None, node_of(hu, CENTRED, "signed"), ("Red",))
    look_at_the_middle()
    orange, blue = parts(views["Red"].picture())
    np.testing.assert_array_equal(np.argwhere(orange), [[10, 10]])
    np.testing.assert_array_equal(np.argwhere(blue), [[30, 30], [40, 40]])


def test_maps_on_different_grids_are_refused(scene):
    other = GRID.crop((0, 0, 0), (12, 20, 15))
    with pytest.raises(ValueError, match="grid"):
        Overlay().show(
            node_of(np.zeros(GRID.shape), GRID, "map"), node_of(np.zeros(other.shape), other, "signed"), ("Red",)
        )


def test_signed_map_in_closed_form():
    change = np.array([[[0.0, 0.2, 0.7, np.nan, 1.0]]], np.float32)
    np.testing.assert_array_equal(
        signed_map(change, np.array([[[-5, -3, 0, -9, 8]]], np.int16)), np.array([[[0, -0.2, 0.7, 0, 1]]], np.float32)
    )
    assert change[0, 0, 1] > 0  # the map itself is left alone


def test_64_bit_maps_and_nan_are_painted_without_harm(views, scene):
    change, hu = np.zeros(CENTRED.shape), np.ones(CENTRED.shape, np.int64)
    change[2, 10, 10], change[2, 20, 20] = np.nan, 0.9
    overlay = Overlay()
    overlay.set_threshold(0.5)
    overlay.show(node_of(change, CENTRED, "map"), node_of(hu, CENTRED, "signed"), ("Red",))
    look_at_the_middle()
    orange, _ = parts(views["Red"].picture())
    assert list(zip(*np.nonzero(orange), strict=True)) == [(20, 20)]
