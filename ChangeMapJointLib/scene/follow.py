"""The unwarped prior beside the current scan: its views look where the deformation says."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import slicer.util

from ChangeMapJointLib.scene.colors import YELLOW
from ChangeMapJointLib.scene.layouts import match
from ChangeMapJointLib.scene.nodes import CURRENT, PRIOR, Node, Views, remove, slice_node
from ChangeMapJointLib.scene.transforms import map_point

CURSOR_EVENT = slicer.vtkMRMLCrosshairNode.CursorPositionModifiedEvent


class PriorFollower:
    """Each prior view shows y(x), x the centre of the current view that it is paired with, at the same scale.

    A mark in the prior views follows the mouse over the current ones in the same way. All of it ends with
    :meth:`remove`.
    """

    def __init__(self, deformation: Node, current: Views = CURRENT, prior: Views = PRIOR) -> None:
        """Start following.

        Args:
            deformation: transform node that maps the reference to the template, see ``transforms``.
            current: names of the views to follow.
            prior: names of the views that follow, in the same order.
        """
        self._deformation = deformation
        self._pairs = dict(zip(current, prior, strict=True))
        self._prior = tuple(prior)
        self._observed: list[tuple[Node, int]] = []
        for view in current:
            self._observe(slice_node(view), "ModifiedEvent", self._on_view)
        crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        if crosshair is not None:
            self._observe(crosshair, CURSOR_EVENT, self._on_cursor)
        self._mark = self._make_mark()
        self.update()

    @property
    def observers(self) -> int:
        """How many observers are set."""
        return len(self._observed)

    def update(self) -> None:
        """Bring all prior views to y(x)."""
        for view, follower in self._pairs.items():
            self._follow(view, follower)

    def remove(self) -> None:
        """Stop following, and leave no observer or node."""
        for node, number in self._observed:
            node.RemoveObserver(number)
        self._observed = []
        remove(self._mark)
        self._mark = None

    def _observe(self, node: Node, event: Any, called: Any) -> None:
        self._observed.append((node, node.AddObserver(event, called)))

    def _alive(self) -> bool:
        """Stop when the deformation or the mark was taken out of the scene."""
        alive = self._mark is not None and self._mark.GetScene() and self._deformation.GetScene()
        if not alive:
            self.remove()
        return bool(alive)

    def _on_view(self, node: Node, _event: Any) -> None:
        if self._alive():
            self._follow(node.GetLayoutName(), self._pairs[node.GetLayoutName()])

    def _follow(self, view: str, follower: str) -> None:
        centre = slicer.util.arrayFromVTKMatrix(slice_node(view).GetSliceToRAS())[:3, 3]
        match(follower, view, map_point(self._deformation, centre))

    # -- the mark ---------------------------------------------------------------------------
    def _make_mark(self) -> Node:
        mark = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "ChangeMap cursor in prior")
        mark.CreateDefaultDisplayNodes()
        mark.SetLocked(True)
        display = mark.GetDisplayNode()
        for node in (mark, display):
            node.SetSaveWithScene(0)
            node.SetHideFromEditors(1)
        display.SetSelectedColor(*YELLOW)
        display.SetGlyphTypeFromString("Cross2D")
        display.SetPointLabelsVisibility(False)
        for view in self._prior:
            display.AddViewNodeID(slice_node(view).GetID())
        return mark

    def _on_cursor(self, crosshair: Node, _event: Any) -> None:
        if not self._alive():
            return
        view = crosshair.GetCursorPositionXYZ([0.0] * 3)
        ras = [0.0] * 3
        inside = view is not None and view.GetLayoutName() in self._pairs and crosshair.GetCursorPositionRAS(ras)
        self._mark.GetDisplayNode().SetVisibility(bool(inside))
        if not inside:
            return
        point = map_point(self._deformation, np.array(ras))
        if self._mark.GetNumberOfControlPoints():
            self._mark.SetNthControlPointPosition(0, *point)
        else:
            self._mark.AddControlPoint(point)
