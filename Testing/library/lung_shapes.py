"""Closed-form pieces of lung with lesions, vessels and a wall, sampled with partial volumes, for the tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from phantoms import Sphere, centred_grid, rotation, voxel_points

from ChangeMapJointLib.core.grid import IDENTITY3, FloatArray, Grid, Matrix3, Vector3
from ChangeMapJointLib.scan.volume import Volume

LUNG_HU, SOLID_HU = -850.0, 40.0
SAGITTAL: Matrix3 = ((0.0, 0.0, -1.0), (1.0, 0.0, 0.0), (0.0, -1.0, 0.0))  # array x, y, z = +P, -S, -L: a permutation
OBLIQUE = rotation(12.0, -9.0, 20.0)


@dataclass(frozen=True)
class Tube:
    """A straight vessel without ends."""

    point_mm: Vector3
    direction: Vector3
    radius_mm: float
    hu: float = SOLID_HU


@dataclass(frozen=True)
class Wall:
    """Everything with x >= ``x_mm``."""

    x_mm: float
    hu: float = SOLID_HU


Shape = Sphere | Tube | Wall


def inside(shape: Shape, points_mm: FloatArray) -> NDArray[np.bool_]:
    """For points ``[..., 3]``."""
    if isinstance(shape, Wall):
        return points_mm[..., 0] >= shape.x_mm
    if isinstance(shape, Sphere):
        return ((points_mm - np.asarray(shape.centre_mm)) ** 2).sum(axis=-1) <= shape.radius_mm**2
    along = np.asarray(shape.direction) / np.linalg.norm(shape.direction)
    offset = points_mm - np.asarray(shape.point_mm)
    across = offset - (offset @ along)[..., None] * along
    return (across**2).sum(axis=-1) <= shape.radius_mm**2


def scan(grid: Grid, *shapes: Shape, noise_hu: float = 0.0, seed: int = 0, parts: int = 4) -> Volume:
    """A scan in which each voxel is the mean of ``parts``^3 points; later shapes lie over earlier ones."""
    centres = voxel_points(grid)
    steps = (np.arange(parts) + 0.5) / parts - 0.5
    axes = np.asarray(grid.direction) * np.asarray(grid.spacing_mm)
    hu = np.zeros(grid.shape)
    for i in steps:
        for j in steps:
            for k in steps:
                points = centres + axes @ np.array([i, j, k])
                value = np.full(grid.shape, LUNG_HU)
                for shape in shapes:
                    value[inside(shape, points)] = shape.hu
                hu += value
    hu /= parts**3
    if noise_hu:
        hu += np.random.default_rng(seed).normal(0.0, noise_hu, hu.shape)
    return Volume(np.rint(hu).astype(np.int16), grid)


def cube(
    spacing_mm: Vector3 = (1.5, 1.5, 1.5),
    *,
    edge_mm: float = 48.0,
    centre_mm: Vector3 = (0.0, 0.0, 0.0),
    direction: Matrix3 = IDENTITY3,
) -> Grid:
    """A grid that covers a cube, whatever its direction."""
    nx, ny, nz = (round(edge_mm / h) for h in spacing_mm)
    return centred_grid((nz, ny, nx), spacing_mm, centre_mm=centre_mm, direction=direction)


def ball_ml(radius_mm: float) -> float:
    """Volume of a sphere."""
    return 4.0 / 3.0 * np.pi * radius_mm**3 / 1000.0
