"""The viewer: one run on one page, and what the page's controls do with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trame.app import get_server
from trame.ui.html import DivLayout
from trame_rca import module as picture_module
from trame_slicer import module as slicer_module

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.hu import WINDOWS_HU
from ChangeMapJointLib.io import run_files
from ChangeMapJointLib.io.opened_run import OpenedRun
from ChangeMapJointLib.io.run_records import RUN_AGAIN
from ChangeMapJointLib.scene.nodes import CURRENT, PRIOR
from ChangeMapJointLib.web import page
from ChangeMapJointLib.web.decisions import LONGEST_COMMENT, PageDecisions
from ChangeMapJointLib.web.finding_list import FindingList, lists_again
from ChangeMapJointLib.web.navigation import partner
from ChangeMapJointLib.web.page_state import facts_of, first_state, list_choices, slices_of, view_labels
from ChangeMapJointLib.web.pictures import LAYOUTS, VIEWS, Pictures
from ChangeMapJointLib.web.settings import MAP_TITLES, Settings, changed, of_its_kind, stepped
from ChangeMapJointLib.web.shown_run import ShownRun

TRIGGERS = ("setting", "pointer", "key", "select", "decide", "comment", "judge", "layout", "ready")
OF_FOLDER = ("setting", "key", "decide", "comment", "judge")  # which read from the folder of the run, or write into it
NOT_OF_A_RUN = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError)
NOTHING_TO_STEP_TO = "No change is listed to step to; M unfolds the possible, explained and stable ones."
LEAST_ZOOM, MOST_ZOOM = 0.2, 5.0  # at once


class Viewer:
    """One page on one run at a time.

    Attributes:
        server: the trame server.
        pictures: the scene and its views.
        shown: the run on screen; None where none can be shown.
        decisions: on that run.
        findings: the list of what changed in it.
        reader: who decides; may be empty.
    """

    def __init__(self) -> None:
        self.server = get_server("changemap", client_type="vue3")
        self.server.enable_module(slicer_module)
        self.server.enable_module(picture_module)
        self.server.enable_module(page.module())
        self.state = self.server.state
        self.state.update(first_state())
        self.pictures = Pictures(self.server)
        self.pictures.on_size = self._on_size
        self.shown: ShownRun | None = None
        self.decisions = PageDecisions(self.state)
        self.findings = FindingList(self.state)
        self.reader = ""
        self._filter: Callable[[str, tuple[Any, ...]], bool] | None = None
        for name in TRIGGERS:
            self.server.controller.trigger(name)(self._trigger(name))
        page.build(self.server, DivLayout)

    def take_over(self, handle: Callable[[str, tuple[Any, ...]], bool]) -> None:
        """Ask ``handle`` before anything that the page wants is done; see :mod:`~ChangeMapJointLib.web.study`."""
        self._filter = handle

    def add_trigger(self, name: str, act: Callable[..., Any]) -> None:
        """Let the page trigger something more."""
        self.server.controller.trigger(name)(self._guarded(act))

    async def work(self) -> None:
        """Paint, and show decisions of others, until cancelled."""
        await asyncio.gather(self.pictures.painter.run(), self.decisions.watch())

    # -- the run -----------------------------------------------------------------------------------
    def open(self, run: OpenedRun, *, study: bool = False) -> None:
        """Show a run.

        Args:
            run: an opened folder.
            study: it is read in a reading session: no findings, no decisions.

        Raises:
            InputError: a file of it cannot be read.
        """
        self.close()
        try:
            self._open(run, study=study)
        except NOT_OF_A_RUN as error:  # values that no check of the folder knows
            self.close()
            found = f"cannot be shown ({type(error).__name__}: {error})"
            raise InputError(found, field=run.folder, remedy=RUN_AGAIN) from error

    def _open(self, run: OpenedRun, *, study: bool) -> None:
        self.shown = ShownRun(run, rigid_prior=study)
        with self.state as state:
            state.error, state.values_text = "", ""
            state.run = facts_of(self.shown, study=study)
            state.maps = [{"key": key, "title": MAP_TITLES[key]} for key in self.shown.maps]
            state.lists = list_choices(self.shown)
            self._apply(self.shown.settings)
            self.findings.show(None if study else self.shown)
            self.decisions.open(None if study else run.folder, self.reader)
        self.pictures.show(self.state.layout_name)
        for view in CURRENT:
            self.shown.navigation.sized(view)
        self._write_labels()

    def fail(self, error: InputError | str) -> None:
        """Show why there is nothing to show."""
        self.close()
        with self.state as state:
            state.error, state.run, state.rows = str(error), {}, []

    def close(self) -> None:
        """Remove the run from the screen."""
        if self.shown is not None:
            self.findings.show(None)
            self.decisions.open(None)
            self.shown.close()
        self.shown = None

    @property
    def report(self) -> Path | None:
        """The report of the run on screen; None without one, and in a reading session."""
        if self.shown is None or self.decisions.file is None:
            return None
        return self.shown.run.folder / run_files.REPORT

    # -- what the page triggers ------------------------------------------------------------------------
    def _trigger(self, name: str) -> Callable[..., Any]:
        """Return what a trigger of the page calls."""

        def call(*arguments: Any) -> None:
            if self._filter is not None and not self._filter(name, arguments):
                return
            if self.shown is not None and name in OF_FOLDER:
                self.shown.check_same()
            if self.shown is not None or name == "ready":
                getattr(self, f"on_{name}")(*arguments)

        return self._guarded(call)

    def _guarded(self, act: Callable[..., Any]) -> Callable[..., None]:
        """Return ``act`` with a sentence on the page for what it raises."""

        def call(*arguments: Any) -> None:
            with self.state as state:
                state.message = ""
                try:
                    act(*arguments)
                except InputError as error:
                    state.message = error.render()
                except OSError as error:
                    state.message = f"A file cannot be read or written: {error}"
                except MemoryError:
                    state.message = "There is not enough memory for this: close other programs."
                except (TypeError, ValueError, KeyError, IndexError) as error:  # not what the page sends
                    state.message = f"Not understood: {error}"

        return call

    def on_ready(self) -> None:
        """A page has been opened: paint again."""
        if self.shown is not None:
            self.pictures.show(self.state.layout_name)

    def on_layout(self, name: str) -> None:
        """Another layout was chosen."""
        if name not in LAYOUTS:
            raise ValueError(f"layout {name!r}")
        self.state.layout_name = name
        self.pictures.show(name)

    def on_select(self, key: str) -> None:
        """Show a finding in the middle of all views, enlarged."""
        assert self.shown is not None
        row = self.findings.choose(key)
        if row is not None:
            self.shown.navigation.jump_mm(row["centre"])
            self.moved()

    def on_decide(self, key: str, decision: str) -> None:
        """Accept or reject a finding, or take that back."""
        self.decisions.store(self.findings.row(key), decision=str(decision))

    def on_comment(self, key: str, text: str) -> None:
        """Store the remark on a finding."""
        self.decisions.store(self.findings.row(key), comment=str(text)[:LONGEST_COMMENT])

    def on_judge(self, verdict: str) -> None:
        """Store the reader's verdict on the registration."""
        self.decisions.judge(str(verdict))

    def on_key(self, action: str) -> None:
        """One of the keys of :mod:`~ChangeMapJointLib.scene.keys` was pressed."""
        assert self.shown is not None
        settings, selected = self.shown.settings, str(self.state.selected)
        if action in ("threshold_up", "threshold_down"):
            self.change(threshold=stepped(settings.threshold, 1 if action == "threshold_up" else -1))
        elif action in ("next", "previous"):
            self.on_select(self.findings.beside(1 if action == "next" else -1))
            self.state.message = NOTHING_TO_STEP_TO if self.findings.rows and not self.state.selected else ""
        elif action == "more":
            self.findings.unfold()
        elif action in ("accept", "reject"):
            wanted = {"accept": "accepted", "reject": "rejected"}[action]
            self.on_decide(selected, "" if self.decisions.of(selected) == wanted else wanted)
        elif action in ("overlay", "edges"):
            self.change(**{action: not getattr(settings, action)})
        elif action in WINDOWS_HU:
            self.change(window=action)

    def on_pointer(self, view: str, kind: str, *values: float) -> None:
        """The mouse, a finger or an arrow key moved something in a view.

        Args:
            view: name of the view.
            kind: ``scroll`` (slices), ``pan`` (pixels right, down), ``zoom`` (factor), ``point`` (pixels from the lower
                left), ``centre`` (likewise), ``fit``.
            values: see kind.
        """
        assert self.shown is not None
        navigation = self.shown.navigation
        if view not in VIEWS:
            raise ValueError(f"view {view!r}")
        numbers = [float(value) for value in values]
        self.pictures.painter.look_at(view)
        views = VIEWS
        if kind in ("scroll", "pan"):
            current = partner(view)
            views = (current, PRIOR[CURRENT.index(current)])
            navigation.scroll(view, numbers[0]) if kind == "scroll" else navigation.pan(view, *numbers[:2])
        elif kind == "zoom":
            navigation.zoom(min(max(numbers[0], LEAST_ZOOM), MOST_ZOOM))
        elif kind in ("point", "centre"):
            navigation.place(navigation.point(view, *numbers[:2]), centre=kind == "centre", source=view)
        elif kind == "fit":
            navigation.fit()
        self.moved(views)

    # -- settings --------------------------------------------------------------------------------------
    def on_setting(self, name: str, value: Any) -> None:
        """A control has another value."""
        self.change(**{str(name): of_its_kind(str(name), value)})

    def change(self, **values: Any) -> None:
        """Change settings; values out of range are limited, unknown choices refused.

        Raises:
            ValueError: a choice is unknown.
        """
        assert self.shown is not None
        old = self.shown.settings
        self._apply(changed(old, values, maps=self.shown.maps, lists=self.shown.lists.choices))
        if lists_again(old, self.shown.settings):
            self.findings.fill()
        elif old.overlay != self.shown.settings.overlay:
            self.findings.mark()

    def _apply(self, settings: Settings) -> None:
        assert self.shown is not None
        old = self.shown.settings
        views = self.shown.apply(settings)
        self.state.settings = asdict(self.shown.settings)
        node = self.shown.check_node(settings.check)
        display = None if node is None else node.GetDisplayNode()
        self.state.legend = (
            {} if display is None else {"low": display.GetWindowLevelMin(), "high": display.GetWindowLevelMax()}
        )
        if (settings.prior, settings.flicker) != (old.prior, old.flicker):
            self._write_labels()
        self.pictures.painter.ask(*views)

    # -- the views ---------------------------------------------------------------------------------------
    def _on_size(self, view: str) -> None:
        """Let the views follow once the one with another size has settled: its node changes after this is called."""
        asyncio.get_running_loop().call_soon(self._sized, view)

    def _sized(self, view: str) -> None:
        if self.shown is not None:
            with self.state:
                self.shown.navigation.sized(view)
                self._write_labels()
            self.paint()

    def moved(self, views: tuple[str, ...] = VIEWS) -> None:
        """Show what has another value after views moved, and paint them."""
        assert self.shown is not None
        self.state.values_text = self.shown.values()
        self.state.slices = slices_of(self.shown)
        self.pictures.painter.ask(*views)

    def paint(self) -> None:
        """Paint all views of the layout again."""
        self.pictures.painter.ask(*VIEWS)

    def _write_labels(self) -> None:
        assert self.shown is not None
        self.state.labels, self.state.slices = view_labels(self.shown), slices_of(self.shown)
