"""Keyboard shortcuts of the panel; they work anywhere in the window while the module is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from ChangeMapJointLib.scene.keys import FLICKER_KEY, KEY_HELP, KEYS, Action

BEFORE_THE_VIEW = 100.0  # observer priority
REPEAT_MS = 50  # some systems repeat a held key as release and press


class Shortcuts:
    """The panel's keys; ``enable`` and ``disable`` follow entering and leaving the module."""

    def __init__(self, panel: Any) -> None:
        self.panel = panel
        self._shortcuts: list[Any] = []
        self._observed: list[tuple[Any, int]] = []
        self._flickering = False
        self._releaseTimer = qt.QTimer()
        self._releaseTimer.setSingleShot(True)
        self._releaseTimer.setInterval(REPEAT_MS)
        self._releaseTimer.connect("timeout()", lambda: self._flicker(False))

    def enable(self) -> None:
        """Enable the keys."""
        if self._shortcuts:
            return
        parent = slicer.util.mainWindow() or self.panel.widget
        for keys, act in self._actions():
            shortcut = qt.QShortcut(parent)
            shortcut.setKey(qt.QKeySequence(keys))
            shortcut.connect("activated()", act)
            self._shortcuts.append(shortcut)
        self.observeViews()

    def disable(self) -> None:
        """Disable the keys."""
        for shortcut in self._shortcuts:
            shortcut.setEnabled(False)
            shortcut.disconnect("activated()")
            shortcut.setParent(None)
            shortcut.deleteLater()
        self._shortcuts = []
        self._forgetViews()
        self._flicker(False)

    def observeViews(self) -> None:
        """Observe key press and release in the slice views: flicker needs the release, which shortcuts do not have."""
        self._forgetViews()
        if not self._shortcuts:
            return
        manager = slicer.app.layoutManager()
        for name in manager.sliceViewNames() if manager is not None else ():
            interactor = manager.sliceWidget(name).sliceView().interactor()
            for event, on in (("KeyPressEvent", True), ("KeyReleaseEvent", False)):
                tag = interactor.AddObserver(
                    event, lambda caller, _event, on=on: self._onKey(caller, on), BEFORE_THE_VIEW
                )
                self._observed.append((interactor, tag))

    def _onKey(self, interactor: Any, on: bool) -> None:
        if (interactor.GetKeySym() or "").lower() != FLICKER_KEY:
            return
        if on:
            self._releaseTimer.stop()
            self._flicker(True)
        else:
            self._releaseTimer.start()

    def _flicker(self, on: bool) -> None:
        self._releaseTimer.stop()
        if on != self._flickering:
            self._flickering = on
            self.panel.check.flicker(on)

    def _forgetViews(self) -> None:
        for interactor, tag in self._observed:
            interactor.RemoveObserver(tag)
        self._observed = []

    def _actions(self) -> list[tuple[str, Callable[[], None]]]:
        panel = self.panel

        def toggle(name: str) -> Callable[[], None]:
            return lambda: setattr(panel.parameters, name, not getattr(panel.parameters, name))

        actions: dict[Action, Callable[[], None]] = {
            "threshold_up": lambda: panel.map.step(1),
            "threshold_down": lambda: panel.map.step(-1),
            "next": lambda: panel.findings.step(1),
            "previous": lambda: panel.findings.step(-1),
            "more": panel.findings.toggleGroups,
            "accept": lambda: panel.findings.toggle("accepted"),
            "reject": lambda: panel.findings.toggle("rejected"),
            "overlay": toggle("showOverlay"),
            "edges": toggle("edges"),
            "lung": lambda: panel.views.setWindow("lung"),
            "mediastinum": lambda: panel.views.setWindow("mediastinum"),
            "bone": lambda: panel.views.setWindow("bone"),
        }
        shared = [(key, actions[action]) for key, action in KEYS.items()]
        return [*shared, ("c", panel.comparisons.next)]  # only the panel holds several runs


def keyHelp() -> list[tuple[str, str]]:
    """Return the keys and what they do, as listed in the panel."""
    shared = [(_(key).format(key=FLICKER_KEY.upper()), _(words)) for key, words in KEY_HELP]
    return [*shared, ("C", _("next comparison of the same scans, for example by the other method"))]
