"""The data terms with their closed-form gradient on any device: in torch, or in fused Triton kernels on a CUDA device.

Both evaluate the B-spline and its adjoint by products with the dense basis matrices; in between they work on a list of
the voxels near the lungs. No autograd graph is built, and every evaluation reuses the buffers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np

from ChangeMapJointLib.core.compiled import compiled_available
from ChangeMapJointLib.core.grid import ALIGN_CORNERS, FloatArray, Grid
from ChangeMapJointLib.core.lazy_torch import Tensor, functional, torch
from ChangeMapJointLib.registration.deformable.bspline import ControlGrid
from ChangeMapJointLib.registration.deformable.data_terms import CompiledData, DataTerms
from ChangeMapJointLib.registration.deformable.similarity import edges_to_voxels
from ChangeMapJointLib.registration.pyramid import ScanView

BLOCK = 256  # voxels per Triton program


class ClosedFormData:
    """The data terms in torch, on any device and in any precision; :class:`FusedData` is faster."""

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
        """Arguments as of :class:`~ChangeMapJointLib.registration.deformable.data_terms.CompiledData`.

        Between evaluations, ``self.matched`` may be replaced by other weights that are 0 where ``weight`` is 0.
        """
        self.reference, self.template = reference, template
        self.weight = (weight / weight.sum().clamp_min(1e-12)).contiguous()
        self.matched = self.weight if change_weight is None else self.weight * change_weight
        self.edges = edges
        like, (nz, ny, nx) = reference.image, reference.grid.shape
        to_index = template.grid.inverse_affine
        self.linear = torch.as_tensor(to_index[:3, :3]).to(like)
        self.affine = to_index @ rigid @ reference.grid.affine
        self.matrices = control.matrices(like)
        self.voxels = torch.nonzero(_grown(weight > 0).flatten())[:, 0]
        # every evaluation overwrites these at the listed voxels; elsewhere they stay 0
        self.warped = torch.zeros_like(like)
        self.pull = like.new_zeros((3, nz * ny * nx))
        self.displacement = torch.empty_like(self.pull)
        self._prepare()

    def _prepare(self) -> None:
        """Prepare the listed voxels' positions, T and its mask as channels, and R's differences and norms."""
        image, grid = self.reference.image, self.template.grid
        _, ny, nx = image.shape
        affine = torch.as_tensor(self.affine[:3], device=image.device)
        v = self.voxels
        index = torch.stack([v % nx, v // nx % ny, v // (nx * ny), torch.ones_like(v)]).to(affine)
        unit = torch.as_tensor(grid.unit_from_index, device=image.device)
        self.base = (unit[:3, :3] @ affine @ index + unit[:3, 3:]).to(image)  # [3, listed]
        self.to_unit = unit.diagonal()[:3, None].to(image)
        self.moving = torch.stack([self.template.image, self.template.mask])[None]
        self.reference_mask = self.reference.mask.flatten()[v]
        self.edges_r = [self._along(image, axis) for axis in range(3)]
        self.norm_r = edges_to_voxels([d * d for d in self.edges_r]).add_(self.edges[0] ** 2)

    def _along(self, image: Tensor, axis: int) -> Tensor:
        """Differences per mm between neighbours along ``axis``."""
        return image.diff(dim=2 - axis).div_(self.reference.grid.spacing_mm[axis])

    def evaluate(self, coefficients: Tensor, ngf_weight: float, mask_weight: float) -> tuple[dict[str, float], Tensor]:
        """See :class:`~ChangeMapJointLib.registration.deformable.data_terms.DataTerms`."""
        with torch.no_grad():
            self._expand(coefficients)
            values = self._pull(ngf_weight, mask_weight)
            gradient = self._gather()
            ngf, mask = values.tolist()
        return {"ngf": ngf, "mask": mask}, gradient

    def _expand(self, coefficients: Tensor) -> None:
        """Fill ``self.displacement`` (``[3, voxels]``, in T's index) by three matrix products."""
        bz, by, bx = self.matrices
        value = (coefficients @ self.linear.T).movedim(-1, 0)  # [3, cz, cy, cx]
        value = by @ (value @ bx.T)  # [3, cz, y, x]
        torch.matmul(bz, value.flatten(2), out=self.displacement.view(3, bz.shape[0], -1))

    def _gather(self) -> Tensor:
        """The gradient by the coefficients, ``[cz, cy, cx, 3]``, from ``self.pull``: the adjoint of :meth:`_expand`."""
        bz, by, bx = self.matrices
        value = bz.T @ self.pull.view(3, bz.shape[0], -1)
        value = by.T @ value.view(3, -1, by.shape[0], bx.shape[0]) @ bx
        return value.movedim(0, -1) @ self.linear

    def _pull(self, ngf_weight: float, mask_weight: float) -> Tensor:
        """Fill ``self.pull`` with the gradient by T's index, and return both terms (float64)."""
        points = self.displacement[:, self.voxels].mul_(self.to_unit).add_(self.base)
        points = points.T[None, None, None]  # [1, 1, 1, listed, 3]
        sampled = functional.grid_sample(self.moving, points, "bilinear", "border", align_corners=ALIGN_CORNERS)
        image, mask = sampled.view(2, -1)
        self.warped.view(-1)[self.voxels] = image
        ngf, slope = self._ngf()
        weight = self.weight.view(-1)[self.voxels]
        apart = mask - self.reference_mask
        pushed = weight * apart
        push = torch.stack([ngf_weight * slope.view(-1)[self.voxels], mask_weight * pushed])
        # grid_sample's own adjoint, for the points only: 0 is bilinear, 1 is border
        _, by_points = torch.ops.aten.grid_sampler_3d_backward(
            push.view_as(sampled), self.moving, points, 0, 1, ALIGN_CORNERS, [False, True]
        )
        self.pull[:, self.voxels] = by_points.view(-1, 3).T * self.to_unit
        return torch.stack([ngf, 0.5 * (pushed * apart).sum(dtype=torch.float64)])

    def _ngf(self) -> tuple[Tensor, Tensor]:
        """NGF (float64) and its derivative by T(y), ``[z, y, x]``."""
        edges_t = [self._along(self.warped, axis) for axis in range(3)]
        s = edges_to_voxels([a * b for a, b in zip(self.edges_r, edges_t, strict=True)]).add_(
            self.edges[0] * self.edges[1]
        )
        n = edges_to_voxels([b * b for b in edges_t]).add_(self.edges[1] ** 2)
        ratio = s / self.norm_r.mul(n)
        a = self.matched * ratio
        b = a * s
        value = (self.matched - b).sum(dtype=torch.float64)
        a, b = a.mul_(-2), b.div_(n)
        slope = torch.zeros_like(self.warped)
        for axis, (er, et) in enumerate(zip(self.edges_r, edges_t, strict=True)):
            dim, count = 2 - axis, et.shape[2 - axis]
            a2, b2 = (f.narrow(dim, 0, count) + f.narrow(dim, 1, count) for f in (a, b))
            force = a2.mul_(er).mul_(0.5).addcmul_(b2, et).div_(self.reference.grid.spacing_mm[axis])
            slope.narrow(dim, 1, count).add_(force)
            slope.narrow(dim, 0, count).sub_(force)
        return value, slope


class FusedData(ClosedFormData):
    """The data terms on a CUDA device, by the kernels in ``triton_kernels.py``; needs Triton."""

    def _prepare(self) -> None:
        from ChangeMapJointLib.registration.deformable import triton_kernels

        self.kernels: Any = triton_kernels
        grid, (er, et) = self.reference.grid, self.edges
        fixed = [*self.affine[:3].flatten(), *(h**-2 for h in grid.spacing_mm), er * et, er**2, et**2, 0.0, 0.0]
        self.constants = torch.as_tensor([float(v) for v in fixed], dtype=torch.float64).to(self.reference.image)
        self.weights = (0.0, 0.0)
        self.voxels = self.voxels.to(torch.int32)
        self.blocks = -(-len(self.voxels) // BLOCK)
        self.partial = self.warped.new_zeros((2, max(self.blocks, 1)))
        self.factors = self.warped.new_zeros((2, self.warped.numel()))
        self.images = [
            t.contiguous() for t in (self.template.image, self.template.mask, self.reference.image, self.reference.mask)
        ]

    def _pull(self, ngf_weight: float, mask_weight: float) -> Tensor:
        """As in :class:`ClosedFormData`, in three launches."""
        if self.weights != (ngf_weight, mask_weight):
            self.weights = (ngf_weight, mask_weight)
            self.constants[18:] = torch.tensor(self.weights, dtype=torch.float64)
        if not len(self.voxels):
            return self.partial.new_zeros(2)
        with torch.cuda.device(self.warped.device) if self.warped.is_cuda else nullcontext():
            self._launch()
        return self.partial.sum(1, dtype=torch.float64)

    def _launch(self) -> None:
        image, mask, reference, reference_mask = self.images
        (nz, ny, nx), (tz, ty, tx) = reference.shape, image.shape
        listed, count, launch = len(self.voxels), reference.numel(), (self.blocks,)
        start = (self.voxels, listed, self.constants)
        k = self.kernels
        k.warp_voxels[launch](*start, self.displacement, image, self.warped, count, nx, ny, tx, ty, tz, block=BLOCK)
        k.ngf_voxels[launch](
            *start, reference, self.warped, self.matched.contiguous(), self.factors, self.partial[0],
            count, nx, ny, nz, block=BLOCK,
        )  # fmt: skip
        k.pull_voxels[launch](
            *start, self.displacement, image, mask, reference, reference_mask, self.weight, self.warped, self.factors,
            self.pull, self.partial[1], count, nx, ny, nz, tx, ty, tz, block=BLOCK,
        )  # fmt: skip


def fused_available(device: torch.device) -> bool:
    """Whether :class:`FusedData` runs on ``device``. Without Triton the same terms run in torch, more slowly."""
    return device.type == "cuda" and _triton_runs(device)


@functools.cache
def _triton_runs(device: torch.device) -> bool:
    """Try one launch: Triton needs a C compiler, Python's headers and a supported device."""
    grid = Grid((2, 2, 2))
    control = ControlGrid(grid, (2.0, 2.0, 2.0))
    try:
        view = ScanView(torch.zeros(grid.shape, device=device), torch.ones(grid.shape, device=device), grid)
        data = FusedData(view, view, control, np.eye(4), edges=(1.0, 1.0), weight=torch.ones_like(view.image))
        data.evaluate(torch.zeros(*control.shape, 3, device=device), 1.0, 1.0)
    except Exception:  # every missing part fails with an error of its own
        return False
    return True


def _grown(region: Tensor) -> Tensor:
    """``region`` (bool ``[z, y, x]``) dilated by one voxel along every axis in turn."""
    grown = region.clone()
    for dim in range(3):
        n = region.shape[dim] - 1
        grown.narrow(dim, 1, n).logical_or_(region.narrow(dim, 0, n))
        grown.narrow(dim, 0, n).logical_or_(region.narrow(dim, 1, n))
    return grown


def fastest_terms(device: torch.device, *, compiled: bool) -> Callable[..., DataTerms]:
    """The fastest available implementation of :class:`DataTerms`; all agree to rounding.

    Args:
        device: device of the images.
        compiled: use Numba or Triton where they are installed.

    Returns:
        A class, to be called as :class:`~ChangeMapJointLib.registration.deformable.data_terms.CompiledData`.
    """
    if compiled and device.type == "cpu" and compiled_available():
        return CompiledData
    return FusedData if compiled and fused_available(device) else ClosedFormData
