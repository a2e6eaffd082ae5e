"""Do two aligned scans show the same chest? Block matching of lung vessels, and of ribs and spine.

Two chests resemble each other in outline, so that a correlation of whole scans separates patients badly. Vessels do
not: a block of lung finds its counterpart in another scan of the same patient within a few mm, and in nobody else's.
The same holds, less sharply, for blocks of chest wall: ribs look alike, also when mirrored.

How well blocks of *different* chests match depends on how sharp the scans are: a few blurred blobs fit anything. So
(1) both scans are brought to the same resolution, (2) what the outline of the lungs and slow changes of density add is
taken out, and (3) the correlation that a block finds at its own place is held against those that it finds elsewhere in
the same lungs. 0 is what any place gives, 1 a perfect match, whatever the voxels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from ChangeMapJointLib.core.grid import FloatArray
from ChangeMapJointLib.core.hu import AIR_HU
from ChangeMapJointLib.core.resample import resample
from ChangeMapJointLib.registration.rigid.optimise import Descent, affine_transform, refine
from ChangeMapJointLib.registration.rigid.working_scan import BoolArray, WorkingScan

SPACING_MM = 3.0  # of the comparison; keeps vessels of 2 mm and more visible
BLOCK_VOX = 13  # block edge: 39 mm; smaller ones of blurred scans hold too few vessels to be told apart
SEARCH_VOX = 4  # each block may move by 12 mm along every axis
STRIDE_VOX = 5  # a candidate block every 15 mm
MOST_BLOCKS = 120  # their upper quartile is stable to 0.02
FEWEST_BLOCKS = 20
ELSEWHERE = 4  # other places that every block is compared with
VESSEL_WINDOW_HU = (AIR_HU, -300.0)  # vessels against lung
WALL_WINDOW_HU = (0.0, 400.0)  # bone against soft tissue
STRUCTURE_VOX = 2.0  # standard deviation of the mean that is taken out: 6 mm, wider than the vessels that count
LEAST_CONTRAST_HU = 15.0  # standard deviation below which a block of the reference shows nothing
NOISE_HU = 10.0  # what varies by less in the template matches nothing
LEAST_BLUR_MM2 = 0.3  # differences in resolution below this are left
AFFINE = Descent(step_mm=1.0, stop_mm=0.01, iterations=60)


@dataclass(frozen=True)
class Agreement:
    """How well small structures find their counterpart.

    Attributes:
        vessels: upper quartile over blocks of lung of :meth:`Matches.agreement`, at most 1, about 0.1 for two chests;
            None when fewer than ``FEWEST_BLOCKS`` blocks with structure lie in both scans.
        wall: the same as a median over blocks of chest wall.
    """

    vessels: float | None
    wall: float | None


@dataclass(frozen=True)
class Matches:
    """What blocks of one scan find in another.

    Attributes:
        own: the best correlation of each block near its own place, ``[n]`` in [-1, 1].
        elsewhere: the same near places of other blocks, ``[n, ELSEWHERE]``.
    """

    own: FloatArray
    elsewhere: FloatArray

    def agreement(self) -> FloatArray:
        """Of the way from what any place gives to a perfect match, how much the own place gives, ``[n]``."""
        chance = self.elsewhere.mean(axis=1)
        gain: FloatArray = (self.own - chance) / np.maximum(1.0 - chance, 1e-3)
        return gain


def agreement(
    reference: WorkingScan, template: WorkingScan, matrix: FloatArray, centre_mm: FloatArray, margin_mm: float
) -> Agreement:
    """Compare vessels and chest wall of two rigidly aligned scans.

    An affine fit from ``matrix`` takes out most of a different depth of breathing first; it serves this comparison
    only.

    Args:
        reference: copy with voxels of ``SPACING_MM``.
        template: copy with voxels of ``SPACING_MM``.
        matrix: 4x4 physical, reference to template.
        centre_mm: middle of the reference's lungs.
        margin_mm: how far round the lungs the scans are looked at.
    """
    coarse, moving = reference.coarser(2 * SPACING_MM), template.coarser(2 * SPACING_MM)
    fit = refine(coarse, moving, coarse.region(margin_mm), affine_transform(matrix, centre_mm), AFFINE)
    if not 0.4 < float(np.linalg.det(fit[:3, :3])) < 2.5:  # ran away: nothing to hold on to
        fit = matrix
    fixed, moved = _alike(reference, template, fit)
    lungs = ndimage.binary_erosion(fixed.lungs) & fixed.valid
    theirs = ndimage.binary_erosion(moved.lungs) & moved.valid
    where = lungs & ndimage.binary_dilation(moved.lungs, iterations=SEARCH_VOX)
    vessels = block_matches(
        structure(fixed.array, lungs, VESSEL_WINDOW_HU),
        structure(moved.array, theirs, VESSEL_WINDOW_HU),
        where,
        moved.valid,
    )
    wall, around = (~ndimage.binary_dilation(scan.lungs) & scan.valid for scan in (fixed, moved))
    where = fixed.region(margin_mm) & ~ndimage.binary_dilation(fixed.lungs, iterations=2)
    ours, other = structure(fixed.array, wall, WALL_WINDOW_HU), structure(moved.array, around, WALL_WINDOW_HU)
    bones = block_matches(ours, other, where, moved.valid)
    return Agreement(_percentile(vessels, 75), _percentile(bones, 50))


def structure(hu: NDArray[np.float32], where: BoolArray, window_hu: tuple[float, float]) -> NDArray[np.float32]:
    """``hu`` clipped to a window, less its mean round about, of what lies in ``where``; 0 beyond.

    Two chests share the outline of their lungs, the fall of density towards the back and the hila; this leaves what
    is small.
    """
    inside = np.where(where, np.clip(hu, *window_hu), np.float32(0))
    share = ndimage.gaussian_filter(where.astype(np.float32), STRUCTURE_VOX, truncate=3.0)
    mean = ndimage.gaussian_filter(inside, STRUCTURE_VOX, truncate=3.0) / np.maximum(share, np.float32(1e-3))
    return np.where(where, inside - mean, np.float32(0))


def block_matches(
    fixed: NDArray[np.float32], moving: NDArray[np.float32], where: BoolArray, valid: BoolArray
) -> Matches:
    """The best correlations of each block of ``fixed`` with its surroundings in ``moving``, and with other places.

    Args:
        fixed: HU ``[z, y, x]``, isotropic, mean about 0.
        moving: HU on the same grid.
        where: voxels of ``fixed`` that count.
        valid: where ``moving`` has data.

    Returns:
        One row for every block with structure that both scans show; none when they are fewer than ``FEWEST_BLOCKS``.
    """
    half = BLOCK_VOX // 2
    pad = half + SEARCH_VOX
    a, w = np.pad(fixed, half), np.pad(where, half)
    b, v = np.pad(moving, pad), np.pad(valid, half)
    lattice = np.zeros(fixed.shape, dtype=bool)
    lattice[::STRIDE_VOX, ::STRIDE_VOX, ::STRIDE_VOX] = True
    corners = np.argwhere(lattice & where)  # of the padded block; its centre in the unpadded array
    corners = corners[:: max(1, len(corners) // MOST_BLOCKS)]
    blocks, weights, places = [], [], []
    for z, y, x in corners:
        block = np.s_[z : z + BLOCK_VOX, y : y + BLOCK_VOX, x : x + BLOCK_VOX]
        around = np.s_[z : z + 2 * pad + 1, y : y + 2 * pad + 1, x : x + 2 * pad + 1]
        if w[block].mean() < 0.4 or v[block].mean() < 0.9:
            continue
        weight = w[block].astype(np.float32)
        centred = (a[block] - (a[block] * weight).sum() / weight.sum()) * weight
        if (centred**2).sum() >= LEAST_CONTRAST_HU**2 * weight.sum():
            blocks.append(centred)
            weights.append(weight)
            places.append(b[around] - b[around].mean())  # keeps float32 sums of squares exact enough
    if len(blocks) < FEWEST_BLOCKS:
        return Matches(np.zeros(0), np.zeros((0, ELSEWHERE)))
    search = _Search.of(np.array(blocks), np.array(weights), np.array(places))
    shifts = [1 + int((k + 0.5) * (len(blocks) - 1) / ELSEWHERE) for k in range(ELSEWHERE)]
    return Matches(search.best(0), np.stack([search.best(shift) for shift in shifts], axis=1))


@dataclass(frozen=True)
class _Search:
    """Weighted correlations of blocks with all windows of places, by FFT.

    Attributes:
        blocks, weights: conjugated spectra of the centred blocks and of their weights.
        places, squares: spectra of the surroundings and of their squares.
        energy: sums of the centred blocks' squares, ``[n, 1, 1, 1]``.
        count: sums of the weights, ``[n, 1, 1, 1]``.
        edge: of the surroundings, in voxels.
    """

    blocks: NDArray[np.complex64]
    weights: NDArray[np.complex64]
    places: NDArray[np.complex64]
    squares: NDArray[np.complex64]
    energy: NDArray[np.float32]
    count: NDArray[np.float32]
    edge: int

    @classmethod
    def of(cls, blocks: NDArray[np.float32], weights: NDArray[np.float32], places: NDArray[np.float32]) -> _Search:
        """Everything that is needed once a block: ``blocks`` are centred and weighted, all are ``[n, z, y, x]``."""
        edge = places.shape[1]  # long enough: what wraps round are shifts that leave the surroundings

        def spectrum(values: NDArray[np.float32]) -> NDArray[np.complex64]:
            found: NDArray[np.complex64] = fft.rfftn(values, s=(edge,) * 3, axes=(1, 2, 3), workers=1)
            return found

        energy, count = (values.sum(axis=(1, 2, 3), keepdims=True) for values in (blocks**2, weights))
        spectra = spectrum(blocks).conj(), spectrum(weights).conj(), spectrum(places), spectrum(places**2)
        return cls(*spectra, energy, count, edge)

    def best(self, shift: int) -> FloatArray:
        """The largest correlation of block i in the surroundings of block i + ``shift``, ``[n]``."""
        places, squares = np.roll(self.places, -shift, axis=0), np.roll(self.squares, -shift, axis=0)
        mean = self._windows(self.weights * places) / self.count
        spread = self._windows(self.weights * squares) - self.count * mean**2
        spread = np.maximum(spread, self.count * np.float32(NOISE_HU**2))
        found = self._windows(self.blocks * places) / np.sqrt(self.energy * spread)
        best: FloatArray = np.minimum(found.reshape(len(found), -1).max(axis=1), 1.0).astype(np.float64)
        return best

    def _windows(self, product: NDArray[np.complex64]) -> NDArray[np.float32]:
        """Sums over every window that lies in the surroundings, from the product of two spectra."""
        inside = slice(self.edge - BLOCK_VOX + 1)
        sums = fft.irfftn(product, s=(self.edge,) * 3, axes=(1, 2, 3), workers=1)
        found: NDArray[np.float32] = sums[:, inside, inside, inside]
        return found


def _alike(reference: WorkingScan, template: WorkingScan, matrix: FloatArray) -> tuple[WorkingScan, WorkingScan]:
    """Both scans on the reference's grid, the template moved by ``matrix``, the sharper as blurred as the other."""
    grid = reference.grid
    to_index = template.grid.inverse_affine @ matrix @ grid.affine
    moved = ndimage.affine_transform(  # cubic: linear interpolation would blur one scan only
        template.array,
        to_index[:3, :3][::-1, ::-1],
        to_index[:3, 3][::-1],
        output_shape=grid.shape,
        order=3,
        mode="nearest",
    )
    lungs, valid = (
        resample(mask.astype(np.float32), template.grid, grid, matrix=matrix)
        for mask in (template.lungs, template.valid)
    )
    turned = np.asarray(grid.direction).T @ np.linalg.inv(matrix[:3, :3]) @ np.asarray(template.grid.direction)
    theirs, ours = turned**2 @ np.asarray(template.blur_mm2), np.asarray(reference.blur_mm2)
    fixed = WorkingScan(_blurred(reference.array, theirs - ours), grid, reference.lungs, reference.valid)
    return fixed, WorkingScan(_blurred(moved, ours - theirs), grid, lungs > 0.5, valid > 0.99)


def _blurred(array: NDArray[np.float32], missing_mm2: FloatArray) -> NDArray[np.float32]:
    """``array`` with voxels of ``SPACING_MM``, smoothed by the variances along (x, y, z) where they are positive."""
    sigma_vox = np.sqrt(np.where(missing_mm2 > LEAST_BLUR_MM2, missing_mm2, 0.0)) / SPACING_MM
    if not sigma_vox.any():
        return array
    smooth: NDArray[np.float32] = ndimage.gaussian_filter(array, sigma_vox[::-1], mode="nearest", truncate=3.0)
    return smooth


def _percentile(matches: Matches, percent: float) -> float | None:
    return float(np.percentile(matches.agreement(), percent)) if len(matches.own) else None
