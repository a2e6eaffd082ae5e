"""Under Apply: what the run on screen is worth, in words and color, before any finding."""

from __future__ import annotations

import html
from typing import Any

from slicer.i18n import tr as _

from ChangeMapJointGui.colors import textColor

SHOWN_NOTES = 1  # more are unfolded by a click
SYMBOLS = {"good": "\u2713", "look": "!", "bad": "\u2715"}  # the color is not the only sign


class VerdictSection:
    """Verdict on the registration with its reasons, the run's notes, and whether the scans are synthetic."""

    def __init__(self, panel: Any) -> None:
        self.panel, self.ui = panel, panel.ui
        self._unfolded = False
        self._session: Any = None
        self.ui.notesLabel.connect("linkActivated(QString)", self.onNotes)
        self.ui.rigidButton.connect("clicked(bool)", self.onRigid)

    def showResult(self) -> None:
        """Show the verdict of the run on screen; fold inputs and method away, which it no longer needs."""
        session = self.panel.session
        self.ui.verdictWidget.visible = session is not None
        if session is not self._session:
            self._unfolded = False
            if (session is None) != (self._session is None):
                for button in (self.ui.inputsCollapsibleButton, self.ui.methodCollapsibleButton):
                    button.collapsed = session is not None
        self._session = session
        if session is None:
            return
        color, text = verdictInWords(session.verdict)
        mark = f"{SYMBOLS[color]} " if color in SYMBOLS else ""
        self.ui.verdictLabel.text = f'<b style="color:{textColor(color)}">{mark}{html.escape(text)}</b>'
        self.ui.reasonsLabel.text = " ".join(session.reasons)
        self.ui.reasonsLabel.visible = bool(session.reasons)
        self.ui.rigidButton.visible = session.unusable
        facts = self.panel.findings.facts
        warnings = [("bad", facts.twoPatients), ("look", syntheticText() if facts.synthetic else "")]
        lines = [f'<b style="color:{textColor(name)}">{html.escape(text)}</b>' for name, text in warnings if text]
        self.ui.warningLabel.text = "<br>".join(lines)
        self.ui.warningLabel.visible = bool(lines)
        self._showNotes()

    def update(self) -> None:
        """Do nothing: this section does not depend on the parameter node."""

    def onNotes(self, link: str = "") -> None:  # noqa: ARG002
        """Unfold or fold the notes of the run."""
        self._unfolded = not self._unfolded
        self._showNotes()

    def onRigid(self, checked: bool = False) -> None:  # noqa: ARG002
        """Show current and prior side by side after rigid alignment, without map and edges."""
        with self.panel.oneChange() as parameters:
            parameters.prior, parameters.layout = "rigid", "check"
            parameters.showOverlay = parameters.edges = parameters.untrusted = False
            parameters.checkOverlay = "none"

    def _showNotes(self) -> None:
        notes = runNotes(self.panel.session)
        shown = notes if self._unfolded else notes[:SHOWN_NOTES]
        lines = [html.escape(note) for note in shown]
        if len(notes) > SHOWN_NOTES:
            more = _("fewer") if self._unfolded else _("{count} more").format(count=len(notes) - SHOWN_NOTES)
            lines.append(f'<a href="notes" style="color:{textColor("less dense")}">{html.escape(more)}</a>')
        self.ui.notesLabel.text = "<br>".join(lines)
        self.ui.notesLabel.visible = bool(lines)


def runNotes(session: Any) -> list[str]:
    """Return the notes of a run: what the gate found, and what the run itself had to say; one sentence each."""
    answer, sentences = session.gate
    notes = list(sentences) if answer != "fine" else []
    notes += [str(note) for note in session.results.content.get("run", {}).get("notes") or []]
    return list(dict.fromkeys(notes))


def syntheticText() -> str:
    """Return the label of scans that are not a patient's."""
    return _("SYNTHETIC: sample data with changes made by a program, not a patient's follow-up.")


def verdictInWords(verdict: str) -> tuple[str, str]:
    """Return the color's name and the text of the program's verdict."""
    return {
        "good": ("good", _("Registration: good")),
        "look closely": ("look", _("Registration: look closely")),
        "do not use": ("bad", _("Registration: do not use, it failed")),
    }.get(verdict, ("look", verdict or _("Registration: not measured")))
