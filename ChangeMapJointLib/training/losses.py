"""Eq. (2) of Kohlbrandt et al. 2024, term by term.

``alpha0 D_NGF(R, T(y)) + alpha1 R_curv(y) + alpha2 D_key(y(K_R), K_T) + alpha3 D_mask(M_R, M_T(y))
+ alpha4 R_vol(L_R, L_T(y)) + alpha5 L_recall(C, |L_R - L_T(y)|)``

NGF, curvature and masks are the functions of Eq. (1) in :mod:`ChangeMapJointLib.registration`; this module adds
keypoints, lesion volume, recall and the sum. The paper gives neither weights nor normalisation: every term is a mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ChangeMapJointLib.core.hu import REGISTRATION_WINDOW_HU
from ChangeMapJointLib.core.options import require, within
from ChangeMapJointLib.joint.warping import ORIGIN, Offset, displacement_at, jacobian_on_network_grid, warp_tensor
from ChangeMapJointLib.registration.deformable.regularisers import curvature, volume_regulariser
from ChangeMapJointLib.registration.deformable.similarity import (
    Spacing,
    mask_distance,
    normalised_gradient_fields,
)


@dataclass(frozen=True)
class LossWeights:
    """The weights alpha of Eq. (2), all >= 0; chosen empirically."""

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
    """A training pair on the network's grid; inference has R and T only.

    Attributes:
        reference: R in HU, ``[z, y, x]``.
        template: T in HU, after rigid alignment.
        mask_reference: M_R, in [0, 1].
        mask_template: M_T.
        lesions_reference: L_R, in [0, 1].
        lesions_template: L_T.
        changed_reference: the lesions of L_R that changed, without the stable ones.
        changed_template: the same of L_T.
        keypoints_vox: K_R as continuous voxel indices (x, y, z), ``[n, 3]``.
        partners_mm: K_T - K_R in mm, ``[n, 3]``: the true u at the keypoints.
        edges: NGF edge parameters (eR, eT) in HU per mm.
        spacing_mm: of the grid, ordered (x, y, z).
        true_mm: the true u in mm, ``[3, z, y, x]`` on a coarser grid over the same box; None where it is unknown.
        registered_mm: u found by Eq. (1), on the same coarser grid; None where registration was not requested.
        offset: voxel (x, y, z) of the template at which the reference begins, where the reference is a crop.
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
    """Variants of the loss terms; the defaults are Eq. (2) as printed, which does not mention ``least_weight``.

    Attributes:
        keypoint_scale_mm: keypoint distances above it count linearly, see :func:`robust_distance`; 0: all are squared.
        coarser: weight of the mean keypoint term of the coarser blocks relative to the last block's, so that all blocks
            learn from the first step.
        only_changed: the target of change contains only lesions that did change. As printed, a stable lesion has a
            target along its border wherever y is off by a fraction of a voxel.
        least_weight: smallest class weight, for a class whose recall is 1, so that the class is not forgotten. Nearly
            all unchanged voxels are recalled: with a small value a false positive costs almost nothing, and 1 is the
            plain cross-entropy.
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
    """Compute every term of Eq. (2), unweighted, and the target of change.

    Args:
        displacement_mm: u, ``[3, z, y, x]``, components (x, y, z).
        logits: of "unchanged" and "changed", ``[2, z, y, x]``.
        sample: the pair.
        class_weights: of "unchanged" and "changed", see :class:`EpochRecall`.
        coarser_mm: u of the coarser blocks, ``[3, z, y, x]`` on coarser grids over the same box.
        options: variants of the terms.

    Returns:
        The terms by their names in :class:`LossWeights`, and the target, bool ``[z, y, x]``.
    """
    spacing = sample.spacing_mm
    low, high = REGISTRATION_WINDOW_HU
    template = torch.stack([sample.template.clamp(low, high), sample.mask_template, sample.lesions_template])
    image, mask, lesions = warp_tensor(template[None], displacement_mm[None], spacing, sample.offset)[0]
    if options.only_changed:
        changed_template = sample.changed_template[None, None]
        changed = warp_tensor(changed_template, displacement_mm.detach()[None], spacing, sample.offset)[0, 0]
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
    """D_key of the last block plus ``options.coarser`` times its mean over the coarser blocks.

    Arguments as in :func:`joint_terms`.
    """
    size = torch.tensor(displacement_mm.shape[:0:-1]).to(sample.keypoints_vox)  # (x, y, z)
    distances = []
    for u in (displacement_mm, *coarser_mm):
        factor = size / torch.tensor(u.shape[:0:-1]).to(size)
        predicted_mm = displacement_at(
            u, (sample.keypoints_vox + 0.5) / factor - 0.5
        )  # voxel centres, align_corners=False
        distances.append(robust_distance(predicted_mm, sample.partners_mm, options.keypoint_scale_mm))
    last, coarser = distances[0], distances[1:]
    return last + options.coarser * torch.stack(coarser).mean() if coarser and options.coarser else last


def robust_distance(moved_mm: Tensor, partners_mm: Tensor, scale_mm: float) -> Tensor:
    """Mean of the pseudo-Huber function ``2 s (sqrt(s^2 + d^2) - s)`` of the distances d; of d^2 for s = 0.

    It is close to d^2 for small d and to 2 s d for large d. Plain squares would be dominated by the few points that
    the network cannot reach yet.

    Args:
        moved_mm: y(k_R) - k_R or y(k_R), ``[n, 3]`` in mm.
        partners_mm: accordingly k_T - k_R or k_T.
        scale_mm: s.

    Returns:
        A scalar in mm^2; without points 0, still differentiable.
    """
    squared = (moved_mm - partners_mm).square().sum(-1)
    if scale_mm > 0:
        squared = 2 * scale_mm * ((squared + scale_mm**2).sqrt() - scale_mm)
    return squared.mean() if squared.numel() else squared.sum()


# -- R_vol --------------------------------------------------------------------------------------
def lesion_volume(
    displacement_mm: Tensor, spacing_mm: Spacing, lesions_reference: Tensor, lesions_warped: Tensor
) -> Tensor:
    """R_vol: mean of ``psi(det grad y)`` over the lesions of both scans, dilated by one voxel.

    A deformation can hide the shrinking of a lesion around L_R and its growth inside L_R, so the term covers both. No
    gradient flows through the region itself.

    Args:
        displacement_mm: u, ``[3, z, y, x]``.
        spacing_mm: ordered (x, y, z).
        lesions_reference: L_R, ``[z, y, x]`` in [0, 1].
        lesions_warped: L_T(y), the same.

    Returns:
        A scalar >= 0; without lesions 0, still differentiable.
    """
    region = torch.maximum(lesions_reference, lesions_warped.detach())
    region = functional.max_pool3d(region[None, None], 3, stride=1, padding=1)[0, 0]
    return volume_regulariser(jacobian_on_network_grid(displacement_mm, spacing_mm), region)


# -- L_recall -----------------------------------------------------------------------------------
def change_target(lesions_reference: Tensor, lesions_warped: Tensor) -> Tensor:
    """The target of change ``|L_R - L_T(y)|`` of the binarised masks, bool ``[z, y, x]``, without gradient.

    With a gradient the cross-entropy would shrink its own target by deforming y.
    """
    return (lesions_reference.detach() >= 0.5) != (lesions_warped.detach() >= 0.5)


def recall_loss(logits: Tensor, target: Tensor, class_weights: Tensor, where: Tensor) -> Tensor:
    """Recall loss (Tian et al. 2022): cross-entropy weighted by the missing recall of each class, normalised.

    Args:
        logits: ``[2, z, y, x]``.
        target: bool ``[z, y, x]``.
        class_weights: ``[2]``, of "unchanged" and "changed".
        where: weight >= 0 of each voxel, ``[z, y, x]``.

    Returns:
        A scalar >= 0; 0, still differentiable, where all weights are 0.
    """
    entropy = functional.cross_entropy(logits[None].float(), target[None].long(), reduction="none")[0]
    weight = class_weights.to(entropy)[target.long()] * where
    return (weight * entropy).sum() / weight.sum().clamp_min(torch.finfo(entropy.dtype).tiny)


class EpochRecall:
    """Recall of both classes over one epoch, which gives the class weights of the next: ``1 - recall``.

    With a batch of one pair, weights for each batch would flip between (0, 1) and (1, 0); those of an epoch are stable.
    A class that does not occur in an epoch keeps its weight. With several processes the caller adds their counts before
    :meth:`finish`.

    Args:
        least_weight: smallest weight, of a class whose recall is 1.
    """

    def __init__(self, least_weight: float = LossOptions.least_weight) -> None:
        self.least_weight = least_weight
        self.weights = torch.ones(2, dtype=torch.float64)
        self.hit = torch.zeros(2, dtype=torch.float64)
        self.seen = torch.zeros(2, dtype=torch.float64)

    def add(self, logits: Tensor, target: Tensor, where: Tensor) -> None:
        """Count the voxels of a pair; arguments as in :func:`recall_loss`."""
        predicted = logits.detach()[1] > logits.detach()[0]
        counted = where > 0
        for number in range(2):
            of_class = counted & (target == bool(number))
            self.seen[number] += float(of_class.sum())
            self.hit[number] += float((of_class & (predicted == bool(number))).sum())

    def finish(self) -> Tensor:
        """End the epoch: return the new weights, ``[2]`` float64, and reset the counts."""
        recall = self.hit / self.seen.clamp_min(1)
        new_weights = (1 - recall).clamp_min(self.least_weight)
        self.weights = torch.where(self.seen > 0, new_weights, self.weights)
        self.hit, self.seen = torch.zeros_like(self.hit), torch.zeros_like(self.seen)
        return self.weights

    def state(self) -> dict[str, Tensor]:
        """The weights and counts, for a checkpoint in the middle of an epoch."""
        return {"weights": self.weights, "hit": self.hit, "seen": self.seen}

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore a :meth:`state`."""
        self.weights, self.hit, self.seen = (state[name].clone() for name in ("weights", "hit", "seen"))
