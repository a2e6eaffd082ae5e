"""The list of a cohort: one line per pair, read from a CSV file and checked as a whole."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.io.sources import reason_of

COLUMNS = ("id", "reference", "template")
LONGEST_ID = 100
_ID = re.compile(r"\w[\w .+@=-]*", re.UNICODE)
_ID_EXPECTED = f"up to {LONGEST_ID} letters, digits, spaces or . _ + @ = -, since it names a folder"


@dataclass(frozen=True)
class CohortPair:
    """One pair of a cohort.

    Attributes:
        id: its name, and that of its folder.
        reference: R (current): a file, a DICOM folder or zip; ``PATH#SERIES`` picks one of several.
        template: T (prior), likewise.
    """

    id: str
    reference: Path
    template: Path


def read_pairs(path: Path) -> tuple[CohortPair, ...]:
    """Read the list of a cohort.

    Args:
        path: CSV (comma or semicolon, UTF-8) with the columns :data:`COLUMNS`; others are ignored. Relative paths
            start at the list's folder.

    Returns:
        The pairs in the order of the list. Whether their scans are there is not checked: a pair without its scans
        must not stop the others.

    Raises:
        InputError: the list cannot be read, has no pairs, lacks a column or a value, or two pairs would be written
            into the same folder.
    """
    rows = read_rows(path, COLUMNS, what="pair")
    pairs: list[CohortPair] = []
    lines: dict[str, tuple[int, str]] = {}  # by folder
    for line, row in rows:
        name = row["id"]
        if not _ID.fullmatch(name) or len(name) > LONGEST_ID or name.endswith((".", " ")):
            raise InputError(f"line {line} has the id {name!r}", field=path, expected=_ID_EXPECTED)
        key = unicodedata.normalize("NFC", name).casefold()  # the same folder on macOS and Windows
        if key in lines:
            before, other = lines[key]
            same = f"the id {name!r} twice" if other == name else f"the ids {other!r} and {name!r}, one folder"
            raise InputError(f"lines {before} and {line} have {same}", field=path, remedy="give each pair an own id")
        lines[key] = (line, name)
        pairs.append(CohortPair(name, located(path, row["reference"]), located(path, row["template"])))
    return tuple(pairs)


def located(path: Path, text: str) -> Path:
    """Return the file that a list names; a relative one starts at the list's folder."""
    return path.absolute().parent / Path(text).expanduser()


def read_rows(path: Path, needed: Sequence[str], *, what: str) -> list[tuple[int, Mapping[str, str]]]:
    """Read a CSV list with a header.

    Args:
        path: the list.
        needed: columns that must be there, with a value in every row.
        what: what a row holds, for messages.

    Returns:
        The number of each line that is not empty, and its values by column, without spaces around them.

    Raises:
        InputError: the list cannot be read, lacks a column or a value, or has no rows.
    """
    header = ",".join(needed)
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError as error:
        raise InputError("no such file", field=path, expected=f"a CSV list with the columns {header}") from error
    except OSError as error:
        raise InputError(f"cannot be read ({reason_of(error)})", field=path) from error
    except UnicodeDecodeError as error:
        raise InputError("is not UTF-8 text", field=path, remedy="save it as CSV, UTF-8") from error
    first = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=";" if ";" in first and "," not in first else ",")
    try:
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise InputError(f"is not CSV ({error})", field=path, expected=f"the columns {header}") from error
    lines = [(number, cells) for number, cells in lines if any(cells)]
    columns = [name.lower() for name in lines[0][1]] if lines else []
    missing = [name for name in needed if columns.count(name) != 1]
    if missing:
        found = f"found the columns {', '.join(columns)[:200]}" if columns else "is empty"
        raise InputError(found, field=path, expected=f"a header with {header}, each once")
    rows: list[tuple[int, Mapping[str, str]]] = []
    for number, cells in lines[1:]:
        if len(cells) != len(columns):
            raise InputError(f"line {number} has {len(cells)} values", field=path, expected=f"{len(columns)}")
        row = dict(zip(columns, cells, strict=True))
        empty = [name for name in needed if not row[name]]
        if empty:
            raise InputError(f"line {number} has no {empty[0]}", field=path)
        rows.append((number, row))
    if not rows:
        raise InputError(f"lists no {what}", field=path, expected=f"one {what} per line below the header {header}")
    return rows
