"""Reads the JSON files of a finished run and checks the parts that the program relies on."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.io.run_files import NEEDED_RECORDS, RECORDS
from ChangeMapJointLib.io.sources import reason_of

RUN_AGAIN = "run the comparison again"
_FIGURES = ("volume_ml", "peak", "trust", "probability")  # of a finding; None where it has none


def read_records(folder: Path) -> dict[str, dict[str, Any]]:
    """Read ``run.json``, ``quality.json`` and, if present, ``findings.json`` and ``candidates.json``.

    Returns:
        The contents by name without suffix.

    Raises:
        InputError: the folder is not that of a run, or one of the files is damaged or not as a run writes it.
    """
    records = {}
    for file in RECORDS:
        path, name = folder / file, file.removesuffix(".json")
        try:
            content = json.loads(path.read_text("utf-8"))
        except FileNotFoundError as error:
            if file in NEEDED_RECORDS:
                raise InputError(
                    f"has no {path.name}", field=folder, expected="the folder of a finished run"
                ) from error
            continue
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"not readable ({reason_of(error)})", field=path, remedy=RUN_AGAIN) from error
        fault = _fault(name, content)
        if fault:
            raise InputError(fault, field=path, remedy=RUN_AGAIN)
        records[name] = content
    return records


def _fault(name: str, content: Any) -> str:
    """Return what is not as a run writes it, or an empty string."""
    if not isinstance(content, dict):
        return f"found {type(content).__name__}, expected an object"
    key = {"run": "configuration", "quality": "quality"}.get(name)
    if key:
        inner = content.get(key, {})
        if not isinstance(inner, dict):
            return f"'{key}' is {type(inner).__name__}, expected an object"
        sides = [content.get(side) for side in ("reference", "template")]
        sides += [side.get("acquisition") for side in sides if isinstance(side, dict)]
        if not all(isinstance(side, dict | None) for side in sides):
            return "'reference' or 'template' is not as a run writes it"
        return "" if isinstance(inner.get("reasons", []), list) else "'reasons' is not a list"
    findings, threshold = content.get("findings"), content.get("threshold", 1.0)
    if not isinstance(findings, list) or not all(map(_is_finding, findings)):
        return "'findings' is not a list of findings with id, kind and centre_mm, or a figure of one is no number"
    return "" if _is_number(threshold) else "'threshold' is not a number"


def _is_finding(entry: Any) -> bool:
    if not isinstance(entry, dict) or "id" not in entry or not isinstance(entry.get("kind"), str):
        return False
    if not isinstance(entry.get("section"), str | None):
        return False
    if not all(entry.get(name) is None or _is_number(entry[name]) for name in _FIGURES):
        return False
    return _is_point(entry.get("centre_mm")) and (entry.get("peak_mm") is None or _is_point(entry["peak_mm"]))


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_is_number, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
