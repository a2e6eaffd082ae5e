"""What views and CTs showed before a comparison came on screen, so that it can be put back."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import slicer
import slicer.util

from ChangeMapJointLib.scene.nodes import Node, Views, composite_node, existing, slice_node


@dataclass(frozen=True)
class _View:
    """Layers, links and position of one slice view; layers by node ID, None if empty."""

    background: str | None
    foreground: str | None
    label: str | None
    opacity: float
    linked: bool
    hot_linked: bool
    group: int
    slice_to_ras: Any
    mm_per_pixel: float


class ViewState:
    """State of some slice views and of the windows of some volumes, as they were when this was made.

    Example:
        >>> before = ViewState(CURRENT, [reference])  # doctest: +SKIP
        >>> before.restore([reference])  # doctest: +SKIP
    """

    def __init__(self, views: Views, volumes: Iterable[Node | None]) -> None:
        self._views = {view: _capture(view) for view in existing(views)}
        self._windows: dict[str, tuple[bool, float, float]] = {}
        self.remember(volumes)

    def remember(self, volumes: Iterable[Node | None]) -> None:
        """Put the windows of these volumes back as well, as they are now; those known already stay as they were."""
        for node in volumes:
            if node is not None and node.GetDisplayNode():
                self._windows.setdefault(node.GetID(), _window(node))

    def restore(self, ours: Collection[str]) -> None:
        """Put layers, links, positions and windows back.

        A view whose background was changed meanwhile keeps its layers: they are what the user chose. Where the view
        was empty before, the background stays.

        Args:
            ours: IDs of the volumes that the comparison may show as background.
        """
        for view, state in self._views.items():
            if existing([view]):
                _restore(view, state, ours)
        self.restore_windows()

    def restore_windows(self) -> None:
        """Put the windows of the volumes back."""
        for node_id, (automatic, window, level) in self._windows.items():
            node = slicer.mrmlScene.GetNodeByID(node_id)
            display = node.GetDisplayNode() if node is not None else None
            if display is not None:
                display.SetAutoWindowLevel(automatic)
                if not automatic:
                    display.SetWindowLevel(window, level)

    def restore_positions(self) -> None:
        """Put the views where they were, at the scale that they had."""
        for view, state in self._views.items():
            if existing([view]):
                _place(view, state)


def _capture(view: str) -> _View:
    composite, node = composite_node(view), slice_node(view)
    return _View(
        composite.GetBackgroundVolumeID(),
        composite.GetForegroundVolumeID(),
        composite.GetLabelVolumeID(),
        composite.GetForegroundOpacity(),
        bool(composite.GetLinkedControl()),
        bool(composite.GetHotLinkedControl()),
        node.GetViewGroup(),
        slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS()),
        node.GetFieldOfView()[0] / max(node.GetDimensions()[0], 1),
    )


def _restore(view: str, state: _View, ours: Collection[str]) -> None:
    composite = composite_node(view)
    was = composite.StartModify()
    composite.SetLinkedControl(state.linked)
    composite.SetHotLinkedControl(state.hot_linked)
    slice_node(view).SetViewGroup(state.group)
    is_ours = composite.GetBackgroundVolumeID() in ours
    if is_ours and _alive(state.background):
        composite.SetBackgroundVolumeID(state.background)
        composite.SetForegroundVolumeID(_alive(state.foreground))
        composite.SetLabelVolumeID(_alive(state.label))
        composite.SetForegroundOpacity(state.opacity)
        _place(view, state)
    composite.EndModify(was)


def _place(view: str, state: _View) -> None:
    node = slice_node(view)
    was = node.StartModify()
    node.GetSliceToRAS().DeepCopy(slicer.util.vtkMatrixFromArray(state.slice_to_ras))
    width, height, _ = node.GetDimensions()
    node.SetFieldOfView(width * state.mm_per_pixel, height * state.mm_per_pixel, node.GetFieldOfView()[2])
    node.UpdateMatrices()
    node.EndModify(was)


def _alive(node_id: str | None) -> str | None:
    """Return the ID if its node is still in the scene."""
    return node_id if node_id and slicer.mrmlScene.GetNodeByID(node_id) is not None else None


def _window(node: Node) -> tuple[bool, float, float]:
    display = node.GetDisplayNode()
    return bool(display.GetAutoWindowLevel()), display.GetWindow(), display.GetLevel()
