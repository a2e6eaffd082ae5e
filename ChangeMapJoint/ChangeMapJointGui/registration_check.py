"""Section Registration check: tools to verify the registration, and the reader's own verdict."""

from __future__ import annotations

from functools import partial
from typing import Any

import qt
from slicer.i18n import tr as _

from ChangeMapJointGui.choices import chooseKey, fillChoices, onChosen
from ChangeMapJointGui.legends import markPicture

READER_VERDICTS = ("", "fine", "doubtful", "wrong")


class CheckSection:
    """Edges, flicker, swipe, overlays, prior view, and the reader's own verdict."""

    def __init__(self, panel: Any) -> None:
        self.panel, self.ui = panel, panel.ui
        self._shown: tuple[Any, ...] = ()
        fillChoices(
            self.ui.checkOverlayComboBox,
            [
                ("none", _("None (change map)")),
                ("jacobian", _("Jacobian: local growth and shrinkage")),
                ("displacement", _("Displacement in mm")),
                ("trust", _("Trust")),
            ],
        )
        fillChoices(
            self.ui.priorComboBox,
            [
                ("acquired", _("As acquired, follows the cursor")),
                ("warped", _("Warped: sizes are not its own")),
                ("rigid", _("As acquired, aligned rigidly")),
            ],
        )
        self.ui.edgesCheckBox.setIcon(qt.QIcon(markPicture("edges", hatched=False)))
        self.ui.untrustedCheckBox.setIcon(qt.QIcon(markPicture("untrusted", hatched=True)))
        names = {"": _("not judged"), "fine": _("fine"), "doubtful": _("doubtful"), "wrong": _("wrong")}
        fillChoices(self.ui.readerVerdictComboBox, [(key, names[key]) for key in READER_VERDICTS])
        for comboBox, name in self._comboBoxes():
            onChosen(comboBox, partial(self._choose, name))
        self.ui.flickerButton.connect("pressed()", lambda: self.flicker(True))
        self.ui.flickerButton.connect("released()", lambda: self.flicker(False))
        self.ui.swipeSlider.connect("valueChanged(double)", self.onSwipe)

    def showResult(self) -> None:
        """Enable the tools that the run on screen has."""
        self._shown = ()
        session = self.panel.session
        self.ui.checkCollapsibleButton.enabled = session is not None
        self.ui.swipeSlider.value = 0
        for widget in (self.ui.checkOverlayComboBox, self.ui.untrustedCheckBox):
            widget.enabled = session is not None and session.hasFindings

    def update(self) -> None:
        """Apply the settings of the parameter node to the views, if they have changed."""
        parameters, session = self.panel.parameters, self.panel.session
        for comboBox, name in self._comboBoxes():
            chooseKey(comboBox, getattr(parameters, name))
        self.ui.checkLegendLabel.visible = parameters.checkOverlay != "none"
        if parameters.checkOverlay != "none":
            low, high = session.checkRange(parameters.checkOverlay) if session is not None else (0.0, 1.0)
            self.ui.checkLegendLabel.setPixmap(self.panel.legends.checkOverlay(parameters.checkOverlay, low, high))
        if session is None:
            return
        state = (parameters.edges, parameters.untrusted, parameters.checkOverlay, parameters.prior)
        if state != self._shown:
            self._shown = state
            session.showCheck(*state)
        session.setReaderVerdict(parameters.readerVerdict)

    def again(self) -> None:
        """Make :meth:`update` draw edges, hatching, overlay and prior again: the views have changed."""
        self._shown = ()

    def flicker(self, on: bool) -> None:
        """While on, the current views show the warped prior."""
        if self.panel.session is not None:
            self.panel.session.flicker(on)

    def _choose(self, name: str, key: str) -> None:
        setattr(self.panel.parameters, name, key)

    def onSwipe(self, percent: float) -> None:
        """Show the warped prior in this part of the view, in percent."""
        if self.panel.session is not None:
            self.panel.session.swipe(percent / 100)

    def _comboBoxes(self) -> tuple[tuple[Any, str], ...]:
        return (
            (self.ui.checkOverlayComboBox, "checkOverlay"),
            (self.ui.priorComboBox, "prior"),
            (self.ui.readerVerdictComboBox, "readerVerdict"),
        )
