"""``changemap export``: the DICOM objects of a finished run, or its deformation as a whole."""

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
from ChangeMapJointLib.io.write import write_displacement


def export_command(
    run_dir: Annotated[Path, typer.Argument(readable=False, help="Folder of a finished run.")],
    dicom: Annotated[
        Path | None, typer.Option(help="Folder to create for the DICOM objects; it appears when complete.")
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(readable=False, help="DICOM series of the current scan, checked to be the one of the run."),
    ] = None,
    template: Annotated[
        Path | None, typer.Option(readable=False, help="DICOM series of the prior scan, likewise.")
    ] = None,
    field: Annotated[
        Path | None, typer.Option(help="File (.nrrd) to write the deformation to, with a vector at every voxel.")
    ] = None,
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
    """Write segmentation, measurements, change map, registrations and report of a run as DICOM objects.

    Or, with --field, its deformation with a vector at every voxel.
    """
    if field is not None:
        with exit_codes(progress.value):
            _write_field(run_dir, field)
        typer.echo(str(field), err=progress is ProgressStyle.json)
        if dicom is None:
            return
    with exit_codes(progress.value):
        if dicom is None:
            raise InputError("not given", field="dicom", remedy=("give the folder to make, or ", Argument("field")))
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


def _write_field(run_dir: Path, path: Path) -> None:
    """Write the deformation of a run as a whole.

    Raises:
        InputError: the run has none, or the file cannot be written.
    """
    result = load_result(run_dir)
    if result.change_map is None:
        raise InputError("has no deformation", field=run_dir, expected="a run of another method than rigid")
    if path.suffix != ".nrrd":
        raise InputError(f"ends in '{path.suffix}'", field=path, expected=".nrrd")
    if path.exists():  # it may be a scan
        raise InputError("exists already", field=path, remedy="give another file")
    if path.resolve().parent == run_dir.resolve():
        raise InputError("lies in the folder of the run", field=path, remedy="give another folder")
    write_displacement(path, result.deformation.field)


def _for_command(error: InputError) -> InputError:
    """Call the output folder as the command does."""
    subjects = tuple(
        Argument("dicom", part.value) if isinstance(part, Argument) and part.name == "out" else part
        for part in error.subjects
    )
    return error.about(*subjects)
