"""What the command line prints while it works, and how it ends."""

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
    Unheard,
    emit,
    json_listener,
    say,
    stoppable,
)
from ChangeMapJointLib.comparison.stages import Listener, ProgressEvent, nobody
from ChangeMapJointLib.core.errors import Cancelled, InputError
from ChangeMapJointLib.core.memory import is_out_of_memory


@contextmanager
def listening(style: str) -> Iterator[Listener]:
    """The listener for ``--progress``: ``json`` lines, a ``bar`` on a terminal, or nothing for ``none``.

    Where the output is no terminal, ``bar`` prints one line a stage.
    """
    if style == "json":
        yield json_listener()
    elif style == "none":
        yield nobody
    elif sys.stderr is not None and sys.stderr.isatty():
        with progress_bar() as listener:
            yield listener
    else:
        yield line_listener()


@contextmanager
def progress_bar() -> Iterator[Listener]:
    """A bar on the terminal, gone at the end."""
    from rich.console import Console  # late: Slicer's Python, which runs the worker, has no rich
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
    """Prints one line on standard error when a stage begins."""
    seen: list[str] = []

    def tell(event: ProgressEvent) -> None:
        if not seen or seen[-1] != event.stage:
            seen.append(event.stage)
            say(sys.stderr, f"{event.elapsed_s:6.1f} s  {event.stage}\n")

    return tell


@contextmanager
def ending(style: str, log: Path | None = None, *, written: Path | None = None) -> Iterator[None]:
    """Turn the block's errors into one line and an exit code.

    Args:
        style: of the progress; ``json`` also gets the end as an event.
        log: where the traceback of a fault is kept.
        written: the folder that is already whole, if any.

    Raises:
        SystemExit: 2 for bad input, 130 when cancelled, 1 for a fault.
    """
    try:
        with stoppable():
            yield
    except InputError as error:
        raise SystemExit(_end(style, "error", error.render(COMMAND_LINE), EXIT_INPUT, error=error.to_json())) from None
    except (Cancelled, KeyboardInterrupt):
        said = "Cancelled; nothing was written." if written is None else f"Cancelled; {written} is whole."
        raise SystemExit(_end(style, "cancelled", said, EXIT_CANCELLED)) from None
    except (Unheard, BrokenPipeError):  # stop quietly, as other commands do
        be_quiet()
        raise SystemExit(EXIT_FAULT) from None
    except Exception as error:
        said = f"Fault: {type(error).__name__}: {error}"
        if is_out_of_memory(error):
            said = "Out of memory: close other programs, or raise registration.working_mm in --config."
        raise SystemExit(_end(style, "fault", said + _keep(log), EXIT_FAULT)) from None


def be_quiet() -> None:
    """Send what is still to be written nowhere, so that the interpreter has nothing to complain about at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nowhere, number)


def _keep(log: Path | None) -> str:
    """Write the traceback to ``log``; the words that say where it is."""
    text = traceback.format_exc()
    if log is not None:
        try:
            log.write_text(text, "utf-8")
        except OSError:
            with suppress(OSError):  # a full disk takes the name and no text
                log.unlink()
        else:
            return f" (details: {log})"
    sys.stderr.write(text)
    return ""


def _end(style: str, event: str, message: str, code: int, **values: Any) -> int:
    if style == "json":
        with suppress(Unheard):
            emit(event, message=message, exit_code=code, **values)
    with suppress(Unheard):
        say(sys.stderr, f"changemap: {message}\n")
    return code
