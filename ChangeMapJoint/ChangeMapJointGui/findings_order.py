"""The order of the list: new and grown first, or by a column; without Qt."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ChangeMapJointGui import findings_words as words
from ChangeMapJointGui.findings_words import FindingRow
from ChangeMapJointLib.export import finding_text

SAME_PLACE_MM = 10.0
FIRST = {"new": 0, "grown": 0, "resolved": 1, "shrunk": 1}  # then the others
Key = Callable[[FindingRow], Any]  # None where unknown: such rows come last


def readingOrder(rows: Sequence[FindingRow]) -> list[FindingRow]:
    """Return the rows with new and grown changes first, then resolved and shrunk ones; else as they were."""
    return sorted(rows, key=lambda row: FIRST.get(row.change.kind, 2))


def sortedBy(rows: Sequence[FindingRow], column: int, descending: bool, facts: Any, verdict: Key) -> list[FindingRow]:
    """Return the rows in the order of a column; rows of equal value stay in their order, unknown values come last.

    Args:
        rows: of one section.
        column: of the table.
        descending: the largest first.
        facts: of the two scans, see :class:`~ChangeMapJointGui.pair_facts.PairFacts`.
        verdict: the reader's verdict on a row.
    """
    key = _keys(facts, verdict)[column]
    known = [row for row in rows if key(row) not in (None, "")]
    unknown = [row for row in rows if key(row) in (None, "")]
    return sorted(known, key=key, reverse=descending) + unknown


def sortedWithin(
    sections: Sequence[str] | None, rows: Sequence[FindingRow], column: int, descending: bool, facts: Any, verdict: Key
) -> list[FindingRow]:
    """As :func:`sortedBy`, within each section in its order; without sections, over all."""
    groups = [rows] if sections is None else [[row for row in rows if row.section == name] for name in sections]
    return [row for group in groups for row in sortedBy(group, column, descending, facts, verdict)]


def nearest(rows: Sequence[FindingRow], pointMm: Any) -> FindingRow | None:
    """Return the row of the change that another run of the same scans listed at a point (LPS); None without one."""
    if pointMm is None or not rows:
        return None
    near = min(rows, key=lambda row: math.dist(row.change.centre_mm, pointMm))
    return near if math.dist(near.change.centre_mm, pointMm) <= SAME_PLACE_MM else None


def _keys(facts: Any, verdict: Key) -> dict[int, Key]:
    def measured(name: str) -> Key:
        return lambda row: (row.change.measured or {}).get(name)

    return {
        words.NUMBER: lambda row: row.number,
        words.KIND: lambda row: finding_text.READING_ORDER.index(row.change.kind),
        words.PLACE: lambda row: facts.sliceOf(row.change.centre_mm),
        words.SIZE: _size,
        words.CHANGE: measured("volume_change_percent"),
        words.DOUBLING: lambda row: finding_text.listed_doubling_days(words.entryOf(row), facts.days),
        words.TRUST: lambda row: row.change.trust,
        words.READER: verdict,
        words.STRENGTH: lambda row: (row.change.measured or {}).get("probability", row.change.peak),
        words.LISTED: lambda row: row.section,
    }


def _size(row: FindingRow) -> float | None:
    sizes = [finding_text.mean_diameter_mm(lesion) for lesion in finding_text.lesions(words.entryOf(row))]
    return max((size for size in sizes if size is not None), default=None)
