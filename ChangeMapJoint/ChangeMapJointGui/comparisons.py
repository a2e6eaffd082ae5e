"""The comparisons in the scene: which of them is shown, and removing one."""

from __future__ import annotations

from typing import Any

import slicer
from slicer.i18n import tr as _

from ChangeMapJointGui.choices import chooseKey, fillChoices, onChosen
from ChangeMapJointLib.change.method_table import METHODS


class ComparisonsSection:
    """Chooses among the scene's comparisons; only the user removes one."""

    def __init__(self, panel: Any) -> None:
        self.panel, self.ui = panel, panel.ui
        onChosen(self.ui.comparisonComboBox, self.onChosen)
        self.ui.removeComparisonButton.connect("clicked(bool)", self.onRemove)

    def showResult(self) -> None:
        """List the comparisons of the scene, the newest first."""
        session = self.panel.session
        runs = [] if session is None else _runs()
        fillChoices(self.ui.comparisonComboBox, [(results.run, comparisonName(results)) for results in runs])
        if session is not None:
            chooseKey(self.ui.comparisonComboBox, session.results.run)
        self.ui.comparisonWidget.visible = bool(runs)

    def update(self) -> None:
        """Do nothing: the list changes only with the run on screen."""

    def onChosen(self, run: str) -> None:
        """Show another comparison."""
        session = self.panel.session
        if session is None or session.results.run == run:
            return
        for results in _runs():
            if results.run == run:
                self.panel.showLoaded(results)

    def next(self) -> None:
        """Show the next comparison of the same two scans, for example by another method: a key was pressed."""
        session = self.panel.session
        if session is None:
            return
        same = [one for one in _runs() if session.isOf(one.reference, one.template)]
        at = [one.run for one in same].index(session.results.run)
        self.onChosen(same[(at + 1) % len(same)].run)

    def onRemove(self, checked: bool = False) -> None:  # noqa: ARG002
        """Remove the comparison on screen from the scene, after asking."""
        session = self.panel.session
        text = _(
            "Remove this comparison from the scene, with your verdicts and comments on it?\n\n{name}\n\nThe scans stay."
        )
        if session is None or not slicer.util.confirmYesNoDisplay(text.format(name=comparisonName(session.results))):
            return
        self.panel.hide()
        session.results.remove()
        self.panel.showResultsOfScene()


def comparisonName(results: Any) -> str:
    """Return pair, method and time of a comparison."""
    names = [_("removed scan") if node is None else node.GetName() for node in (results.reference, results.template)]
    method = _(METHODS[results.method].title) if results.method in METHODS else results.method
    pair = _("{current} / {prior}").format(current=names[0], prior=names[1])
    return ", ".join(filter(None, (pair, method, results.loaded)))


def _runs() -> list[Any]:
    from ChangeMapJointLib.scene.results import Results

    return [results for results in Results.all_of_scene() if results.reference is not None]
