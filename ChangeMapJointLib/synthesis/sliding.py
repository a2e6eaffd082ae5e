"""Sliding of the lungs along the ribs: breathing motion with a discontinuity at their surface.

The lungs and the tissue between and below them move as before, because the mediastinum and the liver follow the lungs
and the diaphragm. In the chest wall the tangential part of the motion is removed, fully or in part; the normal part is
kept.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.spatial import ConvexHull, QhullError

from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.core.resample import index_points, sample_array
from ChangeMapJointLib.synthesis.breathing import BreathingMotion

SMOOTH_WALL_MM = 5.0  # smoothing of the correction: normals turn sharply at the recesses, the wall does not
FREE_DEPTH_MM = 30.0  # from this depth in the wall, the distance to the lungs may change
CORRECTIONS = 5


def sliding_field(
    motion: BreathingMotion, grid: Grid, lungs: NDArray[np.bool_], lungs_grid: Grid, *, fraction: float = 1.0
) -> DisplacementField:
    """The displacement u of a motion whose tangential part ends at the lungs' surface.

    Args:
        motion: how the lungs move.
        grid: in the reference's space.
        lungs: the template's lungs, bool ``[z, y, x]`` on ``lungs_grid``.
        lungs_grid: the template's grid.
        fraction: from 0 (no sliding) to 1 (the wall does not move along the surface).

    Returns:
        u on ``grid``. Voxels that ``motion`` maps into the lungs keep their u. Other voxels near the lungs keep their
        distance from the surface.

    Raises:
        InputError: ``fraction`` is not in [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise InputError(f"found {fraction:g}", field="sliding", expected="a fraction in [0, 1]")
    field = motion.field(grid)
    if fraction == 0:
        return field
    surface = _Surface(lungs, lungs_grid)
    points = index_points(grid, grid.affine).numpy().reshape(-1, 3)
    moved = points + field.vectors_mm.reshape(-1, 3)
    depth = surface.distance(moved)
    outside = depth > 0
    breathing = moved[outside] - motion.align(points[outside]).astype(np.float32)
    normal = surface.normal(moved[outside])
    tangential = breathing - (breathing * normal).sum(-1, keepdims=True) * normal
    wall = 1 - sample_array(thorax_inside(lungs, lungs_grid), lungs_grid, moved[outside])
    removed = _smooth(fraction * wall[:, None] * tangential, outside.reshape(grid.shape), grid)
    moved[outside] = surface.at_depth(moved[outside] - removed, depth[outside])
    return DisplacementField((moved - points).reshape(*grid.shape, 3), grid)


def thorax_inside(lungs: NDArray[np.bool_], grid: Grid) -> NDArray[np.bool_]:
    """The lungs and the tissue between and below them, as the convex hull in every slice.

    Below the slice with the largest hull, everything under the region belongs to it as well.
    """
    inside = np.stack([_filled_hull(section) for section in lungs])
    downwards = inside if grid.direction[2][2] < 0 else inside[::-1]  # a view, from head to feet
    widest = int(np.argmax(downwards.sum(axis=(1, 2))))
    downwards[widest:] = np.logical_or.accumulate(downwards[widest:], axis=0)
    return inside


def _filled_hull(section: NDArray[np.bool_]) -> NDArray[np.bool_]:
    points = np.argwhere(section)[:, ::-1]
    try:
        corners = points[ConvexHull(points).vertices]
    except (QhullError, ValueError):  # fewer than three points, or all on one line
        return section.copy()
    image = Image.new("1", (section.shape[1], section.shape[0]))
    ImageDraw.Draw(image).polygon([(int(x), int(y)) for x, y in corners], fill=1, outline=1)
    return np.array(image, dtype=bool)


class _Surface:
    """Signed distance to the lungs' surface in mm, positive outside, and its normal."""

    def __init__(self, lungs: NDArray[np.bool_], grid: Grid) -> None:
        spacing = grid.spacing_mm[::-1]
        signed = distance_transform_edt(~lungs, sampling=spacing) - distance_transform_edt(lungs, sampling=spacing)
        self._grid = grid
        self._distance = signed.astype(np.float32)
        smooth = gaussian_filter(self._distance, 2.0)
        along_array = np.stack(np.gradient(smooth, *spacing), axis=-1)[..., ::-1]  # the array's x, y, z
        self._gradient = np.ascontiguousarray(along_array @ np.asarray(grid.direction, dtype=np.float32).T)

    def distance(self, points_mm: NDArray[np.float32]) -> NDArray[np.float32]:
        return sample_array(self._distance, self._grid, points_mm)

    def normal(self, points_mm: NDArray[np.float32]) -> NDArray[np.float32]:
        gradient = sample_array(self._gradient, self._grid, points_mm)
        return np.asarray(gradient / np.maximum(np.linalg.norm(gradient, axis=-1, keepdims=True), 1e-6))

    def at_depth(self, points_mm: NDArray[np.float32], depth_mm: NDArray[np.float32]) -> NDArray[np.float32]:
        """Move points near the lungs to the given distance from their surface, so that no gap opens."""
        points = points_mm.copy()
        near = np.flatnonzero(depth_mm < FREE_DEPTH_MM)
        weight = 1 - depth_mm[near] / FREE_DEPTH_MM
        for _ in range(CORRECTIONS):
            step = weight * (depth_mm[near] - self.distance(points[near]))
            points[near] += step[:, None] * self.normal(points[near])
        return points


def _smooth(values: NDArray[np.float32], mask: NDArray[np.bool_], grid: Grid) -> NDArray[np.float32]:
    """Smooth ``values`` ``[n, 3]`` of the voxels in ``mask`` among themselves."""
    sigma = [SMOOTH_WALL_MM / h for h in grid.spacing_mm[::-1]]
    weight = gaussian_filter(mask.astype(np.float32), sigma)[mask]
    result = np.empty_like(values)
    for axis in range(3):
        image = np.zeros(grid.shape, dtype=np.float32)
        image[mask] = values[:, axis]
        result[:, axis] = gaussian_filter(image, sigma)[mask] / np.maximum(weight, 1e-6)
    return result
