"""The question that Slicer's own exit dialog does not ask: whether to end a comparison that is running."""

from __future__ import annotations

from typing import Any

import qt
import slicer
from slicer.i18n import tr as _


class QuitGuard(qt.QObject):
    """Asks before the main window closes; it watches the window only while a comparison runs."""

    def __init__(self) -> None:
        qt.QObject.__init__(self)
        self._window: Any = None

    def watch(self) -> None:
        """Ask from now on; without a main window, as in a script, nothing is asked."""
        self.release()
        self._window = slicer.util.mainWindow()
        if self._window is not None:
            self._window.installEventFilter(self)

    def release(self) -> None:
        """Ask no longer."""
        if self._window is not None:
            self._window.removeEventFilter(self)
            self._window = None

    def eventFilter(self, watched: Any, event: Any) -> bool:  # noqa: ARG002
        """Refuse to close the window if the user wants to wait."""
        if event.type() != qt.QEvent.Close:
            return False
        text = _("A comparison is running. Quitting ends it, and nothing of it is kept. Quit all the same?")
        if slicer.util.confirmYesNoDisplay(text):
            return False
        event.ignore()
        return True
