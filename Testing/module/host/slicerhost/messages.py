"""Dialogs that do not wait for a user: each is recorded, and answered by the test beforehand.

A question that no test answered is an error, and is answered with its cautious choice (no, cancel, no file).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import slicer
import slicer.util
from PySide6 import QtGui, QtWidgets

from slicerhost.errorrecord import errors

MESSAGES = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
CONFIRMATIONS = ("OkCancel", "YesNo", "RetryClose")
FILE_DIALOGS = {
    "getOpenFileName": "openFile",
    "getOpenFileNames": "openFiles",
    "getSaveFileName": "saveFile",
    "getExistingDirectory": "directory",
}


class Shown(NamedTuple):
    """One dialog that a user would have seen."""

    kind: str
    text: str
    title: str
    details: dict[str, Any]


class Dialogs:
    """The dialogs since the last ``clear``, and the answers waiting for them.

    Kinds: "info", "warning", "error", "delay", "url" need no answer. "confirmOkCancel", "confirmYesNo" and
    "confirmRetryClose" take True or False; "messageBox" a button; "openFile", "saveFile", "directory" a path;
    "openFiles" several; "text" and "item" a string; "menu" the text of an entry; "dialog" (any other QDialog, with
    ``exec_``) its result or a function of the dialog.
    """

    def __init__(self) -> None:
        self.shown: list[Shown] = []
        self._answers: dict[str, deque[Any]] = {}

    def clear(self) -> None:
        """Forget what was shown and what would be answered."""
        self.shown.clear()
        self._answers.clear()

    def answer(self, kind: str, *values: Any) -> None:
        """Answer the next dialogs of this kind, one value each."""
        self._answers.setdefault(kind, deque()).extend(values)

    def unused(self) -> list[str]:
        """The kinds whose answers nobody asked for."""
        return [kind for kind, values in self._answers.items() if values]

    def texts(self, kind: str | None = None) -> list[str]:
        """What was shown, in order."""
        return [one.text for one in self.shown if kind in (None, one.kind)]

    def show(self, kind: str, text: str, title: str | None = None, **details: Any) -> None:
        """Record a dialog."""
        self.shown.append(Shown(kind, str(text), title or "", details))

    def ask(self, kind: str, text: str, cautious: Any, title: str | None = None, **details: Any) -> Any:
        """Record a dialog and give the answer the test prepared."""
        self.show(kind, text, title, **details)
        if self._answers.get(kind):
            return self._answers[kind].popleft()
        errors.report("dialog", f"nobody answers the {kind} dialog '{text}'; use dialogs.answer('{kind}', ...)")
        return cautious


dialogs = Dialogs()


def install() -> None:
    """Replace the functions of slicer.util and of Qt that would open a window and wait."""
    for kind in MESSAGES:
        setattr(slicer.util, f"{kind}Display", _message(kind))
    for kind in CONFIRMATIONS:
        setattr(slicer.util, f"confirm{kind}Display", _confirmation(f"confirm{kind}"))
    slicer.util.messageBox = _message_box
    slicer.util.delayDisplay = _delay
    for name, kind in FILE_DIALOGS.items():
        setattr(QtWidgets.QFileDialog, name, staticmethod(_file_dialog(kind)))
    for name in ("information", "warning", "critical", "question", "about"):
        setattr(QtWidgets.QMessageBox, name, staticmethod(_static_message(name)))
    QtWidgets.QInputDialog.getText = staticmethod(_input("text"))
    QtWidgets.QInputDialog.getItem = staticmethod(_input("item"))
    QtGui.QDesktopServices.openUrl = staticmethod(_open_url)
    QtWidgets.QDialog.exec_ = QtWidgets.QDialog.exec = _run_dialog
    QtWidgets.QMessageBox.exec_ = QtWidgets.QMessageBox.exec = _run_message_box
    QtWidgets.QFileDialog.exec_ = QtWidgets.QFileDialog.exec = _run_dialog


def _message(kind: str) -> Callable[..., None]:
    def display(text: str, windowTitle: str | None = None, parent: Any = None, **details: Any) -> None:
        logging.log(MESSAGES[kind], text)
        dialogs.show(kind, text, windowTitle, **details)

    return display


def _confirmation(kind: str) -> Callable[..., bool]:
    def display(text: str, windowTitle: str | None = None, parent: Any = None, **details: Any) -> bool:
        return bool(dialogs.ask(kind, text, False, windowTitle, **details))

    return display


def _message_box(text: str, parent: Any = None, **details: Any) -> Any:
    no_button = QtWidgets.QMessageBox.StandardButton.NoButton
    return dialogs.ask("messageBox", text, no_button, details.pop("windowTitle", None), **details)


def _delay(message: str, autoCloseMsec: int = 1000, parent: Any = None, **details: Any) -> None:
    logging.info(message)
    dialogs.show("delay", message, milliseconds=autoCloseMsec, **details)
    slicer.app.processEvents()


def _file_dialog(kind: str) -> Callable[..., Any]:
    def ask(parent: Any = None, title: str = "", *more: Any, **details: Any) -> Any:
        return dialogs.ask(kind, title, () if kind == "openFiles" else "", title)

    return ask


def _static_message(name: str) -> Callable[..., Any]:
    def ask(parent: Any, title: str, text: str, *more: Any) -> Any:
        if name == "question" or len(more) > 0:
            return dialogs.ask("messageBox", text, QtWidgets.QMessageBox.StandardButton.NoButton, title)
        dialogs.show({"critical": "error", "warning": "warning"}.get(name, "info"), text, title)
        return QtWidgets.QMessageBox.StandardButton.Ok

    return ask


def _input(kind: str) -> Callable[..., Any]:
    def ask(parent: Any, title: str, label: str, *more: Any) -> Any:
        return dialogs.ask(kind, label, "", title)

    return ask


def _open_url(url: Any) -> bool:
    dialogs.show("url", url.toString())
    return True


def _run_message_box(box: Any) -> Any:
    return dialogs.ask("messageBox", box.text, QtWidgets.QMessageBox.StandardButton.NoButton, box.windowTitle)


def _run_dialog(dialog: Any) -> Any:
    answer = dialogs.ask("dialog", dialog.windowTitle, 0, dialog.windowTitle)
    return (answer(dialog) or dialog.result()) if callable(answer) else answer
