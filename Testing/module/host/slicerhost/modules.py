"""Modules: loading a scripted module's file, opening its panel, leaving and reloading it as the application does."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import slicer
from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Property, Signal

from slicerhost.errorrecord import errors
from slicerhost.mrmlwidgets import qMRMLWidget
from slicerhost.properties import stored


class ModuleManager(QtCore.QObject):
    """``slicer.app.moduleManager()``, and its factory manager."""

    moduleAboutToBeUnloaded = Signal(str)
    moduleLoaded = Signal(str)

    def module(self, name: str) -> Any:
        return next((one for one in vars(slicer.modules).values() if getattr(one, "name", None) == name), None)

    def modulesNames(self) -> tuple[str, ...]:
        modules = (one for one in vars(slicer.modules).values() if isinstance(one, qSlicerScriptedLoadableModule))
        return tuple(one.name for one in modules)

    def factoryManager(self) -> ModuleManager:
        return self

    loadedModuleNames = modulesNames

    def isLoaded(self, name: str) -> bool:
        return self.module(name) is not None


class qSlicerScriptedLoadableModule(QtCore.QObject):
    """The module as the application knows it: ``parent`` in the module's own class."""

    title, setTitle = stored(str, "title", "")
    helpText, setHelpText = stored(str, "helpText", "")
    acknowledgementText, setAcknowledgementText = stored(str, "acknowledgementText", "")
    path, setPath = stored(str, "path", "")
    hidden, setHidden = stored(bool, "hidden", False)
    categories, setCategories = stored("QStringList", "categories", [])
    dependencies, setDependencies = stored("QStringList", "dependencies", [])
    contributors, setContributors = stored("QStringList", "contributors", [])
    associatedNodeTypes, setAssociatedNodeTypes = stored("QStringList", "associatedNodeTypes", [])
    icon, setIcon = stored(QtGui.QIcon, "icon", QtGui.QIcon())

    def __init__(self) -> None:
        super().__init__()
        self._widget: qSlicerScriptedLoadableModuleWidget | None = None

    def logic(self) -> None:
        """Scripted modules have none in C++."""

    def createNewWidgetRepresentation(self) -> qSlicerScriptedLoadableModuleWidget:
        return qSlicerScriptedLoadableModuleWidget(self)

    def widgetRepresentation(self) -> qSlicerScriptedLoadableModuleWidget:
        if self._widget is None:
            self._widget = self.createNewWidgetRepresentation()
            self._widget.create()
        return self._widget

    def forget_widget(self) -> None:
        """Delete the panel, so that it is made anew when it is opened (not in Slicer)."""
        if self._widget is not None:
            self._widget.deleteLater()
            self._widget = None


class qSlicerScriptedLoadableModuleWidget(qMRMLWidget):
    """The panel's outer widget: ``parent`` in the module's widget class."""

    def __init__(self, module: qSlicerScriptedLoadableModule) -> None:
        super().__init__()
        self._module, self._entered, self._python = module, False, None
        self.setObjectName(f"{module.name}ModuleWidget")
        QtWidgets.QVBoxLayout(self)

    isEntered = Property(bool, lambda self: self._entered)

    def self(self) -> Any:
        return self._python

    def create(self) -> None:
        """Make the module's widget and let it set itself up."""
        self.setMRMLScene(slicer.mrmlScene)
        name = self._module.name
        self._python = getattr(sys.modules[name], f"{name}Widget")(self)
        setattr(slicer.modules, f"{name}Widget", self._python)
        self._python.setup()

    def reload(self) -> None:
        """As the Reload button does, once the module's file was run again; ``enter`` is not called."""
        self.create()

    def enter(self) -> None:
        self._entered = True
        self._tell("enter")

    def exit(self) -> None:
        self._entered = False
        self._tell("exit")

    def _tell(self, method: str) -> None:
        try:
            getattr(self._python, method, lambda: None)()
        except Exception:
            errors.report_exception("slot")


def load_module(path: Path | str) -> types.ModuleType:
    """Load a scripted module's file as the application does at its start, and give its Python module."""
    path = Path(path).resolve()
    name = path.stem
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path}: not a Python file")
    python = importlib.util.module_from_spec(spec)
    sys.modules[name] = python
    spec.loader.exec_module(python)
    module = qSlicerScriptedLoadableModule()
    module.setObjectName(name)
    module.path = str(path)
    setattr(slicer.modules, name.lower(), module)
    setattr(slicer.modules, f"{name}Instance", getattr(python, name)(module))
    slicer.app.moduleManager().moduleLoaded.emit(name)
    slicer.app.startupCompleted.emit()
    slicer.app.disconnect("startupCompleted()")
    return python


_open: list[str] = []


def open_module(module: types.ModuleType | str) -> Any:
    """Select the module: its panel is made, shown and entered, the one before is left; gives the module's widget."""
    name = module if isinstance(module, str) else module.__name__
    leave_all()
    representation = slicer.app.moduleManager().module(name).widgetRepresentation()
    window = slicer.app.mainWindow()
    window.show_panel(representation)
    window.moduleSelector().show_selected(name)
    _open.append(name)
    representation.enter()
    return representation.self()


def leave_all() -> None:
    """Leave the module that is open."""
    for name in list(_open):
        leave_module(name)


def leave_module(module: types.ModuleType | str) -> None:
    """Another module is selected: the panel stays, but is left."""
    name = module if isinstance(module, str) else module.__name__
    if name in _open:
        _open.remove(name)
        slicer.app.moduleManager().module(name).widgetRepresentation().exit()
        slicer.app.mainWindow().show_panel(None)


def close_module(module: types.ModuleType | str) -> None:
    """Leave the module and take its panel away with ``cleanup``; the next ``open_module`` makes a new one."""
    name = module if isinstance(module, str) else module.__name__
    leave_module(name)
    unload(name)


def unload(name: str) -> None:
    """The application ends: the module's panel is cleaned up, as it is, and deleted."""
    slicer.app.moduleManager().moduleAboutToBeUnloaded.emit(name)
    if name in _open:
        _open.remove(name)
        slicer.app.mainWindow().show_panel(None)
    slicer.app.moduleManager().module(name).forget_widget()
    vars(slicer.modules).pop(f"{name}Widget", None)
    slicer.app.processEvents()
    # which an event loop would do; panels that live on would follow every node of the scene
    QtCore.QCoreApplication.sendPostedEvents(None, QtCore.QEvent.Type.DeferredDelete.value)
