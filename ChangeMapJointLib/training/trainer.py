"""Training of the joint network by Eq. (2), with Lightning Fabric: one loop for a CPU, a GPU, or many.

A step takes ``batch`` pairs, divided among the processes, so that the number of processes changes the time but not the
result: gradients are those of the mean over the pairs of the step, the counts of the recall loss are added over all
processes at the end of an epoch, and every pair is used once in an epoch. The order of pairs depends only on seed and
epoch. A killed run resumes at the step after its last checkpoint and gives the same weights.
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
from ChangeMapJointLib.training.resuming import GrowingTable, Run, State, fixed_options, sum_over_processes
from ChangeMapJointLib.training.samples import to_device

LAST = "last.ckpt"


@dataclass(frozen=True)
class TrainingOptions:
    """How the network is trained.

    Attributes:
        network: architecture.
        weights: the weights alpha of Eq. (2).
        loss: variants of its terms.
        augment: augmentation of the pairs.
        crops: crops for the last block; needs frozen coarser blocks and ``network.kept_statistics``.
        shape: (z, y, x) of the network's input.
        epochs: passes over the pairs.
        batch: pairs in each step, over all processes.
        learning_rate: of Adam.
        decay_epochs: number of epochs over which the learning rate falls to a twentieth, as a cosine; 0: constant.
        frozen: number of coarsest blocks that keep their initial weights.
        steady_from: first epoch, from 0, in which kept statistics are used as in inference and no longer updated; None:
            never during training.
        warm_up_epochs: epochs without the recall loss, until the deformation is good enough to tell change.
        checkpoint_steps: steps between checkpoints.
        seed: of initial weights and order of pairs.
        precision: of Fabric, ``32-true`` or ``bf16-mixed``. For the latter ``changemap train`` takes ``32-true`` on a
            CPU without AVX512-BF16. Float16 would need loss scaling, and its state in the checkpoint.
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
                f"three multiples of {multiple} (from the network's factors and depth), at least one above {multiple}",
            ),
            epochs=(within(self.epochs, 1, 100_000), "1 to 100000"),
            batch=(within(self.batch, 1, 4096), "1 to 4096"),
            learning_rate=(within(self.learning_rate, 1e-9, 1.0), "1e-9 to 1"),
            decay_epochs=(within(self.decay_epochs, 0, 100_000), "0 to 100000"),
            crops=(
                self._last_block_learns_alone() if self.crops.count else not self.crops.registered,
                f"count and registered 0; or frozen = {len(self.network.factors) - 1}, network.kept_statistics, a last "
                f"reach of 0, and crops within shape, of multiples of {2**self.network.depth}, at least one larger",
            ),
            steady_from=(
                self.steady_from is None or (self.network.kept_statistics and 1 <= self.steady_from <= 100_000),
                "none, or 1 to 100000 with network.kept_statistics: the first epoch gathers the statistics",
            ),
            frozen=(0 <= self.frozen < len(self.network.factors), "0 or more, and fewer than there are blocks"),
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
Observe = Callable[[str, int, dict[str, Any]], None]  # "step" or "epoch", its number, its row of the table


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
    """Train a network, or resume an earlier run with the same options in ``out``.

    Args:
        pairs: a dataset with a length; item n is always the same.
        options: of the training.
        out: folder for ``last.ckpt``, ``steps.csv`` and ``epochs.csv``.
        fabric: launched; by default one process on the CPU.
        start: weights whose blocks become the coarsest blocks of this network.
        validate: called on the first process after every epoch with the network and the number of the epoch; the
            figures it returns go into ``epochs.csv``.
        observe: called on the first process with every row of the two tables.
        progress: called with the fraction done; raise from it to stop.

    Returns:
        The trained network, on the device of the process.

    Raises:
        InputError: there is no pair, ``start`` does not fit, or ``out`` belongs to a run with other options.
    """
    count = len(pairs)  # type: ignore[arg-type]
    if not count:
        raise InputError("found no pair", field="pairs", expected="pair folders written by the synthesis")
    if fabric is not None and fabric.world_size > options.batch:
        raise InputError(
            f"found {options.batch} for {fabric.world_size} processes",
            field="batch",
            expected="at least one pair for each process",
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
    identity = {
        "options": fixed_options(to_mapping(options)),
        "pairs": count,
        "digest": getattr(pairs, "digest", str)(),
        "start": "" if start is None else start.sha256,
    }
    usual = fixed_options(to_mapping(TrainingOptions()))
    run = Run(out / LAST, identity, usual, network, optimiser, recall, state, fabric)
    run.resume()
    first = fabric.is_global_zero
    steps = _Rows(out / "steps.csv", "step", state.step, observe) if first else None
    epochs = _Rows(out / "epochs.csv", "epoch", state.epoch, observe) if first else None
    while state.epoch < options.epochs:
        _epoch(model, pairs, count, options, run, steps, progress)
        recall.hit, recall.seen = sum_over_processes(recall.hit, fabric), sum_over_processes(recall.seen, fabric)
        weights = recall.finish().tolist()
        state.epoch, state.done = state.epoch + 1, 0
        if epochs is not None:
            network.eval()
            figures = {} if validate is None else validate(network, state.epoch)
            epochs.add(state.epoch, {"weight_unchanged": weights[0], "weight_changed": weights[1], **figures})
        run.save()
    return network


class _Rows:
    """A table of the training, whose rows an observer also gets."""

    def __init__(self, path: Path, kind: str, keep: int, observe: Observe | None) -> None:
        self._table, self._kind, self._observe = GrowingTable(path, keep=keep), kind, observe

    def add(self, number: int, values: dict[str, Any]) -> None:
        row = {self._kind: number, **values}
        self._table.add(row)
        if self._observe is not None:
            self._observe(self._kind, number, row)


def _epoch(
    model: Any,
    pairs: torch.utils.data.Dataset[Sample],
    count: int,
    options: TrainingOptions,
    run: Run,
    steps: _Rows | None,
    progress: Progress,
) -> None:
    """Take the steps that are left of an epoch, and save a checkpoint as often as the options say."""
    state = run.state
    order = epoch_order(count, options.seed, state.epoch)
    _train_mode(run.network, options, state.epoch)
    while state.done < count:
        started = time.monotonic()
        batch = order[state.done : state.done + options.batch]
        for group in run.optimiser.param_groups:
            group["lr"] = learning_rate(options, state.epoch + state.done / count)
        terms = _step(model, run.optimiser, pairs, batch, run.recall, state.epoch, options, run.fabric)
        state.done, state.step = state.done + len(batch), state.step + 1
        if steps is not None:
            seconds = round(time.monotonic() - started, 3)
            steps.add(state.step, {"epoch": state.epoch, **terms, "seconds": seconds, **memory()})
        if state.step % options.checkpoint_steps == 0:
            run.save()
        progress((state.epoch + state.done / count) / options.epochs, f"epoch {state.epoch + 1}")


def _start(network: JointNetwork, start: Checkpoint | None, options: TrainingOptions) -> None:
    """Copy the weights of the coarsest blocks from ``start``, and freeze as many blocks as the options say."""
    start_blocks = [] if start is None else list(start.network.blocks)
    reach = () if start is None else start.network.options.reach
    pairs = list(zip(network.blocks, start_blocks, strict=False)) if len(start_blocks) <= len(network.blocks) else []
    fits = [_shapes(a) == _shapes(b) and reach[n] == options.network.reach[n] for n, (a, b) in enumerate(pairs)]
    copied = [*fits, False].index(False)  # the last block may differ in architecture
    if copied < (options.frozen if start is None else max(options.frozen, 1)):
        given = "none" if start is None else str(start.network.options)
        expected = f"weights with at least the {max(options.frozen, 1)} coarsest blocks of {options.network}"
        raise InputError(f"found {given}", field="start", expected=expected)
    for block, earlier in pairs[:copied]:
        block.load_state_dict(earlier.state_dict())
    for block in network.blocks[: options.frozen]:
        block.requires_grad_(requires_grad=False)


def _shapes(block: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in block.state_dict().items()}


def _train_mode(network: JointNetwork, options: TrainingOptions, epoch: int) -> None:
    """Set training mode, but evaluation mode for frozen blocks and, late in training, for kept statistics."""
    network.train()
    in_eval: list[torch.nn.Module] = list(network.blocks[: options.frozen])
    if options.steady_from is not None and epoch >= options.steady_from:
        in_eval += [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm3d)]
    for module in in_eval:
        module.eval()


def learning_rate(options: TrainingOptions, epoch: float) -> float:
    """The learning rate after ``epoch`` epochs, which may be fractional."""
    if not options.decay_epochs:
        return options.learning_rate
    passed = min(epoch / options.decay_epochs, 1.0)
    return options.learning_rate * (0.05 + 0.95 * (1 + math.cos(math.pi * passed)) / 2)


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """The order of the pairs in an epoch; each occurs once."""
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
    """Update the weights with the pairs of a batch; return the means of the loss terms over the batch."""
    own = list(batch[fabric.global_rank :: fabric.world_size])
    sums = dict.fromkeys((*vars(options.weights), "total"), 0.0)
    before = [kept.clone() for kept in _statistics(model)]
    optimiser.zero_grad()
    for number, index in enumerate(own or batch[:1]):
        counted = 1.0 if own else 0.0  # a process without a pair must still take part in the synchronisation
        last = number == max(len(own), 1) - 1
        sample = augmented(pairs[index], options.augment, seed=(options.seed, epoch, index))
        sample = to_device(sample, fabric.device)
        with fabric.no_backward_sync(model, enabled=not last):
            loss, terms = _loss(model, sample, recall, (options.seed, epoch, index), options, fabric, count=bool(own))
            fabric.backward(loss * (counted * fabric.world_size / len(batch)))
        for name, value in {**terms, "total": loss}.items():
            sums[name] += counted * float(value.detach()) / len(batch)
    norm = fabric.clip_gradients(model, optimiser, max_norm=1.0, error_if_nonfinite=False)
    values = sum_over_processes(torch.tensor(list(sums.values()), dtype=torch.float64), fabric)
    if not (values.isfinite().all() and (norm is None or norm.isfinite().all())):
        raise InputError(
            f"the loss of pairs {list(batch)} is NaN or infinite after epoch {epoch}",
            field="training",
            remedy="the last checkpoint is kept: lower learning_rate, or check these pairs",
        )
    optimiser.step()
    if fabric.world_size > 1:
        _share_statistics(model, before, len(own), len(batch), fabric)
    return dict(zip(sums, (round(v, 6) for v in values.tolist()), strict=True))


def _statistics(model: Any) -> list[Tensor]:
    """The running statistics that a step updates, in the same order on all processes."""
    changing = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm3d) and m.training]
    return [kept for m in changing for kept in (m.running_mean, m.running_var) if kept is not None]


def _share_statistics(model: Any, before: Sequence[Tensor], own: int, pairs: int, fabric: Fabric) -> None:
    """Combine the running statistics of all processes as if one process had seen all pairs, with equal weights.

    Args:
        model: after the step.
        before: its statistics before the step, the same on all processes.
        own: number of pairs that this process has seen in the step.
        pairs: number of pairs in the step.
        fabric: of more than one process.
    """
    own_decay, total_decay = ((1 - MOMENTUM) ** n for n in (own, pairs))
    for kept, old in zip(_statistics(model), before, strict=True):
        own_mean = (kept - own_decay * old) / (1 - own_decay) if own else torch.zeros_like(old)
        mean = sum_over_processes(own_mean * (own / pairs), fabric).to(kept)
        kept.copy_(total_decay * old + (1 - total_decay) * mean)


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
    """Eq. (2) of one pair, on the whole volume or on crops; during warm-up without the recall loss."""
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
    """Peak memory so far in MB: of the process, and of the GPU where there is one."""
    peak = {"peak_memory_mb": peak_memory_mb()}
    return {**peak, "gpu_mb": round(torch.cuda.max_memory_allocated() / 1e6, 1)} if torch.cuda.is_available() else peak
