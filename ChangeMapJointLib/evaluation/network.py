"""How well the network does on pairs that it was not trained on, on its own grid: what is watched during training.

The figures that are published come from whole runs on the scans' own grids (``Testing/benchmarks/joint.py``).
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
from ChangeMapJointLib.joint.warping import determinant, displacement_at, warp
from ChangeMapJointLib.registration.quality import dice
from ChangeMapJointLib.synthesis.truth import TrueChange
from ChangeMapJointLib.training.losses import Sample

MAPS = ("difference", "learned", "combined")
FALSE_PER_SCAN = (1.0, 4.0)
MOST_FALSE = 200  # in one pair: above 4 a pair in any set of up to 50
NEAREST = 4  # correspondences that say where a lesion of T belongs


@dataclass(frozen=True)
class PairEvaluation:
    """One pair.

    Attributes:
        tre_before_mm: mean distance of corresponding points after the rigid step.
        tre_mm: the same after the network.
        folding_percent: of the voxels in M_R.
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
    """The network's answer to one pair, compared with the truth; the network is in its evaluation mode."""
    device = next(network.parameters()).device
    found = network(*(v[None, None].to(device) for v in (sample.reference, sample.template)), sample.spacing_mm)
    u, learned = found.displacement_mm[0].cpu(), found.change[0].float().cpu().numpy()
    moving = torch.stack([sample.template, sample.mask_template])[None]
    warped, lungs_warped = warp(moving, u[None], sample.spacing_mm)[0]
    lungs, lungs_t = sample.mask_reference > 0.5, lungs_warped > 0.5
    grid = Grid(tuple(sample.reference.shape), sample.spacing_mm, (0.0, 0.0, 0.0))  # type: ignore[arg-type]
    inside = lungs_of_both(lungs.numpy(), lungs_t.numpy(), grid)
    difference = change_map(sample.reference.numpy(), warped.numpy(), inside)
    maps = {"difference": difference, "learned": learned * inside, "combined": difference * learned}
    truth, regions = _truth(sample, grid)
    error = displacement_at(u, sample.keypoints_vox) - sample.partners_mm
    folded = (determinant(u, sample.spacing_mm) <= 0)[lungs]
    return PairEvaluation(
        float(sample.partners_mm.norm(dim=1).mean()),
        float(error.norm(dim=1).mean()),
        100 * float(folded.float().mean()),
        dice(lungs.numpy(), lungs_t.numpy()),
        maps,
        warped.numpy(),
        {name: count_scan(maps[name], truth, grid, regions=regions, most_false=MOST_FALSE) for name in MAPS},
    )


def _truth(sample: Sample, grid: Grid) -> tuple[list[TrueChange], list[ChangeRegion]]:
    """The changed lesions as connected masks; their diameters are those of spheres of their volumes.

    Nothing of it may depend on the network: those of T are put where the nearest true correspondences say.
    """
    now, before = sample.changed_reference.numpy() > 0.5, _before(sample)
    labels, count = ndimage.label(now | before, np.ones((3, 3, 3)))
    truth, regions = [], []
    for number in range(1, count + 1):
        there = labels == number
        sizes = [6000 / np.pi * grid.voxel_volume_ml * float((there & mask).sum()) for mask in (now, before)]
        d_now, d_before = (round(v ** (1 / 3), 2) for v in sizes)
        if d_now == d_before:
            continue
        kind = ("grown" if d_before else "new") if d_now > d_before else ("shrunk" if d_now else "resolved")
        k, j, i = ndimage.center_of_mass(there)
        x, y, z = (float(v) for v in grid.to_physical(np.array([i, j, k])))
        truth.append(TrueChange(number, kind, (x, y, z), (x, y, z), d_now, d_before))  # type: ignore[arg-type]
        (box,) = ndimage.find_objects(there.astype(np.int8))
        regions.append(ChangeRegion(number, box, ((now ^ before) & there)[box], there[box]))
    return truth, regions


def _before(sample: Sample) -> NDArray[np.bool_]:
    """The changed lesions of T in R's frame, each moved as a whole by whole voxels."""
    labels, count = ndimage.label(sample.changed_template.numpy() > 0.5, np.ones((3, 3, 3)))
    result = np.zeros(labels.shape, bool)
    h = np.array(sample.spacing_mm)
    steps = sample.partners_mm.numpy() / h
    there = sample.keypoints_vox.numpy() + steps
    for number in range(1, count + 1):
        index = np.argwhere(labels == number)[:, ::-1]  # (x, y, z)
        if len(there):
            apart = np.linalg.norm((there - index.mean(axis=0)) * h, axis=1)
            index = index - np.rint(steps[np.argsort(apart)[:NEAREST]].mean(axis=0)).astype(int)
        i, j, k = np.clip(index, 0, np.array(labels.shape[::-1]) - 1).T
        result[k, j, i] = True
    return result


def summarise(judged: Sequence[PairEvaluation]) -> dict[str, float | None]:
    """Means over the pairs, and recall of every map at 1 and 4 false positives per scan; None where nothing counts."""
    names = ("tre_before_mm", "tre_mm", "folding_percent", "dice")
    figures = {name: _figure(np.array([getattr(one, name) for one in judged])) for name in names}
    for name in MAPS:
        scans = [one.counts[name] for one in judged]
        for allowed in FALSE_PER_SCAN:
            figures[f"recall_{name}_{allowed:g}"] = _figure(np.array([recall_at(scans, allowed)]))
    return figures


def _figure(values: NDArray[np.floating]) -> float | None:
    """The mean of those that are numbers; None is known to JSON, NaN is not."""
    known = values[np.isfinite(values)]
    return round(float(known.mean()), 4) if known.size else None
