"""``changemap matching``: nodule matching over time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ChangeMapJointLib.cli.console import exit_codes
from ChangeMapJointLib.cli.options import ProgressOption, ProgressStyle, log_beside
from ChangeMapJointLib.comparison.events import emit
from ChangeMapJointLib.evaluation.public.nodule_matching import HIT_MM, LINK_MM


def matching_command(
    nodules: Annotated[
        Path, typer.Argument(readable=False, help="Table (CSV) of nodules over time, as changemap cases writes it.")
    ],
    runs: Annotated[
        Path,
        typer.Option(readable=False, help="Folder of changemap cohort, or of runs in sub-folders of the cases' names."),
    ],
    out: Annotated[Path, typer.Option(help="Folder to create for table and JSON.")],
    detections: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="A detector's marks: CSV with case, scan (current or prior), x, y, z in mm, LPS.",
            show_default="the lesions that the runs measured",
        ),
    ] = None,
    hit: Annotated[float, typer.Option(help="How near to a nodule a detection must be, in mm.")] = HIT_MM,
    link: Annotated[float, typer.Option(help="Longest link under the deformation, in mm.")] = LINK_MM,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace earlier results.")] = False,
    progress: ProgressOption = ProgressStyle.bar,
) -> None:
    """Score nodule matching over time: how many nodules of both scans are detected in both and linked."""
    from ChangeMapJointLib.evaluation.public.matching_study import DOCUMENT, TABLE, evaluate_matching
    from ChangeMapJointLib.evaluation.result_folder import check_result_folder

    with exit_codes(progress.value, log_beside(out)):
        check_result_folder(out, document=DOCUMENT, content=(TABLE, DOCUMENT), overwrite=overwrite)
        study = evaluate_matching(nodules, runs, detections, hit_mm=hit, link_mm=link)
        study.save(out, overwrite=overwrite)
    with exit_codes(progress.value, written=out):
        if progress is ProgressStyle.json:
            emit("finished", out=str(out), table=str(out / TABLE), lines=study.lines())
        else:
            typer.echo("\n".join([*study.lines(), f"Table: {out / TABLE}"]))
