"""A scan cropped around its lungs, at several resolutions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ChangeMapJointLib.core.blur import low_pass_sigma_mm
from ChangeMapJointLib.core.filters import weighted_sums
from ChangeMapJointLib.core.grid import Grid, Vector3, bounding_box
from ChangeMapJointLib.core.lazy_torch import Tensor, torch
from ChangeMapJointLib.scan.scan import Scan

MARGIN_MM = 15.0  # around the lungs, when a scan is cropped: the gradients at their border count


@dataclass(frozen=True)
class ScanView:
    """One scan at one resolution, cropped to the box around its lungs.

    Attributes:
        image: HU clipped to the window, float32 ``[z, y, x]``.
        mask: share of lung in each voxel, float32 ``[z, y, x]`` in [0, 1].
        grid: grid of both.
    """

    image: Tensor
    mask: Tensor
    grid: Grid


def crop_to_lungs(grid: Grid, lungs: NDArray[np.bool_], margin_mm: float) -> tuple[tuple[slice, ...], Grid]:
    """Slices and grid of the box around the lungs with a margin, clipped to the scan."""
    margin = [int(np.ceil(margin_mm / h)) for h in reversed(grid.spacing_mm)]
    start, stop = bounding_box(lungs, margin)
    return tuple(slice(a, b) for a, b in zip(start, stop, strict=True)), grid.crop(start, stop)


def level_spacing(spacing_mm: Vector3, working_mm: float, level: int) -> Vector3:
    """Voxel size of a level: ``working_mm * 2^level``, but not finer than the scan's own."""
    x, y, z = (max(h, working_mm * 2**level) for h in spacing_mm)
    return x, y, z


def working_spacing(reference: Grid, template: Grid, working_mm: float) -> float:
    """Voxel size of the finest level: ``working_mm``, or the finest axis of the coarser scan where that is larger."""
    return max(working_mm, min(reference.spacing_mm), min(template.spacing_mm))


def resample_to_spacing(
    array: NDArray[np.generic], grid: Grid, spacing_mm: Vector3, clip: tuple[float, float] | None = None
) -> tuple[NDArray[np.float32], Grid]:
    """Clip, low-pass and resample an array to another voxel size; where that is its own, only clip it.

    The low-pass is that of :mod:`ChangeMapJointLib.core.blur`. Gaussian and linear interpolation are combined into one
    sum along each axis, so that nothing is computed at voxels that are not sampled.

    Args:
        array: ``[z, y, x]``.
        grid: its grid.
        spacing_mm: the new voxel size (x, y, z).
        clip: lowest and highest value; None to keep all.

    Returns:
        The array, float32, and its grid.
    """
    sigma = [low_pass_sigma_mm(old, new) / old for new, old in zip(spacing_mm, grid.spacing_mm, strict=True)]
    if max(sigma) < 1e-3:
        same = np.ascontiguousarray(array, dtype=np.float32)
        return same if clip is None else np.clip(same, *clip), grid
    target = grid.with_spacing(spacing_mm)
    x, y, z = (_smooth_weights(grid, target, axis, float(s)) for axis, s in enumerate(sigma))
    return weighted_sums(array, (z, y, x), clip=clip), target


def _smooth_weights(source: Grid, target: Grid, axis: int, sigma_vox: float) -> sparse.csr_array:
    """Matrix ``[n_target, n_source]`` along one axis (0 = x): smoothing by a Gaussian, then linear interpolation.

    The Gaussian ends at three sigmas, and the border value is repeated beyond the border, as in
    ``ndimage.gaussian_filter``.
    """
    n, ratio = source.size[axis], target.spacing_mm[axis] / source.spacing_mm[axis]
    centre = np.clip(source.to_index(target.origin_mm)[axis] + np.arange(target.size[axis]) * ratio, 0, n - 1)
    lower = np.floor(centre).astype(int)
    reach = int(3.0 * sigma_vox + 0.5)
    offset = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (offset / max(sigma_vox, 1e-9)) ** 2)
    kernel /= kernel.sum()
    parts = [(lower, 1.0 - (centre - lower)), (np.minimum(lower + 1, n - 1), centre - lower)]
    columns = np.concatenate([np.clip(start[:, None] + offset, 0, n - 1) for start, _ in parts], axis=1)
    values = np.concatenate([share[:, None] * kernel for _, share in parts], axis=1)
    rows = np.repeat(np.arange(len(centre)), columns.shape[1])
    weights = sparse.coo_array((values.ravel(), (rows, columns.ravel())), shape=(len(centre), n)).tocsr()
    weights.eliminate_zeros()
    return weights.astype(np.float32)


def scan_pyramid(
    scan: Scan,
    *,
    margin_mm: float,
    working_mm: float,
    levels: int,
    window_hu: tuple[float, float],
    device: torch.device | str = "cpu",
) -> list[ScanView]:
    """Views of the box around the lungs, **coarsest first**. They are computed once and cached in the scan.

    Args:
        scan: a scan with lungs that are not empty.
        margin_mm: margin around the lungs.
        working_mm: voxel size of the finest level; the scan's own where that is coarser.
        levels: number of levels, each with twice the voxel size of the next.
        window_hu: intensities are clipped to this range.
        device: device of the tensors.
    """
    views = [_level(scan, level, margin_mm, working_mm, window_hu) for level in range(levels)]
    return [ScanView(v.image.to(device), v.mask.to(device), v.grid) for v in reversed(views)]


def _level(scan: Scan, level: int, margin_mm: float, working_mm: float, window_hu: tuple[float, float]) -> ScanView:
    """One level on the CPU, computed from the next finer one."""

    def make() -> ScanView:
        image: NDArray[np.generic]
        mask: NDArray[np.generic]
        if level == 0:
            box, grid = crop_to_lungs(scan.grid, scan.mask, margin_mm)
            image, mask = scan.array[box], scan.mask[box]
        else:
            finer = _level(scan, level - 1, margin_mm, working_mm, window_hu)
            image, mask, grid = finer.image.numpy(), finer.mask.numpy(), finer.grid
        spacing = level_spacing(scan.grid.spacing_mm, working_mm, level)
        small, small_grid = resample_to_spacing(image, grid, spacing, window_hu)
        small_mask, _ = resample_to_spacing(mask, grid, spacing)
        return ScanView(torch.as_tensor(small), torch.as_tensor(small_mask), small_grid)

    # by voxel sizes, not by ``working_mm``: where the scan itself is coarser, several of these give the same
    spacings = tuple(level_spacing(scan.grid.spacing_mm, working_mm, finer) for finer in range(level + 1))
    return scan.cached(("level", spacings, margin_mm, window_hu), make)
