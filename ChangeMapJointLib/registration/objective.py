"""Eq. (1) at one level of the pyramid, as a function of the control coefficients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ChangeMapJointLib.core.displacement import determinant
from ChangeMapJointLib.core.grid import ALIGN_CORNERS, FloatArray
from ChangeMapJointLib.core.resample import index_points
from ChangeMapJointLib.registration import distances
from ChangeMapJointLib.registration.bspline import ControlGrid, expand
from ChangeMapJointLib.registration.pyramid import Picture
from ChangeMapJointLib.registration.regularisers import curvature, volume_change


@dataclass(frozen=True)
class Weights:
    """The betas of Eq. (1) and of the volume control. Empirical: the paper prints none."""

    ngf: float = 1.0
    keypoints: float = 0.0
    mask: float = 0.1
    curvature: float = 30.0
    volume: float = 0.05


@dataclass(frozen=True)
class Keypoints:
    """Corresponding points, ``[n, 3]`` in mm LPS, and a weight for each."""

    reference_mm: FloatArray
    template_mm: FloatArray
    weight: FloatArray


class Objective:
    """Value of Eq. (1) for coefficients ``[cz, cy, cx, 3]`` in mm on a control grid.

    ``y(x) = A x + u(x)`` with A the rigid pre-alignment, so that T is interpolated once and the
    regularisers see the deformation alone.
    """

    def __init__(
        self,
        reference: Picture,
        template: Picture,
        control: ControlGrid,
        rigid: FloatArray,
        *,
        weights: Weights,
        edges: tuple[float, float],
        data_weight: Tensor,
        keypoints: Keypoints | None = None,
        variant: distances.NGFVariant = "B",
    ) -> None:
        """Prepare what does not change during the optimisation.

        Args:
            reference: R and its mask at this level.
            template: T and its mask at this level.
            control: control points over R's grid.
            rigid: 4x4, reference to template.
            weights: the betas.
            edges: NGF edge parameters (eR, eT) in HU/mm.
            data_weight: NGF weight of every voxel of R, ``[z, y, x]``.
            keypoints: optional correspondences.
            variant: of NGF.
        """
        self.reference, self.control, self.weights, self.variant = reference, control, weights, variant
        self.edges, self.data_weight = edges, data_weight
        like = reference.image
        to_unit = template.grid.unit_from_index @ template.grid.inverse_affine
        self.base = index_points(reference.grid, to_unit @ rigid @ reference.grid.affine, like=like)
        self.to_unit = torch.as_tensor(to_unit[:3, :3].T).to(like)
        self.moving = torch.stack([template.image, template.mask])[None]
        self.matrices = control.matrices(like)
        self.spacing = reference.grid.spacing_mm
        self.keypoints = keypoints
        if keypoints is not None:
            self._prepare_keypoints(keypoints, rigid, like)

    def _prepare_keypoints(self, keypoints: Keypoints, rigid: FloatArray, like: Tensor) -> None:
        index = self.reference.grid.to_index(keypoints.reference_mm)  # (n, 3)
        size = np.asarray(self.reference.grid.size)
        unit = 2 * index / np.maximum(size - 1, 1) - 1
        self.key_unit = torch.as_tensor(unit).to(like)[None, None, None]
        start = keypoints.reference_mm @ rigid[:3, :3].T + rigid[:3, 3]
        self.key_wanted = torch.as_tensor(keypoints.template_mm - start).to(like)
        self.key_weight = torch.as_tensor(keypoints.weight).to(like)

    def warped(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """T(y) and M_T(y) on R's grid."""
        points = self.base + expand(coefficients @ self.to_unit, self.matrices)
        both = functional.grid_sample(self.moving, points[None], "bilinear", "border", align_corners=ALIGN_CORNERS)
        return both[0, 0], both[0, 1]

    def terms(self, coefficients: Tensor) -> dict[str, Tensor]:
        """The terms of Eq. (1) before weighting, by their names in :class:`Weights`."""
        image, mask = self.warped(coefficients)
        named = {
            "ngf": distances.normalised_gradient_fields(
                self.reference.image,
                image,
                self.spacing,
                edge_reference=self.edges[0],
                edge_template=self.edges[1],
                weight=self.data_weight,
                variant=self.variant,
            ),
            "mask": distances.mask_distance(self.reference.mask, mask),
            "curvature": curvature(coefficients.movedim(-1, 0), self.control.spacing_mm),
            "volume": volume_change(determinant(self.control.knot_gradient(coefficients), self.reference.grid)),
        }
        if self.keypoints is not None:
            u = expand(coefficients, self.matrices).movedim(-1, 0)[None]
            moved = functional.grid_sample(u, self.key_unit, "bilinear", "border", align_corners=ALIGN_CORNERS)
            named["keypoints"] = distances.keypoint_distance(moved[0, :, 0, 0].T, self.key_wanted, self.key_weight)
        return named

    def value(self, coefficients: Tensor) -> Tensor:
        """The weighted sum, a scalar with a graph."""
        total = coefficients.new_zeros(())
        for name, term in self.terms(coefficients).items():
            total = total + getattr(self.weights, name) * term
        return total
