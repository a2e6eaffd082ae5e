"""A small part of a scan on an isotropic grid along the patient's axes, for measurements around one point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from ChangeMapJointLib.core.grid import FloatArray, Grid, Shape3
from ChangeMapJointLib.core.hu import AIR_HU
from ChangeMapJointLib.scan.volume import Volume

IsLung = Callable[[FloatArray], NDArray[np.bool_]]
"""Whether points ``[n, 3]`` of a scan (x, y, z in mm, LPS) lie in a lung."""


@dataclass(frozen=True)
class Patch:
    """A part of a scan, not warped, only interpolated on a finer grid in the same space.

    Attributes:
        hu: float32 ``[z, y, x]``.
        lungs: bool ``[z, y, x]``; False outside the scan.
        grid: isotropic grid with axes along the patient's (LPS).
        whole_lungs: the lungs before the patch was limited to a part of them, of which their density is taken; None
            where it was not.
    """

    hu: NDArray[np.float32]
    lungs: NDArray[np.bool_]
    grid: Grid
    whole_lungs: NDArray[np.bool_] | None = None

    @property
    def step_mm(self) -> float:
        """Distance between neighbouring samples in mm."""
        return self.grid.spacing_mm[0]

    def nearest(self, points_mm: ArrayLike) -> NDArray[np.intp]:
        """Indices ``[n, 3]`` (z, y, x) of the samples nearest to points in mm; points outside the patch are dropped."""
        index = np.rint(self.grid.to_index(points_mm)).astype(np.intp)
        inside = ((index >= 0) & (index < self.grid.size)).all(axis=-1)
        return index[inside][:, ::-1]

    def limited_to(self, points_mm: FloatArray, distance_mm: float) -> Patch:
        """The patch with lung only within ``distance_mm`` of points ``[n, 3]``."""
        seed = np.zeros(self.grid.shape, dtype=bool)
        seed[tuple(self.nearest(points_mm).T)] = True
        near = ndimage.distance_transform_edt(~seed) * self.step_mm <= distance_mm
        return replace(self, lungs=self.lungs & near, whole_lungs=self.lungs)

    def with_lung(self, is_lung: IsLung) -> Patch:
        """The patch with all samples that ``is_lung`` accepts added to the lung."""
        index = np.argwhere(~self.lungs)
        lungs = self.lungs.copy()
        if len(index):
            lungs[tuple(index.T)] = is_lung(self.grid.to_physical(index[:, ::-1]))
        return replace(self, lungs=lungs)


def cut_patch(
    volume: Volume,
    lungs: NDArray[np.generic],
    low_mm: FloatArray,
    high_mm: FloatArray,
    *,
    step_mm: float,
) -> Patch:
    """Sample a box of a scan and its lung mask by trilinear interpolation.

    Args:
        volume: the scan.
        lungs: its lung mask on the scan's grid, not 0 in the lungs.
        low_mm: corner of the box with the lowest coordinates (x, y, z in mm, LPS).
        high_mm: the opposite corner.
        step_mm: distance between samples.

    Returns:
        The patch. Outside the scan ``hu`` is that of air and ``lungs`` is False.
    """
    low, high = np.asarray(low_mm, dtype=float), np.asarray(high_mm, dtype=float)
    nx, ny, nz = (max(int(np.ceil(n)), 1) + 1 for n in (high - low) / step_mm - 1e-6)
    x, y, z = (float(v) for v in low)
    grid = Grid((nz, ny, nx), (step_mm,) * 3, (x, y, z))
    start, stop = _covering_crop(volume.grid, low, high)
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    to_crop = volume.grid.crop(start, stop).inverse_affine @ grid.affine
    inside = _sampled(lungs[box] != 0, to_crop, grid.shape, outside=0.0) >= 0.5
    return Patch(_sampled(volume.array[box], to_crop, grid.shape, outside=AIR_HU), inside, grid)


def _sampled(array: NDArray[np.generic], matrix: FloatArray, shape: Shape3, *, outside: float) -> NDArray[np.float32]:
    """Interpolate ``array`` trilinearly on a grid of ``shape``, whose indices (i, j, k) ``matrix`` maps to its own.

    This uses SciPy instead of :func:`~ChangeMapJointLib.core.resample.resample`, because for hundreds of small patches,
    starting threads would take longer than the work itself.
    """
    flipped = matrix[:3, :3][::-1, ::-1]  # (i, j, k) to array order on both sides
    result: NDArray[np.float32] = ndimage.affine_transform(
        array.astype(np.float32), flipped, matrix[:3, 3][::-1], shape, order=1, mode="grid-constant", cval=outside
    )
    return result


def _covering_crop(grid: Grid, low: FloatArray, high: FloatArray) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """``(start, stop)`` in (z, y, x) of the voxels that interpolation in a box needs, at least one along each axis."""
    corners = np.array(np.meshgrid(*zip(low, high, strict=True))).reshape(3, -1).T
    index = grid.to_index(corners)
    last = np.array(grid.size) - 1
    first = np.clip(np.floor(index.min(axis=0)), 0, last).astype(int)
    final = np.clip(np.ceil(index.max(axis=0)), 0, last).astype(int)
    return tuple(int(v) for v in first[::-1]), tuple(int(v) + 1 for v in final[::-1])
