"""Stand-ins for Slicer's qMRML widgets other than the node selector."""

from __future__ import annotations

from typing import Any

from PySide6 import QtWidgets
from PySide6.QtCore import Signal

from slicerhost import signals
from slicerhost.ctknumbers import ctkDoubleSpinBox, ctkRangeWidget, ctkSliderWidget
from slicerhost.properties import stored


class SceneHolder:
    """A widget that is given the scene."""

    _scene: Any = None

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        if scene is not self._scene:
            self._scene = scene
            if hasattr(self, "mrmlSceneChanged"):
                self.mrmlSceneChanged.emit(scene)


class qMRMLWidget(SceneHolder, QtWidgets.QWidget):
    """A widget that hands the scene to its children by its signal."""

    mrmlSceneChanged = Signal(object)


class qSlicerWidget(SceneHolder, QtWidgets.QWidget):
    """As qMRMLWidget, in Slicer's own library."""

    mrmlSceneChanged = Signal(object)


class qMRMLSliderWidget(SceneHolder, ctkSliderWidget):
    """A slider that can follow the scene's units."""

    quantity, setQuantity = stored(str, "quantity", "")
    unitAwareProperties = stored(int, "unitAwareProperties", 0)[0]


class qMRMLSpinBox(SceneHolder, ctkDoubleSpinBox):
    """A spin box that can follow the scene's units."""

    quantity, setQuantity = stored(str, "quantity", "")


class qMRMLRangeWidget(SceneHolder, ctkRangeWidget):
    """A range that can follow the scene's units."""

    quantity, setQuantity = stored(str, "quantity", "")


class qMRMLSubjectHierarchyTreeView(SceneHolder, QtWidgets.QTreeView):
    """The patients and their data; shows nothing here."""

    nodeTypes, setNodeTypes = stored("QStringList", "nodeTypes", [])


for _cls in (qMRMLWidget, qSlicerWidget):
    signals.alias(_cls, "mrmlSceneChanged(vtkMRMLScene*)", "mrmlSceneChanged")
