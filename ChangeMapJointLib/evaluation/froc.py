"""Free-response ROC: recall against false positives per scan, over all thresholds of a map.

Kohlbrandt et al. 2024 plot recall over logarithmic thresholds and drop regions of fewer than 5 voxels. Here false
positives are reported as well, because at a very low threshold one giant region overlaps every lesion. Which region
hits which lesion is decided by :mod:`ChangeMapJointLib.evaluation.detection`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.grid import FloatArray, Grid
from ChangeMapJointLib.evaluation.detection import ChangeRegion, change_region, match_labels
from ChangeMapJointLib.evaluation.regions import MapRegions
from ChangeMapJointLib.synthesis.truth import TrueChange

# logarithmic as in the paper, the default threshold among them. They are denser above 0.1: between thresholds 10 %
# apart the false positives of CM_comb can nearly double, so that a limit on them would fall far from either
THRESHOLDS = np.concatenate([np.logspace(-2, -1, 13)[:-1], np.logspace(-1, 0, 97)[:-1]])


@dataclass(frozen=True)
class ScanCounts:
    """Hits and false positives of one map of one scan at every threshold.

    Attributes:
        hit: bool ``[thresholds, changes]``, in the order of ``changes``.
        false: number of regions that hit no change, ``[thresholds]``.
        changes: the true changes, without stable lesions.
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
    """Count hits and false positives of one map at every threshold.

    Args:
        change_map: in [0, 1], ``[z, y, x]``.
        truth: the lesions, stable ones included.
        grid: of the map.
        regions: regions of the changes; by default made from their outlines.
        inside: lung mask that limits those outlines, bool ``[z, y, x]``.
        thresholds: ascending; a voxel counts where the map is at least the threshold.
        most_false: at the first threshold, from the top, with more false regions than this the search stops; the lower
            thresholds, which take most of the time, get the same counts.
    """
    changes = tuple(c for c in truth if c.is_change)
    regions = regions if regions is not None else [change_region(c, grid, inside=inside) for c in changes]
    components = MapRegions(change_map)
    hit = np.zeros((len(thresholds), len(changes)), dtype=bool)
    false = np.zeros(len(thresholds), dtype=np.int64)
    for row in range(len(thresholds))[::-1]:
        labels, sizes = components.above(thresholds[row])
        detection = match_labels(labels, truth, grid, regions=regions, sizes=sizes)
        hit[row] = [bool(detection.hits[c.id]) for c in changes]
        false[row] = len(detection.false_volumes_ml)
        if most_false is not None and false[row] > most_false:
            hit[:row], false[:row] = hit[row], false[row]
            break
    return ScanCounts(hit, false, changes)


def recall_at(scans: Sequence[ScanCounts], false_per_scan: float, *, below_mm: float = np.inf) -> float:
    """The best recall with at most ``false_per_scan`` false positives per scan on average.

    Args:
        scans: counts of one kind of map, at the same thresholds.
        false_per_scan: the allowed mean.
        below_mm: count only changes whose two diameters differ by less than this.

    Returns:
        In [0, 1]; NaN where there is no change to find.
    """
    counted = [np.array([c.diameter_change_mm < below_mm for c in scan.changes], dtype=bool) for scan in scans]
    total = sum(int(c.sum()) for c in counted)
    if not total:
        return float("nan")
    hits = sum((scan.hit[:, c].sum(axis=1) for scan, c in zip(scans, counted, strict=True)), np.zeros(1))
    allowed = false_positives(scans) <= false_per_scan
    return float(hits[allowed].max() / total) if allowed.any() else 0.0


def false_positives(scans: Sequence[ScanCounts]) -> FloatArray:
    """Mean number of false positives per scan at every threshold, ``[thresholds]``."""
    mean: FloatArray = np.mean([scan.false for scan in scans], axis=0)
    return mean
