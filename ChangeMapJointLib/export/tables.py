"""Findings and registration figures as CSV and JSON.

CSV: UTF-8, comma, decimal point, one header line, one line for each finding; unknown values are empty.
JSON: the same values with a schema name and version; unknown values are null.
Numbers have six significant digits. Points are LPS in mm; ``reference`` is the current scan.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ChangeMapJointLib.change.sections import reason_sentence
from ChangeMapJointLib.io.write import atomic_path

if TYPE_CHECKING:
    from ChangeMapJointLib.change.findings import Finding, Findings
    from ChangeMapJointLib.change.not_seen import NotSeen
    from ChangeMapJointLib.change.sections import OperatingPoint
    from ChangeMapJointLib.gate.answer import GateAnswer
    from ChangeMapJointLib.lesions.measure import LesionMeasure
    from ChangeMapJointLib.registration.quality import Quality

SCHEMA_VERSION = 1
AXES = ("x", "y", "z")
POINTS = ("centre", "centre_template", "peak")
LESION_FIELDS = ("volume_ml", "long_diameter_mm", "perpendicular_diameter_mm", "mean_hu", "peak_hu")
MORE_LESION_FIELDS = (
    "volume_low_ml",
    "volume_high_ml",
    "mean_diameter_mm",
    "mean_diameter_low_mm",
    "mean_diameter_high_mm",
    "mass_mg",
    "texture",
    "extent",
    "calcified",
    "juxtapleural",
)
COLUMNS = (
    "id",
    "kind",
    "lung",
    *(f"centre_{axis}_mm" for axis in AXES),
    *(f"centre_template_{axis}_mm" for axis in AXES),
    *(f"peak_{axis}_mm" for axis in AXES),
    "voxels",
    "volume_ml",
    "peak",
    "peak_hu",
    "long_diameter_mm",
    "perpendicular_diameter_mm",
    "elongation",
    *(f"reference_{name}" for name in LESION_FIELDS),
    *(f"template_{name}" for name in LESION_FIELDS),
    "volume_change_percent",
    "volume_change_low_percent",
    "volume_change_high_percent",
    "diameter_change_mm",
    "trust",
    "partner",
    "remark",
    "section",
    "probability",
    "reason",
    "reason_text",
    "third",
    "interval_days",
    "doubling_time_days",
    "doubling_time_low_days",
    "doubling_time_high_days",
    *(f"reference_{name}" for name in MORE_LESION_FIELDS),  # later columns go last, so that the others keep their place
    *(f"template_{name}" for name in MORE_LESION_FIELDS),
)
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\n")  # a spreadsheet would evaluate such a text as a formula

Value = str | int | float | None


def write_findings_csv(path: Path, findings: Findings) -> None:
    """Write one line for each finding, with the columns :data:`COLUMNS`; no line where findings are withheld.

    Raises:
        InputError: the file cannot be written; nothing is left behind.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for finding in findings.items:
        row = finding_row(finding)
        writer.writerow([csv_cell(row[name]) for name in COLUMNS])
    _write(path, stream.getvalue())


def write_findings_json(
    path: Path, findings: Findings, *, listed_from: Mapping[OperatingPoint, float] | None = None
) -> None:
    """Write the values of :func:`write_findings_csv` with points as lists, and all measurements of the lesions.

    Where the registration failed the list is empty: ``withheld`` is the number of findings that are not listed, and
    ``why`` holds the reasons.

    Args:
        path: the JSON file; it appears whole or not at all.
        findings: what is listed.
        listed_from: probability from which a change is a finding, by operating point; None where nothing judged them.

    Raises:
        InputError: the file cannot be written; nothing is left behind.
    """
    items = [_nested(finding) for finding in findings.items]
    head: dict[str, object] = {"coordinates": "LPS, mm", "threshold": findings.threshold, "dropped": findings.dropped}
    if findings.operating_point is not None:
        head["operating_point"] = findings.operating_point
        if listed_from is not None:
            head["listed_from"] = json_value(listed_from)
    if findings.why:
        head |= {"withheld": findings.withheld, "why": list(findings.why)}
    _write_json(path, "changemap.findings", {**head, "findings": items})


def write_quality_json(
    path: Path, quality: Quality, gate: GateAnswer | None = None, not_seen: Sequence[NotSeen] = ()
) -> None:
    """Write the registration figures, the verdict with its reasons, the gate's answer, and what cannot be seen.

    Raises:
        InputError: the file cannot be written; nothing is left behind.
    """
    gate_entry = {} if gate is None else {"gate": json_value(gate)}
    unseen = {"not_seen": json_value(not_seen)} if not_seen else {}
    _write_json(path, "changemap.quality", {"quality": json_value(quality), **gate_entry, **unseen})


def finding_row(finding: Finding) -> dict[str, Value]:
    """The values of a finding by column name; None where unknown."""
    row: dict[str, Value] = {name: _scalar(getattr(finding, name)) for name in COLUMNS if hasattr(finding, name)}
    for name in POINTS:
        point = getattr(finding, f"{name}_mm")
        for i, axis in enumerate(AXES):
            row[f"{name}_{axis}_mm"] = None if point is None else _scalar(point[i])
    for name, lesion in (("reference", finding.lesion_reference), ("template", finding.lesion_template)):
        values = {} if lesion is None else lesion_values(lesion)
        for field in (*LESION_FIELDS, *MORE_LESION_FIELDS):
            row[f"{name}_{field}"] = values.get(field)
    low, high = finding.volume_change_interval_percent or (None, None)
    fastest, slowest = finding.doubling_time_interval_days or (None, None)
    row["doubling_time_low_days"], row["doubling_time_high_days"] = _scalar(fastest), _scalar(slowest)
    row["reason_text"] = reason_sentence(finding.reason) or None
    row["volume_change_low_percent"], row["volume_change_high_percent"] = _scalar(low), _scalar(high)
    return row


def lesion_values(lesion: LesionMeasure) -> dict[str, Value]:
    """The values of a lesion in one scan by name, as in :data:`LESION_FIELDS`; low and high end the 95 % interval."""
    low_ml, high_ml = lesion.volume_interval_ml
    low_mm, high_mm = lesion.mean_diameter_interval_mm
    ends = {
        "volume_low_ml": low_ml,
        "volume_high_ml": high_ml,
        "mean_diameter_low_mm": low_mm,
        "mean_diameter_high_mm": high_mm,
    }
    names = (*LESION_FIELDS, *MORE_LESION_FIELDS)
    return {name: _scalar(ends[name] if name in ends else getattr(lesion, name)) for name in names}


def json_value(value: object) -> object:
    """Convert a value to JSON types: dataclasses and mappings become dicts, NaN and infinity become None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: json_value(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return json_value(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [json_value(item) for item in value]
    return _scalar(value)


def _fields(value: object) -> dict[str, object]:
    fields = json_value(value)
    assert isinstance(fields, dict)
    return fields


def _nested(finding: Finding) -> dict[str, object]:
    row: dict[str, object] = dict(finding_row(finding))
    nested: dict[str, object] = {}
    for name in POINTS:
        point = [row.pop(f"{name}_{axis}_mm") for axis in AXES]
        nested[f"{name}_mm"] = None if None in point else point
    for name in ("reference", "template"):
        for field in (*LESION_FIELDS, *MORE_LESION_FIELDS):
            row.pop(f"{name}_{field}")
        lesion = getattr(finding, f"lesion_{name}")
        nested[f"lesion_{name}"] = None if lesion is None else {**_fields(lesion), **lesion_values(lesion)}
    interval = [row.pop("volume_change_low_percent"), row.pop("volume_change_high_percent")]
    nested["volume_change_interval_percent"] = None if None in interval else interval
    fastest, slowest = row.pop("doubling_time_low_days"), row.pop("doubling_time_high_days")
    nested["doubling_time_interval_days"] = None if fastest is None else [fastest, slowest]
    return row | nested


def _write_json(path: Path, schema: str, content: dict[str, object]) -> None:
    document = {"schema": schema, "schema_version": SCHEMA_VERSION, **content}
    _write(path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace", newline="")


def _scalar(value: object) -> Value:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    return str(value)


def csv_cell(value: Value) -> str:
    """Format a CSV cell; a text that a spreadsheet would evaluate as a formula is prefixed with an apostrophe."""
    if value is None:
        return ""
    if not isinstance(value, str):
        return str(value)
    text = value.replace("\r\n", "\n").replace("\r", "\n")  # a bare carriage return would end the row
    return "'" + text if text.lstrip(" ").startswith(FORMULA_STARTS) else text
