"""Section Findings: the list at the threshold, step by step through it, and what the reader says of each."""

from __future__ import annotations

from typing import Any

import qt
from slicer.i18n import tr as _

from ChangeMapJointGui.change_map import DENSER_COLOR, LESS_DENSE_COLOR
from ChangeMapJointGui.inputs import BAD_COLOR
from ChangeMapJointLib.change.kinds import KIND_WORDS
from ChangeMapJointLib.registration.quality import LOW_TRUST

COLUMNS = 6


class FindingsSection:
    """Table, previous and next, accept and reject, comment."""

    def __init__(self, panel: Any) -> None:
        self.panel, self.ui = panel, panel.ui
        self.rows: list[Any] = []
        self._shown: tuple[Any, ...] = ()
        self._filling = False
        table = self.ui.findingsTable
        table.setColumnCount(COLUMNS)
        table.setHorizontalHeaderLabels(columnNames())
        table.verticalHeader().setVisible(False)
        table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        table.setSelectionMode(qt.QAbstractItemView.SingleSelection)
        table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        table.horizontalHeader().setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        table.horizontalHeader().setStretchLastSection(True)
        table.connect("itemSelectionChanged()", self.onSelected)
        self.ui.previousFindingButton.connect("clicked(bool)", lambda checked=False: self.step(-1))  # noqa: ARG005
        self.ui.nextFindingButton.connect("clicked(bool)", lambda checked=False: self.step(1))  # noqa: ARG005
        self.ui.acceptButton.connect("clicked(bool)", lambda checked: self.judge("accepted" if checked else ""))
        self.ui.rejectButton.connect("clicked(bool)", lambda checked: self.judge("rejected" if checked else ""))
        self.ui.commentLineEdit.connect("editingFinished()", self.onComment)

    # -- what is listed ---------------------------------------------------------------
    def showResult(self) -> None:
        """List anew for the run that was loaded."""
        self._shown = ()
        self.rows = []

    def update(self) -> None:
        """List what is above the threshold, when that or the run has changed."""
        parameters, session = self.panel.parameters, self.panel.session
        self.ui.findingsCollapsibleButton.enabled = session is not None and session.hasFindings
        state = (
            session,
            parameters.map,
            parameters.threshold,
            parameters.smallestVoxels,
            parameters.increases,
            parameters.decreases,
        )
        if state == self._shown:
            return
        self._shown = state
        selected = self.selected
        if session is None or not session.hasFindings:
            self.rows = []
        else:
            directions = [s for s, on in ((1, parameters.increases), (-1, parameters.decreases)) if on]
            self.rows = session.findings(parameters.threshold, parameters.smallestVoxels, directions)
        self._fill(None if selected is None else selected.key)

    @property
    def selected(self) -> Any:
        """The selected row, or None."""
        index = self.ui.findingsTable.currentRow()
        return self.rows[index] if 0 <= index < len(self.rows) else None

    def _fill(self, key: int | None) -> None:
        table, session = self.ui.findingsTable, self.panel.session
        self._filling = True
        table.setRowCount(len(self.rows))
        names, marks = kindNames(), markNames()  # once: a translation takes longer than a cell
        for i, row in enumerate(self.rows):
            self._fillRow(i, row, session.review(row.key)["verdict"], names, marks)
        found = [i for i, row in enumerate(self.rows) if row.key == key]
        if found:
            table.selectRow(found[0])
        else:
            table.clearSelection()
            table.setCurrentCell(-1, -1)
        self._filling = False
        self._showCount()
        self._showSelected()
        if session is not None:
            session.markFindings(self.rows, self.selected)

    def _fillRow(self, i: int, row: Any, verdict: str, names: dict[str, str], marks: dict[str, str]) -> None:
        texts = rowTexts(row, names)
        for column, text in enumerate(texts):
            item = qt.QTableWidgetItem(text)
            if column == 0:
                item.setForeground(qt.QBrush(qt.QColor(DENSER_COLOR if row.sign > 0 else LESS_DENSE_COLOR)))
            if column == 4 and row.trust is not None and row.trust < LOW_TRUST:
                item.setForeground(qt.QBrush(qt.QColor(BAD_COLOR)))
            if verdict == "rejected":
                font = item.font()
                font.setStrikeOut(True)
                item.setFont(font)
            self.ui.findingsTable.setItem(i, column, item)
        self.ui.findingsTable.setItem(i, COLUMNS - 1, qt.QTableWidgetItem(marks.get(verdict, "")))

    def _showCount(self) -> None:
        session = self.panel.session
        if session is None:
            self.ui.findingsCountLabel.text = _("No comparison yet.")
        elif not session.hasFindings:
            self.ui.findingsCountLabel.text = _("Rigid only: no findings were made.")
        elif self.rows:
            total = len(self.rows)
            seen = sum(bool(session.review(row.key)["verdict"]) for row in self.rows)
            text = _("One finding, {seen} judged.") if total == 1 else _("{count} findings, {seen} judged.")
            self.ui.findingsCountLabel.text = text.format(count=total, seen=seen)
        else:
            self.ui.findingsCountLabel.text = noFindings(session, self.panel.parameters.threshold)

    # -- one finding ------------------------------------------------------------------
    def step(self, by: int) -> None:
        """Select the next or the previous finding; from the last to the first."""
        if self.rows:
            table = self.ui.findingsTable
            current = table.currentRow()
            table.selectRow((current + by) % len(self.rows) if current >= 0 else (0 if by > 0 else len(self.rows) - 1))

    def onSelected(self) -> None:
        """Go there in all views."""
        if self._filling:
            return
        row = self.selected
        self._showSelected()
        if row is not None:
            self.panel.session.jumpTo(row)
        if self.panel.session is not None:
            self.panel.session.markFindings(self.rows, row)

    def judge(self, verdict: str) -> None:
        """Keep what the reader says of the selected finding."""
        row = self.selected
        if row is not None:
            self.panel.session.setReview(row.key, verdict=verdict)
            self._filling = True
            self._fillRow(self.ui.findingsTable.currentRow(), row, verdict, kindNames(), markNames())
            self._filling = False
            self._showCount()
        self._showSelected()

    def toggle(self, verdict: str) -> None:
        """Accept or reject by key; the same key again takes it back."""
        row = self.selected
        if row is not None:
            self.judge("" if self.panel.session.review(row.key)["verdict"] == verdict else verdict)

    def onComment(self) -> None:
        """Keep the comment on the selected finding."""
        row = self.selected
        if row is not None:
            self.panel.session.setReview(row.key, comment=self.ui.commentLineEdit.text)

    def _showSelected(self) -> None:
        row, session = self.selected, self.panel.session
        review = session.review(row.key) if row is not None else {"verdict": "", "comment": ""}
        for widget in (self.ui.acceptButton, self.ui.rejectButton, self.ui.commentLineEdit):
            widget.enabled = row is not None
        for widget in (self.ui.previousFindingButton, self.ui.nextFindingButton):
            widget.enabled = bool(self.rows)
        self.ui.acceptButton.checked = review["verdict"] == "accepted"
        self.ui.rejectButton.checked = review["verdict"] == "rejected"
        self.ui.commentLineEdit.text = review["comment"]
        self.ui.findingRemarkLabel.text = remark(row)


def columnNames() -> list[str]:
    """Headers of the table."""
    return [_("Kind"), _("Size"), _("Change"), _("Peak"), _("Trust"), _("Reader")]


def kindNames() -> dict[str, str]:
    """The kinds of change in the reader's words."""
    return {kind: _(words) for kind, words in KIND_WORDS.items()}


def markNames() -> dict[str, str]:
    """What the reader may say of a finding."""
    return {"accepted": _("accepted"), "rejected": _("rejected")}


def rowTexts(row: Any, names: dict[str, str]) -> list[str]:
    """Kind, size, change, peak and trust of one finding; ``names`` as of :func:`kindNames`."""
    return [
        names[row.kind],
        sizeText(row),
        changeText(row.measured),
        f"{row.peak:.2f}",
        "?" if row.trust is None else f"{row.trust:.2f}",
    ]


def sizeText(row: Any) -> str:
    """Axial diameters of the lesion as it is now (or was, when resolved); else the volume of the change."""
    measured = row.measured or {}
    lesion = measured.get("lesion_reference") or measured.get("lesion_template")
    if lesion is None:
        return _("{volume} ml").format(volume=f"{row.volume_ml:.2f}")
    long, across = lesion["long_diameter_mm"], lesion["perpendicular_diameter_mm"]
    return _("{long} x {across} mm").format(long=f"{long:.0f}", across=f"{across:.0f}")


def changeText(measured: Any) -> str:
    """Change of the lesion's volume; empty where it was not measured in both scans."""
    percent = (measured or {}).get("volume_change_percent")
    return "" if percent is None else f"{percent:+.0f} %"


def remark(row: Any) -> str:
    """What is known of a finding beyond the table."""
    if row is None:
        return ""
    if row.measured is not None:
        return str(row.measured["remark"])
    return _("{volume} ml changed; not measured as a lesion.").format(volume=f"{row.volume_ml:.2f}")


def noFindings(session: Any, threshold: float) -> str:
    """Never 'no change' where the registration cannot be believed."""
    if session.unusable:
        text = _(
            "Nothing can be said: the registration cannot be used. {why} "
            "{count} regions of difference that it left are withheld; see Registration check."
        )
        return text.format(why=" ".join(session.reasons), count=session.withheld)
    return _("No region reaches {threshold}; weaker change may be there, lower the threshold to see it.").format(
        threshold=f"{threshold:.2f}"
    )
