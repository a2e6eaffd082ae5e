"""Writing of reading logs: every event is on the disk before the call returns."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.core.process import lock
from ChangeMapJointLib.evaluation.readers.load import EXPECTED, replay_log
from ChangeMapJointLib.evaluation.readers.log import (
    FORMAT,
    VERSION,
    Arm,
    CaseReading,
    SessionHeader,
    format_time,
)
from ChangeMapJointLib.evaluation.readers.replay import OpenCase, Replay

LOCK_AT = 1 << 30  # behind the content, since Windows keeps others from reading what is locked


class ReadingLog:
    """A reading log that is being written.

    If the file exists, the session goes on: the case that was being read is open again, with its marks, and paused. An
    event that does not fit raises an error, and nothing is written. Calls may come from several threads. A file has one
    writer at a time.

    Attributes:
        path: of the file.
        session: of the log.

    Examples:
        >>> session = SessionHeader("lungs", "R2", "3", "viewer 1.0", planned=("case4", "case1"))
        >>> log = ReadingLog("R2-3.jsonl", session)
        >>> log.begin("case4", order=1, arm="joint", model="sha256:55aa", threshold=0.3)
        >>> log.mark(1, (31.0, -12.0, -204.5), rating=90, label="new")
        >>> log.close()                                         # here the machine is switched off
        >>> log = ReadingLog("R2-3.jsonl", session)
        >>> log.open.case, log.open.marks[1].rating
        ('case4', 90.0)
        >>> log.resume()
        >>> log.submit()
        >>> log.remaining
        ('case1',)
        >>> log.close()
    """

    def __init__(
        self,
        path: Path | str,
        session: SessionHeader,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] | None = None,
    ) -> None:
        """Create the log, or continue it.

        Args:
            path: the file; its folder must exist.
            session: of the log; an existing log must have the same study, reader, session and seed.
            clock: seconds that never go back.
            now: the time of day.

        Raises:
            InputError: the file cannot be written, is no reading log or that of another session, or is being written
                by another program.
        """
        self.path, self.session = Path(path), session
        self._now = now or (lambda: datetime.now(timezone.utc))
        self._guard = threading.RLock()
        self._replay = Replay()
        self._clock, self._start_s = clock, clock()
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o644)
        except OSError as error:
            raise InputError(f"cannot be written ({error.strerror})", field=self.path, expected=EXPECTED) from error
        try:
            self._go_on()
        except BaseException:
            os.close(self._file)
            raise

    def _go_on(self) -> None:
        """Take in what the file holds, cut off an unfinished line, and write the session event."""
        if not lock(self._file, at=LOCK_AT):
            raise InputError("is being written by another program", field=self.path, remedy="close it there first")
        data = self.path.read_bytes()
        self._replay, whole = replay_log(data, self.path)
        if whole < len(data):  # an unfinished line, or spaces
            os.ftruncate(self._file, whole)
        if whole and not data[:whole].endswith(b"\n"):
            self._append(b"\n")
        values = {**asdict(self.session), "planned": list(self.session.planned)}
        self._write("session", format=FORMAT, version=VERSION, **values)
        _sync_folder(self.path.parent)

    # -- what a viewer asks --------------------------------------------------------
    @property
    def open(self) -> OpenCase | None:
        """The case that is being read, with its marks; None between cases. Not to be changed."""
        return self._replay.open

    @property
    def readings(self) -> tuple[CaseReading, ...]:
        """The cases that were submitted."""
        return tuple(self._replay.readings)

    @property
    def remaining(self) -> tuple[str, ...]:
        """The planned cases that were neither submitted nor withdrawn, in their order."""
        done = {reading.case for reading in self._replay.readings} | set(self._replay.withdrawn)
        return tuple(case for case in self.session.planned if case not in done)

    # -- events ----------------------------------------------------------------------
    def begin(
        self,
        case: str,
        *,
        order: int,
        arm: Arm,
        model: str = "",
        threshold: float | None = None,
        overlay: bool | None = None,
    ) -> None:
        """Write that a case is shown from now on.

        Args:
            case: its name.
            order: position in the session, from 1.
            arm: unaided, sequential or joint.
            model: what made the overlay; empty when unaided.
            threshold: of the overlay, in [0, 1]; None when unaided.
            overlay: whether the overlay is shown; by default it is, unless unaided.
        """
        shown = arm != "unaided" if overlay is None else overlay
        self._write("case", case=case, order=order, arm=arm, model=model, threshold=threshold, overlay=shown)

    def mark(self, number: int, position_mm: Sequence[float], rating: float, label: str = "") -> None:
        """Write that a mark was placed, or that the mark ``number`` was moved or rated anew.

        Args:
            number: from 1.
            position_mm: LPS, in the current scan as acquired.
            rating: from 1 to 100.
            label: the reader's words.
        """
        place = [round(float(value), 3) for value in position_mm]
        self._write("mark", case=self._case, mark=number, position_mm=place, rating=float(rating), label=label)

    def unmark(self, number: int) -> None:
        """Write that a mark was taken back."""
        self._write("unmark", case=self._case, mark=number)

    def show_overlay(self, shown: bool) -> None:
        """Write that the overlay was shown or hidden."""
        self._write("overlay", case=self._case, shown=shown)

    def set_threshold(self, threshold: float) -> None:
        """Write that the overlay's threshold was changed, in [0, 1]; once per drag, not at every step."""
        self._write("threshold", case=self._case, threshold=float(threshold))

    def pause(self, reason: str = "") -> None:
        """Write that reading stops for a while: a button, or a hidden window."""
        self._write("pause", case=self._case, reason=reason)

    def resume(self) -> None:
        """Write that reading goes on after a pause or an interruption."""
        self._write("resume", case=self._case)

    def note(self, text: str) -> None:
        """Write a remark that no statistic uses."""
        self._write("note", text=text)

    def submit(self) -> None:
        """Write that the case is finished."""
        self._write("submit", case=self._case)

    def withdraw(self, reason: str = "") -> None:
        """Write that the case is given up, for example since it could not be shown; it counts nowhere."""
        self._write("withdraw", case=self._case, reason=reason)

    def close(self) -> None:
        """Close the file. The session can be resumed."""
        with self._guard:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    def __enter__(self) -> ReadingLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _case(self) -> str:
        if self._replay.open is None:
            raise InputError("no case is being read", field=self.path, remedy=("call ", Argument("begin"), " first"))
        return self._replay.open.case

    def _write(self, kind: str, **values: Any) -> None:
        """Check the event against those before it, and append it."""
        with self._guard:
            event = {
                "event": kind,
                "at": format_time(self._now()),
                "clock_s": round(self._clock() - self._start_s, 3),
                **values,
            }
            trial = self._replay.copy()
            try:
                trial.apply(event)
            except InputError as error:
                raise error.at(self.path) from error
            self._append(json.dumps(event, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n")
            self._replay = trial

    def _append(self, line: bytes) -> None:
        """Append ``line`` and have it written to the disk; if that fails, the file keeps its former content."""
        try:
            size = os.fstat(self._file).st_size
            try:
                written = 0
                while written < len(line):
                    written += os.write(self._file, line[written:])
                os.fsync(self._file)
            except OSError:
                os.ftruncate(self._file, size)
                raise
        except OSError as error:
            found = "is closed" if self._file < 0 else f"cannot be written ({error.strerror})"
            raise InputError(found, field=self.path, expected=EXPECTED) from error


def _sync_folder(folder: Path) -> None:
    """Have the new file's entry written to the disk; not possible on Windows."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # a network folder without it
        pass
    finally:
        os.close(descriptor)
