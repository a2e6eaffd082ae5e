"""The candidates of the pairs of ``judge_pairs.py``, measured as the product does it, with what each really is."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from judge_pairs import Case

from ChangeMapJointLib.change.judged import MeasuredCandidates, measure_candidates
from ChangeMapJointLib.change.method_table import METHODS
from ChangeMapJointLib.change.naming import classify_change
from ChangeMapJointLib.comparison.assess import change_evidence, make_maps, warp_template
from ChangeMapJointLib.comparison.device_fallback import DeviceFallback
from ChangeMapJointLib.comparison.methods import MethodOutput
from ChangeMapJointLib.core.displacement import warp
from ChangeMapJointLib.core.grid import Grid, bounding_box
from ChangeMapJointLib.evaluation.detection import ChangeRegion, match_labels
from ChangeMapJointLib.scan.pair import ScanPair
from ChangeMapJointLib.scan.scan import Scan
from ChangeMapJointLib.synthesis.truth import TrueChange


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
    warped = warp_template(pair, output, fallback)
    maps = make_maps(warped, output, run["trust"])
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
