"""The main window: module panel on the left, views on the right."""

from __future__ import annotations

from typing import Any

import slicer
from PySide6 import QtWidgets
from PySide6.QtCore import Property, Qt, Signal

from slicerhost import modules

PANEL_WIDTH = 470


class qSlicerModuleSelectorToolBar(QtWidgets.QToolBar):
    """The drop-down list of modules."""

    moduleSelected = Signal(str)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._list = QtWidgets.QComboBox(self)
        self._list.setMinimumWidth(220)
        self.addWidget(QtWidgets.QLabel(" Modules: "))
        self.addWidget(self._list)
        self._selected = ""

    def selectModule(self, name: str) -> None:
        module = slicer.app.moduleManager().module(name)
        if module is None:
            raise RuntimeError(f"no module {name} is loaded")
        modules.leave_all()
        if isinstance(module, modules.qSlicerScriptedLoadableModule):
            modules.open_module(name)
        self.show_selected(name)
        self.moduleSelected.emit(name)

    def show_selected(self, name: str) -> None:
        """Name the module without opening it."""
        if self._list.findText(name) < 0:
            self._list.addItem(name)
        self._list.setCurrentText(name)
        self._selected = name

    selectedModule = Property(str, lambda self: self._selected)


class qSlicerMainWindow(QtWidgets.QMainWindow):
    """``slicer.util.mainWindow()``."""

    initialWindowShown = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("qSlicerMainWindow")
        self.setWindowTitle("3D Slicer stand-in")
        self._selector = qSlicerModuleSelectorToolBar(self)
        self.addToolBar(self._selector)
        self._scroll = QtWidgets.QScrollArea()
        self._scroll.setWidgetResizable(True)
        self._scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        dock = QtWidgets.QDockWidget("", self)
        dock.setObjectName("PanelDockWidget")
        dock.setWidget(self._scroll)
        dock.setMinimumWidth(PANEL_WIDTH)
        self.addDockWidget(Qt.DockWidgetArea.LeftDockWidgetArea, dock)
        views = QtWidgets.QWidget(self)
        views.setObjectName("CentralWidget")
        column = QtWidgets.QVBoxLayout(views)
        column.setContentsMargins(0, 0, 0, 0)
        self.setCentralWidget(views)
        self.statusBar()
        self.resize(1100, 750)

    def moduleSelector(self) -> qSlicerModuleSelectorToolBar:
        return self._selector

    def show_panel(self, panel: QtWidgets.QWidget | None) -> None:
        """Put a module's panel on the left (not in Slicer)."""
        old = self._scroll.takeWidget()
        if old is not None:
            old.hide()
            old.setParent(None)
        if panel is not None:
            self._scroll.setWidget(panel)
            panel.show()
