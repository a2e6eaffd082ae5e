"""Both scans, cut out round the lungs, at several resolutions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from ChangeMapJointLib.core.grid import Grid, Vector3, bounding_box
from ChangeMapJointLib.core.resample import resample

FWHM = 2.3548  # of a Gaussian, in sigmas


@dataclass(frozen=True)
class Picture:
    """One scan at one resolution.

    Attributes:
        image: HU clipped to the window, float32 ``[z, y, x]``.
        mask: lungs in [0, 1], float32 ``[z, y, x]``.
        grid: of both.
    """

    image: Tensor
    mask: Tensor
    grid: Grid


def crop_to_lungs(grid: Grid, lungs: NDArray[np.bool_], margin_mm: float) -> tuple[tuple[slice, ...], Grid]:
    """Slices and grid of the box round the lungs with a margin, clipped to the scan."""
    margin = [int(np.ceil(margin_mm / h)) for h in reversed(grid.spacing_mm)]
    start, stop = bounding_box(lungs, margin)
    return tuple(slice(a, b) for a, b in zip(start, stop, strict=True)), grid.crop(start, stop)


def level_spacing(spacing_mm: Vector3, working_mm: float, level: int) -> Vector3:
    """Voxel size of a level: ``working_mm * 2^level``, but never finer than the scan itself."""
    x, y, z = (max(h, working_mm * 2**level) for h in spacing_mm)
    return x, y, z


def working_spacing(reference: Grid, template: Grid, working_mm: float) -> float:
    """Voxel size of the finest level: ``working_mm``, or the finest axis of the coarser scan."""
    return max(working_mm, min(reference.spacing_mm), min(template.spacing_mm))


def at_spacing(
    array: NDArray[np.generic], grid: Grid, spacing_mm: Vector3, outside: float
) -> tuple[NDArray[np.float32], Grid]:
    """``array`` low-passed and sampled at ``spacing_mm``; unchanged where that is its own spacing.

    A voxel of size h is taken as a Gaussian of that full width at half maximum; variances add.
    """
    sigma = [
        np.sqrt(max(new**2 - old**2, 0.0)) / FWHM / old for new, old in zip(spacing_mm, grid.spacing_mm, strict=True)
    ]
    if max(sigma) < 1e-3:
        return np.ascontiguousarray(array, dtype=np.float32), grid
    smooth = ndimage.gaussian_filter(np.asarray(array, dtype=np.float32), sigma[::-1], mode="nearest", truncate=3.0)
    target = grid.with_spacing(spacing_mm)
    return resample(smooth, grid, target, outside=outside), target


def build_pyramid(
    hu: NDArray[np.generic],
    grid: Grid,
    lungs: NDArray[np.bool_],
    *,
    margin_mm: float,
    working_mm: float,
    levels: int,
    window_hu: tuple[float, float],
    device: torch.device | str = "cpu",
) -> list[Picture]:
    """Pictures of the box round the lungs, **coarsest first**.

    Args:
        hu: the scan, ``[z, y, x]``.
        grid: its grid.
        lungs: bool ``[z, y, x]``.
        margin_mm: kept round the lungs.
        working_mm: voxel size of the finest level (or the scan's own where that is coarser).
        levels: how many, each with twice the voxel size of the next.
        window_hu: intensities are clipped to it.
        device: where the tensors live.
    """
    box, cropped = crop_to_lungs(grid, lungs, margin_mm)
    image = np.clip(hu[box], *window_hu).astype(np.float32)
    mask = lungs[box].astype(np.float32)
    pictures = []
    for level in range(levels):
        spacing = level_spacing(grid.spacing_mm, working_mm, level)
        small, small_grid = at_spacing(image, cropped, spacing, outside=window_hu[0])
        small_mask, _ = at_spacing(mask, cropped, spacing, outside=0.0)
        pictures.append(Picture(torch.as_tensor(small).to(device), torch.as_tensor(small_mask).to(device), small_grid))
        image, mask, cropped = small, small_mask, small_grid
    return pictures[::-1]
