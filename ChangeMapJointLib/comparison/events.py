"""Progress events as JSON lines, cancelling by signal, and exit codes."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from types import FrameType
from typing import IO, Any

from ChangeMapJointLib.comparison.stages import Listener, ProgressEvent
from ChangeMapJointLib.core.errors import Cancelled, ChangeMapError

EXIT_FAULT, EXIT_INPUT, EXIT_CANCELLED = 1, 2, 130
SMALLEST_STEP = 0.005  # of the whole run, between two JSON lines of one stage


class OutputClosed(ChangeMapError):
    """The reader closed our output. Not an OSError, which a stage would take for an error with its own files."""


def write_now(stream: IO[str] | None, text: str) -> None:
    """Write and flush ``text``; does nothing if the program was started without that stream.

    Raises:
        OutputClosed: the reader closed the stream.
    """
    if stream is None:
        return
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:
        if isinstance(error, BrokenPipeError) or (os.name == "nt" and error.errno == errno.EINVAL):
            raise OutputClosed from error
        raise


def emit(event: str, **values: Any) -> None:
    """Write an event to standard output as one line of JSON, and flush it.

    Raises:
        OutputClosed: the reader closed standard output.
    """
    write_now(sys.stdout, json_line(event, **values))


def json_line(event: str, **values: Any) -> str:
    """Format an event as one line of JSON; ASCII, since the reader may expect any encoding."""
    return json.dumps({"event": event, **values}) + "\n"


def json_listener(send: Callable[..., None] = emit) -> Listener:
    """Return a listener that sends a progress event whenever the stage changes or the progress grew enough."""
    last = ("", -1.0)

    def listen(event: ProgressEvent) -> None:
        nonlocal last
        if event.stage == last[0] and event.fraction - last[1] < SMALLEST_STEP:
            return
        last = (event.stage, event.fraction)
        send("progress", **{k: round(v, 3) if isinstance(v, float) else v for k, v in asdict(event).items()})

    return listen


@contextmanager
def cancel_on_signals() -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into :class:`Cancelled` inside the block, so that it can clean up."""

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        for name in signals:  # a second signal must not interrupt the clean-up
            signal.signal(name, signal.SIG_IGN)
        raise Cancelled(signal.Signals(number).name)

    signals = [signal.SIGINT, signal.SIGTERM]
    before = [signal.signal(name, stop) for name in signals]
    try:
        yield
    finally:
        for name, handler in zip(signals, before, strict=True):
            signal.signal(name, handler)
