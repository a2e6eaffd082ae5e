"""Body size, for limits in mm that fit newborns as well as adults."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.filters import largest_component, nearest_parallel, opening
from ChangeMapJointLib.core.grid import Grid, bounding_box
from ChangeMapJointLib.core.hu import TISSUE_HU
from ChangeMapJointLib.scan.volume import Volume

WORK_MM = 4.0
TABLE_MM = 8.0  # radius of an opening that removes tables and tubes but neither limbs nor chests
ADULT_MM2 = 47_000.0  # axial cross-section of a small adult's chest; larger ones are adults, too
WHOLE_SHARE = 0.3  # least share of slices with the whole body: fewer are shoulders or the neck
SMALLEST = 0.25  # of an adult's length: a preterm newborn
LARGE = 0.8  # larger bodies are treated as adults


def body_scale(volume: Volume) -> float:
    """Estimate body size relative to an adult's from the cross-section of the chest.

    A newborn has about 0.38, a child of five years about 0.7. Only slices that show the whole body count, since a
    field of view inside the chest does not show its size. Without such slices, the body is taken for an adult's.

    Returns:
        The ratio of lengths: 0.25 to 0.8 for children, 1 for everybody else.
    """
    body, work = _body(volume)
    h = work.spacing_mm[0]
    planes = [plane for plane in body if plane.any()]
    areas_mm2 = np.array([_hull_mm2(plane, h) for plane in planes if not _cut_off(plane)])
    if areas_mm2.size < WHOLE_SHARE * len(planes) or not areas_mm2.size:
        return 1.0
    scale = float(np.sqrt(np.median(areas_mm2) / ADULT_MM2))
    return 1.0 if scale > LARGE else max(scale, SMALLEST)


def body_box(volume: Volume, margin_mm: float) -> tuple[slice, slice, slice]:
    """Return the part of a scan that holds the body, as slices of the array; the whole scan if there is none.

    Args:
        volume: the scan.
        margin_mm: kept on every side.
    """
    body, work = _body(volume)
    if not body.any():
        return slice(None), slice(None), slice(None)
    start, stop = bounding_box(body)
    corners = np.array(np.meshgrid(*zip(start, np.subtract(stop, 1), strict=True), indexing="ij")).reshape(3, -1).T
    index = volume.grid.to_index(work.to_physical(corners[:, ::-1]))[:, ::-1]
    margin = margin_mm / np.array(volume.grid.spacing_mm[::-1])
    first = np.maximum(np.floor(index.min(axis=0) - margin), 0).astype(int)
    last = np.minimum(np.ceil(index.max(axis=0) + margin).astype(int) + 1, volume.grid.shape)
    z, y, x = (slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
    return z, y, x


def _body(volume: Volume) -> tuple[NDArray[np.bool_], Grid]:
    """Return the body without table and tubes, and its coarse grid, whose axes point to left, back and head."""
    array, grid = volume.grid.lps_view(volume.array)
    h = max(WORK_MM / 2, min(WORK_MM, min(grid.extent_mm) / 40))
    work = grid.with_spacing((h, h, h))
    return largest_component(opening(nearest_parallel(array, grid, work) > TISSUE_HU, TABLE_MM * h / WORK_MM, h)), work


def _cut_off(plane: NDArray[np.bool_]) -> bool:
    """Return whether the body reaches an edge of the slice."""
    return bool(plane[0].any() or plane[-1].any() or plane[:, 0].any() or plane[:, -1].any())


def _hull_mm2(plane: NDArray[np.bool_], spacing_mm: float) -> float:
    """Return the area of the ellipse in the bounding box of one slice of the body, lungs and cavities included."""
    rows, columns = (np.flatnonzero(plane.any(axis=axis)) for axis in (1, 0))
    return float(np.pi / 4 * (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1) * spacing_mm**2)


def as_adult(grid: Grid, scale: float) -> Grid:
    """Return the grid scaled by ``1 / scale``, as if the body had an adult's size.

    Parameters in mm that were chosen for adults then fit. Volumes measured on it are ``1 / scale**3`` times too large.
    """
    x, y, z = (h / scale for h in grid.spacing_mm)
    return Grid(grid.shape, (x, y, z), grid.origin_mm, grid.direction)
