"""Working copies for the rigid pre-alignment: coarse, clipped, with what must not be looked at masked out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.grid import FloatArray, Grid, bounding_box
from ChangeMapJointLib.volumes.volume import Volume

CLIP_HU = (-1000.0, 400.0)  # air to bone: metal, contrast peaks and padding must not carry the correlation
FILL_HU = -1024  # what lies at or below it over a whole neighbourhood was filled in, not measured
AIR_HU = -990  # a scan cut off above it has plateaus in its lungs, and they are measured
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class WorkingScan:
    """A scan at a working resolution.

    Attributes:
        array: HU clipped to :data:`CLIP_HU`, float32 ``[z, y, x]``.
        grid: where its voxels are.
        lungs: the lungs, bool on ``grid``.
        valid: False where the scanner or a resampling filled in a constant, bool on ``grid``.
    """

    array: NDArray[np.float32]
    grid: Grid
    lungs: BoolArray
    valid: BoolArray

    def lung_points_mm(self, count: int = 4000) -> FloatArray:
        """At most ``count`` physical points ``[n, 3]`` spread evenly over the lung voxels."""
        index = np.argwhere(self.lungs)
        step = max(1, len(index) // count)
        return self.grid.to_physical(index[::step, ::-1])

    def has_data_at(self, points_mm: FloatArray) -> BoolArray:
        """For physical points ``[n, 3]``: inside the scan, and measured there?"""
        index = np.rint(self.grid.to_index(points_mm)).astype(int)[:, ::-1]
        found: BoolArray = np.asarray(((index >= 0) & (index < self.grid.shape)).all(axis=1))
        found[found] = self.valid[tuple(index[found].T)]
        return found

    def region(self, margin_mm: float) -> BoolArray:
        """The lungs and what lies within ``margin_mm`` of them (ribs, spine, vessels), without filled-in voxels."""
        image = self.grid.to_image(self.lungs.astype(np.uint8))
        distance = sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True)
        near: BoolArray = sitk.GetArrayViewFromImage(distance) <= margin_mm
        return near & self.valid

    def coarser(self, spacing_mm: float) -> WorkingScan:
        """Block averages of at most ``spacing_mm`` voxels; the scan itself when it is as coarse already."""
        factors = _factors(self.grid, spacing_mm)
        if max(factors) == 1:
            return self
        array, grid = _bin(self.array, self.grid, factors)
        lungs, _ = _bin(self.lungs.astype(np.float32), self.grid, factors)
        valid, _ = _bin(self.valid.astype(np.float32), self.grid, factors)
        return WorkingScan(array, grid, lungs >= 0.5, valid > 0.999)

    def flipped(self, axes: tuple[int, ...]) -> WorkingScan:
        """The scan with its content mirrored along array ``axes`` (0, 1, 2 for z, y, x)."""
        array = np.ascontiguousarray(np.flip(self.array, axes))
        return WorkingScan(array, self.grid, np.flip(self.lungs, axes).copy(), np.flip(self.valid, axes).copy())

    def cropped(self, margin_mm: float) -> WorkingScan:
        """The part within ``margin_mm`` of the lungs' box."""
        margin = [int(np.ceil(margin_mm / h)) for h in self.grid.spacing_mm[::-1]]
        start, stop = bounding_box(self.lungs, margin)
        box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        return WorkingScan(self.array[box], self.grid.crop(start, stop), self.lungs[box], self.valid[box])


def working_scan(volume: Volume, lungs: BoolArray, spacing_mm: float) -> WorkingScan:
    """``volume`` and its lung mask as block averages with voxels of at most ``spacing_mm``.

    Axes whose voxels are larger already (thick slices) are kept as they are.

    Args:
        volume: the scan, HU.
        lungs: bool ``[z, y, x]`` on the volume's grid.
        spacing_mm: the largest voxel edge wanted.
    """
    factors = _factors(volume.grid, spacing_mm)
    array, grid = _bin(volume.array, volume.grid, factors)
    mask, _ = _bin(lungs.astype(np.uint8) * np.uint8(100), volume.grid, factors)
    floor = min(max(FILL_HU, int(volume.array.min())), AIR_HU)
    filled, _ = _bin((volume.array <= floor).astype(np.uint8) * np.uint8(100), volume.grid, factors)
    # a lone voxel of clipped air is measured; a plateau is not. One more voxel: block averages beside it are mixed.
    plateau = ndimage.binary_opening(filled >= 99, np.ones((3, 3, 3), dtype=bool))
    valid = ~ndimage.binary_dilation(plateau, np.ones((3, 3, 3), dtype=bool))
    return WorkingScan(np.clip(array.astype(np.float32), *CLIP_HU), grid, mask >= 50, valid)


def _factors(grid: Grid, spacing_mm: float) -> list[int]:
    """Voxels per block along (x, y, z)."""
    return [min(max(1, round(spacing_mm / h)), n) for h, n in zip(grid.spacing_mm, grid.size, strict=True)]


def _bin(array: NDArray[np.generic], grid: Grid, factors: list[int]) -> tuple[NDArray[np.float32], Grid]:
    """Means over blocks of ``factors`` (x, y, z) voxels; incomplete blocks at the border are dropped."""
    image = sitk.BinShrink(grid.to_image(array), factors)
    return sitk.GetArrayFromImage(image), Grid.of_image(image)
