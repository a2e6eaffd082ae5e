"""Show findings as points in the views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import slicer

from ChangeMapJointLib.change.kinds import DENSER_KINDS
from ChangeMapJointLib.core.grid import lps_to_ras
from ChangeMapJointLib.scene.colors import BLUE, ORANGE
from ChangeMapJointLib.scene.layouts import jump
from ChangeMapJointLib.scene.nodes import CURRENT, Node, Views

Finding = Mapping[str, Any]  # an entry of findings.json or of the panel's list: id, kind, centre_mm (LPS), remark


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
