"""``changemap train``: from folders of pairs and a configuration to weights with a card."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ChangeMapJointLib import __version__
from ChangeMapJointLib.comparison.stages import Listener, Stages, nobody
from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.core.options import from_mapping, read_json, to_mapping
from ChangeMapJointLib.core.resources import resource
from ChangeMapJointLib.evaluation.network import PairEvaluation, evaluate_pair, summarise
from ChangeMapJointLib.export.training_picture import training_picture, write_picture
from ChangeMapJointLib.io.provenance import git_commit
from ChangeMapJointLib.joint.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from ChangeMapJointLib.joint.inference import bfloat16_is_fast
from ChangeMapJointLib.joint.network import JointNetwork
from ChangeMapJointLib.synthesis.truth import read_truth
from ChangeMapJointLib.training.losses import Sample
from ChangeMapJointLib.training.resuming import Table
from ChangeMapJointLib.training.samples import PairDataset
from ChangeMapJointLib.training.trainer import TrainingOptions, train

WEIGHTS = "network.safetensors"
PICTURES = 3  # validation pairs that are drawn


@dataclass(frozen=True)
class TrainingRequest:
    """What is asked for.

    Attributes:
        pairs: folders of pairs, as ``changemap synthesize`` makes them.
        out: folder of checkpoints, tables, pictures and weights; a run that was stopped goes on in it.
        config: name of a configuration that ships with the project, or a JSON file.
        validation: folders of pairs of other patients.
        start: weights whose blocks become the coarsest ones.
        cache: folder for prepared samples; ``out/samples`` by default.
        device: ``cpu`` or ``cuda``; ``auto`` takes CUDA where there is one.
    """

    pairs: tuple[Path, ...]
    out: Path
    config: str = "default"
    validation: tuple[Path, ...] = ()
    start: Path | None = None
    cache: Path | None = None
    device: str = "auto"


def run_training(asked: TrainingRequest, listener: Listener = nobody) -> Path:
    """Train, or go on; under ``torchrun`` or Slurm in as many processes as they started.

    Returns:
        The weights, ``out/network.safetensors``, with their card beside them.

    Raises:
        InputError: no pairs, a patient both in training and validation, or a configuration that makes no sense.
    """
    options = training_options(asked.config)
    folders, held_out = pair_folders(asked.pairs, "pairs"), pair_folders(asked.validation, "validation")
    patients = _patients(folders), _patients(held_out)
    both = sorted(set(patients[0]) & set(patients[1]))
    if both:
        raise InputError(
            f"scan {both[0]}, or a lesion cut from it, is in the training pairs as well",
            field="validation",
            remedy="keep patients apart",
        )
    start = None if asked.start is None else read_checkpoint(asked.start)
    cache = asked.cache or asked.out / "samples"
    matched, registered = options.network.match_resolution, options.crops.registered > 0
    pairs = PairDataset(folders, options.shape, cache, with_registration=registered, match_resolution=matched)
    watched = PairDataset(held_out, options.shape, cache, match_resolution=matched)
    precision = usable_precision(asked.device, options.precision)
    fabric = launched_fabric(asked.device, precision)
    options = replace(options, batch=max(options.batch, fabric.world_size))  # a pair for each process; the card says it
    stages = Stages({"train": 1.0}, listener if fabric.is_global_zero else nobody)
    # a run may go on elsewhere in another precision; the card says the last one
    done = replace(options, precision=precision)
    watch = _Watch(asked, done, watched, {"training": patients[0], "validation": patients[1]}, start)
    with stages.stage("train") as progress:
        train(
            pairs,
            options,
            asked.out,
            fabric=fabric,
            start=start,
            validate=watch.validate,
            observe=watch.observe,
            progress=progress,
        )
    if fabric.world_size > 1:  # its threads would outlive the interpreter, which aborts
        fabric.barrier()
        torch.distributed.destroy_process_group()
    return asked.out / WEIGHTS


def training_options(config: str) -> TrainingOptions:
    """The configuration of that name, or in that JSON file.

    Raises:
        InputError: there is none, or it makes no sense.
    """
    path = Path(config)
    if path.suffix != ".json":
        known = resource("Configurations")
        path = known / f"{config}.json"
        if not path.exists():
            names = ", ".join(sorted(one.stem for one in known.glob("*.json")))
            raise InputError(
                "found no such configuration", field="config", value=config, expected=f"{names}, or a JSON file"
            )
    where = Argument("config", str(path))
    return from_mapping(TrainingOptions, read_json(path, where), where)


def pair_folders(roots: Sequence[Path], argument: str) -> list[Path]:
    """The pairs in ``roots``, each a pair itself or a folder of pairs, in the order of their names.

    Raises:
        InputError: a root holds none.
    """
    found: list[Path] = []
    for root in roots:
        here = [root] if (root / "truth.json").exists() else sorted(p.parent for p in root.glob("*/truth.json"))
        if not here:
            raise InputError("found no pair", field=argument, value=root, expected="what changemap synthesize wrote")
        found += here
    return found


def on_gpu(device: str) -> bool:
    """Whether ``--device`` means one here."""
    return device != "cpu" and torch.cuda.is_available()


def usable_precision(device: str, precision: str) -> str:
    """bfloat16 on a GPU or a CPU that is known to compute in it; another takes more than ten times as long."""
    return precision if on_gpu(device) or bfloat16_is_fast() else "32-true"


def launched_fabric(device: str, precision: str) -> Any:
    """Fabric in the processes that torchrun or Slurm started; in this one alone without them.

    Raises:
        InputError: CUDA is asked for and not there, or the package is missing.
    """
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise InputError(
            "changemap train needs lightning-fabric", remedy="pip install 'changemapjoint[train]'"
        ) from error
    if device == "cuda" and not on_gpu(device):
        raise InputError(
            "no CUDA device works here", field="device", value=device, remedy=("use ", Argument("device", "cpu"))
        )
    world, here = processes(os.environ)
    fabric = Fabric(
        accelerator="cuda" if on_gpu(device) else "cpu",
        strategy="ddp" if world > 1 else "auto",
        devices=here,
        num_nodes=world // here,
        precision=precision,  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


def processes(environment: Mapping[str, str]) -> tuple[int, int]:
    """How many processes torchrun or srun started, and how many of them on this node; (1, 1) without them.

    Raises:
        InputError: the variables are no numbers, or nodes have different numbers of processes.
    """
    if "TORCHELASTIC_RUN_ID" in environment:
        names = ("WORLD_SIZE", "LOCAL_WORLD_SIZE")
    elif "SLURM_PROCID" in environment and environment.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        names = ("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE")
    else:
        return 1, 1
    values = [environment.get(names[0], "1"), environment.get(names[1], environment.get(names[0], "1"))]
    numbers = [re.fullmatch(r"(\d+)(\(x\d+\))?", value) for value in values]
    world, here = (int(found[1]) if found else 0 for found in numbers)
    if world < 1 or here < 1 or world % here:
        raise InputError(
            f"{names[0]} = {values[0]}, {names[1]} = {values[1]}",
            expected="numbers, the same on every node",
            remedy="give srun both --ntasks and --ntasks-per-node",
        )
    return world, here


def _patients(folders: Sequence[Path]) -> list[str]:
    """Names of the scans that the pairs and the lesions in them were made from, each once."""
    return sorted({name for folder in folders for name in (_patient(folder), *_cut_from(folder))})


def _patient(folder: Path) -> str:
    """Name of the scan that a pair was made from."""
    return str(read_truth(folder / "truth.json").about.get("source", folder.name))


def _cut_from(folder: Path) -> list[str]:
    """Names of the scans whose lesions may have been inserted in it."""
    return [str(name) for name in read_truth(folder / "truth.json").about.get("cut_from", ())]


class _Watch:
    """Validation after every epoch: figures, pictures, TensorBoard, and weights that can be used at once."""

    def __init__(
        self,
        asked: TrainingRequest,
        options: TrainingOptions,
        pairs: PairDataset,
        split: dict[str, list[str]],
        start: Checkpoint | None,
    ) -> None:
        self.out, self.options, self.pairs = asked.out, options, pairs
        self.told = {
            "program": f"ChangeMapJoint {__version__}",
            "commit": git_commit(),
            "data": "Synthetic change and motion on real CT.",
            "split": split,
            "training": to_mapping(options),
            "start": None if start is None else {"sha256": start.sha256, **start.card},
        }
        self.patients = [_patient(folder) for folder in pairs.folders]
        self.table: Table | None = None
        self.writer: Any = None
        self.started = False  # the writer: on the first process alone, which is the one that is told

    def validate(self, network: JointNetwork, epoch: int) -> dict[str, float | None]:
        """Figures over all validation pairs, pictures of the first ones, and the weights of this epoch."""
        judged: list[PairEvaluation] = []
        for number in range(len(self.pairs)):
            sample = self.pairs[number]
            judged.append(evaluate_pair(network, sample))
            if number < PICTURES:
                self._draw(sample, judged[-1], self.pairs.folders[number].name, epoch)
        figures = summarise(judged) if judged else {}
        validation = {"pairs": len(judged), **figures, "by_patient": self._by_patient(judged, epoch)}
        card = {**self.told, "epochs": epoch, "validation": validation}
        write_checkpoint(self.out / WEIGHTS, network, card)
        return figures

    def _by_patient(self, judged: Sequence[PairEvaluation], epoch: int) -> dict[str, dict[str, float | None]]:
        """The figures of each patient, also in a table."""
        names = sorted(set(self.patients))
        if self.table is None:
            self.table = Table(self.out / "patients.csv", keep=len(names) * (epoch - 1))
        found = {}
        for name in names:
            theirs = [one for one, patient in zip(judged, self.patients, strict=True) if patient == name]
            found[name] = {"pairs": len(theirs), **summarise(theirs)}
            self.table.add({"epoch": epoch, "patient": name, **found[name]})
        return found

    def observe(self, kind: str, number: int, row: dict[str, Any]) -> None:
        """Every figure into TensorBoard, under ``step`` and ``epoch``."""
        if not self.started:
            self.writer, self.started = _tensorboard(self.out), True
        if self.writer is not None:
            for name, value in row.items():
                if isinstance(value, (int, float)) and name not in (kind, "epoch"):
                    self.writer.add_scalar(f"{kind}/{name}", value, number)
            self.writer.flush()

    def _draw(self, sample: Sample, judged: PairEvaluation, name: str, epoch: int) -> None:
        shape = sample.reference.shape
        grid = Grid((shape[0], shape[1], shape[2]), sample.spacing_mm, (0.0, 0.0, 0.0))
        changed = (sample.changed_reference if sample.changed_reference.any() else sample.mask_reference).numpy() > 0.5
        middle = grid.to_physical(np.argwhere(changed)[:, ::-1].mean(axis=0))
        pixels = training_picture(
            sample.reference.numpy(), sample.template.numpy(), judged.warped, judged.maps["combined"], grid, middle
        )
        write_picture(self.out / "pictures" / f"{name}_{epoch:04d}.png", pixels)
        if self.writer is not None:
            self.writer.add_image(name, pixels, epoch, dataformats="HWC")


def _tensorboard(out: Path) -> Any:
    """A writer of event files; None where the package is missing: the tables hold the same figures."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(out / "tensorboard"))
