"""Section Views: layout, CT windows, and the list of keys."""

from __future__ import annotations

import html
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from ChangeMapJointGui.choices import chooseKey, fillChoices, onChosen
from ChangeMapJointGui.shortcuts import keyHelp
from ChangeMapJointLib.core.hu import WINDOWS_HU


class ViewsSection:
    """Layout of the views, and CT window."""

    def __init__(self, panel: Any) -> None:
        self.panel, self.ui = panel, panel.ui
        self._shown: tuple[Any, ...] = ()
        fillChoices(
            self.ui.layoutComboBox,
            [
                ("compare", _("Current above prior, three planes")),
                ("check", _("Axial current beside prior, and two planes")),
                ("read", _("Current scan, large axial view")),
            ],
        )
        onChosen(self.ui.layoutComboBox, lambda key: setattr(panel.parameters, "layout", key))
        for key, (name, (level, width)) in enumerate(WINDOWS_HU.items(), 1):
            button = getattr(self.ui, f"{name}Button")
            button.toolTip = _("{level} / {width}. Key: {key}").format(level=round(level), width=round(width), key=key)
            button.connect("clicked(bool)", lambda checked=False, name=name: self.setWindow(name))  # noqa: ARG005
        rows = "".join(
            f"<tr><td><b>{html.escape(key)}</b>&nbsp;&nbsp;</td><td>{html.escape(text)}</td></tr>"
            for key, text in keyHelp()
        )
        self.ui.keysLabel.text = f"<table>{rows}</table>"

    def showResult(self) -> None:
        """Make :meth:`update` arrange the views for the run that was loaded."""
        self._shown = ()

    def update(self) -> None:
        """Apply the settings of the parameter node to the views, if they have changed."""
        parameters, session = self.panel.parameters, self.panel.session
        chooseKey(self.ui.layoutComboBox, parameters.layout)
        state = (parameters.layout, parameters.window)
        if session is None or state == self._shown:
            return
        before, self._shown = self._shown, state
        if not before or before[0] != parameters.layout:
            self.panel.keepViews()
            self.panel.shortcuts.endFlicker()
            session.arrange(parameters.layout)
            slicer.app.processEvents(qt.QEventLoop.ExcludeUserInputEvents)  # gives the views their sizes
            if self.panel.session is not session:
                return
            session.fitViews()
            self.panel.placeViews()
            self.panel.check.again()  # the prior's views have moved, and some may be new
        session.setWindow(parameters.window)

    def setWindow(self, name: str) -> None:
        """Show the window ``lung``, ``mediastinum`` or ``bone``, even if it was chosen last."""
        self.panel.parameters.window = name
        shown = self.panel.session or self.panel.preview
        if shown is not None:
            shown.setWindow(name)
