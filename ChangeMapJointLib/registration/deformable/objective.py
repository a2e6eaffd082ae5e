"""Eq. (1) on one level of the pyramid, as a function of the control coefficients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ChangeMapJointLib.core.displacement import determinant_of_gradients
from ChangeMapJointLib.core.grid import FloatArray, apply_affine
from ChangeMapJointLib.core.lazy_torch import Tensor, torch
from ChangeMapJointLib.core.options import require, within
from ChangeMapJointLib.registration.deformable.bspline import ControlGrid, PointSplines
from ChangeMapJointLib.registration.deformable.data_terms import DataTerms
from ChangeMapJointLib.registration.deformable.regularisers import curvature, volume_regulariser
from ChangeMapJointLib.registration.deformable.surface_term import SurfaceTerm

MATCH_MM = 3.0  # accuracy of a keypoint match


@dataclass(frozen=True)
class Weights:
    """The weights of the terms of Eq. (1), of the volume term and of the surface term, all >= 0.

    They were found by experiment, since the paper gives none.

    Attributes:
        ngf: beta0, of the NGF distance.
        keypoints: beta1, of the squared distance between matched keypoints in mm^2.
        mask: beta2, of the distance of the lung masks.
        curvature: beta3, of the curvature of the spline's coefficients on the control grid, in 1/mm^2.
        volume: of the volume term, which keeps the deformation from folding.
        surface: of the squared distance in mm^2 between the lungs' surfaces, see
            :mod:`~ChangeMapJointLib.registration.deformable.surface_term`.
    """

    ngf: float = 1.0
    keypoints: float = 0.01
    mask: float = 0.1
    curvature: float = 75.0
    volume: float = 0.05
    surface: float = 0.07

    def __post_init__(self) -> None:
        checks = {name: (within(value, 0.0, 1e9), "0 or more") for name, value in vars(self).items()}
        require(self, **checks)


@dataclass(frozen=True)
class Keypoints:
    """Corresponding points.

    Attributes:
        reference_mm: points ``[n, 3]`` (x, y, z in mm, LPS) in the reference.
        template_mm: the same anatomical points in the template.
        weight: weight of each pair, ``[n]``, >= 0.
    """

    reference_mm: FloatArray
    template_mm: FloatArray
    weight: FloatArray

    def swapped(self) -> Keypoints:
        """The same correspondences from template to reference."""
        return Keypoints(self.template_mm, self.reference_mm, self.weight)


class KeypointTerm:
    """D_key of Eq. (1) for coefficients on a control grid, with its gradient in closed form."""

    def __init__(self, keypoints: Keypoints, control: ControlGrid, rigid: FloatArray) -> None:
        """Prepare ``keypoints`` for ``control``, whose displacement is added to ``rigid``."""
        self.splines = PointSplines(keypoints.reference_mm, control)
        self.wanted: FloatArray = keypoints.template_mm - apply_affine(rigid, keypoints.reference_mm)
        self.weight: FloatArray = np.asarray(keypoints.weight, dtype=float)

    def evaluate(self, coefficients: Tensor) -> tuple[float, Tensor]:
        """The weighted mean of the squared distances in mm^2, and its gradient by the coefficients."""
        apart = self.splines.displacement(coefficients) - self.wanted
        total = max(float(self.weight.sum()), float(np.finfo(float).tiny))
        value = float((self.weight * (apart**2).sum(axis=1)).sum()) / total
        return value, self.splines.gradient(apart * (2 / total * self.weight)[:, None], coefficients)

    def downweight_outliers(self, coefficients: Tensor) -> None:
        """Reduce the weight of keypoints that lie far from where the deformation so far takes them: wrong matches.

        The factor is that of Geman and McClure, ``1 / (1 + (d / s)^2)^2`` for the distance d, where s is twice the
        median distance but at least :data:`MATCH_MM`.
        """
        apart = np.linalg.norm(self.splines.displacement(coefficients) - self.wanted, axis=1)
        if len(apart):
            scale = max(2 * float(np.median(apart)), MATCH_MM)
            self.weight = self.weight / (1 + (apart / scale) ** 2) ** 2


class Objective:
    """Value and gradient of Eq. (1) for coefficients ``[cz, cy, cx, 3]`` in mm on a control grid.

    ``y(x) = A x + u(x)`` with A the rigid pre-alignment, so that T is interpolated only once and the regularisers see
    only the deformation.
    """

    def __init__(
        self,
        data: DataTerms,
        control: ControlGrid,
        weights: Weights,
        keypoints: KeypointTerm | None = None,
        surface: SurfaceTerm | None = None,
        *,
        rigid: FloatArray | None = None,
    ) -> None:
        """Combine the terms.

        Args:
            data: NGF and mask distance.
            control: control points over R's grid.
            weights: the weights of the terms.
            keypoints: optional correspondences.
            surface: optional distance of the lungs' surfaces.
            rigid: 4x4 matrix A, which the volume term needs for det(A + grad u). The identity by default.
        """
        self.data, self.control, self.weights = data, control, weights
        self.keypoints, self.surface = keypoints, surface
        turn = np.eye(3) if rigid is None else rigid[:3, :3]
        self.turn = (turn - np.eye(3)) @ np.asarray(control.grid.direction)  # columns: along the array's axes

    def smoothness(self, coefficients: Tensor) -> dict[str, Tensor]:
        """The regularisers by their names in :class:`Weights`, with an autograd graph."""
        turn = torch.as_tensor(self.turn).to(coefficients)
        gradient = [g + turn[:, axis] for axis, g in enumerate(self.control.knot_gradient(coefficients))]
        volume = volume_regulariser(determinant_of_gradients(gradient, self.control.grid))
        return {"curvature": curvature(coefficients.movedim(-1, 0), self.control.spacing_mm), "volume": volume}

    def evaluate(self, coefficients: Tensor) -> tuple[float, Tensor, dict[str, float]]:
        """The weighted sum, its gradient ``[cz, cy, cx, 3]``, and the terms before weighting."""
        leaf = coefficients.detach().requires_grad_(True)
        regularisers = self.smoothness(leaf)
        total = torch.stack([getattr(self.weights, name) * term for name, term in regularisers.items()]).sum()
        (gradient,) = torch.autograd.grad(total, leaf)
        terms, pull = self.data.evaluate(coefficients, self.weights.ngf, self.weights.mask)
        value = float(total.detach()) + self.weights.ngf * terms["ngf"] + self.weights.mask * terms["mask"]
        gradient = gradient + pull
        terms |= {name: float(term.detach()) for name, term in regularisers.items()}
        for name, points in (("keypoints", self.keypoints), ("surface", self.surface)):
            if points is not None:
                terms[name], pull = points.evaluate(coefficients)
                value += getattr(self.weights, name) * terms[name]
                gradient = gradient + getattr(self.weights, name) * pull
        return value, gradient.contiguous(), terms
