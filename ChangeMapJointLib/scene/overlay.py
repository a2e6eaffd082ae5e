"""The change map over the current scan, above a threshold: orange where denser now, blue where less dense."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import slicer.util
from numpy.typing import NDArray

from ChangeMapJointLib.change.method_table import DEFAULT_THRESHOLD
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.core.hu import FULL_SCALE_HU
from ChangeMapJointLib.scene.colors import change_table, level_table, show_levels
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
from ChangeMapJointLib.scene.volumes import grid_of, node_of

LEVELS = 1000  # of each sign: the threshold's slider and keys have three decimals
LEGEND_TITLE = "Change"


class Overlay:
    """Shows a signed map in [-1, 1] by one hidden label map: its thousandths, rounded towards 0, with their sign.

    Slice views paint a label map by one table of colors, so that a new threshold only makes some of its colors
    transparent; the scalar volumes that would show increases and decreases pass nine filters each, for every view.

    Its nodes are not saved with the scene; make a new overlay after loading a scene.
    """

    def __init__(self) -> None:
        self._node: Node | None = None
        self._colors: Node | None = None
        self._shown = {"increase": True, "decrease": True}
        self._views: tuple[str, ...] = ()
        self._visible = True
        self._opacity = 1.0
        self._threshold = DEFAULT_THRESHOLD
        self._scale: Node | None = None

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The volume node of the levels; empty before :meth:`show`."""
        return () if self._node is None else (self._node,)

    @property
    def threshold(self) -> float:
        """Voxels with at least this value are shown, in (0, 1], of three decimals."""
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
            levels = levels_of(signed_hu, full=FULL_SCALE_HU)
        else:
            levels = levels_of(slicer.util.arrayFromVolume(map_node), signed_hu)
        self._show_levels(levels, grid, views)

    def show_signed(self, signed: NDArray[np.float32], grid: Grid, views: Views) -> None:
        """Show a map that has its sign already over some views; a map shown before is replaced.

        Args:
            signed: in [-1, 1], float32 ``[z, y, x]``, denser now positive.
            grid: of the map, LPS.
            views: names of slice views.
        """
        self._show_levels(levels_of(signed), grid, views)

    def set_threshold(self, threshold: float) -> None:
        """Set the threshold; a voxel is shown exactly if map >= threshold.

        Args:
            threshold: in [0.001, 1]; one beyond is taken as the nearer of these. It has three decimals, as slider and
                keys of the panel have; others are rounded to three.
        """
        threshold = round(min(max(float(threshold), 1 / LEVELS), 1.0) * LEVELS) / LEVELS
        if threshold != self._threshold:
            self._threshold = threshold
            self._update_colors()

    def set_increases(self, shown: bool) -> None:
        """Show or hide what is denser now."""
        self._show_sign("increase", shown)

    def set_decreases(self, shown: bool) -> None:
        """Show or hide what is less dense now."""
        self._show_sign("decrease", shown)

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
        for node in (self._node, self._colors):
            remove(node)
        self._node = self._colors = None
        self._views = ()

    # -- inside ---------------------------------------------------------------------------
    def _alive(self) -> Node | None:
        """Return the node if it is still in the scene, which may have been cleared."""
        return self._node if self._node is not None and self._node.GetScene() is not None else None

    def _show_levels(self, levels: NDArray[np.int16], grid: Grid, views: Views) -> None:
        self._leave(views)
        if self._alive() is None:
            self.remove()
        new = self._node is None
        self._node = node_of(levels, grid, "change", kind="label", node=self._node, hidden=True, keep=True)
        if new:
            self._colors = level_table(LEVELS)
            self._update_colors()
            self._node.GetDisplayNode().SetAndObserveColorNodeID(self._colors.GetID())
        self._views = tuple(views)
        self._update()

    def _show_sign(self, sign: str, shown: bool) -> None:
        if shown != self._shown[sign]:
            self._shown[sign] = shown
            self._update_colors()

    def _update_colors(self) -> None:
        if self._colors is not None and self._colors.GetScene() is not None:
            level = round(self._threshold * LEVELS)
            show_levels(self._colors, *(level if self._shown[sign] else None for sign in ("increase", "decrease")))

    def _update(self) -> None:
        node = self._alive()
        for view in existing(self._views) if node is not None else ():
            if self._visible:
                show_extra(view, node, self._opacity)
            else:
                hide_extra(view, node)

    def _leave(self, kept: Views) -> None:
        node = self._alive()
        for view in existing([view for view in self._views if view not in kept]) if node is not None else ():
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


def levels_of(values: NDArray[Any], signed_hu: NDArray[Any] | None = None, *, full: float = 1.0) -> NDArray[np.int16]:
    """Return a map in thousandths, rounded towards 0, with its sign: int16 ``[z, y, x]`` in [-1000, 1000].

    A voxel has at least the level k exactly if its value, as float32, is at least k / 1000, as float32.

    Args:
        values: ``[z, y, x]``, any real type; NaN counts as no change, and what is beyond ``full`` as ``full``.
        signed_hu: likewise, R - T(y), which has the sign; None if ``values`` have it. 0 counts as an increase.
        full: value of level 1000.

    Examples:
        >>> levels_of(np.array([[[0.75, -0.25, 0.0009, np.nan, 7.0]]])).tolist()
        [[[750, -250, 0, 0, 1000]]]
    """
    edges = (np.arange(LEVELS + 1) / LEVELS).astype(np.float32)
    result = np.empty(values.shape, np.int16)
    for z in range(len(values)):  # by slices, which stay in the processor's cache
        part = values[z].astype(np.float32)
        negative = (part if signed_hu is None else signed_hu[z]) < 0
        part /= np.float32(full)
        np.minimum(np.fmax(np.abs(part, out=part), 0, out=part), 1, out=part)
        level = (part * np.float32(LEVELS) + np.float32(0.5)).astype(np.int16)  # right, or one too high
        level -= part < edges.take(level, mode="clip")
        np.multiply(level, np.int8(1) - 2 * negative.view(np.int8), out=result[z])
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
