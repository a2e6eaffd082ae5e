"""The judged list: candidates, each measured in both scans, each with the probability that a lesion really changed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ChangeMapJointLib.change.build_finding import build_finding
from ChangeMapJointLib.change.candidates import faint_candidates
from ChangeMapJointLib.change.evidence import ChangeEvidence
from ChangeMapJointLib.change.features import Features, measure_features
from ChangeMapJointLib.change.finding import Finding
from ChangeMapJointLib.change.findings import FindingOptions, Findings
from ChangeMapJointLib.change.judge import judge_change
from ChangeMapJointLib.change.judgement import Judgement
from ChangeMapJointLib.change.lesion_pairs import Change
from ChangeMapJointLib.change.measured import measure_lesions
from ChangeMapJointLib.change.naming import classify_change, dipole_partners
from ChangeMapJointLib.change.regions import change_regions
from ChangeMapJointLib.change.sections import SECTIONS

FEWEST_VOXELS = 3  # of a region: fewer cannot be told from what interpolation leaves
_KIND_ORDER = {"new": 0, "grown": 0, "resolved": 1, "shrunk": 1, "increase": 2, "decrease": 2}


@dataclass(frozen=True, eq=False)  # arrays have no one answer to ==
class MeasuredCandidates:
    """The candidates of a pair before they are judged.

    Attributes:
        changes: each with its region and the lesion in both scans.
        features: of each.
        partners: from the index of a change to that of the opposite change that is the same structure.
        dropped: number of smaller regions that were not measured.
    """

    changes: list[Change]
    features: list[Features]
    partners: dict[int, int]
    dropped: int


def measure_candidates(
    evidence: ChangeEvidence, *, lowest: float, options: FindingOptions | None = None
) -> MeasuredCandidates:
    """Find the candidates and measure each in both scans.

    Args:
        evidence: maps, scans and deformation.
        lowest: value of the change map from which every region is a candidate, in (0, 1].
        options: how regions and lesions are measured.
    """
    options = options or FindingOptions()
    grid, scans = evidence.grid, (evidence.pair.reference, evidence.pair.template)
    regions = change_regions(
        evidence.change_map,
        evidence.signed_hu,
        grid,
        threshold=min(lowest, options.threshold),
        min_voxels=options.min_voxels,
        connectivity=options.connectivity,
        merge_mm=options.merge_mm,
        bridge=options.bridge,
    )
    kept = regions[: options.max_findings]
    taken = np.zeros(grid.shape, dtype=bool)
    for region in kept:
        taken[tuple(region.voxels.T)] = True
    kept = kept + faint_candidates(evidence, taken)
    changes = measure_lesions(kept, grid, evidence.field, *scans, options=options.measure)
    partners = dipole_partners(changes, grid, farthest_mm=options.dipole_mm)
    features = [measure_features(change, evidence, displaced=i in partners) for i, change in enumerate(changes)]
    return MeasuredCandidates(changes, features, partners, max(len(regions) - options.max_findings, 0))


def judge_changes(evidence: ChangeEvidence, *, lowest: float, options: FindingOptions | None = None) -> Findings:
    """Find candidates, measure them in both scans, and sort them into the sections of the list.

    Findings come first: new and grown ones, then resolved and shrunk ones, then changes of other kinds; within each by
    probability and size. The others follow by section.

    Args:
        evidence: maps, scans and deformation.
        lowest: value of the change map from which every region is a candidate, in (0, 1].
        options: operating point, and how lesions are measured.
    """
    options = options or FindingOptions()
    grid = evidence.grid
    measured = measure_candidates(evidence, lowest=lowest, options=options)
    changes = measured.changes
    judged = [
        judge_change(features, options.operating_point, measurable=len(change.region.voxels) >= FEWEST_VOXELS)
        for change, features in zip(changes, measured.features, strict=True)
    ]
    order = sorted(range(len(changes)), key=lambda i: _sort_key(changes[i], judged[i]))
    number = {i: n for n, i in enumerate(order, start=1)}
    labels = np.zeros(grid.shape, dtype=np.int32)
    items: list[Finding] = []
    for i in order:
        labels[tuple(changes[i].region.voxels.T)] = number[i]
        items.append(
            build_finding(
                number[i],
                changes[i],
                partner=number[measured.partners[i]] if i in measured.partners else None,
                signed_hu=evidence.signed_hu,
                grid=grid,
                field=evidence.field,
                reference=evidence.pair.reference,
                template=evidence.pair.template,
                trust=evidence.trust,
                judgement=judged[i],
            )
        )
    listed = tuple(item for item in items if item.section == "finding")
    return Findings(
        listed,
        labels,
        measured.dropped,
        options.threshold,
        others=tuple(items[len(listed) :]),
        operating_point=options.operating_point,
    )


def other_changes(findings: Findings, threshold: float) -> Findings:
    """The changes that are not listed, as :attr:`Findings.items`, for ``candidates.json``; ids stay as they are.

    Args:
        findings: of :func:`judge_changes`.
        threshold: value of the change map from which all regions were candidates.
    """
    return replace(findings, items=findings.others, others=(), threshold=threshold)


def _sort_key(change: Change, judgement: Judgement) -> tuple[float, ...]:
    """Section, then for findings the kind, then probability in steps of 0.1, then size."""
    kind = classify_change(change.region.sign, change.pair, displaced=judgement.reason == "displaced")
    lesion = change.pair.primary(change.region.sign)
    size = change.region.weight if lesion is None else lesion.measure.volume_ml * 1e6
    return (
        SECTIONS.index(judgement.section),
        _KIND_ORDER[kind] if judgement.section == "finding" else 0,
        -round(judgement.probability, 1),
        -size,
    )
