"""Whether the last block misses the volume term of Eq. (2) while it learns on: ``ablations.py [--work FOLDER]``.

The work folder is that of ``train.py`` and ``joint.py``. From the weights that ship, the last block goes on learning
from ``pairs_b``, each time for as many steps: with other weights of the volume term, and with a data term that does not
count where a lesion changed (what has no partner cannot pull at y). Then ``|L^T(y)| / |L^T|`` of the network's y alone
is measured on pairs of patients that it has not seen. The coarse blocks and the start learned with the term, so this
says nothing of a training without it from the beginning. Writes ``results/ablations.json``; those at hand are of the
weights of commit 7693888.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from record import write_results

from ChangeMapJointLib.cli.train import TrainingRequest, pair_folders, run_training, training_options
from ChangeMapJointLib.core.displacement import warp
from ChangeMapJointLib.core.hu import REGISTRATION_WINDOW_HU
from ChangeMapJointLib.core.options import to_mapping
from ChangeMapJointLib.core.resources import resource
from ChangeMapJointLib.io.read import read_array, read_volume
from ChangeMapJointLib.joint.checkpoint import Checkpoint, read_checkpoint
from ChangeMapJointLib.joint.inference import ask_network
from ChangeMapJointLib.joint.warping import warp as warp_tensor
from ChangeMapJointLib.registration.deformable.similarity import normalised_gradient_fields
from ChangeMapJointLib.registration.rigid.align import align_rigid
from ChangeMapJointLib.scan.pair import ScanPair
from ChangeMapJointLib.scan.scan import Scan
from ChangeMapJointLib.synthesis.truth import read_truth
from ChangeMapJointLib.training import pair_loss
from ChangeMapJointLib.training.losses import Sample, joint_terms
from ChangeMapJointLib.training.samples import read_keypoints

# weight of the volume term, and whether the data term is gated
TRIED = {
    "volume 0.05": (0.05, False),
    "volume 0": (0.0, False),
    "volume 5": (5.0, False),
    "volume 0, gated data term": (0.0, True),
}
KINDS = ("grown", "shrunk", "stable")
EPOCHS, RATE = 2, 1e-3
AROUND = 3  # voxels, odd: the gate covers the border of a lesion, where NGF has its gradients


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/joint"))
    parser.add_argument("--pairs", type=int, default=12)
    asked = parser.parse_args()
    folders = pair_folders([asked.work / "held"], "--work")[: asked.pairs]  # before training, which takes minutes
    networks = {name: trained(asked.work, *how) for name, how in TRIED.items()}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in TRIED}
    for folder in folders:
        for name, figures in measured(folder, networks).items():
            found[name].append(figures)
    result = {name: summary(pairs) for name, pairs in found.items()}
    print(json.dumps(result, indent=2))
    print(write_results("ablations", result))


def trained(work: Path, volume: float, gated: bool) -> Checkpoint:
    """The network that ships after some more epochs with this weight of the volume term."""
    start = resource("Models", "default.safetensors")
    network = replace(read_checkpoint(start).network.options, temperature=1.0)
    options = replace(training_options("default"), network=network)
    weights = replace(options.weights, volume=volume)
    options = replace(options, weights=weights, epochs=EPOCHS, decay_epochs=EPOCHS, steady_from=None)
    options = replace(options, learning_rate=RATE)
    name = f"volume_{volume:g}" + f"_gated_{AROUND}" * gated
    path = work / f"{name}.json"
    path.write_text(json.dumps(to_mapping(options)))
    asked = TrainingRequest((work / "pairs_b",), work / name, str(path), start=start, cache=work / "cache")
    with mock.patch.object(pair_loss, "joint_terms", gated_terms if gated else joint_terms):
        return read_checkpoint(run_training(asked))


def gated_terms(u: torch.Tensor, logits: torch.Tensor, sample: Sample, *rest: Any, **more: Any) -> Any:
    """As :func:`joint_terms`, NGF without lesions that changed and a voxel round them."""
    terms, target = joint_terms(u, logits, sample, *rest, **more)
    low, high = REGISTRATION_WINDOW_HU
    moving = torch.stack([sample.template.clamp(low, high), sample.changed_template])
    image, before = warp_tensor(moving[None], u[None], sample.spacing_mm, sample.offset)[0]
    changed = torch.maximum(sample.changed_reference, before.detach())[None, None]
    near = torch.nn.functional.max_pool3d(changed, AROUND, stride=1, padding=AROUND // 2)[0, 0]
    terms["ngf"] = normalised_gradient_fields(
        sample.reference.clamp(low, high),
        image,
        sample.spacing_mm,
        edge_reference=sample.edges[0],
        edge_template=sample.edges[1],
        weight=(sample.mask_reference > 0.5).to(image) * (near < 0.5),
    )
    return terms, target


def measured(folder: Path, networks: dict[str, Checkpoint]) -> dict[str, dict[str, Any]]:
    """Ratios of volume by kind, and the error, of every network on one pair; the masks are those of the truth."""
    r, t = (read_volume(folder / f"{side}.nrrd") for side in ("reference", "template"))
    lungs = [read_array(folder / f"lungs_{side}.nrrd")[0] > 0 for side in ("reference", "template")]
    labels = read_array(folder / "lesions_template.nrrd")[0]
    rigid = align_rigid(*map(Scan.of, (r, t), lungs)).matrix
    points = read_keypoints(folder / "keypoints.csv")
    result = {}
    for name, network in networks.items():
        field = ask_network(network, ScanPair.of(r, t, *lungs, rigid=rigid)).field
        told: dict[str, Any] = {"tre_mm": float(np.linalg.norm(field.apply(points[0]) - points[1], axis=1).mean())}
        for kind in KINDS:
            told[kind] = []
            for change in read_truth(folder / "truth.json").changes:
                lesion = labels == change.id
                if change.kind == kind and lesion.any():  # the smallest fall between thick slices
                    moved = float(warp(lesion, t.grid, r.grid, field).sum()) * r.grid.voxel_volume_ml
                    told[kind].append(moved / (float(lesion.sum()) * t.grid.voxel_volume_ml))
        result[name] = told
    return result


def summary(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """Over all pairs."""
    told: dict[str, Any] = {"pairs": len(pairs), "tre_mm": round(float(np.mean([p["tre_mm"] for p in pairs])), 3)}
    for kind in KINDS:
        ratios = [ratio for p in pairs for ratio in p[kind]]
        told[f"{kind}_lesions"] = len(ratios)
        quartiles = np.percentile(ratios, (25, 50, 75)) if ratios else []
        told[f"{kind}_preserved_quartiles"] = [round(float(v), 3) for v in quartiles]
    return told


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
