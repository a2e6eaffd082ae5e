"""Fits the judge of the findings on some patients, and tests the list of findings on others.

    python Testing/benchmarks/judge.py SCRATCH [--fit]

SCRATCH holds the pairs of ``judge_pairs.py``. With ``--fit``, the coefficients in ``Resources/Models/judge.json`` are
fitted anew. Every figure is of patients that nothing was fitted on, and of the same kind of pairs. Writes
``results/findings.json`` and ``findings.png`` (reliability: how often what is called probable by so much is true).
"""

from __future__ import annotations

import argparse
import json
import pickle
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from judge_figures import draw, interval, reliability, resampled
from judge_pairs import Case
from numpy.typing import NDArray
from record import RESULTS, commit, write_results
from scipy.optimize import minimize

from ChangeMapJointLib.change.features import Features
from ChangeMapJointLib.change.judge import TERMS, JudgeModel, is_unchanged, listed_from, terms
from ChangeMapJointLib.change.judged import MeasuredCandidates, measure_candidates
from ChangeMapJointLib.change.method_table import METHODS
from ChangeMapJointLib.change.naming import classify_change
from ChangeMapJointLib.change.sections import OperatingPoint
from ChangeMapJointLib.comparison.assess import change_evidence, warp_and_map
from ChangeMapJointLib.comparison.device_fallback import DeviceFallback
from ChangeMapJointLib.comparison.methods import MethodOutput
from ChangeMapJointLib.core.displacement import warp
from ChangeMapJointLib.core.grid import Grid, bounding_box
from ChangeMapJointLib.core.resources import resource
from ChangeMapJointLib.evaluation.detection import ChangeRegion, match_labels
from ChangeMapJointLib.scan.pair import ScanPair
from ChangeMapJointLib.scan.scan import Scan
from ChangeMapJointLib.synthesis.truth import TrueChange

FALSE_PER_SCAN: dict[OperatingPoint, float] = {"sensitive": 1.0, "standard": 0.25}
PENALTIES = (0.003, 0.01, 0.03, 0.1)
# whatever the pairs show: these never speak for a lesion that changed, and those never against it
AGAINST = {
    "rim", "beyond", "along_surface", "gap", "distrust", "restless", "opposite", "displaced", "attached", "at_wall",
    "massive", "lesion_length", "region_length",
}  # fmt: skip
IN_FAVOUR = {"appeared", "changed", "growth", "prominence", "significance", "fullness", "covered", "peak"}


@dataclass(frozen=True)
class Candidate:
    """One measured candidate with what it really is.

    Attributes:
        pair: name of the pair and of its registration.
        patient: of the pair.
        fitted: whether its patient is one to fit on.
        default: whether the registration is the product's.
        features: by name.
        truth: id of the change that it hits; 0 where it hits none.
        opposite: whether it lies at a change of the other sign, so that it is neither right nor false.
        kind: as measured.
    """

    pair: str
    patient: str
    fitted: bool
    default: bool
    features: dict[str, float]
    truth: int
    opposite: bool
    kind: str


@dataclass(frozen=True)
class Lesion:
    """One true change of one pair: to be found."""

    pair: str
    patient: str
    fitted: bool
    default: bool
    change: TrueChange


# -- candidates ------------------------------------------------------------------------------
def candidates_of(path: Path) -> tuple[list[Candidate], list[Lesion]]:
    """The candidates of one pair, matched to its truth; kept beside the pair."""
    kept = path.with_suffix(".candidates")
    if kept.exists() and kept.stat().st_mtime > path.stat().st_mtime:
        with kept.open("rb") as stream:
            return pickle.load(stream)  # type: ignore[no-any-return]
    with path.open("rb") as stream:
        made = pickle.load(stream)
    case: Case = made["case"]
    found: list[Candidate] = []
    lesions: list[Lesion] = []
    for name, run in made["runs"].items():
        measured, regions = measure(made, run)
        who = (f"{case.name} {name}", case.patient, case.fitted, name == "default")
        lesions += [Lesion(*who, change) for change in made["changes"] if change.is_change]
        found += matched(measured, regions, made["changes"], made["volumes"][0].grid, who)
    with kept.open("wb") as stream:
        pickle.dump((found, lesions), stream)
    return found, lesions


def measure(made: dict[str, Any], run: dict[str, Any]) -> tuple[MeasuredCandidates, list[ChangeRegion]]:
    """Candidates as the product measures them, and the regions of the true changes under this registration."""
    scans = [Scan(volume, lungs) for volume, lungs in zip(made["volumes"], made["lungs"], strict=True)]
    pair, fallback = ScanPair(*scans, made["rigid"]), DeviceFallback(torch.device("cpu"))
    output = MethodOutput(run["registration"], run["matches"])
    warped, maps = warp_and_map(pair, output, run["trust"], fallback)
    field = run["registration"].field
    evidence = change_evidence(pair, maps, field, warped.lungs)
    measured = measure_candidates(evidence, lowest=METHODS["sequential"].candidates)
    regions = []
    now, before = made["lesions"]
    for change in made["changes"]:
        if change.is_change:
            earlier = warp(before == change.id, pair.template.grid, pair.reference.grid, field) >= 0.5
            later = now == change.id
            if (earlier | later).any():
                start, stop = bounding_box(earlier | later, 2)
                z, y, x = (slice(a, b) for a, b in zip(start, stop, strict=True))
                box = (z, y, x)
                regions.append(ChangeRegion(change.id, box, (earlier ^ later)[box], (earlier | later)[box]))
    return measured, regions


def matched(
    measured: MeasuredCandidates,
    regions: list[ChangeRegion],
    truth: Sequence[TrueChange],
    grid: Grid,
    who: tuple[str, str, bool, bool],
) -> list[Candidate]:
    """Every candidate with the change that it hits, by the rule of the evaluation."""
    labels = np.zeros(grid.shape, dtype=np.int32)
    for number, change in enumerate(measured.changes, start=1):
        labels[tuple(change.region.voxels.T)] = number
    detection = match_labels(labels, truth, grid, regions=regions)
    hit = {number: id_ for id_, numbers in detection.hits.items() for number in numbers}
    denser = {c.id: c.diameter_reference_mm > c.diameter_template_mm for c in truth}
    result = []
    for number, (change, features) in enumerate(zip(measured.changes, measured.features, strict=True), start=1):
        true = hit.get(number, 0)
        opposite = bool(true) and denser[true] != (change.region.sign > 0)
        kind = classify_change(change.region.sign, change.pair)
        result.append(Candidate(*who, asdict(features), 0 if opposite else true, opposite, kind))
    return result


# -- fitting ---------------------------------------------------------------------------------
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


# -- testing ---------------------------------------------------------------------------------
CLASSES = {
    "solid, 6 mm and more": lambda c: c.texture == "solid" and largest(c) >= 6,
    "solid, 4 to 6 mm": lambda c: c.texture == "solid" and 4 <= largest(c) < 6,
    "solid, 3 to 4 mm": lambda c: c.texture == "solid" and largest(c) < 4,
    "part-solid": lambda c: c.texture == "part-solid",
    "ground glass, 8 mm and more": lambda c: c.texture == "ground-glass" and largest(c) >= 8,
    "ground glass, 5 to 8 mm": lambda c: c.texture == "ground-glass" and largest(c) < 8,
    "diameter changes by less than 5.8 mm": lambda c: c.diameter_change_mm < 5.8,
    "juxtapleural, 6 mm and more": lambda c: c.place == "pleura" and largest(c) >= 6 and c.texture != "ground-glass",
    "at a vessel": lambda c: c.place == "vessel",
    "all": lambda c: True,
}


def largest(change: TrueChange) -> float:
    """The larger diameter in mm."""
    return max(change.diameter_reference_mm, change.diameter_template_mm)


def recall(lesions: Sequence[Lesion], listed: set[tuple[str, int]]) -> dict[str, Any]:
    """Share of each class that is listed, with its 95 % interval (Wilson)."""
    result = {}
    for name, belongs in CLASSES.items():
        of_class = [lesion for lesion in lesions if belongs(lesion.change)]
        found = sum((lesion.pair, lesion.change.id) in listed for lesion in of_class)
        result[name] = [found, len(of_class), *interval(found, len(of_class))]
    return result


def over_pairs(lesions: Sequence[Lesion], listed: set[tuple[str, int]]) -> dict[str, tuple[float, float]]:
    """The 95 % interval of each class by drawing whole pairs: changes of one pair share its noise and registration."""
    result = {}
    for name, belongs in CLASSES.items():
        of_class = [lesion for lesion in lesions if belongs(lesion.change)]
        names = sorted({lesion.pair for lesion in lesions})
        total = [sum(lesion.pair == n for lesion in of_class) for n in names]
        found = [sum(lesion.pair == n and (n, lesion.change.id) in listed for lesion in of_class) for n in names]
        result[name] = resampled(found, total)
    return result


def test(candidates: list[Candidate], lesions: list[Lesion], model: dict[str, Any]) -> dict[str, Any]:
    """Recall by class at both rates of false findings, kinds, null pairs and calibration, on the patients left out."""
    used = [c for c in candidates if not c.fitted and c.default]
    lesions = [lesion for lesion in lesions if not lesion.fitted and lesion.default]
    w = np.array([model["constant"], *(model["coefficients"][name] for name in TERMS)])
    p = probability(matrix(used), w)
    pairs = sorted({c.pair for c in used})
    null = [name for name in pairs if "_null" in name]
    result: dict[str, Any] = {
        "pairs": len(pairs),
        "null_pairs": len(null),
        "patients": sorted({c.patient for c in used}),
    }
    result["candidates"] = {"all": len(used), "of_changes": sum(c.truth > 0 for c in used)}
    result["found_among_candidates"] = recall(lesions, {(c.pair, c.truth) for c in used if c.truth})
    for name, least, reachable in tested_points(used, p, model["operating_points"]):
        listed = [c for c, v in zip(used, reachable, strict=True) if v >= least]
        false = [c for c in listed if not c.truth and not c.opposite]
        hits = {(c.pair, c.truth) for c in listed if c.truth}
        result[name] = {
            "probability": round(least, 3),
            "false_per_scan": round(len(false) / len(pairs), 3),
            "false_per_scan_interval": resampled([sum(c.pair == pair for c in false) for pair in pairs]),
            "false_per_null_pair": round(sum("_null" in c.pair for c in false) / max(len(null), 1), 3),
            "recall": recall(lesions, hits),
            "recall_interval_over_pairs": over_pairs(lesions, hits),
            "kind_right": kinds(listed, lesions),
        }
    y = np.array([float(c.truth > 0) for c in used])
    keep = np.array([not c.opposite for c in used])
    result["calibration_error"], result["reliability"] = reliability(p[keep], y[keep])
    return result


def tested_points(
    used: list[Candidate], p: NDArray[np.float64], points: dict[OperatingPoint, float]
) -> list[tuple[str, float, NDArray[np.float64]]]:
    """The operating points, and those at which the tested pairs have exactly the wanted rates of false findings.

    Each with its probability, and with the probabilities of all candidates: 0 where the point cannot list one.
    """
    judge = JudgeModel(0.0, (), points)
    result = []
    for name, least in points.items():
        limits = [listed_from(Features(**c.features), name, judge) for c in used]
        reachable = np.where(p >= limits, p, 0.0)
        result.append((str(name), least, reachable))
        if name in FALSE_PER_SCAN:
            free = JudgeModel(0.0, (), {**points, name: 0.0})
            limits = [listed_from(Features(**c.features), name, free) for c in used]
            reachable = np.where(p >= limits, p, 0.0)
            rate = FALSE_PER_SCAN[name]
            result.append((f"at {rate:g} false a scan", operating_point(used, reachable, rate), reachable))
    return result


def kinds(listed: Sequence[Candidate], lesions: Sequence[Lesion]) -> list[int]:
    """Changes whose kind is right, and changes that are listed."""
    true = {(lesion.pair, lesion.change.id): lesion.change.kind for lesion in lesions}
    named: dict[tuple[str, int], list[str]] = {}
    for c in listed:
        if c.truth:
            named.setdefault((c.pair, c.truth), []).append(c.kind)
    return [sum(true[key] in found for key, found in named.items()), len(named)]


def main() -> None:
    """Fit, if asked to, test and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--fit", action="store_true", help="fit the coefficients anew")
    arguments = parser.parse_args()
    found: list[Candidate] = []
    lesions: list[Lesion] = []
    for path in sorted(arguments.scratch.glob("*.pkl")):
        some, more = candidates_of(path)
        print(path.stem, len(some), sum(c.truth > 0 for c in some), len(more), flush=True)
        found += some
        lesions += more
    file = resource("Models") / "judge.json"
    if arguments.fit:
        file.write_text(json.dumps(train(found), indent=2) + "\n", "utf-8")
    figures = test(found, lesions, json.loads(file.read_text("utf-8")))
    print(json.dumps(figures, indent=1))
    write_results("findings", {"synthetic pairs of patients left out": figures})
    draw(RESULTS / "findings.png", figures["reliability"], figures["calibration_error"])


if __name__ == "__main__":
    main()
