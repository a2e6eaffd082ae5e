"""Combo boxes whose entries have a fixed key each, whatever the language."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def fillChoices(comboBox: Any, choices: Sequence[tuple[str, str]]) -> None:
    """Put ``(key, text)`` entries into ``comboBox``; the chosen key stays chosen where it is still there."""
    key = currentKey(comboBox)
    wasBlocked = comboBox.blockSignals(True)
    comboBox.clear()
    for entry, text in choices:
        comboBox.addItem(text, entry)
    comboBox.setCurrentIndex(max(comboBox.findData(key), 0))
    comboBox.blockSignals(wasBlocked)


def currentKey(comboBox: Any) -> str:
    """The key of the chosen entry; empty when there is none."""
    return str(comboBox.itemData(comboBox.currentIndex) or "") if comboBox.count else ""


def chooseKey(comboBox: Any, key: str) -> None:
    """Choose the entry with ``key`` without telling anybody; unknown keys choose the first."""
    wasBlocked = comboBox.blockSignals(True)
    comboBox.setCurrentIndex(max(comboBox.findData(key), 0))
    comboBox.blockSignals(wasBlocked)


def setChoiceEnabled(comboBox: Any, key: str, enabled: bool, reason: str = "") -> None:
    """Grey out the entry with ``key``, with the reason as its tool tip."""
    item = comboBox.model().item(comboBox.findData(key))
    item.setEnabled(enabled)
    item.setToolTip(reason)


def onChosen(comboBox: Any, tell: Callable[[str], None]) -> None:
    """Call ``tell`` with the key when the user or the program chooses another entry."""
    comboBox.connect("currentIndexChanged(int)", lambda index: tell(currentKey(comboBox)))  # noqa: ARG005
