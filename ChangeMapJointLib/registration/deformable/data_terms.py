"""The data terms of Eq. (1), NGF and mask distance, with their gradient, compiled for the CPU."""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.compiled import over_slices
from ChangeMapJointLib.core.grid import FloatArray
from ChangeMapJointLib.core.lazy_torch import Tensor, torch
from ChangeMapJointLib.registration.deformable.bspline import ControlGrid, basis
from ChangeMapJointLib.registration.pyramid import ScanView

IntArray = NDArray[np.int64]


class DataTerms(Protocol):
    """NGF and mask distance on one level, as a function of the control coefficients."""

    def evaluate(self, coefficients: Tensor, ngf_weight: float, mask_weight: float) -> tuple[dict[str, float], Tensor]:
        """Evaluate both terms and the gradient of their weighted sum.

        Args:
            coefficients: ``[cz, cy, cx, 3]`` in mm; they need no autograd graph.
            ngf_weight: beta0 of Eq. (1).
            mask_weight: beta2 of Eq. (1).

        Returns:
            The terms ``ngf`` and ``mask``, not weighted, and the gradient ``[cz, cy, cx, 3]``.
        """


class CompiledData:
    """The data terms on the CPU in float32, by the kernels in ``kernels.py``; needs Numba."""

    def __init__(
        self,
        reference: ScanView,
        template: ScanView,
        control: ControlGrid,
        rigid: FloatArray,
        *,
        edges: tuple[float, float],
        weight: Tensor,
        change_weight: Tensor | None = None,
    ) -> None:
        """Prepare what stays the same during the optimisation.

        Args:
            reference: R and its mask at this level.
            template: T and its mask at this level.
            control: control points over R's grid.
            rigid: 4x4, reference to template.
            edges: NGF edge parameters (eR, eT) in HU/mm.
            weight: weight of every voxel of R, ``[z, y, x]``; the terms are weighted means.
            change_weight: further weight of NGF, ``[z, y, x]`` in [0, 1]: near 0 where a voxel of R has no match in
                T. The mean is still taken over ``weight``. 1 everywhere by default.
        """
        from ChangeMapJointLib.registration.deformable import kernels

        self.kernels: Any = kernels
        self.image, self.mask = template.image.numpy(), template.mask.numpy()
        self.reference, self.reference_mask = reference.image.numpy(), reference.mask.numpy()
        mean = weight / weight.sum().clamp_min(1e-12)
        self.weight, self.matched = mean.numpy(), (mean if change_weight is None else mean * change_weight).numpy()
        to_index = template.grid.inverse_affine
        self.affine = np.ascontiguousarray((to_index @ rigid @ reference.grid.affine)[:3])
        self.linear = np.ascontiguousarray(to_index[:3, :3])
        self.inverse_spacing = tuple(np.float32(1 / h) for h in reference.grid.spacing_mm)
        self.edge_product = np.float32(edges[0] * edges[1])
        self.edge_square = np.float32(edges[1] ** 2)
        self.splines = [_reaching_splines(control, axis) for axis in range(3)]  # x, y, z
        self.near, self.wide = _rows(self.weight > 0)
        self._allocate(control)
        norms = partial(
            kernels.reference_norms, self.reference, self.inverse_spacing, np.float32(edges[0] ** 2), self.norm
        )
        over_slices(norms, len(self.norm))

    def _allocate(self, control: ControlGrid) -> None:
        """Allocate the buffers that every evaluation reuses."""
        shape, (cz, cy, cx) = self.reference.shape, control.shape
        self.norm = np.empty(shape, np.float32)
        self.warped = np.zeros(shape, np.float32)
        self.slope = np.zeros((*shape, 3), np.float32)
        self.mask_pull = np.zeros((*shape, 3), np.float32)
        self.factors = np.zeros((*shape, 2), np.float32)
        self.values = np.zeros((2, shape[0]))
        self.rows = np.empty((*shape[:2], cx, 3), np.float32)
        self.planes = np.empty((shape[0], cy, cx, 3), np.float32)
        self.gradient = np.empty((cz, cy, cx, 3), np.float32)

    def evaluate(self, coefficients: Tensor, ngf_weight: float, mask_weight: float) -> tuple[dict[str, float], Tensor]:
        """See :class:`DataTerms`."""
        k, (x, y, z), nz = self.kernels, self.splines, len(self.warped)
        warp = partial(
            k.warp_rows,
            coefficients.detach().contiguous().numpy(),
            z[0], y[0], x[0], z[1], y[1], x[1],
            self.affine, self.linear, self.image, self.mask, self.reference_mask, self.weight,
            np.float32(mask_weight), *self.wide, self.warped, self.slope, self.mask_pull, self.values[1],
        )  # fmt: skip
        compare = partial(
            k.ngf_rows,
            self.reference, self.warped, self.norm, self.matched, self.inverse_spacing,
            self.edge_product, self.edge_square, *self.near, self.factors, self.values[0],
        )  # fmt: skip
        differentiate = partial(
            k.gradient_rows,
            self.reference, self.warped, self.factors, self.slope, self.mask_pull, self.inverse_spacing,
            self.linear, np.float32(ngf_weight), x[0], x[1], *self.wide, self.rows,
        )  # fmt: skip
        for kernel in (warp, compare, differentiate, partial(k.gather_planes, self.rows, y[0], y[1], self.planes)):
            over_slices(kernel, nz)
        over_slices(partial(k.gather_volume, self.planes, z[0], z[1], self.gradient), self.gradient.shape[1])
        ngf, mask = self.values.sum(1)
        return {"ngf": float(ngf), "mask": float(mask)}, torch.from_numpy(self.gradient.copy())


def _reaching_splines(control: ControlGrid, axis: int) -> tuple[NDArray[np.float32], IntArray]:
    """Values ``[n, 4]`` of the four splines that reach each voxel along ``axis``, and the first of them, ``[n]``."""
    voxels = torch.arange(control.grid.size[axis], dtype=torch.float64) / control.stride[axis]
    first = voxels.floor().clamp(max=control.shape[2 - axis] - 4).long()
    offset = voxels[:, None] - (first[:, None] + torch.arange(4) - 1)
    return basis(offset).float().numpy(), first.numpy()


def _rows(region: NDArray[np.bool_]) -> tuple[tuple[IntArray, IntArray], tuple[IntArray, IntArray]]:
    """First and last (exclusive) voxel of every row of ``region``, and of ``region`` dilated by one voxel."""
    bounds = []
    cross = ndimage.generate_binary_structure(3, 1)
    for mask in (region, ndimage.binary_dilation(region, cross)):
        occupied = mask.any(axis=2)
        first = np.where(occupied, mask.argmax(axis=2), 0)
        last = np.where(occupied, mask.shape[2] - mask[:, :, ::-1].argmax(axis=2), 0)
        bounds.append((first, last))
    return bounds[0], bounds[1]
