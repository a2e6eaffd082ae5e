"""Show findings as points in the views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import slicer

from ChangeMapJointLib.change.kinds import DENSER_KINDS
from ChangeMapJointLib.core.grid import lps_to_ras
from ChangeMapJointLib.lesions.growth import sphere_diameter_mm
from ChangeMapJointLib.scene.colors import BLUE, ORANGE
from ChangeMapJointLib.scene.layouts import jump
from ChangeMapJointLib.scene.nodes import CURRENT, Node, Views, slice_node

Finding = Mapping[str, Any]  # an entry of findings.json or of the panel's list: id, kind, centre_mm (LPS), remark
CLOSEST_MM = 24.0  # smallest field of view: of smaller ones only voxels are seen


def markups(
    findings: Sequence[Finding], name: str = "ChangeMap findings", *, node: Node | None = None, views: Views = CURRENT
) -> Node:
    """Make a locked point list with one point per finding: orange if denser now, blue if less dense.

    Args:
        findings: each with ``id``, ``kind``, ``centre_mm`` (LPS) and optionally ``remark``, and ``label``, which stands
            beside the point instead of the kind.
        name: of a new node.
        node: an existing list to fill instead.
        views: where a new list is shown; in the prior's views the points would be in the wrong place.
    """
    target = node if node is not None else _new(name, views)
    was = target.StartModify()
    target.RemoveAllControlPoints()
    for finding in findings:
        label = f"{finding['id']} {finding.get('label', finding['kind'])}"
        index = target.AddControlPoint(lps_to_ras(finding["centre_mm"]).tolist(), label)
        target.SetNthControlPointDescription(index, str(finding.get("remark", "")))
        target.SetNthControlPointSelected(
            index, finding["kind"] in DENSER_KINDS
        )  # selected points have the first color, others the second
        target.SetNthControlPointLocked(index, True)
    target.EndModify(was)
    return target


def _new(name: str, views: Views) -> Node:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", name)
    node.CreateDefaultDisplayNodes()
    node.SetLocked(True)
    display = node.GetDisplayNode()
    display.SetSelectedColor(*ORANGE)
    display.SetColor(*BLUE)
    display.SetGlyphTypeFromString("Vertex2D")  # a dot, so that the lesion stays visible
    display.SetGlyphScale(1.0)
    display.SetTextScale(2.5)
    show_in(node, views)
    return node


def show_in(node: Node, views: Views) -> None:
    """Show the points in these views alone; without any, nowhere."""
    display = node.GetDisplayNode()
    was = display.StartModify()
    display.RemoveAllViewNodeIDs()  # which alone would mean all views
    for view in views:
        display.AddViewNodeID(f"vtkMRMLSliceNode{view}")
    display.SetVisibility(bool(views))
    display.EndModify(was)


def go_to(finding: Finding, views: Views = CURRENT) -> None:
    """Center these views on a finding."""
    jump(lps_to_ras(finding["centre_mm"]), views)


def extent_mm(measured: Mapping[str, Any] | None, volume_ml: float) -> float:
    """Return the diameter of what a reader wants to see: the lesion, the larger of both scans, else the region.

    Args:
        measured: entry of ``findings.json``; None where nothing was measured.
        volume_ml: of the region of change.
    """
    sides = [(measured or {}).get(f"lesion_{side}") for side in ("reference", "template")]
    lesion = max((float(side["long_diameter_mm"]) for side in sides if side), default=0.0)
    return lesion or sphere_diameter_mm(volume_ml)


def zoom_to(size_mm: float, views: Views = CURRENT, share: float = 1 / 3) -> None:
    """Zoom some views so that ``size_mm`` fills a share of their shorter side; not closer than :data:`CLOSEST_MM`."""
    for view in views:
        node = slice_node(view)
        width, height, _ = node.GetDimensions()
        mm = max(size_mm / share, CLOSEST_MM) / max(min(width, height), 1)  # per pixel
        node.SetFieldOfView(width * mm, height * mm, node.GetFieldOfView()[2])
