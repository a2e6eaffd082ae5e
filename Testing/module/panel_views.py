"""What is on screen: pixels of the views, where they look, rows of the table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import panel_samples
import slicer
from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QTest
from slicerhost import user

from ChangeMapJointLib.core.grid import Grid, lps_to_ras
from ChangeMapJointLib.scene.nodes import CURRENT, slice_node

MODULE = Path(__file__).parents[2] / "ChangeMapJoint" / "ChangeMapJoint.py"


def view(name: str = "Red"):
    return slicer.app.layoutManager().sliceWidget(name).sliceView()


def picture(name: str = "Red") -> np.ndarray:
    slicer.app.processEvents()
    return slicer.app.layoutManager().sliceWidget(name).view().picture().astype(int)


def centre_lps(name: str) -> np.ndarray:
    ras = slicer.util.arrayFromVTKMatrix(slice_node(name).GetSliceToRAS())[:3, 3]
    return lps_to_ras(ras)


def look_at(point_lps) -> None:
    for name in CURRENT:
        slice_node(name).JumpSliceByCentering(*lps_to_ras(point_lps).tolist())


def on_screen(name: str, change, signed, grid: Grid, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Per pixel of a view: sign of what the map shows there, and whether the pixel lies clear of voxel borders."""
    node = slice_node(name)
    width, height, _ = node.GetDimensions()
    columns, lines = np.meshgrid(np.arange(width), np.arange(height - 1, -1, -1))
    pixels = np.stack([columns, lines, 0 * lines, 1 + 0 * lines], axis=-1).astype(float)
    index = grid.to_index(lps_to_ras((pixels @ slicer.util.arrayFromVTKMatrix(node.GetXYToRAS()).T)[..., :3]))
    nearest = np.rint(index).astype(int)
    inside = ((nearest >= 0) & (nearest < grid.size)).all(axis=-1)
    x, y, z = np.moveaxis(np.clip(nearest, 0, np.array(grid.size) - 1), -1, 0)
    values = np.where(change[z, y, x] >= np.float32(threshold), np.where(signed[z, y, x] >= 0, 1, -1), 0)
    return np.where(inside, values, 0), (np.abs(index - nearest) < 0.49).all(axis=-1)


def expected(name: str, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """:func:`on_screen` of the made run."""
    return on_screen(name, *panel_samples.change(), panel_samples.GRID, threshold)


def only_the_overlay(widget) -> None:
    """Nothing else that is colored."""
    widget.panel.session.results.findings.GetDisplayNode().SetVisibility(False)
    if widget.ui.untrustedCheckBox.checked:
        user.click(widget.ui.untrustedCheckBox)


def painted(name: str) -> np.ndarray:
    """+1 where a view is orange, -1 where it is blue."""
    pixels = picture(name)
    red, blue = pixels[..., 0], pixels[..., 2]
    return np.where(red > blue + 20, 1, np.where(blue > red + 20, -1, 0))


def items(widget) -> list:
    """The rows of the list that are on screen, from top to bottom, those of the groups included."""
    tree = widget.ui.findingsTable
    tops = [tree.topLevelItem(i) for i in range(tree.topLevelItemCount)]
    return [one for top in tops for one in (top, *(top.child(i) for i in range(top.childCount()) if top.isExpanded()))]


def rows(widget) -> list[list[str]]:
    """Kind, size, change, peak or probability, trust and the reader's verdict of each row on screen; no groups."""
    changes = [item for item in items(widget) if not item.isFirstColumnSpanned()]
    return [[item.text(column) for column in (1, 3, 4, 8, 6, 7)] for item in changes]


def click_row(widget, item) -> None:
    """Click into a row of the list."""
    tree = widget.ui.findingsTable
    tree.scrollToItem(item)
    rect = tree.visualItemRect(item)
    QTest.mouseClick(tree.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(rect.left() + 60, rect.center().y()))
    slicer.app.processEvents()


def groups(widget) -> list[str]:
    """The titles of the groups, with their counts."""
    return [item.text(0).split(":")[0] for item in items(widget) if item.isFirstColumnSpanned()]
