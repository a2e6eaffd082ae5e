"""Color tables: orange is denser now, blue less dense, and both can be told apart by color-blind readers.

Slice views know only opaque and transparent: any alpha above 0 is opaque there, and the layer's opacity does the rest.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import slicer
from numpy.typing import NDArray

from ChangeMapJointLib.scene.nodes import Node

Kind = Literal["increase", "decrease", "change", "Jacobian", "displacement", "trust", "edges", "untrusted"]
RGB = tuple[float, float, float]

ORANGE: RGB = (0.90, 0.38, 0.00)
PALE_ORANGE: RGB = (1.00, 0.80, 0.45)
BLUE: RGB = (0.00, 0.42, 0.85)
PALE_BLUE: RGB = (0.55, 0.83, 1.00)
WHITE: RGB = (1.0, 1.0, 1.0)
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
    "Jacobian": (BLUE, PALE_BLUE, PALE_ORANGE, ORANGE),  # above 1 the prior is squeezed: denser now
    "displacement": (DARK, GREEN, YELLOW),
    "trust": (PURPLE, WHITE),
}
TRANSPARENT = {"change": 0.1, "Jacobian": 0.1}  # this part of the scale, in its middle, shows nothing
MARKS: dict[str, RGB] = {"edges": YELLOW, "untrusted": PURPLE}  # label 1; 0 is transparent


def change_table(kind: Kind) -> Node:
    """The one vtkMRMLColorTableNode "ChangeMap KIND" of the scene, made when it is not there or was emptied.

    Raises:
        ValueError: an unknown ``kind``.
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


def rgba_of(kind: str) -> NDArray[np.float64]:
    """Colors of a table, ``[n, 4]`` in [0, 1], the lowest value first."""
    if kind in MARKS:
        return np.array([(0.0, 0.0, 0.0, 0.0), (*MARKS[kind], 1.0)])
    stops = np.array(SCALES[kind])
    where = np.linspace(0, len(stops) - 1, SIZE)
    rgb = np.stack([np.interp(where, np.arange(len(stops)), stops[:, c]) for c in range(3)], axis=1)
    alpha = np.ones((SIZE, 1))
    alpha[np.abs(np.linspace(-1, 1, SIZE)) < TRANSPARENT.get(kind, 0.0)] = 0.0
    return np.concatenate([rgb, alpha], axis=1)


def _fill(node: Node, rgba: NDArray[np.float64]) -> None:
    was = node.StartModify()
    node.SetTypeToUser()
    node.SetNumberOfColors(len(rgba))
    for index, (r, g, b, a) in enumerate(rgba.tolist()):
        node.SetColor(index, str(index), r, g, b, a)  # without a name it would not be saved
    node.EndModify(was)
