"""The data terms of Eq. (1): pure functions of tensors, differentiable by autograd.

Eq. (1) of Kohlbrandt et al. 2024:
``beta0 D_NGF(R, T(y)) + beta1 D_key(y(K_R), K_T) + beta2 D_mask(M_R, M_T(y)) + beta3 R_curv(y)``.
The paper gives neither the weights nor the normalisation. Here every term is a *mean*, so that a weight keeps its
meaning when the number of voxels changes.
"""

from __future__ import annotations

from ChangeMapJointLib.core.lazy_torch import Tensor, torch

Spacing = tuple[float, float, float]


def differences(image: Tensor, spacing_mm: Spacing) -> list[Tensor]:
    """Differences between neighbours divided by their distance, along x, y and z.

    Args:
        image: ``[z, y, x]``.
        spacing_mm: ordered (x, y, z).

    Returns:
        Three tensors, each one voxel shorter along its own axis, in intensity per mm.
    """
    return [image.diff(dim=2 - axis) / spacing_mm[axis] for axis in range(3)]


def edges_to_voxels(edges: list[Tensor]) -> Tensor:
    """Add half of the value on every edge between two voxels to each of the two voxels.

    This is the mean of the one-sided products in Lotz' scheme, in which the missing side at the border counts 0. Unlike
    central differences, it sees oscillations from voxel to voxel.

    Args:
        edges: values on the edges along x, y and z, as from :func:`differences`.

    Returns:
        Tensor ``[z, y, x]``.
    """
    shape = [edges[0].shape[0], edges[0].shape[1], edges[0].shape[2] + 1]
    total = edges[0].new_zeros(shape)
    for axis, edge in enumerate(edges):
        dim = 2 - axis
        if edge.shape[dim]:
            half = 0.5 * edge
            total.narrow(dim, 0, edge.shape[dim]).add_(half)
            total.narrow(dim, 1, edge.shape[dim]).add_(half)
    return total


def normalised_gradient_fields(
    reference: Tensor,
    warped: Tensor,
    spacing_mm: Spacing,
    *,
    edge_reference: float,
    edge_template: float,
    weight: Tensor | None = None,
) -> Tensor:
    """NGF distance of two images: small where their edges are parallel.

    With the gradients v, w of R and T(y) and ``|a|_e = sqrt(a.a + e^2)``, its value at a voxel is
    ``1 - ((<v,w> + eR eT) / (|v|_eR |w|_eT))^2``. It is 0 for equal images, also where they are flat. (This is the form
    used at Fraunhofer MEVIS; that of Haber & Modersitzki 2006 lacks ``eR eT`` and is 1 where both images are flat.)

    Args:
        reference: R, ``[z, y, x]``.
        warped: T(y) on the same grid.
        spacing_mm: ordered (x, y, z).
        edge_reference: eR > 0 in intensity per mm: smaller gradients count as noise.
        edge_template: eT, the same for T(y).
        weight: >= 0, ``[z, y, x]``; the result is the weighted mean. All voxels by default.

    Returns:
        A scalar in [0, 1].
    """
    dr, dt = differences(reference, spacing_mm), differences(warped, spacing_mm)
    product = edges_to_voxels([a * b for a, b in zip(dr, dt, strict=True)]) + edge_reference * edge_template
    norm_r = edges_to_voxels([a * a for a in dr]) + edge_reference**2
    norm_t = edges_to_voxels([b * b for b in dt]) + edge_template**2
    value = 1.0 - product.square() / (norm_r * norm_t)
    return weighted_mean(value, weight)


def edge_parameter(image: Tensor, spacing_mm: Spacing, mask: Tensor, quantile: float = 0.8) -> float:
    """Gradient magnitude below which an edge counts as noise, in intensity per mm.

    ``sqrt(mean over axes of the quantile of the squared difference)`` inside ``mask``, after Lotz'
    ``estimateNGFEpsilon``. At least 1e-3, which avoids a division by 0 in flat images.

    Args:
        image: ``[z, y, x]``.
        spacing_mm: ordered (x, y, z).
        mask: bool ``[z, y, x]``; all voxels are used when it is empty.
        quantile: in (0, 1).
    """
    squares = []
    for axis, difference in enumerate(differences(image, spacing_mm)):
        if difference.numel() == 0:
            continue
        inside = mask.narrow(2 - axis, 0, difference.shape[2 - axis])
        values = difference[inside] if inside.any() else difference.flatten()
        rank = max(round(quantile * values.numel()), 1)
        squares.append(values.abs().kthvalue(rank).values.square())
    return max(float(torch.stack(squares).mean().sqrt()), 1e-3) if squares else 1e-3


def mask_distance(reference_mask: Tensor, warped_mask: Tensor, weight: Tensor | None = None) -> Tensor:
    """D_mask: half the weighted mean of ``(M_T(y) - M_R)^2`` of masks in [0, 1], ``[z, y, x]``."""
    return 0.5 * weighted_mean((warped_mask - reference_mask).square(), weight)


def weighted_mean(value: Tensor, weight: Tensor | None) -> Tensor:
    """``sum(w v) / sum(w)``; 0 where there is nothing to average."""
    if weight is None:
        return value.mean() if value.numel() else value.sum()
    return (value * weight).sum() / weight.sum().clamp_min(torch.finfo(value.dtype).tiny)
