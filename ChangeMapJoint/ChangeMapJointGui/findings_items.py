"""The rows of the findings table: texts, colors, and the reader's verdict."""

from __future__ import annotations

from typing import Any

import qt

from ChangeMapJointGui import findings_words as words
from ChangeMapJointGui.colors import textColor
from ChangeMapJointGui.findings_words import KIND, READER, TRUST, FindingRow
from ChangeMapJointLib.registration.quality import LOW_TRUST


def fillItem(item: Any, row: FindingRow, texts: list[str]) -> None:
    """Fill the row of a change with one text a column."""
    hint = words.tooltip(row)
    for column, text in enumerate(texts):
        item.setText(column, text)
        item.setToolTip(column, hint)
    color = textColor("denser" if row.change.sign > 0 else "less dense")
    item.setForeground(KIND, qt.QBrush(qt.QColor(color)))
    if row.change.trust is not None and row.change.trust < LOW_TRUST:
        item.setForeground(TRUST, qt.QBrush(qt.QColor(textColor("bad"))))


def markItem(item: Any, verdict: str, marks: dict[str, str]) -> None:
    """Show the reader's verdict on a row."""
    item.setText(READER, marks.get(verdict, ""))
    for column in range(READER):
        if item.text(column) == "":
            continue
        font = item.font(column)
        font.setStrikeOut(verdict == "rejected")
        item.setFont(column, font)
