"""A chest of closed form to make pairs of."""

from functools import cache

import numpy as np
from scipy.ndimage import gaussian_filter

from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.scan.volume import Volume
from ChangeMapJointLib.synthesis.acquisition import (
    scan_noise,
)

GRID = Grid((96, 72, 112), (2.5, 2.5, 2.5), (-138.75, -88.75, -238.75))
INDEX = GRID.to_physical(np.indices(GRID.shape)[::-1].transpose(1, 2, 3, 0))
OWN_MM = np.array([70.0, -30.0, -90.0])


def phantom(radii_mm: tuple[float, float, float] = (56.0, 70.0, 105.0)) -> tuple[Volume, np.ndarray, np.ndarray]:
    """Two lungs with vessels and a texture, in a body; the lungs' threshold mask; one own lesion.

    The body fits the usual lungs so tightly that they touch the air round it: where lungs have to be found, give
    smaller ``radii_mm`` (x, y, z).
    """
    hu, lungs, own = _phantom(radii_mm)
    return Volume(hu.copy(), GRID), lungs.copy(), own.copy()


@cache
def _phantom(radii_mm: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x, y, z = np.moveaxis(INDEX, -1, 0)
    hu = np.where((x / 132) ** 2 + (y / 84) ** 2 < 1, 40.0, -1000.0)
    lungs = np.zeros(GRID.shape, bool)
    for side in (-1, 1):
        inside = ((x - 66 * side) / radii_mm[0]) ** 2 + (y / radii_mm[1]) ** 2 + ((z + 118) / radii_mm[2]) ** 2 < 1
        hu[inside] = -860
        lungs |= inside
        for number in range(5):  # vessels that fan out from the hilum
            start, angle = np.array([16.0 * side, 0, -118]), np.deg2rad(-65 + 32 * number)
            way = np.array([side * np.cos(angle), 0.25 * (number - 2), np.sin(angle)])
            way /= np.linalg.norm(way)
            along = (INDEX - start) @ way
            away = np.linalg.norm(INDEX - start - along[..., None] * way, axis=-1)
            hu[inside & (along > 0) & (along < 75) & (away < 3.2)] = 50
    own = np.linalg.norm(INDEX - OWN_MM, axis=-1) < 8
    hu[own] = 45
    hu = gaussian_filter(hu, 0.5) + scan_noise(rng, GRID, sigma_hu=12.0, width_mm=1.5)
    return np.rint(np.maximum(hu, -1024)).astype(np.int16), lungs & (hu < -400), own
