"""``changemap cohort``: many pairs on this machine or on a Dask cluster."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

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
from ChangeMapJointLib.cohort.cluster import MEMORY_GB, RETRIES, ClusterOptions
from ChangeMapJointLib.cohort.pairs import read_pairs
from ChangeMapJointLib.cohort.run import CohortListener, CohortProgress, CohortRequest, CohortResult, run_cohort
from ChangeMapJointLib.cohort.table import ATTENTION, attention_of
from ChangeMapJointLib.comparison.config import config_for
from ChangeMapJointLib.comparison.events import EXIT_INPUT, emit, write_now
from ChangeMapJointLib.core.choices import DEFAULT_DEVICE


def cohort_command(
    pairs: Annotated[
        Path, typer.Argument(readable=False, help="CSV with the columns id, reference (current) and template (prior).")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results; a cohort that was stopped there is resumed.")],
    method: MethodOption = None,
    device: DeviceOption = DEFAULT_DEVICE,
    threshold: ThresholdOption = None,
    config: ConfigOption = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a running Dask scheduler.", show_default="workers on this machine")
    ] = None,
    workers: WorkersOption = None,
    memory: MemoryOption = MEMORY_GB,
    retries: Annotated[int, typer.Option(help="How often a pair is restarted after its worker died.")] = RETRIES,
    check: Annotated[
        Literal["hash", "size"],
        typer.Option(help="Check finished pairs by the hashes or only the sizes of their files."),
    ] = "hash",
    retry_refused: Annotated[
        bool, typer.Option("--retry-refused", help="Try again the pairs that were refused.")
    ] = False,
    overwrite: OtherOverwriteOption = False,
    progress: ProgressOption = ProgressStyle.bar,
) -> None:
    """Compare many pairs, resumable, with a table and an overview sorted by what needs attention."""
    with exit_codes(progress.value, log_beside(out)):
        options = config_for(method, config, threshold=threshold)
        request = CohortRequest(
            read_pairs(pairs),
            out,
            options,
            ClusterOptions(scheduler, workers, memory, retries, device),
            check,
            retry_refused,
            overwrite,
        )
        with cohort_listener(progress) as listener:
            result = run_cohort(request, listener)
    with exit_codes(progress.value, written=out):
        print_cohort(result, progress)
    if result.failed:
        raise SystemExit(EXIT_INPUT)


def print_cohort(result: CohortResult, progress: ProgressStyle) -> None:
    """Print how many pairs ended how, and where table and overview are."""
    counts = Counter(attention_of(record) for record in result.records)
    if progress is ProgressStyle.json:
        emit(
            "finished",
            pairs=result.total,
            skipped=result.skipped,
            failed=len(result.failed),
            redone=len(result.redone),
            attention={name: counts[name] for name in ATTENTION},
            table=str(result.table),
            overview=str(result.overview),
        )
        return
    typer.echo(f"{result.total} pairs: {', '.join(f'{counts[name]} {name}' for name in ATTENTION)}.")
    if result.skipped:
        typer.echo(f"{result.skipped} had ended before.")
    typer.echo(f"Table: {result.table}\nOverview: {result.overview}")


@contextmanager
def cohort_listener(style: ProgressStyle) -> Iterator[CohortListener]:
    """Yield the listener for ``--progress``: a live bar on a terminal, else one line per pair, or JSON."""
    if style is ProgressStyle.json:
        yield _json_listener
    elif style is ProgressStyle.none:
        yield lambda _: None
    elif sys.stderr is not None and sys.stderr.isatty():
        with _bar() as listener:
            yield listener
    else:
        yield _line_listener


def lines_of(event: CohortProgress) -> list[str]:
    """The lines on the pair that ended: only what is not as it should be."""
    lines: list[str] = []
    record = event.last
    if record is None:
        return lines
    if event.redone:
        lines.append(f"{record.id}: compared again, since {event.redone}")
    if record.status != "done" and not event.skipped_last:
        lines.append(f"{record.id}: {record.status}: {record.message}")
    return lines


def _json_listener(event: CohortProgress) -> None:
    if event.last is None:
        return
    values: dict[str, Any] = {"redone": event.redone} if event.redone else {}
    if event.last.message:
        values["message"] = event.last.message
    emit(
        "pair",
        id=event.last.id,
        status=event.last.status,
        skipped=event.skipped_last,
        attention=attention_of(event.last),
        ended=event.ended,
        total=event.total,
        failed=event.failed,
        elapsed_s=round(event.elapsed_s, 3),
        remaining_s=None if event.remaining_s is None else round(event.remaining_s, 1),
        **values,
    )


def _line_listener(event: CohortProgress) -> None:
    if event.last is None:
        return
    for line in lines_of(event):
        write_now(sys.stderr, f"{line}\n")
    if not event.skipped_last:
        write_now(sys.stderr, f"{event.elapsed_s:8.1f} s  {event.ended} of {event.total}  {event.last.id}\n")


@contextmanager
def _bar() -> Iterator[CohortListener]:
    """Yield a listener that draws a bar with the numbers of pairs; what went wrong is printed above it."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), TextColumn("{task.fields[left]}"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting the workers", total=1.0, left="")

        def show(event: CohortProgress) -> None:
            for line in lines_of(event):
                console.print(line, markup=False, highlight=False)
            bar.update(
                task,
                total=event.total,
                completed=event.ended,
                description=_counts(event),
                left=_left(event.remaining_s),
            )

        yield show


def _counts(event: CohortProgress) -> str:
    if not event.slots and not event.ended:
        return "waiting for workers"
    parts = [f"{event.ended} of {event.total} pairs", f"{event.running} on {event.slots} workers"]
    parts += [f"{event.failed} failed"] if event.failed else []
    parts += [f"{event.skipped} done before"] if event.skipped else []
    return ", ".join(parts)


def _left(seconds: float | None) -> str:
    if seconds is None:
        return ""
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"about {hours} h {minutes} min left" if hours else f"about {max(minutes, 1)} min left"
