"""One model of the blur (point spread function) of a scan, used by every stage.

* A voxel of width h images a point as a Gaussian with a full width at half maximum of h, that is, a variance of
  ``h^2 / (8 ln 2)`` along that axis.
* Variances of blurs add. A low-pass filter therefore has to supply the difference of two variances.
* Between axes that are rotated against each other, variance is shared by the squared cosines of the angles.
* Linear interpolation between two voxels averages both. Over all positions this adds a variance of ``h^2 / 6``, which
  matters where a scan is sampled on another grid and compared there (:func:`sampled_variance_mm2`).
"""

from __future__ import annotations

import math

import numpy as np

from ChangeMapJointLib.core.grid import FloatArray, Grid, Vector3

FWHM = 2.0 * math.sqrt(2.0 * math.log(2.0))  # full width at half maximum of a Gaussian, in standard deviations


def voxel_variance_mm2(spacing_mm: Vector3 | FloatArray) -> FloatArray:
    """Return the blur of voxels of this size as a variance in mm^2 along each axis."""
    return np.asarray(spacing_mm, dtype=float) ** 2 / FWHM**2


def low_pass_sigma_mm(own_mm: float, wanted_mm: float) -> float:
    """Return the sigma in mm of the Gaussian that brings voxels of ``own_mm`` to the blur of voxels of ``wanted_mm``.

    0 where they are as blurred already.
    """
    return math.sqrt(max(wanted_mm**2 - own_mm**2, 0.0)) / FWHM


def low_pass_variance_mm2(source: Grid, target: Grid) -> FloatArray:
    """Return the variances in mm^2 along the source's axes (x, y, z) that its voxels lack of the target's blur."""
    projected_mm = np.abs(np.asarray(source.direction).T @ np.asarray(target.direction)) @ np.asarray(target.spacing_mm)
    source_mm = np.asarray(source.spacing_mm)
    missing_mm2: FloatArray = np.maximum(projected_mm**2 - source_mm**2, 0.0) / FWHM**2
    return missing_mm2


def squared_cosines(source: Grid, target: Grid) -> FloatArray:
    """Return the squared cosines between axes, 3x3: rows are the source's axes (x, y, z), columns the target's."""
    cosines: FloatArray = np.asarray(source.direction, dtype=float).T @ np.asarray(target.direction, dtype=float)
    return cosines**2


def sampled_variance_mm2(source: Grid, target: Grid) -> FloatArray:
    """Return the blur of a scan after it was low-passed for ``target`` and interpolated there.

    It is the sum of the blur of its voxels, of :func:`low_pass_variance_mm2`, and of linear interpolation, which
    between thick slices contributes as much as the slices themselves.

    Args:
        source: the scan's grid.
        target: the grid on which it is sampled.

    Returns:
        Variances in mm^2 along the target's axes (x, y, z).
    """
    interpolation = np.asarray(source.spacing_mm) ** 2 / 6
    along_source = voxel_variance_mm2(source.spacing_mm) + interpolation + low_pass_variance_mm2(source, target)
    variance: FloatArray = squared_cosines(source, target).T @ along_source
    return variance


def missing_sigma_mm(fine: Grid, coarse: Grid, *, tolerance: float = 0.2) -> Vector3:
    """Return the sigmas in mm along ``fine``'s axes (x, y, z) that bring it to the blur of ``coarse``'s voxels.

    An axis along which ``coarse`` is coarser by no more than ``tolerance`` (a fraction) gets 0.
    """
    fine_mm2 = np.asarray(fine.spacing_mm) ** 2
    coarse_mm2 = squared_cosines(fine, coarse) @ np.asarray(coarse.spacing_mm) ** 2
    missing = np.where(coarse_mm2 > fine_mm2 * (1.0 + tolerance) ** 2, coarse_mm2 - fine_mm2, 0.0)
    x, y, z = (float(s) for s in np.sqrt(missing) / FWHM)
    return x, y, z
