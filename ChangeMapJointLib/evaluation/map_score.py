"""One change map against the truth of its case, at every threshold.

The paper's protocol (Kohlbrandt et al. 2024, section 2.3): the map is binarised at thresholds on a logarithmic scale,
regions of fewer than 5 voxels are dropped, and a lesion is found if any remaining region overlaps it. At a very low
threshold one giant region overlaps every lesion, so everything is also counted the guarded way: regions and lesions are
matched one to one, and a match needs an intersection over union above 0.1. Both are done with the union of the lesion's
masks in the two scans and with their symmetric difference (XOR), which is what changed.

A false region of the overlap rules overlaps no change. A false region of the guarded rules has no match, as a second
fragment of a lesion that was found already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ChangeMapJointLib.change.method_table import DEFAULT_THRESHOLD
from ChangeMapJointLib.core.grid import FloatArray, Grid, bounding_box
from ChangeMapJointLib.evaluation.detection import ChangeRegion
from ChangeMapJointLib.evaluation.froc import THRESHOLDS
from ChangeMapJointLib.evaluation.regions import MapRegions

PAPER_THRESHOLDS: FloatArray = np.logspace(-3, 0, 19).astype(np.float64)  # its 18th is 0.6813, the paper's 0.68
AT = DEFAULT_THRESHOLD  # 0.68, the paper's threshold for its figure 4
NEAR_ONE: FloatArray = 1 - np.logspace(-4, -2, 5).astype(
    np.float64
)  # a softmax saturates: CM_learn needs thresholds near 1
ALL_THRESHOLDS: FloatArray = np.unique(np.concatenate([PAPER_THRESHOLDS, THRESHOLDS, [AT], NEAR_ONE]))
RULES = ("overlap, union", "overlap, XOR", "guarded, union", "guarded, XOR")
OVERLAP_UNION, OVERLAP_XOR, GUARDED_UNION, GUARDED_XOR = range(4)
LEAST_IOU = 0.1
MOST_FALSE = 200  # false regions in one scan: lower thresholds that only the FROC needs are not looked at


@dataclass(frozen=True, eq=False)
class MapScore:
    """A map of one case at every threshold of :data:`ALL_THRESHOLDS`.

    Attributes:
        hit: whether each change was found, bool ``[rules, thresholds, changes]``, rules as in :data:`RULES`.
        false: number of regions that found no change, ``[rules, thresholds]``.
        false_ml: their volume, ``[rules, thresholds]``.
        regions: number of regions, ``[thresholds]``.
        outside_ml: volume of all regions outside every changed lesion, ``[thresholds]``.
        highest: the map's largest value.
        voxel_mm: size of its voxels.
    """

    hit: NDArray[np.bool_]
    false: NDArray[np.int64]
    false_ml: FloatArray
    regions: NDArray[np.int64]
    outside_ml: FloatArray
    highest: float
    voxel_mm: tuple[float, float, float]


def score_map(change_map: NDArray[np.float32], grid: Grid, changes: Sequence[ChangeRegion]) -> MapScore:
    """Score one map.

    Args:
        change_map: in [0, 1], float32 ``[z, y, x]``.
        grid: of the map.
        changes: the regions of the true changes on ``grid``; none for a null pair.

    Returns:
        Hits and false regions at every threshold.
    """
    targets, crop = _targets(change_map, changes)
    regions = MapRegions(np.ascontiguousarray(change_map[crop]))
    count = len(ALL_THRESHOLDS)
    hit = np.zeros((len(RULES), count, len(changes)), dtype=bool)
    false = np.zeros((len(RULES), count), dtype=np.int64)
    false_vox = np.zeros((len(RULES), count), dtype=np.int64)
    number, outside = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    stopped = False
    for row in range(count)[::-1]:
        if stopped and not np.isin(ALL_THRESHOLDS[row], PAPER_THRESHOLDS):
            for table in (hit, false, false_vox):
                table[:, row] = table[:, row + 1]
            number[row], outside[row] = number[row + 1], outside[row + 1]
            continue
        labels, sizes = regions.above(ALL_THRESHOLDS[row])
        found = _at_one_threshold(labels.ravel(), sizes, targets)
        hit[:, row], false[:, row], false_vox[:, row] = found.hit, found.false, found.false_vox
        number[row], outside[row] = np.count_nonzero(sizes[1:]), found.outside_vox
        stopped |= bool(false[OVERLAP_UNION, row] > MOST_FALSE)
    ml = grid.voxel_volume_ml
    highest = float(change_map.max())
    false_ml, outside_ml = (np.asarray(voxels * ml, dtype=np.float64) for voxels in (false_vox, outside))
    return MapScore(hit, false, false_ml, number, outside_ml, highest, grid.spacing_mm)


@dataclass(frozen=True, eq=False)
class _Found:
    hit: NDArray[np.bool_]  # [rules, changes]
    false: NDArray[np.int64]  # [rules]
    false_vox: NDArray[np.int64]  # [rules]
    outside_vox: int


_Targets = tuple[list[NDArray[np.intp]], list[NDArray[np.intp]]]  # flat indices of each union and of each XOR


def _targets(change_map: NDArray[np.float32], changes: Sequence[ChangeRegion]) -> tuple[_Targets, tuple[slice, ...]]:
    """Flat indices of the changes in the part of the map that is not 0, widened to hold all of them; and that part."""
    shown = change_map >= ALL_THRESHOLDS[0]
    boxes = [([s.start for s in change.box], [s.stop for s in change.box]) for change in changes]
    if shown.any():
        start, stop = bounding_box(shown)
        boxes.append((list(start), list(stop)))
    if not boxes:
        boxes = [([0, 0, 0], [1, 1, 1])]
    start = np.min([b[0] for b in boxes], axis=0)
    stop = np.max([b[1] for b in boxes], axis=0)
    shape = tuple(int(n) for n in stop - start)
    unions: list[NDArray[np.intp]] = []
    changed: list[NDArray[np.intp]] = []
    for change in changes:
        offset = np.array([s.start for s in change.box]) - start
        for mask, flat in ((change.lesion, unions), (change.changed, changed)):
            flat.append(np.ravel_multi_index(tuple((np.argwhere(mask) + offset).T), shape))
    return (unions, changed), tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))


def _at_one_threshold(labels: NDArray[np.int32], sizes: NDArray[np.intp], targets: _Targets) -> _Found:
    """Hits and false regions by all rules."""
    present = np.flatnonzero(sizes)
    present = present[present > 0]
    count = len(targets[0])
    hit = np.zeros((len(RULES), count), dtype=bool)
    false, false_vox = np.zeros(len(RULES), np.int64), np.zeros(len(RULES), np.int64)
    for which, flats in enumerate(targets):
        shared = np.zeros((count, len(sizes)), dtype=np.int64)
        for row, flat in enumerate(flats):
            shared[row] = np.bincount(labels[flat], minlength=len(sizes))
        shared[:, 0] = 0
        volumes = np.array([len(flat) for flat in flats], dtype=np.int64)
        iou = shared / np.maximum(volumes[:, None] + sizes[None] - shared, 1)
        matched = _one_to_one(iou)
        for rule, hits, true in (
            (which, (shared > 0).any(axis=1), (shared > 0).any(axis=0)),
            (which + 2, matched.any(axis=1), matched.any(axis=0)),
        ):
            wrong = present[~np.asarray(true)[present]]
            hit[rule], false[rule], false_vox[rule] = hits, len(wrong), sizes[wrong].sum()
    lesions = np.unique(np.concatenate(targets[0])) if count else np.zeros(0, np.intp)
    outside = int(sizes[1:].sum()) - int(np.count_nonzero(labels[lesions]))
    return _Found(hit, false, false_vox, outside)


def _one_to_one(iou: FloatArray) -> NDArray[np.bool_]:
    """The matches with an intersection over union above 0.1, of the largest sum, bool ``[changes, regions]``."""
    matched = np.zeros(iou.shape, dtype=bool)
    columns: NDArray[np.intp] = np.flatnonzero((iou > LEAST_IOU).sum(axis=0)) if iou.size else np.zeros(0, np.intp)
    if columns.size:
        candidates = np.where(iou[:, columns] > LEAST_IOU, iou[:, columns], 0.0)
        rows, chosen = linear_sum_assignment(candidates, maximize=True)
        good = candidates[rows, chosen] > 0
        matched[rows[good], columns[chosen[good]]] = True
    return matched
