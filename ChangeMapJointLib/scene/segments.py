"""Findings as a segmentation and as a table, from which Slicer's own tools go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.grid import Vector3
from ChangeMapJointLib.scene.colors import BLUE, ORANGE
from ChangeMapJointLib.scene.nodes import Node, nodes_of_run, remove, tag
from ChangeMapJointLib.scene.results import Results
from ChangeMapJointLib.scene.volumes import grid_of, node_of

SEGMENTATION, TABLE = "segmentation", "table"  # roles
HALF = 0.5  # of the peak: where a region weaker than the threshold is cut


@dataclass(frozen=True)
class Marked:
    """A change to be segmented.

    Attributes:
        name: of the segment.
        sign: +1 denser now, -1 less dense now.
        peak_mm: where the map is highest (LPS).
    """

    name: str
    sign: int
    peak_mm: Vector3


def region_labels(
    change_map: NDArray[Any], signed: NDArray[Any], peaks: Sequence[tuple[int, int, int]], threshold: float
) -> NDArray[np.int16]:
    """Label the connected region of change around each peak.

    Args:
        change_map: in [0, 1], ``[z, y, x]``.
        signed: R - T(y) in HU on the same grid; a region has one sign.
        peaks: voxels (z, y, x), one for each label from 1.
        threshold: of the map; around a weaker peak the region reaches down to half of it.

    Returns:
        int16; where two regions are one, it has the first label.
    """
    labels = np.zeros(change_map.shape, np.int16)
    for label, peak in enumerate(peaks, start=1):
        if labels[peak]:
            continue
        value = float(change_map[peak])
        level = threshold if value >= threshold else HALF * value
        if level <= 0:
            continue
        low = np.maximum(np.subtract(peak, 60), 0)  # a lesion; the whole scan would take a second for each
        box = tuple(slice(a, b) for a, b in zip(low, np.add(peak, 61), strict=True))
        inside = (change_map[box] >= level) & ((signed[box] < 0) == (signed[peak] < 0))
        components, _ = ndimage.label(inside)
        own = components == components[tuple(np.subtract(peak, low))]
        part = labels[box]
        part[own & inside & (part == 0)] = label
    return labels


def make_segmentation(results: Results, change_map: Node, marked: Sequence[Marked], threshold: float) -> Node:
    """Make a segmentation of changes, or fill that of an earlier call; it is filed beside the run's other nodes.

    Args:
        results: the run.
        change_map: node of the map whose regions are taken.
        marked: one segment for each.
        threshold: of the map.
    """
    _remove_old(results, SEGMENTATION)
    grid = grid_of(change_map)
    voxels = [np.rint(grid.to_index(one.peak_mm)).astype(int)[::-1] for one in marked]
    peaks = [tuple(np.clip(voxel, 0, np.subtract(grid.shape, 1)).tolist()) for voxel in voxels]
    array, signed = (slicer.util.arrayFromVolume(node) for node in (change_map, results.signed))
    labels = region_labels(array, signed, peaks, threshold)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Findings, segmented")
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetVisibility2DFill(False)  # outlines, so that the lesion stays visible
    if results.reference is not None:
        node.SetReferenceImageGeometryParameterFromVolumeNode(results.reference)
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    for label, one in enumerate(marked, start=1):
        mask = labels == label
        if not mask.any():
            continue
        part = node_of(mask, grid, "ChangeMap segment", kind="label")
        color = ORANGE if one.sign > 0 else BLUE
        segment = node.GetSegmentation().AddEmptySegment("", one.name, color)
        image = logic.CreateOrientedImageDataFromVolumeNode(part)
        logic.SetBinaryLabelmapToSegment(image, node, segment)
        remove(part)
    return _file(results, node, SEGMENTATION)


def make_table(results: Results, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Node:
    """Make a table of findings, or fill that of an earlier call; it is filed beside the run's other nodes.

    Args:
        results: the run.
        columns: names of the columns.
        rows: a value for each column; None stays empty.
    """
    _remove_old(results, TABLE)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "Findings, table")
    table = vtk.vtkTable()
    for name in columns:
        values = [row.get(name) for row in rows]
        numbers = values and all(isinstance(value, int | float) for value in values)
        column = vtk.vtkDoubleArray() if numbers else vtk.vtkStringArray()
        column.SetName(name)
        for value in values:
            column.InsertNextValue(float(value) if numbers else "" if value is None else str(value))  # type: ignore[arg-type]
        table.AddColumn(column)
    node.SetAndObserveTable(table)
    node.SetUseColumnTitleAsColumnHeader(True)
    node.SetLocked(True)
    return _file(results, node, TABLE)


def _remove_old(results: Results, role: str) -> None:
    remove(nodes_of_run(results.run).get(role))


def _file(results: Results, node: Node, role: str) -> Node:
    """Put a node into the folder of the run in the subject hierarchy, under the patient."""
    tag(node, role, results.run)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    record = hierarchy.GetItemByDataNode(results.record) if hierarchy is not None else 0
    if record:
        folder, item = hierarchy.GetItemParent(record), hierarchy.GetItemByDataNode(node)
        if item:
            hierarchy.SetItemParent(item, folder)
        else:
            hierarchy.CreateItem(folder, node)
    return node
