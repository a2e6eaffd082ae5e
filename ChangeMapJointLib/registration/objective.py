"""Eq. (1) at one level of the pyramid, as a function of the control coefficients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ChangeMapJointLib.core.configuration import require, within
from ChangeMapJointLib.core.displacement import determinant
from ChangeMapJointLib.core.grid import ALIGN_CORNERS, FloatArray, apply_affine
from ChangeMapJointLib.registration.bspline import ControlGrid, expand
from ChangeMapJointLib.registration.data_terms import DataTerms
from ChangeMapJointLib.registration.distances import keypoint_distance
from ChangeMapJointLib.registration.regularisers import curvature, volume_change


@dataclass(frozen=True)
class Weights:
    """The betas of Eq. (1) and of the volume control, all >= 0. Empirical: the paper prints none.

    The curvature is that of the spline's coefficients on the control grid, in 1/mm^2.
    """

    ngf: float = 1.0
    keypoints: float = 0.0
    mask: float = 0.1
    curvature: float = 150.0
    volume: float = 0.05

    def __post_init__(self) -> None:
        good = {name: (within(value, 0.0, 1e9), "0 or more") for name, value in vars(self).items()}
        require(self, **good)


@dataclass(frozen=True)
class Keypoints:
    """Corresponding points, ``[n, 3]`` in mm LPS, and a weight for each."""

    reference_mm: FloatArray
    template_mm: FloatArray
    weight: FloatArray


class KeypointTerm:
    """D_key of Eq. (1) for coefficients on a control grid."""

    def __init__(self, keypoints: Keypoints, control: ControlGrid, rigid: FloatArray, like: Tensor) -> None:
        """Prepare ``keypoints`` for ``control``, whose displacement comes on top of ``rigid``."""
        to_unit = control.grid.unit_from_index @ control.grid.inverse_affine
        unit = apply_affine(to_unit, keypoints.reference_mm)  # (n, 3)
        self.unit = torch.as_tensor(unit).to(like)[None, None, None]
        start = keypoints.reference_mm @ rigid[:3, :3].T + rigid[:3, 3]
        self.wanted = torch.as_tensor(keypoints.template_mm - start).to(like)
        self.weight = torch.as_tensor(keypoints.weight).to(like)
        self.matrices = control.matrices(like)

    def value(self, coefficients: Tensor) -> Tensor:
        """Weighted mean of the squared distances in mm^2."""
        u = expand(coefficients, self.matrices).movedim(-1, 0)[None]
        moved = functional.grid_sample(u, self.unit, "bilinear", "border", align_corners=ALIGN_CORNERS)
        return keypoint_distance(moved[0, :, 0, 0].T, self.wanted, self.weight)


class Objective:
    """Value and gradient of Eq. (1) for coefficients ``[cz, cy, cx, 3]`` in mm on a control grid.

    ``y(x) = A x + u(x)`` with A the rigid pre-alignment, so that T is interpolated once and the
    regularisers see the deformation alone.
    """

    def __init__(
        self,
        data: DataTerms,
        control: ControlGrid,
        weights: Weights,
        keypoints: KeypointTerm | None = None,
        *,
        rigid: FloatArray | None = None,
    ) -> None:
        """Put the terms together.

        Args:
            data: NGF and masks.
            control: control points over R's grid.
            weights: the betas.
            keypoints: optional correspondences.
            rigid: A, 4x4; the volume term needs det(A + grad u). The identity by default.
        """
        self.data, self.control, self.weights, self.keypoints = data, control, weights, keypoints
        turn = np.eye(3) if rigid is None else rigid[:3, :3]
        self.turn = (turn - np.eye(3)) @ np.asarray(control.grid.direction)  # columns: along the array's axes

    def smoothness(self, coefficients: Tensor) -> dict[str, Tensor]:
        """The terms that do not look at the images, with a graph; by their names in :class:`Weights`."""
        turn = torch.as_tensor(self.turn).to(coefficients)
        gradient = [g + turn[:, axis] for axis, g in enumerate(self.control.knot_gradient(coefficients))]
        volume = volume_change(determinant(gradient, self.control.grid))
        named = {"curvature": curvature(coefficients.movedim(-1, 0), self.control.spacing_mm), "volume": volume}
        if self.keypoints is not None:
            named["keypoints"] = self.keypoints.value(coefficients)
        return named

    def evaluate(self, coefficients: Tensor) -> tuple[float, Tensor, dict[str, float]]:
        """The weighted sum, its gradient ``[cz, cy, cx, 3]``, and the terms before weighting."""
        leaf = coefficients.detach().requires_grad_(True)
        named = self.smoothness(leaf)
        total = torch.stack([getattr(self.weights, name) * term for name, term in named.items()]).sum()
        (gradient,) = torch.autograd.grad(total, leaf)
        terms, pull = self.data.evaluate(coefficients, self.weights.ngf, self.weights.mask)
        value = float(total.detach()) + self.weights.ngf * terms["ngf"] + self.weights.mask * terms["mask"]
        return (
            value,
            (gradient + pull).contiguous(),
            {**terms, **{name: float(term.detach()) for name, term in named.items()}},
        )
