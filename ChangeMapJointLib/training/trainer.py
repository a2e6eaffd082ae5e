"""Training of the joint network by Eq. (2), with Lightning Fabric: one loop for a CPU, a GPU, or many.

A step takes ``batch`` pairs, shared out among the processes, so that more processes change the time and not the result:
gradients are those of the mean over the pairs of the step, the counts of the recall loss are added up over all
processes at the end of an epoch, and every pair is seen once an epoch. The order of pairs follows from seed and epoch
alone; a run that was killed goes on at the step after its last checkpoint and gives the same weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.memory import peak_memory_mb
from ChangeMapJointLib.core.options import require, to_mapping, within
from ChangeMapJointLib.core.progress import Progress, silent
from ChangeMapJointLib.joint.checkpoint import Checkpoint
from ChangeMapJointLib.joint.network import MOMENTUM, JointNetwork, NetworkOptions
from ChangeMapJointLib.training.augment import AugmentOptions, augmented, crop_seed
from ChangeMapJointLib.training.crops import CropOptions
from ChangeMapJointLib.training.losses import EpochRecall, LossOptions, LossWeights, Sample
from ChangeMapJointLib.training.pair_loss import crop_loss, whole_loss
from ChangeMapJointLib.training.resuming import Run, State, Table, fixed_options, sum_over_processes
from ChangeMapJointLib.training.samples import to_device

LAST = "last.ckpt"


@dataclass(frozen=True)
class TrainingOptions:
    """How the network is trained.

    Attributes:
        network: architecture.
        weights: the alphas of Eq. (2).
        loss: how its terms count.
        augment: how pairs are varied.
        crops: what the last block is shown, where the coarser ones are frozen and it keeps its statistics.
        shape: (z, y, x) of the network's input.
        epochs: passes over the pairs.
        batch: pairs a step, over all processes.
        learning_rate: of Adam.
        decay_epochs: epochs in which the learning rate falls to a twentieth, along a cosine; 0: it stays.
        frozen: coarsest blocks that keep the weights that training starts from.
        steady_from: the epoch, from 0, in which a block that keeps statistics begins to use them, as it will be used;
            None: it never does while it learns.
        warm_up_epochs: the recall loss counts from the epoch after: before, the deformation says nothing about change.
        checkpoint_steps: steps between checkpoints.
        seed: of weights and order.
        precision: of Fabric, ``32-true`` or ``bf16-mixed``, for which ``changemap train`` takes ``32-true`` on a CPU
            where torch finds no AVX512-BF16; float16 would need its loss scaled, and resumed.
    """

    network: NetworkOptions = field(default_factory=NetworkOptions)
    weights: LossWeights = field(default_factory=LossWeights)
    loss: LossOptions = field(default_factory=LossOptions)
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    crops: CropOptions = field(default_factory=CropOptions)
    shape: tuple[int, int, int] = (128, 256, 256)
    epochs: int = 50
    batch: int = 1
    learning_rate: float = 3e-4
    decay_epochs: int = 0
    frozen: int = 0
    steady_from: int | None = None
    warm_up_epochs: int = 2
    checkpoint_steps: int = 50
    seed: int = 0
    precision: str = "32-true"

    def __post_init__(self) -> None:
        multiple = self.network.multiple
        require(
            self,
            shape=(
                len(self.shape) == 3
                and all(n > 0 and n % multiple == 0 for n in self.shape)
                and max(self.shape) > multiple,
                f"three multiples of {multiple}, by the network's factors and depth, one of them above {multiple}",
            ),
            epochs=(within(self.epochs, 1, 100_000), "1 to 100000"),
            batch=(within(self.batch, 1, 4096), "1 to 4096"),
            learning_rate=(within(self.learning_rate, 1e-9, 1.0), "1e-9 to 1"),
            decay_epochs=(within(self.decay_epochs, 0, 100_000), "0 to 100000"),
            crops=(
                self._last_block_learns_alone() if self.crops.count else not self.crops.registered,
                f"count, registered 0, or with frozen = {len(self.network.factors) - 1}, network.kept_statistics and "
                f"a last reach of 0 crops of multiples of {2**self.network.depth} within shape, one of them larger",
            ),
            steady_from=(
                self.steady_from is None or (self.network.kept_statistics and 1 <= self.steady_from <= 100_000),
                "none, or with network.kept_statistics 1 to 100000: an epoch must have made the statistics",
            ),
            frozen=(0 <= self.frozen < len(self.network.factors), "fewer than there are blocks"),
            warm_up_epochs=(within(self.warm_up_epochs, 0, 100_000), "0 to 100000"),
            checkpoint_steps=(within(self.checkpoint_steps, 1, 10**9), "1 or more"),
            precision=(self.precision in ("32-true", "bf16-mixed"), "32-true or bf16-mixed"),
            seed=(0 <= self.seed < 10**9, "0 to 1e9"),
        )

    def _last_block_learns_alone(self) -> bool:
        fits = all(n % 2**self.network.depth == 0 and n <= m for n, m in zip(self.crops.shape, self.shape, strict=True))
        alone = self.frozen == len(self.network.factors) - 1 and not self.network.reach[-1]
        larger = max(self.crops.shape) > 2**self.network.depth
        return fits and larger and alone and self.network.kept_statistics


Validate = Callable[[JointNetwork, int], dict[str, float | None]]
Observe = Callable[[str, int, dict[str, Any]], None]  # "step" or "epoch", its number, its figures


def train(
    pairs: torch.utils.data.Dataset[Sample],
    options: TrainingOptions,
    out: Path,
    *,
    fabric: Fabric | None = None,
    start: Checkpoint | None = None,
    validate: Validate | None = None,
    observe: Observe | None = None,
    progress: Progress = silent,
) -> JointNetwork:
    """Train, or go on where ``out`` says that an earlier run with the same options stopped.

    Args:
        pairs: a dataset with a length; item n is always the same.
        options: see there.
        out: folder of ``last.ckpt`` and ``steps.csv``, ``epochs.csv``.
        fabric: launched; one process on the CPU by default.
        start: weights whose blocks become the coarsest ones of this network.
        validate: figures of a network after an epoch, on the first process; they go into ``epochs.csv``.
        observe: told every row of the two tables, on the first process.
        progress: told the fraction done; raise from it to stop.

    Returns:
        The trained network, on the device of the process.

    Raises:
        InputError: no pair, ``start`` does not fit, or ``out`` belongs to a run with other options.
    """
    count = len(pairs)  # type: ignore[arg-type]
    if not count:
        raise InputError("found no pair", field="pairs", expected="folders that the synthesis of pairs wrote")
    if fabric is not None and fabric.world_size > options.batch:
        raise InputError(
            f"found {options.batch} for {fabric.world_size} processes",
            field="batch",
            expected="a pair for each at least",
        )
    fabric = fabric or Fabric(accelerator="cpu", devices=1, precision=options.precision)  # type: ignore[arg-type]
    torch.manual_seed(options.seed)
    network = JointNetwork(options.network)
    _start(network, start, options)
    optimiser = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=options.learning_rate)
    model, optimiser = fabric.setup(network, optimiser)
    model.mark_forward_method("last_block")
    recall, state = EpochRecall(options.loss.least_weight), State()
    out.mkdir(parents=True, exist_ok=True)
    told = {
        "options": fixed_options(to_mapping(options)),
        "pairs": count,
        "digest": getattr(pairs, "digest", str)(),
        "start": "" if start is None else start.sha256,
    }
    run = Run(out / LAST, told, fixed_options(to_mapping(TrainingOptions())), network, optimiser, recall, state, fabric)
    run.resume()
    steps = Table(out / "steps.csv", keep=state.step) if fabric.is_global_zero else None
    epochs = Table(out / "epochs.csv", keep=state.epoch) if fabric.is_global_zero else None
    while state.epoch < options.epochs:
        order = epoch_order(count, options.seed, state.epoch)
        _train_mode(network, options, state.epoch)
        while state.done < count:
            started = time.monotonic()
            batch = order[state.done : state.done + options.batch]
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(options, state.epoch + state.done / count)
            terms = _step(model, optimiser, pairs, batch, recall, state.epoch, options, fabric)
            state.done, state.step = state.done + len(batch), state.step + 1
            if steps is not None:
                seconds = round(time.monotonic() - started, 3)
                row = {"step": state.step, "epoch": state.epoch, **terms, "seconds": seconds, **memory()}
                steps.add(row)
                if observe is not None:
                    observe("step", state.step, row)
            if state.step % options.checkpoint_steps == 0:
                run.save()
            progress((state.epoch + state.done / count) / options.epochs, f"epoch {state.epoch + 1}")
        recall.hit, recall.seen = sum_over_processes(recall.hit, fabric), sum_over_processes(recall.seen, fabric)
        weights = recall.finish().tolist()
        state.epoch, state.done = state.epoch + 1, 0
        if epochs is not None:
            network.eval()
            found = {} if validate is None else validate(network, state.epoch)
            classes = {"weight_unchanged": weights[0], "weight_changed": weights[1]}
            row = {"epoch": state.epoch, **classes, **found}
            epochs.add(row)
            if observe is not None:
                observe("epoch", state.epoch, row)
        run.save()
    return network


def _start(network: JointNetwork, start: Checkpoint | None, options: TrainingOptions) -> None:
    """The coarsest blocks' weights from ``start``; those that are frozen learn no more."""
    given = [] if start is None else list(start.network.blocks)
    reach = () if start is None else start.network.options.reach
    pairs = list(zip(network.blocks, given, strict=False)) if len(given) <= len(network.blocks) else []
    fit = [_shapes(a) == _shapes(b) and reach[n] == options.network.reach[n] for n, (a, b) in enumerate(pairs)]
    taken = [*fit, False].index(False)  # the last block of a network may be of another kind
    if taken < (options.frozen if start is None else max(options.frozen, 1)):
        found = "none" if start is None else str(start.network.options)
        expected = f"weights whose {max(options.frozen, 1)} or more coarsest blocks are those of {options.network}"
        raise InputError(f"found {found}", field="start", expected=expected)
    for block, earlier in pairs[:taken]:
        block.load_state_dict(earlier.state_dict())
    for block in network.blocks[: options.frozen]:
        block.requires_grad_(requires_grad=False)


def _shapes(block: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in block.state_dict().items()}


def _train_mode(network: JointNetwork, options: TrainingOptions, epoch: int) -> None:
    """Blocks that are frozen, and in the end kept statistics, as in inference; all else as in training."""
    network.train()
    still: list[torch.nn.Module] = list(network.blocks[: options.frozen])
    if options.steady_from is not None and epoch >= options.steady_from:
        still += [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm3d)]
    for module in still:
        module.eval()


def learning_rate(options: TrainingOptions, epoch: float) -> float:
    """At a moment of training, in epochs from its beginning."""
    if not options.decay_epochs:
        return options.learning_rate
    passed = min(epoch / options.decay_epochs, 1.0)
    return options.learning_rate * (0.05 + 0.95 * (1 + math.cos(math.pi * passed)) / 2)


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """The pairs of an epoch, every one once."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(count, generator=generator).tolist()


def _step(
    model: Any,
    optimiser: Any,
    pairs: torch.utils.data.Dataset[Sample],
    batch: Sequence[int],
    recall: EpochRecall,
    epoch: int,
    options: TrainingOptions,
    fabric: Fabric,
) -> dict[str, float]:
    """One update by the pairs of a batch; the terms' means over all of it."""
    mine = list(batch[fabric.global_rank :: fabric.world_size])
    sums = dict.fromkeys((*vars(options.weights), "total"), 0.0)
    before = [kept.clone() for kept in _statistics(model)]
    optimiser.zero_grad()
    for number, index in enumerate(mine or batch[:1]):
        counted = 1.0 if mine else 0.0  # a process without a pair takes part in the exchange all the same
        last = number == max(len(mine), 1) - 1
        sample = augmented(pairs[index], options.augment, seed=(options.seed, epoch, index))
        sample = to_device(sample, fabric.device)
        with fabric.no_backward_sync(model, enabled=not last):
            loss, terms = _loss(model, sample, recall, (options.seed, epoch, index), options, fabric, count=bool(mine))
            fabric.backward(loss * (counted * fabric.world_size / len(batch)))
        for name, value in {**terms, "total": loss}.items():
            sums[name] += counted * float(value.detach()) / len(batch)
    norm = fabric.clip_gradients(model, optimiser, max_norm=1.0, error_if_nonfinite=False)
    values = sum_over_processes(torch.tensor(list(sums.values()), dtype=torch.float64), fabric)
    if not (values.isfinite().all() and (norm is None or norm.isfinite().all())):
        raise InputError(
            f"the loss of pairs {list(batch)} is no number after epoch {epoch}",
            field="training",
            remedy="the last checkpoint is kept: lower learning_rate, or look at these pairs",
        )
    optimiser.step()
    if fabric.world_size > 1:
        _share_statistics(model, before, len(mine), len(batch), fabric)
    return dict(zip(sums, (round(v, 6) for v in values.tolist()), strict=True))


def _statistics(model: Any) -> list[Tensor]:
    """The kept statistics that this step changes, in one order on all processes."""
    changing = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm3d) and m.training]
    return [kept for m in changing for kept in (m.running_mean, m.running_var) if kept is not None]


def _share_statistics(model: Any, before: Sequence[Tensor], mine: int, pairs: int, fabric: Fabric) -> None:
    """Kept statistics as of one process that had seen all pairs of the step, each counted alike.

    Args:
        model: after the step.
        before: its statistics before it, the same on all processes.
        mine: pairs that this process has seen.
        pairs: of the step.
        fabric: of more than one process.
    """
    ours, all_of_them = ((1 - MOMENTUM) ** n for n in (mine, pairs))
    for kept, old in zip(_statistics(model), before, strict=True):
        seen = (kept - ours * old) / (1 - ours) if mine else torch.zeros_like(old)  # mean over this process's pairs
        mean = sum_over_processes(seen * (mine / pairs), fabric).to(kept)
        kept.copy_(all_of_them * old + (1 - all_of_them) * mean)


def _loss(
    model: Any,
    sample: Sample,
    recall: EpochRecall,
    seed: tuple[int, int, int],
    options: TrainingOptions,
    fabric: Fabric,
    *,
    count: bool,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Eq. (2) of one pair, on all of it or on crops; the recall loss does not count while it warms up."""
    weights = options.weights if seed[1] >= options.warm_up_epochs else replace(options.weights, recall=0.0)
    if not options.crops.count:
        return whole_loss(model, sample, recall, weights, options.loss, count=count)
    return crop_loss(
        model,
        model.module,
        sample,
        recall,
        weights,
        options.loss,
        options.crops,
        seed=crop_seed(seed),
        autocast=fabric.autocast,
        count=count,
    )


def memory() -> dict[str, float | None]:
    """Peak memory so far in MB, of the process and of the GPU where there is one."""
    told = {"peak_memory_mb": peak_memory_mb()}
    return {**told, "gpu_mb": round(torch.cuda.max_memory_allocated() / 1e6, 1)} if torch.cuda.is_available() else told
