"""Follows Slicer's style: the user may change from a light to a dark one while the module is open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt

from ChangeMapJointGui.colors import isDark


class ThemeWatch(qt.QObject):
    """Calls back when the background has become dark or light.

    No signal tells it: Slicer sets style and palette of the application, and Qt sends each widget an event.
    """

    def __init__(self, widget: Any, changed: Callable[[], None]) -> None:
        """Watch this widget, which outlives the watch; ``changed`` is called when style and palette are new."""
        qt.QObject.__init__(self)
        self._changed, self._dark = changed, isDark()
        self._events = (qt.QEvent.PaletteChange, qt.QEvent.StyleChange)
        self._due = qt.QTimer(widget)
        self._due.setSingleShot(True)
        self._due.connect("timeout()", self.check)
        widget.installEventFilter(self)

    def check(self) -> None:
        """Look at the background now."""
        dark = isDark()
        if dark != self._dark:
            self._dark = dark
            self._changed()

    def eventFilter(self, watched: Any, event: Any) -> bool:  # noqa: ARG002
        """Look at the background later: the palette follows the style."""
        if event.type() in self._events:
            self._due.start(0)
        return False
