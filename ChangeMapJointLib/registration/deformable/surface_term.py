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
from scipy.spatial import cKDTree
from scipy.special import ndtri

from ChangeMapJointLib.core.compiled import compiled_available
from ChangeMapJointLib.core.grid import FloatArray, Grid, apply_affine, nearest_in
from ChangeMapJointLib.core.lazy_torch import Tensor
from ChangeMapJointLib.registration.deformable.bspline import ControlGrid, PointSplines
from ChangeMapJointLib.registration.pyramid import ScanView
from ChangeMapJointLib.scan.volume import Volume

POINTS = 8000  # about one for every 16 mm^2 of two lungs
OUTLIER_MM = 2.0  # on the finest level; a point at this distance pulls a quarter as much as it would otherwise
DISTANCE_MM = 3.5  # largest voxels on which the distance to T's surface is kept
REACH_MM = 40.0  # farther away, the distance to the surface is not needed
ACCURACY_VOX = 0.05  # distances are accurate to this part of a voxel; equal scans are not moved
SMOOTH_VOX = 0.8  # sigma of the smoothing of the share of lung, in voxels
SEED = 20241130


@dataclass(frozen=True)
class LungSurface:
    """The surface of the lungs of one scan, where the share of lung in a voxel is one half.

    Attributes:
        points_mm: points on it, ``[n, 3]`` (x, y, z) LPS.
        voxels: the voxel (z, y, x) of each, ``[n, 3]``.
        outwards: unit vectors across the surface, out of the lungs, ``[n, 3]``.
        lung: bool ``[z, y, x]``: voxels that are mostly lung.
        grid: grid of the voxels.
    """

    points_mm: FloatArray
    voxels: NDArray[np.int64]
    outwards: FloatArray
    lung: NDArray[np.bool_]
    grid: Grid

    def measured(self, volume: Volume) -> NDArray[np.bool_]:
        """Return for each point whether tissue ends the lungs there, bool ``[n]``: not a round field of view.

        Args:
            volume: the scan that the surface was found in.
        """
        beside = self.points_mm + max(self.grid.spacing_mm) * self.outwards
        return ~(unseen_at(volume, self.points_mm) | unseen_at(volume, beside))

    def facing_measured(self, points_mm: FloatArray, volume: Volume) -> NDArray[np.bool_]:
        """Return for which points ``[n, 3]`` the scan shows the surface that is nearest, bool ``[n]``.

        Args:
            points_mm: of the other scan's surface, brought to this one.
            volume: the scan that this surface was found in.
        """
        if volume.unseen is None or not len(points_mm):
            return np.ones(len(points_mm), dtype=bool)
        nearest = cKDTree(self.points_mm).query(points_mm)[1]
        facing: NDArray[np.bool_] = self.measured(volume)[nearest] & ~unseen_at(volume, points_mm)
        return facing

    def clear_points(self, count: int = POINTS, usable: NDArray[np.bool_] | None = None) -> FloatArray:
        """At most ``count`` of the points, spread evenly; always the same.

        Where the surface is thinner or sharper than voxels show, points lie off the surface that their own neighbours
        make; those are left out, so that equal scans are not moved.

        Args:
            count: of points at most.
            usable: which points may be taken, bool ``[n]``; all by default.
        """
        own = SurfaceDistance(self)
        on_it = np.abs(own.at(self.points_mm)[0]) <= own.accuracy_mm
        clear = self.points_mm[on_it if usable is None else on_it & usable]
        chosen = np.random.default_rng(SEED).permutation(len(clear))[:count]
        picked: FloatArray = clear[np.sort(chosen)]
        return picked


def lung_surface(view: ScanView) -> LungSurface:
    """Find the surface of the lungs in ``view``, to a fraction of a voxel.

    The share of lung is smoothed a little: in a scan at its own resolution it is 0 or 1, and the surface would be
    stairs. Across a smoothed plane it is the normal distribution, so that its quantile falls evenly with the distance.
    Where the sides of the scan cut the lungs there is no surface; see :meth:`LungSurface.measured` for round ones.
    """
    share = ndimage.gaussian_filter(view.mask.cpu().numpy(), SMOOTH_VOX, mode="nearest")
    lung, cross = share >= 0.5, ndimage.generate_binary_structure(3, 1)
    # voxels with a neighbour on the other side
    edge = ndimage.binary_dilation(lung, cross) & ~ndimage.binary_erosion(lung, cross, border_value=1)
    voxels = np.argwhere(edge)
    slope = _slope(share, voxels, view.grid)
    steep = np.maximum(np.linalg.norm(slope, axis=1), 1e-3)
    # along the steepest rise; at most one voxel, or flat places would be thrown far
    farthest = max(view.grid.spacing_mm)
    beyond = np.clip(-_quantile(share[tuple(voxels.T)]) / steep, -farthest, farthest)
    outwards = -slope / steep[:, None]
    points = view.grid.to_physical(voxels[:, ::-1].astype(float)) - beyond[:, None] * outwards
    return LungSurface(points, voxels, outwards, lung, view.grid)


def unseen_at(volume: Volume, points_mm: FloatArray) -> NDArray[np.bool_]:
    """Return at which points ``[n, 3]`` in mm the scan measured nothing, bool ``[n]``; False outside its grid."""
    result = np.zeros(len(points_mm), dtype=bool)
    if volume.unseen is not None:
        unseen, inside = nearest_in(volume.unseen, volume.grid, points_mm)
        result[inside] = unseen
    return result


def _quantile(share: NDArray[np.float32]) -> FloatArray:
    """Quantile of the normal distribution for a share of lung in [0, 1]."""
    quantile: FloatArray = ndtri(np.clip(share.astype(float), 1e-3, 1 - 1e-3))
    return quantile


def _slope(share: NDArray[np.float32], voxels: NDArray[np.int64], grid: Grid) -> FloatArray:
    """Gradient of the quantile per mm at ``voxels``, ``[n, 3]`` (x, y, z) in LPS, by central differences."""
    along = []
    for axis in (2, 1, 0):
        low, high = voxels.copy(), voxels.copy()
        low[:, axis] = np.maximum(low[:, axis] - 1, 0)
        high[:, axis] = np.minimum(high[:, axis] + 1, share.shape[axis] - 1)
        width = np.maximum(high[:, axis] - low[:, axis], 1) * grid.spacing_mm[2 - axis]
        along.append((_quantile(share[tuple(high.T)]) - _quantile(share[tuple(low.T)])) / width)
    slope: FloatArray = np.stack(along, axis=1) @ np.asarray(grid.direction, dtype=float).T
    return slope


class SurfaceDistance:
    """The signed distance to the surface of the lungs, in mm, negative in the lungs.

    Args:
        surface: the surface, with at least one point; the distance is kept on its grid, and between the voxels it is
            interpolated linearly.
    """

    def __init__(self, surface: LungSurface) -> None:
        self.grid = surface.grid
        self.accuracy_mm = ACCURACY_VOX * max(surface.grid.spacing_mm)
        spacing, shape = self.grid.spacing_mm[::-1], self.grid.shape
        empty = np.ones(shape, dtype=bool)
        empty[tuple(surface.voxels.T)] = False
        number = np.zeros(shape, dtype=np.int64)
        number[tuple(surface.voxels.T)] = np.arange(len(surface.voxels))
        nearest = ndimage.distance_transform_edt(empty, sampling=spacing, return_distances=False, return_indices=True)
        nearest_number = number[tuple(nearest)]
        index = np.indices(shape, dtype=np.float32)[::-1].reshape(3, -1).T
        centres = self.grid.to_physical(index).reshape(*shape, 3)
        apart = centres - surface.points_mm[nearest_number]
        away = np.linalg.norm(apart, axis=-1)
        # near the surface, across it: the points lie a voxel apart
        across = (apart * surface.outwards[nearest_number]).sum(axis=-1)
        signed = np.where(away < 2 * max(spacing), across, np.where(surface.lung, -away, away))
        self.distance_mm: NDArray[np.float32] = np.clip(signed, -REACH_MM, REACH_MM).astype(np.float32)

    def anywhere_mm(self, points_mm: FloatArray) -> FloatArray:
        """The distance at points ``[n, 3]``, also beyond the grid: that at its border and the way there together.

        This is the way round a corner: up to a tenth longer than the distance itself.
        """
        last = np.array(self.grid.size) - 1
        nearest = self.grid.to_physical(np.clip(self.grid.to_index(points_mm), 1e-6, last - 1e-6))
        away = np.linalg.norm(points_mm - nearest, axis=1)
        found: FloatArray = self.at(nearest)[0] + np.where(away > 0.01, away, 0.0)  # outside is positive
        return found

    def at(self, points_mm: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The distance at points ``[n, 3]`` and its gradient ``[n, 3]``; both 0 outside the grid of the surface."""
        index = self.grid.to_index(points_mm)
        value, slope = np.zeros(len(index)), np.zeros((len(index), 3))
        if compiled_available():
            from ChangeMapJointLib.registration.deformable import kernels

            kernels.distance_at(self.distance_mm, np.asarray(self.grid.spacing_mm), index, value, slope)
            return value, slope @ np.asarray(self.grid.direction, dtype=float).T
        last = np.array(self.grid.size) - 1
        inside = ((index >= 0) & (index <= last)).all(axis=1)
        low = np.clip(np.floor(index).astype(np.int64), 0, np.maximum(last - 1, 0))
        t = np.clip(index - low, 0.0, 1.0)
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

    The distance d, less what it is accurate to, counts as ``d^2 / (1 + (d / s)^2)`` (Geman and McClure), s in mm.
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
        d = np.sign(d) * np.maximum(np.abs(d) - self.distance.accuracy_mm, 0.0)
        near = 1 / (1 + (d / self.outlier_mm) ** 2)
        count = max(len(d), 1)
        value = float((d**2 * near).sum()) / count
        pull = (2 / count * d * near**2)[:, None] * slope
        return value, self.splines.gradient(pull, coefficients)
