"""``changemap export``: the DICOM objects of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ChangeMapJointLib.cli.console import exit_codes, progress_listener
from ChangeMapJointLib.cli.options import ProgressOption, ProgressStyle, log_beside
from ChangeMapJointLib.comparison.events import emit
from ChangeMapJointLib.comparison.load import load_result
from ChangeMapJointLib.comparison.stages import Stages
from ChangeMapJointLib.comparison.to_dicom import DicomRequest, export_dicom
from ChangeMapJointLib.core.errors import Argument, InputError


def export_command(
    run_dir: Annotated[Path, typer.Argument(readable=False, help="Folder of a finished run.")],
    dicom: Annotated[Path, typer.Option(help="Folder to create for the DICOM objects; it appears when complete.")],
    reference: Annotated[
        Path,
        typer.Option(readable=False, help="DICOM series of the current scan, checked to be the one of the run."),
    ],
    template: Annotated[Path, typer.Option(readable=False, help="DICOM series of the prior scan, likewise.")],
    anonymous: Annotated[
        bool, typer.Option("--anonymous", help="Leave out patient, study, dates and real UIDs.")
    ] = False,
    earlier: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="Earlier export whose current scan is this prior scan: its lesions keep their identifiers.",
        ),
    ] = None,
    progress: ProgressOption = ProgressStyle.bar,
) -> None:
    """Write segmentation, measurements, change map, registrations and report of a run as DICOM objects."""
    with exit_codes(progress.value, log_beside(dicom)), progress_listener(progress.value) as listener:
        request = DicomRequest(dicom, reference, template, anonymous, earlier)
        result = load_result(run_dir)
        with Stages({"export": 1.0}, listener).stage("export") as report:
            try:
                files = export_dicom(result, request, progress=report)
            except InputError as error:
                raise _for_command(error) from error
    with exit_codes(progress.value, written=dicom):
        if progress is ProgressStyle.json:
            emit("finished", out=str(dicom), files=[file.name for file in files])
        else:
            typer.echo(f"{len(files)} DICOM objects in {dicom}")


def _for_command(error: InputError) -> InputError:
    """Call the output folder as the command does."""
    subjects = tuple(
        Argument("dicom", part.value) if isinstance(part, Argument) and part.name == "out" else part
        for part in error.subjects
    )
    return error.about(*subjects)
