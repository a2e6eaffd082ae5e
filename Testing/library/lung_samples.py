"""A chest of closed form whose lungs are known."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from phantoms import (
    LUNG_CENTRES_MM,
    LUNG_SEMIAXES_MM,
    centred_grid,
    chest_phantom,
    voxel_points,
)

from ChangeMapJointLib.core.grid import FloatArray, Grid
from ChangeMapJointLib.lungs.segment import LungOptions, segment_lungs
from ChangeMapJointLib.scan.lungs import LEFT, RIGHT, Lungs
from ChangeMapJointLib.scan.volume import Volume

GRID = centred_grid((88, 92, 128), (2.5, 2.5, 2.5))
QUICK = LungOptions(spacing_mm=3.0)
EDGE_MM = 2.5  # partial volume, as a scanner's


def ellipsoid(points_mm: FloatArray, side: int, grow_mm: float = 0.0) -> NDArray[np.bool_]:
    """The true lung of the phantom: side RIGHT or LEFT."""
    offset = points_mm - np.asarray(LUNG_CENTRES_MM[side - 1])
    return ((offset / (np.asarray(LUNG_SEMIAXES_MM) + grow_mm)) ** 2).sum(axis=-1) <= 1


def on_surface(side: int, direction: Iterable[float]) -> tuple[float, float, float]:
    """The point of a lung's surface that lies that way from its middle."""
    way = np.asarray(list(direction), dtype=float)
    semi = np.asarray(LUNG_SEMIAXES_MM)
    x, y, z = np.asarray(LUNG_CENTRES_MM[side - 1]) + way / np.sqrt(((way / semi) ** 2).sum())
    return float(x), float(y), float(z)


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def truth(grid: Grid) -> NDArray[np.uint8]:
    points = voxel_points(grid)
    return np.where(ellipsoid(points, RIGHT), RIGHT, np.where(ellipsoid(points, LEFT), LEFT, 0)).astype(np.uint8)


def chest(**options: object) -> Volume:
    return chest_phantom(**{"grid": GRID, "edge_mm": EDGE_MM, **options})  # type: ignore[arg-type]


@cache
def lungs_of_chest(options: LungOptions | None = None) -> Lungs:
    """Of :func:`chest` as it is."""
    return segment_lungs(chest(), options=options or LungOptions())


def segmented(volume: Volume, **more: Any) -> Lungs:
    """The lungs by a working grid of 3 mm, in a third of the time, where it is not about the border or small parts."""
    return segment_lungs(volume, options=QUICK, **more)
