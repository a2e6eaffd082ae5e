"""The list of findings as a CSV or JSON file, with the reader's decisions and what they refer to."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ChangeMapJointGui.findings_words import FindingRow, entryOf
from ChangeMapJointLib.change.sections import reason_sentence
from ChangeMapJointLib.export import finding_text
from ChangeMapJointLib.export.tables import csv_cell
from ChangeMapJointLib.io.write import atomic_path

SCHEMA = "changemap.reading/2"  # of the JSON file
COLUMNS = (
    "number",
    "section",
    "kind",
    "probability",
    "long_diameter_mm",
    "perpendicular_diameter_mm",
    "volume_change_percent",
    "region_volume_ml",
    "peak",
    "trust",
    "centre_x_mm",
    "centre_y_mm",
    "centre_z_mm",
    "verdict",
    "comment",
    "reason",
    "remark",
    "side",
    "third",
    "slice",
    "volume_ml",
    "prior_long_diameter_mm",
    "prior_perpendicular_diameter_mm",
    "prior_volume_ml",
    "volume_change_low_percent",
    "volume_change_high_percent",
    "doubling_time_days",
    "growth_rules",
    "current_date",
    "prior_date",
    "interval_days",
    "map_threshold",
    "registration_verdict",
    "reader_registration_verdict",
)  # new ones go last, so that the others keep their place
Review = Callable[[int], dict[str, str]]


def writeTable(path: Path, rows: Iterable[FindingRow], review: Review, facts: Any, run: dict[str, Any]) -> None:
    """Write the rows as CSV, or as JSON where the file is named so (UTF-8, LPS, mm).

    Args:
        path: the file; it appears whole or not at all.
        rows: of the list, folded ones included.
        review: the reader's ``verdict`` and ``comment`` by the change's key.
        facts: of the two scans, see :class:`~ChangeMapJointGui.pair_facts.PairFacts`.
        run: ``map_threshold``, ``registration_verdict`` and ``reader_registration_verdict``.
    """
    about = {**facts.asColumns, **run}
    values = [{**rowValues(row, facts), **review(row.change.key)} for row in rows]
    if path.suffix.lower() == ".json":
        text = json.dumps({"schema": SCHEMA, **about, "findings": values}, indent=2, ensure_ascii=False) + "\n"
    else:
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for value in values:
            writer.writerow([csv_cell({**value, **about}[name]) for name in COLUMNS])
        text = stream.getvalue()
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def rowValues(listed: FindingRow, facts: Any) -> dict[str, Any]:
    """Return the values of a row by column, without the reader's and the run's."""
    row = listed.change
    measured, entry = row.measured or {}, entryOf(listed)
    now, before = ({} if lesion is None else lesion for lesion in finding_text.lesions(entry))
    low, high = measured.get("volume_change_interval_percent") or (None, None)
    x, y, z = (round(float(v), 2) for v in row.centre_mm)
    return {
        "number": listed.number,
        "section": listed.section,
        "kind": row.kind,
        "probability": measured.get("probability"),
        "long_diameter_mm": (now or before).get("long_diameter_mm"),
        "perpendicular_diameter_mm": (now or before).get("perpendicular_diameter_mm"),
        "volume_change_percent": measured.get("volume_change_percent"),
        "region_volume_ml": round(row.volume_ml, 4),
        "peak": round(row.peak, 4),
        "trust": None if row.trust is None else round(row.trust, 3),
        "centre_x_mm": x,
        "centre_y_mm": y,
        "centre_z_mm": z,
        "reason": reason_sentence(measured.get("reason")),
        "remark": measured.get("remark"),
        "side": measured.get("lung"),
        "third": measured.get("third"),
        "slice": facts.sliceOf(row.centre_mm),
        "volume_ml": now.get("volume_ml"),
        "prior_long_diameter_mm": before.get("long_diameter_mm"),
        "prior_perpendicular_diameter_mm": before.get("perpendicular_diameter_mm"),
        "prior_volume_ml": before.get("volume_ml"),
        "volume_change_low_percent": low,
        "volume_change_high_percent": high,
        "doubling_time_days": finding_text.listed_doubling_days(entry, facts.days),
        "growth_rules": "; ".join(answer.words for answer in finding_text.rules_of(entry, facts.days)),
    }
