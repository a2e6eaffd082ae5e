"""Change of a lesion's volume, and the measurement error that it must exceed."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

# 95 % range of the volume ratio between repeated scans of an unchanged nodule
REPEAT_SCAN_LOWER = 0.75
REPEAT_SCAN_UPPER = 1.29


def voxel_error(volume_ml: float, spacing_mm: ArrayLike) -> float:
    """Relative error of a lesion's volume whose surface is known to half a voxel.

    Along an axis with voxel size h, both ends of a diameter d have an independent error of ``h / 2``. The error of d is
    then ``h / sqrt(2)``, and the relative error of the volume ``h / (sqrt(2) d)``. Combined over the three axes, with d
    the diameter of the sphere of equal volume, it is ``sqrt((hx^2 + hy^2 + hz^2) / 2) / d``.

    Args:
        volume_ml: volume of the lesion.
        spacing_mm: voxel size along the three axes.

    Returns:
        The relative error; infinite for an empty lesion.
    """
    if volume_ml <= 0:
        return math.inf
    diagonal = float(np.linalg.norm(np.asarray(spacing_mm, dtype=float)))
    return diagonal / (math.sqrt(2.0) * sphere_diameter_mm(volume_ml))


def sphere_diameter_mm(volume_ml: float) -> float:
    """Diameter in mm of the sphere of a given volume in ml.

    Examples:
        >>> round(sphere_diameter_mm(0.5236), 3)
        10.0
    """
    diameter_mm: float = (6000.0 * max(volume_ml, 0.0) / math.pi) ** (1.0 / 3.0)
    return diameter_mm


def volume_interval(volume_ml: float, error: float = 0.0) -> tuple[float, float]:
    """Confidence interval (about 95 %) of one measured volume in ml.

    The spread of the ratio of two measurements is that of one times the square root of 2, on a logarithmic scale.

    Args:
        volume_ml: the measured volume.
        error: its relative error from the voxel size, see :func:`voxel_error`.

    Examples:
        >>> low, high = volume_interval(1.0)
        >>> round(low, 2), round(high, 2)
        (0.84, 1.23)
    """
    low = math.hypot(math.log(REPEAT_SCAN_UPPER) / math.sqrt(2.0), error)
    high = math.hypot(math.log(REPEAT_SCAN_LOWER) / math.sqrt(2.0), error)
    return volume_ml * math.exp(-low), volume_ml * math.exp(high)


def doubling_time(change_percent: float, days: int | None) -> float | None:
    """Volume doubling time in days of a lesion that grows exponentially, ``days * ln 2 / ln(V_now / V_before)``.

    Args:
        change_percent: change of volume over the interval.
        days: between the two scans; None where a date is unknown.

    Returns:
        The doubling time; None where the volume did not grow, or the days are unknown or not positive.

    Examples:
        >>> doubling_time(300.0, 100)
        50.0
        >>> doubling_time(-10.0, 100) is None
        True
    """
    if days is None or days <= 0 or not change_percent > 0:
        return None
    return days * math.log(2.0) / math.log1p(change_percent / 100.0)


def volume_change(
    now_ml: float, before_ml: float, *, now_error: float = 0.0, before_error: float = 0.0
) -> tuple[float, float, float]:
    """Change of volume in percent and its confidence interval (about 95 %).

    Between repeated scans, the measured volume ratio of an unchanged nodule varies from 0.75 to 1.29. The voxel errors
    of both volumes are added in quadrature, on a logarithmic scale.

    Args:
        now_ml: volume in the reference, > 0.
        before_ml: volume in the template, > 0.
        now_error: relative error of ``now_ml`` from the voxel size, see :func:`voxel_error`.
        before_error: relative error of ``before_ml``.

    Returns:
        ``(change, low, high)`` in percent. Where the interval contains 0, no change is proven.
    """
    ratio = now_ml / before_ml
    error = math.hypot(now_error, before_error)
    # the measured ratio of an unchanged nodule reaches UPPER, so the true ratio may be as low as ratio / UPPER
    low = ratio * math.exp(-math.hypot(math.log(REPEAT_SCAN_UPPER), error))
    high = ratio * math.exp(math.hypot(math.log(REPEAT_SCAN_LOWER), error))
    return 100.0 * (ratio - 1.0), 100.0 * (low - 1.0), 100.0 * (high - 1.0)
