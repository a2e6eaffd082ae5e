"""The figure of merit of free-response studies: how often a lesion is rated higher than the worst false mark of a case.

As the weighted AFROC figure of merit of Chakraborty (Observer Performance Methods for Diagnostic Imaging, CRC 2017, and
RJafroc, ``wAFROC``), with equal weights of the lesions of a case:
``mean over cases i and j, and lesions l of j, of psi(F_i, L_jl)``, where F_i is the highest rating of a false mark in
case i, L_jl that of lesion l in case j, minus infinity where there is none, and psi is 1 for F < L, 1/2 for F = L, else
0. Cases i are those without a lesion; if the study has none, all cases (``wAFROC1``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ChangeMapJointLib.core.grid import FloatArray
from ChangeMapJointLib.evaluation.readers.truth import Hits


def figure_of_merit_name(cases: Sequence[int]) -> str:
    """``wAFROC``, or ``wAFROC1`` where every case has a lesion.

    Args:
        cases: number of lesions of every case.
    """
    return "wAFROC" if 0 in cases else "wAFROC1"


def comparisons(readings: Sequence[Hits | None]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The parts of the figure of merit of one reader in one arm.

    Args:
        readings: of every case; None where it was not read.

    Returns:
        psi ``[i, j]``, mean over the lesions of case j; which cases count as i ``[i]``, and as j ``[j]``, 0 or 1.
    """
    n = len(readings)
    normal = np.array([hits is not None and hits.lesions == 0 for hits in readings])
    abnormal = np.array([hits is not None and hits.lesions > 0 for hits in readings])
    read = normal | abnormal
    psi = np.zeros((n, n))
    false = np.array([max(hits.false, default=-np.inf) if hits is not None else np.nan for hits in readings])
    for j, hits in enumerate(readings):
        if hits is None or not hits.lesions:
            continue
        rated = np.full(hits.lesions, -np.inf)
        rated[: len(hits.ratings)] = sorted(hits.ratings.values())
        higher = (false[:, None] < rated) + 0.5 * (false[:, None] == rated)
        psi[:, j] = higher.mean(axis=1)
    return psi, (normal if normal.any() else read).astype(float), abnormal.astype(float)


def figure_of_merit(readings: Sequence[Hits | None], weights: FloatArray | None = None) -> FloatArray:
    """The figure of merit of one reader in one arm.

    Args:
        readings: of every case; None where it was not read.
        weights: of the cases ``[draws, cases]``; by default 1 each.

    Returns:
        ``[draws]``, in [0, 1]; NaN where there is no lesion.

    Examples:
        >>> found, missed = Hits(1, {1: 80.0}, ()), Hits(1, {}, (50.0,))
        >>> normal = Hits(0, {}, (60.0,))
        >>> figure_of_merit([found, missed, normal])
        array([0.5])
    """
    psi, first, second = comparisons(readings)
    weights = np.ones((1, len(readings))) if weights is None else weights
    a, b = weights * first, weights * second
    with np.errstate(invalid="ignore", divide="ignore"):
        merit: FloatArray = ((a @ psi) * b).sum(axis=1) / (a.sum(axis=1) * b.sum(axis=1))
    return merit
