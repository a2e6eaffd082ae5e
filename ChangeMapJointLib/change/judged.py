"""The judged list: candidates, each measured in both scans, each with the probability that a lesion really changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.change.build_finding import build_finding
from ChangeMapJointLib.change.finding import Finding
from ChangeMapJointLib.change.findings import FindingOptions, Findings
from ChangeMapJointLib.change.judge import judge_change
from ChangeMapJointLib.change.judgement import Judgement
from ChangeMapJointLib.change.lesion_pairs import Change
from ChangeMapJointLib.change.measured import measure_lesions
from ChangeMapJointLib.change.naming import classify_change, dipole_partners
from ChangeMapJointLib.change.regions import SignedArray, change_regions
from ChangeMapJointLib.change.sections import SECTIONS
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.grid import FloatArray
from ChangeMapJointLib.scan.pair import ScanPair

_KIND_ORDER = {"new": 0, "grown": 0, "resolved": 1, "shrunk": 1, "increase": 2, "decrease": 2}


@dataclass(frozen=True, eq=False)  # arrays have no one answer to ==
class ChangeEvidence:
    """What a comparison knows about change; arrays are ``[z, y, x]`` on the reference's grid.

    Attributes:
        change_map: CM_seq or CM_comb, float32 [0, 1].
        signed_hu: R - T(y) in HU, at equal blur.
        pair: the current scan R and the prior T, not warped, with their lungs.
        field: y from R to T.
        lungs_warped: M_T(y), bool.
        trust: trust in [0, 1] at points ``[n, 3]`` (x, y, z in mm, LPS); None where unknown.
        learned: CM_learn of the joint method, float32 [0, 1]; None without it.
    """

    change_map: NDArray[np.float32]
    signed_hu: SignedArray
    pair: ScanPair
    field: DisplacementField
    lungs_warped: NDArray[np.bool_]
    trust: Callable[[FloatArray], NDArray[np.floating]] | None = None
    learned: NDArray[np.float32] | None = None


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
    grid = evidence.pair.reference.grid
    reference, template = evidence.pair.reference, evidence.pair.template
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
    changes = measure_lesions(
        regions[: options.max_findings], grid, evidence.field, reference, template, options=options.measure
    )
    partners = dipole_partners(changes, grid, farthest_mm=options.dipole_mm)
    judged = []
    for i, change in enumerate(changes):
        points = change.region.points_mm(grid)
        trust = None if evidence.trust is None else float(evidence.trust(points).mean())
        judged.append(
            judge_change(
                change,
                grid,
                rim_share=_rim_share(evidence, change),
                trust=trust,
                displaced=i in partners,
                operating_point=options.operating_point,
            )
        )
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
                partner=number[partners[i]] if i in partners else None,
                signed_hu=evidence.signed_hu,
                grid=grid,
                field=evidence.field,
                reference=reference,
                template=template,
                trust=evidence.trust,
                judgement=judged[i],
            )
        )
    listed = tuple(item for item in items if item.section == "finding")
    return Findings(
        listed,
        labels,
        max(len(regions) - options.max_findings, 0),
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


def _rim_share(evidence: ChangeEvidence, change: Change) -> float:
    """Share of a region where only one of the two lung masks has lung."""
    voxels = tuple(change.region.voxels.T)
    return float((evidence.pair.reference.mask[voxels] != evidence.lungs_warped[voxels]).mean())
