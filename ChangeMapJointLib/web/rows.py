"""The list of what changed as the page shows it: plain values, in the words that the Slicer panel uses."""

from __future__ import annotations

from typing import Any

from ChangeMapJointLib.change.kinds import KIND_WORDS
from ChangeMapJointLib.change.sections import BY_MAP, SECTION_HINTS, SECTION_TITLES, SECTIONS
from ChangeMapJointLib.change.threshold_list import ListedChange
from ChangeMapJointLib.registration.quality import LOW_TRUST
from ChangeMapJointLib.scene.finding_words import change_text, details_text, probability_text, size_text
from ChangeMapJointLib.scene.map_files import SIGNED
from ChangeMapJointLib.web.settings import Settings
from ChangeMapJointLib.web.shown_run import ShownRun

Row = dict[str, Any]


def rows_of(shown: ShownRun, settings: Settings) -> list[Row]:
    """Return the rows of the list that the settings choose, in the order of the sections.

    Args:
        shown: the run; by the map, the first call for a map takes seconds on a large scan.
        settings: the list, and by the map its threshold, smallest size and directions.
    """
    if not shown.has_findings:
        return []
    if settings.listed == BY_MAP or settings.listed not in shown.lists.choices:
        key = settings.map if settings.map in shown.maps and settings.map != SIGNED else shown.maps[0]
        signs = [sign for sign, wanted in ((1, settings.increases), (-1, settings.decreases)) if wanted]
        regions = shown.lists.regions(key, settings.threshold, settings.smallest, signs)
        return [_row(i, "", region, settings.threshold) for i, region in enumerate(regions, 1)]
    judged = shown.lists.judged(settings.listed)
    return [
        _row((change.measured or {}).get("id", 0), section, change, settings.threshold)
        for section in SECTIONS
        for change in judged.get(section, [])
    ]


def _row(number: int, section: str, change: ListedChange, threshold: float) -> Row:
    measured = change.measured or {}
    kind = "stable" if section == "stable" else KIND_WORDS.get(change.kind, change.kind)  # type: ignore[call-overload]
    return {
        "key": str(change.key),
        "number": number,
        "section": section,
        "kind": kind,
        "rawKind": change.kind,
        "denser": change.sign > 0,
        "size": size_text(change),
        "change": change_text(measured),
        "strength": probability_text(measured.get("probability")) if section else f"{change.peak:.2f}",
        "trust": "?" if change.trust is None else f"{change.trust:.2f}",
        "lowTrust": change.trust is not None and change.trust < LOW_TRUST,
        "details": details_text(section, change, threshold),
        "centre": [round(float(value), 2) for value in change.centre_mm],
    }


def sections_of(rows: list[Row]) -> list[dict[str, Any]]:
    """Return the sections of a judged list with title, hint and number of rows; one without a name by the map."""
    if rows and not rows[0]["section"]:
        return [{"name": "", "title": "Regions of the map", "hint": "", "count": len(rows), "folds": False}]
    return [
        {
            "name": name,
            "title": SECTION_TITLES[name],
            "hint": SECTION_HINTS[name],
            "count": sum(row["section"] == name for row in rows),
            "folds": name != "finding",
        }
        for name in SECTIONS
    ]


def marked(row: Row) -> dict[str, Any]:
    """Return what the scene needs to mark a row in the views."""
    label = row["section"] if row["section"] in ("possible", "explained", "stable") else row["kind"]
    return {"id": row["number"], "kind": row["rawKind"], "centre_mm": row["centre"], "label": label, "remark": ""}
