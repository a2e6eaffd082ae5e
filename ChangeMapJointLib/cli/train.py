"""``changemap train``: train the joint network on folders of pairs, and write weights with a model card."""

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
from ChangeMapJointLib.comparison.stages import Listener, Stages, ignore_progress
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
from ChangeMapJointLib.training.resuming import GrowingTable
from ChangeMapJointLib.training.samples import PairDataset
from ChangeMapJointLib.training.trainer import TrainingOptions, train

WEIGHTS = "network.safetensors"
PICTURES = 3  # validation pairs that are drawn


@dataclass(frozen=True)
class TrainingRequest:
    """Inputs and options of the command.

    Attributes:
        pairs: folders of pairs, as ``changemap synthesize`` makes them.
        out: folder for checkpoints, tables, pictures and weights; a stopped run in it is resumed.
        config: name of a configuration that ships with the project, or a JSON file.
        validation: folders of pairs of other patients.
        start: weights to start from; their blocks become the coarsest ones.
        cache: folder for prepared samples; ``out/samples`` by default.
        device: ``cpu``, ``cuda``, or ``auto`` for CUDA if it is available.
    """

    pairs: tuple[Path, ...]
    out: Path
    config: str = "default"
    validation: tuple[Path, ...] = ()
    start: Path | None = None
    cache: Path | None = None
    device: str = "auto"


def run_training(request: TrainingRequest, listener: Listener = ignore_progress) -> Path:
    """Train the network, or resume a stopped run; under ``torchrun`` or Slurm in all processes that they started.

    Returns:
        Path of the weights, ``out/network.safetensors``; their card is beside them.

    Raises:
        InputError: there are no pairs, a patient is both in training and validation, or the configuration is invalid.
    """
    options = training_options(request.config)
    training = pair_folders(request.pairs, "pairs")
    validation = pair_folders(request.validation, "validation")
    patients = {"training": _patients(training), "validation": _patients(validation)}
    shared = sorted(set(patients["training"]) & set(patients["validation"]))
    if shared:
        raise InputError(
            f"scan {shared[0]}, or a lesion cut from it, is in the training pairs as well",
            field="validation",
            remedy="keep patients apart",
        )
    start = None if request.start is None else read_checkpoint(request.start)
    cache = request.cache or request.out / "samples"
    match_resolution, with_registration = options.network.match_resolution, options.crops.registered > 0
    pairs = PairDataset(
        training, options.shape, cache, with_registration=with_registration, match_resolution=match_resolution
    )
    validation_pairs = PairDataset(validation, options.shape, cache, match_resolution=match_resolution)
    precision = usable_precision(request.device, options.precision)
    fabric = launched_fabric(request.device, precision)
    options = replace(
        options, batch=max(options.batch, fabric.world_size)
    )  # a pair for each process; recorded in the card
    stages = Stages({"train": 1.0}, listener if fabric.is_global_zero else ignore_progress)
    # a run may be resumed elsewhere in another precision; the card records the last one
    recorded_options = replace(options, precision=precision)
    validator = _Validator(request, recorded_options, validation_pairs, patients, start)
    with stages.stage("train") as progress:
        train(
            pairs,
            options,
            request.out,
            fabric=fabric,
            start=start,
            validate=validator.validate,
            observe=validator.observe,
            progress=progress,
        )
    if fabric.world_size > 1:  # else its threads outlive the interpreter, which then aborts
        fabric.barrier()
        torch.distributed.destroy_process_group()
    return request.out / WEIGHTS


def training_options(config: str) -> TrainingOptions:
    """Read the configuration of that name, or in that JSON file.

    Raises:
        InputError: the configuration does not exist, or is invalid.
    """
    path = Path(config)
    if path.suffix != ".json":
        folder = resource("Configurations")
        path = folder / f"{config}.json"
        if not path.exists():
            names = ", ".join(sorted(file.stem for file in folder.glob("*.json")))
            raise InputError(
                "found no such configuration", field="config", value=config, expected=f"{names}, or a JSON file"
            )
    where = Argument("config", str(path))
    return from_mapping(TrainingOptions, read_json(path, where), where)


def pair_folders(roots: Sequence[Path], argument: str) -> list[Path]:
    """List the pairs in ``roots``, sorted by name within each root.

    Args:
        roots: folders that are a pair, or hold pairs.
        argument: their name in messages.

    Raises:
        InputError: a root holds no pair.
    """
    folders: list[Path] = []
    for root in roots:
        pairs = [root] if (root / "truth.json").exists() else sorted(p.parent for p in root.glob("*/truth.json"))
        if not pairs:
            raise InputError("found no pair", field=argument, value=root, expected="what changemap synthesize wrote")
        folders += pairs
    return folders


def on_gpu(device: str) -> bool:
    """Return whether ``device`` (``auto``, ``cpu`` or ``cuda``) means a GPU on this machine."""
    return device != "cpu" and torch.cuda.is_available()


def usable_precision(device: str, precision: str) -> str:
    """Return ``precision`` on a GPU or a CPU with fast bfloat16; else float32, which is then 10 times faster."""
    return precision if on_gpu(device) or bfloat16_is_fast() else "32-true"


def launched_fabric(device: str, precision: str) -> Any:
    """Launch Fabric in the processes that torchrun or Slurm started; without them, in this process alone.

    Raises:
        InputError: ``device`` is ``cuda`` and none works, or lightning-fabric is missing.
    """
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise InputError(
            "the Python package lightning-fabric is missing",
            remedy='install it with: pip install "changemapjoint[train]"',
        ) from error
    if device == "cuda" and not on_gpu(device):
        raise InputError(
            "no CUDA device works here", field="device", value=device, remedy=("use ", Argument("device", "cpu"))
        )
    world, local = processes(os.environ)
    fabric = Fabric(
        accelerator="cuda" if on_gpu(device) else "cpu",
        strategy="ddp" if world > 1 else "auto",
        devices=local,
        num_nodes=world // local,
        precision=precision,  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


def processes(environment: Mapping[str, str]) -> tuple[int, int]:
    """Return how many processes torchrun or srun started, in all and on this node; (1, 1) without them.

    Raises:
        InputError: the environment variables are not numbers, or nodes have different numbers of processes.
    """
    if "TORCHELASTIC_RUN_ID" in environment:
        names = ("WORLD_SIZE", "LOCAL_WORLD_SIZE")
    elif "SLURM_PROCID" in environment and environment.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        names = ("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE")
    else:
        return 1, 1
    values = [environment.get(names[0], "1"), environment.get(names[1], environment.get(names[0], "1"))]
    matches = [re.fullmatch(r"(\d+)(\(x\d+\))?", value) for value in values]
    world, local = (int(match[1]) if match else 0 for match in matches)
    if world < 1 or local < 1 or world % local:
        raise InputError(
            f"{names[0]} = {values[0]}, {names[1]} = {values[1]}",
            expected="numbers, the same on every node",
            remedy="give srun both --ntasks and --ntasks-per-node",
        )
    return world, local


def _patients(folders: Sequence[Path]) -> list[str]:
    """Return the names of the scans that the pairs and their lesions were made from, each once."""
    return sorted({name for folder in folders for name in (_patient(folder), *_cut_from(folder))})


def _patient(folder: Path) -> str:
    """Return the name of the scan that a pair was made from."""
    return str(read_truth(folder / "truth.json").about.get("source", folder.name))


def _cut_from(folder: Path) -> list[str]:
    """Return the names of the scans whose lesions may have been inserted into the pair."""
    return [str(name) for name in read_truth(folder / "truth.json").about.get("cut_from", ())]


class _Validator:
    """Validates the network after every epoch: figures, pictures, TensorBoard events, and usable weights."""

    def __init__(
        self,
        request: TrainingRequest,
        options: TrainingOptions,
        pairs: PairDataset,
        split: dict[str, list[str]],
        start: Checkpoint | None,
    ) -> None:
        self.out, self.options, self.pairs = request.out, options, pairs
        self.card = {
            "program": f"ChangeMapJoint {__version__}",
            "commit": git_commit(),
            "data": "Synthetic change and motion on real CT.",
            "split": split,
            "training": to_mapping(options),
            "start": None if start is None else {"sha256": start.sha256, **start.card},
        }
        self.patients = [_patient(folder) for folder in pairs.folders]
        self.table: GrowingTable | None = None
        self.writer: Any = None
        self.started = False  # whether the writer was made; only the first process calls observe()

    def validate(self, network: JointNetwork, epoch: int) -> dict[str, float | None]:
        """Compute figures over all validation pairs, draw the first ones, and write the weights of this epoch."""
        judged: list[PairEvaluation] = []
        for number in range(len(self.pairs)):
            sample = self.pairs[number]
            judged.append(evaluate_pair(network, sample))
            if number < PICTURES:
                self._draw(sample, judged[-1], self.pairs.folders[number].name, epoch)
        figures = summarise(judged) if judged else {}
        validation = {"pairs": len(judged), **figures, "by_patient": self._by_patient(judged, epoch)}
        card = {**self.card, "epochs": epoch, "validation": validation}
        write_checkpoint(self.out / WEIGHTS, network, card)
        return figures

    def _by_patient(self, judged: Sequence[PairEvaluation], epoch: int) -> dict[str, dict[str, float | None]]:
        """Compute the figures of each patient, and add them to a table."""
        names = sorted(set(self.patients))
        if self.table is None:
            self.table = GrowingTable(self.out / "patients.csv", keep=len(names) * (epoch - 1))
        figures = {}
        for name in names:
            own = [result for result, patient in zip(judged, self.patients, strict=True) if patient == name]
            figures[name] = {"pairs": len(own), **summarise(own)}
            self.table.add({"epoch": epoch, "patient": name, **figures[name]})
        return figures

    def observe(self, kind: str, number: int, row: dict[str, Any]) -> None:
        """Write every figure to TensorBoard, under ``step`` or ``epoch``."""
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
    """Return a writer of event files; None if tensorboardX is missing: the tables hold the same figures."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(out / "tensorboard"))
