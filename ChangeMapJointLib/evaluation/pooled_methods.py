"""The scores of one method over all cases: registration, preservation of lesions, its list, its trust, its cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import mannwhitneyu

from ChangeMapJointLib.core.grid import FloatArray
from ChangeMapJointLib.evaluation.field_score import FieldScore, worst_mean
from ChangeMapJointLib.evaluation.list_score import ListScore, Match, doubling_days, volume_ratio
from ChangeMapJointLib.evaluation.score_case import CaseScore, MethodScore
from ChangeMapJointLib.evaluation.statistics import Figure, Statistic, mean_of_cases, ratio, with_interval
from ChangeMapJointLib.registration.quality import LOW_TRUST
from ChangeMapJointLib.synthesis.truth import CHANGE_KINDS

KINDS = tuple(kind for kind in CHANGE_KINDS if kind != "stable")
OTHER, MISSED, NOTHING = "other", "missed", "nothing"
LARGE_ERROR_MM, SMALL_ERROR_MM = 3.0, 1.0  # what trust must, and must not, give away
TRUST_BINS: FloatArray = np.linspace(0, 1, 11).astype(np.float64)


@dataclass(frozen=True)
class LimitsOfAgreement:
    """Agreement of two measurements of one quantity (Bland and Altman 1986).

    Attributes:
        n: number of pairs.
        bias: mean of measured minus true.
        low: bias minus 1.96 standard deviations.
        high: bias plus 1.96 standard deviations.
    """

    n: int
    bias: float | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, true: ArrayLike, measured: ArrayLike) -> LimitsOfAgreement:
        """The agreement of ``measured`` with ``true``; limits need two pairs.

        Examples:
            >>> LimitsOfAgreement.of([1.0, 2.0, 3.0], [2.0, 2.0, 5.0]).bias
            1.0
        """
        difference = np.asarray(measured, dtype=float) - np.asarray(true, dtype=float)
        if not len(difference):
            return cls(0)
        bias = float(difference.mean())
        if len(difference) < 2:
            return cls(1, bias)
        spread = 1.96 * float(difference.std(ddof=1))
        return cls(len(difference), bias, bias - spread, bias + spread)


def registration(cases: Sequence[CaseScore], method: str) -> dict[str, Figure]:
    """Figures of the deformation, as means over cases with intervals over patients; empty without a deformation."""
    fields = [case.methods[method].field for case in cases]
    patients = [case.patient for case in cases]
    if not any(fields):
        return {}
    return {
        name: with_interval(mean_of_cases([None if f is None else measure(f) for f in fields]), patients)
        for name, measure in FIELD_FIGURES.items()
    }


def _mean(values: FloatArray) -> float | None:
    return float(values.mean()) if len(values) else None


def _tail(values: FloatArray) -> float | None:
    return float(np.percentile(values, 95)) if len(values) else None


FIELD_FIGURES: dict[str, Callable[[FieldScore], float | None]] = {
    "tre_mm": lambda f: _mean(f.tre_mm),
    "tre_worst_30_percent_mm": lambda f: worst_mean(f.tre_mm),
    "tre_p95_mm": lambda f: _tail(f.tre_mm),
    "tre_before_mm": lambda f: _mean(f.tre_before_mm),
    "lung_dice": lambda f: f.lung_dice,
    "folding_percent": lambda f: f.folding_percent,
    "sd_log_jacobian": lambda f: f.sd_log_jacobian,
}


def preservation(cases: Sequence[CaseScore], method: str, *, of_true: bool = False) -> dict[str, dict[str, float]]:
    """|L^T(y)| / |L^T| by kind of lesion: number, median, 10th and 90th percentile.

    Args:
        cases: in which the method has a score.
        method: its name.
        of_true: |L^T(y)| over the same for the true y instead, where that is known.
    """
    found: dict[str, list[float]] = {}
    for case in cases:
        scored = case.methods[method].field
        kinds = {lesion.id: lesion.kind for lesion in (*case.changes, *case.stable)}
        values = {} if scored is None else scored.preserved_of_true if of_true else scored.preserved
        for number, kept in values.items():
            if number in kinds:
                found.setdefault(kinds[number], []).append(kept)
    return {
        kind: {
            "n": len(ratios),
            "median": float(np.median(ratios)),
            "p10": float(np.percentile(ratios, 10)),
            "p90": float(np.percentile(ratios, 90)),
        }
        for kind, ratios in found.items()
    }


# -- lists -------------------------------------------------------------------------------


@dataclass(frozen=True)
class ListCounts:
    """What a list found in each case, for weighted sums; arrays ``[cases]``."""

    changes: FloatArray
    found: FloatArray
    kinds_right: FloatArray
    listed: FloatArray
    false: FloatArray

    @classmethod
    def of(cls, lists: Sequence[ListScore]) -> ListCounts:
        """Count every case."""
        rows = [
            (
                len(scored.changes),
                sum(m.finding is not None for m in scored.changes),
                sum(m.finding is not None and m.finding.kind == m.lesion.kind for m in scored.changes),
                sum(m.finding is not None for m in scored.changes) + len(scored.stable) + len(scored.false),
                len(scored.stable) + len(scored.false),
            )
            for scored in lists
        ]
        return cls(*np.array(rows, dtype=float).reshape(-1, 5).T)

    def statistics(self) -> dict[str, Statistic]:
        """Recall, precision, false findings per scan, and the share of found changes with the right kind."""
        one = np.ones(len(self.changes))
        shares = {
            "recall": (self.found, self.changes),
            "precision": (self.found, self.listed),
            "false_per_scan": (self.false, one),
            "kinds_right": (self.kinds_right, self.found),
        }
        return {name: _share(above, below) for name, (above, below) in shares.items()}


def _share(above: FloatArray, below: FloatArray) -> Statistic:
    return lambda weights: ratio(weights @ above, weights @ below)


def with_list(cases: Sequence[CaseScore], method: str) -> tuple[list[CaseScore], list[ListScore]]:
    """The cases in which the method gives a list that can be scored, and its scores."""
    kept = [(case, scored) for case in cases if (scored := case.methods[method].findings) is not None]
    return [case for case, _ in kept], [scored for _, scored in kept]


def confusion(lists: Sequence[ListScore]) -> dict[str, dict[str, int]]:
    """How often each true kind, a stable lesion and nothing at all were listed as each kind, or missed."""
    columns = (*KINDS, OTHER, MISSED)
    table = {row: dict.fromkeys(columns, 0) for row in (*KINDS, "stable", NOTHING)}
    for scored in lists:
        for match in (*scored.changes, *scored.stable):
            table[match.lesion.kind][_column(None if match.finding is None else match.finding.kind)] += 1
        for finding in scored.false:
            table[NOTHING][_column(finding.kind)] += 1
    return table


def _column(kind: str | None) -> str:
    return MISSED if kind is None else kind if kind in KINDS else OTHER


@dataclass(frozen=True, eq=False)
class Growth:
    """True and measured change of the lesions that the list names and measures in both scans.

    Attributes:
        true_percent: change of volume in percent of the prior's, ``[n]``.
        measured_percent: as the list states it, ``[n]``.
        true_days: doubling time where truth and list both grew, ``[m]``.
        measured_days: as measured, ``[m]``.
    """

    true_percent: FloatArray
    measured_percent: FloatArray
    true_days: FloatArray
    measured_days: FloatArray

    @property
    def true_doublings(self) -> FloatArray:
        """Binary logarithm of the true volume ratio: +1 doubled, -1 halved."""
        return np.asarray(np.log2(1 + self.true_percent / 100))

    @property
    def measured_doublings(self) -> FloatArray:
        """The same as measured."""
        return np.asarray(np.log2(1 + self.measured_percent / 100))

    def summary(self) -> dict[str, Any]:
        """Error of growth in percentage points, and agreements in doublings and in days."""
        error = self.measured_percent - self.true_percent
        n = len(error)
        return {
            "n": n,
            "error_percent_median": float(np.median(error)) if n else None,
            "absolute_error_percent_median": float(np.median(np.abs(error))) if n else None,
            "doublings": LimitsOfAgreement.of(self.true_doublings, self.measured_doublings),
            "doubling_days": LimitsOfAgreement.of(self.true_days, self.measured_days),
        }


def growth(cases: Sequence[CaseScore], lists: Sequence[ListScore]) -> Growth:
    """Collect growth and doubling times over the cases."""
    percents: list[tuple[float, float]] = []
    days: list[tuple[float, float]] = []
    for case, scored in zip(cases, lists, strict=True):
        for match in (*scored.changes, *scored.stable):
            true, measured = match.lesion.growth_percent, match.measured_percent
            if true is None or measured is None:
                continue
            percents.append((true, measured))
            times = _doubling(match, case.days)
            if times is not None:
                days.append(times)
    both, times_ = np.array(percents).reshape(-1, 2), np.array(days).reshape(-1, 2)
    return Growth(both[:, 0], both[:, 1], times_[:, 0], times_[:, 1])


def _doubling(match: Match, days: float | None) -> tuple[float, float] | None:
    lesion = match.lesion
    true = doubling_days(lesion.volume_reference_ml / lesion.volume_template_ml, days)
    measured = doubling_days(volume_ratio(match.finding), days)
    return None if true is None or measured is None else (true, measured)


# -- trust and cost ------------------------------------------------------------------------


def trust_at_landmarks(cases: Sequence[CaseScore], method: str) -> dict[str, Any] | None:
    """Whether low trust marks large errors, at the landmarks of all cases; None without trust or landmarks."""
    fields: list[FieldScore] = [f for case in cases if (f := case.methods[method].field) is not None and len(f.trust)]
    if not fields:
        return None
    error, believed = (np.concatenate([getattr(f, name) for f in fields]) for name in ("tre_mm", "trust"))
    large, small = error > LARGE_ERROR_MM, error < SMALL_ERROR_MM
    which = np.clip(np.digitize(believed, TRUST_BINS) - 1, 0, len(TRUST_BINS) - 2)
    bins = []
    for number in range(len(TRUST_BINS) - 1):
        inside = error[which == number]
        entry = {"from": float(TRUST_BINS[number]), "to": float(TRUST_BINS[number + 1]), "n": len(inside)}
        if len(inside):
            entry |= {"median_mm": float(np.median(inside)), "p90_mm": float(np.percentile(inside, 90))}
        bins.append(entry)
    area = None
    if large.any() and not large.all():
        statistic = mannwhitneyu(-believed[large], -believed[~large]).statistic
        area = float(statistic / (large.sum() * (~large).sum()))
    return {
        "points": len(error),
        "large_errors": int(large.sum()),
        "large_errors_marked": float((believed[large] < LOW_TRUST).mean()) if large.any() else None,
        "small_errors_marked": float((believed[small] < LOW_TRUST).mean()) if small.any() else None,
        "area_under_roc": area,
        "bins": bins,
    }


def cost(cases: Sequence[CaseScore], method: str) -> dict[str, float | None]:
    """Median time, and the largest memory."""
    scores: list[MethodScore] = [case.methods[method] for case in cases]
    seconds = [score.seconds for score in scores if score.seconds is not None]
    peaks = [score.peak_mb for score in scores if score.peak_mb is not None]
    return {
        "seconds_median": float(np.median(seconds)) if seconds else None,
        "peak_mb_largest": max(peaks) if peaks else None,
    }
