"""The list of findings as a CSV file, with the reader's verdicts."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ChangeMapJointGui.findings_words import Row
from ChangeMapJointLib.change.sections import reason_sentence
from ChangeMapJointLib.change.threshold_list import ListedChange
from ChangeMapJointLib.export.tables import cell
from ChangeMapJointLib.io.write import atomic_path

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
)


def writeTable(path: Path, rows: Iterable[Row], review: Callable[[int], dict[str, str]]) -> None:
    """Write the rows as CSV (UTF-8, LPS, mm).

    Args:
        path: the file; it appears whole or not at all.
        rows: of the list, folded ones included.
        review: the reader's ``verdict`` and ``comment`` by the change's key.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for number, section, change in rows:
        values = {"number": number, "section": section, **_values(change), **review(change.key)}
        writer.writerow([cell(values[name]) for name in COLUMNS])
    with atomic_path(path) as temporary:
        temporary.write_text(stream.getvalue(), encoding="utf-8", newline="")


def _values(row: ListedChange) -> dict[str, Any]:
    measured = row.measured or {}
    lesion = measured.get("lesion_reference") or measured.get("lesion_template") or {}
    x, y, z = (round(float(v), 2) for v in row.centre_mm)
    return {
        "kind": row.kind,
        "probability": measured.get("probability"),
        "long_diameter_mm": lesion.get("long_diameter_mm"),
        "perpendicular_diameter_mm": lesion.get("perpendicular_diameter_mm"),
        "volume_change_percent": measured.get("volume_change_percent"),
        "region_volume_ml": round(row.volume_ml, 4),
        "peak": round(row.peak, 4),
        "trust": None if row.trust is None else round(row.trust, 3),
        "centre_x_mm": x,
        "centre_y_mm": y,
        "centre_z_mm": z,
        "reason": reason_sentence(measured.get("reason")),
        "remark": measured.get("remark"),
    }
