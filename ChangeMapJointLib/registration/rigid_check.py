"""Do two aligned scans show the same chest? Block matching of lung vessels, and of ribs and spine.

Two chests resemble each other in outline, so that a correlation of whole scans separates patients badly. Vessels do
not: a block of lung finds its counterpart in another scan of the same patient within a few mm, and in nobody else's.
The same holds, less sharply, for blocks of chest wall: ribs look alike, also when mirrored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.grid import FloatArray
from ChangeMapJointLib.core.resample import resample
from ChangeMapJointLib.registration.rigid_optimise import Descent, affine_transform, refine
from ChangeMapJointLib.registration.rigid_scans import BoolArray, WorkingScan

SPACING_MM = 3.0  # of the comparison; keeps vessels of 2 mm and more visible
BLOCK_VOX = 9  # block edge: 27 mm
SEARCH_VOX = 4  # each block may move by 12 mm along every axis
STRIDE_VOX = 5  # a candidate block every 15 mm
MOST_BLOCKS = 250  # enough for a quartile that is stable to 0.01
FEWEST_BLOCKS = 20
LUNG_WINDOW_HU = (-1000.0, -300.0)  # vessels against lung; bones and the heart are flat in it
WALL_WINDOW_HU = (0.0, 400.0)  # bone against soft tissue; the lung is flat in it
LEAST_CONTRAST_HU = 25.0  # standard deviation below which a block of the reference shows nothing
AFFINE = Descent(step_mm=1.0, stop_mm=0.01, iterations=60)


@dataclass(frozen=True)
class Agreement:
    """How well small structures find their counterpart.

    Attributes:
        vessels: upper quartile over blocks of lung of the best correlation, in [-1, 1]; None when
            fewer than ``FEWEST_BLOCKS`` blocks with structure lie in both scans.
        wall: the same as a median over blocks of chest wall.
    """

    vessels: float | None
    wall: float | None


def agreement(
    reference: WorkingScan, template: WorkingScan, matrix: FloatArray, centre_mm: FloatArray, margin_mm: float
) -> Agreement:
    """Compare vessels and chest wall of two rigidly aligned scans.

    An affine fit from ``matrix`` takes out most of a different depth of breathing first; it serves this comparison
    only.

    Args:
        reference: copy with voxels of about 6 mm or finer.
        template: copy with voxels of about 6 mm or finer.
        matrix: 4x4 physical, reference to template.
        centre_mm: middle of the reference's lungs.
        margin_mm: how far round the lungs the scans are looked at.
    """
    coarse, moving = reference.coarser(2 * SPACING_MM), template.coarser(2 * SPACING_MM)
    fit = refine(coarse, moving, coarse.region(margin_mm), affine_transform(matrix, centre_mm), AFFINE)
    if not 0.4 < float(np.linalg.det(fit[:3, :3])) < 2.5:  # ran away: nothing to hold on to
        fit = matrix
    fixed, moved = _on_one_grid(reference, template, fit)
    lung = ndimage.binary_erosion(fixed.lungs) & fixed.valid
    wall = fixed.region(margin_mm) & ~ndimage.binary_dilation(fixed.lungs, iterations=2)
    either = ndimage.binary_dilation(moved.lungs, iterations=SEARCH_VOX)
    vessels = block_correlations(fixed.array, moved.array, lung & either, moved.valid, LUNG_WINDOW_HU)
    bones = block_correlations(fixed.array, moved.array, wall, moved.valid, WALL_WINDOW_HU)
    return Agreement(_percentile(vessels, 75), _percentile(bones, 50))


def block_correlations(
    fixed: NDArray[np.float32],
    moving: NDArray[np.float32],
    where: BoolArray,
    valid: BoolArray,
    window_hu: tuple[float, float],
) -> FloatArray:
    """The best correlation of each block of ``fixed`` with its surroundings in ``moving``.

    Args:
        fixed: HU ``[z, y, x]``, isotropic.
        moving: HU on the same grid.
        where: voxels of ``fixed`` that count.
        valid: where ``moving`` has data.
        window_hu: both are clipped to it.

    Returns:
        One value in [-1, 1] for every block with structure that both scans show, ``[n]``.
    """
    half = BLOCK_VOX // 2
    pad = half + SEARCH_VOX
    a, w = np.pad(np.clip(fixed, *window_hu), half), np.pad(where, half)
    b, v = np.pad(np.clip(moving, *window_hu), pad), np.pad(valid, pad)
    lattice = np.zeros(fixed.shape, dtype=bool)
    lattice[::STRIDE_VOX, ::STRIDE_VOX, ::STRIDE_VOX] = True
    corners = np.argwhere(lattice & where)  # of the padded block; its centre in the unpadded array
    corners = corners[:: max(1, len(corners) // MOST_BLOCKS)]
    found = []
    for z, y, x in corners:
        block = np.s_[z : z + BLOCK_VOX, y : y + BLOCK_VOX, x : x + BLOCK_VOX]
        around = np.s_[z : z + 2 * pad + 1, y : y + 2 * pad + 1, x : x + 2 * pad + 1]
        if w[block].mean() >= 0.4 and v[around].mean() >= 0.9:
            found.append(_best_correlation(a[block], w[block], b[around]))
    return np.array([value for value in found if value is not None])


def _best_correlation(block: NDArray[np.float32], where: BoolArray, around: NDArray[np.float32]) -> float | None:
    """Largest weighted correlation of ``block`` with every same-sized window of ``around``; None without contrast."""
    weight = where.ravel().astype(np.float32)
    count = weight.sum()
    values = block.ravel()
    centred = (values - (values @ weight) / count) * weight
    variance = float(centred @ centred)
    if variance / count < LEAST_CONTRAST_HU**2:
        return None
    windows = sliding_window_view(around, block.shape).reshape(-1, block.size)
    middle = around.mean()
    windows = windows - middle  # keeps float32 sums of squares exact enough
    mean = windows @ weight / count
    spread = np.maximum((windows**2) @ weight - count * mean**2, count * 100.0)  # 10 HU: noise alone matches nothing
    return min(1.0, float((windows @ centred / np.sqrt(variance * spread)).max()))


def _on_one_grid(reference: WorkingScan, template: WorkingScan, matrix: FloatArray) -> tuple[WorkingScan, WorkingScan]:
    """Both scans on the reference's box with isotropic voxels, the template moved by ``matrix``."""
    grid = reference.grid.with_spacing((SPACING_MM, SPACING_MM, SPACING_MM))
    scans = []
    for scan, moved_by in ((reference, None), (template, matrix)):
        array, lungs, valid = (
            resample(values.astype(np.float32), scan.grid, grid, matrix=moved_by, outside=outside)
            for values, outside in ((scan.array, -1000.0), (scan.lungs, 0.0), (scan.valid, 0.0))
        )
        scans.append(WorkingScan(array, grid, lungs > 0.5, valid > 0.99))
    return scans[0], scans[1]


def _percentile(values: FloatArray, percent: float) -> float | None:
    return float(np.percentile(values, percent)) if len(values) >= FEWEST_BLOCKS else None
