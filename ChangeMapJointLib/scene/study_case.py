"""A case of a reading session in the application's views: the scans, rigidly aligned, the map if wanted, and marks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import slicer

from ChangeMapJointLib.change.method_table import DEFAULT_THRESHOLD, METHODS
from ChangeMapJointLib.core.grid import Grid, Vector3, lps_to_ras
from ChangeMapJointLib.core.hu import AIR_HU
from ChangeMapJointLib.evaluation.readers.log import Mark
from ChangeMapJointLib.io import run_files
from ChangeMapJointLib.io.opened_run import OpenedRun
from ChangeMapJointLib.scene import layouts
from ChangeMapJointLib.scene.findings import show_in
from ChangeMapJointLib.scene.follow import PriorFollower
from ChangeMapJointLib.scene.map_files import MapFiles
from ChangeMapJointLib.scene.nodes import CURRENT, PRIOR, Node, existing, remove
from ChangeMapJointLib.scene.overlay import Overlay
from ChangeMapJointLib.scene.transforms import linear_transform
from ChangeMapJointLib.scene.volumes import node_of

NOTHING = "ChangeMap nothing"


class StudyCase:
    """The nodes of one case. Nothing tells what the comparison found but the map itself, in the arms that show it.

    Attributes:
        marks: point list into which the reader places marks, in the current scan.
        threshold: of the map at the start.
    """

    def __init__(self, run: OpenedRun, *, aided: bool) -> None:
        """Load the scans, and the map of an aided case.

        Raises:
            InputError: a file cannot be read.
        """
        prior = run.prior()
        if prior is None:
            raise ValueError("StudyCase() 'run' must have its prior scan")
        self._template = node_of(*prior, "Prior", kind="scan")
        del prior
        self._reference = node_of(*run.current(), "Current", kind="scan")
        self._rigid = linear_transform(run.folder / run_files.RIGID, "rigid alignment")
        for node in (self._template, self._reference, self._rigid):
            node.SetSaveWithScene(0)
        files = MapFiles(run.folder)
        self._signed = files.signed(files.keys[0]) if aided else None
        self._overlay = Overlay()
        method = METHODS.get(run.method)  # type: ignore[call-overload]
        self.threshold = DEFAULT_THRESHOLD if method is None else float(method.threshold)
        self._follower: PriorFollower | None = None
        self.marks = _new_marks()

    def arrange(self, manager: Any = None) -> None:
        """Show the originals: current beside prior; call :meth:`fit` once the views have their sizes.

        Args:
            manager: the qSlicerLayoutManager; None to use the scene's layout node.
        """
        layouts.apply(layouts.CHECK, manager)
        self.show()
        layouts.link(existing(CURRENT))
        if self._signed is not None:
            self._overlay.show_signed(*self._signed, existing(CURRENT))
            self._overlay.set_visible(False)
            self._overlay.set_threshold(self.threshold)
            self._signed = None  # the overlay holds it

    def fit(self) -> None:
        """Fit the views to the whole scan, and let the prior's follow."""
        layouts.fit(existing(CURRENT), self._reference)
        if self._follower is None and len(existing(PRIOR)) == len(PRIOR):
            self._follower = PriorFollower(self._rigid)
        if self._follower is not None:
            self._follower.update()

    def show(self) -> None:
        """Show the scans."""
        layouts.set_layers(existing(CURRENT), background=self._reference, foreground=None, label=None)
        layouts.set_layers(existing(PRIOR), background=self._template, foreground=None, label=None)
        show_in(self.marks, existing(CURRENT))

    def hide(self) -> None:
        """Hide everything: the clock stands still."""
        self._overlay.set_visible(False)
        layouts.set_layers((*existing(CURRENT), *existing(PRIOR)), background=_nothing())
        show_in(self.marks, ())

    def set_map(self, *, shown: bool, threshold: float) -> None:
        """Show or hide the map; nothing in an unaided case.

        Args:
            shown: whether it is shown.
            threshold: of it, in (0, 1].
        """
        if self._overlay.nodes:
            self._overlay.set_threshold(threshold)
            self._overlay.set_visible(shown)

    def set_window(self, name: str) -> None:
        """Show both scans in the window ``lung``, ``mediastinum`` or ``bone``."""
        layouts.apply_window((self._reference, self._template), name)

    def restore_marks(self, marks: Sequence[Mark]) -> list[str]:
        """Place marks of an earlier sitting; return the control points' identifiers, in the same order."""
        found = []
        for mark in marks:
            index = self.marks.AddControlPoint(lps_to_ras(mark.position_mm).tolist(), str(mark.number))
            found.append(str(self.marks.GetNthControlPointID(index)))
        return found

    def in_current(self, ras: Vector3, view: str) -> Vector3:
        """Return the point of the current scan (RAS) for one that was placed in a view; the prior's is mapped back."""
        if view not in PRIOR:
            return ras
        x, y, z = self._rigid.GetTransformToParent().TransformPoint(ras)
        return x, y, z

    def close(self) -> None:
        """Remove everything from views and scene."""
        if self._follower is not None:
            self._follower.remove()
            self._follower = None
        self.hide()
        self._overlay.remove()
        for node in (self.marks, self._reference, self._template, self._rigid):
            remove(node)


def view_under_cursor() -> str:
    """Return the name of the slice view that the mouse is over; empty outside of all."""
    crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    node = None if crosshair is None else crosshair.GetCursorPositionXYZ([0.0] * 3)
    return "" if node is None else str(node.GetLayoutName())


def _nothing() -> Node:
    """Return a black volume of one voxel; without any layer, slice views that once had extra ones report an error."""
    node = slicer.mrmlScene.GetFirstNodeByName(NOTHING)
    if node is None:
        node = node_of(np.full((1, 1, 1), AIR_HU, np.int16), Grid((1, 1, 1)), NOTHING, kind="scan", hidden=True)
    return node


def _new_marks() -> Node:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "Marks")
    node.CreateDefaultDisplayNodes()
    node.SetSaveWithScene(0)
    return node
