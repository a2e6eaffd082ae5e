"""The selected change in words, and the reader's verdict and comment on it."""

from __future__ import annotations

from typing import Any

from ChangeMapJointGui import findings_words as words
from ChangeMapJointGui.findings_words import FindingRow


class Reviewing:
    """Accept, Reject and the comment; what is known of the change stands below them."""

    def __init__(self, panel: Any) -> None:
        self.panel, self.ui = panel, panel.ui
        self.ui.acceptButton.connect("clicked(bool)", lambda checked: self.judge("accepted" if checked else ""))
        self.ui.rejectButton.connect("clicked(bool)", lambda checked: self.judge("rejected" if checked else ""))
        self.ui.commentLineEdit.connect("editingFinished()", self.onComment)

    def judge(self, verdict: str) -> None:
        """Store the reader's verdict on the selected change: accepted, rejected, or empty for none."""
        row = self.panel.findings.selectedRow()
        if row is not None:
            self.panel.session.setReview(row.change.key, verdict=verdict)
            self.panel.findings.showVerdict(row, verdict)
        self.show(row)

    def toggle(self, verdict: str) -> None:
        """Set the verdict; if it is set already, clear it."""
        change = self.panel.findings.selected
        if change is not None:
            self.judge("" if self.panel.session.review(change.key)["verdict"] == verdict else verdict)

    def onComment(self) -> None:
        """Store the comment on the selected change."""
        change = self.panel.findings.selected
        if change is not None:
            self.panel.session.setReview(change.key, comment=self.ui.commentLineEdit.text)

    def show(self, row: FindingRow | None) -> None:
        """Show the verdict and comment on a change, and what is known of it; None without one."""
        no_review = {"verdict": "", "comment": ""}
        review = no_review if row is None else self.panel.session.review(row.change.key)
        of_one = (self.ui.acceptButton, self.ui.rejectButton, self.ui.commentLineEdit, self.ui.copyFindingButton)
        for widget in of_one:
            widget.enabled = row is not None
        self.ui.acceptButton.checked = review["verdict"] == "accepted"
        self.ui.rejectButton.checked = review["verdict"] == "rejected"
        self.ui.commentLineEdit.text = review["comment"]
        self.showDetails(row)

    def showDetails(self, row: FindingRow | None) -> None:
        """Show what is known of a change beyond the table; None without one."""
        facts = self.panel.findings.facts
        threshold = 0.0 if row is None else self.panel.parameters.threshold
        days = None if facts is None else facts.days
        self.ui.findingRemarkLabel.text = words.details(row, threshold, days)
        self.ui.findingRemarkLabel.toolTip = words.rulesText(row, days)
