"""What a comparison knows about change, and its signed difference at several scales."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.change.regions import IndexArray, SignedArray
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.grid import FloatArray, Grid, Shape3, bounding_box
from ChangeMapJointLib.core.hu import FULL_SCALE_HU
from ChangeMapJointLib.core.reduce import block_grid, block_means
from ChangeMapJointLib.scan.pair import ScanPair

FloatMap = NDArray[np.float32]

SCALES_MM = (1.1, 2.0, 3.6)  # sigmas: a ball of 3 to 5 mm stands out most at the first, of 8 mm and more at the last
WIDE = 3.0  # the surroundings that are subtracted are smoothed by so many sigmas
WORKING_MM = 1.6  # voxels much finer than this are averaged first
_NORMAL = 1.4826  # median absolute deviation of a normal distribution, as its standard deviation


@dataclass(frozen=True, eq=False)  # arrays have no one answer to ==
class Response:
    """The signed difference at one scale, less its surroundings, on :attr:`ChangeEvidence.working_grid`.

    Attributes:
        scale_mm: sigma of the Gaussian.
        hu: float32 ``[z, y, x]``; positive where the current scan is denser, and never more than
            the difference itself.
        noise_hu: robust standard deviation in the lungs: noise, and what the registration leaves everywhere.
    """

    scale_mm: float
    hu: FloatMap
    noise_hu: float


@dataclass(frozen=True, eq=False)
class ChangeEvidence:
    """What a comparison knows about change; arrays are ``[z, y, x]`` on the reference's grid.

    Attributes:
        change_map: CM_seq or CM_comb, float32 [0, 1].
        signed_hu: R - T(y) in HU, at equal blur.
        pair: the current scan R and the prior T, not warped, with their lungs.
        field: y from R to T.
        lungs: where the maps are computed, bool.
        lungs_warped: M_T(y), bool.
        trust: trust in [0, 1] at points ``[n, 3]`` (x, y, z in mm, LPS); None where unknown.
        difference: CM_diff, where the change map is another one; None where it is the change map.
        learned: CM_learn of the joint method, float32 [0, 1]; None without it.
    """

    change_map: FloatMap
    signed_hu: SignedArray
    pair: ScanPair
    field: DisplacementField
    lungs: NDArray[np.bool_]
    lungs_warped: NDArray[np.bool_]
    trust: Callable[[FloatArray], NDArray[np.floating]] | None = None
    difference: FloatMap | None = None
    learned: FloatMap | None = None

    @property
    def grid(self) -> Grid:
        """The reference's grid."""
        return self.pair.reference.grid

    def clipped_hu(self, box: tuple[slice, slice, slice]) -> FloatMap:
        """The signed difference in a box, clipped to the window of the map, in HU; 0 outside the lungs."""
        shown = self.change_map if self.difference is None else self.difference
        signed: FloatMap = np.copysign(shown[box] * np.float32(FULL_SCALE_HU), self.signed_hu[box].astype(np.float32))
        return signed

    @cached_property
    def box(self) -> tuple[slice, slice, slice]:
        """The part of the grid that holds the lungs, in whole blocks."""
        if not self.lungs.any():
            return (slice(0, 0),) * 3
        first, stop = bounding_box(self.lungs, 4)
        start = [min(a, n - f) for a, n, f in zip(first, self.grid.shape, self.block, strict=True)]
        ends = [a + max((b - a) // f, 1) * f for a, b, f in zip(start, stop, self.block, strict=True)]
        z, y, x = (slice(int(a), int(b)) for a, b in zip(start, ends, strict=True))
        return z, y, x

    @cached_property
    def block(self) -> Shape3:
        """Voxels along (z, y, x) that are averaged to one of the working grid."""
        spacing, shape = self.grid.spacing_mm[::-1], self.grid.shape
        z, y, x = (min(max(int(WORKING_MM / h + 0.25), 1), n) for h, n in zip(spacing, shape, strict=True))
        return z, y, x

    @cached_property
    def working_grid(self) -> Grid:
        """The grid of :attr:`responses`."""
        crop = self.grid.crop([s.start for s in self.box], [s.stop for s in self.box])
        return block_grid(crop, self.block)

    @cached_property
    def responses(self) -> tuple[Response, ...]:
        """The signed difference at :data:`SCALES_MM`; none where there are no lungs."""
        if not self.lungs.any():
            return ()
        signed = block_means(self.clipped_hu(self.box), self.block)
        inside = block_means(self.lungs[self.box].astype(np.float32), self.block) > 0.5
        spacing = np.array(self.working_grid.spacing_mm)[::-1]
        result = []
        for scale in SCALES_MM:
            near = ndimage.gaussian_filter(signed, scale / spacing, mode="constant", truncate=3.0)
            wide = ndimage.gaussian_filter(near, np.sqrt(WIDE**2 - 1) * scale / spacing, mode="constant", truncate=2.0)
            hu = near - wide
            values = hu[inside][:: max(inside.sum() // 200_000, 1)]
            noise = _NORMAL * float(np.median(np.abs(values))) if len(values) else 0.0
            # in the trough around a strong change, what is subtracted must not make a change of its own
            np.clip(hu, np.minimum(near, 0.0), np.maximum(near, 0.0), out=hu)
            result.append(Response(scale, hu, max(noise, 1.0)))
        return tuple(result)

    def working_voxels(self, voxels: IndexArray) -> IndexArray:
        """The voxels of the working grid that hold voxels ``[n, 3]`` (z, y, x) of the reference's grid, each once."""
        start = np.array([s.start for s in self.box])
        index = (voxels - start) // np.array(self.block)
        inside = ((index >= 0) & (index < self.working_grid.shape)).all(axis=1)
        unique: IndexArray = np.unique(index[inside], axis=0)
        return unique

    def fine_voxels(self, working: IndexArray) -> IndexArray:
        """The voxels of the reference's grid in voxels ``[n, 3]`` of the working grid, inside the lungs, sorted."""
        offsets = np.stack(np.meshgrid(*map(np.arange, self.block), indexing="ij"), axis=-1).reshape(-1, 3)
        start = np.array([s.start for s in self.box])
        voxels: IndexArray = (start + working[:, None] * np.array(self.block) + offsets).reshape(-1, 3)
        voxels = voxels[self.lungs[tuple(voxels.T)]]
        ordered: IndexArray = voxels[np.lexsort(voxels.T[::-1])]
        return ordered
