"""The viewer: what the page shows and what its controls do, on trame's shared state."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from trame.app import get_server
from trame.ui.html import DivLayout
from trame_rca import module as picture_module
from trame_slicer import module as slicer_module

from ChangeMapJointLib import __version__
from ChangeMapJointLib.change.sections import BY_MAP, OPERATING_POINT_HINTS
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.hu import FULL_SCALE_HU, WINDOWS_HU
from ChangeMapJointLib.export.reading import write_reading
from ChangeMapJointLib.export.unseen import UNSEEN_TITLE, unseen_of_records
from ChangeMapJointLib.io import run_files
from ChangeMapJointLib.io.reading_file import VERDICTS, ReadingFile
from ChangeMapJointLib.scene.keys import FLICKER_KEY, KEY_HELP, KEYS, threshold_step
from ChangeMapJointLib.scene.nodes import CURRENT, PRIOR
from ChangeMapJointLib.web import page
from ChangeMapJointLib.web.opened_run import OpenedRun
from ChangeMapJointLib.web.pictures import LAYOUTS, VIEWS, Pictures
from ChangeMapJointLib.web.rows import Row, marked, rows_of, sections_of
from ChangeMapJointLib.web.shown_run import CHECKS, DEFAULT_OPACITY, LOWEST_THRESHOLD, MAP_TITLES, Settings, ShownRun

WATCH_S = 1.0  # how often reading.json is looked at for decisions of others
VERDICT_WORDS = {
    "good": "Registration: good",
    "look closely": "Registration: look closely",
    "do not use": "Registration: do not use, it failed",
}
WINDOW_NAMES = tuple(WINDOWS_HU)


class Viewer:
    """One page on one run at a time.

    Attributes:
        server: the trame server.
        shown: the run on screen; None where none can be shown.
        reading: its decisions.
        reader: who decides; may be empty.
    """

    def __init__(self) -> None:
        self.server = get_server("changemap", client_type="vue3")
        self.server.enable_module(slicer_module)
        self.server.enable_module(picture_module)
        self.server.enable_module(page.module())
        self.state = self.server.state
        self.pictures = Pictures(self.server)
        self.pictures.on_size = self._on_size
        self.shown: ShownRun | None = None
        self.reading: ReadingFile | None = None
        self.reader = ""
        self._rows: list[Row] = []
        self._seen: tuple[int, int] | None = None
        self._filter: Callable[[str, tuple[Any, ...]], bool] | None = None
        self._prepare_state()
        for name in ("setting", "pointer", "key", "select", "decide", "comment", "judge", "layout", "ready"):
            self.server.controller.trigger(name)(self._trigger(name))
        page.build(self.server, DivLayout)

    def take_over(self, handle: Callable[[str, tuple[Any, ...]], bool]) -> None:
        """Ask ``handle`` before anything that the page wants is done; see :mod:`~ChangeMapJointLib.web.study`."""
        self._filter = handle

    def add_trigger(self, name: str, act: Callable[..., Any]) -> None:
        """Let the page trigger something more."""
        self.server.controller.trigger(name)(self._guarded(act))

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
        self.shown = ShownRun(run, rigid_prior=study)
        self.reading = None if study else ReadingFile(run.folder, self.reader)
        with self.state as state:
            state.error, state.selected, state.values_text = "", "", ""
            state.run = self._facts(study)
            state.maps = [{"key": key, "title": MAP_TITLES[key]} for key in self.shown.maps]
            state.lists = self._list_choices()
            state.legend = {}
            self._apply(self.shown.settings)
            self._fill()
            self._show_reading()
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
            self.shown.close()
        self.shown = self.reading = None

    def _facts(self, study: bool) -> dict[str, Any]:
        assert self.shown is not None
        run, quality = self.shown.run, self.shown.run.records["quality"].get("quality", {})
        verdict = str(quality.get("verdict") or "")
        unseen = () if study else unseen_of_records(run.records)
        return {
            "name": "" if study else run.folder.resolve().name,
            "verdict": verdict,
            "verdictWords": VERDICT_WORDS.get(verdict, verdict),
            "reasons": [str(reason) for reason in quality.get("reasons", [])],
            "notes": list(run.notes),
            "unseenTitle": UNSEEN_TITLE,
            "unseen": list(unseen),
            "hasMap": bool(self.shown.maps),
            "hasFindings": self.shown.has_findings and not study,
            "hasReport": not study and (run.folder / run_files.REPORT).is_file(),
            "dates": {"current": run.date("reference"), "prior": run.date("template")},
            "hasPrior": run.template is not None,
            "study": study,
        }

    def _list_choices(self) -> list[dict[str, str]]:
        assert self.shown is not None
        names: dict[str, str] = {key: f"{key.capitalize()}: {hint}" for key, hint in OPERATING_POINT_HINTS.items()}
        names[BY_MAP] = "By the map: its regions at the threshold"
        return [{"key": key, "title": names[key]} for key in self.shown.lists.choices]

    # -- the page's state ------------------------------------------------------------------------------
    def _prepare_state(self) -> None:
        self.state.update(
            {
                "trame__title": "ChangeMapJoint viewer",
                "version": __version__,
                "views": list(VIEWS),
                "layouts": {name: list(views) for name, views in LAYOUTS.items()},
                "layout_name": "check",
                "settings": asdict(Settings()),
                "checks": [{"key": key, "title": title} for key, title in CHECKS.items()],
                "windows": [
                    {"key": key, "title": key.capitalize(), "level": level, "width": width}
                    for key, (level, width) in WINDOWS_HU.items()
                ],
                "verdicts": list(VERDICTS),
                "keys_help": [[key.format(key=FLICKER_KEY.upper()), words] for key, words in KEY_HELP],
                "keys": dict(KEYS),
                "flicker_key": FLICKER_KEY,
                "lowest": LOWEST_THRESHOLD,
                "full_scale": FULL_SCALE_HU,
                "default_opacity": DEFAULT_OPACITY,
                **{key: [] for key in ("maps", "lists", "rows", "sections")},
                **{key: {} for key in ("run", "reviews", "legend", "labels", "study", "slices")},
                **dict.fromkeys(("error", "selected", "values_text", "reader_verdict", "message"), ""),
                "unfolded": [],
                "busy": False,
            }
        )

    def _trigger(self, name: str) -> Callable[..., Any]:
        """Return what a trigger of the page calls."""

        def call(*arguments: Any) -> None:
            if self._filter is not None and not self._filter(name, arguments):
                return
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
                except (TypeError, ValueError, KeyError, IndexError) as error:  # not what the page sends
                    state.message = f"Not understood: {error}"

        return call

    # -- controls ----------------------------------------------------------------------------------------
    def on_ready(self) -> None:
        """A page has been opened: paint again."""
        if self.shown is not None:
            self.pictures.show(self.state.layout_name)

    def on_setting(self, name: str, value: Any) -> None:
        """A control has another value."""
        assert self.shown is not None
        old = getattr(self.shown.settings, {f.name: f.name for f in fields(Settings)}[str(name)])
        kind = type(old)
        self.change(**{name: float(value) if kind is float else bool(value) if kind is bool else kind(value)})

    def change(self, **values: Any) -> None:
        """Change settings; values out of range are limited, unknown choices refused.

        Raises:
            ValueError: a choice is unknown.
        """
        assert self.shown is not None
        new = replace(self.shown.settings, **values)
        choices = {
            "map": self.shown.maps or ("",),
            "check": tuple(CHECKS),
            "prior": ("acquired", "warped"),
            "window": WINDOW_NAMES,
            "listed": self.shown.lists.choices,
        }
        for name, allowed in choices.items():
            if getattr(new, name) not in allowed:
                raise ValueError(f"{name} {getattr(new, name)!r}")
        new = replace(
            new,
            threshold=round(min(max(new.threshold, LOWEST_THRESHOLD), 1.0), 3),
            opacity=round(min(max(new.opacity, 0.0), 1.0), 2),
            smallest=min(max(new.smallest, 1), 100_000),
        )
        old = self.shown.settings
        self._apply(new)
        lists = ("listed",) if new.listed != BY_MAP else ("listed", "map", "threshold", "smallest")
        if any(getattr(old, name) != getattr(new, name) for name in (*lists, "increases", "decreases")):
            self._fill()

    def _apply(self, settings: Settings) -> None:
        assert self.shown is not None
        relabel = settings.prior != self.shown.settings.prior or settings.flicker != self.shown.settings.flicker
        self.shown.apply(settings)
        self.state.settings = asdict(self.shown.settings)
        node = self.shown.check_node(settings.check)
        display = None if node is None else node.GetDisplayNode()
        self.state.legend = (
            {} if display is None else {"low": display.GetWindowLevelMin(), "high": display.GetWindowLevelMax()}
        )
        if relabel:
            self._write_labels()
        self.paint()

    def on_key(self, action: str) -> None:
        """One of the keys of :mod:`~ChangeMapJointLib.scene.keys` was pressed."""
        assert self.shown is not None
        settings = self.shown.settings
        if action in ("threshold_up", "threshold_down"):
            sign = 1 if action == "threshold_up" else -1
            step = threshold_step(settings.threshold + 1e-6 * sign)
            self.change(threshold=settings.threshold + sign * step)
        elif action in ("next", "previous"):
            self._step(1 if action == "next" else -1)
        elif action == "more":
            groups = [part["name"] for part in self.state.sections if part["folds"]]
            self.state.unfolded = [] if set(groups) <= set(self.state.unfolded) else groups
        elif action in ("accept", "reject"):
            wanted = {"accept": "accepted", "reject": "rejected"}[action]
            if self.state.selected:
                now = self.state.reviews.get(self.state.selected, {}).get("decision", "")
                self.on_decide(self.state.selected, "" if now == wanted else wanted)
        elif action in ("overlay", "edges"):
            self.change(**{action: not getattr(settings, action)})
        elif action in WINDOW_NAMES:
            self.change(window=action)

    def on_layout(self, name: str) -> None:
        """Another layout was chosen."""
        if name not in LAYOUTS:
            raise ValueError(f"layout {name!r}")
        self.state.layout_name = name
        self.pictures.show(name)

    # -- the list ------------------------------------------------------------------------------------------
    def _fill(self) -> None:
        """List what changed, and mark the findings in the views."""
        assert self.shown is not None
        self._rows = [] if self.state.run.get("study") else rows_of(self.shown, self.shown.settings)
        self.state.rows, self.state.sections = self._rows, sections_of(self._rows)
        if self.state.selected not in [row["key"] for row in self._rows]:
            self.state.selected = ""
        self._mark()

    def _visible(self) -> list[Row]:
        folded = {part["name"] for part in self.state.sections if part["folds"]} - set(self.state.unfolded)
        return [row for row in self._rows if row["section"] not in folded]

    def _mark(self) -> None:
        assert self.shown is not None
        on = self.shown.settings.overlay
        self.shown.mark([marked(row) for row in self._visible() if row["key"] != self.state.selected] if on else [])

    def _step(self, by: int) -> None:
        rows = self._visible()
        if rows:
            keys = [row["key"] for row in rows]
            at = keys.index(self.state.selected) if self.state.selected in keys else (-1 if by > 0 else 0)
            self.on_select(keys[(at + by) % len(keys)])

    def on_select(self, key: str) -> None:
        """Show a finding in the middle of all views, enlarged."""
        assert self.shown is not None
        row = next((row for row in self._rows if row["key"] == key), None)
        if row is None:
            return
        self.state.selected = key
        self.shown.navigation.jump_mm(row["centre"])
        self._mark()
        self.moved()

    # -- decisions --------------------------------------------------------------------------------------------
    def on_decide(self, key: str, decision: str) -> None:
        """Accept or reject a finding, or take that back."""
        self._store(key, decision=str(decision))

    def on_comment(self, key: str, text: str) -> None:
        """Store the remark on a finding."""
        self._store(key, comment=str(text)[:2000])

    def _store(self, key: str, **values: str) -> None:
        row = next((row for row in self._rows if row["key"] == key), None)
        if self.reading is None or row is None:
            return
        about = {"id": row["number"], "kind": row["rawKind"], "centre_mm": row["centre"]}
        self.reading.decide(key, about=about, **values)
        self._carry()

    def on_judge(self, verdict: str) -> None:
        """Store the reader's verdict on the registration."""
        if self.reading is not None:
            self.reading.judge(str(verdict))
            self._carry()

    def _carry(self) -> None:
        """Show what is stored, and write it into the report."""
        assert self.shown is not None
        assert self.reading is not None
        self._show_reading()
        write_reading(self.shown.run.folder, self.reading.read())

    def _show_reading(self) -> None:
        if self.reading is None:
            self.state.reviews, self.state.reader_verdict = {}, ""
            return
        try:
            content = self.reading.read()
        except InputError as error:
            self.state.message = str(error)
            return
        self.state.reviews = {
            key: {name: entry.get(name, "") for name in ("decision", "comment")}
            for key, entry in content["findings"].items()
        }
        self.state.reader_verdict = content["registration"].get("verdict", "")

    async def watch(self) -> None:
        """Show decisions that another viewer stores, until cancelled."""
        while True:
            await asyncio.sleep(WATCH_S)
            if self.reading is None:
                continue
            try:
                status = self.reading.path.stat()
                seen: tuple[int, int] | None = (status.st_mtime_ns, status.st_size)
            except OSError:
                seen = None
            if seen != self._seen:
                self._seen = seen
                with self.state:
                    self._show_reading()

    # -- pointer --------------------------------------------------------------------------------------------------
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
        if kind == "scroll":
            navigation.scroll(view, numbers[0])
        elif kind == "pan":
            navigation.pan(view, *numbers[:2])
        elif kind == "zoom":
            navigation.zoom(min(max(numbers[0], 0.2), 5.0))
        elif kind in ("point", "centre"):
            ras = navigation.point(view, *numbers[:2])
            navigation.place(ras, centre=kind == "centre", source=view)
        elif kind == "fit":
            navigation.fit()
        self.moved()

    def _on_size(self, view: str) -> None:
        if self.shown is not None:
            with self.state:
                self.shown.navigation.sized(view)
                self._write_labels()

    def moved(self) -> None:
        """Show what has another value after the views moved."""
        assert self.shown is not None
        self.state.values_text = self.shown.values()
        self._write_slices()
        self.paint()

    def paint(self) -> None:
        """Paint the views of the layout again."""
        for view in LAYOUTS[self.state.layout_name]:
            self.pictures.view(view).schedule_render()

    # -- what stands on the views -------------------------------------------------------------------------------------
    def _write_labels(self) -> None:
        assert self.shown is not None
        settings, navigation = self.shown.settings, self.shown.navigation
        dates = self.state.run.get("dates", {})
        acquired = settings.prior == "acquired" and self.shown.run.template is not None
        how = ("as acquired, rigidly aligned" if self.shown.rigid_prior else "as acquired") if acquired else "warped"
        labels = {}
        for view in CURRENT:
            flickers = "PRIOR, warped" if settings.flicker else "CURRENT"
            labels[view] = {"title": flickers, "date": dates.get("prior" if settings.flicker else "current", "")}
        for view in PRIOR:
            labels[view] = {"title": f"PRIOR, {how}", "date": dates.get("prior", "")}
        for view, label in labels.items():
            label["sides"] = navigation.letters(view)
        self.state.labels = labels
        self._write_slices()

    def _write_slices(self) -> None:
        assert self.shown is not None
        self.state.slices = {view: list(self.shown.navigation.slices(view)) for view in CURRENT}

    @property
    def report(self) -> Path | None:
        """The report of the run on screen; None without one, and in a reading session."""
        if self.shown is None or self.reading is None:
            return None
        return self.shown.run.folder / run_files.REPORT
