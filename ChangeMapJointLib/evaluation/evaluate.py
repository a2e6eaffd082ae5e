"""Evaluation of any methods on any list of cases with truth: the paper's protocol and what keeps it honest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.extras import require_packages
from ChangeMapJointLib.core.paths import as_path
from ChangeMapJointLib.core.progress import Progress, silent
from ChangeMapJointLib.evaluation.cases import Case, read_cases
from ChangeMapJointLib.evaluation.score_case import CaseScore, score_case

EXTRA = ("matplotlib", "pandas", "statsmodels")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What an evaluation found.

    Attributes:
        cases: the score of every case.
    """

    cases: tuple[CaseScore, ...]

    @cached_property
    def document(self) -> dict[str, Any]:
        """All figures, as written to ``evaluation.json``."""
        from ChangeMapJointLib.evaluation.document import evaluation_document

        return evaluation_document(self.cases)

    def save(self, out: Path | str, *, overwrite: bool = False) -> Path:
        """Write page, JSON, tables (CSV, LaTeX) and figures (PNG, SVG) into a folder that appears when it is complete.

        Args:
            out: folder to create.
            overwrite: replace the folder of an earlier evaluation.

        Raises:
            InputError: the folder exists or cannot be written.
        """
        from ChangeMapJointLib.evaluation.output.folder import write_evaluation

        return write_evaluation(as_path(out, "out"), self, overwrite=overwrite)


def evaluate(
    cases: Path | str | Sequence[Case],
    out: Path | str | None = None,
    *,
    runs: Mapping[str, Path] | Sequence[Path] = (),
    overwrite: bool = False,
    progress: Progress = silent,
) -> Evaluation:
    """Score change maps, deformations and lists of findings against a known truth.

    Args:
        cases: the table of cases (CSV), or cases; see :mod:`~ChangeMapJointLib.evaluation.cases`.
        out: folder for page, tables, figures and JSON; None to write nothing.
        runs: folders that hold one run per case; see :func:`~ChangeMapJointLib.evaluation.cases.read_cases`.
        overwrite: replace the folder of an earlier evaluation.
        progress: called with the fraction done; raise from it to stop.

    Returns:
        The scores of every case; :attr:`Evaluation.document` holds all pooled figures.

    Raises:
        InputError: a case cannot be scored, the folder cannot be written, or a package of the extra ``evaluate`` is
            missing.

    Examples:
        >>> import ChangeMapJointLib as cmj
        >>> scores = cmj.evaluate("cases.csv", "evaluation")  # doctest: +SKIP
        >>> scores.document["maps"]["CM_seq"]["figures"]["recall_at_0.68"]  # doctest: +SKIP
        {'value': 0.91, 'low': 0.84, 'high': 0.97}
    """
    check_extra()
    if out is not None:
        from ChangeMapJointLib.evaluation.output.folder import check_evaluation_folder

        check_evaluation_folder(as_path(out, "out"), overwrite=overwrite)
    listed = _listed(cases, runs)
    if not listed:
        raise InputError("found no case", field="cases", expected="at least one")
    scores = []
    for number, case in enumerate(listed):
        progress(number / len(listed), case.name)
        scores.append(score_case(case))
    result = Evaluation(tuple(scores))
    if out is not None:
        result.save(out, overwrite=overwrite)
    progress(1.0, "")
    return result


def _listed(cases: object, runs: object) -> tuple[Case, ...]:
    """Return the cases that a caller gives, as a table or one by one, with the runs for a table."""
    if isinstance(cases, (str, Path)):
        return read_cases(as_path(cases, "cases"), runs=_run_folders(runs))
    listed = tuple(cases) if isinstance(cases, Iterable) else (cases,)
    if wrong := [one for one in listed if not isinstance(one, Case)]:
        raise InputError(f"found {type(wrong[0]).__name__}", field="cases", expected="a table (CSV), or a list of Case")
    return listed


def _run_folders(runs: object) -> Mapping[str, Path] | list[Path]:
    """Return the folders of runs that a caller gives, by method or in order."""
    if isinstance(runs, Mapping):
        return {str(name): as_path(folder, "runs") for name, folder in runs.items()}
    if isinstance(runs, (str, Path)) or not isinstance(runs, Iterable):
        raise InputError(f"found {type(runs).__name__}", field="runs", expected="a list or a mapping of folders")
    return [as_path(folder, "runs") for folder in runs]


def check_extra() -> None:
    """Check that the packages of the extra ``evaluate`` are installed.

    Raises:
        InputError: one is missing.
    """
    require_packages("evaluate", *EXTRA)
