"""A small scripted module as Slicer's templates make them, to prove the stand-in host with."""
# ruff: noqa: F403, F405, PT009

from enum import Enum
from typing import Annotated

import numpy as np
import qt
import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import *
from slicer.util import VTKObservationMixin


class MiniChange(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Mini Change")
        self.parent.categories = ["Registration"]
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData():
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="Mini", sampleName="MiniPair", uris=["file:///nowhere.nrrd"], fileNames=["a.nrrd"], nodeNames=["A"]
    )


class Method(Enum):
    SUBTRACT = "subtract"
    ABSOLUTE = "absolute"

    def label(self):
        return _("Difference") if self is Method.SUBTRACT else _("Absolute difference")


@parameterNodeWrapper
class MiniChangeParameterNode:
    current: vtkMRMLScalarVolumeNode
    prior: vtkMRMLScalarVolumeNode
    changeMap: vtkMRMLScalarVolumeNode
    method: Method = Method.ABSOLUTE
    threshold: Annotated[float, WithinRange(0, 1)] = 0.3
    showMap: bool = True


class MiniChangeWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode = None
        self._guiTag = None

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/MiniChange.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = MiniChangeLogic()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.ui.applyButton.connect("clicked(bool)", self.onApply)
        self.ui.applyButton.toolTip = _("Compute the change map")
        self.shortcut = qt.QShortcut(qt.QKeySequence("Ctrl+M"), slicer.util.mainWindow())
        self.shortcut.connect("activated()", self.onShortcut)
        self.initializeParameterNode()

    def cleanup(self):
        self.setParameterNode(None)
        self.removeObservers()
        self.shortcut.setParent(None)
        self.shortcut.deleteLater()

    def enter(self):
        self.initializeParameterNode()

    def exit(self):
        self.setParameterNode(None)

    def onSceneStartClose(self, caller, event):
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event):
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self):
        self.setParameterNode(self.logic.getParameterNode())

    def setParameterNode(self, parameterNode):
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._guiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParameterNodeModified)
        self._parameterNode = parameterNode
        if self._parameterNode:
            self._guiTag = self._parameterNode.connectGui(self.ui)
            self.addObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParameterNodeModified)
            self.onParameterNodeModified()

    def onParameterNodeModified(self, caller=None, event=None):
        p = self._parameterNode
        self.ui.applyButton.enabled = bool(p.current and p.prior and p.current is not p.prior)
        if p.changeMap:
            self.logic.show(p.changeMap, p.threshold, p.showMap)
            self.ui.statusLabel.text = f"threshold {p.threshold:.2f}"

    def onShortcut(self):
        self._parameterNode.showMap = not self._parameterNode.showMap

    def onApply(self):
        with slicer.util.tryWithErrorDisplay(_("The change map failed."), waitCursor=True):
            p = self._parameterNode
            p.changeMap = self.logic.process(p.current, p.prior, p.method)
            slicer.util.setSliceViewerLayers(
                background=p.current, foreground=p.changeMap, foregroundOpacity=1, fit=True
            )


class MiniChangeLogic(ScriptedLoadableModuleLogic):
    def getParameterNode(self):
        return MiniChangeParameterNode(super().getParameterNode())

    def process(self, current, prior, method=Method.ABSOLUTE):
        a, b = (slicer.util.arrayFromVolume(node).astype(np.float32) for node in (current, prior))
        if a.shape != b.shape:
            raise ValueError("The two scans differ in size.")
        difference = (a - b) / 900.0
        if method is Method.ABSOLUTE:
            difference = np.abs(difference)
        matrix = vtk.vtkMatrix4x4()
        current.GetIJKToRASMatrix(matrix)
        node = slicer.util.addVolumeFromArray(np.clip(difference, -1, 1), ijkToRAS=matrix, name="Change map")
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeWarm1")
        display.AutoWindowLevelOff()
        display.SetWindowLevelMinMax(0, 1)
        return node

    def show(self, changeMap, threshold, visible):
        display = changeMap.GetDisplayNode()
        display.SetThreshold(threshold, 1.0)
        display.ApplyThresholdOn()
        slicer.util.setSliceViewerLayers(foregroundOpacity=1.0 if visible else 0.0)


class MiniChangeTest(ScriptedLoadableModuleTest):
    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        self.setUp()
        self.test_logic()

    def test_logic(self):
        prior = slicer.util.addVolumeFromArray(np.zeros((4, 5, 6), np.int16))
        current = slicer.util.addVolumeFromArray(np.full((4, 5, 6), 450, np.int16))
        changeMap = MiniChangeLogic().process(current, prior)
        self.assertAlmostEqual(float(slicer.util.arrayFromVolume(changeMap).mean()), 0.5)
        self.delayDisplay("passed")
