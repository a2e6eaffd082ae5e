"""How a running comparison is heard and stopped: lines of JSON, signals, exit codes."""

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


class Unheard(ChangeMapError):
    """Whoever read our output has closed it. No OSError: a stage would take that for trouble with its files."""


def say(stream: IO[str] | None, text: str) -> None:
    """Write ``text`` at once; nothing where the program was started without that stream.

    Raises:
        Unheard: nobody reads it any more.
    """
    if stream is None:
        return
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:
        if isinstance(error, BrokenPipeError) or (os.name == "nt" and error.errno == errno.EINVAL):
            raise Unheard from error
        raise


def emit(event: str, **values: Any) -> None:
    """One JSON object on a line of standard output, at once.

    Raises:
        Unheard: nobody reads it any more.
    """
    say(sys.stdout, json_line(event, **values))


def json_line(event: str, **values: Any) -> str:
    """An event as a line of JSON; ASCII, since whoever reads may expect another encoding."""
    return json.dumps({"event": event, **values}) + "\n"


def json_listener(send: Callable[..., None] = emit) -> Listener:
    """Passes events to ``send``, as JSON lines, when the stage changes or enough has been done since."""
    last = ("", -1.0)

    def tell(event: ProgressEvent) -> None:
        nonlocal last
        if event.stage == last[0] and event.fraction - last[1] < SMALLEST_STEP:
            return
        last = (event.stage, event.fraction)
        send("progress", **{k: round(v, 3) if isinstance(v, float) else v for k, v in asdict(event).items()})

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
