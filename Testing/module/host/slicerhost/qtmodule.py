"""``import qt``: every class of Qt in one module, as Slicer has it."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

from PySide6 import QtCore, QtWidgets

from slicerhost import messages, pythonqt, signals
from slicerhost.uiloader import UiLoader


def install() -> types.ModuleType:
    """Make the module and change PySide6's classes so that they behave like PythonQt's."""
    qt = types.ModuleType("qt")
    for module in pythonqt.QT_MODULES:
        for name in dir(module):
            if name.startswith("Q"):
                setattr(qt, name, getattr(module, name))
    qt.QUiLoader = UiLoader  # type: ignore[attr-defined]
    qt.Signal, qt.Slot, qt.Property = QtCore.Signal, QtCore.Slot, QtCore.Property  # type: ignore[attr-defined]
    pythonqt.install({"connect": signals.connect, "disconnect": signals.disconnect})
    for cls in (QtCore.QEventLoop, QtCore.QCoreApplication, QtCore.QThread):
        cls.exec_ = cls.exec
    QtWidgets.QMenu.exec_ = QtWidgets.QMenu.exec = _run_menu
    QtCore.QTimer.singleShot = staticmethod(_single_shot(QtCore.QTimer.singleShot))
    messages.install()
    sys.modules["qt"] = qt
    return qt


def _single_shot(plain: Callable[..., None]) -> Callable[..., None]:
    """PySide6 lets an exception of the callable come out of whatever Qt calls next."""

    def single_shot(milliseconds: int, *rest: Any) -> None:
        if len(rest) == 2:  # a receiver and the name of its slot
            rest = (getattr(rest[0], rest[1].split("(")[0]),)
        plain(milliseconds, signals.guarded(*rest))

    return single_shot


def _run_menu(menu: Any, *_where: Any) -> Any:
    """The entry that the test chose by its text."""
    wanted = messages.dialogs.ask("menu", menu.title, None)
    action = next((one for one in menu.actions() if one.text == wanted), None)
    if action is not None:
        action.trigger()
    return action
