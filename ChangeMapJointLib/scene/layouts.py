"""Layout of the slice views, the layers they show, and their position."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import slicer
import slicer.util
from numpy.typing import ArrayLike

from ChangeMapJointLib.core.grid import FloatArray, Vector3
from ChangeMapJointLib.scene.nodes import (
    CURRENT,
    ORIENTATIONS,
    PRIOR,
    Node,
    Views,
    composite_node,
    existing,
    slice_node,
)
from ChangeMapJointLib.scene.volumes import set_window

COMPARE, READ, CHECK = 7310, 7311, 7312  # Slicer's own layouts end below 1000
OURS = (COMPARE, READ, CHECK)
STANDARD: int = slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView
NARROWEST_PX = 200  # of a view: three beside the panel fit a window of 1280, which Slicer's own 320 do not
KEEP: Any = object()  # leave a layer as it is
CURRENT_GROUP, PRIOR_GROUP = 0, 1  # views are linked within a group
COLORS = {"Red": "#F34A33", "Green": "#6EB04B", "Yellow": "#EDD54C"}
LETTERS = {"Red": "R", "Green": "G", "Yellow": "Y"}


def description(layout: int) -> str:
    """Return a layout as XML.

    Args:
        layout: COMPARE (current above prior), READ (one large axial view), or CHECK (axial current beside prior).
    """
    red, green, yellow = (_view(view) for view in CURRENT)
    prior = [_view(view) for view in PRIOR]
    arrangements = {
        COMPARE: _split("vertical", _split("horizontal", red, green, yellow), _split("horizontal", *prior)),
        READ: _split("horizontal", red, _split("vertical", green, yellow), sizes=(700, 300)),
        CHECK: _split("vertical", _split("horizontal", red, prior[0]), _split("horizontal", green, yellow)),
    }
    return arrangements[layout]


def _split(kind: str, *parts: str, sizes: tuple[int, ...] = ()) -> str:
    """Return a row or column; without sizes, equal parts, which else would keep those of the layout before."""
    weights = [f' splitSize="{size}"' for size in sizes or (500,) * len(parts)]
    items = "".join(f"<item{weight}>{part}</item>" for weight, part in zip(weights, parts, strict=True))
    return f'<layout type="{kind}" split="true">{items}</layout>'


def _view(view: str) -> str:
    is_prior = view in PRIOR
    color = CURRENT[PRIOR.index(view)] if is_prior else view
    properties = {
        "orientation": ORIENTATIONS[CURRENT.index(color)],
        "viewlabel": f"P{LETTERS[color]}" if is_prior else LETTERS[color],
        "viewcolor": COLORS[color],
        "viewgroup": str(PRIOR_GROUP if is_prior else CURRENT_GROUP),
    }
    inside = "".join(f'<property name="{key}" action="default">{value}</property>' for key, value in properties.items())
    return f'<view class="vtkMRMLSliceNode" singletontag="{view}">{inside}</view>'


def register_layouts(manager: Any = None) -> Node | None:
    """Make the layouts known to the application; each session needs it, since scenes store their numbers only.

    Args:
        manager: the qSlicerLayoutManager; None to use the scene's layout node.

    Returns:
        The layout node; None if there is none.
    """
    node = manager.layoutLogic().GetLayoutNode() if manager is not None else None
    node = node or slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    if node is not None:
        for layout in OURS:
            change = node.SetLayoutDescription if node.IsLayoutDescription(layout) else node.AddLayoutDescription
            change(layout, description(layout))
    return node


def apply(layout: int, manager: Any = None) -> bool:
    """Arrange the application's views; its layout manager creates those that are missing.

    The layout is not saved with the scene: without this extension nothing would be shown.

    Args:
        layout: COMPARE, READ or CHECK.
        manager: the qSlicerLayoutManager; None to use the scene's layout node.

    Returns:
        False if there is no layout node.
    """
    node = register_layouts(manager)
    if node is None:
        return False
    node.SetSaveWithScene(0)
    node.SetViewArrangement(layout)
    _allow_narrow(manager)
    for view in existing(PRIOR):  # also for views that existed before
        slice_node(view).SetViewGroup(PRIOR_GROUP)
        composite_node(view).SetDoPropagateVolumeSelection(False)  # a volume that is loaded is not the prior
    return True


def _allow_narrow(manager: Any) -> None:
    """Let the views be narrower than the buttons in their bar, so that the window need not be wider than the screen."""
    for view in (*CURRENT, *PRIOR) if manager is not None else ():
        widget = manager.sliceWidget(view)
        if widget is not None:
            widget.minimumWidth = NARROWEST_PX


def current(manager: Any = None) -> int:
    """Return the number of the application's layout, one of its own or of ours."""
    node = register_layouts(manager)
    return STANDARD if node is None else int(node.GetViewArrangement())


def leave(layout: int, manager: Any = None) -> None:
    """Go back to a layout of the application's own, unless another than ours is shown already."""
    node = register_layouts(manager)
    if node is None:
        return
    if node.GetViewArrangement() in OURS:
        node.SetViewArrangement(STANDARD if layout in OURS else layout)
    node.SetSaveWithScene(1)


def set_layers(
    views: Views,
    *,
    background: Node | None = KEEP,
    foreground: Node | None = KEEP,
    label: Node | None = KEEP,
    opacity: float | None = None,
) -> None:
    """Set the layers of some views; a layer that is not given is kept.

    Args:
        views: names of slice views.
        background: volume node; None to show nothing.
        foreground: volume node above it; None to show nothing.
        label: label map node above both; None to show nothing.
        opacity: of the foreground, 0 to 1.
    """
    for view in views:
        composite = composite_node(view)
        was = composite.StartModify()
        for node, change in (
            (background, composite.SetBackgroundVolumeID),
            (foreground, composite.SetForegroundVolumeID),
            (label, composite.SetLabelVolumeID),
        ):
            if node is not KEEP:
                change(node.GetID() if node is not None else None)
        if opacity is not None:
            composite.SetForegroundOpacity(opacity)
        composite.EndModify(was)


def link(views: Views, group: int = CURRENT_GROUP, *, linked: bool = True) -> None:
    """Link some views, so that they follow when the user scrolls, pans or zooms one of them."""
    for view in views:
        slice_node(view).SetViewGroup(group)
        composite_node(view).SetLinkedControl(linked)
        composite_node(view).SetHotLinkedControl(linked)


def apply_window(nodes: Iterable[Node | None], preset: str) -> None:
    """Show some CTs in the window 'lung', 'mediastinum' or 'bone'."""
    for node in nodes:
        if node is not None:
            set_window(node, preset)


def fit(views: Views, node: Node) -> None:
    """Center some views on a volume node, and zoom so that all of it is visible."""
    bounds = [0.0] * 6
    node.GetRASBounds(bounds)
    low, high = np.array(bounds[::2]), np.array(bounds[1::2])
    for view in views:
        target = slice_node(view)
        axes = np.abs(slicer.util.arrayFromVTKMatrix(target.GetSliceToRAS())[:3, :3])
        across, along, _ = axes.T @ (high - low)
        width, height, _ = target.GetDimensions()
        mm = max(across / max(width, 1), along / max(height, 1))  # per pixel
        target.SetFieldOfView(width * mm, height * mm, target.GetFieldOfView()[2])
        target.JumpSliceByCentering(*((low + high) / 2).tolist())


def match(view: str, like: str, centre: Vector3 | None = None) -> None:
    """Give ``view`` the orientation and scale of ``like``, centered on ``centre`` (RAS, mm) or else as ``like`` is."""
    source, target = slice_node(like), slice_node(view)
    mm = source.GetFieldOfView()[0] / max(source.GetDimensions()[0], 1)  # per pixel
    width, height, _ = target.GetDimensions()
    was = target.StartModify()
    matrix = target.GetSliceToRAS()
    matrix.DeepCopy(source.GetSliceToRAS())  # not by the orientation's name: an oblique view has none
    for row, value in enumerate(centre or ()):
        matrix.SetElement(row, 3, value)
    target.SetFieldOfView(width * mm, height * mm, target.GetFieldOfView()[2])
    target.UpdateMatrices()
    target.EndModify(was)


def across(view: str, share: float) -> FloatArray:
    """Return the point (RAS, mm) at a share of a view's width, from its left edge, in the middle of its height."""
    node = slice_node(view)
    width, height, _ = node.GetDimensions()
    to_ras = slicer.util.arrayFromVTKMatrix(node.GetXYToRAS())
    point: FloatArray = (to_ras @ (share * width, height / 2, 0.0, 1.0))[:3]
    return point


def jump(ras: ArrayLike, views: Views = CURRENT) -> None:
    """Center some views on a point (RAS, mm), and put the crosshair there."""
    r, a, s = (float(v) for v in np.asarray(ras, dtype=float))
    for view in views:
        slice_node(view).JumpSliceByCentering(r, a, s)
    crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    if crosshair is not None:
        crosshair.SetCrosshairRAS(r, a, s)
