"""Reads the JSON files of a finished run and checks the parts that the program relies on."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.io.run_files import NEEDED_RECORDS, RECORDS

RUN_AGAIN = "run the comparison again"


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
            raise InputError(f"not readable ({error})", field=path, remedy=RUN_AGAIN) from error
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
        return "" if isinstance(inner.get("reasons", []), list) else "'reasons' is not a list"
    findings, threshold = content.get("findings"), content.get("threshold", 1.0)
    if not isinstance(findings, list) or not all(map(_is_finding, findings)):
        return "'findings' is not a list of findings with id, kind and centre_mm"
    return "" if _is_number(threshold) else "'threshold' is not a number"


def _is_finding(entry: Any) -> bool:
    if not isinstance(entry, dict) or "id" not in entry or not isinstance(entry.get("kind"), str):
        return False
    centre = entry.get("centre_mm")
    return isinstance(centre, list) and len(centre) == 3 and all(map(_is_number, centre))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
