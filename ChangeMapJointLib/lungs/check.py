"""Can this be a pair of lungs? A look at a finished mask that knows nothing of how it was made.

The mask comes from the body and the air inside it. This check comes from soft tissue and from what lungs
can measure, so that a mistake there is not repeated here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.filters import Mask, largest_component, opening
from ChangeMapJointLib.core.hu import GAS_HU, SOFT_TISSUE_HU
from ChangeMapJointLib.lungs.hull import axial_hull

Hu = NDArray[np.float32]

LARGEST_ML = 12000.0  # of both lungs; adults inhale to 10 l at most
OUTSIDE_SHARE = 0.01  # of the mask: more air round the patient is a leak
_BODY_HU = (SOFT_TISSUE_HU, 300.0)
_SOFT_MM = 6.0  # opening: table, clothes and arms' skin go
_SMOOTH_HU = 15.0  # local standard deviation of air
_WINDOW_VOX = 5


class UnlikelyLungs(InputError):
    """The lungs of a scan cannot be found reliably.

    Attributes:
        hu: ``[z, y, x]`` of the working grid, +z to the head.
        labels: what was taken for lung, 1 right, 2 left, on the same grid.
    """

    def __init__(self, found: str, hu: Hu, labels: NDArray[np.uint8], **parts: Any) -> None:
        """``parts`` are those of an :class:`~ChangeMapJointLib.core.errors.InputError`."""
        super().__init__(found, **parts)
        self.hu, self.labels = hu, labels


def lung_faults(hu: Hu, labels: NDArray[np.uint8], spacing_mm: float) -> tuple[str, ...]:
    """What speaks against ``labels`` being the lungs of a patient; empty when nothing does.

    Args:
        hu: ``[z, y, x]``, one spacing, +z to the head.
        labels: 1 right lung, 2 left lung, on the same grid.
        spacing_mm: of both.

    Returns:
        One phrase each.
    """
    ml = np.bincount(labels.ravel(), minlength=3)[1:3] * spacing_mm**3 / 1000
    found = []
    if ml.sum() > LARGEST_ML:
        found.append(f"lungs of {ml.sum() / 1000:.1f} l, at most {LARGEST_ML / 1000:.0f} l are possible")
    outside_ml = _outside_ml(hu, labels > 0, spacing_mm)
    if outside_ml > OUTSIDE_SHARE * ml.sum():
        found.append(f"{outside_ml / 1000:.2f} l of it are air outside the body")
    return tuple(found)


def _outside_ml(hu: Hu, mask: Mask, spacing_mm: float) -> float:
    """Air beyond the convex hull of the body's soft tissue that the mask holds."""
    soft = (hu > _BODY_HU[0]) & (hu < _BODY_HU[1])
    hull = axial_hull(largest_component(opening(soft, _SOFT_MM, spacing_mm)))
    suspect = mask & ~hull & (hu < GAS_HU + 4 * _SMOOTH_HU)
    if not suspect.any():
        return 0.0
    air = (ndimage.uniform_filter(hu, _WINDOW_VOX) < GAS_HU) & (_spread(hu) < _SMOOTH_HU)
    return float((suspect & air).sum() * spacing_mm**3 / 1000)


def _spread(hu: Hu) -> Hu:
    """Standard deviation in a square of the slice round every voxel."""
    window, values = (1, _WINDOW_VOX, _WINDOW_VOX), hu + np.float32(900)  # keeps float32 squares exact enough
    mean = ndimage.uniform_filter(values, window)
    deviation: NDArray[np.float32] = np.sqrt(np.maximum(ndimage.uniform_filter(values**2, window) - mean**2, 0))
    return deviation
