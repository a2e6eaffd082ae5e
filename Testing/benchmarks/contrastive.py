"""Whether contrastive features, learned without lesion masks, tell change: ``contrastive.py [--work FOLDER]``.

The work folder is that of ``train.py`` and ``calibrate.py``. An encoder of a few convolutions, the same for R and T,
learns from the known motion of synthetic pairs that R at a voxel and T at its true place are alike, and R and T
elsewhere are not (InfoNCE, van den Oord et al. 2018). CM_con = (1 - cos) / 2 of the features of R and T(y), y by the
sequential method, is then a map like CM_diff. Recall is measured in R's lungs on the further pairs of ``calibrate.py``:
of patients that encoder and network know, and those on which the temperature of CM_comb was chosen. Writes
``results/contrastive.json``.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joint import CONFIG, MOST_FALSE, Pair
from numpy.typing import NDArray
from record import write_results
from torch import Tensor, nn
from torch.nn import functional

from ChangeMapJointLib.change.maps import change_map
from ChangeMapJointLib.cli.train import pair_folders, training_options
from ChangeMapJointLib.core.displacement import warp
from ChangeMapJointLib.core.resample import resample
from ChangeMapJointLib.core.resources import resource
from ChangeMapJointLib.evaluation.froc import ScanCounts, count_scan, recall_at
from ChangeMapJointLib.joint.checkpoint import read_checkpoint
from ChangeMapJointLib.joint.inference import JointAnswer, look_again
from ChangeMapJointLib.joint.network import normalised
from ChangeMapJointLib.joint.scans import network_scans, to_network
from ChangeMapJointLib.joint.warping import resize
from ChangeMapJointLib.joint.warping import warp as warp_tensor
from ChangeMapJointLib.registration.deformable.register import register
from ChangeMapJointLib.scan.pair import ScanPair
from ChangeMapJointLib.training.augment import AugmentOptions, augmented
from ChangeMapJointLib.training.crops import block_input, cropped
from ChangeMapJointLib.training.losses import Sample
from ChangeMapJointLib.training.samples import PairDataset

CHANNELS, STEPS, ANCHORS, SIDE = 16, 140, 512, 64
TEMPERATURE = 0.1
ALLOWED = (1.0, 4.0)
THRESHOLDS = np.logspace(-3, 0, 60)  # products of maps are small


class Encoder(nn.Module):
    """Features of length 1 of every voxel, from 15 voxels round it along each axis."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for given, dilation in ((1, 1), (CHANNELS, 2), (CHANNELS, 4)):
            layers += [nn.Conv3d(given, CHANNELS, 3, padding=dilation, dilation=dilation), nn.LeakyReLU(0.1)]
        self.layers = nn.Sequential(*layers, nn.Conv3d(CHANNELS, CHANNELS, 1))

    def forward(self, image: Tensor) -> Tensor:
        """``[n, 1, z, y, x]`` about [-1, 1] to ``[n, c, z, y, x]``."""
        return functional.normalize(self.layers(image), dim=1)


def main() -> None:
    """Learn, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/joint"))
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    folders = pair_folders([asked.work / "calibration"], "--work")  # before the training, which takes minutes
    path = asked.work / f"contrastive_{CHANNELS}_{STEPS}_{ANCHORS}_{SIDE}.pt"
    if not path.exists():
        torch.save(learned(asked.work).state_dict(), path)
    with ProcessPoolExecutor(asked.jobs, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        counted = list(pool.map(partial(measured, path), folders))
    result: dict[str, Any] = {"pairs": len(counted), "changes": sum(len(c["CM_diff"].changes) for c in counted)}
    for name in counted[0]:
        scans = [c[name] for c in counted]
        result[name] = {f"recall_at_{a:g}": round(recall_at(scans, a), 4) for a in ALLOWED}
    print(json.dumps(result, indent=2))
    print(write_results("contrastive", {"synthetic change and motion on real CT": result}))


def learned(work: Path) -> Encoder:
    """The encoder, from the pairs that the network learned from; no lesion's mask is looked at."""
    torch.manual_seed(0)
    options = training_options("default")
    pairs = PairDataset(pair_folders([work / "pairs_a", work / "pairs_b"], "--work"), options.shape, work / "cache")
    encoder = Encoder()
    optimiser = torch.optim.Adam(encoder.parameters(), lr=1e-3)
    for step in range(STEPS):
        index = step * 31 % len(pairs)  # 31 and 70 share no factor: every pair in turn
        sample = augmented(pairs[index], AugmentOptions(mirror=0.5), seed=(0, step, index))
        loss = contrast(encoder, *matched_crops(sample))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 20 == 0:
            print(step, round(float(loss.detach()), 3), flush=True)
    return encoder


def matched_crops(sample: Sample) -> tuple[Tensor, Tensor, Tensor]:
    """R, T at its true place, and the lungs, of a crop in the lungs: ``[1, 1, z, y, x]`` twice, and ``[z, y, x]``."""
    assert sample.true_mm is not None
    size = sample.reference.shape
    inside = torch.nonzero(sample.mask_reference > 0.5)
    centre = inside[int(torch.randint(len(inside), ()))]
    k, j, i = (min(max(int(c) - SIDE // 2, 0), n - SIDE) for c, n in zip(centre, size, strict=True))
    part = cropped(sample, resize(sample.true_mm[None], size), (i, j, k), (SIDE,) * 3)
    reference, template = block_input(part, match_density=False).split(1, dim=1)
    return reference, template, part.sample.mask_reference


def contrast(encoder: Encoder, reference: Tensor, template: Tensor, lungs: Tensor) -> Tensor:
    """InfoNCE over anchors in the lungs: T at the anchor's place against T at all other anchors."""
    r, t = (encoder(v)[0].flatten(1) for v in (reference, template))
    inside = torch.nonzero(lungs.flatten() > 0.5)[:, 0]
    anchors = inside[torch.randperm(len(inside))[:ANCHORS]]
    alike = r[:, anchors].T @ t[:, anchors] / TEMPERATURE
    return functional.cross_entropy(alike, torch.arange(len(anchors)))


def measured(path: Path, folder: Path) -> dict[str, ScanCounts]:
    """Counts of every map on one pair."""
    encoder = Encoder()
    encoder.load_state_dict(torch.load(path, weights_only=True))
    model = read_checkpoint(resource("Models", "default.safetensors"))
    pair = Pair(folder)
    field = register(
        ScanPair.of(*pair.scans, rigid=pair.rigid), keypoints=pair.matches.keypoints, options=CONFIG.registration
    ).field
    shape = training_options("default").shape
    matched = model.network.options.match_resolution
    scans = network_scans(ScanPair.of(*pair.scans, rigid=pair.rigid), shape=shape, match_resolution=matched)
    ours = pair.lungs[0].mask
    first = JointAnswer(field, np.zeros(pair.r.grid.shape, np.float32), scans, torch.device("cpu"))
    learned_map = look_again(model, first, field, pair.r.grid).learned
    u = torch.from_numpy(to_network(field, scans.grid, scans.rigid))[None]
    r, t = (normalised(torch.from_numpy(v))[None, None] for v in (scans.reference, scans.template))
    with torch.inference_mode():
        alike = (encoder(r) * encoder(warp_tensor(t, u, scans.grid.spacing_mm))).sum(1)[0]
    contrasted = resample(((1 - alike) / 2).numpy(), scans.grid, pair.r.grid)
    moved = warp(pair.matched[1], pair.t.grid, pair.r.grid, field, outside=np.nan)
    difference = change_map(pair.matched[0], moved, ours)
    maps: dict[str, NDArray[np.float32]] = {
        "CM_diff": difference,
        "CM_con": np.where(ours, contrasted, np.float32(0)),
        "CM_diff CM_con": difference * contrasted,
        "CM_comb": difference * learned_map,
        "CM_comb CM_con": difference * learned_map * contrasted,
    }
    return {
        name: count_scan(values, pair.truth, pair.r.grid, inside=ours, thresholds=THRESHOLDS, most_false=MOST_FALSE)
        for name, values in maps.items()
    }


if __name__ == "__main__":
    main()
