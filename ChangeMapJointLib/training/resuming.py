"""Resuming a training: its checkpoint and its tables."""

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

MAY_CHANGE = ("epochs", "checkpoint_steps")  # a resumed run may be longer, or save more often


@dataclass
class State:
    """Progress of a run.

    Attributes:
        epoch: epochs that are complete.
        done: pairs of the current epoch that are done.
        step: steps that are complete.
    """

    epoch: int = 0
    done: int = 0
    step: int = 0


class GrowingTable:
    """A CSV file that grows row by row.

    Args:
        path: of the file, which may exist.
        keep: number of existing rows to keep; later ones are of steps after the last checkpoint of a killed run.
    """

    def __init__(self, path: Path, keep: int) -> None:
        self.path = path
        rows = list(csv.DictReader(path.open(newline="", encoding="utf-8"))) if path.exists() else []
        self.rows: list[dict[str, Any]] = rows[:keep]
        self._write()

    def add(self, row: dict[str, Any]) -> None:
        """Append a row; a row with other columns rewrites the file with all columns."""
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
    """The options that a resumed run must share with the stopped one."""
    return {k: v for k, v in options.items() if k not in MAY_CHANGE}


def with_defaults(options: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Fill in options that did not exist yet when the run was started with their defaults, at every depth."""
    filled = {k: with_defaults(v, defaults[k]) if isinstance(defaults.get(k), dict) else v for k, v in options.items()}
    return {**defaults, **filled}


def sum_over_processes(values: Tensor, fabric: Fabric) -> Tensor:
    """The sum of ``values`` over all processes, on the CPU; ``values`` is not modified."""
    total = fabric.all_reduce(values.clone().to(fabric.device), reduce_op="sum")
    assert isinstance(total, Tensor)
    return total.cpu()


@dataclass
class Run:
    """A training run and its checkpoint.

    Attributes:
        path: of the checkpoint.
        identity: by name, what a resumed run must share with this one: options, pairs, starting weights.
        defaults: default values of the options.
        network: not wrapped by Fabric.
        optimiser: as wrapped by Fabric.
        recall: counts of this process.
        state: progress of the run.
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
        """Write the checkpoint, with the counts of all processes added up."""
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
        """Restore the checkpoint if it exists.

        Raises:
            InputError: the checkpoint is damaged, or belongs to another run.
        """
        if not self.fabric.broadcast(self.path.exists()):
            return
        try:  # every process reads it, so all of them must see the folder
            content = torch.load(self.path, map_location=self.fabric.device, weights_only=True)
            earlier = {**content, "options": with_defaults(content["options"], self.defaults)}
            different = [name for name, value in self.identity.items() if earlier[name] != value]
        except Exception as error:  # torch raises many kinds on a damaged file
            raise InputError(f"cannot be read ({error})", field=self.path, remedy="delete it to start again") from error
        if different:
            difference = {
                "options": "other options",
                "pairs": "another number of pairs",
                "digest": "other pairs",
                "start": "other weights to start from",
            }[different[0]]
            raise InputError(
                f"belongs to a run with {difference}",
                field=self.path,
                remedy=("give another ", Argument("out"), ", or delete it to start again"),
            )
        self.network.load_state_dict(content["network"])
        self.optimiser.load_state_dict(content["optimiser"])
        self.recall.load({name: v.cpu() for name, v in content["recall"].items()})
        if (
            not self.fabric.is_global_zero
        ):  # the saved counts are the sum over all processes: only one process keeps them
            self.recall.hit, self.recall.seen = torch.zeros_like(self.recall.hit), torch.zeros_like(self.recall.seen)
        for name, value in content["state"].items():
            setattr(self.state, name, value)
