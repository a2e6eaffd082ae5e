"""What each slice view shows, written into it: which scan, orientation letters, a scale bar, and where a swipe cuts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk
from numpy.typing import NDArray

from ChangeMapJointLib.scene.colors import RGB, YELLOW
from ChangeMapJointLib.scene.nodes import Node, existing, slice_node

LETTERS = (("R", "L"), ("A", "P"), ("S", "I"))  # towards + and - of each axis in RAS
OBLIQUE = 0.5  # a second letter is written from this share of the direction on
BARS_MM = (1, 2, 5, 10, 20, 50, 100, 200)
BAR_SHARE = 0.3  # of the width, at most
MARGIN = 8  # pixels
LAYER = 5  # above the image
PALE: RGB = (1.0, 1.0, 1.0)
Plane = tuple[NDArray[np.float64], NDArray[np.float64]]  # a point and its normal (RAS, mm)


class PaneLabels:
    """Writes into the slice views; :meth:`remove` takes all of it away.

    Args:
        manager: the application's qSlicerLayoutManager; None writes nothing.
    """

    def __init__(self, manager: Any) -> None:
        self._manager = manager
        self._panes: dict[str, _Pane] = {}

    def show(self, titles: Mapping[str, str]) -> None:
        """Write a title into each of these views that exists, and its letters and scale; others are left alone."""
        shown = set(existing(list(titles))) if self._manager is not None else set()
        for view in set(self._panes) - shown:
            self._panes.pop(view).remove()
        for view, title in titles.items():
            if view not in shown:
                continue
            if view not in self._panes:
                widget = self._manager.sliceWidget(view)
                if widget is None:
                    continue
                self._panes[view] = _Pane(view, widget.sliceView())
            self._panes[view].set_title(title)

    def title(self, view: str) -> str:
        """Return what stands in a view; empty if nothing does."""
        return self._panes[view].title if view in self._panes else ""

    def letters(self, view: str) -> str:
        """Return the orientation letters of a view: left, right, top, bottom."""
        return " ".join(self._panes[view].letters) if view in self._panes else ""

    def divide(self, views: Sequence[str], plane: Plane | None, sides: tuple[str, str] = ("", "")) -> None:
        """Draw where a plane cuts these views; a view wholly on the side of its normal gets that side's title.

        Args:
            views: names of slice views.
            plane: None takes the line away.
            sides: what is shown behind the plane, and on the side to which its normal points.
        """
        for view, pane in self._panes.items():
            pane.divide(plane if view in views else None, sides)

    def remove(self) -> None:
        """Take everything out of the views."""
        for pane in self._panes.values():
            pane.remove()
        self._panes = {}


class _Pane:
    """The texts of one view."""

    def __init__(self, view: str, widget: Any) -> None:
        self._view, self._widget = view, widget
        self._node: Node = slice_node(view)
        self._renderer = widget.renderWindow().GetRenderers().GetItemAsObject(0)
        self._texts = {name: _text(*place) for name, place in PLACES.items()}
        self._bar, self._bar_points = _polyline()
        self._bar_edge, _ = _polyline((0.0, 0.0, 0.0), 5.0, self._bar_points)  # seen on bone, too
        self._cut, self._cut_points = _polyline(YELLOW)
        self._cut_texts = (_text("right", "top"), _text("left", "top"))
        self._plane: Plane | None = None
        self._title, self._sides = "", ("", "")
        self._actors = [*self._texts.values(), self._bar_edge, self._bar, self._cut, *self._cut_texts]
        for actor in (self._cut, *self._cut_texts):
            actor.SetVisibility(False)
        for actor in self._actors:
            self._renderer.AddViewProp(actor)
        self._observer = self._node.AddObserver("ModifiedEvent", lambda *_: self._place())
        self.letters: tuple[str, ...] = ()
        self._place()

    @property
    def title(self) -> str:
        return str(self._texts["title"].GetInput() or "")

    def set_title(self, title: str) -> None:
        self._title = title
        self._place()
        self._widget.scheduleRender()

    def divide(self, plane: Plane | None, sides: tuple[str, str]) -> None:
        self._plane, self._sides = plane, sides
        for text, words in zip(self._cut_texts, sides, strict=True):
            text.SetInput(words)
        self._place()
        self._widget.scheduleRender()

    def remove(self) -> None:
        self._node.RemoveObserver(self._observer)
        for actor in self._actors:
            self._renderer.RemoveViewProp(actor)
        self._widget.scheduleRender()

    def _place(self) -> None:
        width, height, _ = self._node.GetDimensions()
        to_ras = slicer.util.arrayFromVTKMatrix(self._node.GetXYToRAS())
        across, along = to_ras[:3, 0], to_ras[:3, 1]
        self.letters = (_letter(-across), _letter(across), _letter(along), _letter(-along))
        size = int(min(17, max(11, height / 26)))
        self._texts["title"].SetInput(self._sides[1] if self._beyond(to_ras, width, height) else self._title)
        for actor in (*self._texts.values(), *self._cut_texts):
            actor.GetTextProperty().SetFontSize(size)
        places = {
            "title": (width / 2, height - MARGIN),
            "left": (MARGIN, height / 2),
            "right": (width - MARGIN, height / 2),
            "top": (width / 2, height - MARGIN - 1.4 * size * (1 + self.title.count("\n"))),
            "bottom": (width / 2, MARGIN),
            "bar": (width - MARGIN, MARGIN + 9),
        }
        for name, letter in zip(("left", "right", "top", "bottom"), self.letters, strict=True):
            self._texts[name].SetInput(letter)
        self._place_bar(width, float(np.linalg.norm(across)))
        for name, place in places.items():
            self._texts[name].SetPosition(*place)
        self._place_cut(width, height, to_ras, size)

    def _beyond(self, to_ras: NDArray[Any], width: int, height: int) -> bool:
        """Whether all of the view lies where the plane's normal points to."""
        if self._plane is None or _cut(self._plane, to_ras, width, height) is not None:
            return False
        point, normal = self._plane
        middle = to_ras[:3, 3] + to_ras[:3, 0] * width / 2 + to_ras[:3, 1] * height / 2
        return float(normal @ (middle - point)) > 0

    def _place_bar(self, width: int, mm_per_pixel: float) -> None:
        fitting = [mm for mm in BARS_MM if mm <= BAR_SHARE * width * mm_per_pixel]
        self._bar.SetVisibility(bool(fitting))
        self._bar_edge.SetVisibility(bool(fitting))
        self._texts["bar"].SetInput(f"{fitting[-1]} mm" if fitting else "")
        if fitting:
            end = width - MARGIN
            start = end - fitting[-1] / mm_per_pixel
            _set_points(self._bar_points, (start, MARGIN + 4, start, MARGIN, end, MARGIN, end, MARGIN + 4))

    def _place_cut(self, width: int, height: int, to_ras: NDArray[Any], size: int) -> None:
        line = None if self._plane is None else _cut(self._plane, to_ras, width, height)
        self._cut.SetVisibility(line is not None)
        for text in self._cut_texts:
            text.SetVisibility(line is not None)
        if line is None:
            return
        _set_points(self._cut_points, line)
        x, y = line[2], height - MARGIN - 3.2 * size
        assert self._plane is not None
        towards = float(to_ras[:3, 0] @ self._plane[1]) > 0  # the normal points to the right of the view
        for text, right in zip(self._cut_texts, (not towards, towards), strict=True):
            text.GetTextProperty().SetJustification(vtk.VTK_TEXT_LEFT if right else vtk.VTK_TEXT_RIGHT)
            text.SetPosition(x + (MARGIN if right else -MARGIN), y)


PLACES = {
    "title": ("middle", "top"),
    "left": ("left", "middle"),
    "right": ("right", "middle"),
    "top": ("middle", "top"),
    "bottom": ("middle", "bottom"),
    "bar": ("right", "bottom"),
}
_ACROSS = {"left": vtk.VTK_TEXT_LEFT, "middle": vtk.VTK_TEXT_CENTERED, "right": vtk.VTK_TEXT_RIGHT}
_ALONG = {"top": vtk.VTK_TEXT_TOP, "middle": vtk.VTK_TEXT_CENTERED, "bottom": vtk.VTK_TEXT_BOTTOM}


def _letter(direction: NDArray[Any]) -> str:
    """Return the letters of the patient's sides that a direction points to, the main one first."""
    shares = direction / max(float(np.linalg.norm(direction)), 1e-9)
    axes = [int(axis) for axis in np.argsort(-np.abs(shares)) if abs(shares[axis]) >= OBLIQUE][:2]
    return "".join(LETTERS[axis][int(shares[axis] < 0)] for axis in axes)


def _text(across: str, along: str) -> Any:
    actor = vtk.vtkTextActor()
    style = actor.GetTextProperty()
    style.SetJustification(_ACROSS[across])
    style.SetVerticalJustification(_ALONG[along])
    style.SetColor(*PALE)
    style.SetBold(True)
    style.SetBackgroundColor(0.0, 0.0, 0.0)
    style.SetBackgroundOpacity(0.6)  # readable over bone and over lung
    actor.SetLayerNumber(LAYER)
    return actor


def _polyline(color: RGB = PALE, width: float = 2.0, line: Any = None) -> tuple[Any, Any]:
    """Return an actor of a line in pixels, and its points; ``line`` are those of another actor, to share."""
    points, lines, data = line or (vtk.vtkPoints(), vtk.vtkCellArray(), vtk.vtkPolyData())
    data.SetPoints(points)
    data.SetLines(lines)
    mapper, actor = vtk.vtkPolyDataMapper2D(), vtk.vtkActor2D()
    mapper.SetInputData(data)
    actor.SetMapper(mapper)
    actor.GetProperty().SetColor(*color)
    actor.GetProperty().SetLineWidth(width)
    actor.SetLayerNumber(LAYER)
    return actor, (points, lines, data)


def _set_points(line: Any, values: Sequence[float]) -> None:
    points, lines, data = line
    points.Reset()
    lines.Reset()
    count = len(values) // 2
    lines.InsertNextCell(count)
    for i in range(count):
        lines.InsertCellPoint(points.InsertNextPoint(values[2 * i], values[2 * i + 1], 0.0))
    points.Modified()
    lines.Modified()
    data.Modified()


def _cut(plane: Plane, to_ras: NDArray[Any], width: int, height: int) -> tuple[float, float, float, float] | None:
    """Return the line in pixels, from bottom to top, in which a plane cuts a view; None if it does not."""
    point, normal = plane
    a, b = float(normal @ to_ras[:3, 0]), float(normal @ to_ras[:3, 1])
    c = float(normal @ (point - to_ras[:3, 3]))
    if abs(a) < 1e-6 or abs(b) > abs(a):  # parallel to the view, or steep
        return None
    bottom, top = c / a, (c - b * height) / a
    return (bottom, 0.0, top, float(height)) if 0 <= bottom <= width or 0 <= top <= width else None
