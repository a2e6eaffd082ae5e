"""Values of a run's maps at a point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import slicer.util
from numpy.typing import ArrayLike

from ChangeMapJointLib.core.grid import Grid, lps_to_ras
from ChangeMapJointLib.scene.nodes import Node
from ChangeMapJointLib.scene.volumes import grid_of


class Probe:
    """Reads voxels of some volume nodes; their grids are looked up once."""

    def __init__(self, nodes: Sequence[Node | tuple[Any, Grid] | None]) -> None:
        """``nodes``: maps that are not moved meanwhile, or array ``[z, y, x]`` and grid; None for one missing."""
        self._maps: list[tuple[Any, Any] | None] = [
            node if node is None or isinstance(node, tuple) else (slicer.util.arrayFromVolume(node), grid_of(node))
            for node in nodes
        ]

    def at(self, ras: ArrayLike) -> list[float | None]:
        """Return the voxel of each node that holds a point (RAS, mm); None outside, and where there is no node."""
        point = lps_to_ras(ras)
        values: list[float | None] = []
        for entry in self._maps:
            value = None
            if entry is not None:
                array, grid = entry
                index = np.rint(grid.to_index(point)).astype(int)[::-1]
                if (index >= 0).all() and (index < array.shape).all():
                    value = float(array[tuple(index)])
            values.append(value)
        return values
