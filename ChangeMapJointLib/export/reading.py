"""A reader's decisions in the report of a run: one section, which is written anew with every decision."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from ChangeMapJointLib.io import run_files
from ChangeMapJointLib.io.write import atomic_path

BEGIN, END = "<!-- reading: begin -->", "<!-- reading: end -->"
BEFORE = "</main>"  # where a report without such a section gets it
HEADS = ("No.", "Kind", "Centre (x, y, z in mm, LPS)", "Decision", "Comment", "Reader", "Time (UTC)")


def write_reading(folder: Path, reading: Mapping[str, Any]) -> bool:
    """Write the decisions into ``report.html`` of a run.

    Args:
        folder: of the run.
        reading: content of ``reading.json``.

    Returns:
        False if the run has no report.

    Raises:
        InputError: the report cannot be written; it is then unchanged.
    """
    path = folder / run_files.REPORT
    if not path.is_file():
        return False
    page = path.read_text("utf-8")
    with atomic_path(path) as temporary:
        temporary.write_text(with_reading(page, reading), "utf-8", newline="")
    return True


def with_reading(page: str, reading: Mapping[str, Any]) -> str:
    """Return the report's page with the section on the reader's decisions; without decisions, without the section.

    Examples:
        >>> entry = {"id": 3, "kind": "new", "decision": "accepted", "comment": "<b>"}
        >>> page = with_reading("<main></main>", {"findings": {"7": entry}, "registration": {"verdict": "fine"}})
        >>> "accepted" in page and "&lt;b&gt;" in page
        True
        >>> with_reading(page, {"findings": {}, "registration": {}})
        '<main></main>'
    """
    begin, end = page.find(BEGIN), page.find(END)
    if 0 <= begin < end:
        page = page[:begin] + page[end + len(END) :]
    section = _section(reading)
    before, mark, after = page.rpartition(BEFORE)
    if not section or not mark:
        return page
    return f"{before}{BEGIN}{section}{END}{mark}{after}"


def _section(reading: Mapping[str, Any]) -> str:
    entries = [entry for entry in reading["findings"].values() if entry.get("decision") or entry.get("comment")]
    verdict = str(reading["registration"].get("verdict") or "")
    if not entries and not verdict:
        return ""
    rows = "".join(_row(entry) for entry in sorted(entries, key=lambda entry: _number(entry.get("id"))))
    heads = "".join(f'<th scope="col" role="columnheader">{head}</th>' for head in HEADS)
    said = f"<p>Registration, as the reader judged it: <strong>{escape(verdict)}</strong>.</p>" if verdict else ""
    table = (
        f'<table class="cards" role="table"><thead role="rowgroup"><tr role="row">{heads}</tr></thead>'
        f'<tbody role="rowgroup">{rows}</tbody></table>'
    )
    return f"<section><h2>Reader's decisions</h2>{said}{table if rows else ''}</section>"


def _row(entry: Mapping[str, Any]) -> str:
    stamps = [stamp for stamp in entry.get("stamps", {}).values() if isinstance(stamp, Mapping)]
    last = max(stamps, key=lambda stamp: str(stamp.get("at", "")), default={})
    centre = entry.get("centre_mm")
    place = ", ".join(f"{value:.1f}" for value in centre if isinstance(value, (int, float))) if centre else ""
    values = (
        *(entry.get("id", ""), entry.get("kind", ""), place, entry.get("decision", ""), entry.get("comment", "")),
        *(last.get("reader", ""), str(last.get("at", ""))[:19].replace("T", " ")),
    )
    cells = "".join(
        f'<td role="cell" data-label="{head}">{escape(str(value))}</td>'
        for head, value in zip(HEADS, values, strict=True)
    )
    return f'<tr role="row">{cells}</tr>'


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else float("inf")
