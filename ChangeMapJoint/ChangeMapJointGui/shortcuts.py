"""Keyboard shortcuts of the panel; they work anywhere in the window while the module is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from ChangeMapJointLib.scene.keys import FLICKER_KEY, HELD, KEY_HELP, KEYS, Action

KEYS_OF_3D_VIEWS = ("+", "=", "-")  # they zoom there; the panel's own layouts have no 3D view


class Shortcuts:
    """The panel's keys; ``enable`` and ``disable`` follow entering and leaving the module."""

    def __init__(self, panel: Any) -> None:
        self.panel = panel
        self._shortcuts: list[Any] = []
        self._shared: list[Any] = []  # those that 3D views use
        self._flickering = False

    def enable(self) -> None:
        """Enable the keys, wherever the focus is; a text field gets what is typed into it."""
        if self._shortcuts:
            return
        parent = slicer.util.mainWindow() or self.panel.widget
        for keys, act in self._actions():
            shortcut = qt.QShortcut(parent)
            shortcut.setKey(qt.QKeySequence(keys))
            shortcut.setAutoRepeat(keys != FLICKER_KEY)
            shortcut.connect("activated()", act)
            self._shortcuts.append(shortcut)
            if keys in KEYS_OF_3D_VIEWS:
                self._shared.append(shortcut)
        manager = slicer.app.layoutManager()
        if manager is not None:
            manager.connect("layoutChanged(int)", self.onLayout)
            self.onLayout(manager.layout)

    def disable(self) -> None:
        """Disable the keys."""
        manager = slicer.app.layoutManager()
        if manager is not None and self._shortcuts:
            manager.disconnect("layoutChanged(int)", self.onLayout)
        for shortcut in self._shortcuts:
            shortcut.setEnabled(False)
            shortcut.disconnect("activated()")
            shortcut.setParent(None)
            shortcut.deleteLater()
        self._shortcuts, self._shared = [], []
        self.endFlicker()

    def onLayout(self, layout: int) -> None:
        """Leave the keys of 3D views to them where the layout may show one."""
        from ChangeMapJointLib.scene.layouts import OURS

        for shortcut in self._shared:
            shortcut.setEnabled(self.panel.session is None or layout in OURS)

    def toggleFlicker(self) -> None:
        """Show the warped prior instead of the current scan, or the current scan again."""
        self._flickering = not self._flickering
        self.panel.check.flicker(self._flickering)

    def endFlicker(self) -> None:
        """Show the current scan again."""
        if self._flickering:
            self.toggleFlicker()

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
            "accept": lambda: panel.reviewing.toggle("accepted"),
            "reject": lambda: panel.reviewing.toggle("rejected"),
            "overlay": toggle("showOverlay"),
            "edges": toggle("edges"),
            "lung": lambda: panel.views.setWindow("lung"),
            "mediastinum": lambda: panel.views.setWindow("mediastinum"),
            "bone": lambda: panel.views.setWindow("bone"),
        }
        shared = [(key, actions[action]) for key, action in KEYS.items()]
        own = [("c", panel.comparisons.next), (FLICKER_KEY, self.toggleFlicker)]  # only the panel holds several runs
        return [*shared, *own]


def keyHelp() -> list[tuple[str, str]]:
    """Return the keys and what they do, as listed in the panel."""
    shared = [(_(key), _(words)) for key, words in KEY_HELP if key != HELD]  # a browser knows when W is let go
    own = [
        ("C", _("next comparison of the same scans, for example by the other method")),
        (FLICKER_KEY.upper(), _("flicker: show the warped prior; press again for the current scan")),
    ]
    return [*shared, *own]
