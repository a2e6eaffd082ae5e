"""A small piece of a scan on an isotropic grid along the patient's axes, for measurements around one place."""

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
"""For physical points ``[n, 3]`` of a scan: do they lie in a lung?"""


@dataclass(frozen=True)
class Patch:
    """A piece of a scan, not warped: only interpolated on a finer grid of the same space.

    Attributes:
        hu: float32 ``[z, y, x]``.
        lungs: bool ``[z, y, x]``; False outside the scan.
        grid: isotropic, axes along the patient's (LPS).
    """

    hu: NDArray[np.float32]
    lungs: NDArray[np.bool_]
    grid: Grid

    @property
    def step_mm(self) -> float:
        """Distance between neighbouring samples."""
        return self.grid.spacing_mm[0]

    def nearest(self, points_mm: ArrayLike) -> NDArray[np.intp]:
        """Indices ``[n, 3]`` ordered (z, y, x) of the samples nearest to physical points, those outside left out."""
        index = np.rint(self.grid.to_index(points_mm)).astype(np.intp)
        inside = ((index >= 0) & (index < self.grid.size)).all(axis=-1)
        return index[inside][:, ::-1]

    def limited_to(self, points_mm: FloatArray, distance_mm: float) -> Patch:
        """The same piece with only the lung nearer than ``distance_mm`` to physical points ``[n, 3]``."""
        seed = np.zeros(self.grid.shape, dtype=bool)
        seed[tuple(self.nearest(points_mm).T)] = True
        near = ndimage.distance_transform_edt(~seed) * self.step_mm <= distance_mm
        return replace(self, lungs=self.lungs & near)

    def with_lung(self, is_lung: IsLung) -> Patch:
        """The same piece with what ``is_lung`` accepts added to the lung."""
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
    """Sample the box from ``low_mm`` to ``high_mm`` (LPS) of a scan and its lung mask, trilinearly.

    Args:
        volume: the scan.
        lungs: its mask (not 0 in the lungs), on the scan's grid.
        low_mm: one corner of the box, physical (x, y, z).
        high_mm: the opposite corner.
        step_mm: distance between samples.

    Returns:
        The patch. Beyond the scan ``hu`` is air and ``lungs`` is False.
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
    """Trilinear values at the indices (i, j, k) that ``matrix`` makes of those of an array of ``shape``.

    scipy and not :func:`~ChangeMapJointLib.core.resample.resample`: hundreds of small patches, for each of which
    starting threads would cost more than the work.
    """
    flipped = matrix[:3, :3][::-1, ::-1]  # (i, j, k) to array order on both sides
    result: NDArray[np.float32] = ndimage.affine_transform(
        array.astype(np.float32), flipped, matrix[:3, 3][::-1], shape, order=1, mode="grid-constant", cval=outside
    )
    return result


def _covering_crop(grid: Grid, low: FloatArray, high: FloatArray) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """``(start, stop)`` in (z, y, x) of the voxels needed to interpolate in a physical box; at least one each."""
    corners = np.array(np.meshgrid(*zip(low, high, strict=True))).reshape(3, -1).T
    index = grid.to_index(corners)
    last = np.array(grid.size) - 1
    first = np.clip(np.floor(index.min(axis=0)), 0, last).astype(int)
    final = np.clip(np.ceil(index.max(axis=0)), 0, last).astype(int)
    return tuple(int(v) for v in first[::-1]), tuple(int(v) + 1 for v in final[::-1])
