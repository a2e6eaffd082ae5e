"""A reading session without views: which case is read, its marks, the clock, and the log of every event.

The browser viewer and the Slicer module show it; what counts for the study is here alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ChangeMapJointLib import __version__
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.evaluation.readers.log import SUFFIX, Arm, Mark, SessionHeader
from ChangeMapJointLib.evaluation.readers.worklist import ReaderCase, check_name, read_worklist, shuffled
from ChangeMapJointLib.evaluation.readers.writer import ReadingLog
from ChangeMapJointLib.io.opened_run import OpenedRun, open_run

METHODS = {"sequential": "sequential", "joint": "joint"}  # arm: method of the run whose map it shows
FIRST_RATING, LOWEST_RATING, HIGHEST_RATING = 50.0, 1.0, 100.0
SETTLED_S = 0.5  # a threshold is logged when it has rested this long: once per drag
LONGEST_REASON = 80

State = Literal["waiting", "reading", "paused", "done"]


@dataclass(frozen=True)
class SessionRequest:
    """What a reading session is held on.

    Attributes:
        worklist: CSV of the cases.
        reader: name of the reader.
        arm: of all cases; None for those in the worklist.
        study: name of the study; empty for the worklist's.
        session: name of the session; empty for the arm's.
        seed: of the order of the cases.
        log: reading log; None for ``STUDY-READER-SESSION.jsonl`` in ``folder``.
        folder: of such a log; the current folder by default.
    """

    worklist: Path
    reader: str
    arm: Arm | None = None
    study: str = ""
    session: str = ""
    seed: int = 0
    log: Path | None = None
    folder: Path = Path()


class ReadingSession:
    """One case after another, in an order that seed, reader and session fix.

    Attributes:
        log: every event, on the disk before a call returns.
        cases: in their order.
        runs: the opened run of each case by its name.
    """

    def __init__(self, log: ReadingLog, cases: Sequence[ReaderCase], runs: Mapping[str, OpenedRun]) -> None:
        """Continue where the log ends."""
        self.log, self.cases, self.runs = log, tuple(cases), runs
        self._threshold: float | None = None

    # -- where it stands ------------------------------------------------------------------------------
    @property
    def state(self) -> State:
        """``waiting`` between two cases, ``done`` after the last one."""
        if self.log.open is not None:
            return "reading" if self.log.open.running else "paused"
        return "waiting" if self.log.remaining else "done"

    @property
    def case(self) -> ReaderCase | None:
        """The case that is read, or is next; None at the end."""
        name = self.log.open.case if self.log.open is not None else next(iter(self.log.remaining), "")
        return next((case for case in self.cases if case.name == name), None)

    @property
    def order(self) -> int:
        """Position of that case, from 1; 0 at the end."""
        return 0 if self.case is None else self.cases.index(self.case) + 1

    @property
    def aided(self) -> bool:
        """Whether that case is read with a map."""
        return self.case is not None and self.case.arm != "unaided"

    @property
    def run(self) -> OpenedRun:
        """The run of that case.

        Raises:
            LookupError: all cases are submitted.
        """
        if self.case is None:
            raise LookupError("the session has no further case")
        return self.runs[self.case.name]

    @property
    def marks(self) -> tuple[Mark, ...]:
        """Of the case that is read, by their numbers."""
        opened = self.log.open
        return () if opened is None else tuple(opened.marks[number] for number in sorted(opened.marks))

    # -- the clock -------------------------------------------------------------------------------------
    def begin(self, threshold: float) -> None:
        """Log that the next case is seen from now on, its originals first; nothing while one is read.

        Args:
            threshold: of its map.
        """
        if self.state != "waiting" or self.case is None:
            return
        self._threshold = None
        self.log.begin(
            self.case.name,
            order=self.order,
            arm=self.case.arm,
            model=self.run.model if self.aided else "",
            threshold=threshold if self.aided else None,
            overlay=False,
        )

    def pause(self, reason: str = "") -> bool:
        """Stop the clock; return False where it does not run."""
        if self.state != "reading":
            return False
        self.settle()
        self.log.pause(str(reason)[:LONGEST_REASON])
        return True

    def resume(self) -> None:
        """Let the clock run again."""
        if self.state == "paused":
            self.log.resume()

    def submit(self) -> bool:
        """Finish the case; return False where none is being read."""
        if self.state != "reading":
            return False
        self.settle()
        self.log.submit()
        return True

    # -- marks -----------------------------------------------------------------------------------------
    def place(self, position_mm: Sequence[float]) -> int | None:
        """Place a mark (LPS, mm, in the current scan) and return its number; None where no case is being read."""
        if self.state != "reading":
            return None
        self.settle()
        number = max((mark.number for mark in self.marks), default=0) + 1
        self.log.mark(number, position_mm, FIRST_RATING)
        return number

    def move(self, number: int, position_mm: Sequence[float]) -> None:
        """Log that a mark lies elsewhere (LPS, mm, in the current scan)."""
        mark = self.mark(number)
        if mark is not None:
            self.settle()
            self.log.mark(mark.number, position_mm, mark.rating, mark.label)

    def rate(self, number: int, rating: float) -> None:
        """Rate a mark anew, from 1 to 100; other ratings are limited."""
        mark = self.mark(number)
        if mark is not None:
            self.settle()
            limited = min(max(float(rating), LOWEST_RATING), HIGHEST_RATING)
            self.log.mark(mark.number, mark.position_mm, limited, mark.label)

    def unmark(self, number: int) -> None:
        """Take a mark back."""
        if self.mark(number) is not None:
            self.log.unmark(int(number))

    def mark(self, number: int) -> Mark | None:
        """Return a mark of the case that is being read; None where there is none of that number."""
        return (
            next((mark for mark in self.marks if mark.number == int(number)), None) if self.state == "reading" else None
        )

    # -- the map ---------------------------------------------------------------------------------------
    def watch(self, *, overlay: bool, threshold: float) -> bool:
        """Log what the reader sees of the map.

        Args:
            overlay: whether it is shown.
            threshold: of it.

        Returns:
            True if the threshold is another one: call :meth:`settle` once it has rested for :data:`SETTLED_S`.
        """
        opened = self.log.open
        if opened is None or self.state != "reading" or not self.aided:
            return False
        self._threshold = threshold
        if overlay != opened.overlay:
            self.settle()
            self.log.show_overlay(overlay)
        return threshold != opened.threshold

    def settle(self) -> None:
        """Log the threshold that was watched last, if it is another one."""
        opened = self.log.open
        if opened is None or self.state != "reading" or not self.aided or self._threshold is None:
            return
        if self._threshold != opened.threshold:
            self.log.set_threshold(self._threshold)


def open_session(request: SessionRequest, viewer: str) -> ReadingSession:
    """Check the worklist and all its runs, and open the log; an earlier session of these names is resumed.

    Args:
        request: what it is held on.
        viewer: ``browser`` or ``module``, for the log.

    Raises:
        InputError: the worklist, a run of it or the log cannot be used.
    """
    if not request.reader:
        raise InputError("is missing", field="reader", expected="the reader's name")
    reader = check_name("reader", request.reader)
    study = check_name("study", request.study or request.worklist.stem)
    session = check_name("session", request.session or request.arm or "1")
    cases = shuffled(read_worklist(request.worklist, request.arm), request.seed, reader, session)
    runs = {case.name: open_case(case) for case in cases}
    path = request.log or request.folder / f"{study}-{reader}-{session}{SUFFIX}"
    planned = tuple(case.name for case in cases)
    described = SessionHeader(study, reader, session, f"changemapjoint {__version__}", viewer, request.seed, planned)
    return ReadingSession(ReadingLog(path, described), cases, runs)


def open_case(case: ReaderCase, *, check_hashes: bool = True) -> OpenedRun:
    """Open the run of a case.

    Raises:
        InputError: it cannot be shown, lacks the prior scan, or is not of the method that the arm shows.
    """
    run = open_run(case.run, reference=case.reference, template=case.template, check_hashes=check_hashes)
    if run.template is None:
        raise InputError("its prior scan was not found", field=case.run, remedy="name it in the column template")
    method = METHODS.get(case.arm)
    if method is not None and run.method != method:
        raise InputError(f"was made by method {run.method!r}", field=case.run, expected=f"{method!r} for this arm")
    if method is not None and run.records["quality"].get("quality", {}).get("verdict") == "do not use":
        raise InputError("its registration failed", field=case.run, expected="a run whose map can be shown")
    return run
