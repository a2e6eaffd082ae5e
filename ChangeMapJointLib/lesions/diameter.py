"""Diameters as radiologists measure them: in the patient's axial plane, whatever the array's orientation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from ChangeMapJointLib.core.grid import FloatArray, Grid


def axial_diameters(mask: NDArray[np.bool_], grid: Grid) -> tuple[float, float]:
    """Measure the long axial diameter and the longest diameter perpendicular to it in the same slice.

    The long diameter is the largest distance between two voxel centres of one axial slice plus the extent of a voxel
    along that line (a row of n voxels of 1 mm measures n mm), maximised over the slices. On a grid that is rotated
    against the patient, a slice holds the voxels whose centres lie in it.

    Args:
        mask: bool ``[z, y, x]``.
        grid: its grid; axial means perpendicular to the patient's long axis (z in LPS), whatever the array's axes.

    Returns:
        ``(long_mm, perpendicular_mm)``; ``(0, 0)`` for an empty mask.
    """
    slices, pixel_mm = _axial_slices(mask, grid)
    best = (0.0, 0.0)
    for points in slices:
        long_mm, along = _feret(points, pixel_mm)
        if long_mm > best[0]:
            best = (long_mm, _widest_across(points, along, pixel_mm))
    return best


def lps_spacing_mm(grid: Grid) -> FloatArray:
    """Extent of a voxel along the patient's x, y, z; on a grid aligned with the patient, its permuted spacing."""
    axes_mm = np.asarray(grid.direction, dtype=float) * np.asarray(grid.spacing_mm)
    extent_mm: FloatArray = np.sqrt((axes_mm**2).sum(axis=1))
    return extent_mm


def _axial_slices(mask: NDArray[np.bool_], grid: Grid) -> tuple[list[FloatArray], FloatArray]:
    """In-plane (x, y) positions in mm of the voxels of each axial slice, and the pixel size in mm."""
    pixel = lps_spacing_mm(grid)
    index = np.argwhere(mask)[:, ::-1]
    if not len(index):
        return [], pixel[:2]
    points = grid.to_physical(index)
    level = np.rint((points[:, 2] - points[:, 2].min()) / pixel[2]).astype(int)
    return [points[level == value, :2] for value in np.unique(level)], pixel[:2]


def _feret(points: FloatArray, pixel_mm: FloatArray) -> tuple[float, FloatArray]:
    """Largest distance between two points plus the pixel's extent along it, in mm, and its unit direction."""
    corners = _hull(points)
    delta = corners[:, None] - corners[None]
    distance = np.sqrt((delta**2).sum(axis=-1))
    if distance.max() == 0.0:
        along = np.array([1.0, 0.0]) if pixel_mm[0] >= pixel_mm[1] else np.array([0.0, 1.0])
        return float(pixel_mm.max()), along
    length = distance + np.sqrt(((delta / np.maximum(distance, 1e-9)[..., None] * pixel_mm) ** 2).sum(axis=-1))
    length[distance == 0.0] = 0.0
    a, b = np.unravel_index(int(np.argmax(length)), length.shape)
    return float(length[a, b]), delta[a, b] / distance[a, b]


def _hull(points: FloatArray) -> FloatArray:
    """Corners of the convex hull; where there is none, the points or their two extremes."""
    if len(points) < 4:
        return points
    try:
        corners: FloatArray = points[ConvexHull(points).vertices]
        return corners
    except QhullError:  # all on one line: the two ends of any projection are the extremes
        order = np.lexsort(points.T)
        return points[[order[0], order[-1]]]


def _widest_across(points: FloatArray, along: FloatArray, pixel_mm: FloatArray) -> float:
    """Longest extent in mm perpendicular to ``along``, over positions along it one pixel apart."""
    across = np.array([-along[1], along[0]])
    thickness = float(np.sqrt(((across * pixel_mm) ** 2).sum()))
    pitch = float(np.sqrt(((along * pixel_mm) ** 2).sum()))
    position, height = points @ along, points @ across
    level = np.rint((position - position.min()) / pitch).astype(int)
    top = np.full(level.max() + 1, -np.inf)
    bottom = np.full(level.max() + 1, np.inf)
    np.maximum.at(top, level, height)
    np.minimum.at(bottom, level, height)
    return float((top - bottom).max() + thickness)
