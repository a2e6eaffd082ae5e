"""Coarse blocks learned from nothing with and without the volume term: ``volume_term.py [--work FOLDER]``.

The work folder is that of ``joint.py``. By ``coarse.json``, but for four epochs, networks learn from its 30 pairs of
LIDC-IDRI-1011 that differ in the weight of the volume term alone, and ``|L^T(y)| / |L^T|`` of their y alone is measured
on the 10 pairs of 4DLung-113: of lesions that grew and shrank, and of stable ones, which tell how far y is off where
nothing can be overcompensated. The networks are thrown away; none has to do with the weights that ship. Writes
``results/volume_term.json``.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch
from ablations import measured, summary
from record import write_results

from ChangeMapJointLib.cli.console import line_listener
from ChangeMapJointLib.cli.train import TrainingRequest, pair_folders, run_training, training_options
from ChangeMapJointLib.core.options import to_mapping
from ChangeMapJointLib.joint.checkpoint import Checkpoint, read_checkpoint

LEARNED_FROM, MEASURED_ON = "LIDC-IDRI-1011", "4DLung-113"
WEIGHTS = (0.05, 0.0)
EPOCHS = 4  # of 30 steps


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/joint"))
    asked = parser.parse_args()
    folders = pair_folders([asked.work / "held"], "--work")
    networks = {f"volume {weight:g}": trained(asked.work, folders, weight) for weight in WEIGHTS}
    pairs = [measured(folder, networks) for folder in folders if MEASURED_ON in folder.name]
    result = {name: summary([one[name] for one in pairs]) for name in networks}
    print(json.dumps(result, indent=2))
    print(write_results("volume_term", result))


def trained(work: Path, folders: list[Path], weight: float) -> Checkpoint:
    """A network of the coarse blocks alone, with this weight of the volume term."""
    options = training_options("coarse")
    options = replace(options, weights=replace(options.weights, volume=weight))
    options = replace(options, epochs=EPOCHS, decay_epochs=EPOCHS, warm_up_epochs=1)
    path = work / f"coarse_volume_{weight:g}.json"
    path.write_text(json.dumps(to_mapping(options), indent=2))
    pairs = tuple(folder for folder in folders if LEARNED_FROM in folder.name)
    asked = TrainingRequest(pairs, path.with_suffix(""), str(path), cache=work / "cache", device="cpu")
    return read_checkpoint(run_training(asked, line_listener()))


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
