"""The judged list of a run: its changes by section, at any operating point, without a new run.

A run stores the probability of every change that it measured, and the one from which a change is a finding at each
operating point. Another point therefore moves changes between *findings* and the other sections; nothing is measured
again, and no model is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ChangeMapJointLib.change.kinds import DENSER_KINDS
from ChangeMapJointLib.change.sections import OPERATING_POINTS, SECTIONS, OperatingPoint, Section
from ChangeMapJointLib.change.threshold_list import ListedChange
from ChangeMapJointLib.core.grid import Grid

Entry = Mapping[str, Any]  # one change in ``findings.json`` or ``candidates.json``
Record = Mapping[str, Any]  # the content of one of these files
_FIRST = {"new": 0, "grown": 0, "resolved": 1, "shrunk": 1}


def operating_point_of(findings: Record) -> OperatingPoint | None:
    """The operating point of a run, from ``findings.json``; None where nothing judged its changes.

    Examples:
        >>> operating_point_of({"operating_point": "standard", "findings": []})
        'standard'
        >>> operating_point_of({"findings": []}) is None
        True
    """
    name = findings.get("operating_point")
    return next((point for point in OPERATING_POINTS if point == name), None)


def listing_thresholds(findings: Record) -> dict[OperatingPoint, float]:
    """Probability from which a change is a finding, by operating point, from ``findings.json``; empty without them."""
    stored = findings.get("listed_from")
    if not isinstance(stored, Mapping) or operating_point_of(findings) is None:
        return {}
    return {point: float(stored[point]) for point in OPERATING_POINTS if isinstance(stored.get(point), (int, float))}


def section_of(entry: Entry, point: OperatingPoint, points: Mapping[OperatingPoint, float]) -> Section | None:
    """The section of a change at an operating point; None for one that was not judged.

    As the judge does: what is stable stays so, and what a reason explains must be as probable as ``specific`` asks for,
    except with ``sensitive``. What is no longer probable enough for a finding is *possible*: nothing explains it.

    Args:
        entry: of ``findings.json`` or ``candidates.json``.
        point: how probable a finding must be.
        points: from :func:`listing_thresholds`.
    """
    probability, stored = entry.get("probability"), entry.get("section")
    if not isinstance(probability, (int, float)) or stored not in SECTIONS:
        return None
    least = points.get(point, 1.0)
    if stored == "explained" and point != "sensitive":
        least = max(least, points.get("specific", 1.0))
    if stored != "stable" and probability >= least:
        return "finding"
    return "possible" if stored == "finding" else stored


def judged_sections(
    findings: Record, candidates: Record, grid: Grid, point: OperatingPoint
) -> dict[Section, list[ListedChange]]:
    """The changes of a run by section, in the order of :data:`~ChangeMapJointLib.change.sections.SECTIONS`.

    Findings come as a run lists them: new and grown ones, then resolved and shrunk ones, then others; each by
    probability in steps of 0.1, then as the run sorted them. The other sections keep the run's order.

    Args:
        findings: content of ``findings.json``.
        candidates: content of ``candidates.json``; empty where there is none.
        grid: of the change map.
        point: how probable a finding must be; the run's own, or one of :func:`listing_thresholds`.
    """
    own, points = operating_point_of(findings), listing_thresholds(findings)
    sections: dict[Section, list[Entry]] = {name: [] for name in SECTIONS}
    for entry in (*findings.get("findings", ()), *candidates.get("findings", ())):
        section = entry.get("section") if point == own else section_of(entry, point, points)
        if section in sections:
            sections[section].append(entry)
    if point != own:
        sections["finding"].sort(key=_as_a_run_sorts)
    used: set[int] = set()
    return {name: [_row(entry, grid, used) for entry in entries] for name, entries in sections.items()}


def _as_a_run_sorts(entry: Entry) -> tuple[float, float, float]:
    return (_FIRST.get(entry["kind"], 2), -round(entry["probability"], 1), entry["id"])


def _row(entry: Entry, grid: Grid, used: set[int]) -> ListedChange:
    """One row; its key is the voxel of its peak, as in the list by the map, so that a reader's verdict is kept."""
    peak_mm = entry.get("peak_mm") or entry["centre_mm"]
    key = _voxel(peak_mm, grid)
    if key in used:
        key = -int(entry["id"])  # two changes share a peak
    used.add(key)
    return ListedChange(
        key=key,
        kind=str(entry["kind"]),
        sign=1 if entry["kind"] in DENSER_KINDS else -1,
        volume_ml=float(entry.get("volume_ml") or 0.0),
        peak=float(entry.get("peak") or 0.0),
        peak_mm=tuple(peak_mm),
        centre_mm=tuple(entry["centre_mm"]),
        trust=entry.get("trust"),
        measured=entry,
    )


def _voxel(point_mm: Sequence[float], grid: Grid) -> int:
    index = np.rint(grid.to_index(np.asarray(point_mm, dtype=float))).astype(int)[::-1]
    return int(np.ravel_multi_index(tuple(np.clip(index, 0, np.subtract(grid.shape, 1))), grid.shape))
