"""Axial, coronal and sagittal planes in radiological orientation, and the values of a volume on them.

Planes are cut in physical space, so that oblique, flipped and permuted grids are all shown in the same orientation:
the patient's right on the left of the screen (axial, coronal), anterior on the left (sagittal) or at the top (axial),
the head at the top.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.grid import FloatArray, Grid, Vector3, bounding_box
from ChangeMapJointLib.core.lazy_torch import torch
from ChangeMapJointLib.core.resample import sample

SCREEN_AXES: dict[str, tuple[Vector3, Vector3]] = {  # name: screen right, screen down, in LPS
    "axial": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
    "coronal": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0)),
    "sagittal": ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),
}
LETTERS = ("RL", "AP", "FH")  # the patient's sides towards minus and plus x, y, z of LPS


@dataclass(frozen=True)
class Plane:
    """A rectangle of square pixels in physical space.

    Attributes:
        name: ``axial``, ``coronal`` or ``sagittal``.
        centre_mm: its middle, LPS.
        shape: pixels (rows, columns).
        pixel_mm: edge length of a pixel.
    """

    name: str
    centre_mm: Vector3
    shape: tuple[int, int]
    pixel_mm: float

    @property
    def axes(self) -> FloatArray:
        """Unit vectors of screen right and screen down in LPS, ``[2, 3]``."""
        return np.array(SCREEN_AXES[self.name])

    @property
    def normal(self) -> FloatArray:
        """Unit vector into the screen in LPS, ``[3]``."""
        right, down = self.axes
        normal: FloatArray = np.cross(right, down)
        return normal

    @property
    def letters(self) -> tuple[str, str, str, str]:
        """The patient's sides at the left, right, top and bottom of the screen."""
        right, down = (int(np.argmax(np.abs(axis))) for axis in self.axes)
        signs = [axis.sum() > 0 for axis in self.axes]
        pairs = [LETTERS[i] if up else LETTERS[i][::-1] for i, up in zip((right, down), signs, strict=True)]
        return pairs[0][0], pairs[0][1], pairs[1][0], pairs[1][1]

    @property
    def depth_axis(self) -> int:
        """The LPS axis (0, 1, 2 for x, y, z) that the plane is perpendicular to."""
        return int(np.argmax(np.abs(self.normal)))

    def at_depth(self, depth_mm: float) -> Plane:
        """The parallel plane, shifted by ``depth_mm`` along the positive LPS axis."""
        x, y, z = (float(v) for v in np.asarray(self.centre_mm) + depth_mm * np.abs(self.normal))
        return replace(self, centre_mm=(x, y, z))

    def index_on(self, grid: Grid) -> FloatArray:
        """Centres of the pixels as continuous indices (i, j, k) of ``grid``, ``[rows, columns, 3]``."""
        rows, columns = self.shape
        right, down = self.axes * self.pixel_mm
        start = np.asarray(self.centre_mm) - right * (columns - 1) / 2 - down * (rows - 1) / 2
        first, step_right, step_down = grid.to_index(np.stack([start, start + right, start + down]))
        columns_part = np.arange(columns)[None, :, None] * (step_right - first)
        index: FloatArray = first + columns_part + np.arange(rows)[:, None, None] * (step_down - first)
        return index

    def to_pixel(self, points_mm: NDArray[np.generic]) -> FloatArray:
        """Project points ``[..., 3]`` (mm, LPS) to pixels ``[..., 2]``: column and row, whole at pixel centres."""
        offset = (np.asarray(points_mm, dtype=float) - np.asarray(self.centre_mm)) @ self.axes.T / self.pixel_mm
        rows, columns = self.shape
        pixel: FloatArray = offset + np.array([(columns - 1) / 2, (rows - 1) / 2])
        return pixel


def square_plane(name: str, centre_mm: Vector3, *, field_mm: float = 64.0, pixels: int = 288) -> Plane:
    """The plane ``name`` through ``centre_mm``, ``field_mm`` wide and high."""
    return Plane(name, centre_mm, (pixels, pixels), field_mm / pixels)


def box_plane(name: str, low_mm: FloatArray, high_mm: FloatArray, *, pixel_mm: float) -> Plane:
    """The plane ``name`` through the middle of the box ``low_mm`` to ``high_mm`` (LPS), as large as the box."""
    axes = np.abs(np.array(SCREEN_AXES[name]))
    columns, rows = np.maximum(np.ceil(axes @ (high_mm - low_mm) / pixel_mm), 1).astype(int)
    x, y, z = (float(v) for v in (low_mm + high_mm) / 2)
    return Plane(name, (x, y, z), (int(rows), int(columns)), pixel_mm)


def reslice(array: NDArray[np.generic], index: FloatArray) -> NDArray[np.float32]:
    """Interpolate ``array`` ``[z, y, x]`` trilinearly at indices (i, j, k) ``[rows, columns, 3]``; NaN outside it.

    In the outermost half voxel border values are repeated, as in :mod:`~ChangeMapJointLib.core.resample`.
    """
    inside = _inside(array, index)
    if not inside.any():
        return np.full(inside.shape, np.nan, dtype=np.float32)
    size = np.array(array.shape[::-1])
    # copy only the part that is needed to float; it is bounded by the corners of the plane
    corners = index[[0, 0, -1, -1], [0, -1, 0, -1]]
    low = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, size - 1)
    high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 1, low + 1, size)
    block = np.ascontiguousarray(array[low[2] : high[2], low[1] : high[1], low[0] : high[0]], dtype=np.float32)
    points = torch.as_tensor((index - low).astype(np.float32))
    nz, ny, nx = block.shape
    values = sample(torch.as_tensor(block)[None], points, Grid((nz, ny, nx)))[0].numpy()
    return np.where(inside, values, np.float32(np.nan))


def reslice_nearest(array: NDArray[np.generic], index: FloatArray) -> NDArray[np.float32]:
    """As :func:`reslice` with nearest-neighbour interpolation, so that small regions keep their full value."""
    nearest = np.clip(np.rint(index).astype(int), 0, np.array(array.shape[::-1]) - 1)
    values = array[nearest[..., 2], nearest[..., 1], nearest[..., 0]].astype(np.float32)
    return np.where(_inside(array, index), values, np.float32(np.nan))


def _inside(array: NDArray[np.generic], index: FloatArray) -> NDArray[np.bool_]:
    limit = np.array(array.shape[::-1]) - 0.5 + 1e-6
    return np.asarray(((index >= -0.5 - 1e-6) & (index <= limit)).all(axis=-1))


def physical_box(
    grid: Grid, mask: NDArray[np.bool_] | None = None, margin_mm: float = 0.0
) -> tuple[FloatArray, FloatArray]:
    """Lowest and highest LPS coordinates in mm, ``[3]`` each, of the whole grid or of the True voxels of ``mask``."""
    start, stop = bounding_box(mask) if mask is not None and mask.any() else ((0, 0, 0), grid.shape)
    ends = np.array([start[::-1], stop[::-1]]) - 0.5
    corners = np.array([[ends[a, 0], ends[b, 1], ends[c, 2]] for a in (0, 1) for b in (0, 1) for c in (0, 1)])
    points = grid.to_physical(corners)
    return points.min(axis=0) - margin_mm, points.max(axis=0) + margin_mm
