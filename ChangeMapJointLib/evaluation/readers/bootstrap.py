"""Figures of the arms with bootstrap intervals over readers and cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ChangeMapJointLib.core.grid import FloatArray
from ChangeMapJointLib.evaluation.readers.jafroc import comparisons
from ChangeMapJointLib.evaluation.readers.log import CaseReading
from ChangeMapJointLib.evaluation.readers.truth import Hits

DRAWS = 2000
LEVEL = 0.95
LEAST = 3  # readers or cases; of fewer, none are drawn

Statistic = Callable[[FloatArray, FloatArray], FloatArray]
"""Weights of readers ``[draws, readers]`` and of cases ``[draws, cases]`` to the figure in every draw."""


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval; None where there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Crossed:
    """The readings of one arm, ``[readers][cases]``; None where a reader did not read a case."""

    readings: Sequence[Sequence[CaseReading | None]]
    hits: Sequence[Sequence[Hits | None]] | None

    def only(self, other: Crossed) -> Crossed:
        """The readings that ``other`` has, too."""
        keep = [[b is not None for b in row] for row in other.readings]

        def limit(rows: Sequence[Sequence[object]]) -> list[list[object]]:
            return [
                [v if k else None for v, k in zip(row, kept, strict=True)] for row, kept in zip(rows, keep, strict=True)
            ]

        return Crossed(limit(self.readings), None if self.hits is None else limit(self.hits))  # type: ignore[arg-type]


def draw_weights(readers: int, cases: int, seed: int, draws: int = DRAWS) -> tuple[FloatArray, FloatArray]:
    """How often each reader and each case is drawn, ``[draws, readers]`` and ``[draws, cases]``."""
    rng = np.random.default_rng(seed)
    return tuple(  # type: ignore[return-value]
        rng.multinomial(n, np.full(n, 1 / n), size=draws).astype(float) if n >= LEAST else np.ones((draws, n))
        for n in (readers, cases)
    )


def interval(statistic: Statistic, readers: int, cases: int, seed: int) -> Interval:
    """The figure with its percentile interval; none where neither readers nor cases can be drawn."""
    value = _number(statistic(np.ones((1, readers)), np.ones((1, cases)))[0])
    if value is None or max(readers, cases) < LEAST:
        return Interval(value)
    draws = statistic(*draw_weights(readers, cases, seed))
    draws = draws[np.isfinite(draws)]
    if len(draws) < DRAWS // 2:
        return Interval(value)
    tail = 50 * (1 - LEVEL)
    low, high = (float(np.percentile(draws, share)) for share in (tail, 100 - tail))
    return Interval(value, low, high)


def mean_seconds(arm: Crossed) -> Statistic:
    """Mean active reading time over all readings, in s."""
    seconds = np.array([[np.nan if r is None else r.active_s for r in row] for row in arm.readings])
    return _ratio(np.nan_to_num(seconds), np.isfinite(seconds).astype(float))


def recall(arm: Crossed) -> Statistic:
    """Lesions hit divided by lesions, over all readings."""
    hit, _, lesions = _counts(arm)
    return _ratio(hit, lesions)


def precision(arm: Crossed) -> Statistic:
    """Lesions hit divided by lesions hit and false marks, over all readings."""
    hit, false, _ = _counts(arm)
    return _ratio(hit, hit + false)


def false_per_case(arm: Crossed) -> Statistic:
    """False marks per reading."""
    _, false, _ = _counts(arm)
    return _ratio(false, np.array([[float(h is not None) for h in row] for row in arm.hits or ()]))


def merit(arm: Crossed) -> Statistic:
    """The JAFROC-type figure of merit, mean over readers."""
    parts = [comparisons(row) for row in arm.hits or ()]

    def statistic(readers: FloatArray, cases: FloatArray) -> FloatArray:
        total, count = np.zeros(len(readers)), np.zeros(len(readers))
        for k, (psi, first, second) in enumerate(parts):
            a, b = cases * first, cases * second
            pairs = a.sum(axis=1) * b.sum(axis=1)
            value = np.divide(((a @ psi) * b).sum(axis=1), pairs, out=np.zeros_like(pairs), where=pairs > 0)
            total += readers[:, k] * value
            count += readers[:, k] * (pairs > 0)
        return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)

    return statistic


def difference(later: Statistic, earlier: Statistic) -> Statistic:
    """``later`` minus ``earlier`` of the same readers and cases."""
    return lambda readers, cases: later(readers, cases) - earlier(readers, cases)


def change_percent(later: Statistic, earlier: Statistic) -> Statistic:
    """Change from ``earlier`` to ``later`` in percent of ``earlier``."""
    return lambda readers, cases: 100 * (later(readers, cases) / earlier(readers, cases) - 1)


MEASURES: Mapping[str, Callable[[Crossed], Statistic]] = {
    "seconds": mean_seconds,
    "recall": recall,
    "precision": precision,
    "false_per_case": false_per_case,
    "merit": merit,
}


def _counts(arm: Crossed) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Lesions hit, false marks and lesions, ``[readers, cases]``; 0 where not read."""
    rows = arm.hits or ()
    hit = np.array([[0.0 if h is None else len(h.ratings) for h in row] for row in rows])
    false = np.array([[0.0 if h is None else len(h.false) for h in row] for row in rows])
    lesions = np.array([[0.0 if h is None else h.lesions for h in row] for row in rows])
    return hit, false, lesions


def _ratio(above: FloatArray, below: FloatArray) -> Statistic:
    """Sum of ``above`` divided by sum of ``below``, both ``[readers, cases]``; NaN for a sum of 0."""

    def statistic(readers: FloatArray, cases: FloatArray) -> FloatArray:
        top, bottom = (((readers @ values) * cases).sum(axis=1) for values in (above, below))
        share: FloatArray = np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0)
        return share

    return statistic


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
