"""Reading of reading logs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.evaluation.readers.log import CaseReading, SessionHeader
from ChangeMapJointLib.evaluation.readers.replay import OpenCase, Replay

EXPECTED = "a reading log (JSON Lines)"


@dataclass(frozen=True)
class LoadedLog:
    """What a reading log holds.

    Attributes:
        path: of the file.
        session: of the log.
        readings: cases that were submitted, in the order of submission.
        withdrawn: cases that were given up; they may be read again later.
        open: the case that was being read when the log ends; None if there is none. A resumed session continues it.
        torn: whether the last line was cut off while it was written. It is left out.
    """

    path: Path
    session: SessionHeader
    readings: tuple[CaseReading, ...]
    withdrawn: tuple[str, ...]
    open: OpenCase | None
    torn: bool

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know, one sentence each."""
        said = []
        if self.torn:
            said.append(f"{self.path}: the last line was cut off while it was written; it is left out.")
        if self.open is not None:
            said.append(f"{self.path}: case {self.open.case!r} was not submitted; it is left out.")
        if self.withdrawn:
            said.append(f"{self.path}: withdrawn and left out: {', '.join(self.withdrawn)}.")
        return tuple(said)


def read_log(path: Path | str) -> LoadedLog:
    """Read a reading log.

    Args:
        path: the file.

    Returns:
        The session and its readings. A last line that was cut off is left out, and ``torn`` says so.

    Raises:
        InputError: the file cannot be read, is empty, or a line is not an event or cannot follow those before it; names
            the line.

    Examples:
        >>> from ChangeMapJointLib.evaluation.readers.writer import ReadingLog
        >>> with ReadingLog("R1.jsonl", SessionHeader("lungs", "R1", "1", "viewer 1.0")) as log:
        ...     log.begin("case1", order=1, arm="unaided")
        ...     log.mark(1, (12.5, -40.0, -180.0), rating=80)
        ...     log.submit()
        >>> reading = read_log("R1.jsonl").readings[0]
        >>> reading.case, reading.marks[0].position_mm
        ('case1', (12.5, -40.0, -180.0))
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", field=path, expected=EXPECTED) from error
    replay, whole = replay_log(data, path)
    torn = whole < len(data.rstrip())
    if replay.session is None:
        raise InputError("holds one unfinished line" if torn else "is empty", field=path, expected=EXPECTED)
    return LoadedLog(path, replay.session, tuple(replay.readings), tuple(replay.withdrawn), replay.open, torn)


def replay_log(data: bytes, path: Path) -> tuple[Replay, int]:
    """Go through all events of a log.

    Args:
        data: content of the file.
        path: the file, for messages.

    Returns:
        The state after the last whole event, and how many bytes hold whole events.

    Raises:
        InputError: a line is not an event or cannot follow those before it.
    """
    replay, whole = Replay(), 0
    for number, end, line in _lines(data):
        event = _event(line)
        if event is None and end == len(data) and not data.endswith(b"\n") and _may_be_torn(line):
            break
        try:
            if event is None:
                raise InputError("is not an object of JSON")
            replay.apply(event)
        except InputError as error:
            raise error.at(path, Argument(f"line {number}")) from error
        whole = end
    return replay, whole


def _may_be_torn(line: bytes) -> bool:
    """Whether a line that is not JSON may be the beginning of an event rather than of another kind of file."""
    begin = b'{"event"'
    return line.startswith(begin) or begin.startswith(line) or not line.strip(b"\0")  # power was cut


def _lines(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Number, end in bytes, and content of every line that is not empty."""
    end = 0
    for number, line in enumerate(data.splitlines(keepends=True), 1):
        end += len(line)
        if line.strip():
            yield number, end, line.strip()


def _event(line: bytes) -> dict[str, Any] | None:
    """The object on a line; None if there is none: an object that is cut off is never valid JSON."""
    try:
        event = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None
