"""Combo boxes whose entries have fixed keys, whatever the language of their texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def fillChoices(comboBox: Any, choices: Sequence[tuple[str, str]]) -> None:
    """Fill ``comboBox`` with ``(key, text)`` entries; the current key stays chosen if it is among them."""
    key = currentKey(comboBox)
    wasBlocked = comboBox.blockSignals(True)
    comboBox.clear()
    for entry, text in choices:
        comboBox.addItem(text, entry)
    comboBox.setCurrentIndex(max(comboBox.findData(key), 0))
    comboBox.blockSignals(wasBlocked)


def currentKey(comboBox: Any) -> str:
    """Return the key of the chosen entry; empty if there is none."""
    return str(comboBox.itemData(comboBox.currentIndex) or "") if comboBox.count else ""


def chooseKey(comboBox: Any, key: str) -> None:
    """Choose the entry with ``key`` without emitting a signal; an unknown key chooses the first entry."""
    wasBlocked = comboBox.blockSignals(True)
    comboBox.setCurrentIndex(max(comboBox.findData(key), 0))
    comboBox.blockSignals(wasBlocked)


def setChoiceEnabled(comboBox: Any, key: str, enabled: bool, reason: str = "") -> None:
    """Enable or disable the entry with ``key``; ``reason`` is its tooltip."""
    item = comboBox.model().item(comboBox.findData(key))
    item.setEnabled(enabled)
    item.setToolTip(reason)


def onChosen(comboBox: Any, callback: Callable[[str], None]) -> None:
    """Call ``callback`` with the key when the user or the program chooses another entry."""
    comboBox.connect("currentIndexChanged(int)", lambda index: callback(currentKey(comboBox)))  # noqa: ARG005
