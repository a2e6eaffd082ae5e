"""Starting the stand-in host: ``boot``; back to an empty scene between tests: ``reset``."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
import types
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import slicer
import slicer.util
from PySide6 import QtCore, QtWidgets

from slicerhost import hierarchy, modules, parameternode, parametertypes, qtmodule, sampledata, scripted, widgetset
from slicerhost.dicomdatabase import DicomDatabase
from slicerhost.errorrecord import errors
from slicerhost.messages import dialogs

LOGICS = ("Volumes", "Transforms", "Tables", "Markups", "Segmentations", "SubjectHierarchy", "Texts", "Colors")
CORE_MODULES = (*LOGICS, "Data", "DICOM", "Models", "SampleData")


class CoreModule:
    """A module of the application: its name and its logic."""

    def __init__(self, name: str) -> None:
        self.name = self.title = name

    def logic(self) -> Any:
        if self.name == "Colors" and hasattr(slicer, "vtkSlicerColorLogic"):
            return slicer.vtkSlicerColorLogic()
        return slicer.app.applicationLogic().GetModuleLogic(self.name)


def boot() -> Any:
    """Start the host once per process and give ``slicer.app``."""
    if hasattr(slicer, "app"):
        return slicer.app
    _keep_none_alive()
    qtmodule.install()
    widgetset.install()
    qt_application = QtWidgets.QApplication.instance() or QtWidgets.QApplication(["slicerhost"])
    qt_application.setQuitOnLastWindowClosed(False)
    qt_application.setOrganizationName("NA-MIC")
    qt_application.setApplicationName("Slicer")
    _use_own_settings()
    _add_python_modules()
    from slicerhost.application import qSlicerApplication  # after the classes of Qt were changed

    application = qSlicerApplication(qt_application)
    for name in CORE_MODULES:
        setattr(slicer.modules, name.lower(), CoreModule(name))
    slicer.qSlicerApplication = qSlicerApplication
    slicer.dicomDatabase = DicomDatabase()
    hierarchy.watch(application.mrmlScene())
    errors.watch()
    application.mainWindow().show()
    application.processEvents()
    return application


def _keep_none_alive() -> None:
    """PySide6 6.12.0 takes a reference from None in every call without a result: a crash before Python 3.12."""
    if sys.version_info < (3, 12):
        ctypes.c_ssize_t.from_address(id(None)).value += 1 << 40


def _use_own_settings() -> None:
    QtCore.QSettings.setDefaultFormat(QtCore.QSettings.Format.IniFormat)
    folder = tempfile.mkdtemp(prefix="slicerhost-settings-")
    QtCore.QSettings.setPath(QtCore.QSettings.Format.IniFormat, QtCore.QSettings.Scope.UserScope, folder)


def _add_python_modules() -> None:
    """``slicer.modules`` and the modules that scripted modules import."""
    slicer.selfTests = {}
    slicer.moduleNames = types.SimpleNamespace()
    slicer.qSlicerScriptedLoadableModule = modules.qSlicerScriptedLoadableModule
    slicer.qSlicerScriptedLoadableModuleWidget = modules.qSlicerScriptedLoadableModuleWidget
    _add("slicer.modules").sampleDataSources = {}  # type: ignore[attr-defined]
    _add("slicer.i18n", tr=lambda text: text, translate=lambda _context, text: text)
    names = [name for name in vars(scripted) if name.startswith("ScriptedLoadableModule")]
    _add("slicer.ScriptedLoadableModule", **{name: getattr(scripted, name) for name in names}, __all__=names)
    public = (
        "Validator",
        "WithinRange",
        "Minimum",
        "Maximum",
        "Choice",
        "Default",
        "Decimals",
        "SingleStep",
        "ParameterInfo",
    )
    _add(
        "slicer.parameterNodeWrapper",
        **{name: getattr(parametertypes, name) for name in public},
        parameterNodeWrapper=parameternode.parameterNodeWrapper,
        isParameterNodeWrapper=parameternode.isParameterNodeWrapper,
        SlicerParameterNamePropertyName=parameternode.PROPERTY_NAME,
    )
    sys.modules["SampleData"] = sampledata


def _add(name: str, **contents: Any) -> types.ModuleType:
    module = types.ModuleType(name)
    vars(module).update(contents)
    sys.modules[name] = module
    setattr(slicer, name.rsplit(".", maxsplit=1)[-1], module)
    return module


def _take_back_scene() -> None:
    """Tests of the scene layer, run in the same process, have scenes of their own."""
    slicer.mrmlScene = slicer.app.mrmlScene()
    logic = slicer.app.applicationLogic()
    slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance().SetMRMLApplicationLogic(logic)
    slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance().SetMRMLApplicationLogic(logic)


def reset(*, is_empty: bool = False) -> None:
    """Close every module's panel, empty the scene, forget dialogs, errors and settings.

    Args:
        is_empty: this was done already; only what tests of other rooms have left meanwhile is taken away.
    """
    _take_back_scene()
    if is_empty:
        dialogs.clear()
        errors.clear()
        return
    for name in slicer.app.moduleManager().modulesNames():
        modules.close_module(name)
    slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    slicer.app.layoutManager().forget_layouts()
    slicer.mrmlScene.Clear(0)
    slicer.app.setTestingEnabled(False)
    slicer.modules.sampleDataSources.clear()
    slicer.dicomDatabase.clear()
    slicer.app.settings().clear()
    slicer.app.processEvents()
    dialogs.clear()
    errors.clear()
