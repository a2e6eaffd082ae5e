"""Simulated acquisition: what makes two scans of an unchanged chest differ (density, sampling, noise, kernel)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, gaussian_filter, map_coordinates, spline_filter

from ChangeMapJointLib.core.displacement import DisplacementField, warp
from ChangeMapJointLib.core.grid import FloatArray, Grid, Vector3, bounding_box
from ChangeMapJointLib.core.hu import AIR_HU, COMPRESSIBLE_HU, LOWEST_HU
from ChangeMapJointLib.core.resample import index_points
from ChangeMapJointLib.synthesis.breathing import BreathingMotion
from ChangeMapJointLib.synthesis.sliding import sliding_field

SHARPENED_MM = 1.0  # standard deviation of the unsharp mask of a sharp kernel
MUSCLE_HU = (-20.0, 120.0)
SLAB_SLICES = 16


@dataclass(frozen=True)
class SimulatedScan:
    """A scan under construction; its arrays may be modified in place.

    Attributes:
        hu: float32 ``[z, y, x]``.
        lungs: vessels included, bool ``[z, y, x]``.
        lesions: the lesion's id in each voxel, 0 elsewhere, int32 ``[z, y, x]``.
        grid: of all three.
    """

    hu: NDArray[np.float32]
    lungs: NDArray[np.bool_]
    lesions: NDArray[np.int32]
    grid: Grid


def resample_scan(source: SimulatedScan, *, spacing_mm: Vector3 | None, margin_mm: Vector3 | None) -> SimulatedScan:
    """Copy a scan to another field of view and voxel size.

    Args:
        source: the scan.
        spacing_mm: (x, y, z); None keeps the voxels.
        margin_mm: margin around the lungs (x, y, z), within the scan; None keeps the whole field of view.
    """
    start, stop = (0, 0, 0), source.grid.shape
    if margin_mm is not None:
        margin_vox = [round(m / h) for m, h in zip(margin_mm, source.grid.spacing_mm, strict=True)]
        start, stop = bounding_box(source.lungs, margin_vox[::-1])
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    grid = source.grid.crop(start, stop)
    if spacing_mm is None:
        return SimulatedScan(source.hu[box].copy(), source.lungs[box].copy(), source.lesions[box].copy(), grid)
    target = grid.with_spacing(spacing_mm)
    identity = DisplacementField(np.zeros((*target.shape, 3), np.float32), target)
    return _sampled(source, target, identity)


def move_scan(
    source: SimulatedScan, motion: BreathingMotion, grid: Grid, *, density: bool = True, sliding: float = 0.0
) -> SimulatedScan:
    """Deform a scan: ``source`` at y(x) for every voxel x of ``grid``.

    Args:
        source: the scan.
        motion: y.
        grid: of the result, in the reference's space.
        density: scale lung density to the local volume.
        sliding: see :func:`~ChangeMapJointLib.synthesis.sliding.sliding_field`.
    """
    field = motion.field(grid)
    det = field.jacobian_determinant()  # without sliding: the lungs' own motion is smooth
    if sliding > 0:
        field = sliding_field(motion, grid, source.lungs, source.grid, fraction=sliding)
    moved = _sampled(source, grid, field)
    if not density:
        return moved
    weight = gaussian_filter(moved.lungs.astype(np.float32), 0.7)
    return replace(moved, hu=breathe_density(moved.hu, det, weight))


def reference_grid(
    source: SimulatedScan, motion: BreathingMotion, *, spacing_mm: Vector3 | None, margin_mm: Vector3
) -> Grid:
    """An axis-parallel grid around the lungs in the reference, with ``margin_mm`` (x, y, z) on either side."""
    surface = np.argwhere(source.lungs & ~binary_erosion(source.lungs))[::5, ::-1]
    points = motion.inverse(source.grid.to_physical(surface))
    spacing = np.array(spacing_mm or source.grid.spacing_mm)
    low, high = points.min(0) - margin_mm, points.max(0) + margin_mm
    nx, ny, nz = (int(n) for n in np.ceil((high - low) / spacing) + 1)
    hx, hy, hz = (float(h) for h in spacing)
    x, y, z = (round(float(v), 2) for v in low)
    return Grid((nz, ny, nx), (hx, hy, hz), (x, y, z))


def _sampled(source: SimulatedScan, grid: Grid, field: DisplacementField) -> SimulatedScan:
    lungs = warp(source.lungs, source.grid, grid, field) >= 0.5
    lesions = np.zeros(grid.shape, dtype=np.int32)
    for number in range(1, int(source.lesions.max()) + 1):
        lesions[warp(source.lesions == number, source.grid, grid, field) >= 0.5] = number
    return SimulatedScan(sample_cubic(source.hu, source.grid, grid, field), lungs, lesions, grid)


def breathe_density(
    hu: NDArray[np.float32], det: NDArray[np.float32], lungs: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Scale lung density so that a change of volume keeps the mass.

    ``HU' + 1000 = (HU + 1000) det`` in aerated lung. Blood and nodules do not compress, so the factor fades to 1
    between -500 and -100 HU.

    Args:
        hu: the moved scan T(y(x)), ``[z, y, x]``.
        det: det grad y, ``[z, y, x]``; above 1 where the tissue has a larger volume in T, so that R is denser.
        lungs: weight in [0, 1], 1 in the lungs.

    Returns:
        HU, float32 ``[z, y, x]``.
    """
    low, high = COMPRESSIBLE_HU
    weight = lungs * np.clip((high - hu) / (high - low), 0.0, 1.0)
    return (AIR_HU + (hu - AIR_HU) * (1 + weight * (det - 1))).astype(np.float32)


def sample_cubic(
    array: NDArray[np.generic], source: Grid, target: Grid, field: DisplacementField | None = None
) -> NDArray[np.float32]:
    """Interpolate a volume once, by cubic B-splines, at y(x) for every voxel x of ``target``.

    Where ``target`` is coarser than ``source``, a low-pass is applied first. Outside ``source`` border values are
    repeated.

    Args:
        array: HU ``[z, y, x]`` on ``source``.
        source: its grid.
        target: the grid of the result.
        field: u on ``target``; None: y(x) = x.

    Returns:
        float32 ``[z, y, x]``, within the range of ``array``.
    """
    values = np.asarray(array, dtype=np.float32)
    ratio = np.array(target.spacing_mm[::-1]) / np.array(source.spacing_mm[::-1])
    if (ratio > 1.0 + 1e-6).any():
        # a Gaussian that, combined with the blur of the fine voxel, gives that of the coarse voxel
        values = gaussian_filter(values, 0.4 * np.sqrt(np.maximum(ratio**2 - 1, 0.0)))
    coefficients = spline_filter(values, order=3, mode="mirror", output=np.float32)
    result = np.empty(target.shape, dtype=np.float32)
    for first in range(0, target.shape[0], SLAB_SLICES):
        slab = slice(first, first + SLAB_SLICES)
        points: FloatArray = index_points(target, target.affine, slab).numpy().astype(float)
        if field is not None:
            points += field.vectors_mm[slab]
        index = np.clip(np.moveaxis(source.to_index(points)[..., ::-1], -1, 0).T, 0, np.array(source.shape) - 1).T
        result[slab] = map_coordinates(coefficients, index, order=3, mode="mirror", prefilter=False)
    return np.clip(result, values.min(), values.max())


def denoise(hu: NDArray[np.generic], grid: Grid, *, conductance: float = 0.35) -> NDArray[np.float32]:
    """Remove most of a scan's noise and keep its vessels, by anisotropic diffusion (Perona and Malik 1990).

    A deformed copy of a scan has the same noise as the scan itself, unlike a real second scan. The noise is therefore
    removed before new noise is added.

    Args:
        hu: ``[z, y, x]``.
        grid: its grid.
        conductance: of the anisotropic diffusion; larger removes more.

    Returns:
        HU, float32 ``[z, y, x]``.
    """
    image = sitk.GetImageFromArray(np.asarray(hu, dtype=np.float32))
    image.SetSpacing([h / min(grid.spacing_mm) for h in grid.spacing_mm])
    smooth = sitk.GradientAnisotropicDiffusion(image, 0.0625, conductance, 1, 5)
    return np.asarray(sitk.GetArrayFromImage(smooth), dtype=np.float32)


def correlated_noise(rng: np.random.Generator, shape: tuple[int, ...], sigma_vox: Vector3) -> NDArray[np.float32]:
    """Gaussian noise smoothed by ``sigma_vox`` (z, y, x), with mean 0 and standard deviation 1."""
    smooth = gaussian_filter(rng.standard_normal(size=shape, dtype=np.float32), sigma_vox, mode="wrap")
    return np.asarray((smooth - smooth.mean()) / max(float(smooth.std()), 1e-9), dtype=np.float32)


def scan_noise(rng: np.random.Generator, grid: Grid, *, sigma_hu: float, width_mm: float) -> NDArray[np.float32]:
    """Acquisition noise with standard deviation ``sigma_hu``, smoothed by a Gaussian of ``width_mm``, ``[z, y, x]``."""
    x, y, z = (width_mm / h for h in grid.spacing_mm)
    return np.float32(sigma_hu) * correlated_noise(rng, grid.shape, (z, y, x))


def apply_kernel(hu: NDArray[np.float32], grid: Grid, kernel: float) -> NDArray[np.float32]:
    """Imitate another reconstruction kernel, in the axial plane only as on scanners.

    Args:
        hu: ``[z, y, x]``.
        grid: its grid.
        kernel: above 0: strength of unsharp masking over 1 mm; below 0: minus the standard deviation of a Gaussian in
            mm; 0: unchanged.
    """
    if kernel == 0:
        return hu
    width_mm = SHARPENED_MM if kernel > 0 else -kernel
    hx, hy, _ = grid.spacing_mm
    smooth = gaussian_filter(hu, (0.0, width_mm / hy, width_mm / hx))
    filtered = hu + np.float32(kernel) * (hu - smooth) if kernel > 0 else smooth
    limited: NDArray[np.float32] = np.maximum(filtered, np.float32(LOWEST_HU)).astype(np.float32)
    return limited


def measured_noise_hu(hu: NDArray[np.generic], *, fallback_hu: float = 12.0) -> float:
    """Estimate a scan's noise in HU: the robust spread about the local mean in homogeneous soft tissue.

    With fewer than 1000 voxels of soft tissue it returns ``fallback_hu``.
    """
    values = np.asarray(hu, dtype=np.float32)
    local_mean = gaussian_filter(values, 3.0)
    low, high = MUSCLE_HU
    tissue = binary_erosion(
        (local_mean > low) & (local_mean < high) & (np.abs(values - local_mean) < 100), iterations=3
    )
    if tissue.sum() < 1000:
        return fallback_hu
    return float(1.4826 * np.median(np.abs(values[tissue] - local_mean[tissue])))
