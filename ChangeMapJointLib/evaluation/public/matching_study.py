"""Nodule matching over time on many pairs: nodules of a table against what runs, or a detector's marks, say of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ChangeMapJointLib import __version__
from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.core.grid import FloatArray, Vector3
from ChangeMapJointLib.evaluation.cases import PLACES
from ChangeMapJointLib.evaluation.public.nodule_matching import (
    HIT_MM,
    LINK_MM,
    Links,
    MatchingScore,
    link_detections,
    score_matching,
)
from ChangeMapJointLib.evaluation.public.pairs import AnnotatedNodule
from ChangeMapJointLib.evaluation.result_folder import check_result_folder, whole_folder
from ChangeMapJointLib.evaluation.statistics import Figure, ratio, with_interval
from ChangeMapJointLib.io import run_files
from ChangeMapJointLib.io.deformation_files import read_deformation
from ChangeMapJointLib.io.run_records import RUN_AGAIN, read_records
from ChangeMapJointLib.io.sources import reason_of

TABLE, DOCUMENT = "matching.csv", "matching.json"
PUBLISHED_RATE = 0.87  # automatic detection and matching
SCANS = ("current", "prior")
NODULE_COLUMNS = ("case", "nodule", "rx", "ry", "rz", "tx", "ty", "tz")
DETECTION_COLUMNS = ("case", "scan", "x", "y", "z")


@dataclass(frozen=True)
class Detections:
    """What was detected in a pair.

    Attributes:
        current_mm: in the current scan, ``[n, 3]`` in mm, LPS.
        prior_mm: in the prior, ``[m, 3]``.
        links: which two are one nodule, pairs of indices.
    """

    current_mm: FloatArray
    prior_mm: FloatArray
    links: Links


@dataclass(frozen=True)
class MatchingCase:
    """The nodules of one pair.

    Attributes:
        case: its name.
        patient: of both scans; the case's name where the table says none.
        nodules: annotated in either scan.
    """

    case: str
    patient: str
    nodules: tuple[AnnotatedNodule, ...]


@dataclass(frozen=True)
class MatchingStudy:
    """What was found.

    Attributes:
        scores: of each case by its name.
        total: of all cases.
        rate: nodules detected and matched by all, with its interval over patients.
        about: how it was made.
    """

    scores: Mapping[str, MatchingScore]
    total: MatchingScore
    rate: Figure
    about: Mapping[str, Any] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """What the command prints."""
        total = self.total
        interval = "" if self.rate.low is None else f" (95 % interval {self.rate.low:.3f} to {self.rate.high:.3f})"
        rate = "unknown" if self.rate.value is None else f"{self.rate.value:.3f}{interval}"
        return [
            f"{total.nodules} nodules of both scans in {len(self.scores)} pairs: {total.detected} detected in both, "
            f"{total.matched} matched, {total.wrong_links} wrong links.",
            f"Rate: {rate}; published for automatic matching: {PUBLISHED_RATE:.2f}.",
        ]

    def save(self, out: Path, *, overwrite: bool = False) -> None:
        """Write table and JSON into a folder.

        Raises:
            InputError: it exists or cannot be written.
        """
        check_result_folder(out, document=DOCUMENT, content=(TABLE, DOCUMENT), overwrite=overwrite)
        with whole_folder(out) as folder:
            with (folder / TABLE).open("w", newline="", encoding="utf-8") as stream:
                rows = csv.writer(stream, lineterminator="\n")
                rows.writerow(("case", *asdict(self.total)))
                rows.writerows((case, *asdict(score).values()) for case, score in self.scores.items())
            document = {
                "schema": "changemap.matching/1",
                "version": __version__,
                **self.about,
                "total": asdict(self.total),
                "rate": asdict(self.rate),
                "published_rate": PUBLISHED_RATE,
            }
            (folder / DOCUMENT).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def evaluate_matching(
    nodules: Path, runs: Path, detections: Path | None = None, *, hit_mm: float = HIT_MM, link_mm: float = LINK_MM
) -> MatchingStudy:
    """Score nodule matching over time.

    Args:
        nodules: table of nodules, as ``changemap cases`` writes it: case, nodule, centre in the current scan (rx, ry,
            rz) and in the prior (tx, ty, tz) in mm, LPS, empty where it was not annotated; maybe patient.
        runs: folder of ``changemap cohort``, or one that holds a run in a sub-folder of each case's name.
        detections: a detector's marks: case, scan (current or prior), x, y, z in mm, LPS. They are linked under the
            run's deformation. None takes the lesions that the run measured, with its own links.
        hit_mm: how near to a nodule a detection must be.
        link_mm: longest link under the deformation.

    Raises:
        InputError: a table is wrong, a run is missing, or a distance is not a positive number.
    """
    for name, value in (("hit", hit_mm), ("link", link_mm)):
        if not 0 < value < 1000:
            raise InputError("is not a distance", field=name, value=value, expected="more than 0 and less than 1000 mm")
    cases = read_nodules(nodules)
    marks = None if detections is None else _read_detections(detections, {case.case for case in cases})
    scores = {}
    for case in cases:
        folder = _run_of(runs, case.case)
        found = lesions_of_run(folder) if marks is None else _linked(marks.get(case.case, {}), folder, link_mm)
        scores[case.case] = score_matching(case.nodules, found.current_mm, found.prior_mm, found.links, hit_mm=hit_mm)
    matched, known = (
        np.array([getattr(score, name) for score in scores.values()], float) for name in ("matched", "nodules")
    )
    rate = with_interval(lambda weights: ratio(weights @ matched, weights @ known), [case.patient for case in cases])
    total = sum(scores.values(), MatchingScore(0, 0, 0, 0))
    about = {"detections": "the runs' own" if marks is None else "given", "hit_mm": hit_mm, "link_mm": link_mm}
    return MatchingStudy(scores, total, rate, about)


def read_nodules(path: Path) -> tuple[MatchingCase, ...]:
    """Read a table of nodules; cases keep the order of the table.

    Raises:
        InputError: it cannot be read, a column is missing, or a value is wrong or missing.
    """
    found: dict[str, tuple[str, dict[str, AnnotatedNodule]]] = {}
    for line, row in _rows(path, NODULE_COLUMNS, named=("case", "nodule")):
        places = [_place(path, line, row, names) for names in (("rx", "ry", "rz"), ("tx", "ty", "tz"))]
        if places == [None, None]:
            raise InputError(
                "has no place in either scan",
                field=(path, Argument(f"line {line}")),
                expected="rx, ry, rz or tx, ty, tz",
            )
        _, nodules = found.setdefault(row["case"], (row.get("patient") or row["case"], {}))
        if row["nodule"] in nodules:
            where = (path, Argument(f"line {line}"), Argument("nodule"))
            raise InputError(f"case {row['case']!r} has {row['nodule']!r} twice", field=where)
        nodules[row["nodule"]] = AnnotatedNodule(row["nodule"], *places)
    return tuple(MatchingCase(case, patient, tuple(known.values())) for case, (patient, known) in found.items())


def lesions_of_run(folder: Path) -> Detections:
    """Return the lesions that a run measured, in all sections of its lists; two of one entry are linked.

    Raises:
        InputError: the folder is not that of a run, or has no lists.
    """
    records = read_records(folder)
    if "findings" not in records:
        raise InputError("has no list of findings", field=folder / run_files.FINDINGS, expected="a run that lists them")
    now: list[Vector3] = []
    before: list[Vector3] = []
    links = set()
    for name in ("findings", "candidates"):
        for entry in records.get(name, {}).get("findings", []):
            both = [_centre(folder / f"{name}.json", entry.get(f"lesion_{side}")) for side in ("reference", "template")]
            for centre, listed in zip(both, (now, before), strict=True):
                if centre is not None:
                    listed.append(centre)
            if None not in both:
                links.add((len(now) - 1, len(before) - 1))
    return Detections(_points(now), _points(before), frozenset(links))


def _centre(path: Path, lesion: Any) -> Vector3 | None:
    """The centre of a measured lesion; None where there is none."""
    if lesion is None:
        return None
    try:
        x, y, z = (float(value) for value in lesion["centre_mm"])
    except (TypeError, KeyError, ValueError) as error:
        raise InputError("a lesion has no centre of three numbers", field=path, remedy=RUN_AGAIN) from error
    return x, y, z


def _linked(marks: Mapping[str, list[Vector3]], folder: Path, link_mm: float) -> Detections:
    now, before = (_points(marks.get(scan, [])) for scan in SCANS)
    field, rigid = folder / run_files.DEFORMATION, folder / run_files.RIGID
    mapping = read_deformation((field if field.exists() else rigid,))
    return Detections(now, before, link_detections(now, before, mapping.apply, within_mm=link_mm))


def _points(places: Sequence[Vector3]) -> FloatArray:
    return np.array(places, dtype=float).reshape(-1, 3)


def _run_of(runs: Path, case: str) -> Path:
    for parts in PLACES:
        folder = runs.joinpath(*(part or case for part in parts))
        if (folder / run_files.RUN).is_file():
            return folder
    raise InputError("no run of this case", field=runs / case, expected="the folder of a finished run")


def _read_detections(path: Path, cases: set[str]) -> dict[str, dict[str, list[Vector3]]]:
    found: dict[str, dict[str, list[Vector3]]] = {}
    for line, row in _rows(path, DETECTION_COLUMNS, named=()):
        for name, allowed in (("case", cases), ("scan", SCANS)):
            if row[name] not in allowed:
                where = (path, Argument(f"line {line}"), Argument(name))
                expected = "a case of the table of nodules" if name == "case" else " or ".join(SCANS)
                raise InputError(f"found {row[name]!r}", field=where, expected=expected)
        place = _place(path, line, row, ("x", "y", "z"))
        if place is None:
            raise InputError(
                "is empty", field=(path, Argument(f"line {line}"), Argument("x")), expected="a place in mm"
            )
        found.setdefault(row["case"], {}).setdefault(row["scan"], []).append(place)
    return found


def _place(path: Path, line: int, row: Mapping[str, str], names: tuple[str, str, str]) -> Vector3 | None:
    if not any(row[name] for name in names):
        return None
    values = []
    for name in names:
        try:
            values.append(float(row[name]))
        except ValueError:
            values.append(float("nan"))
        if not np.isfinite(values[-1]):
            where = (path, Argument(f"line {line}"), Argument(name))
            raise InputError(f"found {row[name]!r}", field=where, expected="a number in mm")
    x, y, z = values
    return x, y, z


def _rows(path: Path, needed: Sequence[str], *, named: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Give the number of each line and its values; the columns ``named`` have one in every line."""
    with _readable(path), path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, restval="")
        columns = [str(name).strip() for name in reader.fieldnames or ()]
        for name in needed:
            if name not in columns:
                raise InputError(f"has no column {name!r}", field=path, expected=f"columns {', '.join(needed)}")
        reader.fieldnames = columns
        rows = []
        for row in reader:
            where = (path, Argument(f"line {reader.line_num}"))
            if None in row:
                raise InputError(f"has more than {len(columns)} values", field=where)
            rows.append((reader.line_num, {name: str(row[name] or "").strip() for name in columns}))
            for name in named:
                if not rows[-1][1][name]:
                    raise InputError("is empty", field=(*where, Argument(name)))
    if not rows:
        raise InputError("holds no row", field=path)
    yield from rows


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"not readable ({reason_of(error)})", field=path, expected="a CSV file in UTF-8") from error
