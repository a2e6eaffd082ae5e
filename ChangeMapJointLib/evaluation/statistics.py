"""Intervals and comparisons over patients: the lesions, scans and landmarks of one patient are not independent."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ChangeMapJointLib.core.grid import FloatArray

RESAMPLES = 2000
PERMUTATIONS = 9999
EXACT_UP_TO = 12  # patients, for whom all 2^n exchanges are made
LEVEL = 0.95
LEAST_PATIENTS = 3  # below it an interval would say nothing

Statistic = Callable[[FloatArray], FloatArray]
"""Weights of the cases ``[draws, cases]`` to the figure in every draw ``[draws]``; NaN where there is none."""


@dataclass(frozen=True)
class Figure:
    """A figure and its 95 % interval over patients; None where there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Comparison:
    """A paired comparison of two methods by one figure.

    Attributes:
        figure: what is compared.
        first: a method.
        second: the other one.
        difference: first minus second, with its interval.
        p: two-sided, of the exchange of both methods within patients; None where nothing can be exchanged.
        p_holm: the same after Holm's correction over all pairs of methods that are compared by this figure.
        patients: number of patients with both.
    """

    figure: str
    first: str
    second: str
    difference: Figure
    p: float | None
    p_holm: float | None
    patients: int


def bootstrap_weights(patients: Sequence[str], *, seed: int = 0, resamples: int = RESAMPLES) -> FloatArray:
    """How often each case is drawn when patients are drawn with replacement, ``[resamples, cases]``."""
    names, index = np.unique(np.array(patients), return_inverse=True)
    counts = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    weights: FloatArray = counts[:, index].astype(float)
    return weights


def with_interval(statistic: Statistic, patients: Sequence[str], *, seed: int = 0) -> Figure:
    """A figure of all cases, with its percentile interval over patients (none below three patients).

    Args:
        statistic: the figure for weighted cases.
        patients: of each case.
        seed: of the draws.
    """
    value = _number(statistic(np.ones((1, len(patients))))[0])
    if value is None or len(set(patients)) < LEAST_PATIENTS:
        return Figure(value)
    return Figure(value, *_percentiles(statistic(bootstrap_weights(patients, seed=seed))))


def compare_pair(
    name: str,
    methods: tuple[str, str],
    statistics: tuple[Statistic, Statistic],
    both: Statistic,
    patients: Sequence[str],
) -> Comparison:
    """Compare two methods on the same cases.

    If the methods do not differ, exchanging them within any patient changes nothing. All exchanges are made up to 12
    patients, 9,999 random ones beyond.

    Args:
        name: of the figure.
        methods: their names.
        statistics: the figure of each method for weighted cases ``[draws, cases]``.
        both: the figure for the cases of the first method followed by those of the second, ``[draws, 2 cases]``.
        patients: of each case.
    """
    names, index = np.unique(np.array(patients), return_inverse=True)
    n = len(names)
    ones = np.ones((1, len(patients)))
    observed = _number((statistics[0](ones) - statistics[1](ones))[0])
    difference, p = Figure(observed), None
    if observed is not None and n >= LEAST_PATIENTS:
        weights = bootstrap_weights(patients)
        difference = Figure(observed, *_percentiles(statistics[0](weights) - statistics[1](weights)))
    if observed is not None and n > 1:
        if n <= EXACT_UP_TO:
            swapped = ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(float)
        else:
            random = np.random.default_rng(0).integers(0, 2, size=(PERMUTATIONS, n))
            swapped = np.vstack([np.zeros((1, n)), random]).astype(float)  # the first is what was observed
        swap = swapped[:, index]
        draws = both(np.hstack([1 - swap, swap])) - both(np.hstack([swap, 1 - swap]))
        draws = draws[np.isfinite(draws)]
        p = float((np.abs(draws) >= abs(observed) - 1e-12).mean())
    return Comparison(name, methods[0], methods[1], difference, p, None, n)


def holm(values: Sequence[float | None]) -> list[float | None]:
    """P values corrected by Holm; None stays None.

    Examples:
        >>> holm([0.01, None, 0.04])
        [0.02, None, 0.04]
    """
    from statsmodels.stats.multitest import multipletests

    known = [i for i, p in enumerate(values) if p is not None]
    corrected: list[float | None] = [None] * len(values)
    if known:
        for i, p in zip(known, multipletests([values[i] for i in known], method="holm")[1], strict=True):
            corrected[i] = float(p)
    return corrected


def corrected_by_holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons with p values corrected by Holm within each figure."""
    corrected = list(comparisons)
    for figure in dict.fromkeys(c.figure for c in comparisons):
        rows = [i for i, c in enumerate(comparisons) if c.figure == figure]
        for i, p in zip(rows, holm([comparisons[i].p for i in rows]), strict=True):
            corrected[i] = replace(comparisons[i], p_holm=p)
    return corrected


def mean_of_cases(values: Sequence[float | None]) -> Statistic:
    """The mean of one value per case; cases without a value do not count."""
    array = np.array([np.nan if v is None else v for v in values], dtype=float)
    known = np.isfinite(array)

    def statistic(weights: FloatArray) -> FloatArray:
        total = weights @ known.astype(float)
        return ratio(weights @ np.where(known, array, 0.0), total)

    return statistic


def ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    """``above / below``, NaN where ``below`` is 0."""
    result: FloatArray = np.divide(above, below, out=np.full(np.broadcast(above, below).shape, np.nan), where=below > 0)
    return result


def _percentiles(draws: FloatArray) -> tuple[float | None, float | None]:
    tail = 50 * (1 - LEVEL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all NaN: no draw holds a lesion
        low, high = np.nanpercentile(draws, [tail, 100 - tail])
    return _number(low), _number(high)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
