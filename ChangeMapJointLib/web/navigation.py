"""Scrolling, panning, zooming and the crosshair, through the deformation into the prior's views."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import slicer.util

from ChangeMapJointLib.core.grid import FloatArray, Vector3, lps_to_ras
from ChangeMapJointLib.scene import layouts
from ChangeMapJointLib.scene.follow import PriorFollower, new_mark
from ChangeMapJointLib.scene.nodes import CURRENT, PRIOR, Node, slice_node

LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))  # at the negative and the positive end of each axis of RAS
SMALLEST_MM, LARGEST_MM = 0.05, 10.0  # per pixel
FINDING_MM = 80.0  # shown across a view that jumps to a finding
MOST_STEPS = 1000
SMALLEST_TEXT, LARGEST_TEXT = 30, 60  # percent of Slicer's scale for marks and their names, which counts pixels


def text_scale(width_px: int, height_px: int) -> float:
    """Return Slicer's scale of marks and their names in a view: as large as the page's own text on any screen.

    Examples:
        >>> text_scale(1500, 1140), text_scale(3840, 2160)
        (0.5, 0.6)
    """
    return min(max(20 + min(width_px, height_px) / 38, SMALLEST_TEXT), LARGEST_TEXT) / 100


class Navigation:
    """Moves the views of one run. A prior's view shows the place that corresponds to its current view.

    Attributes:
        reference: node of the current scan.
        position: where the crosshair is, RAS in the current scan; None before it was placed.
    """

    def __init__(self, reference: Node, deformation: Node | None) -> None:
        """Start with the views as they are.

        Args:
            reference: volume node of the current scan.
            deformation: transform node from current to prior; None without one.
        """
        self.reference, self.deformation = reference, deformation
        self.position: Vector3 | None = None
        self._follower: PriorFollower | None = None
        self._fitted: set[str] = set()
        self._mark: Node | None = None

    # -- the prior -----------------------------------------------------------------------------
    def follow(self, mapping: Node | None) -> None:
        """Let the prior's views show the corresponding place as acquired.

        Args:
            mapping: transform node from current to prior; None if they show the warped prior, at the same place.
        """
        if self._follower is not None:
            self._follower.remove()
        self._follower = PriorFollower(mapping, follow_mouse=False) if mapping is not None else None
        self._show_mark()
        self.sync()

    def sync(self) -> None:
        """Bring the prior's views to the place of the current ones."""
        if self._follower is None:
            for view, like in zip(PRIOR, CURRENT, strict=True):
                layouts.match(view, like)
        else:
            self._follower.update()

    # -- sizes ---------------------------------------------------------------------------------
    def sized(self, view: str) -> None:
        """Fit a view to the whole scan when it gets its first size; later it keeps its scale."""
        width, height, _ = slice_node(view).GetDimensions()
        slice_node(view).SetScreenScaleFactor(text_scale(width, height))
        if view in CURRENT and view not in self._fitted and min(slice_node(view).GetDimensions()[:2]) > 10:
            self._fitted.add(view)
            layouts.fit([view], self.reference)
            self.scroll(view, 0)
        self.sync()

    def fit(self) -> None:
        """Fit all views to the whole scan."""
        layouts.fit(CURRENT, self.reference)
        for view in CURRENT:
            self.scroll(view, 0)

    # -- movements -----------------------------------------------------------------------------
    def scroll(self, view: str, steps: float) -> None:
        """Move a view by slices of the current scan, forwards if positive; a prior's view moves with its partner."""
        node = slice_node(partner(view))
        matrix = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
        normal, centre = matrix[:3, 2], matrix[:3, 3]
        (low, high), step = _range(self.reference, normal), _step(self.reference, normal)
        here = float(centre @ normal)
        index = np.floor((here - low) / step + 0.5) + round(float(np.clip(steps, -MOST_STEPS, MOST_STEPS)))
        at = min(max(low + float(index) * step, low), high)  # in the middle of a slice, not between two
        self._move(node, centre + normal * (at - here))
        self.sync()

    def slices(self, view: str, scan: Node | None = None) -> tuple[int, int]:
        """Return the number of the slice that a view shows, from 1, and how many there are.

        Args:
            view: name of the view.
            scan: volume node whose slices are counted; None for the current scan.
        """
        node = self.reference if scan is None else scan
        matrix = slicer.util.arrayFromVTKMatrix(slice_node(view).GetSliceToRAS())
        (low, high), step = _range(node, matrix[:3, 2]), _step(node, matrix[:3, 2])
        count = round((high - low) / step) + 1
        index = np.floor((float(matrix[:3, 3] @ matrix[:3, 2]) - low) / step + 0.5)
        return int(np.clip(index, 0, count - 1)) + 1, count

    def pan(self, view: str, right_px: float, down_px: float) -> None:
        """Drag the picture of a view by some pixels of its window."""
        node = slice_node(partner(view))
        matrix = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
        mm = node.GetFieldOfView()[0] / max(node.GetDimensions()[0], 1)
        self._move(node, matrix[:3, 3] - mm * (right_px * matrix[:3, 0] - down_px * matrix[:3, 1]))
        self.sync()

    def zoom(self, factor: float) -> None:
        """Multiply the millimetres per pixel of all views by a factor."""
        for view in CURRENT:
            node = slice_node(view)
            width, height, depth = node.GetFieldOfView()
            mm = width / max(node.GetDimensions()[0], 1)
            scale = float(np.clip(mm * factor, SMALLEST_MM, LARGEST_MM)) / mm
            node.SetFieldOfView(width * scale, height * scale, depth)
        self.sync()

    def point(self, view: str, x_px: float, y_px: float) -> Vector3:
        """Return the point of the current scan (RAS) at a pixel of a view's window, from its lower left.

        A point of the prior as acquired is mapped back through the deformation.
        """
        x, y, z = self._to_ras(view, (x_px, y_px))
        if view in PRIOR and self._follower is not None and self._mapping is not None:
            x, y, z = self._mapping.GetTransformToParent().TransformPoint((x, y, z))
        return x, y, z

    def place(self, ras: Vector3, *, centre: bool, source: str = "") -> None:
        """Put the crosshair on a point of the current scan.

        Args:
            ras: the point.
            centre: bring it to the middle of all views; otherwise they only move to its slice.
            source: the view that it was set in, which does not move.
        """
        self.position = ras
        for view in CURRENT:
            if centre:
                slice_node(view).JumpSliceByCentering(*ras)
            elif view != partner(source):
                slice_node(view).JumpSliceByOffsetting(*ras)
        self._show_mark()
        self.sync()

    def jump_mm(self, point_mm: Any, *, zoom: bool = True) -> None:
        """Show a finding (LPS, mm) in the middle of all views, enlarged."""
        x, y, z = lps_to_ras(point_mm).tolist()
        self.place((x, y, z), centre=True)
        if zoom:
            node = slice_node("Red")
            across = min(node.GetFieldOfView()[:2])
            self.zoom(FINDING_MM / across if across > FINDING_MM else 1.0)

    # -- what is written on the views --------------------------------------------------------------
    def letters(self, view: str) -> dict[str, str]:
        """Return the letters of the patient's sides at the left, right, top and bottom of a view."""
        matrix = slicer.util.arrayFromVTKMatrix(slice_node(view).GetSliceToRAS())
        right, up = (_letters(matrix[:3, axis]) for axis in (0, 1))
        return {"left": right[0], "right": right[1], "bottom": up[0], "top": up[1]}

    def close(self) -> None:
        """Stop following."""
        if self._follower is not None:
            self._follower.remove()
        self._follower = None

    # -- inside --------------------------------------------------------------------------------
    @property
    def _mapping(self) -> Node | None:
        return self.deformation

    def _to_ras(self, view: str, xy: tuple[float, float]) -> Vector3:
        matrix = slice_node(view).GetXYToRAS()
        x, y, z, _ = matrix.MultiplyPoint((*xy, 0.0, 1.0))
        return x, y, z

    @staticmethod
    def _move(node: Node, centre: FloatArray) -> None:
        was = node.StartModify()
        for row, value in enumerate(centre.tolist()):
            node.GetSliceToRAS().SetElement(row, 3, value)
        node.UpdateMatrices()
        node.EndModify(was)

    def _show_mark(self) -> None:
        """Draw the crosshair in the current views, and the corresponding one in the prior's."""
        if self.position is None:
            return
        if self._mark is None:
            self._mark = new_mark("ChangeMap crosshair")
        if self._mark.GetNumberOfControlPoints() == 0:
            self._mark.AddControlPoint(self.position)
            self._mark.SetNthControlPointLocked(0, True)
        else:
            self._mark.SetNthControlPointPosition(0, *self.position)
        views = CURRENT if self._follower is not None else (*CURRENT, *PRIOR)
        display = self._mark.GetDisplayNode()
        was = display.StartModify()
        display.RemoveAllViewNodeIDs()
        for view in views:
            display.AddViewNodeID(slice_node(view).GetID())
        display.EndModify(was)
        if self._follower is not None:
            self._follower.mark_at(self.position)


def partner(view: str) -> str:
    """Return the current view of a prior's view; a current view is its own partner."""
    return CURRENT[PRIOR.index(view)] if view in PRIOR else view


def _letters(direction: FloatArray) -> tuple[str, str]:
    """Return the letters at the negative and the positive end of a direction in RAS."""
    axis = int(np.abs(direction).argmax())
    low, high = LETTERS[axis]
    return (low, high) if direction[axis] > 0 else (high, low)


def _index_to_ras(node: Node) -> FloatArray:
    matrix = slicer.util.vtkMatrixFromArray(np.eye(4))
    node.GetIJKToRASMatrix(matrix)
    return np.asarray(slicer.util.arrayFromVTKMatrix(matrix))


def _range(node: Node, normal: FloatArray) -> tuple[float, float]:
    """Return where along a normal the first and the last slice of a volume lie, in mm."""
    places = _corners(node) @ normal
    return float(places.min()), float(places.max())


def _step(node: Node, normal: FloatArray) -> float:
    matrix = _index_to_ras(node)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    along = np.abs((matrix[:3, :3] / spacing).T @ normal)
    return float(spacing[int(along.argmax())])


def _corners(node: Node) -> FloatArray:
    """Return the centres of the corner voxels, ``[8, 3]`` RAS."""
    last = np.array(node.GetImageData().GetDimensions()) - 1
    index = np.stack(np.meshgrid(*((0, n) for n in last.tolist()), indexing="ij"), -1).reshape(-1, 3)
    matrix = _index_to_ras(node)
    return np.asarray(index @ matrix[:3, :3].T + matrix[:3, 3])
