"""Convert CT scans and maps to volume nodes, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import slicer
import slicer.util
import vtk
from numpy.typing import NDArray
from vtkmodules.util.numpy_support import numpy_to_vtk

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import LPS_TO_RAS, FloatArray, Grid
from ChangeMapJointLib.core.hu import WINDOWS_HU
from ChangeMapJointLib.scan.missing import hu_and_unseen
from ChangeMapJointLib.scan.volume import Volume
from ChangeMapJointLib.scene.nodes import Node

DECIMALS = 12  # of mm: matrices make 1.5999999999999999 of 1.6, and a registration then ends elsewhere by a hair
KINDS = {"scan": "vtkMRMLScalarVolumeNode", "map": "vtkMRMLScalarVolumeNode", "label": "vtkMRMLLabelMapVolumeNode"}


def grid_of(node: Node) -> Grid:
    """Return the grid of a volume node in world coordinates (LPS), including linear transforms above the node.

    Raises:
        InputError: the node has no voxels, its axes are not at right angles, or a transform is not linear.
    """
    image = node.GetImageData()
    if image is None or 0 in image.GetDimensions():
        raise InputError(
            "has no voxels", field=f"volume '{node.GetName()}'", remedy="load the scan again or choose another one"
        )
    affine = LPS_TO_RAS @ _to_world(node) @ _index_to_local(node)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    a, b, c = (affine[:3, :3] / spacing).tolist()
    nx, ny, nz = image.GetDimensions()
    hx, hy, hz = spacing.round(DECIMALS).tolist()
    x, y, z = affine[:3, 3].round(DECIMALS).tolist()
    try:
        return Grid((nz, ny, nx), (hx, hy, hz), (x, y, z), (tuple(a), tuple(b), tuple(c)))
    except ValueError as error:
        raise InputError(
            "its axes are not at right angles",
            field=f"volume '{node.GetName()}'",
            remedy="harden its transform and resample it",
        ) from error


def _index_to_local(node: Node) -> FloatArray:
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return np.asarray(slicer.util.arrayFromVTKMatrix(matrix))


def _to_world(node: Node) -> FloatArray:
    parent = node.GetParentTransformNode()
    matrix = vtk.vtkMatrix4x4()
    if (
        parent is not None and not parent.IsTransformToWorldLinear()
    ):  # asking for its matrix would log an error in Slicer
        raise InputError(
            "is moved by a transform that is not linear", field=f"volume '{node.GetName()}'", remedy="harden it first"
        )
    if parent is not None:
        parent.GetMatrixTransformToWorld(matrix)
    return np.asarray(slicer.util.arrayFromVTKMatrix(matrix))


def volume_of(node: Node) -> Volume:
    """Return the CT scan in a scalar volume node, named after the node.

    For an int16 node the array is a read-only view of its voxels, else a copy in int16 or float32.

    Raises:
        InputError: the node has no voxels, several components, voxels inside it that are not finite, or axes that are
            not at right angles.
    """
    grid = grid_of(node)
    if node.GetImageData().GetNumberOfScalarComponents() != 1:
        raise InputError("is a color or vector image", field=f"volume '{node.GetName()}'", expected="a CT in HU")
    voxels = slicer.util.arrayFromVolume(node)
    if voxels.dtype != np.int16:
        try:
            hu, unseen = hu_and_unseen(voxels)
            return Volume(hu, grid, Path(node.GetName()), unseen=unseen)
        except InputError as error:
            raise error.at(f"volume '{node.GetName()}'") from error
    view = voxels.view()
    view.flags.writeable = False
    return Volume(view, grid, Path(node.GetName()))


def node_of(
    array: NDArray[Any],
    grid: Grid,
    name: str,
    *,
    kind: Literal["scan", "map", "label"] = "map",
    node: Node | None = None,
    hidden: bool = False,
    keep: bool = False,
) -> Node:
    """Make a volume node of an array, or fill an existing one.

    Slice views crash on 64-bit integers and show NaN in the lowest color. Integers are therefore stored as uint8 or
    int16 if they fit, else as float32, and values that are not finite become 0.

    Args:
        array: ``[z, y, x]``, any real type; it is copied unless ``keep`` is set.
        grid: of the array, LPS.
        name: of a new node.
        kind: CT scan (lung window), map (nearest voxel, no automatic window) or label map.
        node: an existing node of the same kind to fill.
        hidden: keep a new node out of selectors, of the tree of data, and of saved scenes.
        keep: the node may keep the array itself, which nothing else changes: a map of a whole scan takes long to copy.

    Raises:
        ValueError: ``array`` does not have the grid's shape.
    """
    if array.shape != grid.shape:
        raise ValueError(f"node_of() 'array' must have the grid's shape {grid.shape}, got {array.shape}")
    filled = node if node is not None else new_node(KINDS[kind], name, hidden=hidden)
    if node is None:  # before there are voxels, since computing an automatic window takes a third of a second
        filled.CreateDefaultDisplayNodes()
        if kind == "scan":
            set_window(filled, "lung")
        elif kind == "map":
            filled.GetDisplayNode().AutoWindowLevelOff()
            filled.GetDisplayNode().SetInterpolate(0)  # show the measured values
        if hidden:
            filled.GetDisplayNode().SetSaveWithScene(0)
            filled.GetDisplayNode().SetHideFromEditors(1)
    set_geometry(filled, grid)
    if keep:
        image = vtk.vtkImageData()
        image.SetDimensions(grid.size)
        image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(_displayable(array)).reshape(-1)))
        filled.SetAndObserveImageData(image)
    else:
        slicer.util.updateVolumeFromArray(filled, _displayable(array))
    return filled


def new_node(kind: str, name: str, *, hidden: bool = False) -> Node:
    """Make a node of a class; a hidden one is hidden before the scene has it: later its entry in the tree stays."""
    node = slicer.mrmlScene.CreateNodeByClass(kind)
    node.UnRegister(None)
    node.SetName(slicer.mrmlScene.GenerateUniqueName(name))
    node.SetHideFromEditors(hidden)
    if hidden:
        node.SetSaveWithScene(0)
    return slicer.mrmlScene.AddNode(node)


def set_geometry(node: Node, grid: Grid) -> None:
    """Set the geometry of a volume node from a grid (LPS)."""
    matrix = slicer.util.vtkMatrixFromArray(LPS_TO_RAS @ grid.affine)
    node.SetIJKToRASMatrix(matrix)


def set_window(node: Node, preset: str) -> None:
    """Show a CT node in the window 'lung', 'mediastinum' or 'bone'."""
    level, width = WINDOWS_HU[preset]
    display = node.GetDisplayNode()
    was = display.StartModify()
    display.AutoWindowLevelOff()
    display.SetWindowLevel(width, level)
    display.EndModify(was)


def _displayable(array: NDArray[Any]) -> NDArray[Any]:
    """Convert an array to a type that slice views can show, with finite values."""
    if array.dtype in (np.uint8, np.int16):
        return array
    if array.dtype == bool:
        return array.astype(np.uint8)
    if np.issubdtype(array.dtype, np.integer):
        low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
        kind = next((k for k in (np.uint8, np.int16) if np.iinfo(k).min <= low and high <= np.iinfo(k).max), np.float32)
        return array.astype(kind)
    values = array.astype(np.float32, copy=False)
    return values if np.isfinite(values).all() else np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
