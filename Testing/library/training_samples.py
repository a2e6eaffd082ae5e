"""Small pairs for the trainer, and trainings in as many processes as started it: arguments OUT, N and KIND ..."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

from ChangeMapJointLib.joint.checkpoint import Checkpoint
from ChangeMapJointLib.joint.network import JointNetwork, NetworkOptions
from ChangeMapJointLib.training.crops import CropOptions
from ChangeMapJointLib.training.losses import LossWeights, Sample
from ChangeMapJointLib.training.trainer import TrainingOptions, train

SHAPE = (8, 8, 16)
OPTIONS = TrainingOptions(
    network=NetworkOptions(factors=(1,), channels=(2,), reach=(0,), depth=1),
    weights=LossWeights(ngf=1.0, curvature=0.1, keypoints=1.0, mask=0.1, volume=0.05, recall=0.5),
    shape=SHAPE,
    epochs=3,
    batch=2,
    learning_rate=0.01,
    warm_up_epochs=1,
    checkpoint_steps=1,
    seed=4,
)


CROPS = replace(  # the last of two blocks, on crops, with kept statistics
    OPTIONS,
    network=NetworkOptions(factors=(2, 1), channels=(2, 2), reach=(0, 0), depth=1, kept_statistics=True),
    crops=CropOptions(count=2, shape=(8, 8, 8)),
    frozen=1,
    warm_up_epochs=0,
)
KINDS = {"whole": OPTIONS, "crops": CROPS}


def start(options: TrainingOptions) -> Checkpoint | None:
    """Weights of the coarse block, where it is frozen."""
    torch.manual_seed(5)
    coarse = replace(options.network, factors=(1,), channels=(2,), reach=(0,), kept_statistics=False)
    return Checkpoint(JointNetwork(coarse), {}, "") if options.frozen else None


class Pairs(torch.utils.data.Dataset[Sample]):
    """Noise that moved by 2 mm along x; every second pair has a new lesion."""

    def __init__(self, count: int = 5) -> None:
        self.count, self.seen = count, list[int]()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        self.seen.append(index)
        generator = torch.Generator().manual_seed(index)
        reference = 300 * torch.randn(SHAPE, generator=generator) - 500
        template = reference.roll(1, 2)
        lesion, none = torch.zeros(SHAPE), torch.zeros(SHAPE)
        if index % 2:
            lesion[3:5, 3:5, 6:9] = 1.0
            reference = torch.where(lesion > 0, 300.0, reference)
        points = torch.rand(20, 3, generator=generator) * torch.tensor([15.0, 7.0, 7.0])
        ones = torch.ones(SHAPE)
        partners = torch.tensor([2.0, 0.0, 0.0]).expand(20, 3)
        return Sample(
            reference,
            template,
            ones,
            ones,
            lesion,
            none,
            lesion,
            none,
            points,
            partners,
            (100.0, 100.0),
            (2.0, 2.0, 2.0),
        )


if __name__ == "__main__":
    from lightning_fabric import Fabric

    torch.set_num_threads(1)
    fabric = Fabric(accelerator="cpu", strategy="ddp", devices=int(sys.argv[2]))
    fabric.launch()
    for kind in sys.argv[3:]:
        pairs, options, out = Pairs(), KINDS[kind], Path(sys.argv[1], kind)
        train(pairs, options, out, fabric=fabric, start=start(options))
        (out / f"seen_{fabric.global_rank}.txt").write_text(" ".join(map(str, pairs.seen)))
    torch.distributed.destroy_process_group()
