"""What a training needs to go on where it was stopped: its checkpoint, and its tables."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.io.write import atomic_path
from ChangeMapJointLib.joint.network import JointNetwork
from ChangeMapJointLib.training.losses import EpochRecall

MAY_CHANGE = ("epochs", "checkpoint_steps")  # a run that goes on may be longer, or save more often


@dataclass
class State:
    """Where a run stands; all that a checkpoint needs besides weights and optimiser."""

    epoch: int = 0
    done: int = 0  # pairs of this epoch
    step: int = 0


class Table:
    """A CSV file that grows by rows; rows after the first ``keep`` are of steps that a killed run did not keep."""

    def __init__(self, path: Path, keep: int) -> None:
        self.path = path
        rows = list(csv.DictReader(path.open(newline="", encoding="utf-8"))) if path.exists() else []
        self.rows: list[dict[str, Any]] = rows[:keep]
        self._write()

    def add(self, row: dict[str, Any]) -> None:
        """Append a row, and begin anew where it has other columns."""
        self.rows.append(row)
        if len(self.rows) > 1 and list(self.rows[0]) == list(row):
            with self.path.open("a", newline="", encoding="utf-8") as stream:
                csv.DictWriter(stream, list(row)).writerow(row)
        else:
            self._write()

    def _write(self) -> None:
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        with atomic_path(self.path) as part, part.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, names)
            if names:
                writer.writeheader()
            writer.writerows(self.rows)


def fixed_options(options: dict[str, Any]) -> dict[str, Any]:
    """What a run that goes on must share with the one that stopped."""
    return {k: v for k, v in options.items() if k not in MAY_CHANGE}


def with_defaults(options: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """``options`` of a run before some of them existed, which then were as their defaults are, at every depth."""
    given = {k: with_defaults(v, defaults[k]) if isinstance(defaults.get(k), dict) else v for k, v in options.items()}
    return {**defaults, **given}


def sum_over_processes(values: Tensor, fabric: Fabric) -> Tensor:
    """The sum over all processes; ``values`` stay as they are."""
    found = fabric.all_reduce(values.clone().to(fabric.device), reduce_op="sum")
    assert isinstance(found, Tensor)
    return found.cpu()


@dataclass
class Run:
    """A training as its checkpoint holds it.

    Attributes:
        path: of the checkpoint.
        identity: what a run that goes on must share with this one, by name.
        defaults: of its options.
        network: bare.
        optimiser: as Fabric wrapped it.
        recall: counts of this process.
        state: where the run stands.
        fabric: of all processes.
    """

    path: Path
    identity: dict[str, Any]
    defaults: dict[str, Any]
    network: JointNetwork
    optimiser: Any
    recall: EpochRecall
    state: State
    fabric: Fabric

    def save(self) -> None:
        """Everything that is needed to go on; counts of all processes together."""
        counts = {name: sum_over_processes(v, self.fabric) for name, v in self.recall.state().items()}
        counts["weights"] = self.recall.weights
        if self.fabric.is_global_zero:
            content = {
                **self.identity,
                "network": self.network.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "recall": counts,
                "state": vars(self.state).copy(),
            }
            with atomic_path(self.path) as part:
                torch.save(content, part)
        self.fabric.barrier()

    def resume(self) -> None:
        """Go on from the checkpoint if it exists.

        Raises:
            InputError: it is damaged, or of another run.
        """
        if not self.fabric.broadcast(self.path.exists()):
            return
        try:  # every process reads it: the folder must be one that all of them see
            content = torch.load(self.path, map_location=self.fabric.device, weights_only=True)
            shared = {**content, "options": with_defaults(content["options"], self.defaults)}
            different = [name for name, value in self.identity.items() if shared[name] != value]
        except Exception as error:  # torch raises many kinds on a damaged file
            raise InputError(f"cannot be read ({error})", field=self.path, remedy="remove it to begin again") from error
        if different:
            other = {
                "options": "other options",
                "pairs": "another number of pairs",
                "digest": "other pairs",
                "start": "other weights to start from",
            }[different[0]]
            raise InputError(
                f"of a run with {other}",
                field=self.path,
                remedy=("give another ", Argument("out"), ", or remove it to begin again"),
            )
        self.network.load_state_dict(content["network"])
        self.optimiser.load_state_dict(content["optimiser"])
        self.recall.load({name: v.cpu() for name, v in content["recall"].items()})
        if not self.fabric.is_global_zero:  # the counts are those of all processes: one of them carries them on
            self.recall.hit, self.recall.seen = torch.zeros_like(self.recall.hit), torch.zeros_like(self.recall.seen)
        for name, value in content["state"].items():
            setattr(self.state, name, value)
