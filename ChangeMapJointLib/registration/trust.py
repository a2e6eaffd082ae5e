"""How far the registration can be believed, voxel by voxel, without knowing the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.configuration import require, within
from ChangeMapJointLib.core.displacement import DisplacementField, warp
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.core.resample import index_points, resample, sample


@dataclass(frozen=True)
class TrustOptions:
    """Options of :func:`trust_map`.

    Attributes:
        half_error_mm: forward-backward error at which trust falls to 0.5.
        smooth_mm: sigma over which evidence is gathered.
        jacobian_range: det grad y beyond it is not breathing: trust is halved at these values.
        border_mismatch: local mean of |M_R - M_T(y)|, in [0, 1], at which trust is halved.
    """

    half_error_mm: float = 3.0
    smooth_mm: float = 4.0
    jacobian_range: tuple[float, float] = (0.25, 4.0)
    border_mismatch: float = 0.5

    def __post_init__(self) -> None:
        low, high = self.jacobian_range
        require(
            self,
            half_error_mm=(within(self.half_error_mm, 0.01, 100.0), "0.01 to 100"),
            smooth_mm=(within(self.smooth_mm, 0.0, 50.0), "0 to 50"),
            jacobian_range=(0 < low < 1 < high < 1e6, "a number below 1 and one above it, both positive"),
            border_mismatch=(within(self.border_mismatch, 0.01, 10.0), "0.01 to 10"),
        )


def inverse_consistency(forward: DisplacementField, backward: DisplacementField) -> NDArray[np.float32]:
    """Forward-backward error ``|y_b(y_f(x)) - x|`` in mm on the forward field's grid.

    Args:
        forward: y_f, reference to template.
        backward: y_b, template to reference, estimated independently.

    Returns:
        float32 ``[z, y, x]``; 0 where both agree.
    """
    back = torch.as_tensor(backward.vectors_mm).movedim(-1, 0)
    error = np.empty(forward.grid.shape, dtype=np.float32)
    for z in range(0, forward.grid.shape[0], 16):
        slab = slice(z, z + 16)
        u = torch.as_tensor(forward.vectors_mm[slab])
        points = index_points(forward.grid, forward.grid.affine, slab) + u
        error[slab] = (u + sample(back, points, backward.grid).movedim(0, -1)).norm(dim=-1).numpy()
    return error


def inside_template(field: DisplacementField, template: Grid) -> NDArray[np.bool_]:
    """Where y(x) lies inside the template's field of view, bool on the field's grid."""
    inside = np.empty(field.grid.shape, dtype=bool)
    for z in range(0, field.grid.shape[0], 16):
        slab = slice(z, z + 16)
        points = index_points(field.grid, field.grid.affine, slab).double() + torch.as_tensor(field.vectors_mm[slab])
        inside[slab] = template.contains(points.numpy())
    return inside


def trust_map(
    field: DisplacementField,
    error_mm: NDArray[np.float32],
    reference_lungs: NDArray[np.bool_],
    reference: Grid,
    template_lungs: NDArray[np.bool_],
    template: Grid,
    *,
    options: TrustOptions = TrustOptions(),
) -> NDArray[np.float32]:
    """Trust in [0, 1] on the field's grid: the product of four pieces of evidence.

    1. forward-backward error e: ``2^-(e / half_error)^2``;
    2. det grad y within what breathing does;
    3. the lungs of R and of T(y) agree round the voxel;
    4. y(x) lies inside the template's field of view (otherwise 0).

    Args:
        field: y, reference to template.
        error_mm: :func:`inverse_consistency` on the field's grid.
        reference_lungs: bool on ``reference``.
        reference: R's grid.
        template_lungs: bool on ``template``.
        template: T's grid.
        options: constants; a change of lung density or a lesion does not lower trust.
    """
    sigma = [options.smooth_mm / h for h in reversed(field.grid.spacing_mm)]
    error = ndimage.gaussian_filter(error_mm, sigma, mode="nearest")
    trust = np.exp2(-((error / options.half_error_mm) ** 2))
    low, high = np.log(options.jacobian_range)
    determinant = np.log(np.clip(field.jacobian_determinant(), 1e-6, None))
    trust *= np.exp2(-((determinant / np.where(determinant < 0, low, high)) ** 4))
    ours = resample(reference_lungs, reference, field.grid) if not field.grid.same_as(reference) else reference_lungs
    theirs = warp(template_lungs, template, field.grid, field)
    apart = ndimage.gaussian_filter(np.abs(np.asarray(ours, dtype=np.float32) - theirs), sigma, mode="nearest")
    trust *= np.exp2(-((apart / options.border_mismatch) ** 2))
    trust[~inside_template(field, template)] = 0.0
    return trust.astype(np.float32)
