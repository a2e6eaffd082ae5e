"""Whether two aligned scans show the same chest, by block matching of lung vessels, and of ribs and spine.

All chests have a similar outline, so the correlation of whole scans separates patients poorly. Vessels do better: a
block of lung finds its match within a few mm in another scan of the same patient, but not in a scan of somebody else.
Blocks of chest wall separate less sharply, since ribs look alike, even when mirrored.

How well blocks of *different* chests match depends on how sharp the scans are: a few blurred blobs fit anything.
Therefore (1) both scans are brought to the same resolution, (2) the outline of the lungs and slow changes of density
are removed, and (3) the correlation that a block reaches at its own place is compared with those that it reaches at
other places in the same lungs. On the resulting scale, 0 is a match by chance and 1 a perfect match, whatever the voxel
size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from ChangeMapJointLib.core.grid import FloatArray, apply_affine
from ChangeMapJointLib.core.hu import AIR_HU
from ChangeMapJointLib.core.parallel import run_parallel
from ChangeMapJointLib.core.resample import resample
from ChangeMapJointLib.registration.rigid.optimise import Descent, affine_transform, refine_alignment
from ChangeMapJointLib.registration.rigid.working_scan import BoolArray, WorkingScan

SPACING_MM = 3.0  # voxel size of the comparison: vessels of 2 mm and more remain visible
BLOCK_VOX = 13  # block edge, 39 mm: in blurred scans, smaller blocks hold too few vessels to be told apart
SEARCH_VOX = 4  # each block may move by 12 mm along every axis
STRIDE_VOX = 5  # one candidate block every 15 mm
MOST_BLOCKS = 120  # their upper quartile is stable to 0.02
FEWEST_BLOCKS = 20
ELSEWHERE = 4  # number of other places that every block is compared with
VESSEL_WINDOW_HU = (AIR_HU, -300.0)  # vessels against lung
WALL_WINDOW_HU = (0.0, 400.0)  # bone against soft tissue
STRUCTURE_VOX = 2.0  # sigma of the local mean that is subtracted: 6 mm, wider than the vessels of interest
LEAST_CONTRAST_HU = 15.0  # a block of the reference with a smaller standard deviation shows no structure
NOISE_HU = 10.0  # smaller standard deviations in the template count as this
LEAST_BLUR_MM2 = 0.3  # smaller differences in resolution are ignored
SURE = 0.5  # agreement beyond chance from which the place of a block of lung is believed
AFFINE = Descent(step_mm=1.0, stop_mm=0.01, iterations=60)


@dataclass(frozen=True)
class ChestAgreement:
    """How well small structures of two scans match.

    Attributes:
        vessels: upper quartile of :meth:`BlockMatches.agreement` over blocks of lung, at most 1, about 0.1 for two
            different chests; None where fewer than ``FEWEST_BLOCKS`` blocks with structure lie in both scans.
        wall: median over blocks of chest wall.
        places_mm: centres of the blocks of lung whose place in the template is sure, ``[n, 3]`` (x, y, z) LPS.
        matched_mm: those places in the template, ``[n, 3]``.
    """

    vessels: float | None
    wall: float | None
    places_mm: FloatArray = field(default_factory=lambda: np.zeros((0, 3)))
    matched_mm: FloatArray = field(default_factory=lambda: np.zeros((0, 3)))


@dataclass(frozen=True)
class BlockMatches:
    """Correlations of blocks of one scan with another scan.

    Attributes:
        own: the best correlation of each block near its own place, ``[n]`` in [-1, 1].
        elsewhere: the best correlations near the places of other blocks, ``[n, ELSEWHERE]``.
        centres: voxel (z, y, x) of the centre of each block, ``[n, 3]``.
        shifts: how far from there its best place lies, in voxels (z, y, x), ``[n, 3]``.
    """

    own: FloatArray
    elsewhere: FloatArray
    centres: FloatArray
    shifts: FloatArray

    @classmethod
    def none(cls) -> BlockMatches:
        """No blocks."""
        return cls(np.zeros(0), np.zeros((0, ELSEWHERE)), np.zeros((0, 3)), np.zeros((0, 3)))

    def agreement(self) -> FloatArray:
        """Agreement beyond chance of each block, ``[n]``: 0 as good as any other place, 1 a perfect match."""
        chance = self.elsewhere.mean(axis=1)
        gain: FloatArray = (self.own - chance) / np.maximum(1.0 - chance, 1e-3)
        return gain


def compare_structures(
    reference: WorkingScan, template: WorkingScan, rigid: FloatArray, centre_mm: FloatArray, margin_mm: float
) -> ChestAgreement:
    """Compare vessels and chest wall of two rigidly aligned scans.

    An affine fit that starts from ``rigid`` first compensates most of a different depth of inspiration; it is used for
    this comparison only.

    Args:
        reference: the reference with voxels of ``SPACING_MM``.
        template: the template with voxels of ``SPACING_MM``.
        rigid: 4x4 in physical space, reference to template.
        centre_mm: centre of the reference's lungs.
        margin_mm: distance from the lungs within which the scans are compared.
    """
    coarse, coarse_template = reference.coarser(2 * SPACING_MM), template.coarser(2 * SPACING_MM)
    start = affine_transform(rigid, centre_mm)
    affine = refine_alignment(coarse, coarse_template, coarse.region(margin_mm), start, AFFINE)
    if not 0.4 < float(np.linalg.det(affine[:3, :3])) < 2.5:  # the fit diverged: too little structure
        affine = rigid
    fixed, moved = _same_resolution(reference, template, affine)
    vessels, bones = run_parallel(
        [partial(_match_vessels, fixed, moved), partial(_match_wall, fixed, moved, margin_mm)], lambda: None
    )
    sure = vessels.agreement() > SURE
    here = fixed.grid.to_physical(vessels.centres[sure][:, ::-1])
    there = fixed.grid.to_physical((vessels.centres + vessels.shifts)[sure][:, ::-1])
    return ChestAgreement(_percentile(vessels, 75), _percentile(bones, 50), here, apply_affine(affine, there))


def _match_vessels(fixed: WorkingScan, moved: WorkingScan) -> BlockMatches:
    """Match blocks of lung; both scans lie on one grid."""
    lungs, moved_lungs = (ndimage.binary_erosion(scan.lungs) & scan.valid for scan in (fixed, moved))
    return block_matches(
        fine_structure(fixed.array, lungs, VESSEL_WINDOW_HU),
        fine_structure(moved.array, moved_lungs, VESSEL_WINDOW_HU),
        lungs & ndimage.binary_dilation(moved.lungs, iterations=SEARCH_VOX),
        moved.valid,
    )


def _match_wall(fixed: WorkingScan, moved: WorkingScan, margin_mm: float) -> BlockMatches:
    """Match blocks of chest wall; both scans lie on one grid."""
    wall, moved_wall = (~ndimage.binary_dilation(scan.lungs) & scan.valid for scan in (fixed, moved))
    return block_matches(
        fine_structure(fixed.array, wall, WALL_WINDOW_HU),
        fine_structure(moved.array, moved_wall, WALL_WINDOW_HU),
        fixed.region(margin_mm) & ~ndimage.binary_dilation(fixed.lungs, iterations=2),
        moved.valid,
    )


def fine_structure(hu: NDArray[np.float32], mask: BoolArray, window_hu: tuple[float, float]) -> NDArray[np.float32]:
    """Subtract the local mean inside a mask.

    All chests share the outline of the lungs, the gradient of density towards the back, and the hila; only small
    structures remain.

    Args:
        hu: ``[z, y, x]``.
        mask: bool ``[z, y, x]``; the mean is taken inside it.
        window_hu: ``hu`` is clipped to this range first.

    Returns:
        float32 ``[z, y, x]``; 0 outside ``mask``.
    """
    inside = np.where(mask, np.clip(hu, *window_hu), np.float32(0))
    share = ndimage.gaussian_filter(mask.astype(np.float32), STRUCTURE_VOX, truncate=3.0)
    mean = ndimage.gaussian_filter(inside, STRUCTURE_VOX, truncate=3.0) / np.maximum(share, np.float32(1e-3))
    return np.where(mask, inside - mean, np.float32(0))


def block_matches(
    fixed: NDArray[np.float32], moving: NDArray[np.float32], mask: BoolArray, valid: BoolArray
) -> BlockMatches:
    """Correlate each block of ``fixed`` with its surroundings in ``moving``, and with those of other blocks.

    Args:
        fixed: HU ``[z, y, x]``, isotropic, mean about 0.
        moving: HU on the same grid.
        mask: voxels of ``fixed`` that count.
        valid: where ``moving`` has data.

    Returns:
        One row for each block with structure that both scans show; no rows where there are fewer than
        ``FEWEST_BLOCKS`` such blocks.
    """
    half = BLOCK_VOX // 2
    pad = half + SEARCH_VOX
    a, w = np.pad(fixed, half), np.pad(mask, half)
    b, v = np.pad(moving, pad), np.pad(valid, half)
    lattice = np.zeros(fixed.shape, dtype=bool)
    lattice[::STRIDE_VOX, ::STRIDE_VOX, ::STRIDE_VOX] = True
    corners = np.argwhere(lattice & mask)  # a block's corner in the padded array is its centre in the unpadded one
    corners = corners[:: max(1, len(corners) // MOST_BLOCKS)]
    blocks, weights, surroundings, centres = [], [], [], []
    for z, y, x in corners:
        block = np.s_[z : z + BLOCK_VOX, y : y + BLOCK_VOX, x : x + BLOCK_VOX]
        around = np.s_[z : z + 2 * pad + 1, y : y + 2 * pad + 1, x : x + 2 * pad + 1]
        if w[block].mean() < 0.4 or v[block].mean() < 0.9:
            continue
        weight = w[block].astype(np.float32)
        centred = (a[block] - (a[block] * weight).sum() / weight.sum()) * weight
        if (centred**2).sum() >= LEAST_CONTRAST_HU**2 * weight.sum():
            centres.append((z, y, x))
            blocks.append(centred)
            weights.append(weight)
            surroundings.append(b[around] - b[around].mean())  # keeps float32 sums of squares accurate
    if len(blocks) < FEWEST_BLOCKS:
        return BlockMatches.none()
    search = _BlockSearch.of(np.array(blocks), np.array(weights), np.array(surroundings))
    shifts = [1 + int((k + 0.5) * (len(blocks) - 1) / ELSEWHERE) for k in range(ELSEWHERE)]
    own, place = search.best_place()
    elsewhere = np.stack([search.best(shift) for shift in shifts], axis=1)
    return BlockMatches(own, elsewhere, np.array(centres, dtype=float), place)


@dataclass(frozen=True)
class _BlockSearch:
    """Weighted correlations of blocks with all windows of their surroundings, by FFT.

    Attributes:
        blocks: conjugate spectra of the centred blocks.
        weights: conjugate spectra of their weights.
        surroundings: spectra of the surroundings.
        squares: spectra of the squared surroundings.
        energy: sums of squares of the centred blocks, ``[n, 1, 1, 1]``.
        count: sums of the weights, ``[n, 1, 1, 1]``.
        edge: edge of the surroundings, in voxels.
    """

    blocks: NDArray[np.complex64]
    weights: NDArray[np.complex64]
    surroundings: NDArray[np.complex64]
    squares: NDArray[np.complex64]
    energy: NDArray[np.float32]
    count: NDArray[np.float32]
    edge: int

    @classmethod
    def of(
        cls, blocks: NDArray[np.float32], weights: NDArray[np.float32], surroundings: NDArray[np.float32]
    ) -> _BlockSearch:
        """Compute the spectra. ``blocks`` are centred and weighted; all arrays are ``[n, z, y, x]``."""
        edge = surroundings.shape[1]  # long enough: only shifts that leave the surroundings wrap around

        def spectrum(values: NDArray[np.float32]) -> NDArray[np.complex64]:
            transformed: NDArray[np.complex64] = fft.rfftn(values, s=(edge,) * 3, axes=(1, 2, 3), workers=1)
            return transformed

        energy, count = (values.sum(axis=(1, 2, 3), keepdims=True) for values in (blocks**2, weights))
        spectra = spectrum(blocks).conj(), spectrum(weights).conj(), spectrum(surroundings), spectrum(surroundings**2)
        return cls(*spectra, energy, count, edge)

    def best(self, shift: int) -> FloatArray:
        """The largest correlation of block i in the surroundings of block i + ``shift``, ``[n]``."""
        correlation = self._correlation(shift)
        return np.asarray(correlation.reshape(len(correlation), -1).max(axis=1), dtype=np.float64)

    def best_place(self) -> tuple[FloatArray, FloatArray]:
        """The largest correlation of each block near its own place, ``[n]``, and the shift to there, ``[n, 3]``.

        The shift is in voxels (z, y, x); a parabola through the neighbours gives its fraction.
        """
        correlation = self._correlation(0)
        count, width = len(correlation), correlation.shape[1]
        flat = correlation.reshape(count, -1).argmax(axis=1)
        peak = np.stack(np.unravel_index(flat, (width,) * 3), axis=1)
        rows = np.arange(count)
        best = correlation[rows, peak[:, 0], peak[:, 1], peak[:, 2]]
        shift = peak.astype(float) - width // 2
        for axis in range(3):
            low, high = peak.copy(), peak.copy()
            low[:, axis], high[:, axis] = np.maximum(peak[:, axis] - 1, 0), np.minimum(peak[:, axis] + 1, width - 1)
            before, after = (correlation[rows, p[:, 0], p[:, 1], p[:, 2]] for p in (low, high))
            bend = before - 2 * best + after
            inner = (peak[:, axis] > 0) & (peak[:, axis] < width - 1) & (bend < 0)
            shift[inner, axis] += 0.5 * ((before - after) / np.where(inner, bend, 1.0))[inner]
        return best.astype(np.float64), shift

    def _correlation(self, shift: int) -> NDArray[np.float32]:
        """Correlations of block i with every window of the surroundings of block i + ``shift``, ``[n, z, y, x]``."""
        surroundings = np.roll(self.surroundings, -shift, axis=0)
        squares = np.roll(self.squares, -shift, axis=0)
        mean = self._windows(self.weights * surroundings) / self.count
        spread = self._windows(self.weights * squares) - self.count * mean**2
        spread = np.maximum(spread, self.count * np.float32(NOISE_HU**2))
        correlation = self._windows(self.blocks * surroundings) / np.sqrt(self.energy * spread)
        largest: NDArray[np.float32] = np.minimum(correlation, np.float32(1))
        return largest

    def _windows(self, product: NDArray[np.complex64]) -> NDArray[np.float32]:
        """Sums over every window inside the surroundings, from the product of two spectra."""
        inside = slice(self.edge - BLOCK_VOX + 1)
        sums = fft.irfftn(product, s=(self.edge,) * 3, axes=(1, 2, 3), workers=1)
        windows: NDArray[np.float32] = sums[:, inside, inside, inside]
        return windows


def _same_resolution(
    reference: WorkingScan, template: WorkingScan, affine: FloatArray
) -> tuple[WorkingScan, WorkingScan]:
    """Both scans on the reference's grid, the template moved by ``affine``, the sharper one blurred like the other."""
    grid = reference.grid
    to_index = template.grid.inverse_affine @ affine @ grid.affine
    moved = ndimage.affine_transform(  # cubic, since linear interpolation would blur only one of the scans
        template.array,
        to_index[:3, :3][::-1, ::-1],
        to_index[:3, 3][::-1],
        output_shape=grid.shape,
        order=3,
        mode="nearest",
    )
    lungs, valid = (
        resample(mask.astype(np.float32), template.grid, grid, matrix=affine)
        for mask in (template.lungs, template.valid)
    )
    turned = np.asarray(grid.direction).T @ np.linalg.inv(affine[:3, :3]) @ np.asarray(template.grid.direction)
    reference_mm2, template_mm2 = np.asarray(reference.blur_mm2), turned**2 @ np.asarray(template.blur_mm2)
    fixed = WorkingScan(_blurred(reference.array, template_mm2 - reference_mm2), grid, reference.lungs, reference.valid)
    return fixed, WorkingScan(_blurred(moved, reference_mm2 - template_mm2), grid, lungs > 0.5, valid > 0.99)


def _blurred(array: NDArray[np.float32], missing_mm2: FloatArray) -> NDArray[np.float32]:
    """Smooth ``array`` (voxels of ``SPACING_MM``) by the missing variances along (x, y, z), where they are positive."""
    sigma_vox = np.sqrt(np.where(missing_mm2 > LEAST_BLUR_MM2, missing_mm2, 0.0)) / SPACING_MM
    if not sigma_vox.any():
        return array
    smooth: NDArray[np.float32] = ndimage.gaussian_filter(array, sigma_vox[::-1], mode="nearest", truncate=3.0)
    return smooth


def _percentile(matches: BlockMatches, percent: float) -> float | None:
    return float(np.percentile(matches.agreement(), percent)) if len(matches.own) else None
