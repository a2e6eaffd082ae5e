"""The temperature of CM_learn's softmax, found after training: ``calibrate.py DATA --work FOLDER``.

Trained with the classes weighted against each other, CM_learn is surer of itself than it is right, and in CM_comb a
CM_learn near 0 hides what CM_diff saw. On ten further pairs of the training patients (seeds 5000 to 5009), T moved by
Eq. (1) as in use, the recall of CM_comb at 1 and at 4 false positives a scan is measured for several temperatures (Guo
et al. 2017, On calibration of modern neural networks). The network knows these patients, and is right more often there
than elsewhere: the softest that is within one change of the best is written into
``FOLDER/dense/network.safetensors``, all into its card. The validation patients are not looked at. ``--temperature``
takes another than the one found, and the card says so. So is ``match_resolution``, which is set here
(:data:`MATCHED`).
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from train import ANNOTATED, DRAWN, LAST, OTHERS, sources

from ChangeMapJointLib.change.maps import change_map, lungs_of_both, match_voxel_blur
from ChangeMapJointLib.cli.train import WEIGHTS
from ChangeMapJointLib.core.displacement import warp
from ChangeMapJointLib.evaluation.froc import ScanCounts, count_scan, recall_at
from ChangeMapJointLib.io.read import read_array, read_volume
from ChangeMapJointLib.joint.checkpoint import read_checkpoint, write_checkpoint
from ChangeMapJointLib.joint.inference import JointPrediction, trained_shape, update_learned_change
from ChangeMapJointLib.joint.network import JointNetwork
from ChangeMapJointLib.joint.scans import network_scans
from ChangeMapJointLib.registration.deformable.register import register_deformable
from ChangeMapJointLib.registration.keypoints.match import find_correspondences
from ChangeMapJointLib.registration.rigid.align import align_rigid
from ChangeMapJointLib.scan.padding import unseen_mask
from ChangeMapJointLib.scan.pair import ScanPair
from ChangeMapJointLib.scan.scan import Scan
from ChangeMapJointLib.synthesis.synthesize import synthesize
from ChangeMapJointLib.synthesis.truth import read_truth

TRIED = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
MATCHED = True  # whether the network is shown R and T equally blurred from here on; in training it was not
PAIRS, SEED = 10, 5000
ALLOWED = (1.0, 4.0)


def main() -> None:
    """Make the pairs, measure, choose."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("build/joint"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--temperature", type=float, help="instead of the one found")
    asked = parser.parse_args()
    path = asked.work / LAST / WEIGHTS
    given = sources(asked.data / "ct15", ANNOTATED + OTHERS)
    folders = synthesize(given, asked.work / "calibration", pairs=PAIRS, seed=SEED, options=DRAWN)
    with ProcessPoolExecutor(asked.jobs, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        counted = list(pool.map(partial(counts, path), folders))
    recalls = {t: [recall_at([scan[t] for scan in counted], a) for a in ALLOWED] for t in TRIED}
    changes = sum(len(scan[TRIED[0]].changes) for scan in counted)
    most = max(map(sum, recalls.values()))
    best = max(t for t in TRIED if sum(recalls[t]) >= most - len(ALLOWED) / changes - 1e-9)
    told = {f"{t:g}": [round(r, 4) for r in found] for t, found in recalls.items()}
    print(json.dumps(told), best)
    model = read_checkpoint(path)
    used = asked.temperature or best
    calibrated = JointNetwork(replace(model.network.options, temperature=used, match_resolution=MATCHED))
    calibrated.load_state_dict(model.network.state_dict())
    about = (
        f"{PAIRS} pairs of the training patients, seeds {SEED} to {SEED + PAIRS - 1}, {changes} changes, y by Eq. (1)"
    )
    calibration = {
        "pairs": about,
        "recall at 1 and 4 false positives by temperature": told,
        "found": best,
        "used": used,
        "set after training": {"temperature": used, "match_resolution": MATCHED},
    }
    card = {**model.card, "calibration": calibration}
    write_checkpoint(path, calibrated, card)


def counts(path: Path, folder: Path) -> dict[float, ScanCounts]:
    """Of CM_comb on one pair, by temperature."""
    model = read_checkpoint(path)
    r, t = (read_volume(folder / f"{side}.nrrd") for side in ("reference", "template"))
    lungs = [read_array(folder / f"lungs_{side}.nrrd")[0] > 0 for side in ("reference", "template")]
    rigid = align_rigid(*map(Scan.of, (r, t), lungs)).matrix
    keypoints = find_correspondences(ScanPair.of(r, t, *lungs, rigid=rigid)).keypoints
    field = register_deformable(ScanPair.of(r, t, *lungs, rigid=rigid), keypoints=keypoints).field
    scans = network_scans(ScanPair.of(r, t, *lungs, rigid=rigid), trained_shape(model), match_resolution=MATCHED)
    first = JointPrediction(field, np.zeros(r.grid.shape, np.float32), scans, torch.device("cpu"))
    learned = update_learned_change(model, first, field, r.grid).learned
    inside = lungs_of_both(lungs[0], warp(lungs[1], t.grid, r.grid, field) >= 0.5, r.grid)
    matched = match_voxel_blur(
        r.array, r.grid, t.array, t.grid, reference_unseen=unseen_mask(r), template_unseen=unseen_mask(t)
    )
    difference = change_map(matched[0], warp(matched[1], t.grid, r.grid, field, outside=np.nan), inside)
    truth = read_truth(folder / "truth.json").changes
    return {
        tried: count_scan(
            difference * softened(learned, tried / model.network.options.temperature) * inside,
            truth,
            r.grid,
            inside=inside,
            most_false=4 * PAIRS,
        )
        for tried in TRIED
    }


def softened(probability: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """A softmax of two logits as it is at another temperature."""
    p = np.clip(probability, 1e-6, 1 - 1e-6)
    softer: NDArray[np.float32] = 1 / (1 + ((1 - p) / p) ** (1 / temperature))
    return softer


if __name__ == "__main__":
    main()
