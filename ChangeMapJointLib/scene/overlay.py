"""The change map over the current scan, above a threshold: orange where denser now, blue where less dense."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk
from numpy.typing import NDArray

from ChangeMapJointLib.change.method_table import DEFAULT_THRESHOLD
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.core.hu import FULL_SCALE_HU
from ChangeMapJointLib.scene.colors import change_table
from ChangeMapJointLib.scene.layouts import set_layers
from ChangeMapJointLib.scene.nodes import (
    Node,
    Views,
    composite_node,
    existing,
    hide_extra,
    remove,
    show_extra,
)
from ChangeMapJointLib.scene.volumes import grid_of, new_node, node_of

LOWEST = 1e-6  # smallest threshold, so that voxels without change are never shown
BEYOND = 2.0  # above all values of a map
SIGNS = {"increase": 1, "decrease": -1}
LEGEND_TITLE = "Change"


class Overlay:
    """Shows a signed map in [-1, 1] by two hidden volume nodes that share its voxels: increases and decreases.

    Its nodes are not saved with the scene; make a new overlay after loading a scene.
    """

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._shown = {"increase": True, "decrease": True}
        self._views: tuple[str, ...] = ()
        self._visible = True
        self._opacity = 1.0
        self._threshold = DEFAULT_THRESHOLD
        self._scale: Node | None = None

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The volume nodes of increases and decreases; empty before :meth:`show`."""
        return tuple(self._nodes.values())

    @property
    def threshold(self) -> float:
        """Voxels with at least this value are shown, in (0, 1]."""
        return self._threshold

    def show(self, map_node: Node | None, signed_node: Node, views: Views) -> None:
        """Show a change map over some views; a map shown before is replaced.

        Args:
            map_node: change map in [0, 1]; None for the signed difference itself, scaled so that the full scale of
                change maps is 1.
            signed_node: R - T(y) in HU on the same grid; its sign tells increases from decreases.
            views: names of slice views.

        Raises:
            ValueError: the two nodes are not on the same grid.
        """
        grid = grid_of(signed_node)
        if map_node is not None and not grid.same_as(grid_of(map_node)):
            raise ValueError("Overlay.show() 'signed_node' must be on the grid of 'map_node'")
        signed_hu = slicer.util.arrayFromVolume(signed_node)
        if map_node is None:
            signed = np.clip(signed_hu.astype(np.float32) / np.float32(FULL_SCALE_HU), -1.0, 1.0)
        else:
            signed = signed_map(slicer.util.arrayFromVolume(map_node), signed_hu)
        self.show_signed(signed, grid, views)

    def show_signed(self, signed: NDArray[np.float32], grid: Grid, views: Views) -> None:
        """Show a map that has its sign already over some views; a map shown before is replaced.

        Args:
            signed: in [-1, 1], float32 ``[z, y, x]``, denser now positive; it is copied.
            grid: of the map, LPS.
            views: names of slice views.
        """
        self._leave(views)
        if len(self._alive()) < len(self._nodes):
            self.remove()
        first = self._nodes.get("increase")
        self._nodes["increase"] = node_of(signed, grid, "denser now", node=first, hidden=True)
        if first is None:
            self._nodes["decrease"] = new_node("vtkMRMLScalarVolumeNode", "less dense now", hidden=True)
            self._nodes["decrease"].CreateDefaultDisplayNodes()
            self._set_up()
        self._share()
        self._views = tuple(views)
        self._update()

    def set_threshold(self, threshold: float) -> None:
        """Set the threshold; a voxel is shown exactly if map >= threshold."""
        self._threshold = min(max(float(threshold), LOWEST), 1.0)
        self._update_intervals()

    def set_increases(self, shown: bool) -> None:
        """Show or hide what is denser now."""
        self._shown["increase"] = shown
        self._update()

    def set_decreases(self, shown: bool) -> None:
        """Show or hide what is less dense now."""
        self._shown["decrease"] = shown
        self._update()

    def set_opacity(self, opacity: float) -> None:
        """Set the opacity of the overlay, 0 to 1."""
        self._opacity = float(opacity)
        self._update()

    def set_visible(self, visible: bool) -> None:
        """Show or hide the whole overlay."""
        self._visible = visible
        self._update()

    def set_views(self, views: Views) -> None:
        """Show the overlay in these views alone."""
        self._leave(views)
        self._views = tuple(views)
        self._update()

    def set_legend(self, shown: bool) -> None:
        """Show or hide the color scale at the border of the views whose foreground is free.

        Slicer draws legends only for background, foreground and label, not for additional layers. A volume of one
        transparent voxel in the foreground therefore carries the legend.
        """
        if self._scale is not None and self._scale.GetScene() is not None:
            scale_id = self._scale.GetID()
            used = [view for view in existing(self._views) if composite_node(view).GetForegroundVolumeID() == scale_id]
            set_layers(used, foreground=None)
            remove(self._scale)
        self._scale = None
        if shown:
            free = [view for view in existing(self._views) if not composite_node(view).GetForegroundVolumeID()]
            self._scale = _scale()
            set_layers(free, foreground=self._scale)
            legend = _legend()
            self._scale.AddAndObserveDisplayNodeID(legend.GetID())
            legend.Modified()  # makes the views check whether its volume is shown

    def remove(self) -> None:
        """Remove the overlay from the views and the scene."""
        self.set_legend(False)
        self._leave(())
        for node in self.nodes:
            remove(node)
        self._nodes, self._views = {}, ()

    # -- inside ---------------------------------------------------------------------------
    def _alive(self) -> dict[str, Node]:
        """Return the nodes that are still in the scene, which may have been cleared."""
        return {sign: node for sign, node in self._nodes.items() if node.GetScene() is not None}

    def _set_up(self) -> None:
        for sign, node in self._nodes.items():
            display = node.GetDisplayNode()
            was = display.StartModify()
            display.AutoWindowLevelOff()
            display.SetInterpolate(0)
            display.SetWindowLevelMinMax(*sorted((0.0, float(SIGNS[sign]))))
            display.SetAndObserveColorNodeID(change_table(sign).GetID())  # type: ignore[arg-type]
            display.ApplyThresholdOn()
            display.EndModify(was)
            _hide(node)
        self._update_intervals()

    def _share(self) -> None:
        increase, decrease = self.nodes
        matrix = vtk.vtkMatrix4x4()
        increase.GetIJKToRASMatrix(matrix)
        decrease.SetIJKToRASMatrix(matrix)
        decrease.SetAndObserveImageData(increase.GetImageData())

    def _update_intervals(self) -> None:
        t = self._threshold
        for sign, node in self._alive().items():
            interval = (t, BEYOND) if sign == "increase" else (-BEYOND, -t)
            node.GetDisplayNode().SetThreshold(*interval)

    def _update(self) -> None:
        for view in existing(self._views):
            for sign, node in self._alive().items():
                if self._visible and self._shown[sign]:
                    show_extra(view, node, self._opacity)
                else:
                    hide_extra(view, node)

    def _leave(self, kept: Views) -> None:
        for view in existing([view for view in self._views if view not in kept]):
            for node in self._alive().values():
                hide_extra(view, node)


def signed_map(change_map: NDArray[Any], signed_hu: NDArray[Any], *, in_place: bool = False) -> NDArray[np.float32]:
    """Return sign(R - T(y)) * CM in [-1, 1], float32 ``[z, y, x]``; 0 HU counts as an increase, NaN as no change.

    Args:
        change_map: CM in [0, 1], ``[z, y, x]``.
        signed_hu: R - T(y) in HU, likewise.
        in_place: a float32 map may become the result, which saves its memory.
    """
    result = change_map.astype(np.float32, copy=not in_place)
    for values, hu in zip(result, signed_hu, strict=True):  # by slices, since masks of a whole scan take memory, too
        np.nan_to_num(values, copy=False)
        np.negative(values, out=values, where=hu < 0)
    return result


def _scale() -> Node:
    """Make a hidden volume of one transparent voxel with the overlay's colors from -1 to 1."""
    node = node_of(np.zeros((1, 1, 1), np.float32), Grid((1, 1, 1)), "ChangeMap scale", hidden=True)
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID(change_table("change").GetID())
    display.SetWindowLevelMinMax(-1.0, 1.0)
    return _hide(node)


def _legend() -> Node:
    legend = slicer.vtkMRMLColorLegendDisplayNode()
    legend.SetName("ChangeMap legend")
    legend.SetTitleText(LEGEND_TITLE)
    legend.SetSaveWithScene(0)
    legend.SetHideFromEditors(1)
    legend.SetSize(0.1, 0.45)
    legend.SetPosition(0.97, 0.5)
    legend.SetNumberOfLabels(5)
    legend.SetLabelFormat("%+.1f")
    return slicer.mrmlScene.AddNode(legend)


def _hide(node: Node) -> Node:
    """Exclude a node from saved scenes and from node selectors; return it."""
    for hidden in (node, node.GetDisplayNode()):
        hidden.SetSaveWithScene(0)
        hidden.SetHideFromEditors(1)
    return node
