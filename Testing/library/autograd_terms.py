"""NGF and mask distance as they are written down, with the gradient that autograd gives: what faster code must say."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ChangeMapJointLib.core.grid import ALIGN_CORNERS, FloatArray
from ChangeMapJointLib.core.resample import index_points
from ChangeMapJointLib.registration.deformable import similarity
from ChangeMapJointLib.registration.deformable.bspline import ControlGrid, expand
from ChangeMapJointLib.registration.pyramid import ScanView


class AutogradData:
    """On any device and in any precision; the arguments are those of ``CompiledData``."""

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
        self.reference, self.edges, self.weight = reference, edges, weight
        self.matched = weight if change_weight is None else weight * change_weight
        self.share = self.matched.sum() / weight.sum().clamp_min(1e-12)
        like = reference.image
        to_unit = template.grid.unit_from_index @ template.grid.inverse_affine
        self.base = index_points(reference.grid, to_unit @ rigid @ reference.grid.affine, like=like)
        self.to_unit = torch.as_tensor(to_unit[:3, :3].T).to(like)
        self.moving = torch.stack([template.image, template.mask])[None]
        self.matrices = control.matrices(like)

    def terms(self, coefficients: Tensor) -> dict[str, Tensor]:
        points = self.base + expand(coefficients @ self.to_unit, self.matrices)
        warped = functional.grid_sample(self.moving, points[None], "bilinear", "border", align_corners=ALIGN_CORNERS)
        image, mask = warped[0].unbind(0)
        ngf = similarity.normalised_gradient_fields(
            self.reference.image,
            image,
            self.reference.grid.spacing_mm,
            edge_reference=self.edges[0],
            edge_template=self.edges[1],
            weight=self.matched,
        )
        return {"ngf": self.share * ngf, "mask": similarity.mask_distance(self.reference.mask, mask, self.weight)}

    def evaluate(self, coefficients: Tensor, ngf_weight: float, mask_weight: float) -> tuple[dict[str, float], Tensor]:
        leaf = coefficients.detach().requires_grad_(True)
        terms = self.terms(leaf)
        (gradient,) = torch.autograd.grad(ngf_weight * terms["ngf"] + mask_weight * terms["mask"], leaf)
        return {name: float(term.detach()) for name, term in terms.items()}, gradient
