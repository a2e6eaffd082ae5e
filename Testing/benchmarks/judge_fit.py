"""Fits the judge of the findings: a logistic model of what a candidate shows, with its operating points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from judge_candidates import Candidate
from numpy.typing import NDArray
from record import commit
from scipy.optimize import minimize

from ChangeMapJointLib.change.features import Features
from ChangeMapJointLib.change.judge import TERMS, is_unchanged, terms
from ChangeMapJointLib.change.sections import OperatingPoint

FALSE_PER_SCAN: dict[OperatingPoint, float] = {"sensitive": 1.0, "standard": 0.25}
PENALTIES = (0.003, 0.01, 0.03, 0.1)
# whatever the pairs show: these never speak for a lesion that changed, and those never against it
AGAINST = {
    "rim", "beyond", "along_surface", "gap", "distrust", "restless", "opposite", "displaced", "attached", "at_wall",
    "massive", "lesion_length", "region_length",
}  # fmt: skip
IN_FAVOUR = {"appeared", "changed", "growth", "prominence", "significance", "fullness", "covered", "peak"}


def matrix(candidates: Sequence[Candidate]) -> NDArray[np.float64]:
    """The terms of the model, ``[candidates, terms]``."""
    return np.array([terms(Features(**c.features)) for c in candidates])


def bounds() -> list[tuple[float | None, float | None]]:
    """Limits of the constant and the coefficients: what is known beforehand, since no synthetic pair shows it all."""
    limits: list[tuple[float | None, float | None]] = [(None, None)]
    for name in TERMS:
        parts = set(name.split("*"))
        limits.append((None, 0.0) if parts & AGAINST else (0.0, None) if parts & IN_FAVOUR else (None, None))
    return limits


def fit(x: NDArray[np.float64], y: NDArray[np.float64], penalty: float) -> NDArray[np.float64]:
    """Constant and coefficients of the logistic model, by penalised likelihood; terms are scaled inside."""
    mean, spread = x.mean(0), x.std(0) + 1e-6
    z = (x - mean) / spread

    def loss(w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logit = w[0] + z @ w[1:]
        value = float(np.mean(np.logaddexp(0.0, logit) - y * logit)) + 0.5 * penalty * float(w[1:] @ w[1:])
        error = (1.0 / (1.0 + np.exp(-logit)) - y) / len(y)
        return value, np.r_[error.sum(), z.T @ error + penalty * w[1:]]

    w = minimize(loss, np.zeros(1 + x.shape[1]), jac=True, method="L-BFGS-B", bounds=bounds()).x
    coefficients = w[1:] / spread
    return np.r_[w[0] - coefficients @ mean, coefficients]


def probability(
    x: NDArray[np.float64], w: NDArray[np.float64], scale: tuple[float, float] = (1.0, 0.0)
) -> NDArray[np.float64]:
    """Of each candidate; ``scale`` calibrates the logit."""
    logit = np.clip(scale[0] * (w[0] + x @ w[1:]) + scale[1], -30, 30)
    return 1.0 / (1.0 + np.exp(-logit))


def left_out(
    candidates: Sequence[Candidate], x: NDArray[np.float64], y: NDArray[np.float64], penalty: float
) -> NDArray[np.float64]:
    """The logit of each candidate by a model that was fitted without its patient."""
    patients = np.array([c.patient for c in candidates])
    logit = np.zeros(len(y))
    for patient in sorted(set(patients)):
        out = patients == patient
        w = fit(x[~out], y[~out], penalty)
        logit[out] = w[0] + x[out] @ w[1:]
    return logit


def calibrated(logit: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Platt's scale and shift of logits that were left out."""

    def loss(s: NDArray[np.float64]) -> float:
        value = s[0] * logit + s[1]
        return float(np.mean(np.logaddexp(0.0, value) - y * value))

    scale, shift = minimize(loss, np.array([1.0, 0.0]), method="Nelder-Mead").x
    return float(scale), float(shift)


def operating_point(candidates: Sequence[Candidate], p: NDArray[np.float64], false_per_scan: float) -> float:
    """The lowest probability at which so many false candidates a scan are listed, with the product's registration."""
    scans = len({c.pair for c in candidates if c.default})
    false = sorted(
        (v for c, v in zip(candidates, p, strict=True) if c.default and not c.truth and not c.opposite), reverse=True
    )
    allowed = int(false_per_scan * scans)
    return float(np.clip(false[allowed] + 1e-3 if allowed < len(false) else 0.01, 0.02, 0.98))


def train(candidates: list[Candidate]) -> dict[str, Any]:
    """Fit, calibrate and choose the operating points, on the patients to fit on only."""
    used = [c for c in candidates if c.fitted and not c.opposite]
    x, y = matrix(used), np.array([float(c.truth > 0) for c in used])
    losses = {}
    for penalty in PENALTIES:
        logit = left_out(used, x, y, penalty)
        losses[penalty] = float(np.mean(np.logaddexp(0.0, logit) - y * logit))
    penalty = min(losses, key=lambda key: losses[key])
    logit = left_out(used, x, y, penalty)
    default = np.array([c.default for c in used])
    scale, shift = calibrated(logit[default], y[default])
    w = fit(x, y, penalty)
    held = 1.0 / (1.0 + np.exp(-np.clip(scale * logit + shift, -30, 30)))
    may = np.array([not is_unchanged(Features(**c.features)) for c in used])
    points = {name: round(operating_point(used, held * may, rate), 3) for name, rate in FALSE_PER_SCAN.items()}
    points["specific"] = round(max(0.9, points["standard"] + 0.5 * (1 - points["standard"])), 3)
    print("penalty", penalty, losses, "calibration", scale, shift, "points", points, flush=True)
    return {
        "program": "ChangeMapJoint judge of the findings",
        "data": "Synthetic change and motion on real CT, one lung a pair; no real change is among it.",
        "fitted_on": sorted({c.patient for c in used}),
        "candidates": {"changed": int(y.sum()), "not_changed": int((1 - y).sum())},
        "commit": commit(),
        "penalty": penalty,
        "operating_points": points,
        "constant": round(scale * w[0] + shift, 5),
        "coefficients": {name: round(scale * v, 5) for name, v in zip(TERMS, w[1:], strict=True)},
    }
