"""Findings as text: copied to the clipboard, to be pasted into a dictation."""

from __future__ import annotations

from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from ChangeMapJointGui import findings_words as words
from ChangeMapJointGui.findings_words import FindingRow
from ChangeMapJointGui.verdict import syntheticText
from ChangeMapJointLib.export import finding_text
from ChangeMapJointLib.export.list_words import no_finding_words, rejected_words

STATUS_MS = 4000


class Dictation:
    """The buttons Copy and Copy all."""

    def __init__(self, panel: Any) -> None:
        self.panel, self.ui = panel, panel.ui
        self.ui.copyFindingButton.connect("clicked(bool)", self.onCopy)
        self.ui.copyAllButton.connect("clicked(bool)", self.onCopyAll)

    def showResult(self) -> None:
        """Enable the buttons for the run on screen."""
        self.ui.copyAllButton.enabled = self.panel.session is not None

    def update(self) -> None:
        """Do nothing: the buttons do not depend on the parameter node."""

    def onCopy(self, checked: bool = False) -> None:  # noqa: ARG002
        """Copy the selected change."""
        row = self.panel.findings.selectedRow()
        if row is not None:
            self._copy(self._text(row))

    def onCopyAll(self, checked: bool = False) -> None:  # noqa: ARG002
        """Copy the findings that the reader has not rejected, with dates and verdict."""
        session, findings = self.panel.session, self.panel.findings
        facts = findings.facts
        if session is None or facts is None:
            return
        rows = [row for row in findings.ownRows if session.review(row.change.key)["verdict"] != "rejected"]
        notes, without = [syntheticText()] if facts.synthetic else [], ""
        rejected = len(findings.ownRows) - len(rows)
        if rejected:
            notes.append(rejected_words(rejected))
        if session.unusable or not session.hasFindings:  # never "no change"
            notes.append(self.ui.findingsCountLabel.text)
        elif not findings.ownRows:
            judged, threshold = findings.byProbability, self.panel.parameters.threshold
            without = no_finding_words(session.verdict, judged=judged, threshold=threshold)
        text = finding_text.dictation(
            [self._text(row) for row in rows],
            current=facts.current,
            prior=facts.prior,
            registration=session.verdict,
            notes=notes,
            without=without,
        )
        self._copy(text)

    def _text(self, row: FindingRow) -> str:
        comment = self.panel.session.review(row.change.key)["comment"]
        return " ".join(filter(None, [words.copyText(row, self.panel.findings.facts), comment]))

    def _copy(self, text: str) -> None:
        qt.QApplication.clipboard().setText(text)
        slicer.util.showStatusMessage(_("Copied: paste it into the dictation."), STATUS_MS)
