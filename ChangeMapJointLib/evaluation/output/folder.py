"""The folder of an evaluation: it appears when it is complete, and never replaces anything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ChangeMapJointLib.evaluation import result_folder
from ChangeMapJointLib.evaluation.output.data import data_tables
from ChangeMapJointLib.evaluation.output.figures import draw_figures
from ChangeMapJointLib.evaluation.output.page import render_evaluation_page
from ChangeMapJointLib.evaluation.output.tables import Table, reader_tables

if TYPE_CHECKING:
    from ChangeMapJointLib.evaluation.evaluate import Evaluation

DOCUMENT, PAGE = "evaluation.json", "evaluation.html"
TABLES, FIGURES = "tables", "figures"
FORMULA_STARTS = ("=", "+", "-", "@")
LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "–": "--",
}
CONTENT = {DOCUMENT, PAGE, TABLES, FIGURES}


def check_evaluation_folder(out: Path, *, overwrite: bool = False) -> None:
    """Check that ``out`` may be written.

    Raises:
        InputError: it exists, unless it is an earlier evaluation that may be replaced.
    """
    result_folder.check_result_folder(out, document=DOCUMENT, content=CONTENT, overwrite=overwrite)


def write_evaluation(out: Path, evaluation: Evaluation, *, overwrite: bool = False) -> Path:
    """Write everything; returns ``out``.

    Raises:
        InputError: the folder exists or cannot be written; nothing is left behind.
    """
    check_evaluation_folder(out, overwrite=overwrite)
    with result_folder.whole_folder(out) as part:
        _write_files(part, evaluation)
    return out


def _plain(value: Any) -> Any:
    """A cell; a text that a spreadsheet would evaluate as a formula is prefixed with an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.lstrip().startswith(FORMULA_STARTS) else value


def _write_files(part: Path, evaluation: Evaluation) -> None:
    document = evaluation.document
    (part / TABLES).mkdir()
    (part / FIGURES).mkdir()
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    (part / DOCUMENT).write_text(text, encoding="utf-8")
    for name, frame in data_tables(evaluation.cases, document).items():
        safe = frame.rename(columns=_plain).map(_plain)
        safe.to_csv(part / TABLES / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
    tables = reader_tables(document)
    for table in tables:
        (part / TABLES / f"{table.name}.tex").write_text(_latex(table), encoding="utf-8")
    pictures = draw_figures(part / FIGURES, evaluation.cases, document)
    (part / PAGE).write_text(render_evaluation_page(document, tables, pictures, part / FIGURES), encoding="utf-8")


def _latex(table: Table) -> str:
    """A table in LaTeX, with ``booktabs``."""
    import pandas as pd

    frame = pd.DataFrame([dict(row) for row in table.rows])
    escaped = frame.rename(columns=_escape).map(_escape)
    text: str = escaped.to_latex(
        index=False, escape=False, caption=_escape(f"{table.title}. {table.note}"), label=f"tab:{table.name}"
    )
    return text


def _escape(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)
