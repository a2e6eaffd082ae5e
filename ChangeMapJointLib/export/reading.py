"""The section of a report that says what the reader decided: made with the report, or written into one that exists."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.export.reader_decisions import ReaderDecisions, ReaderLine
from ChangeMapJointLib.io import run_files
from ChangeMapJointLib.io.sources import reason_of
from ChangeMapJointLib.io.write import atomic_path

if TYPE_CHECKING:
    from jinja2 import Environment

BEGIN, END = "<!-- reading: begin -->", "<!-- reading: end -->"  # every report has them; the section stands between
BEFORE = "</main>"  # where a report of an older version gets them


@cache
def report_templates() -> Environment:
    """Return the templates of the report; every text that they are given is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # texts come from files and headers
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render_reading(reading: ReaderDecisions | None) -> str:
    """Return the section as HTML between its two marks; without decisions, the marks alone."""
    if reading is None:
        return BEGIN + END
    template = report_templates().get_template("reading_section.html.j2")
    stamped = any(line.reader or line.time for line in reading.lines)
    return f"{BEGIN}{template.render(reading=reading, stamped=stamped)}{END}"


def write_reading(folder: Path, content: Mapping[str, Any]) -> bool:
    """Write the decisions into ``report.html`` of a run, in place of those that it shows.

    Args:
        folder: of the run.
        content: content of ``reading.json``, see :class:`~ChangeMapJointLib.io.reading_file.ReadingFile`.

    Returns:
        False if the run has no report.

    Raises:
        InputError: the report cannot be read or written; it is then unchanged.
    """
    path = folder / run_files.REPORT
    if not path.is_file():
        return False
    try:
        page = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"not readable ({reason_of(error)})", field=path, remedy="make it again with changemap report"
        ) from error
    with atomic_path(path) as temporary:
        temporary.write_text(with_reading(page, reading_of_file(content)), "utf-8", newline="")
    return True


def with_reading(page: str, reading: ReaderDecisions | None) -> str:
    """Return a report's page with these decisions in place of those that it shows.

    Examples:
        >>> page = with_reading("<main></main>", ReaderDecisions((ReaderLine("3, new", "accepted", "<b>", 3),)))
        >>> "accepted" in page and "&lt;b&gt;" in page
        True
        >>> with_reading(page, None)
        '<main><!-- reading: begin --><!-- reading: end --></main>'
    """
    section = render_reading(reading)
    begin, end = page.find(BEGIN), page.find(END)
    if 0 <= begin < end:
        return page[:begin] + section + page[end + len(END) :]
    before, mark, after = page.rpartition(BEFORE)
    return f"{before}{section}{mark}{after}" if mark else page


def reading_of_file(content: Mapping[str, Any]) -> ReaderDecisions | None:
    """Return the decisions that ``reading.json`` holds; None without any.

    Examples:
        >>> entry = {"id": 3, "kind": "new", "centre_mm": [1, 2, 3], "decision": "accepted"}
        >>> reading_of_file({"findings": {"7": entry}, "registration": {"verdict": "fine"}}).lines[0].name
        '3, new, at 1.0, 2.0, 3.0 mm LPS'
    """
    entries = [entry for entry in content["findings"].values() if entry.get("decision") or entry.get("comment")]
    verdict = str(content["registration"].get("verdict") or "")
    if not entries and not verdict:
        return None
    ordered = sorted(entries, key=lambda entry: _number(entry.get("id")))
    return ReaderDecisions(tuple(map(_line, ordered)), verdict)


def _line(entry: Mapping[str, Any]) -> ReaderLine:
    stamps = [stamp for stamp in entry.get("stamps", {}).values() if isinstance(stamp, Mapping)]
    last = max(stamps, key=lambda stamp: str(stamp.get("at", "")), default={})
    centre = [value for value in entry.get("centre_mm") or () if isinstance(value, (int, float))]
    place = f"at {', '.join(f'{value:.1f}' for value in centre)} mm LPS" if centre else ""
    number = entry.get("id")
    return ReaderLine(
        name=", ".join(str(part) for part in (number, entry.get("kind"), place) if part not in (None, "")),
        decision=str(entry.get("decision", "")),
        comment=str(entry.get("comment", "")),
        finding=number if isinstance(number, int) else 0,
        reader=str(last.get("reader", "")),
        time=str(last.get("at", ""))[:19].replace("T", " "),
    )


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else float("inf")
