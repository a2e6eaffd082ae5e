"""Fits the judge of the findings on some patients, and tests the list of findings on others.

    python Testing/benchmarks/judge.py SCRATCH [--fit]

SCRATCH holds the pairs of ``judge_pairs.py``. With ``--fit``, the coefficients in ``Resources/Models/judge.json`` are
fitted anew. Every figure is of patients that nothing was fitted on, and of the same kind of pairs. Writes
``results/findings.json`` and ``findings.png`` (reliability: how often what is called probable by so much is true).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from judge_candidates import Candidate, Lesion, candidates_of
from judge_figures import draw, interval, reliability, resampled
from judge_fit import FALSE_PER_SCAN, matrix, operating_point, probability, train
from numpy.typing import NDArray
from record import RESULTS, write_results

from ChangeMapJointLib.change.features import Features
from ChangeMapJointLib.change.judge import TERMS, JudgeModel, listed_from
from ChangeMapJointLib.change.sections import OperatingPoint
from ChangeMapJointLib.core.resources import resource
from ChangeMapJointLib.synthesis.truth import TrueChange

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
