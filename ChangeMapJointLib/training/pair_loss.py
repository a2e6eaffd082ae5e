"""Eq. (2) of one pair: on the whole volume with all blocks, or on crops with the last block."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from ChangeMapJointLib.joint.network import JointNetwork, JointOutput
from ChangeMapJointLib.joint.warping import warp_tensor
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
    """The loss of all blocks on the whole pair.

    Args:
        model: the network as wrapped by Fabric.
        sample: on the network's device.
        recall: class weights, and counts of the epoch.
        weights: the weights alpha.
        options: variants of the terms.
        count: whether to add the pair to the counts of ``recall``.

    Returns:
        The weighted sum, and the unweighted terms by name.
    """
    # HU as integers: Fabric would round floats to bfloat16, which is as coarse as 4 HU
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
    """The mean loss of the last block over random crops of a pair.

    Args:
        model: the network as wrapped by Fabric.
        network: the same network, unwrapped.
        sample: the whole pair.
        recall: class weights, and counts of the epoch.
        weights: the weights alpha.
        options: variants of the terms.
        crops: number, size and placing of the crops.
        seed: of the random crops.
        autocast: context that sets the precision of the network; Fabric sets it for :func:`whole_loss` only.
        count: whether to add the crops to the counts of ``recall``.

    Returns:
        As :func:`whole_loss`, averaged over the crops.
    """
    generator = torch.Generator().manual_seed(seed)
    with autocast():
        start = starting_point(network, sample, crops, generator)
    offsets = draw_offsets(sample, start.displacement_mm, crops, generator)
    parts = [cropped(sample, start.displacement_mm, offset, crops.shape) for offset in offsets]
    inputs = torch.cat([block_input(part, match_density=network.options.match_density) for part in parts])
    with autocast():
        steps, logits = model.last_block(inputs)
    losses: list[Tensor] = []
    sums: dict[str, list[Tensor]] = {}
    for n, part in enumerate(parts):
        output = block_output(part, start, steps[n : n + 1], logits[n : n + 1])
        loss, terms = _loss(output, part.sample, recall, weights, options, count)
        losses.append(loss)
        for name, value in terms.items():
            sums.setdefault(name, []).append(value.detach())
    return torch.stack(losses).mean(), {name: torch.stack(values).mean() for name, values in sums.items()}


def _loss(
    output: JointOutput,
    sample: Sample,
    recall: EpochRecall,
    weights: LossWeights,
    options: LossOptions,
    count: bool,
) -> tuple[Tensor, Terms]:
    logits = output.logits[0].float()
    terms, target = joint_terms(
        output.displacement_mm[0],
        logits,
        sample,
        recall.weights,
        coarser_mm=[u[0] for u in output.coarser_mm],
        options=options,
    )
    if count:
        u = output.displacement_mm.detach()
        warped_mask = warp_tensor(sample.mask_template[None, None], u, sample.spacing_mm, sample.offset)[0, 0]
        recall.add(logits, target, ((sample.mask_reference > 0.5) | (warped_mask > 0.5)).to(logits))
    return total(terms, weights), terms
