"""A reading session in the browser: case after case, marks with ratings, and a log of every event."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ChangeMapJointLib import __version__
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import lps_to_ras
from ChangeMapJointLib.evaluation.readers.log import SUFFIX, Arm, Mark, Session
from ChangeMapJointLib.evaluation.readers.writer import ReadingLog
from ChangeMapJointLib.scene import findings
from ChangeMapJointLib.scene.nodes import Node, remove
from ChangeMapJointLib.web.opened_run import OpenedRun, open_run
from ChangeMapJointLib.web.serve import Place, check_packages, serve
from ChangeMapJointLib.web.worklist import Case, check_name, read_worklist, shuffled

METHODS = {"sequential": "sequential", "joint": "joint"}  # arm: method of the run whose map it shows
SETTINGS = ("overlay", "threshold", "opacity", "increases", "decreases")  # of the map, that a reader may change
KEYS = ("threshold_up", "threshold_down", "overlay")
WINDOW_KEYS = ("lung", "mediastinum", "bone")
FIRST_RATING = 50.0
SETTLED_S = 0.5  # a threshold that rests so long is logged: once a drag


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
        log: reading log; None for ``STUDY-READER-SESSION.jsonl`` in the current folder.
    """

    worklist: Path
    reader: str
    arm: Arm | None = None
    study: str = ""
    session: str = ""
    seed: int = 0
    log: Path | None = None


def hold_session(request: SessionRequest, place: Place) -> None:
    """Hold a reading session until Ctrl-C; it can be resumed with the same request.

    Raises:
        InputError: the worklist, a run of it or the log cannot be used, or the viewer cannot start.
    """
    check_packages()
    if not request.reader:
        raise InputError("is missing", field="reader", expected="the reader's name")
    reader = check_name("reader", request.reader)
    study = check_name("study", request.study or request.worklist.stem)
    session = check_name("session", request.session or request.arm or "1")
    cases = shuffled(read_worklist(request.worklist, request.arm), request.seed, reader, session)
    runs = {case.name: open_case(case) for case in cases}
    path = request.log or Path(f"{study}-{reader}-{session}{SUFFIX}")
    described = Session(
        study, reader, session, f"changemapjoint {__version__}", "browser", request.seed, tuple(c.name for c in cases)
    )
    with ReadingLog(path, described) as log:
        serve(place, lambda viewer: StudySession(viewer, log, cases, runs).start(), closing=log.close)


def open_case(case: Case, *, check_hashes: bool = True) -> OpenedRun:
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


class StudySession:
    """The cases of one session in a viewer.

    Attributes:
        viewer: the :class:`~ChangeMapJointLib.web.viewer.Viewer`.
        log: where every event is written.
    """

    def __init__(self, viewer: Any, log: ReadingLog, cases: tuple[Case, ...], runs: dict[str, OpenedRun]) -> None:
        self.viewer, self.log, self._runs = viewer, log, runs
        self._cases = {case.name: case for case in cases}
        self._order = [case.name for case in cases]
        self._marks: Node | None = None
        self._shown = ""
        self._settling: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Take over the page."""
        self.viewer.take_over(self.handle)
        for name in ("begin", "submit", "pause", "resume", "rate", "unmark", "goto"):
            self.viewer.add_trigger(name, getattr(self, f"on_{name}"))
        self.viewer.server.controller.on_client_exited.add(lambda **_: self.on_pause("page closed"))
        with self.viewer.state:
            self._write()

    # -- the session ------------------------------------------------------------------------------
    @property
    def _current(self) -> str:
        """Name of the case that is read, or is next; empty at the end."""
        if self.log.open is not None:
            return self.log.open.case
        return next(iter(self.log.remaining), "")

    def on_begin(self) -> None:
        """Show the next case; its time begins when it can be seen."""
        if self.log.open is not None or not self._current:
            return
        name = self._current
        case, run = self._cases[name], self._runs[name]
        self._show(name)
        aided = case.arm != "unaided"
        self.log.begin(
            name,
            order=self._order.index(name) + 1,
            arm=case.arm,
            model=run.model if aided else "",
            threshold=self.viewer.shown.settings.threshold if aided else None,
            overlay=False,  # the originals first
        )
        self._write()

    def on_pause(self, reason: str = "") -> None:
        """Stop the clock, and hide the case."""
        if self.log.open is not None and self.log.open.running:
            self._settle()
            self.log.pause(str(reason)[:80])
            with self.viewer.state:
                self._write()

    def on_resume(self) -> None:
        """Go on with the case."""
        opened = self.log.open
        if opened is None or opened.running:
            return
        if self._shown != opened.case:
            self._show(opened.case)
            if opened.threshold is not None:
                self.viewer.change(threshold=opened.threshold, overlay=opened.overlay)
        self.log.resume()
        self._write()

    def on_submit(self) -> None:
        """Finish the case."""
        if self.log.open is not None and self.log.open.running:
            self._settle()
            self.log.submit()
            self._shown = ""
            remove(self._marks)
            self._marks = None
            self.viewer.close()
            self._write()

    # -- marks ------------------------------------------------------------------------------------
    def on_rate(self, number: int, rating: float) -> None:
        """Rate a mark anew."""
        mark = self._mark(number)
        if mark is not None:
            self._settle()
            self.log.mark(mark.number, mark.position_mm, min(max(float(rating), 1.0), 100.0), mark.label)
            self._write()

    def on_unmark(self, number: int) -> None:
        """Take a mark back."""
        if self._mark(number) is not None:
            self.log.unmark(int(number))
            self._write()

    def on_goto(self, number: int) -> None:
        """Show a mark in the middle of all views."""
        mark = self._mark(number)
        if mark is not None:
            self.viewer.shown.navigation.jump_mm(mark.position_mm, zoom=False)
            self.viewer.moved()

    def _mark(self, number: int) -> Mark | None:
        opened = self.log.open
        return opened.marks.get(int(number)) if opened is not None and opened.running else None

    def _place(self, view: str, x: float, y: float) -> None:
        """Place a mark where the reader clicked."""
        opened, navigation = self.log.open, self.viewer.shown.navigation
        assert opened is not None
        ras = navigation.point(view, x, y)
        self._settle()
        self.log.mark(max(opened.marks, default=0) + 1, lps_to_ras(ras).tolist(), FIRST_RATING)
        navigation.place(ras, centre=False, source=view)
        self.viewer.moved()
        self._write()

    # -- what the page may do in a session -----------------------------------------------------------
    def handle(self, name: str, arguments: tuple[Any, ...]) -> bool:
        """Handle a trigger of the page, or say whether the viewer may.

        Args:
            name: of the trigger.
            arguments: what the page sent.

        Returns:
            True if the viewer handles it as usual.
        """
        opened = self.log.open
        running = opened is not None and opened.running and self._shown == opened.case
        if not running or opened is None:
            return name == "ready"
        what, aided = str(next(iter(arguments), "")), opened.arm != "unaided"
        if name == "pointer" and len(arguments) == 4 and arguments[1] == "point":
            self._place(what, float(arguments[2]), float(arguments[3]))
            return False
        if name == "key":
            return what in WINDOW_KEYS or self._logged(aided and what in KEYS)
        if name == "setting":
            return what == "window" or self._logged(aided and what in SETTINGS)
        return name in ("ready", "pointer", "layout")

    def _logged(self, allowed: bool) -> bool:
        """Log what a setting becomes, as soon as the viewer has set it."""
        if allowed:
            asyncio.get_running_loop().call_soon(self._log_settings)
        return allowed

    def _log_settings(self) -> None:
        opened, shown = self.log.open, self.viewer.shown
        if opened is None or shown is None or not opened.running:
            return
        if shown.settings.overlay != opened.overlay:
            self._settle()
            self.log.show_overlay(shown.settings.overlay)
        if shown.settings.threshold != opened.threshold:
            if self._settling is not None:
                self._settling.cancel()
            self._settling = asyncio.get_running_loop().call_later(SETTLED_S, self._settle)

    def _settle(self) -> None:
        """Log a changed threshold now."""
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        opened, shown = self.log.open, self.viewer.shown
        if opened is None or shown is None or not opened.running or opened.arm == "unaided":
            return
        if shown.settings.threshold != opened.threshold:
            self.log.set_threshold(shown.settings.threshold)

    # -- the page ------------------------------------------------------------------------------------
    def _show(self, name: str) -> None:
        self.viewer.open(self._runs[name], study=True)
        self._shown = name

    def _write(self) -> None:
        """Show where the session stands."""
        opened, name = self.log.open, self._current
        state = "done" if not name else "waiting" if opened is None else "reading" if opened.running else "paused"
        marks = [] if opened is None else [opened.marks[number] for number in sorted(opened.marks)]
        self.viewer.state.study = {
            "state": state,
            "reader": self.log.session.reader,
            "arm": self._cases[name].arm if name else "",
            "case": bool(name),
            "order": self._order.index(name) + 1 if name else 0,
            "total": len(self._order),
            "done": len(self.log.readings),
            "marks": [{"number": mark.number, "rating": mark.rating} for mark in marks],
        }
        if self.viewer.shown is not None and state == "reading":
            self._draw(marks)

    def _draw(self, marks: list[Mark]) -> None:
        entries = [
            {"id": mark.number, "kind": "new", "label": "", "centre_mm": list(mark.position_mm)} for mark in marks
        ]
        if self._marks is not None and self._marks.GetScene() is None:
            self._marks = None
        self._marks = findings.markups(entries, "Marks", node=self._marks)
        self.viewer.paint()
