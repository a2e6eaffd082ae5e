"""Show the unwarped prior beside the current scan; its views follow the current views through the deformation."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import slicer.util
from numpy.typing import ArrayLike

from ChangeMapJointLib.scene.colors import YELLOW
from ChangeMapJointLib.scene.layouts import match
from ChangeMapJointLib.scene.nodes import CURRENT, PRIOR, Node, Views, remove, slice_node
from ChangeMapJointLib.scene.transforms import map_point
from ChangeMapJointLib.scene.volumes import new_node

CURSOR_EVENT = slicer.vtkMRMLCrosshairNode.CursorPositionModifiedEvent


class PriorFollower:
    """Keeps each prior view centered on y(x), where x is the center of its paired current view, at the same scale.

    A mark in the prior views follows the mouse over the current views in the same way. :meth:`remove` ends both.
    """

    def __init__(
        self, deformation: Node, current: Views = CURRENT, prior: Views = PRIOR, *, follow_mouse: bool = True
    ) -> None:
        """Start following.

        Args:
            deformation: transform node that maps reference to template points, see ``transforms``.
            current: names of the views to follow.
            prior: names of the views that follow them, in the same order.
            follow_mouse: move the mark with the mouse; without it, :meth:`mark_at` alone does.
        """
        self._deformation = deformation
        self._pairs = dict(zip(current, prior, strict=True))
        self._prior = tuple(prior)
        self._observed: list[tuple[Node, int]] = []
        for view in current:
            self._observe(slice_node(view), "ModifiedEvent", self._on_view)
        crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        if crosshair is not None and follow_mouse:
            self._observe(crosshair, CURSOR_EVENT, self._on_cursor)
        self._mark = self._make_mark()
        self.update()

    def update(self) -> None:
        """Center all prior views on y(x)."""
        for view, follower in self._pairs.items():
            self._follow(view, follower)

    def remove(self) -> None:
        """Stop following, and remove all observers and the mark."""
        for node, observer in self._observed:
            node.RemoveObserver(observer)
        self._observed = []
        remove(self._mark)
        self._mark = None

    def _observe(self, node: Node, event: Any, callback: Any) -> None:
        self._observed.append((node, node.AddObserver(event, callback)))

    def _alive(self) -> bool:
        """Return whether the deformation and the mark are still in the scene; stop following if not."""
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
        mark = new_mark("ChangeMap cursor in prior")
        for view in self._prior:
            mark.GetDisplayNode().AddViewNodeID(slice_node(view).GetID())
        return mark

    def _on_cursor(self, crosshair: Node, _event: Any) -> None:
        if not self._alive():
            return
        view = crosshair.GetCursorPositionXYZ([0.0] * 3)
        ras = [0.0] * 3
        inside = view is not None and view.GetLayoutName() in self._pairs and crosshair.GetCursorPositionRAS(ras)
        if inside:
            self.mark_at(ras)
        else:
            self._mark.GetDisplayNode().SetVisibility(False)

    def mark_at(self, ras: ArrayLike) -> None:
        """Mark the place in the prior views that corresponds to a point of the current scan (RAS, mm)."""
        self._mark.GetDisplayNode().SetVisibility(True)
        point = map_point(self._deformation, np.asarray(ras))
        if self._mark.GetNumberOfControlPoints():
            self._mark.SetNthControlPointPosition(0, *point)
        else:
            self._mark.AddControlPoint(point)


def new_mark(name: str) -> Node:
    """Add a cross that marks one place in slice views; it is not saved with the scene."""
    mark = new_node("vtkMRMLMarkupsFiducialNode", name, hidden=True)
    mark.CreateDefaultDisplayNodes()
    mark.SetLocked(True)
    display = mark.GetDisplayNode()
    display.SetSaveWithScene(0)
    display.SetHideFromEditors(1)
    display.SetSelectedColor(*YELLOW)
    display.SetGlyphTypeFromString("Cross2D")
    display.SetPointLabelsVisibility(False)
    return mark
