"""The table of cases that ``changemap evaluate`` scores: pairs with a known truth, and what methods made of them.

A CSV file with a header, UTF-8. Paths are relative to the folder of the file. One row is one method on one pair; all
rows with the same ``case`` are the same pair, and its truth stands in any of them. Empty cells say nothing.

=================== ===================================================================================================
case                name of the pair; required
patient             name of the patient, over whom the intervals go; by default the case
null                ``yes``: it is known that nothing changed; needs no other truth
days                from the prior to the current scan, for doubling times
pair                folder of ``changemap synthesize``: stands for all columns of the truth
lesions             table (CSV) of the lesions in both scans: :mod:`~ChangeMapJointLib.evaluation.lesion_table`
lesions_reference   label map of the lesions in the current scan, on any grid in its space
lesions_template    the same in the prior; the same label is the same lesion
true_deformation    the true y, a displacement field or transform from the current scan to the prior
landmarks           table (CSV) of corresponding points: rx, ry, rz (current), tx, ty, tz (prior), in mm, LPS
lungs_reference     lung mask of the current scan
lungs_template      lung mask of the prior
method              name of the method; required unless ``run`` says it
run                 folder of ``changemap run``: stands for all columns below, and for lung masks that are not given
map                 change map in [0, 1] in the space of the current scan
deformation         what the method says y is: a field, ITK or elastix transform; several are separated by ``;``
trust               its trust in [0, 1] in the space of the current scan
findings            its list of findings: ``findings.json``, or a CSV with id, kind, centre_x_mm, centre_y_mm, ...
seconds, peak_mb    what it took
=================== ===================================================================================================

Columns whose name begins with ``note`` are for the reader of the table. Any other column is an error: a misspelt one
would be a truth that nobody looks at.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.io import run_files
from ChangeMapJointLib.io.sources import reason_of

TRUTH_FILES = (
    "pair", "lesions", "lesions_reference", "lesions_template", "true_deformation", "landmarks", "lungs_reference",
    "lungs_template",
)  # fmt: skip
RESULT_FILES = ("run", "map", "deformation", "trust", "findings")
COLUMNS = ("case", "patient", "null", "days", *TRUTH_FILES, "method", *RESULT_FILES, "seconds", "peak_mb")
SCORED = ("run", "map", "deformation", "findings")  # a row needs one of these
PLACES = (("",), ("pairs", "", "result"))  # of a run below a folder of runs; "" is the case. The second is a cohort's
YES, NO = ("yes", "1", "true"), ("", "no", "0", "false")


@dataclass(frozen=True)
class MethodFiles:
    """What one method made of one pair; None and empty where there is nothing.

    Attributes:
        method: its name; empty for a run that says it itself.
        run: folder of ``changemap run``.
        map: change map in [0, 1].
        deformation: files of y, in the order in which points of the current scan pass through them.
        trust: its trust in the deformation.
        findings: its list.
        seconds: time that it took.
        peak_mb: largest memory that it took, in MB.
    """

    method: str = ""
    run: Path | None = None
    map: Path | None = None
    deformation: tuple[Path, ...] = ()
    trust: Path | None = None
    findings: Path | None = None
    seconds: float | None = None
    peak_mb: float | None = None


@dataclass(frozen=True)
class Case:
    """One pair, the files of its truth, and what the methods made of it.

    Attributes:
        name: unique.
        patient: of both scans.
        null: whether it is known that nothing changed.
        days: between the scans; None where unknown.
        pair: folder of ``changemap synthesize``.
        lesions: table of the lesions.
        lesions_reference: label map in the current scan.
        lesions_template: label map in the prior.
        true_deformation: files of the true y.
        landmarks: table of corresponding points.
        lungs_reference: mask in the current scan.
        lungs_template: mask in the prior.
        methods: what is scored, at least one.
    """

    name: str
    patient: str
    null: bool = False
    days: float | None = None
    pair: Path | None = None
    lesions: Path | None = None
    lesions_reference: Path | None = None
    lesions_template: Path | None = None
    true_deformation: tuple[Path, ...] = ()
    landmarks: Path | None = None
    lungs_reference: Path | None = None
    lungs_template: Path | None = None
    methods: tuple[MethodFiles, ...] = ()

    @property
    def has_truth(self) -> bool:
        """Whether anything about the pair is known that a result can be compared with."""
        return self.null or any(getattr(self, name) for name in TRUTH_FILES)


def read_cases(
    path: Path | str, *, runs: Mapping[str, Path] | Sequence[Path] = (), results: bool = True
) -> tuple[Case, ...]:
    r"""Read the table of cases.

    Args:
        path: the CSV file.
        runs: folders of ``changemap cohort``, or folders that hold one run of ``changemap run`` a case in a sub-folder
            of the case's name; as a mapping, by the name that their method shall have. Rows may then hold truth alone.
        results: False where the truth alone is wanted, so that no row needs a result.

    Returns:
        The cases in the order of the table. All files exist; none has been read.

    Raises:
        InputError: the table cannot be read, is empty, has a wrong column, names a file that is not there, gives two
            truths for one case or two results of one method for one case, or a case has no truth or no result.

    Examples:
        >>> from pathlib import Path
        >>> _ = Path("a.nrrd").write_bytes(b""); _ = Path("points.csv").write_text("")
        >>> _ = Path("cases.csv").write_text("case,method,map,landmarks\np1,ours,a.nrrd,points.csv\n")
        >>> case, = read_cases("cases.csv")
        >>> case.name, case.methods[0].method, case.landmarks.name
        ('p1', 'ours', 'points.csv')
    """
    path = Path(path)
    named = runs if isinstance(runs, Mapping) else {"" if len(runs) == 1 else run.name: run for run in runs}
    cases: dict[str, Case] = {}
    lines: dict[str, int] = {}
    for line, row in _rows(path):
        try:
            case = _case(row, path.parent)
            lines.setdefault(case.name, line)
            cases[case.name] = _joined(cases[case.name], case) if case.name in cases else case
        except InputError as error:
            raise error.at(path, Argument(f"line {line}")) from error
    if not cases:
        raise InputError("holds no case", field=path, expected="a row below the header for every pair and method")
    checked = []
    for case in cases.values():
        try:
            checked.append(_checked(_with_runs(case, named), results))
        except InputError as error:
            raise error.at(path, Argument(f"line {lines[case.name]}")) from error
    return tuple(checked)


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """The rows with their line numbers, cells stripped, empty rows left out."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, strict=True)
            _check_columns([name.strip() for name in reader.fieldnames or ()], path)
            rows = []
            for row in reader:
                if None in row or None in row.values():
                    raise InputError(
                        "has more or fewer cells than the header",
                        field=(path, Argument(f"line {reader.line_num}")),
                        remedy="put a text that holds a comma in double quotes",
                    )
                cells = {name.strip(): value.strip() for name, value in row.items()}
                if any(cells.values()):
                    rows.append((reader.line_num, cells))
            return rows
    except IsADirectoryError as error:
        raise InputError("is a folder", field=path, expected="a table of cases (CSV)") from error
    except FileNotFoundError as error:
        raise InputError("no such file", field=path, expected="a table of cases (CSV)") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"cannot be read ({reason_of(error)})", field=path, expected="a table of cases (CSV, UTF-8)"
        ) from error


def _check_columns(names: Sequence[str], path: Path) -> None:
    """Refuse a header that lacks ``case``, or holds a column twice or one that means nothing."""
    if "case" not in names:
        found = f"found the columns {', '.join(names[:8])}" if any(names) else "is empty"
        raise InputError(found, field=path, expected="a header with the column case", remedy="separate by commas")
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"has the column {name!r} twice", field=path)
        if name not in COLUMNS and not name.startswith("note"):
            near = get_close_matches(name, COLUMNS, 1)
            remedy = f"rename it to {near[0]}" if near else "begin its name with 'note' to have it ignored"
            raise InputError(f"has an unknown column {name!r}", field=path, remedy=remedy)


def _case(row: Mapping[str, str], folder: Path) -> Case:
    """The case of one row, with one method or none."""
    if not row["case"]:
        raise InputError("has no case", expected="the name of the pair")
    null = row.get("null", "").lower()
    if null not in (*YES, *NO):
        raise InputError(f"found {null!r}", field="null", expected="yes or no")
    paths = {name: _path(row.get(name, ""), folder, name) for name in (*TRUTH_FILES, *RESULT_FILES)}
    method = MethodFiles(
        row.get("method", ""),
        _one(paths["run"]),
        _one(paths["map"]),
        paths["deformation"],
        _one(paths["trust"]),
        _one(paths["findings"]),
        _number(row, "seconds"),
        _number(row, "peak_mb"),
    )
    truth = {name: paths[name] if name == "true_deformation" else _one(paths[name]) for name in TRUTH_FILES}
    return Case(
        row["case"],
        row.get("patient", ""),
        null in YES,
        _number(row, "days"),
        methods=() if method == MethodFiles() else (method,),
        **truth,  # type: ignore[arg-type]
    )


def _path(text: str, folder: Path, column: str) -> tuple[Path, ...]:
    """The files of a cell, which must exist."""
    paths = tuple(folder / part.strip() for part in text.split(";") if part.strip())
    if len(paths) > 1 and column not in ("deformation", "true_deformation"):
        raise InputError(f"found {len(paths)} paths", field=column, expected="one")
    for path in paths:
        if not path.exists():
            raise InputError("no such file or folder", field=(column, path), expected="a path relative to the table")
        if path.is_dir() != (column in ("pair", "run")):
            found = "is a folder" if path.is_dir() else "is a file"
            raise InputError(found, field=(column, path), expected="a folder" if found == "is a file" else "a file")
    return paths


def _one(paths: tuple[Path, ...]) -> Path | None:
    return paths[0] if paths else None


def _number(row: Mapping[str, str], column: str) -> float | None:
    text = row.get(column, "")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise InputError(f"found {text!r}", field=column, expected="a number above 0")
    return value


def _joined(known: Case, more: Case) -> Case:
    """The same case with the truth and the methods of both rows."""
    changes: dict[str, object] = {"null": known.null or more.null}
    for name in ("patient", "days", *TRUTH_FILES):
        first, second = getattr(known, name), getattr(more, name)
        if first and second and first != second:
            raise InputError(
                f"case {known.name!r} has another {name} in a row above",
                remedy="give every case a name of its own, and its truth once",
            )
        changes[name] = first or second
    methods = known.methods + more.methods
    names = [(m.method, m.run) if m.run and not m.method else (m.method, None) for m in methods]
    if len(set(names)) < len(names) or not more.methods:
        what = f"method {more.methods[0].method!r}" if more.methods and more.methods[0].method else "the same row"
        raise InputError(
            f"case {known.name!r} with {what} stands in a row above",
            remedy="remove one of them, or give the case or the method another name",
        )
    return replace(known, methods=methods, **changes)  # type: ignore[arg-type]


def _with_runs(case: Case, runs: Mapping[str, Path]) -> Case:
    """The case with its runs in the folders ``runs``."""
    found = list(case.methods)
    for method, folder in runs.items():
        places = [folder.joinpath(*(part or case.name for part in place)) for place in PLACES]
        run = next((place for place in places if (place / run_files.RUN).exists()), None)
        if run is None:
            expected = f"a folder with {run_files.RUN}"
            raise InputError(f"case {case.name!r} has no run", field=places[0], expected=expected)
        found.append(MethodFiles(method, run))
    return replace(case, methods=tuple(found))


def _checked(case: Case, results: bool) -> Case:
    """The case with its patient, once truth and results are there."""
    if not case.has_truth:
        raise InputError(
            f"case {case.name!r} has no truth",
            expected="one of pair, lesions, lesions_reference, landmarks, ..., or null = yes",
        )
    if bool(case.lesions_reference) != bool(case.lesions_template) and not case.lesions:
        raise InputError(
            f"case {case.name!r} has the lesions of one scan only",
            remedy="give lesions_reference and lesions_template (an empty map where there is none), or lesions",
        )
    if case.null and any((case.lesions, case.lesions_reference, case.lesions_template)):
        raise InputError(
            f"case {case.name!r} is null, but has lesions", remedy="list unchanged lesions as stable instead"
        )
    if results and not case.methods:
        raise InputError(f"case {case.name!r} has no result", expected=f"one of {', '.join(SCORED)}")
    for method in case.methods:
        if not any(getattr(method, name) for name in SCORED):
            raise InputError(f"case {case.name!r} has no result", expected=f"one of {', '.join(SCORED)}")
        if not method.method and method.run is None:
            raise InputError(f"case {case.name!r} has a result without a name", expected="a name in the column method")
    return replace(case, patient=case.patient or case.name)
