"""Change of a lesion's volume against the error of its measurement."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

REPEAT_SCAN_LOWER = 0.75  # volume ratios that repeated scans of an unchanged nodule give (95 %)
REPEAT_SCAN_UPPER = 1.29


def voxel_error(volume_ml: float, spacing_mm: ArrayLike) -> float:
    """Relative error of a lesion's volume when its surface is known to half a voxel.

    Both ends of a diameter d along an axis of voxel size h are off by ``h / 2``, independently: d by
    ``h / sqrt(2)``, the volume by the fraction ``h / (sqrt(2) d)``. Over the three axes, with d of the sphere of
    equal volume: ``sqrt((hx^2 + hy^2 + hz^2) / 2) / d``.
    """
    if volume_ml <= 0:
        return math.inf
    diagonal = float(np.linalg.norm(np.asarray(spacing_mm, dtype=float)))
    return diagonal / (math.sqrt(2.0) * sphere_diameter_mm(volume_ml))


def sphere_diameter_mm(volume_ml: float) -> float:
    """Diameter of the sphere of a volume.

    Example:
        >>> round(sphere_diameter_mm(0.5236), 3)
        10.0
    """
    diameter_mm: float = (6000.0 * max(volume_ml, 0.0) / math.pi) ** (1.0 / 3.0)
    return diameter_mm


def volume_change(
    now_ml: float, before_ml: float, *, now_error: float = 0.0, before_error: float = 0.0
) -> tuple[float, float, float]:
    """Change of volume in percent and the interval (about 95 %) that the error of measurement leaves.

    The ratio of two measurements of an unchanged nodule scatters between 0.75 and 1.29 over repeated scans;
    the voxel errors of both volumes are added to that in quadrature, in logarithms.

    Args:
        now_ml: volume in the reference, > 0.
        before_ml: volume in the template, > 0.
        now_error: relative error of ``now_ml`` from the voxel size, :func:`voxel_error`.
        before_error: the same of ``before_ml``.

    Returns:
        ``(change, low, high)`` in percent; 0 inside the interval means that nothing is proven.
    """
    ratio = now_ml / before_ml
    voxels = math.hypot(now_error, before_error)
    # an unchanged nodule may read up to UPPER: so the true ratio may be as low as ratio / UPPER
    low = ratio * math.exp(-math.hypot(math.log(REPEAT_SCAN_UPPER), voxels))
    high = ratio * math.exp(math.hypot(math.log(REPEAT_SCAN_LOWER), voxels))
    return 100.0 * (ratio - 1.0), 100.0 * (low - 1.0), 100.0 * (high - 1.0)
