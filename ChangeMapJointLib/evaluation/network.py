"""Validation of the network on held-out pairs during training, on the network's own grid.

Published figures come from whole runs on the scans' own grids instead (``Testing/benchmarks/joint.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.change.maps import change_map, lungs_of_both
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.evaluation.detection import ChangeRegion
from ChangeMapJointLib.evaluation.froc import ScanCounts, count_scan, recall_at
from ChangeMapJointLib.joint.network import JointNetwork
from ChangeMapJointLib.joint.warping import displacement_at, jacobian_on_network_grid, warp_tensor
from ChangeMapJointLib.registration.quality import dice
from ChangeMapJointLib.synthesis.truth import TrueChange
from ChangeMapJointLib.training.losses import Sample

MAPS = ("difference", "learned", "combined")
FALSE_PER_SCAN = (1.0, 4.0)
MOST_FALSE = 200  # false regions in one pair: more exceed a mean of 4 in any set of up to 50 pairs
NEAREST = 4  # correspondences that decide where a lesion of T belongs in R


@dataclass(frozen=True)
class PairEvaluation:
    """The network's results on one pair.

    Attributes:
        tre_before_mm: target registration error, the mean distance of corresponding points, after rigid alignment.
        tre_mm: the same after the network.
        folding_percent: of the voxels in M_R, in percent.
        dice: of M_R and M_T(y).
        maps: CM_diff, CM_learn and CM_comb, float32 ``[z, y, x]``.
        warped: T(y) in HU.
        counts: hits and false positives of every map.
    """

    tre_before_mm: float
    tre_mm: float
    folding_percent: float
    dice: float
    maps: dict[str, NDArray[np.float32]]
    warped: NDArray[np.float32]
    counts: dict[str, ScanCounts]


@torch.inference_mode()
def evaluate_pair(network: JointNetwork, sample: Sample) -> PairEvaluation:
    """Compare the network's output for one pair with the truth.

    Args:
        network: in evaluation mode.
        sample: the pair, on the network's grid.
    """
    device = next(network.parameters()).device
    output = network(*(v[None, None].to(device) for v in (sample.reference, sample.template)), sample.spacing_mm)
    u, learned = output.displacement_mm[0].cpu(), output.change[0].float().cpu().numpy()
    template_and_mask = torch.stack([sample.template, sample.mask_template])[None]
    warped, lungs_warped = warp_tensor(template_and_mask, u[None], sample.spacing_mm)[0]
    lungs, lungs_warped = sample.mask_reference > 0.5, lungs_warped > 0.5
    grid = Grid(tuple(sample.reference.shape), sample.spacing_mm, (0.0, 0.0, 0.0))  # type: ignore[arg-type]
    inside = lungs_of_both(lungs.numpy(), lungs_warped.numpy(), grid)
    difference = change_map(sample.reference.numpy(), warped.numpy(), inside)
    maps = {"difference": difference, "learned": learned * inside, "combined": difference * learned}
    truth, regions = _truth(sample, grid)
    error = displacement_at(u, sample.keypoints_vox) - sample.partners_mm
    folded = (jacobian_on_network_grid(u, sample.spacing_mm) <= 0)[lungs]
    return PairEvaluation(
        float(sample.partners_mm.norm(dim=1).mean()),
        float(error.norm(dim=1).mean()),
        100 * float(folded.float().mean()),
        dice(lungs.numpy(), lungs_warped.numpy()),
        maps,
        warped.numpy(),
        {name: count_scan(maps[name], truth, grid, regions=regions, most_false=MOST_FALSE) for name in MAPS},
    )


def _truth(sample: Sample, grid: Grid) -> tuple[list[TrueChange], list[ChangeRegion]]:
    """The changed lesions as connected masks, with the diameters of spheres of their volumes.

    The truth must not depend on the network, so the lesions of T are moved by the nearest true correspondences.
    """
    now, before = sample.changed_reference.numpy() > 0.5, _template_lesions_in_reference(sample)
    labels, count = ndimage.label(now | before, np.ones((3, 3, 3)))
    truth, regions = [], []
    for number in range(1, count + 1):
        lesion = labels == number
        sizes = [6000 / np.pi * grid.voxel_volume_ml * float((lesion & mask).sum()) for mask in (now, before)]
        d_now, d_before = (round(v ** (1 / 3), 2) for v in sizes)
        if d_now == d_before:
            continue
        kind = ("grown" if d_before else "new") if d_now > d_before else ("shrunk" if d_now else "resolved")
        k, j, i = ndimage.center_of_mass(lesion)
        x, y, z = (float(v) for v in grid.to_physical(np.array([i, j, k])))
        truth.append(TrueChange(number, kind, (x, y, z), (x, y, z), d_now, d_before))  # type: ignore[arg-type]
        (box,) = ndimage.find_objects(lesion.astype(np.int8))
        regions.append(ChangeRegion(number, box, ((now ^ before) & lesion)[box], lesion[box]))
    return truth, regions


def _template_lesions_in_reference(sample: Sample) -> NDArray[np.bool_]:
    """The changed lesions of T in R's frame, each shifted rigidly by a whole number of voxels."""
    labels, count = ndimage.label(sample.changed_template.numpy() > 0.5, np.ones((3, 3, 3)))
    result = np.zeros(labels.shape, bool)
    h = np.array(sample.spacing_mm)
    steps = sample.partners_mm.numpy() / h
    template_vox = sample.keypoints_vox.numpy() + steps
    for number in range(1, count + 1):
        index = np.argwhere(labels == number)[:, ::-1]  # (x, y, z)
        if len(template_vox):
            distances = np.linalg.norm((template_vox - index.mean(axis=0)) * h, axis=1)
            index = index - np.rint(steps[np.argsort(distances)[:NEAREST]].mean(axis=0)).astype(int)
        i, j, k = np.clip(index, 0, np.array(labels.shape[::-1]) - 1).T
        result[k, j, i] = True
    return result


def summarise(evaluations: Sequence[PairEvaluation]) -> dict[str, float | None]:
    """Average over the pairs, with the recall of every map at 1 and 4 false positives per scan; None without data."""
    names = ("tre_before_mm", "tre_mm", "folding_percent", "dice")
    figures = {name: _figure(np.array([getattr(pair, name) for pair in evaluations])) for name in names}
    for name in MAPS:
        scans = [pair.counts[name] for pair in evaluations]
        for allowed in FALSE_PER_SCAN:
            figures[f"recall_{name}_{allowed:g}"] = _figure(np.array([recall_at(scans, allowed)]))
    return figures


def _figure(values: NDArray[np.floating]) -> float | None:
    """The mean of the finite values; None, because JSON has no NaN, where there are none."""
    finite = values[np.isfinite(values)]
    return round(float(finite.mean()), 4) if finite.size else None
