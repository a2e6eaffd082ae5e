"""Stand-ins for CTK's path widgets."""

from __future__ import annotations

from typing import Any, ClassVar

from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Property, Signal

from slicerhost.properties import stored


class ctkPathLineEdit(QtWidgets.QWidget):
    """A line for a path with a button that opens a file dialog."""

    currentPathChanged = Signal(str)
    validInputChanged = Signal(bool)
    FLAGS: ClassVar = {"Dirs": 1, "Files": 2, "Drives": 4, "Readable": 16, "Writable": 32, "Executable": 64}
    settingKey, setSettingKey = stored(str, "settingKey", "", "retrieveHistory")
    nameFilters, setNameFilters = stored("QStringList", "nameFilters", [])
    filters = stored(int, "filters", 1 | 2 | 4 | 16)[0]  # whatever includes files is a file to the button
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
        if self.filters & self.FLAGS["Files"]:
            path = QtWidgets.QFileDialog.getOpenFileName(self, "Open a file")
        else:
            path = QtWidgets.QFileDialog.getExistingDirectory(self, "Select a directory...")
        if path:
            self.setCurrentPath(path)

    def addCurrentPathToHistory(self) -> None:
        """Only this remembers a path."""
        if self.currentPath:
            paths = [self.currentPath, *(one for one in self._history() if one != self.currentPath)]
            QtCore.QSettings().setValue(self.settingKey, paths)

    def retrieveHistory(self) -> None:
        """The path that was used last stands in an empty field."""
        if not self.currentPath and self._history():
            self.setCurrentPath(self._history()[0])

    def _history(self) -> list[str]:
        paths = QtCore.QSettings().value(self.settingKey) or []
        return [paths] if isinstance(paths, str) else list(paths)

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
