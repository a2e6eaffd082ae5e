"""``changemap demo``: compare the sample pair, and score the findings against its known truth."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ChangeMapJointLib.comparison.result import Result
from ChangeMapJointLib.comparison.run import Request
from ChangeMapJointLib.core.resources import resource
from ChangeMapJointLib.core.sample_pair import NOTICE
from ChangeMapJointLib.evaluation.detection import Detection, match_findings
from ChangeMapJointLib.io import run_files
from ChangeMapJointLib.io.provenance import sha256_of
from ChangeMapJointLib.synthesis.truth import read_truth


@dataclass(frozen=True)
class Score:
    """The score of the demo.

    Attributes:
        detection: true changes that were found, and false findings.
        error_before_mm: mean distance of corresponding lung points before registration.
        error_after_mm: the same after registration.
        elsewhere: section in which a missed true change is listed, by its id in the truth.
    """

    detection: Detection
    error_before_mm: float
    error_after_mm: float
    elsewhere: Mapping[object, str] = field(default_factory=dict)

    def figures(self) -> dict[str, float | int]:
        """Return the figures by name."""
        solid_found, solid = self.detection.found(solid_only=True), self.detection.changes(solid_only=True)
        return {
            "solid_changes": len(solid),
            "solid_changes_found": len(solid_found),
            "other_changes": len(self.detection.changes()) - len(solid),
            "other_changes_found": len(self.detection.found()) - len(solid_found),
            "kinds_right": sum(true == reported for true, reported in self.detection.kinds.values()),
            "false_findings": len(self.detection.false_volumes_ml),
            "largest_false_ml": round(self.detection.largest_false_ml, 3),
            "error_before_mm": round(self.error_before_mm, 2),
            "error_after_mm": round(self.error_after_mm, 2),
        }

    def lines(self) -> list[str]:
        """Return the figures as sentences."""
        n = self.figures()
        lines = [
            f"Found {n['solid_changes_found']} of {n['solid_changes']} true solid changes"
            f" and {n['other_changes_found']} of {n['other_changes']} in ground glass;"
            f" {n['kinds_right']} with the right kind.",
            f"False findings: {n['false_findings']}, the largest of {n['largest_false_ml']:.2f} ml.",
            f"Corresponding lung points: {n['error_before_mm']} mm apart before registration,"
            f" {n['error_after_mm']} mm after it (mean).",
        ]
        missed = self.detection.missed()
        texts = [
            f"{c.kind} {c.texture} {c.diameter_template_mm:g} to {c.diameter_reference_mm:g} mm"
            + (f" (listed as {self.elsewhere[c.id]})" if c.id in self.elsewhere else "")
            for c in missed
        ]
        return [*lines, *([f"Missed: {'; '.join(texts)}."] if texts else [])]


def demo_request(out: Path, device: str, *, overwrite: bool = False) -> Request:
    """Return the request for the sample pair.

    Args:
        out: the result folder; an earlier demo there is replaced.
        device: ``auto``, ``cpu`` or ``cuda``.
        overwrite: also replace an earlier run on other scans.
    """
    folder = resource("SamplePair")
    attribution = (folder / "ATTRIBUTION.txt").read_text("utf-8").strip()
    return Request(
        folder / "reference.nrrd",
        folder / "template.nrrd",
        out,
        device=device,
        overwrite=overwrite or is_demo(out),
        notices=(NOTICE,),
        keep_names=True,  # of the sample pair
        attribution=tuple(line for line in attribution.splitlines() if line.strip()),
    )


def is_demo(out: Path) -> bool:
    """Return whether ``out`` is the folder of an earlier demo that no reader has decided on."""
    try:
        record = json.loads((out / run_files.RUN).read_text("utf-8"))
        same = bool(record["reference"]["sha256"] == sha256_of(resource("SamplePair", "reference.nrrd")))
        return same and not (out / run_files.READING).exists()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def score(result: Result) -> Score:
    """Score a run on the sample pair against its truth."""
    truth = read_truth(resource("SamplePair", "truth.json"))
    assert result.findings is not None
    assert truth.points is not None
    grid = result.pair.reference.grid
    labels, items = result.findings.labels, result.findings.items
    assert labels is not None
    listed = np.isin(labels, [item.id for item in items])  # the others are labelled, too
    detection = match_findings(items, truth.changes, grid, labels=np.where(listed, labels, 0))
    others = {item.id: item.section for item in result.findings.others}
    folded = match_findings(result.findings.others, truth.changes, grid, labels=np.where(listed, 0, labels))
    reference_mm, template_mm = truth.points.reference_mm, truth.points.template_mm
    return Score(
        detection,
        float(np.linalg.norm(reference_mm - template_mm, axis=1).mean()),
        float(np.linalg.norm(result.deformation.apply(reference_mm) - template_mm, axis=1).mean()),
        {change.id: others[min(folded.hits[change.id])] for change in detection.missed() if folded.hits[change.id]},
    )
