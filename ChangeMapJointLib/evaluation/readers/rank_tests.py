"""Exact rank tests of reading times: the paper's rank-sum test, and the signed-rank test of the same cases.

Both are permutation tests on mid-ranks, so ties need no approximation. SciPy makes all exchanges up to a number, and
draws random ones beyond.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ChangeMapJointLib.core.grid import FloatArray

MOST_EXCHANGES = 200_000


@dataclass(frozen=True)
class RankTest:
    """A two-sided test.

    Attributes:
        p: p value; None with too few values.
        smallest_p: the smallest that so few values can give; None likewise.
        n: number of values, or of pairs that differ.
        exact: whether all exchanges were made.
    """

    p: float | None
    smallest_p: float | None
    n: tuple[int, ...]
    exact: bool = True


def rank_sum(first: Sequence[float], second: Sequence[float]) -> RankTest:
    """Wilcoxon's rank-sum test (Mann-Whitney) of two independent samples, two-sided.

    Examples:
        >>> test = rank_sum([1, 2, 3, 4, 5], [6, 7, 8, 9, 10])
        >>> round(test.p, 4), round(test.smallest_p, 4)
        (0.0079, 0.0079)
    """
    n, m = len(first), len(second)
    if min(n, m) < 1:
        return RankTest(None, None, (n, m))
    ranks = stats.rankdata(np.concatenate([first, second]))
    splits = math.comb(n + m, n)
    result = stats.permutation_test(
        (ranks[:n], ranks[n:]),
        _sum_of_first,
        permutation_type="independent",
        vectorized=True,
        n_resamples=MOST_EXCHANGES,
        rng=np.random.default_rng(0),
    )
    return RankTest(float(result.pvalue), min(2 / splits, 1.0), (n, m), splits <= MOST_EXCHANGES)


def signed_rank(first: Sequence[float], second: Sequence[float]) -> RankTest:
    """Wilcoxon's signed-rank test of pairs, two-sided; pairs without a difference are left out.

    Examples:
        >>> test = signed_rank([1, 2, 3, 4, 5], [6, 8, 10, 12, 14])
        >>> test.p, test.smallest_p
        (0.0625, 0.0625)
    """
    difference = np.asarray(first, float) - np.asarray(second, float)
    difference = difference[difference != 0]
    n = len(difference)
    if n == 0:
        return RankTest(1.0 if len(first) else None, 1.0 if len(first) else None, (0,))
    signed = np.sign(difference) * stats.rankdata(np.abs(difference))
    result = stats.permutation_test(
        (signed,),
        _positive_sum,
        permutation_type="samples",
        vectorized=True,
        n_resamples=MOST_EXCHANGES,
        rng=np.random.default_rng(0),
    )
    return RankTest(float(result.pvalue), min(2 / 2**n, 1.0), (n,), 2**n <= MOST_EXCHANGES)


def _sum_of_first(first: FloatArray, _: FloatArray, axis: int) -> FloatArray:
    total: FloatArray = first.sum(axis=axis)
    return total


def _positive_sum(signed: FloatArray, axis: int) -> FloatArray:
    total: FloatArray = np.where(signed > 0, signed, 0.0).sum(axis=axis)
    return total
