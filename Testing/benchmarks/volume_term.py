"""What the volume term of Eq. (2) does to lesions that grew or shrank: ``volume_term.py [--work FOLDER]``.

The work folder is that of ``train.py`` and ``joint.py``. From the weights that ship, the last block goes on learning
from ``pairs_b`` with different weights of the term, each for as many steps; then ``|L^T(y)| / |L^T|`` of the network's
y alone is measured on the pairs of patients that it has not seen. Writes ``results/volume_term.json``.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import write_results

from ChangeMapJointLib.app.resources import resource
from ChangeMapJointLib.app.training import TrainingRequest, run_training, training_options
from ChangeMapJointLib.core.configuration import to_mapping
from ChangeMapJointLib.core.displacement import warp
from ChangeMapJointLib.joint.checkpoint import Checkpoint, read_checkpoint
from ChangeMapJointLib.joint.inference import ask_network
from ChangeMapJointLib.registration.rigid import align_rigid
from ChangeMapJointLib.training.samples import read_keypoints
from ChangeMapJointLib.training.truth import read_truth
from ChangeMapJointLib.volumes.reading import read_array, read_volume

WEIGHTS_TRIED = (0.0, 0.05, 5.0)
EPOCHS, RATE = 2, 1e-3


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/joint"))
    parser.add_argument("--pairs", type=int, default=16)
    asked = parser.parse_args()
    networks = {weight: trained(asked.work, weight) for weight in WEIGHTS_TRIED}
    folders = sorted(path.parent for path in (asked.work / "held").glob("*/truth.json"))[: asked.pairs]
    found: dict[float, list[dict[str, Any]]] = {weight: [] for weight in WEIGHTS_TRIED}
    for folder in folders:
        for weight, figures in measured(folder, networks).items():
            found[weight].append(figures)
    result = {f"volume weight {weight:g}": summary(pairs) for weight, pairs in found.items()}
    print(json.dumps(result, indent=2))
    print(write_results("volume_term", result))


def trained(work: Path, weight: float) -> Checkpoint:
    """The network that ships after some more epochs with this weight of the term."""
    options = training_options("default")
    weights = replace(options.weights, volume=weight)
    options = replace(options, weights=weights, epochs=EPOCHS, decay_epochs=EPOCHS, steady_from=None)
    options = replace(options, learning_rate=RATE)
    path = work / f"volume_{weight:g}.json"
    path.write_text(json.dumps(to_mapping(options)))
    out, start = work / f"volume_{weight:g}", resource("Models", "default.safetensors")
    asked = TrainingRequest((work / "pairs_b",), out, str(path), start=start, cache=work / "cache")
    return read_checkpoint(run_training(asked))


def measured(folder: Path, networks: dict[float, Checkpoint]) -> dict[float, dict[str, Any]]:
    """Ratios of volume by kind, and the error, of every network on one pair; the masks are those of the truth."""
    r, t = (read_volume(folder / f"{side}.nrrd") for side in ("reference", "template"))
    lungs = [read_array(folder / f"lungs_{side}.nrrd")[0] > 0 for side in ("reference", "template")]
    labels = read_array(folder / "lesions_template.nrrd")[0]
    rigid = align_rigid(r, t, *lungs).matrix
    points = read_keypoints(folder / "keypoints.csv")
    result = {}
    for weight, network in networks.items():
        field = ask_network(network, r, t, *lungs, rigid=rigid).field
        told: dict[str, Any] = {"tre_mm": float(np.linalg.norm(field.apply(points[0]) - points[1], axis=1).mean())}
        for kind in ("grown", "shrunk"):
            told[kind] = []
            for change in read_truth(folder / "truth.json").changes:
                lesion = labels == change.id
                if change.kind == kind and lesion.any():  # the smallest fall between thick slices
                    moved = float(warp(lesion, t.grid, r.grid, field).sum()) * r.grid.voxel_volume_ml
                    told[kind].append(moved / (float(lesion.sum()) * t.grid.voxel_volume_ml))
        result[weight] = told
    return result


def summary(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """Over all pairs."""
    told: dict[str, Any] = {"pairs": len(pairs), "tre_mm": round(float(np.mean([p["tre_mm"] for p in pairs])), 3)}
    for kind in ("grown", "shrunk"):
        ratios = [ratio for p in pairs for ratio in p[kind]]
        told[f"{kind}_lesions"] = len(ratios)
        told[f"{kind}_preserved_quartiles"] = [round(float(v), 3) for v in np.percentile(ratios, (25, 50, 75))]
    return told


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
