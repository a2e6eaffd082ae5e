"""``changemap series``: more than two time points."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ChangeMapJointLib.cli.cohort import cohort_listener
from ChangeMapJointLib.cli.console import exit_codes
from ChangeMapJointLib.cli.options import (
    ConfigOption,
    DeviceOption,
    MemoryOption,
    MethodOption,
    OtherOverwriteOption,
    ProgressOption,
    ProgressStyle,
    ThresholdOption,
    WorkersOption,
    log_beside,
)
from ChangeMapJointLib.cohort.cluster import MEMORY_GB, ClusterOptions
from ChangeMapJointLib.cohort.run import CohortRequest
from ChangeMapJointLib.cohort.series import PAGE, run_series
from ChangeMapJointLib.cohort.series_list import read_series
from ChangeMapJointLib.cohort.series_output import write_series
from ChangeMapJointLib.comparison.config import config_for
from ChangeMapJointLib.comparison.events import EXIT_INPUT, emit
from ChangeMapJointLib.core.choices import DEFAULT_DEVICE


def series_command(
    scans: Annotated[Path, typer.Argument(readable=False, help="CSV with the columns patient, date and scan.")],
    out: Annotated[Path, typer.Option(help="Folder for the results; a series that was stopped there is resumed.")],
    method: MethodOption = None,
    device: DeviceOption = DEFAULT_DEVICE,
    threshold: ThresholdOption = None,
    config: ConfigOption = None,
    workers: WorkersOption = None,
    memory: MemoryOption = MEMORY_GB,
    overwrite: OtherOverwriteOption = False,
    progress: ProgressOption = ProgressStyle.bar,
) -> None:
    """Compare every follow-up with its prior and with the first scan, and follow each lesion through all of them."""
    with exit_codes(progress.value, log_beside(out)):
        series = read_series(scans)
        options = config_for(method, config, threshold=threshold)
        request = CohortRequest(
            (), out, options, ClusterOptions(workers=workers, memory_gb=memory, device=device), overwrite=overwrite
        )
        with cohort_listener(progress) as listener:
            result = run_series(request, series, listener)
        page = write_series(out, result.patients)
    with exit_codes(progress.value, written=out):
        lesions = sum(len(patient.tracks) for patient in result.patients)
        if progress is ProgressStyle.json:
            emit(
                "finished",
                patients=len(series),
                comparisons=result.cohort.total,
                failed=len(result.cohort.failed),
                lesions=lesions,
                page=str(out / PAGE),
            )
        else:
            typer.echo(f"{len(series)} patients, {result.cohort.total} comparisons, {lesions} lesions.")
            typer.echo(f"Page: {page}")
    if result.cohort.failed:
        raise SystemExit(EXIT_INPUT)
