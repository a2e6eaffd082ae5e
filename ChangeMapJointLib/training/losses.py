"""Eq. (2) of Kohlbrandt et al. 2024, term by term.

``alpha0 D_NGF(R, T(y)) + alpha1 R_curv(y) + alpha2 D_key(y(K_R), K_T) + alpha3 D_mask(M_R, M_T(y))
+ alpha4 R_vol(L_R, L_T(y)) + alpha5 L_recall(C, |L_R - L_T(y)|)``

NGF, curvature, keypoints and masks are the functions of Eq. (1) in :mod:`ChangeMapJointLib.registration`; here are the
two terms that the network adds, and the sum. The paper prints no weight and no normalisation: every term is a mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ChangeMapJointLib.core.hu import REGISTRATION_WINDOW_HU
from ChangeMapJointLib.core.options import require, within
from ChangeMapJointLib.joint.warping import ORIGIN, Offset, determinant, displacement_at, warp
from ChangeMapJointLib.registration.deformable.regularisers import curvature, volume_change
from ChangeMapJointLib.registration.deformable.similarity import (
    Spacing,
    mask_distance,
    normalised_gradient_fields,
)


@dataclass(frozen=True)
class LossWeights:
    """The alphas of Eq. (2), all >= 0; empirical."""

    ngf: float = 1.0
    curvature: float = 100.0
    keypoints: float = 0.01
    mask: float = 0.5
    volume: float = 0.05
    recall: float = 0.5

    def __post_init__(self) -> None:
        require(self, **{name: (within(value, 0.0, 1e9), "0 or more") for name, value in vars(self).items()})


@dataclass(frozen=True)
class Sample:
    """What training knows of a pair, on the network's grid (inference knows R and T only).

    Attributes:
        reference: R in HU, ``[z, y, x]``.
        template: T in HU.
        mask_reference: M_R, in [0, 1].
        mask_template: M_T.
        lesions_reference: L_R, in [0, 1].
        lesions_template: L_T.
        changed_reference: the part of L_R whose lesions changed; stable ones are left out.
        changed_template: the same of L_T.
        keypoints_vox: K_R as voxel index (x, y, z), ``[n, 3]``.
        partners_mm: K_T - K_R in mm, ``[n, 3]``: what u should be there.
        edges: NGF edge parameters (eR, eT) in HU per mm.
        spacing_mm: of the grid, ordered (x, y, z).
        true_mm: the true u, ``[3, z, y, x]`` on fewer voxels in the same box; None where it is not known.
        registered_mm: u as Eq. (1) finds it, in the same way; None where it was not asked for.
        offset: voxel (x, y, z) of the template at which the reference begins, where the reference's volumes are crops.
    """

    reference: Tensor
    template: Tensor
    mask_reference: Tensor
    mask_template: Tensor
    lesions_reference: Tensor
    lesions_template: Tensor
    changed_reference: Tensor
    changed_template: Tensor
    keypoints_vox: Tensor
    partners_mm: Tensor
    edges: tuple[float, float]
    spacing_mm: Spacing
    true_mm: Tensor | None = None
    registered_mm: Tensor | None = None
    offset: Offset = ORIGIN


@dataclass(frozen=True)
class LossOptions:
    """How the terms count; the defaults are Eq. (2) as printed, which says nothing of ``least_weight``.

    Attributes:
        keypoint_scale_mm: distances of keypoints above it count linearly, see :func:`robust_distance`; 0 squares all.
        coarser: weight of the coarser blocks' mean distance of keypoints beside the last one's: all of them learn from
            the first step.
        only_changed: the change's target is that of lesions that did change. As printed, a stable lesion has a target
            along its border wherever y is a fraction of a voxel off.
        least_weight: of a class whose recall is 1, so that it cannot be forgotten. Voxels without change are recalled
            nearly all: with a small one a false positive costs next to nothing; 1 is the plain cross-entropy.
    """

    keypoint_scale_mm: float = 0.0
    coarser: float = 0.0
    only_changed: bool = False
    least_weight: float = 0.01

    def __post_init__(self) -> None:
        require(
            self,
            keypoint_scale_mm=(within(self.keypoint_scale_mm, 0.0, 1e3), "0 to 1000 mm"),
            coarser=(within(self.coarser, 0.0, 1e3), "0 or more"),
            least_weight=(within(self.least_weight, 1e-6, 1.0), "1e-6 to 1"),
        )


AS_PRINTED = LossOptions()


def joint_terms(
    displacement_mm: Tensor,
    logits: Tensor,
    sample: Sample,
    class_weights: Tensor,
    *,
    coarser_mm: Sequence[Tensor] = (),
    options: LossOptions = AS_PRINTED,
) -> tuple[dict[str, Tensor], Tensor]:
    """Every term of Eq. (2), unweighted, by its name in :class:`LossWeights`; and the target of the change.

    Args:
        displacement_mm: u, ``[3, z, y, x]``, components (x, y, z).
        logits: ``[2, z, y, x]``.
        sample: the pair.
        class_weights: of "unchanged" and "changed", see :class:`EpochRecall`.
        coarser_mm: u of the coarser blocks, ``[3, z, y, x]`` on grids of fewer voxels in the same box.
        options: how the terms count.
    """
    spacing = sample.spacing_mm
    low, high = REGISTRATION_WINDOW_HU
    moving = torch.stack([sample.template.clamp(low, high), sample.mask_template, sample.lesions_template])
    image, mask, lesions = warp(moving[None], displacement_mm[None], spacing, sample.offset)[0]
    if options.only_changed:
        before = sample.changed_template[None, None]
        changed = warp(before, displacement_mm.detach()[None], spacing, sample.offset)[0, 0]
        target = change_target(sample.changed_reference, changed)
    else:
        target = change_target(sample.lesions_reference, lesions)
    lungs = ((sample.mask_reference > 0.5) | (mask.detach() > 0.5)).to(image)
    terms = {
        "ngf": normalised_gradient_fields(
            sample.reference.clamp(low, high),
            image,
            spacing,
            edge_reference=sample.edges[0],
            edge_template=sample.edges[1],
            weight=(sample.mask_reference > 0.5).to(image),
        ),
        "curvature": curvature(displacement_mm, spacing),
        "keypoints": keypoint_term(displacement_mm, coarser_mm, sample, options),
        "mask": mask_distance(sample.mask_reference, mask),
        "volume": lesion_volume(displacement_mm, spacing, sample.lesions_reference, lesions),
        "recall": recall_loss(logits, target, class_weights, lungs),
    }
    return terms, target


def total(terms: dict[str, Tensor], weights: LossWeights) -> Tensor:
    """The weighted sum of the terms."""
    return torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum()


# -- D_key --------------------------------------------------------------------------------------
def keypoint_term(
    displacement_mm: Tensor, coarser_mm: Sequence[Tensor], sample: Sample, options: LossOptions
) -> Tensor:
    """D_key of the last block, and ``coarser`` times the mean over the others; arguments as :func:`joint_terms`."""
    size = torch.tensor(displacement_mm.shape[:0:-1]).to(sample.keypoints_vox)  # (x, y, z)
    found = []
    for u in (displacement_mm, *coarser_mm):
        factor = size / torch.tensor(u.shape[:0:-1]).to(size)
        moved = displacement_at(u, (sample.keypoints_vox + 0.5) / factor - 0.5)  # voxel centres, align_corners=False
        found.append(robust_distance(moved, sample.partners_mm, options.keypoint_scale_mm))
    last, others = found[0], found[1:]
    return last + options.coarser * torch.stack(others).mean() if others and options.coarser else last


def robust_distance(moved_mm: Tensor, partners_mm: Tensor, scale_mm: float) -> Tensor:
    """Mean of ``2 s (sqrt(s^2 + d^2) - s)``, d in mm: d^2 where d is small, 2 s d where it is large; d^2 for s = 0.

    Squares alone are all about the few points that a network cannot reach yet.

    Args:
        moved_mm: y(k_R) - k_R or y(k_R), ``[n, 3]``.
        partners_mm: k_T - k_R or k_T.
        scale_mm: s.

    Returns:
        A scalar in mm^2; 0, with a graph, without points.
    """
    squared = (moved_mm - partners_mm).square().sum(-1)
    if scale_mm > 0:
        squared = 2 * scale_mm * ((squared + scale_mm**2).sqrt() - scale_mm)
    return squared.mean() if squared.numel() else squared.sum()


# -- R_vol --------------------------------------------------------------------------------------
def lesion_volume(
    displacement_mm: Tensor, spacing_mm: Spacing, lesions_reference: Tensor, lesions_warped: Tensor
) -> Tensor:
    """R_vol: mean of ``psi(det grad y)`` over the lesions of both times and a voxel round them.

    A lesion that was larger is explained away by a deformation round L_R, one that was smaller by one inside it: the
    term must count on both. No gradient goes through the place where it counts.

    Args:
        displacement_mm: u, ``[3, z, y, x]``.
        spacing_mm: ordered (x, y, z).
        lesions_reference: L_R, ``[z, y, x]`` in [0, 1].
        lesions_warped: L_T(y).

    Returns:
        A scalar >= 0; 0, with a graph, where there is no lesion.
    """
    where = torch.maximum(lesions_reference, lesions_warped.detach())
    where = functional.max_pool3d(where[None, None], 3, stride=1, padding=1)[0, 0]
    return volume_change(determinant(displacement_mm, spacing_mm), where)


# -- L_recall -----------------------------------------------------------------------------------
def change_target(lesions_reference: Tensor, lesions_warped: Tensor) -> Tensor:
    """``|L_R - L_T(y)|``, both binarised, bool ``[z, y, x]``, without a graph.

    With a graph the cross-entropy would shrink its own target by bending y.
    """
    return (lesions_reference.detach() >= 0.5) != (lesions_warped.detach() >= 0.5)


def recall_loss(logits: Tensor, target: Tensor, class_weights: Tensor, where: Tensor) -> Tensor:
    """Cross-entropy weighted by how badly each class is recalled (Tian et al. 2022), divided by the sum of the weights.

    Args:
        logits: ``[2, z, y, x]``.
        target: bool ``[z, y, x]``.
        class_weights: ``[2]``, of "unchanged" and "changed".
        where: >= 0, ``[z, y, x]``: voxels that count.

    Returns:
        A scalar >= 0; 0, with a graph, where nothing counts.
    """
    entropy = functional.cross_entropy(logits[None].float(), target[None].long(), reduction="none")[0]
    weight = class_weights.to(entropy)[target.long()] * where
    return (weight * entropy).sum() / weight.sum().clamp_min(torch.finfo(entropy.dtype).tiny)


class EpochRecall:
    """Counts of one epoch, which become the class weights of the next: ``1 - recall``.

    Weights by batch flip between (0, 1) and (1, 0) when a batch is one pair; those of an epoch do not. A class that an
    epoch did not show keeps its weight. Counts of several processes are to be added by the caller before
    :meth:`finish`.

    Args:
        least_weight: of a class whose recall is 1.
    """

    def __init__(self, least_weight: float = LossOptions.least_weight) -> None:
        self.least_weight = least_weight
        self.weights = torch.ones(2, dtype=torch.float64)
        self.hit = torch.zeros(2, dtype=torch.float64)
        self.seen = torch.zeros(2, dtype=torch.float64)

    def add(self, logits: Tensor, target: Tensor, where: Tensor) -> None:
        """Count the voxels of a pair; arguments as :func:`recall_loss`."""
        said = logits.detach()[1] > logits.detach()[0]
        counted = where > 0
        for number in range(2):
            of_class = counted & (target == bool(number))
            self.seen[number] += float(of_class.sum())
            self.hit[number] += float((of_class & (said == bool(number))).sum())

    def finish(self) -> Tensor:
        """End the epoch: new weights, ``[2]`` float64, and counts from 0."""
        recall = self.hit / self.seen.clamp_min(1)
        fresh = (1 - recall).clamp_min(self.least_weight)
        self.weights = torch.where(self.seen > 0, fresh, self.weights)
        self.hit, self.seen = torch.zeros_like(self.hit), torch.zeros_like(self.seen)
        return self.weights

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint in the middle of an epoch."""
        return {"weights": self.weights, "hit": self.hit, "seen": self.seen}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from :meth:`state`."""
        self.weights, self.hit, self.seen = (state[name].clone() for name in ("weights", "hit", "seen"))
