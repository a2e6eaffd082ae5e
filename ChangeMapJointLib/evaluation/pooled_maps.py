"""The scores of one map over all cases: curves, operating points, groups by size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.grid import FloatArray
from ChangeMapJointLib.evaluation.lesion_table import TrueLesion
from ChangeMapJointLib.evaluation.map_score import (
    ALL_THRESHOLDS,
    AT,
    GUARDED_UNION,
    GUARDED_XOR,
    OVERLAP_UNION,
    OVERLAP_XOR,
    MapScore,
)
from ChangeMapJointLib.evaluation.score_case import CaseScore
from ChangeMapJointLib.evaluation.statistics import Statistic, ratio

FALSE_PER_SCAN = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)  # of the FROC's mean sensitivity, as in LUNA16
GROUPS = 10
ROW_AT = int(np.searchsorted(ALL_THRESHOLDS, AT))


@dataclass(frozen=True)
class SizeGroup:
    """Changes of similar |diameter difference|.

    Attributes:
        low_mm: smallest in the group.
        high_mm: largest.
        found: number found.
        missed: number not found.
    """

    low_mm: float
    high_mm: float
    found: int
    missed: int


@dataclass(frozen=True, eq=False)
class MapPool:
    """Counts of one map by case; arrays as in :class:`MapScore` with the cases last.

    Attributes:
        patients: of each case.
        hits: number of changes found, ``[rules, thresholds, cases]``.
        false: ``[rules, thresholds, cases]``.
        false_ml: ``[rules, thresholds, cases]``.
        regions: ``[thresholds, cases]``.
        outside_ml: ``[thresholds, cases]``.
        changes: number of true changes, ``[cases]``.
        null: which cases are known to show no change, ``[cases]``.
    """

    patients: tuple[str, ...]
    hits: FloatArray
    false: FloatArray
    false_ml: FloatArray
    regions: FloatArray
    outside_ml: FloatArray
    changes: FloatArray
    null: NDArray[np.bool_]

    @classmethod
    def of(cls, cases: Sequence[CaseScore], name: str, *, inserted_only: bool = False) -> MapPool:
        """Pool the map ``name`` over the cases, all of which have it.

        Args:
            cases: at least one.
            name: of the map.
            inserted_only: count synthetic lesions alone as changes to be found.
        """
        scores = [case.maps[name] for case in cases]
        counted = [np.array([c.inserted or not inserted_only for c in case.changes], dtype=bool) for case in cases]

        def stacked(values: list[NDArray[np.generic]]) -> FloatArray:
            return np.stack(values, axis=-1).astype(float)

        return cls(
            tuple(case.patient for case in cases),
            stacked([score.hit[..., kept].sum(axis=-1) for score, kept in zip(scores, counted, strict=True)]),
            stacked([score.false for score in scores]),
            stacked([score.false_ml for score in scores]),
            stacked([score.regions for score in scores]),
            stacked([score.outside_ml for score in scores]),
            np.array([kept.sum() for kept in counted], dtype=float),
            np.array([case.null for case in cases], dtype=bool),
        )

    def and_then(self, other: MapPool) -> MapPool:
        """The cases of this pool followed by those of another map."""
        names = ("hits", "false", "false_ml", "regions", "outside_ml", "changes", "null")
        joined = [np.concatenate([getattr(self, name), getattr(other, name)], axis=-1) for name in names]
        return MapPool(self.patients + other.patients, *joined)

    # -- statistics of weighted cases ----------------------------------------------------
    def recall(self, rule: int, row: int = ROW_AT) -> Statistic:
        """Found changes over all changes at one threshold."""
        return lambda weights: ratio(weights @ self.hits[rule, row], weights @ self.changes)

    def per_scan(self, counts: FloatArray, *, null_only: bool = False) -> Statistic:
        """Mean of ``counts`` ``[cases]`` per scan, or per null scan."""
        scans = self.null.astype(float) if null_only else np.ones(len(self.patients))
        return lambda weights: ratio(weights @ (counts * scans), weights @ scans)

    def precision(self, rule: int, row: int = ROW_AT) -> Statistic:
        """Regions that found a change over all regions at one threshold."""
        right = self.regions[row] - self.false[rule, row]
        return lambda weights: ratio(weights @ right, weights @ self.regions[row])

    def sensitivity(self, rule: int, false_per_scan: Sequence[float]) -> Statistic:
        """Mean over ``false_per_scan`` of the best recall with at most so many false regions per scan.

        It is the best over all thresholds. Only the guarded rules are used here: by overlap alone a threshold near 0,
        where one region fills the lung, has a recall of 1 and no false region. A false region is one that overlaps no
        change; one that overlaps a change and does not match it is neither a hit nor false, as LUNA16 ignores second
        marks on a nodule.

        Args:
            rule: a guarded one of :data:`~ChangeMapJointLib.evaluation.map_score.RULES`.
            false_per_scan: the allowed means.
        """
        false_regions, hits = self.false[touching(rule)].T, self.hits[rule].T

        def statistic(weights: FloatArray) -> FloatArray:
            false = ratio(weights @ false_regions, weights.sum(axis=1, keepdims=True))
            recall = ratio(weights @ hits, (weights @ self.changes)[:, None])
            best = [np.where(false <= limit, recall, 0.0).max(axis=1) for limit in false_per_scan]
            mean: FloatArray = np.where(np.isfinite(recall).all(axis=1), np.mean(best, axis=0), np.nan)
            return mean

        return statistic

    # -- curves ----------------------------------------------------------------------------
    def curve(self, rule: int, thresholds: FloatArray) -> dict[str, FloatArray]:
        """Everything that the paper's protocol shows at each threshold, and what keeps it honest.

        Args:
            rule: index in :data:`~ChangeMapJointLib.evaluation.map_score.RULES`.
            thresholds: of :data:`~ChangeMapJointLib.evaluation.map_score.ALL_THRESHOLDS`.
        """
        rows = np.searchsorted(ALL_THRESHOLDS, thresholds)
        scans = len(self.patients)
        regions = self.regions[rows].sum(axis=1)
        false = self.false[rule][rows].sum(axis=1)
        return {
            "recall": ratio(self.hits[rule][rows].sum(axis=1), np.full(len(rows), self.changes.sum())),
            "region_precision": ratio(regions - false, regions),
            "false_per_scan": false / scans,
            "false_ml_per_scan": self.false_ml[rule][rows].sum(axis=1) / scans,
            "outside_ml_per_scan": self.outside_ml[rows].sum(axis=1) / scans,
        }

    def froc(self, rule: int) -> tuple[FloatArray, FloatArray]:
        """False regions per scan, rising, and the best recall with at most so many; see :meth:`sensitivity`."""
        false = self.false[touching(rule)].sum(axis=1) / len(self.patients)
        recall = ratio(self.hits[rule].sum(axis=1), np.full(len(false), self.changes.sum()))
        order = np.lexsort((recall, false))
        best = np.maximum.accumulate(recall[order])
        last = np.append(np.diff(false[order]) > 0, True)
        return false[order][last], best[last]


def touching(rule: int) -> int:
    """The rule of plain overlap with the same target as a guarded ``rule``."""
    return {GUARDED_UNION: OVERLAP_UNION, GUARDED_XOR: OVERLAP_XOR}[rule]


def size_groups(
    cases: Sequence[CaseScore], name: str, rule: int, *, inserted_only: bool = False, groups: int = GROUPS
) -> list[SizeGroup]:
    """The changes sorted by |diameter difference| in groups of equal size, found or missed at 0.68.

    This is the paper's Fig. 4. Fewer changes than ``groups`` make one group each.
    """
    found: list[tuple[TrueLesion, bool]] = []
    for case in cases:
        score: MapScore = case.maps[name]
        hits = score.hit[rule, ROW_AT]
        found += [(c, bool(h)) for c, h in zip(case.changes, hits, strict=True) if c.inserted or not inserted_only]
    found.sort(key=lambda pair: pair[0].diameter_change_mm)
    parts = np.array_split(np.arange(len(found)), min(groups, len(found))) if found else []
    result = []
    for part in parts:
        sizes = [found[i][0].diameter_change_mm for i in part]
        hits = sum(found[i][1] for i in part)
        result.append(SizeGroup(sizes[0], sizes[-1], hits, len(part) - hits))
    return result
