"""Volumes to nodes and back: geometry, number types, what slice views cannot show."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import slicer
import slicer.util
from scene_samples import GRID, grid_with, rotation

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import Grid, lps_to_ras
from ChangeMapJointLib.core.hu import WINDOWS_HU
from ChangeMapJointLib.scene.volumes import grid_of, node_of, volume_of

DIRECTIONS = {
    "axial": np.eye(3),
    "feet first": np.diag([1.0, 1.0, -1.0]),
    "flipped, left-handed": np.diag([-1.0, 1.0, 1.0]),
    "sagittal": np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]),
    "oblique": rotation((20, -35, 50)),
    "oblique, left-handed": rotation((20, -35, 50)) @ np.diag([1.0, -1.0, 1.0]),
}


@pytest.mark.parametrize("name", DIRECTIONS)
def test_geometry_and_voxels_come_back(scene, name):
    grid = grid_with(DIRECTIONS[name])
    array = np.random.default_rng(0).integers(-1024, 2000, grid.shape).astype(np.int16)
    node = node_of(array, grid, "ct", kind="scan")
    back = volume_of(node)
    assert back.grid.same_as(grid, 1e-6)
    np.testing.assert_array_equal(back.array, array)
    assert str(back.source) == "ct"


@pytest.mark.parametrize("name", DIRECTIONS)
def test_slicer_finds_a_voxel_where_the_grid_has_it(scene, name):
    grid = grid_with(DIRECTIONS[name])
    node = node_of(np.zeros(grid.shape, np.int16), grid, "ct")
    matrix = slicer.vtkMRMLScalarVolumeNode.GetIJKToRASMatrix
    ijk_to_ras = slicer.util.vtkMatrixFromArray(np.eye(4))
    matrix(node, ijk_to_ras)
    ras = ijk_to_ras.MultiplyPoint((8, 3, 2, 1))[:3]
    np.testing.assert_allclose(ras, lps_to_ras(grid.to_physical((8, 3, 2))), atol=1e-9)


def test_an_int16_scan_is_not_copied_and_cannot_be_changed(scene):
    node = node_of(np.full(GRID.shape, -2000, np.int16), GRID, "ct", kind="scan")
    view = volume_of(node).array
    assert np.shares_memory(view, slicer.util.arrayFromVolume(node))
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0, 0] = 1


def test_a_linear_transform_above_the_node_moves_its_grid(scene):
    node = node_of(np.zeros(GRID.shape, np.int16), GRID, "ct")
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation((0, 0, 30)), (5, 6, 7)
    parent = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    parent.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    node.SetAndObserveTransformNodeID(parent.GetID())
    expected = matrix @ np.append(lps_to_ras(GRID.to_physical((3, 4, 5))), 1)
    np.testing.assert_allclose(lps_to_ras(grid_of(node).to_physical((3, 4, 5))), expected[:3], atol=1e-9)
    matrix[0, 1] += 0.3
    parent.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    with pytest.raises(InputError, match="right angles"):
        grid_of(node)


def test_a_transform_that_is_not_linear_is_refused(scene):
    node = node_of(np.zeros(GRID.shape, np.int16), GRID, "ct")
    parent = scene.AddNewNodeByClass("vtkMRMLGridTransformNode")
    parent.SetAndObserveTransformFromParent(slicer.vtkOrientedGridTransform())
    node.SetAndObserveTransformNodeID(parent.GetID())
    with pytest.raises(InputError, match="not linear"):
        grid_of(node)


def test_nodes_that_are_no_scan_are_refused_in_words(scene):
    with pytest.raises(InputError, match="'empty': has no voxels"):
        volume_of(scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty"))
    holed = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "holed")
    array = np.zeros((3, 3, 3), np.float32)
    array[1, 1, 1] = np.nan
    slicer.util.updateVolumeFromArray(holed, array)
    with pytest.raises(InputError, match="'holed': 1 voxel"):
        volume_of(holed)
    colored = scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "colored")
    slicer.util.updateVolumeFromArray(colored, np.zeros((3, 3, 3, 3), np.uint8))
    with pytest.raises(InputError, match="color or vector"):
        volume_of(colored)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (np.array([0, 255], np.int64), np.uint8),
        (np.array([-5, 255], np.int64), np.int16),
        (np.array([0, 70000], np.int64), np.float32),
        (np.array([0, 1], bool), np.uint8),
        (np.array([0.5, 1.5], np.float64), np.float32),
        (np.array([0, 65535], np.uint16), np.float32),
    ],
)
def test_only_types_that_slice_views_show(scene, given, shown):
    node = node_of(np.broadcast_to(given, (2, 2, 2)), GRID.crop((0, 0, 0), (2, 2, 2)), "x")
    array = slicer.util.arrayFromVolume(node)
    assert array.dtype == shown
    np.testing.assert_array_equal(array[0, 0], given)


def test_what_is_not_finite_becomes_zero(scene):
    array = np.array([[[np.nan, np.inf, -np.inf, 0.25]]])
    node = node_of(array, GRID.crop((0, 0, 0), (1, 1, 4)), "x")
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), [[[0, 0, 0, 0.25]]])


def test_a_grid_comes_back_without_the_rounding_of_matrices(scene):
    grid = Grid((2, 3, 4), (1.6, 1.6, 1.8), (-176.53, -95.97, -350.65))
    node = node_of(np.zeros(grid.shape, np.int16), grid, "x")
    node.SetSpacing(1.5999999999999999, 1.5999999999999999, 1.8)  # what Slicer makes of the file
    node.SetOrigin(176.52999999999997, 95.97000000000001, -350.65)
    assert grid_of(node) == grid


def test_a_node_is_filled_again(scene):
    node = node_of(np.zeros(GRID.shape, np.int16), GRID, "x")
    other = grid_with(rotation((0, 10, 0)))
    before = scene.GetNumberOfNodes()
    assert node_of(np.ones(other.shape, np.float32), other, "x", node=node) is node
    assert scene.GetNumberOfNodes() == before
    assert grid_of(node).same_as(other)


def test_scans_open_in_the_lung_window(scene):
    display = node_of(np.zeros(GRID.shape, np.int16), GRID, "ct", kind="scan").GetDisplayNode()
    assert (display.GetLevel(), display.GetWindow()) == WINDOWS_HU["lung"] == (-600, 1500)
    assert not display.GetAutoWindowLevel()


def test_nothing_brings_torch_or_qt():
    names = [
        "check",
        "colors",
        "decisions",
        "findings",
        "follow",
        "layouts",
        "nodes",
        "overlay",
        "results",
        "transforms",
        "volumes",
    ]
    code = f"import sys\nfor n in {names}: __import__('ChangeMapJointLib.scene.' + n)\n"
    code += "print([n for n in ('torch', 'numba', 'qt', 'PySide6', 'PyQt5') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
