"""``slicer.app``."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from typing import Any

import slicer
from headless import make_application
from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Property, Signal

from slicerhost.inputoutput import IOManager
from slicerhost.layout import LayoutManager
from slicerhost.mainwindow import qSlicerMainWindow
from slicerhost.modules import ModuleManager, unload


class qSlicerApplication(QtCore.QObject):
    """The application object: scene, logic, managers, paths and settings."""

    startupCompleted = Signal()
    aboutToQuit = Signal()
    lastWindowClosed = Signal()
    mrmlSceneChanged = Signal(object)

    def __init__(self, qt_application: QtWidgets.QApplication) -> None:
        super().__init__()
        self._qt = qt_application
        self._temporary = tempfile.mkdtemp(prefix="slicerhost-")
        atexit.register(shutil.rmtree, self._temporary, ignore_errors=True)
        self._scene, self._logic = application = make_application()
        slicer.app, slicer.mrmlScene = self, self._scene
        self._io, self._modules = IOManager(), ModuleManager()
        self._window = qSlicerMainWindow()
        self._layouts = LayoutManager(application, self._window.centralWidget())
        self._testing = False
        self._dicom: Any = None

    applicationName = Property(str, lambda self: "Slicer")
    mainApplicationName = Property(str, lambda self: "Slicer")
    applicationVersion = Property(str, lambda self: "5.10.0")
    temporaryPath = Property(str, lambda self: self._temporary)
    slicerHome = Property(str, lambda self: self._temporary)
    slicerUserSettingsFilePath = Property(str, lambda self: f"{self._temporary}/Slicer.ini")
    extensionsInstallPath = Property(str, lambda self: self._temporary)
    defaultScenePath = Property(str, lambda self: self._temporary)
    documentationBaseUrl = Property(str, lambda self: "https://slicer.readthedocs.io/")
    majorVersion = Property(int, lambda self: 5)
    minorVersion = Property(int, lambda self: 10)
    revision = Property(str, lambda self: "0")

    def mrmlScene(self) -> Any:
        return self._scene

    def applicationLogic(self) -> Any:
        return self._logic

    def layoutManager(self) -> LayoutManager:
        return self._layouts

    def ioManager(self) -> IOManager:
        return self._io

    coreIOManager = ioManager

    def moduleManager(self) -> ModuleManager:
        return self._modules

    def mainWindow(self) -> qSlicerMainWindow:
        return self._window

    def setTestingEnabled(self, enabled: bool) -> None:
        self._testing = enabled

    def testingEnabled(self) -> bool:
        """False unless a test says otherwise: so messages are shown, and recorded by ``dialogs``."""
        return self._testing

    def startupEnvironment(self) -> Any:
        return QtCore.QProcessEnvironment.systemEnvironment()

    def processEvents(self, *_flags: Any) -> None:
        self._qt.processEvents()

    def setOverrideCursor(self, cursor: Any) -> None:
        self._qt.setOverrideCursor(QtGui.QCursor(cursor))

    def restoreOverrideCursor(self) -> None:
        self._qt.restoreOverrideCursor()

    def overrideCursor(self) -> Any:
        return self._qt.overrideCursor()

    def topLevelWidgets(self) -> Any:
        return self._qt.topLevelWidgets()

    def activeWindow(self) -> Any:
        return self._qt.activeWindow()

    def clipboard(self) -> Any:
        return self._qt.clipboard()

    def palette(self) -> Any:
        return self._qt.palette()

    def style(self) -> Any:
        return self._qt.style()

    def settings(self) -> QtCore.QSettings:
        return QtCore.QSettings()

    userSettings = settings
    revisionUserSettings = settings

    def translate(self, _context: str, text: str) -> str:
        return text

    def moduleDocumentationUrl(self, name: str) -> str:
        return self.documentationBaseUrl + name

    def isRenderPaused(self) -> bool:
        return False

    def setRenderPaused(self, _paused: bool) -> None:
        """Views paint when control returns to the event loop, so there is nothing to hold back."""

    def pauseRender(self) -> None:
        """See setRenderPaused."""

    def resumeRender(self) -> None:
        """See setRenderPaused."""

    def quit_for_test(self) -> None:
        """What modules see when the user quits (not in Slicer): the signals, then each module is unloaded."""
        self.lastWindowClosed.emit()
        self.aboutToQuit.emit()
        for name in self._modules.modulesNames():
            unload(name)
