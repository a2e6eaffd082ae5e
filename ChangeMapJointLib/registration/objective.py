"""Eq. (1) at one level of the pyramid, as a function of the control coefficients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ChangeMapJointLib.core.configuration import require, within
from ChangeMapJointLib.core.displacement import determinant
from ChangeMapJointLib.core.grid import FloatArray, apply_affine
from ChangeMapJointLib.registration.bspline import ControlGrid
from ChangeMapJointLib.registration.data_terms import DataTerms
from ChangeMapJointLib.registration.distances import keypoint_distance
from ChangeMapJointLib.registration.regularisers import curvature, volume_change

MATCH_MM = 3.0  # what a match is worth


@dataclass(frozen=True)
class Weights:
    """The betas of Eq. (1) and of the volume control, all >= 0. Empirical: the paper prints none.

    The curvature is that of the spline's coefficients on the control grid, in 1/mm^2.
    """

    ngf: float = 1.0
    keypoints: float = 0.01
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

    def swapped(self) -> Keypoints:
        """The same from template to reference."""
        return Keypoints(self.template_mm, self.reference_mm, self.weight)


class KeypointTerm:
    """D_key of Eq. (1) for coefficients on a control grid."""

    def __init__(self, keypoints: Keypoints, control: ControlGrid, rigid: FloatArray, like: Tensor) -> None:
        """Prepare ``keypoints`` for ``control``, whose displacement comes on top of ``rigid``."""
        index = apply_affine(control.grid.inverse_affine, keypoints.reference_mm)
        self.nodes, values = control.at_points(index)
        start = keypoints.reference_mm @ rigid[:3, :3].T + rigid[:3, 3]
        self.nodes, self.values = self.nodes.to(like.device), values.to(like)
        self.wanted = torch.as_tensor(keypoints.template_mm - start).to(like)
        self.weight = torch.as_tensor(keypoints.weight).to(like)

    def value(self, coefficients: Tensor) -> Tensor:
        """Weighted mean of the squared distances in mm^2."""
        return keypoint_distance(self._moved(coefficients), self.wanted, self.weight)

    def doubt(self, coefficients: Tensor) -> None:
        """Let those count less that lie far from where the deformation so far takes them: wrong matches.

        Geman and McClure's weight ``1 / (1 + (d / s)^2)^2`` of the distance d, with s twice the median distance, but at
        least :data:`MATCH_MM`.
        """
        apart = (self._moved(coefficients.detach()) - self.wanted).norm(dim=-1)
        if len(apart):
            scale = max(2 * float(apart.median()), MATCH_MM)
            self.weight = self.weight / (1 + (apart / scale) ** 2) ** 2

    def _moved(self, coefficients: Tensor) -> Tensor:
        return (coefficients.reshape(-1, 3)[self.nodes] * self.values[..., None]).sum(dim=1)


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
