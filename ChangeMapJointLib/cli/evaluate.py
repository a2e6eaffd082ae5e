"""``changemap evaluate``: score any methods on any list of cases with truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ChangeMapJointLib.cli.console import exit_codes, progress_listener
from ChangeMapJointLib.cli.options import ProgressOption, ProgressStyle, log_beside
from ChangeMapJointLib.comparison.events import emit
from ChangeMapJointLib.comparison.stages import Listener, Stages, ignore_progress
from ChangeMapJointLib.core.errors import InputError

if TYPE_CHECKING:
    from ChangeMapJointLib.evaluation.evaluate import Evaluation


def evaluate_command(
    cases: Annotated[
        Path, typer.Argument(readable=False, help="Table (CSV) of pairs with truth and of what methods made of them.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to create for page, tables, figures and JSON.")],
    runs: Annotated[
        list[str] | None,
        typer.Option(
            help="Folder of changemap cohort, or of runs in sub-folders of the cases' names; NAME=FOLDER names the "
            "method. May be given several times."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier evaluation.")] = False,
    progress: ProgressOption = ProgressStyle.bar,
) -> None:
    """Score change maps, deformations and lists of findings of any program against a known truth."""
    with exit_codes(progress.value, log_beside(out)), progress_listener(progress.value) as listener:
        scores = run_evaluation(cases, out, tuple(runs or ()), listener, overwrite=overwrite)
    with exit_codes(progress.value, written=out):
        if progress is ProgressStyle.json:
            emit("finished", out=str(out), cases=len(scores.cases))
        else:
            typer.echo("\n".join(headline(scores, out)))


def run_evaluation(
    cases: Path, out: Path, runs: Sequence[str] = (), listener: Listener = ignore_progress, *, overwrite: bool = False
) -> Evaluation:
    """Score the cases and write the folder.

    Args:
        cases: the table of cases.
        out: folder to create.
        runs: folders of runs, each ``FOLDER`` or ``NAME=FOLDER``.
        listener: of the progress.
        overwrite: replace the folder of an earlier evaluation.

    Raises:
        InputError: a case cannot be scored, or the folder cannot be written.
    """
    from ChangeMapJointLib.evaluation.evaluate import evaluate

    stages = Stages({"score": 1.0}, listener)
    with stages.stage("score") as progress:
        return evaluate(cases, out, runs=named_runs(runs), overwrite=overwrite, progress=progress)


def named_runs(runs: Sequence[str]) -> dict[str, Path]:
    """The folders by the name of their method; a single folder without a name has an empty one.

    Raises:
        InputError: a folder is missing, or two have one name.
    """
    named: dict[str, Path] = {}
    for text in runs:
        name, separator, path = text.partition("=")
        if not separator or Path(text).is_dir():
            name, path = "", text
        folder = Path(path)
        if not folder.is_dir():
            raise InputError("no such folder", field="runs", value=path, expected="FOLDER or NAME=FOLDER")
        name = name or ("" if len(runs) == 1 else folder.name)
        if name in named:
            raise InputError(f"two folders are called {name!r}", field="runs", remedy="name them: NAME=FOLDER")
        named[name] = folder
    return named


def headline(scores: Evaluation, out: Path) -> list[str]:
    """What the command prints: recall and false positives of every map, the error of every registration, the page."""
    from ChangeMapJointLib.evaluation.output.folder import PAGE
    from ChangeMapJointLib.evaluation.output.tables import figure

    document = scores.document
    about = document["about"]
    lines = [f"{about['cases']} cases of {about['patients']} patients, {about['changes']} changes."]
    for name, entry in document["maps"].items():
        found = entry["figures"]
        lines.append(
            f"{name}: recall {figure(found['recall_at_0.68'])} with {figure(found['false_per_scan_at_0.68'], 2)} false "
            f"regions per scan at 0.68; CPM {figure(found['cpm'])}."
        )
    for name, entry in document["methods"].items():
        error = entry["registration"].get("tre_mm")
        if error and error["value"] is not None:
            lines.append(f"{name}: corresponding points {figure(error)} mm apart after registration.")
    return [*lines, *document["notes"], f"Page: {out / PAGE}"]
