"""Plausibility check of a finished lung mask, independent of how it was made.

The mask is derived from the body and the air inside it. This check uses soft tissue and the possible volume of lungs,
so that it does not repeat a mistake of the segmentation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.filters import Mask, label_sizes, largest_component, opening
from ChangeMapJointLib.core.hu import GAS_HU, SOFT_TISSUE_HU
from ChangeMapJointLib.lungs.hull import axial_hull

Hu = NDArray[np.float32]

LARGEST_ML = 12000.0  # both lungs; adults inhale to 10 l at most
OUTSIDE_SHARE = 0.01  # of the mask: more air from outside the body is a leak
_BODY_HU = (SOFT_TISSUE_HU, 300.0)
_SOFT_MM = 6.0  # radius of the opening that removes table, clothes and the skin of the arms
_SMOOTH_HU = 15.0  # the local standard deviation of air is below this
_WINDOW_VOX = 5


class UnlikelyLungs(InputError):
    """The lungs of a scan cannot be found reliably.

    Attributes:
        hu: ``[z, y, x]`` of the working grid, +z to the head.
        labels: the rejected mask on the same grid, 1 right, 2 left.
    """

    def __init__(self, found: str, hu: Hu, labels: NDArray[np.uint8], **parts: Any) -> None:
        """``parts`` are the keyword arguments of :class:`~ChangeMapJointLib.core.errors.InputError`."""
        super().__init__(found, **parts)
        self.hu, self.labels = hu, labels


def lung_faults(hu: Hu, labels: NDArray[np.uint8], spacing_mm: float) -> tuple[str, ...]:
    """Reasons why ``labels`` cannot be the lungs of a patient.

    Args:
        hu: ``[z, y, x]``, isotropic, +z to the head.
        labels: 1 right lung, 2 left lung, on the same grid.
        spacing_mm: voxel size of both.

    Returns:
        One phrase for each reason; empty when the mask is plausible.
    """
    ml = label_sizes(labels, minlength=3)[1:3] * spacing_mm**3 / 1000
    faults = []
    if ml.sum() > LARGEST_ML:
        faults.append(f"lungs of {ml.sum() / 1000:.1f} l, at most {LARGEST_ML / 1000:.0f} l are possible")
    outside_ml = _outside_ml(hu, labels > 0, spacing_mm)
    if outside_ml > OUTSIDE_SHARE * ml.sum():
        faults.append(f"{outside_ml / 1000:.2f} l of it are air outside the body")
    return tuple(faults)


def _outside_ml(hu: Hu, mask: Mask, spacing_mm: float) -> float:
    """Volume of air in the mask outside the convex hull of the body's soft tissue."""
    soft = (hu > _BODY_HU[0]) & (hu < _BODY_HU[1])
    hull = axial_hull(largest_component(opening(soft, _SOFT_MM, spacing_mm)))
    suspect = mask & ~hull & (hu < GAS_HU + 4 * _SMOOTH_HU)
    if not suspect.any():
        return 0.0
    air = (ndimage.uniform_filter(hu, _WINDOW_VOX) < GAS_HU) & (_spread(hu) < _SMOOTH_HU)
    return float((suspect & air).sum() * spacing_mm**3 / 1000)


def _spread(hu: Hu) -> Hu:
    """Standard deviation in a square within the slice around each voxel."""
    window, values = (1, _WINDOW_VOX, _WINDOW_VOX), hu + np.float32(900)  # keeps float32 squares accurate
    mean = ndimage.uniform_filter(values, window)
    deviation: NDArray[np.float32] = np.sqrt(np.maximum(ndimage.uniform_filter(values**2, window) - mean**2, 0))
    return deviation
