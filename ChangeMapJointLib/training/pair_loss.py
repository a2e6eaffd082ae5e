"""Eq. (2) of one pair: on the whole of it, or on crops for the last block."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from ChangeMapJointLib.joint.network import JointNetwork, JointOutput
from ChangeMapJointLib.joint.warping import warp
from ChangeMapJointLib.training.crops import (
    CropOptions,
    block_input,
    block_output,
    cropped,
    draw_offsets,
    starting_point,
)
from ChangeMapJointLib.training.losses import EpochRecall, LossOptions, LossWeights, Sample, joint_terms, total

Terms = dict[str, Tensor]


def whole_loss(
    model: Any, sample: Sample, recall: EpochRecall, weights: LossWeights, options: LossOptions, *, count: bool = True
) -> tuple[Tensor, Terms]:
    """The loss of a pair, all blocks on all of it; its terms unweighted.

    Args:
        model: the network, in whatever Fabric wrapped it.
        sample: on its device.
        recall: class weights, and where the pair is counted.
        weights: the alphas.
        options: how terms count.
        count: whether it is.
    """
    # whole HU as integers: Fabric would round floats to what bfloat16 can tell apart, 4 HU
    scans = [image.round().to(torch.int16)[None, None] for image in (sample.reference, sample.template)]
    return _loss(model(*scans, sample.spacing_mm), sample, recall, weights, options, count)


def crop_loss(
    model: Any,
    network: JointNetwork,
    sample: Sample,
    recall: EpochRecall,
    weights: LossWeights,
    options: LossOptions,
    crops: CropOptions,
    *,
    seed: int,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    count: bool = True,
) -> tuple[Tensor, Terms]:
    """The mean loss over crops of a pair, for its last block; as :func:`whole_loss`.

    Args:
        model: the network, in whatever Fabric wrapped it.
        network: the same, bare.
        sample: whole.
        recall: class weights, and where the crops are counted.
        weights: the alphas.
        options: how terms count.
        crops: how many, and where.
        seed: of the draws.
        autocast: precision in which the network computes; Fabric sees to it for whole scans only.
        count: whether they are counted.
    """
    generator = torch.Generator().manual_seed(seed)
    with autocast():
        start = starting_point(network, sample, crops, generator)
    places = draw_offsets(sample, start.displacement_mm, crops, generator)
    parts = [cropped(sample, start.displacement_mm, offset, crops.shape) for offset in places]
    shown = torch.cat([block_input(part, match_density=network.options.match_density) for part in parts])
    with autocast():
        steps, logits = model.last_block(shown)
    losses: list[Tensor] = []
    sums: dict[str, list[Tensor]] = {}
    for n, part in enumerate(parts):
        found = block_output(part, start, steps[n : n + 1], logits[n : n + 1])
        loss, terms = _loss(found, part.sample, recall, weights, options, count)
        losses.append(loss)
        for name, value in terms.items():
            sums.setdefault(name, []).append(value.detach())
    return torch.stack(losses).mean(), {name: torch.stack(values).mean() for name, values in sums.items()}


def _loss(
    found: JointOutput,
    sample: Sample,
    recall: EpochRecall,
    weights: LossWeights,
    options: LossOptions,
    count: bool,
) -> tuple[Tensor, Terms]:
    logits = found.logits[0].float()
    terms, target = joint_terms(
        found.displacement_mm[0],
        logits,
        sample,
        recall.weights,
        coarser_mm=[u[0] for u in found.coarser_mm],
        options=options,
    )
    if count:
        u = found.displacement_mm.detach()
        moved = warp(sample.mask_template[None, None], u, sample.spacing_mm, sample.offset)[0, 0]
        recall.add(logits, target, ((sample.mask_reference > 0.5) | (moved > 0.5)).to(logits))
    return total(terms, weights), terms
