"""The mapping y(x) = x + u(x), and its rigid part, as transform nodes.

A node holds y as its transform *from* parent: it takes a point of the reference (world) to the template. A template
under that node is therefore shown warped onto the reference.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer
import slicer.util
import vtk
from numpy.typing import ArrayLike, NDArray
from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import LPS_TO_RAS, FloatArray, Grid, Vector3, lps_to_ras
from ChangeMapJointLib.io.read import read_array
from ChangeMapJointLib.scene.nodes import Node

if TYPE_CHECKING:
    from ChangeMapJointLib.core.displacement import DisplacementField  # brings torch, which this process may lack


def grid_transform(source: str | PathLike[str] | DisplacementField, name: str) -> Node:
    """A vtkMRMLGridTransformNode that maps reference points to template points, both RAS.

    Args:
        source: u on its grid, or the file ``deformation.nrrd`` that holds it.
        name: of the node.

    Raises:
        InputError: a file that is not a volume of three-vectors.
    """
    vectors, grid = _field(source)
    image = vtk.vtkImageData()
    image.SetDimensions(grid.size)
    image.SetSpacing(grid.spacing_mm)
    image.SetOrigin(lps_to_ras(grid.origin_mm))
    ras = vectors.astype(np.float32).reshape(-1, 3)  # a copy, which the node keeps
    ras[:, :2] *= -1
    image.GetPointData().SetScalars(numpy_to_vtk(ras))
    direction = np.eye(4)
    direction[:3, :3] = LPS_TO_RAS[:3, :3] @ np.asarray(grid.direction)
    transform = slicer.vtkOrientedGridTransform()
    transform.SetGridDirectionMatrix(slicer.util.vtkMatrixFromArray(direction))
    transform.SetDisplacementGridData(image)
    transform.SetInterpolationModeToLinear()  # as the template was warped
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode", name)
    node.SetAndObserveTransformFromParent(transform)
    return node


def _field(source: Any) -> tuple[NDArray[Any], Grid]:
    if not isinstance(source, str | PathLike):
        return source.vectors_mm, source.grid
    vectors, grid = read_array(source)
    if vectors.ndim != 4 or vectors.shape[-1] != 3:
        raise InputError(f"shape {vectors.shape}", field=Path(source), expected="a displacement field of three-vectors")
    return vectors, grid


def linear_transform(path: str | PathLike[str], name: str) -> Node:
    """A vtkMRMLLinearTransformNode of ``rigid.tfm``; it maps as :func:`grid_transform`'s does.

    Raises:
        InputError: missing, damaged or not linear.
    """
    storage = slicer.vtkMRMLTransformStorageNode()
    storage.SetFileName(str(path))
    node = slicer.vtkMRMLLinearTransformNode()
    node.SetName(name)
    if not storage.ReadData(node) or not node.IsLinear():
        raise InputError("not a readable linear transform", field=Path(path))
    return slicer.mrmlScene.AddNode(node)


def map_point(node: Node, ras: ArrayLike) -> Vector3:
    """y(x) in RAS of a point x in RAS; the border of the field is repeated outside of it."""
    x, y, z = (float(v) for v in np.asarray(ras, dtype=float))
    a, b, c = node.GetTransformFromParent().TransformPoint((x, y, z))
    return a, b, c


def displacement(node: Node) -> tuple[NDArray[np.float32], Grid]:
    """|u| in mm on the grid of a grid transform node, float32 ``[z, y, x]``."""
    transform = node.GetTransformFromParent()
    image = transform.GetDisplacementGrid()
    nx, ny, nz = image.GetDimensions()
    vectors = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(nz, ny, nx, 3)
    size = np.sqrt(np.einsum("zyxc,zyxc->zyx", vectors, vectors)).astype(np.float32)
    ras = np.asarray(slicer.util.arrayFromVTKMatrix(transform.GetGridDirectionMatrix()))[:3, :3]
    a, b, c = (LPS_TO_RAS[:3, :3] @ ras).tolist()
    origin: FloatArray = lps_to_ras(image.GetOrigin())
    x, y, z = origin.tolist()
    return size, Grid((nz, ny, nx), image.GetSpacing(), (x, y, z), (tuple(a), tuple(b), tuple(c)))
