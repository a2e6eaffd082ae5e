"""The true lesions of a reader study, and which of them a reader's marks hit.

The truth is the table of cases that ``changemap evaluate`` reads (:mod:`ChangeMapJointLib.evaluation.cases`), or a
plain table with one row for each lesion: the columns ``case``, ``x_mm``, ``y_mm``, ``z_mm`` (centre in the current
scan, LPS) and ``diameter_mm``, and ``lesion`` (a number within the case; by default the row's). A row with a case alone
says that the case has no lesion.

A mark hits a lesion if it lies in it or at most ``margin_mm`` outside: for a lesion that is known by centre and
diameter, within half the diameter and the margin around the centre. Where several are near, it hits the one whose
surface is nearest. Of several marks on one lesion the one rated highest counts, and the others count as nothing. A mark
that hits no lesion is false.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.core.grid import Vector3
from ChangeMapJointLib.evaluation.cases import read_cases
from ChangeMapJointLib.evaluation.known import KnownLesion, read_known
from ChangeMapJointLib.evaluation.outline import Outline
from ChangeMapJointLib.evaluation.readers.log import MARGIN_MM, Mark
from ChangeMapJointLib.io.sources import reason_of

COLUMNS = ("case", "x_mm", "y_mm", "z_mm", "diameter_mm")
STEP_MM = 0.5  # of the search for the surface of a lesion that is known by its mask


@dataclass(frozen=True)
class StudyLesion:
    """A true lesion.

    Attributes:
        number: within the case.
        centre_mm: LPS, in the current scan's space.
        diameter_mm: the larger of both scans.
        outlines: where it is known by masks: in the current scan, and in the prior as seen from it.
    """

    number: int
    centre_mm: Vector3
    diameter_mm: float
    outlines: tuple[Outline, ...] = ()

    def distance_mm(self, position_mm: Vector3, within_mm: float) -> float:
        """How far outside the lesion a point lies: 0 or less inside; infinite beyond ``within_mm``."""
        if not self.outlines:
            distance = math.dist(position_mm, self.centre_mm) - self.diameter_mm / 2
            return distance if distance <= within_mm else math.inf
        if any(math.dist(position_mm, o.centre_mm) - o.radius_mm <= within_mm for o in self.outlines):
            steps = np.arange(-within_mm, within_mm + STEP_MM / 2, STEP_MM)
            offsets = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
            offsets = np.concatenate([np.zeros((1, 3)), offsets])
            far = np.linalg.norm(offsets, axis=1)
            points = np.asarray(position_mm) + offsets[far <= within_mm]
            inside = np.logical_or.reduce([outline.inside(points) for outline in self.outlines])
            if inside.any():
                return float(far[far <= within_mm][inside].min())
        return math.inf


@dataclass(frozen=True)
class Hits:
    """What the marks of one reading hit.

    Attributes:
        lesions: number of true lesions of the case.
        ratings: rating of every lesion that was hit, by its number.
        false: ratings of the false marks.
        repeated: further marks on a lesion that was hit.
    """

    lesions: int
    ratings: Mapping[int, float]
    false: tuple[float, ...]
    repeated: int = 0


def match_marks(marks: Sequence[Mark], lesions: Sequence[StudyLesion], margin_mm: float = MARGIN_MM) -> Hits:
    """Match the marks of one reading to the true lesions of its case, by the rule at the top of this module.

    Examples:
        >>> lesions = [StudyLesion(1, (0.0, 0.0, 0.0), 10.0), StudyLesion(2, (30.0, 0.0, 0.0), 6.0)]
        >>> marks = [Mark(1, (7.9, 0, 0), 60), Mark(2, (1, 1, 0), 90), Mark(3, (24, -1, 0), 40)]
        >>> match_marks(marks, lesions)
        Hits(lesions=2, ratings={1: 90}, false=(40,), repeated=1)
    """
    ratings: dict[int, float] = {}
    false, repeated = [], 0
    for mark in marks:
        near = [(lesion.distance_mm(mark.position_mm, margin_mm), lesion.number) for lesion in lesions]
        distance, number = min(near, default=(math.inf, 0))
        if distance > margin_mm:
            false.append(mark.rating)
            continue
        repeated += number in ratings
        ratings[number] = max(mark.rating, ratings.get(number, mark.rating))
    return Hits(len(lesions), ratings, tuple(false), repeated)


def read_study_truth(path: Path | str) -> tuple[dict[str, tuple[StudyLesion, ...]], tuple[str, ...]]:
    """Read the truth of a study.

    Args:
        path: a table of cases, or of lesions; see the top of this module.

    Returns:
        The lesions of every case by its name, and what could not be used, one sentence each.

    Raises:
        InputError: the file cannot be read, a column is missing, or a value is wrong.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            header = [name.strip() for name in next(csv.reader(stream), [])]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot be read ({reason_of(error)})", field=path, expected="a table (CSV, UTF-8)") from error
    if "x_mm" in header:
        return _read_lesions(path, header), ()
    cases: dict[str, tuple[StudyLesion, ...]] = {}
    notes: list[str] = []
    for case in read_cases(path, results=False):
        known = read_known(case)
        if not known.lesions_known:
            raise InputError(
                f"case {case.name!r} has no lesions",
                field=path,
                expected="lesions, lesions_reference, pair, or null = yes",
            )
        placed = [lesion for lesion in known.lesions if lesion.centre_mm is not None]
        cases[case.name] = tuple(_study_lesion(lesion) for lesion in placed)
        notes += [f"Case {case.name}: {note}" for note in known.notes]
    return cases, tuple(notes)


def _study_lesion(known: KnownLesion) -> StudyLesion:
    assert known.centre_mm is not None
    diameter = max(known.lesion.diameter_reference_mm, known.lesion.diameter_template_mm)
    outlines = tuple(outline for outline in (known.reference, known.moved) if outline is not None)
    return StudyLesion(known.lesion.id, known.centre_mm, diameter, outlines)


def _read_lesions(path: Path, header: Sequence[str]) -> dict[str, tuple[StudyLesion, ...]]:
    """The plain table with a row for each lesion."""
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise InputError(f"found no column {missing[0]}", field=path, expected=", ".join(COLUMNS))
    cases: dict[str, list[StudyLesion]] = {}
    with path.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream, restval="")
        for row in reader:
            cells = {str(name).strip(): str(value).strip() for name, value in row.items()}
            if not any(cells.values()):
                continue
            where = (path, Argument(f"line {reader.line_num}"))
            if not cells["case"]:
                raise InputError("has no case", field=where, expected="the name of the case")
            lesions = cases.setdefault(cells["case"], [])
            if any(cells[name] for name in COLUMNS[1:]):
                lesions.append(_lesion(cells, len(lesions) + 1, where))
                if len({lesion.number for lesion in lesions}) < len(lesions):
                    raise InputError(f"lesion {lesions[-1].number} stands in a row above", field=where)
    if not cases:
        raise InputError("holds no case", field=path, expected="a row for each lesion")
    return {case: tuple(lesions) for case, lesions in cases.items()}


def _lesion(cells: Mapping[str, str], number: int, where: tuple[Path, Argument]) -> StudyLesion:
    try:
        x, y, z, diameter = (float(cells[name]) for name in COLUMNS[1:])
        number = int(cells.get("lesion") or number)
        if not (all(map(math.isfinite, (x, y, z))) and 0 < diameter < 500 and number > 0):
            raise ValueError(f"found {x}, {y}, {z} and {diameter} mm")
    except ValueError as error:
        raise InputError(str(error), field=where, expected="a centre in mm (LPS) and a diameter above 0") from error
    return StudyLesion(number, (x, y, z), diameter)
