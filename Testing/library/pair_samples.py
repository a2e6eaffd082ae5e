"""A chest of closed form to make pairs of."""

from functools import cache

import numpy as np
from scipy.ndimage import gaussian_filter

from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.scan.volume import Volume
from ChangeMapJointLib.synthesis.acquisition import (
    scan_noise,
)

SIZE_MM, CENTRE_MM = np.array([280.0, 180.0, 240.0]), np.array([0.0, 0.0, -120.0])


def grid_of(edge_mm: float) -> Grid:
    """The field of view in voxels of that edge."""
    nx, ny, nz = (round(float(size) / edge_mm) for size in SIZE_MM)
    x, y, z = (float(v) for v in CENTRE_MM - (np.array([nx, ny, nz]) - 1) / 2 * edge_mm)
    return Grid((nz, ny, nx), (edge_mm, edge_mm, edge_mm), (x, y, z))


def points_of(grid: Grid) -> np.ndarray:
    """Physical positions of its voxels, ``[z, y, x, 3]``."""
    return grid.to_physical(np.indices(grid.shape)[::-1].transpose(1, 2, 3, 0))


GRID = grid_of(2.5)
INDEX = points_of(GRID)
OWN_MM = np.array([70.0, -30.0, -90.0])


def phantom(
    radii_mm: tuple[float, float, float] = (56.0, 70.0, 105.0), *, edge_mm: float = 2.5
) -> tuple[Volume, np.ndarray, np.ndarray]:
    """Two lungs with vessels and a texture, in a body; the lungs' threshold mask; one own lesion.

    The body fits the usual lungs so tightly that they touch the air round it: where lungs have to be found, give
    smaller ``radii_mm`` (x, y, z). Larger voxels are for tests of what is written, not of how it looks.
    """
    hu, lungs, own = _phantom(radii_mm, edge_mm)
    return Volume(hu.copy(), grid_of(edge_mm)), lungs.copy(), own.copy()


@cache
def _phantom(radii_mm: tuple[float, float, float], edge_mm: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng, grid = np.random.default_rng(0), grid_of(edge_mm)
    at = points_of(grid)
    x, y, z = np.moveaxis(at, -1, 0)
    hu = np.where((x / 132) ** 2 + (y / 84) ** 2 < 1, 40.0, -1000.0)
    lungs = np.zeros(grid.shape, bool)
    for side in (-1, 1):
        inside = ((x - 66 * side) / radii_mm[0]) ** 2 + (y / radii_mm[1]) ** 2 + ((z + 118) / radii_mm[2]) ** 2 < 1
        hu[inside] = -860
        lungs |= inside
        for number in range(5):  # vessels that fan out from the hilum
            start, angle = np.array([16.0 * side, 0, -118]), np.deg2rad(-65 + 32 * number)
            way = np.array([side * np.cos(angle), 0.25 * (number - 2), np.sin(angle)])
            way /= np.linalg.norm(way)
            along = (at - start) @ way
            away = np.linalg.norm(at - start - along[..., None] * way, axis=-1)
            hu[inside & (along > 0) & (along < 75) & (away < 3.2)] = 50
    own = np.linalg.norm(at - OWN_MM, axis=-1) < 8
    hu[own] = 45
    hu = gaussian_filter(hu, 0.5) + scan_noise(rng, grid, sigma_hu=12.0, width_mm=1.5)
    return np.rint(np.maximum(hu, -1024)).astype(np.int16), lungs & (hu < -400), own
