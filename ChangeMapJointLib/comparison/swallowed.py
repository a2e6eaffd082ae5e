"""Places where a given deformation shrinks or swells tissue far more than around them, as where it swallows change.

Breathing changes volume smoothly. A registration that follows intensities alone maps a lesion that grew onto the
smaller one of before: det grad y falls to the ratio of their volumes there, the two scans agree, and the growth is gone
from the map. Neither lung overlap nor inverse consistency shows it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.filters import label_sizes
from ChangeMapJointLib.core.grid import Grid, Vector3
from ChangeMapJointLib.core.resample import resample

# on known20mm (synthetic lesions and motion on real CT), a field of greedy exceeds LEAST_LOG at the four lesions that
# it deforms away and nowhere else; 99.9 % of the lung stay below 0.41
NEAR_MM, FAR_MM = 2.0, 10.0  # sigmas of the local mean of log det grad y, and of that of the surroundings
LEAST_LOG, LEAST_ML = 0.5, 0.05
MOST_PLACES = 20


@dataclass(frozen=True)
class Swallowed:
    """One such place.

    Attributes:
        centre_mm: (x, y, z) in the current scan, LPS.
        volume_ml: of the place.
        factor: volume in the prior over that in the current scan, relative to the surroundings: below 1, tissue that
            takes more room now was shrunk (growth); above 1, the other way round.
    """

    centre_mm: Vector3
    volume_ml: float
    factor: float


def find_swallowed(field: DisplacementField, lungs: NDArray[np.bool_], grid: Grid) -> tuple[Swallowed, ...]:
    """Find places in the lungs where the volume changes otherwise than around them, the largest first.

    Args:
        field: y.
        lungs: bool ``[z, y, x]`` of the current scan.
        grid: of ``lungs``.
    """
    own = field.grid
    inside = lungs if own.same_as(grid) else resample(lungs, grid, own) > 0.5
    if not inside.any():
        return ()
    log = np.log(np.clip(field.jacobian_determinant(), 0.02, 50.0))
    near, far = (_mean(log, inside, mm, own) for mm in (NEAR_MM, FAR_MM))
    excess = np.where(inside, near - far, np.float32(0))
    found: list[Swallowed] = []
    for sign in (-1, 1):
        labels, count = ndimage.label(sign * excess > LEAST_LOG, np.ones((3, 3, 3)))
        numbers = np.arange(1, count + 1)
        volumes = label_sizes(labels, minlength=count + 1)[1:] * own.voxel_volume_ml
        for number in numbers[volumes >= LEAST_ML]:
            voxels = np.argwhere(labels == number)
            x, y, z = (round(float(v), 1) for v in own.to_physical(voxels.mean(axis=0)[::-1]))
            factor = float(np.exp(excess[tuple(voxels.T)].mean()))
            found.append(Swallowed((x, y, z), round(float(volumes[number - 1]), 3), round(factor, 2)))
    return tuple(sorted(found, key=lambda place: -place.volume_ml)[:MOST_PLACES])


def sentence(places: tuple[Swallowed, ...], *, refined: bool) -> str:
    """Return what a reader should know about ``places``; empty where there are none."""
    if not places:
        return ""
    where = "; ".join(f"({x:.0f}, {y:.0f}, {z:.0f})" for x, y, z in (place.centre_mm for place in places[:5]))
    many = f"{len(places)} places" if len(places) > 1 else "one place"
    more = " and more" if len(places) > 5 else ""
    done = "this is why it was refined" if refined else "look there, or refine the deformation"
    return (
        f"In {many} the given deformation shrinks or swells tissue as if growth or shrinkage were motion, which hides "
        f"it from the map: around {where}{more} (x, y, z in mm, LPS); {done}."
    )


def _mean(values: NDArray[np.float32], inside: NDArray[np.bool_], mm: float, grid: Grid) -> NDArray[np.float32]:
    """Mean of ``values`` over the lung near each voxel."""
    sigma = [mm / h for h in grid.spacing_mm[::-1]]
    weight = inside.astype(np.float32)
    total: NDArray[np.float32] = ndimage.gaussian_filter(values.astype(np.float32) * weight, sigma)
    share: NDArray[np.float32] = np.maximum(ndimage.gaussian_filter(weight, sigma), np.float32(1e-3))
    mean: NDArray[np.float32] = total / share
    return mean
