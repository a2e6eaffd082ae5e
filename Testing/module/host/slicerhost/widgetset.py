"""``import ctk``, and the qMRML widgets of ``slicer``: all stand-ins under the names that modules and .ui files use."""

from __future__ import annotations

import sys
import types

import slicer
from PySide6 import QtCore

from slicerhost import ctkcontainers, ctknumbers, ctkpaths, mrmlwidgets, nodeselector, uiloader


def install() -> types.ModuleType:
    """Make the module ``ctk``, add the qMRML classes to ``slicer``, and let .ui files name both."""
    ctk = types.ModuleType("ctk")
    for source in (ctkcontainers, ctknumbers, ctkpaths, mrmlwidgets, nodeselector):
        for name, cls in vars(source).items():
            if not (isinstance(cls, type) and issubclass(cls, QtCore.QObject)):
                continue
            if name.startswith("ctk"):
                setattr(ctk, name, cls)
            elif name.startswith(("qMRML", "qSlicer")):
                setattr(slicer, name, cls)
            else:
                continue
            uiloader.widget_classes[name] = cls
    sys.modules["ctk"] = ctk
    return ctk
