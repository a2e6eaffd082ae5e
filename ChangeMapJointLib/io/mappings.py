"""Mappings of points that transform files describe: matrices, dense displacements, B-splines, and chains of them.

Beyond the grid of a dense field or a spline, the displacement at its border is repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray, Grid, apply_affine

SLAB_POINTS = 2**20
VOLUME_FACTORS = (1e-3, 1e3)  # of a matrix between two scans of one patient, generously


class Mapping(Protocol):
    """A mapping of points ``[n, 3]`` (x, y, z in mm, LPS)."""

    def apply(self, points_mm: FloatArray) -> FloatArray:
        """Map the points."""

    def covers(self, points_mm: FloatArray) -> NDArray[np.bool_]:
        """Return where the mapping is defined without extrapolation, bool ``[n]``."""


@dataclass(frozen=True, eq=False)
class Linear:
    """An affine mapping; ``matrix`` is 4x4."""

    matrix: FloatArray

    def apply(self, points_mm: FloatArray) -> FloatArray:
        """Map points ``[n, 3]``."""
        return apply_affine(self.matrix, points_mm)

    def covers(self, points_mm: FloatArray) -> NDArray[np.bool_]:
        """Return True for every point."""
        return np.ones(len(points_mm), dtype=bool)


def checked_linear(matrix: FloatArray) -> Linear:
    """Make an affine mapping of a patient.

    Args:
        matrix: 4x4.

    Raises:
        InputError: it is not finite, or it maps volumes to nothing or to their mirror image.

    Examples:
        >>> checked_linear(np.diag([2.0, 1.0, 1.0, 1.0])).apply(np.ones((1, 3))).tolist()
        [[2.0, 1.0, 1.0]]
    """
    volume = float(np.linalg.det(matrix[:3, :3])) if np.isfinite(matrix).all() else np.nan
    low, high = VOLUME_FACTORS
    if not low < volume < high:
        mirror = " (left and right are exchanged)" if volume < -low else ""
        raise InputError(
            f"a matrix that multiplies volumes by {volume:.3g}{mirror}",
            expected=f"{low:g} to {high:g}",
            remedy="export the transform again",
        )
    return Linear(matrix)


@dataclass(frozen=True, eq=False)
class Dense:
    """A displacement for each voxel, interpolated trilinearly."""

    field: DisplacementField

    def apply(self, points_mm: FloatArray) -> FloatArray:
        """Map points ``[n, 3]``."""
        return self.field.apply(points_mm)

    def covers(self, points_mm: FloatArray) -> NDArray[np.bool_]:
        """Return which points lie in the box that the voxels fill, bool ``[n]``."""
        return self.field.grid.contains(points_mm)


@dataclass(frozen=True, eq=False)
class Spline:
    """A displacement by uniform B-splines.

    Attributes:
        coefficients_mm: ``[z, y, x, 3]``, components (x, y, z) in mm, LPS.
        grid: the control points.
        order: of the B-spline, 1 to 3.
    """

    coefficients_mm: NDArray[np.generic]
    grid: Grid
    order: int = 3

    def apply(self, points_mm: FloatArray) -> FloatArray:
        """Map points ``[n, 3]``."""
        low, high = self._range()
        index = np.clip(self.grid.to_index(points_mm), low, high).T[::-1]
        moved = [
            map_coordinates(self.coefficients_mm[..., c], index, order=self.order, mode="nearest", prefilter=False)
            for c in range(3)
        ]
        mapped: FloatArray = np.asarray(points_mm, dtype=float) + np.stack(moved, -1)
        return mapped

    def covers(self, points_mm: FloatArray) -> NDArray[np.bool_]:
        """Return which points have all their control points, bool ``[n]``."""
        low, high = self._range()
        index = self.grid.to_index(points_mm)
        return np.asarray(((index >= low - 1e-6) & (index <= high + 1e-6)).all(axis=1))

    def _range(self) -> tuple[FloatArray, FloatArray]:
        margin = (self.order - 1) / 2
        low = np.minimum(margin, (np.array(self.grid.size) - 1) / 2)
        return low, np.array(self.grid.size) - 1 - low


@dataclass(frozen=True, eq=False)
class Chain:
    """Mappings one after another: the first acts on the points of the current scan."""

    parts: tuple[Mapping, ...]

    def apply(self, points_mm: FloatArray) -> FloatArray:
        """Map points ``[n, 3]``."""
        for part in self.parts:
            points_mm = part.apply(points_mm)
        return np.asarray(points_mm, dtype=float)

    def covers(self, points_mm: FloatArray) -> NDArray[np.bool_]:
        """Return which points every part covers on their way, bool ``[n]``."""
        covered = np.ones(len(points_mm), dtype=bool)
        for part in self.parts:
            covered &= part.covers(points_mm)
            points_mm = part.apply(points_mm)
        return covered


@dataclass(frozen=True, eq=False)
class Added:
    """The displacements of two mappings added at the same point, as elastix combines them on request."""

    first: Mapping
    second: Mapping

    def apply(self, points_mm: FloatArray) -> FloatArray:
        """Map points ``[n, 3]``."""
        return self.first.apply(points_mm) + self.second.apply(points_mm) - points_mm

    def covers(self, points_mm: FloatArray) -> NDArray[np.bool_]:
        """Return which points both cover, bool ``[n]``."""
        return np.asarray(self.first.covers(points_mm) & self.second.covers(points_mm))


def sampled(mapping: Mapping, grid: Grid) -> DisplacementField:
    """Sample a mapping at every voxel of ``grid``, slice by slice.

    Examples:
        >>> shift = Linear(np.array([[1, 0, 0, 2.0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
        >>> sampled(shift, Grid((1, 1, 2))).vectors_mm.tolist()
        [[[[2.0, 0.0, 0.0], [2.0, 0.0, 0.0]]]]
    """
    vectors = np.empty((*grid.shape, 3), dtype=np.float32)
    step = max(1, SLAB_POINTS // (grid.shape[1] * grid.shape[2]))
    for z in range(0, grid.shape[0], step):
        slab = vectors[z : z + step]
        index = np.indices(slab.shape[:3])[::-1].reshape(3, -1).T.astype(float)
        index[:, 2] += z
        points = grid.to_physical(index)
        slab[...] = (mapping.apply(points) - points).reshape(slab.shape)
    return DisplacementField(vectors, grid)
