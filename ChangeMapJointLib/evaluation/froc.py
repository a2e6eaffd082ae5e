"""Recall against false positives per scan, over all thresholds of a map.

Kohlbrandt et al. 2024 draw recall over thresholds on a logarithmic scale and drop regions of fewer than 5 voxels;
false positives stand beside it here, since at a tiny threshold one giant region overlaps every lesion. Which region
hits which lesion is decided by :mod:`ChangeMapJointLib.evaluation.detection`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ChangeMapJointLib.change.method_table import SMALLEST_REGION_VOX
from ChangeMapJointLib.core.grid import FloatArray, Grid
from ChangeMapJointLib.evaluation.detection import ChangeRegion, change_region, match_labels
from ChangeMapJointLib.synthesis.truth import TrueChange

FEW = 0.01  # of all voxels: above it the whole volume is labelled faster
# logarithmic as in the paper, with the default threshold among them, and denser where maps decide: between two that
# are 10 % apart CM_comb's false positives per scan can nearly double, and a limit on them lies far from either
THRESHOLDS = np.concatenate([np.logspace(-2, -1, 13)[:-1], np.logspace(-1, 0, 97)[:-1]])


@dataclass(frozen=True)
class ScanCounts:
    """What one map of one scan finds at every threshold.

    Attributes:
        hit: bool ``[thresholds, changes]``, in the order of ``changes``.
        false: regions that hit nothing, ``[thresholds]``.
        changes: the true changes, stable lesions left out.
    """

    hit: NDArray[np.bool_]
    false: NDArray[np.int64]
    changes: tuple[TrueChange, ...]


def count_scan(
    change_map: NDArray[np.floating],
    truth: Sequence[TrueChange],
    grid: Grid,
    *,
    regions: Sequence[ChangeRegion] | None = None,
    inside: NDArray[np.bool_] | None = None,
    thresholds: FloatArray = THRESHOLDS,
    most_false: int | None = None,
) -> ScanCounts:
    """Hits and false positives of one map.

    Args:
        change_map: in [0, 1], ``[z, y, x]``.
        truth: the lesions, stable ones included.
        grid: of the map.
        regions: of the changes; by default made from their outlines.
        inside: the lungs, for those outlines.
        thresholds: a voxel counts where the map is at least so high; rising.
        most_false: below a threshold with more false regions than this nothing is looked at, which takes most of the
            time; its counts stand for the lower ones, too.
    """
    changes = tuple(c for c in truth if c.is_change)
    regions = regions if regions is not None else [change_region(c, grid, inside=inside) for c in changes]
    components = _Components(change_map)
    hit = np.zeros((len(thresholds), len(changes)), dtype=bool)
    false = np.zeros(len(thresholds), dtype=np.int64)
    for row in range(len(thresholds))[::-1]:
        labels, sizes = components.above(thresholds[row])
        found = match_labels(labels, truth, grid, regions=regions, sizes=sizes)
        hit[row] = [bool(found.hits[c.id]) for c in changes]
        false[row] = len(found.false_volumes_ml)
        if most_false is not None and false[row] > most_false:
            hit[:row], false[:row] = hit[row], false[row]
            break
    return ScanCounts(hit, false, changes)


def connected_regions(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Connected regions (26 neighbours) of at least 5 voxels, numbered from 1."""
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)), output=np.int32)
    keep = np.bincount(labels.ravel(), minlength=count + 1) >= SMALLEST_REGION_VOX
    keep[0] = False
    numbers = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    kept: NDArray[np.int32] = numbers[labels]
    return kept


class _Components:
    """:func:`connected_regions` a map at many thresholds: where few voxels are above one, only those are looked at."""

    def __init__(self, change_map: NDArray[np.floating]) -> None:
        self.map = change_map
        self.labels = np.zeros(change_map.shape, np.int32)
        padded = np.array(change_map.shape) + 2  # no neighbour beyond a border is the first voxel of the next row
        self.voxels: NDArray[np.intp] = np.zeros(0, np.intp)  # that were written to
        self.number = np.full(padded.prod(), -1, np.int32)
        steps = np.array([s for s in product((-1, 0, 1), repeat=3) if s > (0, 0, 0)])  # one of each pair of neighbours
        self.strides = np.array([padded[1] * padded[2], padded[2], 1])
        self.neighbours = steps @ self.strides

    def above(self, threshold: float) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
        """Labels of the regions at ``threshold``, valid until the next call, and how many voxels each has; from 0."""
        mask = self.map >= threshold
        voxels = np.flatnonzero(mask)
        if len(voxels) > FEW * mask.size:
            labels = connected_regions(mask)
            return labels, np.bincount(labels.ravel())
        place = np.stack(np.unravel_index(voxels, mask.shape), axis=1) @ self.strides + self.strides.sum()
        self.number[place] = np.arange(len(voxels))
        others = [self.number[place + step] for step in self.neighbours]
        self.number[place] = -1
        linked = [np.flatnonzero(other >= 0) for other in others]
        first = np.concatenate(linked)
        second = np.concatenate([other[here] for other, here in zip(others, linked, strict=True)])
        links = coo_array((np.ones(len(first), bool), (first, second)), shape=(len(voxels), len(voxels)))
        count, component = connected_components(links, directed=False)
        keep = np.bincount(component, minlength=count) >= SMALLEST_REGION_VOX
        label = np.where(keep, np.cumsum(keep), 0)[component]
        ours = self.labels.ravel()  # of contiguous memory: no copy
        ours[self.voxels], ours[voxels] = 0, label
        self.voxels = voxels
        sizes = np.bincount(label, minlength=1)
        sizes[0] += mask.size - len(voxels)
        return self.labels, sizes


def recall_at(scans: Sequence[ScanCounts], false_per_scan: float, *, below_mm: float = np.inf) -> float:
    """Best recall at no more than ``false_per_scan`` false positives per scan in the mean; NaN without changes.

    Args:
        scans: of one map, at the same thresholds.
        false_per_scan: allowed.
        below_mm: only changes whose diameters differ by less.
    """
    wanted = [np.array([c.diameter_change_mm < below_mm for c in scan.changes], dtype=bool) for scan in scans]
    total = sum(int(w.sum()) for w in wanted)
    if not total:
        return float("nan")
    hits = sum((scan.hit[:, w].sum(axis=1) for scan, w in zip(scans, wanted, strict=True)), np.zeros(1))
    allowed = false_positives(scans) <= false_per_scan
    return float(hits[allowed].max() / total) if allowed.any() else 0.0


def false_positives(scans: Sequence[ScanCounts]) -> FloatArray:
    """Mean number per scan at every threshold."""
    mean: FloatArray = np.mean([scan.false for scan in scans], axis=0)
    return mean
