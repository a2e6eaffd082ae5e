"""A linear mixed model of the logarithm of the reading time, with crossed random effects of reader and case."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ChangeMapJointLib.evaluation.readers.log import ARMS, Arm, CaseReading

FEW_READERS = 5


@dataclass(frozen=True)
class ArmEffect:
    """How an arm changes the reading time.

    Attributes:
        arm: the arm.
        ratio: its reading time divided by that of the first arm, of the same reader and case.
        low: lower end of the 95 % interval.
        high: upper end.
        p: two-sided.
    """

    arm: Arm
    ratio: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class MixedModel:
    """The fitted model.

    Attributes:
        base: the arm that the others are compared with.
        effects: of the other arms.
        period: whether the number of the session is in the model, so that practice is separated from the arm.
        reader_sd: standard deviation of log time between readers.
        case_sd: between cases.
        residual_sd: of what remains.
        readings: number of readings.
        notes: what to keep in mind, one sentence each.
    """

    base: Arm
    effects: tuple[ArmEffect, ...]
    period: bool
    reader_sd: float
    case_sd: float
    residual_sd: float
    readings: int
    notes: tuple[str, ...]


def fit_mixed_model(readings: Sequence[CaseReading], periods: Sequence[int]) -> MixedModel | None:
    """Fit log(active time) = arm (+ period) + reader + case + residual, by REML.

    Args:
        readings: all readings with a time above 0.
        periods: for each, the number of its session among those of its reader, from 1.

    Returns:
        The model; None where there are fewer than two arms, readers or cases, or it cannot be fitted.
    """
    import pandas as pd
    import statsmodels.formula.api as smf

    table = pd.DataFrame(
        {
            "log_s": np.log([r.active_s for r in readings]),
            "arm": [r.arm for r in readings],
            "reader": [r.session.reader for r in readings],
            "case": [r.case for r in readings],
            "period": np.array(periods, float),
        }
    )
    arms = [arm for arm in ARMS if (table["arm"] == arm).any()]
    if min(len(arms), table["reader"].nunique(), table["case"].nunique()) < 2 or len(table) <= len(arms) + 2:
        return None
    design = np.column_stack([np.ones(len(table)), *[table["arm"] == arm for arm in arms[1:]], table["period"]])
    period = bool(np.linalg.matrix_rank(design) == design.shape[1])
    formula = f"log_s ~ C(arm, Treatment('{arms[0]}'))" + (" + period" if period else "")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = smf.mixedlm(
                formula,
                table,
                groups=np.ones(len(table)),
                re_formula="0",
                vc_formula={"case": "0 + C(case)", "reader": "0 + C(reader)"},
            )
            fitted = model.fit(reml=True, method=["lbfgs", "powell"])
        except (np.linalg.LinAlgError, ValueError):
            return None
    notes = list(_notes(table, period))
    if not fitted.converged:
        notes.append("The fit did not converge; do not report it.")
    elif any("boundary" in str(w.message) or "singular" in str(w.message).lower() for w in caught):
        notes.append("Readers or cases hardly differ beyond chance: a variance lies at 0.")
    effects = tuple(_effect(fitted, arms[0], arm) for arm in arms[1:])
    if not all(np.isfinite([e.ratio, e.low, e.high, e.p]).all() for e in effects):
        return None
    case_sd, reader_sd = np.sqrt(np.maximum(fitted.vcomp, 0.0))  # in the order of their names
    residual = float(np.sqrt(fitted.scale))
    return MixedModel(arms[0], effects, period, float(reader_sd), float(case_sd), residual, len(table), tuple(notes))


def _effect(fitted: Any, base: Arm, arm: Arm) -> ArmEffect:
    name = f"C(arm, Treatment('{base}'))[T.{arm}]"
    low, high = fitted.conf_int().loc[name]
    return ArmEffect(
        arm, float(np.exp(fitted.params[name])), float(np.exp(low)), float(np.exp(high)), float(fitted.pvalues[name])
    )


def _notes(table: Any, period: bool) -> list[str]:
    notes = []
    if table["reader"].nunique() < FEW_READERS:
        notes.append(
            f"{table['reader'].nunique()} readers: the intervals hold for these readers, not for readers in general, "
            "and are too narrow."
        )
    if not period:
        notes.append("Arm and session coincide for every reader: the effect of the arm includes that of practice.")
    return notes
