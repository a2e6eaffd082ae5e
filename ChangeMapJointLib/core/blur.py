"""How blurred a scan is: one model (point spread) for every stage.

* A voxel of width h shows a point as a Gaussian whose full width at half maximum is h: a variance of ``h^2 / (8 ln 2)``
  along that axis.
* Variances of blurs add. What a low-pass has to add is therefore the difference of two variances.
* Axes that are turned against each other share variance by the squares of their cosines.
* Linear interpolation half way between two voxels averages both: over all positions that adds ``h^2 / 6``, which counts
  where a scan is sampled on another grid and compared there (:func:`sampled_mm2`).
"""

from __future__ import annotations

import math

import numpy as np

from ChangeMapJointLib.core.grid import FloatArray, Grid, Vector3

FWHM = 2.0 * math.sqrt(2.0 * math.log(2.0))  # of a Gaussian, in standard deviations


def voxel_mm2(spacing_mm: Vector3 | FloatArray) -> FloatArray:
    """Variance in mm^2 along each axis of the blur of voxels of this size."""
    return np.asarray(spacing_mm, dtype=float) ** 2 / FWHM**2


def low_pass_sigma_mm(own_mm: float, wanted_mm: float) -> float:
    """Standard deviation in mm that voxels of ``own_mm`` lack of the blur of voxels of ``wanted_mm``; 0 if none."""
    return math.sqrt(max(wanted_mm**2 - own_mm**2, 0.0)) / FWHM


def low_pass_mm2(source: Grid, target: Grid) -> FloatArray:
    """Variances along the source's axes (x, y, z) that its voxels lack of the blur of the target's."""
    turned = np.abs(np.asarray(source.direction).T @ np.asarray(target.direction)) @ np.asarray(target.spacing_mm)
    own = np.asarray(source.spacing_mm)
    missing_mm2: FloatArray = np.maximum(turned**2 - own**2, 0.0) / FWHM**2
    return missing_mm2


def squared_cosines(source: Grid, target: Grid) -> FloatArray:
    """Of the angles between axes, 3x3: rows are the source's axes (x, y, z), columns the target's."""
    cosines: FloatArray = np.asarray(source.direction, dtype=float).T @ np.asarray(target.direction, dtype=float)
    return cosines**2


def sampled_mm2(source: Grid, target: Grid) -> FloatArray:
    """How blurred a scan is once it is low-passed for ``target`` and interpolated there.

    The sum of its voxels' blur, of :func:`low_pass_mm2`, and of linear interpolation, which between thick slices is as
    much as the slices themselves.

    Args:
        source: the scan's grid.
        target: the grid on which it is sampled.

    Returns:
        Variances in mm^2 along the target's axes (x, y, z).
    """
    interpolation = np.asarray(source.spacing_mm) ** 2 / 6
    own = voxel_mm2(source.spacing_mm) + interpolation + low_pass_mm2(source, target)
    variance: FloatArray = squared_cosines(source, target).T @ own
    return variance


def missing_sigma_mm(fine: Grid, coarse: Grid, *, tolerance: float = 0.2) -> Vector3:
    """Standard deviations in mm along ``fine``'s axes (x, y, z) that bring it to the blur of ``coarse``'s voxels.

    0 for an axis along which ``coarse`` is not coarser by more than ``tolerance`` (a fraction).
    """
    own = np.asarray(fine.spacing_mm) ** 2
    other = squared_cosines(fine, coarse) @ np.asarray(coarse.spacing_mm) ** 2
    missing = np.where(other > own * (1.0 + tolerance) ** 2, other - own, 0.0)
    x, y, z = (float(s) for s in np.sqrt(missing) / FWHM)
    return x, y, z
