"""Stand-ins for CTK's path widgets."""

from __future__ import annotations

from typing import Any

from PySide6 import QtWidgets
from PySide6.QtCore import Property, Signal

from slicerhost.properties import stored


class ctkPathLineEdit(QtWidgets.QWidget):
    """A line for a path with a button that opens a file dialog."""

    currentPathChanged = Signal(str)
    validInputChanged = Signal(bool)
    settingKey, setSettingKey = stored(str, "settingKey", "")
    nameFilters, setNameFilters = stored("QStringList", "nameFilters", [])
    filters = stored(int, "filters", 0)[0]
    showBrowseButton, setShowBrowseButton = stored(bool, "showBrowseButton", True)
    showHistoryButton, setShowHistoryButton = stored(bool, "showHistoryButton", True)
    label, setLabel = stored(str, "label", "")

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._line, self._browse = QtWidgets.QLineEdit(self), QtWidgets.QToolButton(self)
        self._browse.text = "…"
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._line)
        row.addWidget(self._browse)
        self._line.textChanged.connect(self.currentPathChanged)
        self._browse.clicked.connect(lambda *_: self.browse())

    def browse(self) -> None:
        path = QtWidgets.QFileDialog.getOpenFileName(self, "Select a file")
        if path:
            self.setCurrentPath(path)

    def addCurrentPathToHistory(self) -> None:
        """Nothing to keep here."""

    def setCurrentPath(self, path: str) -> None:
        self._line.setText(path)

    currentPath = Property(str, lambda self: self._line.text, setCurrentPath)


class ctkDirectoryButton(QtWidgets.QPushButton):
    """A button that shows a folder and opens a dialog to choose another."""

    directoryChanged = Signal(str)
    directorySelected = Signal(str)
    caption, setCaption = stored(str, "caption", "")

    def __init__(self, *arguments: Any) -> None:
        super().__init__(next((one for one in arguments if isinstance(one, QtWidgets.QWidget)), None))
        self._directory = "."
        self.clicked.connect(lambda *_: self.browse())

    def browse(self) -> None:
        path = QtWidgets.QFileDialog.getExistingDirectory(self, self.caption or "Select a folder")
        if path:
            self.setDirectory(path)
            self.directorySelected.emit(path)

    def setDirectory(self, directory: str) -> None:
        if directory != self._directory:
            self._directory = directory
            self.setText(directory)
            self.directoryChanged.emit(directory)

    directory = Property(str, lambda self: self._directory, setDirectory)
