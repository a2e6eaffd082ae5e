"""Weight of the NGF term by whether a voxel of the reference has a match in the template.

Where a lesion is new, resolved, grown or shrunk there is no match, and a data term that insists on one drags tissue
there (the overcompensation of Kohlbrandt et al. 2024). The change is therefore estimated from the current residual, as
in Dufresne et al. 2022 (doi:10.3389/fnimg.2022.1008128), and NGF counts less where it is large; there the regularisers
continue the deformation.
"""

from __future__ import annotations

from ChangeMapJointLib.core.grid import ALIGN_CORNERS, FloatArray, Grid
from ChangeMapJointLib.core.hu import CHANGE_WINDOW_HU
from ChangeMapJointLib.core.lazy_torch import Tensor, functional, torch
from ChangeMapJointLib.core.resample import index_points
from ChangeMapJointLib.registration.deformable.bspline import ControlGrid, expand
from ChangeMapJointLib.registration.pyramid import ScanView

SIGMA_MM = 2.0  # of the Gaussian mean of the residual: noise and half-matched vessels cancel, nodules do not
SLAB = 32  # slices at a time


def change_weight(
    reference: ScanView,
    template: ScanView,
    coefficients: Tensor,
    control: ControlGrid,
    rigid: FloatArray,
    *,
    change_hu: float = 0.0,
) -> Tensor:
    """The weight of every voxel of R, given the deformation so far: 1 where it has a match in T, 0 where it has none.

    Args:
        reference: R and its mask at this level.
        template: T and its mask at this level.
        coefficients: ``[cz, cy, cx, 3]`` in mm.
        control: their control grid, over R.
        rigid: 4x4, reference to template.
        change_hu: residual at which the weight is one half; 0 to ignore the residual.

    Returns:
        Tensor ``[z, y, x]`` in [0, 1]: 0 where y(x) lies outside T, otherwise ``1 / (1 + (d / change_hu)^4)``, where d
        is the mean residual around the voxel minus the median over the lungs (breathing changes their density).
    """
    image, mask, inside = warp_view(reference, template, coefficients, control, rigid)
    if not change_hu:
        return inside
    both = ((reference.mask > 0.5) & (mask > 0.5) & (inside > 0)).to(image)
    if not both.any():
        return inside
    residual = reference.image.clamp_max(CHANGE_WINDOW_HU[1]) - image.clamp_max(CHANGE_WINDOW_HU[1])
    return inside * residual_weight(residual, both, reference.grid, change_hu)


def residual_weight(residual: Tensor, both: Tensor, grid: Grid, change_hu: float) -> Tensor:
    """``1 / (1 + (d / change_hu)^4)``: near 0 where a nodule came, went, grew or shrank, 1 where nothing did.

    Args:
        residual: R - T(y) in HU, ``[z, y, x]``.
        both: 1 in the lungs of both R and T(y), 0 elsewhere; at least one voxel must be 1.
        grid: grid of both arrays.
        change_hu: residual at which the weight is one half.

    Returns:
        Tensor ``[z, y, x]``; d is the mean residual around the voxel minus the median over ``both``.
    """
    residual = (residual - residual[both > 0].median()) * both
    mean, share = gaussian(torch.stack([residual, both]), [SIGMA_MM / h for h in reversed(grid.spacing_mm)])
    weight: Tensor = 1 / (1 + (mean / share.clamp_min(0.1) / change_hu) ** 4)
    return weight


def warp_view(
    reference: ScanView, template: ScanView, coefficients: Tensor, control: ControlGrid, rigid: FloatArray
) -> tuple[Tensor, Tensor, Tensor]:
    """Warp T and its mask onto R's grid.

    Args:
        reference: gives R's grid.
        template: T and its mask.
        coefficients: ``[cz, cy, cx, 3]`` in mm.
        control: their control grid, over R.
        rigid: 4x4, reference to template.

    Returns:
        T(y), M_T(y), and 1 where y(x) lies in T's box (0 elsewhere), each ``[z, y, x]``.
    """
    grid, moving = reference.grid, torch.stack([template.image, template.mask])[None]
    to_unit = template.grid.unit_from_index @ template.grid.inverse_affine
    linear = torch.as_tensor(to_unit[:3, :3].T).to(coefficients)
    bz, by, bx = control.matrices(coefficients)
    limit = torch.tensor([1 + 1 / max(n - 1, 1) for n in template.grid.size]).to(coefficients)  # half a voxel
    result = coefficients.new_empty((3, *grid.shape))
    for z in range(0, grid.shape[0], SLAB):
        slab = slice(z, z + SLAB)
        points = index_points(grid, to_unit @ rigid @ grid.affine, slab, like=coefficients)
        points = points + expand(coefficients @ linear, (bz[slab], by, bx))
        result[:2, slab] = functional.grid_sample(
            moving, points[None], "bilinear", "border", align_corners=ALIGN_CORNERS
        )[0]
        result[2, slab] = (points.abs() <= limit).all(dim=-1).to(coefficients)
    image, mask, inside = result.unbind(0)
    return image, mask, inside


def gaussian(volumes: Tensor, sigma_vox: list[float]) -> Tensor:
    """Smooth ``volumes`` (``[c, z, y, x]``) along z, y and x, with zeros beyond the border."""
    matrices = [_gaussian_matrix(n, sigma).to(volumes) for n, sigma in zip(volumes.shape[1:], sigma_vox, strict=True)]
    return torch.stack(
        [expand(volume[..., None], (matrices[0], matrices[1], matrices[2]))[..., 0] for volume in volumes]
    )


def _gaussian_matrix(n: int, sigma: float) -> Tensor:
    """Matrix ``[n, n]`` that smooths along one axis: faster than a convolution, and on any device."""
    half = max(round(3 * sigma), 1)
    steps = torch.arange(n, dtype=torch.float64)[:, None] - torch.arange(n)
    total = torch.exp(-0.5 * (torch.arange(-half, half + 1, dtype=torch.float64) / max(sigma, 1e-6)) ** 2).sum()
    return torch.where(steps.abs() <= half, torch.exp(-0.5 * (steps / max(sigma, 1e-6)) ** 2), 0.0) / total
