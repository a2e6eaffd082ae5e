"""The surface term: the lungs' surface in R comes to lie on the lungs' surface in T.

The distance of masks counts voxels, and only in R's lungs: it hardly sees a surface that lies a few millimetres too
deep in T's lungs. Here the surface is points, and what counts is their distance to T's surface, in mm. A point may move
along that surface at no cost, so lungs still slide along the ribs. Points that stay far from it, where something fills
or leaves the lungs (an effusion, a collapse, a mass at the wall), count less and less.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from ChangeMapJointLib.core.grid import FloatArray, Grid, apply_affine
from ChangeMapJointLib.registration.deformable.bspline import ControlGrid, PointSplines
from ChangeMapJointLib.registration.pyramid import ScanView

POINTS = 8000  # about one for every 16 mm^2 of two lungs
OUTLIER_MM = 2.0  # on the finest level; a point at this distance pulls a quarter as much as it would otherwise
DISTANCE_MM = 3.5  # largest voxels on which the distance to T's surface is kept
REACH_MM = 40.0  # farther away, the distance to the surface is not needed
SEED = 20241130


@dataclass(frozen=True)
class LungSurface:
    """The surface of the lungs of one scan, where the share of lung in a voxel is one half.

    Attributes:
        points_mm: points on it, ``[n, 3]`` (x, y, z) LPS.
        voxels: the voxel (z, y, x) of each, ``[n, 3]``.
    """

    points_mm: FloatArray
    voxels: NDArray[np.int64]


def lung_surface(view: ScanView) -> LungSurface:
    """Find the surface of the lungs in ``view``, to a fraction of a voxel.

    Where the field of view cuts the lungs there is no surface. The mask is smoothed by half a voxel: where a scan has
    its own resolution the share of lung is 0 or 1, and the surface would be stairs.
    """
    share = ndimage.gaussian_filter(view.mask.cpu().numpy(), 0.5, mode="nearest")
    lung = share >= 0.5
    # voxels with a neighbour on the other side
    cross = ndimage.generate_binary_structure(3, 1)
    edge = lung & ~ndimage.binary_erosion(lung, cross, border_value=1)
    edge |= ~lung & ndimage.binary_dilation(lung, cross)
    voxels = np.argwhere(edge)
    slope = _slope(share, voxels, view.grid)
    steep = np.linalg.norm(slope, axis=1)
    # along the steepest rise; at most one voxel, or flat places would be thrown far
    away = np.divide(0.5 - share[tuple(voxels.T)], steep, out=np.zeros_like(steep), where=steep > 0)
    farthest = max(view.grid.spacing_mm)
    unit = np.divide(slope, steep[:, None], out=np.zeros_like(slope), where=steep[:, None] > 0)
    points = view.grid.to_physical(voxels[:, ::-1].astype(float))
    return LungSurface(points + np.clip(away, -farthest, farthest)[:, None] * unit, voxels)


def _slope(values: NDArray[np.float32], voxels: NDArray[np.int64], grid: Grid) -> FloatArray:
    """Gradient of ``values`` per mm at ``voxels``, ``[n, 3]`` (x, y, z) in LPS, by central differences."""
    along = []
    for axis in (2, 1, 0):
        low, high = voxels.copy(), voxels.copy()
        low[:, axis] = np.maximum(low[:, axis] - 1, 0)
        high[:, axis] = np.minimum(high[:, axis] + 1, values.shape[axis] - 1)
        width = np.maximum(high[:, axis] - low[:, axis], 1) * grid.spacing_mm[2 - axis]
        along.append((values[tuple(high.T)] - values[tuple(low.T)]) / width)
    slope: FloatArray = np.stack(along, axis=1).astype(float) @ np.asarray(grid.direction, dtype=float).T
    return slope


class SurfaceDistance:
    """The signed distance to the surface of the lungs, in mm, negative in the lungs.

    Args:
        view: T at the resolution where the distance is kept; between its voxels it is interpolated linearly.
    """

    def __init__(self, view: ScanView) -> None:
        surface, self.grid = lung_surface(view), view.grid
        spacing = view.grid.spacing_mm[::-1]
        empty = np.ones(view.grid.shape, dtype=bool)
        empty[tuple(surface.voxels.T)] = False
        number = np.zeros(view.grid.shape, dtype=np.int64)
        number[tuple(surface.voxels.T)] = np.arange(len(surface.voxels))
        nearest = ndimage.distance_transform_edt(empty, sampling=spacing, return_distances=False, return_indices=True)
        points = surface.points_mm[number[tuple(nearest)]].astype(np.float32)
        index = np.indices(view.grid.shape, dtype=np.float32)[::-1].reshape(3, -1).T
        centres = view.grid.to_physical(index).reshape(*view.grid.shape, 3)
        away = np.linalg.norm(centres - points, axis=-1).astype(np.float32)
        sign = np.where(ndimage.gaussian_filter(view.mask.cpu().numpy(), 0.5, mode="nearest") >= 0.5, -1, 1)
        self.distance_mm: NDArray[np.float32] = np.clip(sign * away, -REACH_MM, REACH_MM).astype(np.float32)

    def at(self, points_mm: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The distance at points ``[n, 3]`` and its gradient ``[n, 3]``; both 0 outside the scan."""
        index = self.grid.to_index(points_mm)
        last = np.array(self.grid.size) - 1
        inside = ((index >= 0) & (index <= last)).all(axis=1)
        low = np.clip(np.floor(index).astype(np.int64), 0, np.maximum(last - 1, 0))
        t = np.clip(index - low, 0.0, 1.0)
        value, slope = np.zeros(len(index)), np.zeros((len(index), 3))
        for corner in np.ndindex(2, 2, 2):
            x, y, z = (np.minimum(low[:, axis] + corner[axis], last[axis]) for axis in range(3))
            d = self.distance_mm[z, y, x].astype(float)
            weight = [t[:, axis] if corner[axis] else 1 - t[:, axis] for axis in range(3)]
            value += d * weight[0] * weight[1] * weight[2]
            for axis in range(3):
                others = weight[(axis + 1) % 3] * weight[(axis + 2) % 3]
                slope[:, axis] += (1 if corner[axis] else -1) * d * others / self.grid.spacing_mm[axis]
        value[~inside], slope[~inside] = 0.0, 0.0
        return value, slope @ np.asarray(self.grid.direction, dtype=float).T


class SurfaceTerm:
    """Mean robust squared distance of R's surface, moved by y, to T's surface, with its gradient in closed form.

    The distance d counts as ``d^2 / (1 + (d / s)^2)`` (Geman and McClure), s in mm.
    """

    def __init__(
        self,
        points_mm: FloatArray,
        distance: SurfaceDistance,
        control: ControlGrid,
        rigid: FloatArray,
        *,
        outlier_mm: float = OUTLIER_MM,
    ) -> None:
        """Prepare the term for ``control``, whose displacement is added to ``rigid``.

        Args:
            points_mm: points on the surface of R's lungs, ``[n, 3]``.
            distance: the distance to the surface of T's lungs.
            control: the control grid.
            rigid: 4x4, reference to template.
            outlier_mm: s.
        """
        self.distance, self.outlier_mm = distance, outlier_mm
        self.splines = PointSplines(points_mm, control)
        self.start = apply_affine(rigid, points_mm)

    def evaluate(self, coefficients: Tensor) -> tuple[float, Tensor]:
        """The mean in mm^2, and its gradient by the coefficients."""
        d, slope = self.distance.at(self.start + self.splines.displacement(coefficients))
        near = 1 / (1 + (d / self.outlier_mm) ** 2)
        count = max(len(d), 1)
        value = float((d**2 * near).sum()) / count
        pull = (2 / count * d * near**2)[:, None] * slope
        return value, self.splines.gradient(pull, coefficients)


def surface_points(view: ScanView, count: int = POINTS) -> FloatArray:
    """At most ``count`` points on the surface of the lungs in ``view``, ``[n, 3]``, spread evenly; always the same."""
    points = lung_surface(view).points_mm
    chosen = np.random.default_rng(SEED).permutation(len(points))[:count]
    picked: FloatArray = points[np.sort(chosen)]
    return picked
