"""Outlines of lesions: where a lesion is in one scan, whatever it is known from (mask, sphere or parametric shape)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.grid import FloatArray, Grid, Vector3, nearest_in
from ChangeMapJointLib.core.resample import index_points
from ChangeMapJointLib.io.mappings import Mapping
from ChangeMapJointLib.synthesis.shapes import LesionShape

Inside = Callable[[FloatArray], NDArray[np.bool_]]
Box = tuple[slice, slice, slice]
INVERSION_STEPS, INVERTED_MM = 50, 0.02


@dataclass(frozen=True, eq=False)
class Outline:
    """A lesion in one space.

    Attributes:
        centre_mm: middle of the sphere that holds it, LPS.
        radius_mm: of that sphere.
        inside: which of the points ``[n, 3]`` lie in the lesion, bool ``[n]``.
    """

    centre_mm: Vector3
    radius_mm: float
    inside: Inside

    def box(self, grid: Grid) -> Box:
        """The part of ``grid`` that can hold the lesion and one voxel around it; empty where there is none."""
        reach = self.radius_mm / np.array(grid.spacing_mm) + 1.0
        middle = grid.to_index(self.centre_mm)
        low = np.clip(np.floor(middle - reach), 0, grid.size).astype(int)
        high = np.maximum(low, np.clip(np.ceil(middle + reach) + 1, 0, grid.size).astype(int))
        (a, b, c), (d, e, f) = low[::-1].tolist(), high[::-1].tolist()
        return slice(a, d), slice(b, e), slice(c, f)

    def mask(self, grid: Grid, box: Box) -> NDArray[np.bool_]:
        """The lesion in a box of ``grid``, bool ``[z, y, x]``."""
        shape = tuple(s.stop - s.start for s in box)
        if 0 in shape:
            return np.zeros(shape, dtype=bool)
        crop = grid.crop([s.start for s in box], [s.stop for s in box])
        points = index_points(crop, crop.affine).numpy().reshape(-1, 3).astype(float)
        return self.inside(points).reshape(shape)

    def at(self, centre_mm: Vector3) -> Outline:
        """The same outline moved as a whole, so that its centre lies at ``centre_mm``."""
        shift = np.subtract(self.centre_mm, centre_mm)
        return Outline(centre_mm, self.radius_mm, lambda points: self.inside(points + shift))


def shape_outline(centre_mm: Vector3, diameter_mm: float, shape: LesionShape | None = None) -> Outline | None:
    """The outline of a sphere, or of ``shape`` at the size of that sphere; None for a diameter of 0."""
    if diameter_mm <= 0:
        return None
    centre = np.asarray(centre_mm)
    if shape is None:
        return Outline(
            centre_mm,
            diameter_mm / 2,
            lambda points: np.asarray(np.linalg.norm(points - centre, axis=1) <= diameter_mm / 2),
        )
    return Outline(
        centre_mm,
        shape.radius_mm(diameter_mm),
        lambda points: np.asarray(shape.signed_distance(points - centre, diameter_mm) <= 0),
    )


def mask_outlines(labels: NDArray[np.integer], grid: Grid) -> dict[int, Outline]:
    """The outline of every label above 0, by label; values between voxel centres are those of the nearest voxel."""
    outlines = {}
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        if box is None:
            continue
        index = np.argwhere(labels[box] == number) + [s.start for s in box]
        points = grid.to_physical(index[:, ::-1])
        x, y, z = (float(v) for v in points.mean(axis=0))
        reach = float(np.linalg.norm(points - (x, y, z), axis=1).max())
        edge = float(np.linalg.norm(grid.spacing_mm)) / 2
        outlines[number] = Outline((x, y, z), reach + edge, _nearest(labels, grid, number))
    return outlines


def moved_outline(outline: Outline, mapping: Mapping) -> Outline:
    """L^T(y): an outline in the prior, seen from the current scan.

    Args:
        outline: in the prior.
        mapping: y, from points of the current scan to the prior.

    Returns:
        The points x whose y(x) lie in ``outline``. They are sought within twice its radius and 10 mm of the point that
        y maps onto its centre.
    """
    x, y, z = (float(v) for v in preimage(mapping, np.asarray(outline.centre_mm)))
    return Outline((x, y, z), 2 * outline.radius_mm + 10.0, lambda points: outline.inside(mapping.apply(points)))


def preimage(mapping: Mapping, point_mm: FloatArray) -> FloatArray:
    """The point x with y(x) = ``point_mm`` ``[3]``, by fixed-point iteration; the nearest found where y folds."""
    x = best = point_mm - (mapping.apply(point_mm[None])[0] - point_mm)
    least = np.inf
    for _ in range(INVERSION_STEPS):
        off = mapping.apply(x[None])[0] - point_mm
        size = float(np.linalg.norm(off))
        if size < least:
            least, best = size, x
        if size < INVERTED_MM:
            break
        x = x - off
    return np.asarray(best)


def _nearest(labels: NDArray[np.integer], grid: Grid, number: int) -> Inside:
    def inside(points: FloatArray) -> NDArray[np.bool_]:
        found = np.zeros(len(points), dtype=bool)
        values, within = nearest_in(labels, grid, points)
        found[within] = values == number
        return found

    return inside
