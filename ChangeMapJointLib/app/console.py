"""What the command line prints while it works, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ChangeMapJointLib.app.stages import Listener, ProgressEvent, nobody
from ChangeMapJointLib.core.errors import Cancelled, InputError

EXIT_FAULT, EXIT_INPUT, EXIT_CANCELLED = 1, 2, 130
SMALLEST_STEP = 0.005  # of the whole run, between two JSON lines of one stage


def emit(event: str, **values: Any) -> None:
    """One JSON object on a line of standard output, at once."""
    if sys.stdout is not None:  # closed by who started us
        sys.stdout.write(json.dumps({"event": event, **values}) + "\n")
        sys.stdout.flush()


@contextmanager
def listening(style: str) -> Iterator[Listener]:
    """The listener for ``--progress``: ``json`` lines, a ``bar`` on a terminal, or nothing for ``none``.

    Where the output is no terminal, ``bar`` prints one line a stage.
    """
    if style == "json":
        yield json_listener()
    elif style == "none":
        yield nobody
    elif Console(stderr=True).is_terminal:
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
    else:
        yield line_listener()


def json_listener() -> Listener:
    """Prints events as JSON lines, when the stage changes or enough has been done since."""
    last = ("", -1.0)

    def tell(event: ProgressEvent) -> None:
        nonlocal last
        if event.stage == last[0] and event.fraction - last[1] < SMALLEST_STEP:
            return
        last = (event.stage, event.fraction)
        emit("progress", **{k: round(v, 3) if isinstance(v, float) else v for k, v in asdict(event).items()})

    return tell


def line_listener() -> Listener:
    """Prints one line on standard error when a stage begins."""
    seen: list[str] = []

    def tell(event: ProgressEvent) -> None:
        if not seen or seen[-1] != event.stage:
            seen.append(event.stage)
            if sys.stderr is not None:
                sys.stderr.write(f"{event.elapsed_s:6.1f} s  {event.stage}\n")

    return tell


@contextmanager
def stoppable() -> Iterator[None]:
    """Ctrl-C and SIGTERM raise :class:`Cancelled` in the block, so that everything is cleaned up."""

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        for name in signals:  # a second signal while cleaning up changes nothing
            signal.signal(name, signal.SIG_IGN)
        raise Cancelled(signal.Signals(number).name)

    signals = [signal.SIGINT, signal.SIGTERM]
    before = [signal.signal(name, stop) for name in signals]
    try:
        yield
    finally:
        for name, handler in zip(signals, before, strict=True):
            signal.signal(name, handler)


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
        raise SystemExit(_end(style, "error", " ".join(str(error).split()), EXIT_INPUT)) from None
    except (Cancelled, KeyboardInterrupt):
        said = "Cancelled; nothing was written." if written is None else f"Cancelled; {written} is whole."
        raise SystemExit(_end(style, "cancelled", said, EXIT_CANCELLED)) from None
    except BrokenPipeError:  # who listened is gone: stop quietly, as other commands do
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(EXIT_FAULT) from None
    except Exception as error:
        said = f"Fault: {type(error).__name__}: {error}"
        if isinstance(error, MemoryError) or "not enough memory" in str(error):
            said = "Out of memory: close other programs, or raise registration.working_mm in --config."
        raise SystemExit(_end(style, "fault", said + _keep(log), EXIT_FAULT)) from None


def _keep(log: Path | None) -> str:
    """Write the traceback to ``log``; the words that say where it is."""
    text = traceback.format_exc()
    if log is not None:
        with suppress(OSError):
            log.write_text(text, "utf-8")
            return f" (details: {log})"
    sys.stderr.write(text)
    return ""


def _end(style: str, event: str, message: str, code: int) -> int:
    if style == "json":
        with suppress(BrokenPipeError):
            emit(event, message=message, exit_code=code)
    if sys.stderr is not None:
        sys.stderr.write(f"changemap: {message}\n")
    return code
