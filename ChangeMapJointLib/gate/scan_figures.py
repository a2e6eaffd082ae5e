"""Measurements of one scan for the gate: noise, and the density of heart and great vessels."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ChangeMapJointLib.core.grid import bounding_box
from ChangeMapJointLib.gate.anatomy import SPINE_MM, WORK_MM, ChestView, between_lungs
from ChangeMapJointLib.scan.lungs import Lungs
from ChangeMapJointLib.scan.volume import Volume

SLICES = 16  # number of slices in which noise is measured
ORGAN_HU = (0.0, 90.0)  # muscle and organs, as a mean over 5 x 5 pixels
LEAST_VOXELS = 500
BLOOD_HU = (-20.0, 500.0)
BLOOD_PERCENTILE = 75  # of the densities between the lungs: heart and vessels, not fat
MAD_TO_SD = 1.4826  # of a normal distribution


def noise_hu(volume: Volume, lungs: Lungs) -> float | None:
    """Measure the standard deviation in HU of the noise in soft tissue around the lungs.

    Noise is the difference from the mean over 5 x 5 pixels of a slice. Its median absolute deviation is used, which is
    robust against edges.

    Returns:
        The noise; None where there is too little soft tissue around the lungs.
    """
    array, grid = volume.grid.lps_view(volume.array)
    labels, _ = volume.grid.lps_view(lungs.labels)
    margin = [int(np.ceil(20.0 / s)) for s in grid.spacing_mm[::-1]]
    (z0, y0, x0), (z1, y1, x1) = bounding_box(labels > 0, [0, *margin[1:]])
    residuals = []
    for z in np.unique(np.linspace(z0, z1 - 1, SLICES).astype(int)):
        plane = array[z, y0:y1, x0:x1].astype(np.float32)
        mean = ndimage.uniform_filter(plane, 5)
        tissue = (mean > ORGAN_HU[0]) & (mean < ORGAN_HU[1])
        residuals.append((plane - mean)[ndimage.binary_erosion(tissue, iterations=2)])
    values = np.concatenate(residuals)
    if values.size < LEAST_VOXELS:
        return None
    return float(MAD_TO_SD * np.median(np.abs(values - np.median(values))) * np.sqrt(25 / 24))


def blood_hu(view: ChestView) -> float | None:
    """Measure the density of heart and great vessels in HU: the denser tissue between the lungs, in front of the spine.

    Returns:
        The density; None where there is too little tissue.
    """
    mask, (spine_y, _) = view.mask, view.spine_vox
    (z0, _, _), (z1, _, _) = bounding_box(mask)
    at_back = view.front_back >= 0
    reach = round(SPINE_MM / WORK_MM)
    rows = slice(0, max(spine_y - reach, 0)) if at_back else slice(spine_y + reach + 1, None)
    height = slice(z0 + (z1 - z0) // 5, z1 - (z1 - z0) // 5)
    hu, lung = ndimage.gaussian_filter(view.hu[height, rows], 1.0), mask[height, rows]
    values = hu[between_lungs(lung) & (hu > BLOOD_HU[0]) & (hu < BLOOD_HU[1])]
    return float(np.percentile(values, BLOOD_PERCENTILE)) if values.size >= LEAST_VOXELS else None
