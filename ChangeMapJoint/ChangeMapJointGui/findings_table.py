"""Section Findings: the list at the current threshold, and the reader's verdict on each finding."""

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
        """Clear the list for the run that was loaded; :meth:`update` fills it."""
        self._shown = ()
        self.rows = []

    def update(self) -> None:
        """List the findings again if the run or a setting of the list has changed."""
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
            signs = [sign for sign, shown in ((1, parameters.increases), (-1, parameters.decreases)) if shown]
            self.rows = session.findings(parameters.threshold, parameters.smallestVoxels, signs)
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
        names, marks = kindNames(), markNames()  # once: translating takes longer than filling a cell
        for i, row in enumerate(self.rows):
            self._fillRow(i, row, session.review(row.key)["verdict"], names, marks)
        matches = [i for i, row in enumerate(self.rows) if row.key == key]
        if matches:
            table.selectRow(matches[0])
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
            self.ui.findingsCountLabel.text = _("Rigid only: no change map and no findings.")
        elif self.rows:
            total = len(self.rows)
            reviewed = sum(bool(session.review(row.key)["verdict"]) for row in self.rows)
            text = _("1 finding, {reviewed} reviewed.") if total == 1 else _("{count} findings, {reviewed} reviewed.")
            self.ui.findingsCountLabel.text = text.format(count=total, reviewed=reviewed)
        else:
            self.ui.findingsCountLabel.text = noFindings(session, self.panel.parameters.threshold)

    # -- one finding ------------------------------------------------------------------
    def step(self, by: int) -> None:
        """Select the next (+1) or previous (-1) finding; after the last comes the first."""
        if self.rows:
            table = self.ui.findingsTable
            current = table.currentRow()
            table.selectRow((current + by) % len(self.rows) if current >= 0 else (0 if by > 0 else len(self.rows) - 1))

    def onSelected(self) -> None:
        """Center all views on the selected finding."""
        if self._filling:
            return
        row = self.selected
        self._showSelected()
        if row is not None:
            self.panel.session.jumpTo(row)
        if self.panel.session is not None:
            self.panel.session.markFindings(self.rows, row)

    def judge(self, verdict: str) -> None:
        """Store the reader's verdict on the selected finding: accepted, rejected, or empty for none."""
        row = self.selected
        if row is not None:
            self.panel.session.setReview(row.key, verdict=verdict)
            self._filling = True
            self._fillRow(self.ui.findingsTable.currentRow(), row, verdict, kindNames(), markNames())
            self._filling = False
            self._showCount()
        self._showSelected()

    def toggle(self, verdict: str) -> None:
        """Set the verdict; if it is set already, clear it."""
        row = self.selected
        if row is not None:
            self.judge("" if self.panel.session.review(row.key)["verdict"] == verdict else verdict)

    def onComment(self) -> None:
        """Store the comment on the selected finding."""
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
    """Return the headers of the table."""
    return [_("Kind"), _("Size"), _("Change"), _("Peak"), _("Trust"), _("Reader")]


def kindNames() -> dict[str, str]:
    """Return the kinds of change in the user's language."""
    return {kind: _(words) for kind, words in KIND_WORDS.items()}


def markNames() -> dict[str, str]:
    """Return the reader's possible verdicts on a finding in the user's language."""
    return {"accepted": _("accepted"), "rejected": _("rejected")}


def rowTexts(row: Any, names: dict[str, str]) -> list[str]:
    """Return kind, size, change, peak and trust of a finding as text; ``names`` comes from :func:`kindNames`."""
    return [
        names[row.kind],
        sizeText(row),
        changeText(row.measured),
        f"{row.peak:.2f}",
        "?" if row.trust is None else f"{row.trust:.2f}",
    ]


def sizeText(row: Any) -> str:
    """Return the axial diameters of the lesion now (if resolved, in the prior); else the volume of the change."""
    measured = row.measured or {}
    lesion = measured.get("lesion_reference") or measured.get("lesion_template")
    if lesion is None:
        return _("{volume} ml").format(volume=f"{row.volume_ml:.2f}")
    long, across = lesion["long_diameter_mm"], lesion["perpendicular_diameter_mm"]
    return _("{long} x {across} mm").format(long=f"{long:.0f}", across=f"{across:.0f}")


def changeText(measured: Any) -> str:
    """Return the change of the lesion's volume in percent; empty if it was not measured in both scans."""
    percent = (measured or {}).get("volume_change_percent")
    return "" if percent is None else f"{percent:+.0f} %"


def remark(row: Any) -> str:
    """Return what is known of a finding beyond the table."""
    if row is None:
        return ""
    if row.measured is not None:
        return str(row.measured["remark"])
    return _("{volume} ml changed; not measured as a lesion.").format(volume=f"{row.volume_ml:.2f}")


def noFindings(session: Any, threshold: float) -> str:
    """Say why the list is empty; never "no change" if the registration cannot be used."""
    if session.unusable:
        text = _(
            "No findings can be given: the registration cannot be used. {why} "
            "{count} regions of remaining difference are withheld; see Registration check."
        )
        return text.format(why=" ".join(session.reasons), count=session.withheld)
    return _("No region reaches {threshold}. Lower the threshold to see weaker change.").format(
        threshold=f"{threshold:.2f}"
    )
