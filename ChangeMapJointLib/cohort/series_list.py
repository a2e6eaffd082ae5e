"""The list of a series: one line per scan, with patient and date; and the comparisons that it needs."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from ChangeMapJointLib.cohort.pairs import CohortPair, located, read_rows
from ChangeMapJointLib.core.errors import InputError

COLUMNS = ("patient", "date", "scan")
LONGEST_NAME = 60
_DAY = re.compile(r"\d{8}|\d{4}-\d{2}-\d{2}", re.ASCII)
_NAME = re.compile(r"\w[\w .+@=-]*", re.UNICODE)


@dataclass(frozen=True)
class SeriesScan:
    """One scan of a patient.

    Attributes:
        day: on which it was acquired.
        path: a file, a DICOM folder or zip; ``PATH#SERIES`` picks one of several.
    """

    day: date
    path: Path


Series = Mapping[str, tuple[SeriesScan, ...]]


def read_series(path: Path) -> dict[str, tuple[SeriesScan, ...]]:
    """Read the list of a series.

    Args:
        path: CSV (comma or semicolon, UTF-8) with the columns :data:`COLUMNS`; dates are 2026-03-02 or 20260302. Others
            are ignored. Relative paths start at the list's folder.

    Returns:
        The scans of each patient in the order of time; the patients in the order of the list.

    Raises:
        InputError: the list cannot be read, lacks a column or a value, a date or a name is wrong, or a patient has one
            scan only, or two of one day.
    """
    found: dict[str, dict[date, SeriesScan]] = {}
    names: dict[str, str] = {}
    for line, row in read_rows(path, COLUMNS, what="scan"):
        patient, day = unicodedata.normalize("NFC", row["patient"]), _day(path, line, row["date"])
        if not _NAME.fullmatch(patient) or len(patient) > LONGEST_NAME or patient.endswith((".", " ")):
            expected = f"up to {LONGEST_NAME} letters, digits, spaces or . _ + @ = -, since it names folders"
            raise InputError(f"line {line} has the patient {patient!r}", field=path, expected=expected)
        other = names.setdefault(patient.casefold(), patient)
        if other != patient:
            raise InputError(
                f"line {line} has {patient!r}, another line {other!r}", field=path, expected="one spelling"
            )
        scans = found.setdefault(patient, {})
        if day in scans:
            raise InputError(f"line {line} has a second scan of {patient} on {day}", field=path, expected="one per day")
        scans[day] = SeriesScan(day, located(path, row["scan"]))
    for patient, scans in found.items():
        if len(scans) < 2:
            raise InputError(f"patient {patient} has one scan", field=path, expected="two or more")
    return {patient: tuple(scans[day] for day in sorted(scans)) for patient, scans in found.items()}


def comparisons_of(count: int) -> tuple[tuple[int, int], ...]:
    """Return which scans are compared, ``(later, earlier)``: each against its prior, and against the baseline.

    Examples:
        >>> comparisons_of(4)
        ((1, 0), (2, 1), (2, 0), (3, 2), (3, 0))
    """
    pairs = [(later, earlier) for later in range(1, count) for earlier in (later - 1, 0)]
    return tuple(dict.fromkeys(pairs))


def name_of(patient: str, later: int, earlier: int) -> str:
    """Return the name of a comparison, and of its folder; scans are numbered from 1 in the order of time."""
    return f"{patient} {later + 1}-{earlier + 1}"


def pairs_of(series: Series) -> tuple[CohortPair, ...]:
    """Return the comparisons of all patients as a cohort."""
    return tuple(
        CohortPair(name_of(patient, later, earlier), scans[later].path, scans[earlier].path)
        for patient, scans in series.items()
        for later, earlier in comparisons_of(len(scans))
    )


def _day(path: Path, line: int, text: str) -> date:
    if _DAY.fullmatch(text):  # strptime takes 2025111 for one of two days
        with suppress(ValueError):
            return datetime.strptime(text.replace("-", ""), "%Y%m%d").date()
    raise InputError(f"line {line} has the date {text!r}", field=path, expected="a day such as 2026-03-02 or 20260302")
