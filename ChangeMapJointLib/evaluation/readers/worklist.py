"""The worklist of a reading session: which cases, in which order, from which runs."""

from __future__ import annotations

import csv
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.evaluation.readers.log import ARMS, Arm
from ChangeMapJointLib.io.sources import reason_of

NEEDED = ("case", "run")
KNOWN = (*NEEDED, "arm", "reference", "template")
NAME = re.compile(r"[\w.+-]{1,60}")  # it becomes part of a file's name


@dataclass(frozen=True)
class ReaderCase:
    """One case of a session.

    Attributes:
        name: of the case.
        arm: how it is read.
        run: folder of the run that is shown; unaided, only its scans and their rigid alignment are.
        reference: current scan, if it is not beside the run.
        template: prior scan, likewise.
    """

    name: str
    arm: Arm
    run: Path
    reference: Path | None = None
    template: Path | None = None


def read_worklist(path: Path, arm: Arm | None) -> tuple[ReaderCase, ...]:
    """Read a worklist: CSV in UTF-8 with columns ``case``, ``run`` and maybe ``arm``, ``reference``, ``template``.

    Paths are relative to the file. A case may have several rows, one for each arm; a row without an arm serves for all.

    Args:
        path: of the file.
        arm: of the whole session; None to read each case in the arm of its only row.

    Returns:
        The cases in the order of the file.

    Raises:
        InputError: the file cannot be read, a column is missing or unknown, or a case has no row for its arm.
    """
    rows = _rows(path)
    names = list(dict.fromkeys(row["case"] for _, row in rows))
    return tuple(_case(path, name, [(line, row) for line, row in rows if row["case"] == name], arm) for name in names)


def shuffled(cases: Sequence[ReaderCase], seed: int, reader: str, session: str) -> tuple[ReaderCase, ...]:
    """Return the cases in the random order that seed, reader and session fix; every session has another one.

    Examples:
        >>> cases = [ReaderCase(name, "unaided", Path(name)) for name in "abcde"]
        >>> [case.name for case in shuffled(cases, 1, "R1", "1")] == [c.name for c in shuffled(cases, 1, "R1", "1")]
        True
    """
    order = list(cases)
    random.Random(f"{seed}/{reader}/{session}").shuffle(order)
    return tuple(order)


def check_name(field: str, value: str) -> str:
    """Return a reader's, study's or session's name if it can stand in the name of a file.

    Raises:
        InputError: it cannot.
    """
    if not NAME.fullmatch(value) or value.startswith("."):
        raise InputError(
            f"found {value!r}", field=field, expected="1 to 60 letters, digits, dots, hyphens or underscores"
        )
    return value


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            columns = [str(name).strip() for name in reader.fieldnames or ()]
            for name in NEEDED:
                if name not in columns:
                    raise InputError(f"has no column {name!r}", field=path, expected=f"columns {', '.join(KNOWN)}")
            for name in columns:
                if name not in KNOWN:
                    raise InputError(f"has the unknown column {name!r}", field=path, expected=", ".join(KNOWN))
            reader.fieldnames = columns
            rows = []
            for line, row in enumerate(reader, 2):
                if None in row:  # a comma in a path
                    where = (path, Argument(f"line {line}"))
                    raise InputError(f"has more than {len(columns)} values", field=where, remedy='quote a path: "a,b"')
                rows.append((line, {name: str(row.get(name) or "").strip() for name in KNOWN}))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"not readable ({reason_of(error)})", field=path, expected="a CSV file in UTF-8") from error
    rows = [(line, row) for line, row in rows if any(row.values())]
    if not rows:
        raise InputError("holds no case", field=path)
    for line, row in rows:
        for name in NEEDED:
            if not row[name]:
                raise InputError("is empty", field=(path, Argument(f"line {line}"), Argument(name)))
        if row["arm"] and row["arm"] not in ARMS:
            raise InputError(
                f"found {row['arm']!r}",
                field=(path, Argument(f"line {line}"), Argument("arm")),
                expected=f"one of {', '.join(ARMS)}",
            )
    return rows


def _case(path: Path, name: str, rows: list[tuple[int, dict[str, str]]], arm: Arm | None) -> ReaderCase:
    if arm is None:
        chosen = rows if len(rows) == 1 and rows[0][1]["arm"] else []
    else:
        chosen = [(line, row) for line, row in rows if row["arm"] == arm]
        chosen = chosen or [(line, row) for line, row in rows if not row["arm"]]
        chosen = chosen or (rows[:1] if arm == "unaided" else [])  # only the scans are shown
    if len(chosen) != 1:
        raise InputError(
            f"case {name!r} has {len(chosen) or 'no'} rows for " + (f"arm {arm!r}" if arm else "one arm"),
            field=path,
            expected="one row",
            remedy="" if arm else ("give ", Argument("arm")),
        )
    row = chosen[0][1]
    reference, template = (path.parent / row[side] if row[side] else None for side in ("reference", "template"))
    kind: Arm = arm or row["arm"]  # type: ignore[assignment]
    return ReaderCase(name, kind, path.parent / row["run"], reference, template)
