"""A reading session in the browser: what the page may do in it, and what it shows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import lps_to_ras
from ChangeMapJointLib.evaluation.readers.reading_session import (
    SETTLED_S,
    ReadingSession,
    SessionRequest,
    open_session,
)
from ChangeMapJointLib.scene import findings
from ChangeMapJointLib.scene.keys import KEY_HELP, KEYS
from ChangeMapJointLib.scene.nodes import Node, remove
from ChangeMapJointLib.web.pictures import on_dark
from ChangeMapJointLib.web.serve import Place, check_viewer_packages, serve

SETTINGS = ("overlay", "threshold", "opacity", "increases", "decreases")  # of the map, that a reader may change
KEYS_OF_MAP = ("threshold_up", "threshold_down", "overlay")
WINDOW_KEYS = ("lung", "mediastinum", "bone")


def hold_session(request: SessionRequest, place: Place) -> None:
    """Hold a reading session until Ctrl-C; it can be resumed with the same request.

    Raises:
        InputError: the worklist, a run of it or the log cannot be used, or the viewer cannot start.
    """
    check_viewer_packages()
    session = open_session(request, "browser")
    with session.log:
        serve(place, lambda viewer: StudyPage(viewer, session).start(), closing=session.log.close)


def _works(label: str, actions: Collection[str]) -> bool:
    """Whether all keys of a line of the help box, such as ``O`` or ``+ / -``, do one of these actions."""
    return all(KEYS.get(key.lower()) in actions for key in label.split(" / "))


class StudyPage:
    """A reading session on the page of a viewer.

    Attributes:
        viewer: the :class:`~ChangeMapJointLib.web.viewer.Viewer`.
        session: what is read, and its log.
    """

    def __init__(self, viewer: Any, session: ReadingSession) -> None:
        self.viewer, self.session = viewer, session
        self._marks: Node | None = None
        self._shown = ""
        self._settling: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Take over the page."""
        self.viewer.take_over(self.handle)
        for name in ("begin", "submit", "pause", "resume", "rate", "unmark", "goto"):
            self.viewer.add_trigger(name, self._then_write(getattr(self, f"on_{name}")))
        self.viewer.server.controller.on_client_exited.add(lambda **_: self._on_exit())
        with self.viewer.state:
            self._write()

    def _then_write(self, act: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            act(*arguments)
            self._write()

        return call

    def _on_exit(self) -> None:
        def pause() -> None:
            if self.session.pause("page closed"):
                self._write()

        self._told(pause)()

    def _told(self, act: Callable[[], Any]) -> Callable[[], None]:
        """Return ``act``, which no page asked for, with a sentence on the page where the log cannot be written."""

        def call() -> None:
            with self.viewer.state as state:
                try:
                    act()
                except InputError as error:
                    state.message = error.render()

        return call

    # -- the session ------------------------------------------------------------------------------
    def on_begin(self) -> None:
        """Show the next case; its time begins when it can be seen."""
        if self.session.state == "waiting":
            self._show()
            self.session.begin(self.viewer.shown.settings.threshold)

    def on_pause(self, reason: str = "") -> None:
        """Stop the clock, and hide the case."""
        self.session.pause(reason)

    def on_resume(self) -> None:
        """Resume the case."""
        opened = self.session.log.open
        if opened is None or opened.running:
            return
        if self._shown != opened.case:
            self._show()
            if opened.threshold is not None:
                self.viewer.change(threshold=opened.threshold, overlay=opened.overlay)
        self.session.resume()

    def on_submit(self) -> None:
        """Finish the case."""
        if self.session.submit():
            self._shown = ""
            remove(self._marks)
            self._marks = None
            self.viewer.close()

    # -- marks ------------------------------------------------------------------------------------
    def on_rate(self, number: int, rating: float) -> None:
        """Rate a mark anew."""
        self.session.rate(number, rating)

    def on_unmark(self, number: int) -> None:
        """Take a mark back."""
        self.session.unmark(number)

    def on_goto(self, number: int) -> None:
        """Show a mark in the middle of all views."""
        mark = self.session.mark(number)
        if mark is not None:
            self.viewer.shown.navigation.jump_mm(mark.position_mm, zoom=False)
            self.viewer.moved()

    def _place(self, view: str, x: float, y: float) -> None:
        """Place a mark where the reader clicked."""
        navigation = self.viewer.shown.navigation
        ras = navigation.point(view, x, y)
        self.session.place(lps_to_ras(ras).tolist())
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
        if self.session.state != "reading" or self.session.case is None or self._shown != self.session.case.name:
            return name == "ready"
        what, aided = str(next(iter(arguments), "")), self.session.aided
        if name == "pointer" and len(arguments) == 4 and arguments[1] == "point":
            self._place(what, float(arguments[2]), float(arguments[3]))
            return False
        if name == "key":
            return what in WINDOW_KEYS or self._logged(aided and what in KEYS_OF_MAP)
        if name == "setting":
            return what == "window" or self._logged(aided and what in SETTINGS)
        return name in ("ready", "pointer", "layout")

    def _logged(self, allowed: bool) -> bool:
        """Log what a setting becomes, as soon as the viewer has set it."""
        if allowed:
            asyncio.get_running_loop().call_soon(self._told(self._log_settings))
        return allowed

    def _log_settings(self) -> None:
        shown = self.viewer.shown
        if shown is None:
            return
        if self.session.watch(overlay=shown.settings.overlay, threshold=shown.settings.threshold):
            if self._settling is not None:
                self._settling.cancel()
            self._settling = asyncio.get_running_loop().call_later(SETTLED_S, self._told(self.session.settle))

    # -- the page ------------------------------------------------------------------------------------
    def _show(self) -> None:
        case = self.session.case
        assert case is not None
        self.viewer.open(self.session.run, study=True)
        self._shown = case.name

    def _write(self) -> None:
        """Show where the session stands."""
        session, case = self.session, self.session.case
        self.viewer.state.study = {
            "state": session.state,
            "reader": session.log.session.reader,
            "arm": "" if case is None else case.arm,
            "case": case is not None,
            "order": session.order,
            "total": len(session.cases),
            "done": len(session.log.readings),
            "marks": [{"number": mark.number, "rating": mark.rating} for mark in session.marks],
        }
        keys = (*KEYS_OF_MAP, *WINDOW_KEYS) if session.aided else WINDOW_KEYS
        self.viewer.state.keys_help = [[key, words] for key, words in KEY_HELP if _works(key, keys)]
        if self.viewer.shown is not None and session.state == "reading":
            self._draw()

    def _draw(self) -> None:
        entries = [
            {"id": mark.number, "kind": "new", "label": "", "centre_mm": list(mark.position_mm)}
            for mark in self.session.marks
        ]
        if self._marks is not None and self._marks.GetScene() is None:
            self._marks = None
        self._marks = findings.markups(entries, "Marks", node=self._marks)
        on_dark(self._marks.GetDisplayNode())
        self.viewer.paint()
