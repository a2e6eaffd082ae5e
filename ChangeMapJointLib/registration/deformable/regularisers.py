"""The regularisers: the curvature of Eq. (1) and the volume term, as pure functions of a displacement."""

from __future__ import annotations

from ChangeMapJointLib.core.lazy_torch import Tensor, torch
from ChangeMapJointLib.registration.deformable.similarity import Spacing, weighted_mean


def curvature(displacement_mm: Tensor, spacing_mm: Spacing) -> Tensor:
    """R_curv: half the mean over all voxels of ``sum_l |Laplace u_l|^2``, in 1/mm^2.

    A second derivative counts only where both neighbours exist, so that affine motion costs nothing.

    Args:
        displacement_mm: u, ``[3, z, y, x]``.
        spacing_mm: ordered (x, y, z).

    Returns:
        A scalar >= 0.
    """
    laplace = torch.zeros_like(displacement_mm)
    for axis in range(3):
        dim = 3 - axis
        n = displacement_mm.shape[dim]
        h2 = spacing_mm[axis] ** 2
        if n > 2:
            laplace.narrow(dim, 1, n - 2).add_(displacement_mm.diff(n=2, dim=dim) / h2)
    return 0.5 * laplace.square().sum(0).mean()


def volume_penalty(determinant: Tensor, threshold: float = 0.1) -> Tensor:
    """psi(v) = (v - 1)^2 / v, continued below ``threshold`` by its tangent.

    ``psi(v) = psi(1/v)``: halving and doubling a volume cost the same (Ruehaak et al. 2017, Hering et al. 2021).
    The tangent gives a folded voxel (v <= 0) a finite value and a gradient that unfolds it.

    Args:
        determinant: det grad y, any shape.
        threshold: determinant in (0, 1) below which the tangent is used.

    Returns:
        psi, same shape, >= 0.
    """
    v = determinant.clamp_min(threshold)
    value = (v - 1).square() / v
    slope = 1 - 1 / threshold**2
    return value + slope * (determinant - v)


def volume_regulariser(determinant: Tensor, weight: Tensor | None = None) -> Tensor:
    """R_vol: weighted mean of :func:`volume_penalty`; 0 where all weights are 0."""
    return weighted_mean(volume_penalty(determinant), weight)
