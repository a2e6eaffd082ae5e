"""Progress, messages and exit codes of the command line."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ChangeMapJointLib.cli.wording import COMMAND_LINE
from ChangeMapJointLib.comparison.events import (
    EXIT_CANCELLED,
    EXIT_FAULT,
    EXIT_INPUT,
    OutputClosed,
    cancel_on_signals,
    emit,
    json_listener,
    write_now,
)
from ChangeMapJointLib.comparison.stages import Listener, ProgressEvent, ignore_progress
from ChangeMapJointLib.core.errors import Cancelled, InputError, Stopped
from ChangeMapJointLib.core.memory import is_out_of_memory


@contextmanager
def progress_listener(style: str) -> Iterator[Listener]:
    """Yield the listener for ``--progress``.

    Args:
        style: ``json`` for JSON lines, ``none`` for nothing, or ``bar`` for a progress bar; if standard error is not a
            terminal, ``bar`` prints one line per stage.
    """
    if style == "json":
        yield json_listener()
    elif style == "none":
        yield ignore_progress
    elif sys.stderr is not None and sys.stderr.isatty():
        with progress_bar() as listener:
            yield listener
    else:
        yield line_listener()


@contextmanager
def progress_bar() -> Iterator[Listener]:
    """Yield a listener that draws a bar on the terminal; the bar disappears at the end."""
    from rich.console import Console  # here, since Slicer's Python does not have rich
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(
        TextColumn("{task.description:<9}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task("start", total=1.0, left="")

        def show(event: ProgressEvent) -> None:
            left = "" if event.remaining_s is None else f"about {event.remaining_s:.0f} s left"
            bar.update(task, completed=event.fraction, description=event.stage, left=left)

        yield show


def line_listener() -> Listener:
    """Return a listener that prints one line to standard error when a stage begins."""
    stages: list[str] = []

    def listen(event: ProgressEvent) -> None:
        if not stages or stages[-1] != event.stage:
            stages.append(event.stage)
            write_now(sys.stderr, f"{event.elapsed_s:6.1f} s  {event.stage}\n")

    return listen


@contextmanager
def exit_codes(style: str, log: Path | None = None, *, written: Path | None = None) -> Iterator[None]:
    """Turn errors of the block into one line on standard error and an exit code.

    Args:
        style: of ``--progress``; with ``json`` the error is also written as an event.
        log: file for the traceback of a fault; None to print it.
        written: the result folder, if it is complete already.

    Raises:
        SystemExit: 2 for bad input, 130 when cancelled, 1 for a fault.
    """
    try:
        with cancel_on_signals():
            yield
    except InputError as error:
        raise SystemExit(_end(style, "error", error.render(COMMAND_LINE), EXIT_INPUT, error=error.to_json())) from None
    except (Cancelled, KeyboardInterrupt) as error:
        message = "Cancelled; nothing was written." if written is None else f"Cancelled; {written} is complete."
        if isinstance(error, Stopped):
            message = str(error)
        raise SystemExit(_end(style, "cancelled", message, EXIT_CANCELLED)) from None
    except (OutputClosed, BrokenPipeError):  # stop quietly, as other commands do
        discard_output()
        raise SystemExit(EXIT_FAULT) from None
    except Exception as error:
        message = f"Fault: {type(error).__name__}: {error}"
        if is_out_of_memory(error):
            message = "Out of memory: close other programs, or raise registration.working_mm in --config."
        raise SystemExit(_end(style, "fault", message + _write_traceback(log), EXIT_FAULT)) from None


def discard_output() -> None:
    """Discard all further output, so that the interpreter does not complain about the closed stream at its exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(null, descriptor)


def _write_traceback(log: Path | None) -> str:
    """Write the traceback to ``log``, or print it; return the words that say where it is."""
    text = traceback.format_exc()
    if log is not None:
        try:
            log.write_text(text, "utf-8")
        except OSError:
            with suppress(OSError):  # on a full disk, an empty file is left
                log.unlink()
        else:
            return f" (details: {log})"
    sys.stderr.write(text)
    return ""


def _end(style: str, event: str, message: str, code: int, **values: Any) -> int:
    if style == "json":
        with suppress(OutputClosed):
            emit(event, message=message, exit_code=code, **values)
    with suppress(OutputClosed):
        write_now(sys.stderr, f"changemap: {message}\n")
    return code
