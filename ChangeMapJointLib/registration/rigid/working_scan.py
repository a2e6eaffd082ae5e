"""Working copies of scans for the rigid pre-alignment: coarse, clipped, and masked where nothing was measured.

All have the same isotropic voxels and, where the scan is sharp enough, the same resolution. Figures measured on them,
and their limits, thus do not depend on how finely a scan was reconstructed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import make_interp_spline

from ChangeMapJointLib.core.blur import voxel_variance_mm2
from ChangeMapJointLib.core.grid import FloatArray, Grid, Vector3, bounding_box
from ChangeMapJointLib.core.hu import METAL_HU, NOT_SCANNED_HU, REGISTRATION_WINDOW_HU
from ChangeMapJointLib.scan.volume import Volume

LEAST_UNSEEN_PERCENT = 5.0  # of a working voxel that make it invalid
HIGHEST_FILL_HU = -990  # a scan clipped above this value has plateaus in its lungs, and those were measured
BINNED = 0.6  # of the working voxel: averages over smaller blocks are sharper than the resolution wanted
SLAB = 16  # slices at a time
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class WorkingScan:
    """A scan at a working resolution.

    Attributes:
        array: HU clipped to :data:`~ChangeMapJointLib.core.hu.REGISTRATION_WINDOW_HU`, float32 ``[z, y, x]``.
        grid: grid of all arrays.
        lungs: the lungs, bool ``[z, y, x]``.
        valid: bool ``[z, y, x]``; False where the scanner or a resampling filled in a constant.
        blur_mm2: blur of the array, as variances along the grid's axes (x, y, z).
    """

    array: NDArray[np.float32]
    grid: Grid
    lungs: BoolArray
    valid: BoolArray
    blur_mm2: Vector3 = (0.0, 0.0, 0.0)

    def lung_points_mm(self, count: int = 4000) -> FloatArray:
        """At most ``count`` physical points ``[n, 3]`` spread evenly over the lung voxels."""
        index = np.argwhere(self.lungs)
        step = max(1, len(index) // count)
        return self.grid.to_physical(index[::step, ::-1])

    def has_data_at(self, points_mm: FloatArray) -> BoolArray:
        """Whether physical points ``[n, 3]`` lie inside the scan, where it was measured; bool ``[n]``."""
        index = np.rint(self.grid.to_index(points_mm)).astype(int)[:, ::-1]
        measured: BoolArray = np.asarray(((index >= 0) & (index < self.grid.shape)).all(axis=1))
        measured[measured] = self.valid[tuple(index[measured].T)]
        return measured

    def region(self, margin_mm: float) -> BoolArray:
        """Valid voxels in the lungs and within ``margin_mm`` of them (ribs, spine, vessels), bool ``[z, y, x]``."""
        image = self.grid.to_image(self.lungs.astype(np.uint8))
        distance = sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True)
        near: BoolArray = sitk.GetArrayViewFromImage(distance) <= margin_mm
        return near & self.valid

    def coarser(self, spacing_mm: float) -> WorkingScan:
        """Average blocks with edges of at most ``spacing_mm``; the scan itself where it is that coarse already."""
        factors = _factors(self.grid, spacing_mm)
        if max(factors) == 1:
            return self
        array, grid = _bin(self.array, self.grid, factors)
        lungs, _ = _bin(self.lungs.astype(np.float32), self.grid, factors)
        valid, _ = _bin(self.valid.astype(np.float32), self.grid, factors)
        blur = _binned_mm2(self.blur_mm2, self.grid, factors)
        return WorkingScan(array, grid, lungs >= 0.5, valid > 0.999, blur)

    def flipped(self, axes: tuple[int, ...]) -> WorkingScan:
        """The scan with its content mirrored along array ``axes`` (0, 1, 2 for z, y, x)."""
        array = np.ascontiguousarray(np.flip(self.array, axes))
        lungs, valid = np.flip(self.lungs, axes).copy(), np.flip(self.valid, axes).copy()
        return WorkingScan(array, self.grid, lungs, valid, self.blur_mm2)

    def cropped(self, margin_mm: float) -> WorkingScan:
        """The scan cropped to the box around its lungs with a margin of ``margin_mm``."""
        margin = [int(np.ceil(margin_mm / h)) for h in self.grid.spacing_mm[::-1]]
        start, stop = bounding_box(self.lungs, margin)
        box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        grid = self.grid.crop(start, stop)
        return WorkingScan(self.array[box], grid, self.lungs[box], self.valid[box], self.blur_mm2)


def working_scan(volume: Volume, lungs: BoolArray, spacing_mm: float) -> WorkingScan:
    """Resample ``volume`` and its lung mask to isotropic voxels of ``spacing_mm`` along the volume's own axes.

    Finer scans are low-passed to the resolution of such voxels (full width at half maximum ``spacing_mm``), along every
    axis by the blur that is missing. Coarser scans (thick slices) are interpolated with cubic splines and keep their
    blur, see ``blur_mm2``.

    Args:
        volume: the scan, HU.
        lungs: bool ``[z, y, x]`` on the volume's grid.
        spacing_mm: edge of the working voxels.
    """
    factors = _factors(volume.grid, BINNED * spacing_mm)
    array, binned = _bin(volume.array, volume.grid, factors)
    grid = binned.with_spacing((spacing_mm, spacing_mm, spacing_mm))
    x, y, z = (float(v) for v in voxel_variance_mm2(volume.grid.spacing_mm))
    blur = _binned_mm2((x, y, z), volume.grid, factors)
    wanted = float(voxel_variance_mm2((spacing_mm,) * 3)[0])
    low_pass = [
        _low_pass(n, h, m, spacing_mm, max(wanted - own, 0.0))
        for n, h, m, own in zip(binned.size, binned.spacing_mm, grid.size, blur, strict=True)
    ]
    smooth = _along_axes(array, low_pass)
    share = [_overlap(n, h, m, spacing_mm) for n, h, m in zip(binned.size, binned.spacing_mm, grid.size, strict=True)]

    def percent_of(mask: BoolArray, along: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        percent, _ = _bin(mask.astype(np.uint8) * np.uint8(100), volume.grid, factors)
        return _along_axes(percent, along)

    ux, uy, uz = (float(max(wanted, own)) for own in blur)
    valid = _measured(volume, lambda mask: percent_of(mask, share))
    return WorkingScan(
        np.clip(smooth, *REGISTRATION_WINDOW_HU), grid, percent_of(lungs, low_pass) >= 50, valid, (ux, uy, uz)
    )


def _measured(volume: Volume, share_of: Callable[[BoolArray], NDArray[np.float32]]) -> BoolArray:
    """Where the working voxels were measured; ``share_of`` gives the percentage of each that a mask covers."""
    around = np.ones((3, 3, 3), dtype=bool)
    floor = min(max(NOT_SCANNED_HU, int(volume.array.min())), HIGHEST_FILL_HU)
    # a single voxel of clipped air was measured, a plateau was not; the voxels beside a plateau are mixed with it
    filled = ndimage.binary_opening(share_of(volume.array <= floor) >= 99, around)
    measured: BoolArray = ~ndimage.binary_dilation(filled, around)
    if volume.unseen is not None:  # it has a margin already: another one would remove lung that was measured
        measured &= share_of(volume.unseen) < LEAST_UNSEEN_PERCENT
    return measured


def _factors(grid: Grid, spacing_mm: float) -> list[int]:
    """Numbers of voxels along (x, y, z) of the largest block with edges of at most ``spacing_mm``; at least 1 each."""
    return [min(max(1, int(spacing_mm / h + 1e-6)), n) for h, n in zip(grid.spacing_mm, grid.size, strict=True)]


def _bin(array: NDArray[np.generic], grid: Grid, factors: list[int]) -> tuple[NDArray[np.float32], Grid]:
    """Average blocks of ``factors`` (x, y, z) voxels; incomplete blocks at the border are dropped."""
    if max(factors) == 1:
        return array, grid  # type: ignore[return-value]
    image = sitk.BinShrink(grid.to_image(array), factors)
    return sitk.GetArrayFromImage(image), Grid.of_image(image)


def _binned_mm2(blur_mm2: Vector3, grid: Grid, factors: list[int]) -> Vector3:
    """The variances of the blur after averaging blocks: n samples at distance h add (n^2 - 1) h^2 / 12."""
    x, y, z = (own + (n**2 - 1) * h**2 / 12.0 for own, n, h in zip(blur_mm2, factors, grid.spacing_mm, strict=True))
    return x, y, z


def _along_axes(array: NDArray[np.generic], matrices: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Clip ``array`` (``[z, y, x]``) to the values of a CT and multiply it by one matrix along each of (x, y, z)."""
    along_x, along_y, along_z = matrices
    planes = np.empty((len(array), len(along_y), len(along_x)), dtype=np.float32)
    for z in range(0, len(array), SLAB):  # a float32 copy of a whole scan is large
        # clip metal before the low-pass, so that it does not spread
        slab = np.clip(array[z : z + SLAB].astype(np.float32), NOT_SCANNED_HU, METAL_HU)
        planes[z : z + SLAB] = along_y @ (slab @ along_x.T)
    return np.tensordot(along_z, planes, axes=(1, 0)).astype(np.float32)


def _centres(count: int, spacing_mm: float) -> FloatArray:
    """Positions of voxels relative to the middle of their row, in mm."""
    centres: FloatArray = (np.arange(count, dtype=np.float64) - (count - 1) / 2.0) * spacing_mm
    return centres


def _low_pass(count: int, spacing_mm: float, wanted: int, wanted_mm: float, variance_mm2: float) -> NDArray[np.float32]:
    """Matrix ``[wanted, count]`` that smooths a row by a Gaussian of ``variance_mm2`` and resamples it.

    Both rows have the same middle. A Gaussian that is wide compared with the voxels is sampled at them. A narrow one
    would jump from voxel to voxel, so it is applied to the cubic spline through them.
    """
    source, target = _centres(count, spacing_mm), _centres(wanted, wanted_mm)
    sigma_mm = float(np.sqrt(variance_mm2))
    if sigma_mm > 0.6 * spacing_mm:
        matrix: FloatArray = np.exp(-(((target[:, None] - source) / sigma_mm) ** 2) / 2.0)
    else:
        nodes, weights = np.polynomial.hermite_e.hermegauss(5)
        inside = np.clip(target[:, None] + sigma_mm * nodes, source[0], source[-1])
        spline = make_interp_spline(source, np.eye(count), k=3) if count > 3 else None
        samples = spline(inside) if spline is not None else _nearest(source, inside)
        matrix = np.einsum("tqs,q->ts", samples, weights)
    rows: NDArray[np.float32] = (matrix / matrix.sum(axis=1, keepdims=True)).astype(np.float32)
    return rows


def _nearest(source: FloatArray, positions: FloatArray) -> FloatArray:
    """Weights ``[..., n]``: 1 for the nearest of the ``n`` sources to each position, otherwise 0."""
    weights: FloatArray = np.eye(len(source))[np.abs(positions[..., None] - source).argmin(axis=-1)]
    return weights


def _overlap(count: int, spacing_mm: float, wanted: int, wanted_mm: float) -> NDArray[np.float32]:
    """Matrix ``[wanted, count]``: fraction of each wanted voxel in each voxel of a row with the same middle."""
    source, target = _centres(count, spacing_mm), _centres(wanted, wanted_mm)[:, None]
    low = np.maximum(source - spacing_mm / 2, target - wanted_mm / 2)
    high = np.minimum(source + spacing_mm / 2, target + wanted_mm / 2)
    length = np.clip(high - low, 0.0, None)
    shares: NDArray[np.float32] = (length / length.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares
