"""The deformation y(x) = x + u(x), and its rigid part, as transform nodes.

A node holds y as its transform *from* parent, which maps points of the reference (world) to the template. A template
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
    from ChangeMapJointLib.core.displacement import DisplacementField  # imports torch, which this process may not have


def grid_transform(source: str | PathLike[str] | DisplacementField, name: str) -> Node:
    """Make a vtkMRMLGridTransformNode that maps reference points to template points, both RAS.

    Args:
        source: the displacement field u, or the file ``deformation.nrrd`` that holds it. Where the file holds every
            second vector, so does the node: a scene would store the whole field at 24 bytes per voxel.
        name: of the node.

    Raises:
        InputError: the file is not a volume of three-vectors.
    """
    vectors, grid = _field(source)
    image = vtk.vtkImageData()
    image.SetDimensions(grid.size)
    image.SetSpacing(grid.spacing_mm)
    image.SetOrigin(lps_to_ras(grid.origin_mm))
    ras = vectors.reshape(-1, 3)
    for axis in (0, 1):
        np.negative(ras[:, axis], out=ras[:, axis])
    image.GetPointData().SetScalars(numpy_to_vtk(ras))
    direction = np.eye(4)
    direction[:3, :3] = LPS_TO_RAS[:3, :3] @ np.asarray(grid.direction)
    transform = slicer.vtkOrientedGridTransform()
    transform.SetGridDirectionMatrix(slicer.util.vtkMatrixFromArray(direction))
    transform.SetDisplacementGridData(image)
    transform.SetInterpolationModeToLinear()  # the template was warped the same way
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode", name)
    node.SetAndObserveTransformFromParent(transform)
    return node


def _field(source: Any) -> tuple[NDArray[np.float32], Grid]:
    """Return the vectors, which the caller may change and keep, and their grid."""
    if not isinstance(source, str | PathLike):
        return source.vectors_mm.astype(np.float32), source.grid
    vectors, grid = read_array(source)
    if vectors.ndim != 4 or vectors.shape[-1] != 3:
        raise InputError(f"shape {vectors.shape}", field=Path(source), expected="a displacement field of three-vectors")
    return np.require(vectors, np.float32, ("C", "W")), grid  # a file of 512 x 512 x 300 vectors has 0.9 GB


def linear_transform(path: str | PathLike[str], name: str) -> Node:
    """Read ``rigid.tfm`` as a vtkMRMLLinearTransformNode, which maps as that of :func:`grid_transform`.

    Raises:
        InputError: the file is missing, damaged, or not linear.
    """
    storage = slicer.vtkMRMLTransformStorageNode()
    storage.SetFileName(str(path))
    node = slicer.vtkMRMLLinearTransformNode()
    node.SetName(name)
    if not storage.ReadData(node) or not node.IsLinear():
        raise InputError("not a readable linear transform", field=Path(path))
    return slicer.mrmlScene.AddNode(node)


def map_point(node: Node, ras: ArrayLike) -> Vector3:
    """Map a point x (RAS, mm) to y(x) (RAS, mm); outside the field its border is repeated."""
    x, y, z = (float(v) for v in np.asarray(ras, dtype=float))
    a, b, c = node.GetTransformFromParent().TransformPoint((x, y, z))
    return a, b, c


def displacement(node: Node) -> tuple[NDArray[np.float32], Grid]:
    """Return |u| in mm of a grid transform node, float32 ``[z, y, x]``, and its grid."""
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
