"""Color tables: orange is denser now, blue less dense; color-blind readers can distinguish the two.

In slice views any alpha above 0 is opaque; the opacity of the layer is set separately.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import slicer
from numpy.typing import NDArray
from vtkmodules.util.numpy_support import vtk_to_numpy

from ChangeMapJointLib.scene.nodes import Node

Kind = Literal["increase", "decrease", "change", "Jacobian", "displacement", "trust", "edges", "untrusted"]
RGB = tuple[float, float, float]

ORANGE: RGB = (0.90, 0.38, 0.00)
PALE_ORANGE: RGB = (1.00, 0.80, 0.45)
BLUE: RGB = (0.00, 0.42, 0.85)
PALE_BLUE: RGB = (0.55, 0.83, 1.00)
VIOLET: RGB = (0.46, 0.16, 0.51)
PALE_VIOLET: RGB = (0.76, 0.65, 0.81)
PALE_GREEN: RGB = (0.65, 0.86, 0.63)
DEEP_GREEN: RGB = (0.10, 0.47, 0.22)
MAGENTA: RGB = (0.80, 0.10, 0.50)
SAND: RGB = (0.95, 0.75, 0.35)
TEAL: RGB = (0.08, 0.42, 0.48)
YELLOW: RGB = (1.00, 0.93, 0.20)
PURPLE: RGB = (0.86, 0.50, 0.72)
DARK: RGB = (0.25, 0.00, 0.33)
GREEN: RGB = (0.13, 0.57, 0.55)

SIZE = 256
# from the lowest value shown to the highest; evenly spaced
SCALES: dict[str, tuple[RGB, ...]] = {
    "increase": (PALE_ORANGE, ORANGE),
    "decrease": (BLUE, PALE_BLUE),  # from -1 to 0
    "change": (BLUE, PALE_BLUE, PALE_ORANGE, ORANGE),
    # not the colors of change: above 1 the tissue has contracted since the prior, below it has expanded
    "Jacobian": (VIOLET, PALE_VIOLET, PALE_GREEN, DEEP_GREEN),
    "displacement": (DARK, GREEN, YELLOW),
    "trust": (MAGENTA, SAND, TEAL),  # none of them white: it must be seen on bone
}
TRANSPARENT = {"change": 0.1, "Jacobian": 0.1}  # fraction of the scale, in its middle, that is transparent
MARKS: dict[str, RGB] = {"edges": YELLOW, "untrusted": PURPLE}  # label 1; 0 is transparent


def change_table(kind: Kind) -> Node:
    """Return the scene's vtkMRMLColorTableNode "ChangeMap KIND"; made if it is missing, filled if it is empty.

    Raises:
        ValueError: ``kind`` is unknown.
    """
    if kind not in SCALES and kind not in MARKS:
        raise ValueError(f"change_table() 'kind' must be one of {[*SCALES, *MARKS]}, got {kind!r}")
    rgba = rgba_of(kind)
    singleton = f"ChangeMap{kind.capitalize()}"
    node = slicer.mrmlScene.GetSingletonNode(singleton, "vtkMRMLColorTableNode")
    if node is None:
        new = slicer.vtkMRMLColorTableNode()
        new.SetSingletonTag(singleton)
        new.SetName(f"ChangeMap {kind}")
        new.SetAttribute("Category", "ChangeMap")
        node = slicer.mrmlScene.AddNode(new)
    if node.GetNumberOfColors() != len(rgba):
        _fill(node, rgba)
    return node


def level_table(levels: int) -> Node:
    """Make a hidden vtkMRMLColorTableNode for label maps from -levels (less dense) to +levels (denser now).

    All of its colors are transparent; :func:`show_levels` shows some. It is not saved with the scene.

    Args:
        levels: of each sign; +levels and -levels have the strongest colors.
    """
    node = slicer.vtkMRMLColorTableNode()
    node.SetName(slicer.mrmlScene.GenerateUniqueName("ChangeMap levels"))
    node.SetHideFromEditors(1)
    node.SetSaveWithScene(0)
    node.SetTypeToUser()
    node.SetNumberOfColors(2 * levels + 1)
    node.GetLookupTable().SetTableRange(-levels, levels)  # what slice views keep, since it is one color per label
    middles = (np.arange(levels + 1) + 0.5) / levels  # of the values that have a level
    index = np.clip(SIZE * np.stack([1 - middles[::-1], middles]), 0, SIZE - 1).astype(int)
    colors = vtk_to_numpy(node.GetLookupTable().GetTable())
    for part, kind, of in ((colors[: levels + 1], "decrease", index[0]), (colors[levels:], "increase", index[1])):
        part[:, :3] = np.rint(255 * rgba_of(kind)[of, :3])
    show_levels(node, None, None)
    return slicer.mrmlScene.AddNode(node)


def show_levels(node: Node, increases: int | None, decreases: int | None) -> None:
    """Show the levels of a :func:`level_table` from these on; None shows none of that sign."""
    table = node.GetLookupTable()
    alpha = vtk_to_numpy(table.GetTable())[:, 3]
    levels = len(alpha) // 2
    alpha[:] = 0
    if increases is not None:
        alpha[levels + increases :] = 255
    if decreases is not None:
        alpha[: levels + 1 - decreases] = 255
    table.SetTableValue(levels, 0.0, 0.0, 0.0, 0.0)  # tells the views, once, and keeps VTK from making its own colors


def rgba_of(kind: str) -> NDArray[np.float64]:
    """Return the RGBA colors of a table, ``[n, 4]`` in [0, 1], lowest value first."""
    if kind in MARKS:
        return np.array([(0.0, 0.0, 0.0, 0.0), (*MARKS[kind], 1.0)])
    stops = np.array(SCALES[kind])
    positions = np.linspace(0, len(stops) - 1, SIZE)
    rgb = np.stack([np.interp(positions, np.arange(len(stops)), stops[:, c]) for c in range(3)], axis=1)
    alpha = np.ones((SIZE, 1))
    alpha[np.abs(np.linspace(-1, 1, SIZE)) < TRANSPARENT.get(kind, 0.0)] = 0.0
    return np.concatenate([rgb, alpha], axis=1)


def _fill(node: Node, rgba: NDArray[np.float64]) -> None:
    was = node.StartModify()
    node.SetTypeToUser()
    node.SetNumberOfColors(len(rgba))
    for index, (r, g, b, a) in enumerate(rgba.tolist()):
        node.SetColor(index, str(index), r, g, b, a)  # colors without a name are not saved
    node.EndModify(was)
