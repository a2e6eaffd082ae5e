"""3D Slicer's real scene and slice views without Qt, on the slicer-core package, rendered in software.

What it lacks of the application: the layout manager, IO manager and module widgets.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import slicer
import slicer.util
import vtk
import vtkmodules.vtkRenderingContextOpenGL2
import vtkmodules.vtkRenderingFreeType
import vtkmodules.vtkRenderingOpenGL2  # noqa: F401  the three register the factories that VTK draws with
from numpy.typing import NDArray
from vtkmodules.util.numpy_support import vtk_to_numpy

MODULE_LOGICS = {
    "Volumes": "vtkSlicerVolumesLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Texts": "vtkSlicerTextsLogic",
    "Colors": "vtkMRMLColorLogic",
}
MANAGERS = (
    "vtkMRMLCrosshairDisplayableManager",
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLOrientationMarkerDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLTransformsDisplayableManager2D",
    "vtkMRMLColorLegendDisplayableManager",
)
VIEWS = (("Red", "Axial"), ("Green", "Coronal"), ("Yellow", "Sagittal"))

_kept: list[Any] = []  # the application logic holds its module logics weakly


class Application(NamedTuple):
    """A scene and the logic that its slice views belong to."""

    scene: Any
    logic: Any


def make_application() -> Application:
    """A new ``slicer.mrmlScene`` with what Slicer puts there at its start: logics, colors, orientations, crosshair."""
    scene, logic = slicer.vtkMRMLScene(), slicer.vtkSlicerApplicationLogic()
    crosshair = slicer.vtkMRMLCrosshairNode()
    crosshair.SetCrosshairName("default")
    scene.AddNode(crosshair)
    logic.SetMRMLScene(scene)
    logic.SetSliceLogics(vtk.vtkCollection())
    logic.SetViewLogics(vtk.vtkCollection())
    for factory in (
        slicer.vtkMRMLSliceViewDisplayableManagerFactory,
        slicer.vtkMRMLThreeDViewDisplayableManagerFactory,
    ):
        factory.GetInstance().SetMRMLApplicationLogic(logic)
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
    for name, kind in MODULE_LOGICS.items():
        module = getattr(slicer, kind)()
        module.SetMRMLScene(scene)
        module.SetMRMLApplicationLogic(logic)
        logic.SetModuleLogic(name, module)
        _kept.append(module)
    if not scene.GetFirstNodeByClass("vtkMRMLColorTableNode"):
        _kept[-1].AddDefaultColorNodes()
    _add_file_access(scene, logic)
    slicer.mrmlScene = scene
    return Application(scene, logic)


def _add_file_access(scene: Any, logic: Any) -> None:
    """Cache and data managers, without which a .mrb cannot be read."""
    remote, manager = slicer.vtkMRMLRemoteIOLogic(), slicer.vtkDataIOManagerLogic()
    for module in (remote, manager):
        module.SetMRMLScene(scene)
        module.SetMRMLApplicationLogic(logic)
    cache = tempfile.TemporaryDirectory(prefix="slicer-cache-")
    remote.GetCacheManager().SetRemoteCacheDirectory(cache.name)
    manager.SetAndObserveDataIOManager(remote.GetDataIOManager())
    remote.AddDataIOToScene()
    _kept.extend([remote, manager, cache])


class SliceView:
    """One slice view: node, logic, displayable managers and an off-screen window.

    Attributes:
        node: vtkMRMLSliceNode.
        composite: its vtkMRMLSliceCompositeNode.
        logic: vtkMRMLSliceLogic.
        window: vtkRenderWindow.
    """

    def __init__(
        self, application: Application, name: str, orientation: str = "Axial", size: tuple[int, int] = (512, 512)
    ) -> None:
        scene, app = application
        self.renderer = vtk.vtkRenderer()
        self.renderer.GetActiveCamera().ParallelProjectionOn()
        self.window = vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(1)
        self.window.SetMultiSamples(0)  # as in the application
        self.window.SetSize(*size)
        self.window.AddRenderer(self.renderer)
        self.interactor = vtk.vtkRenderWindowInteractor()
        self.interactor.SetRenderWindow(self.window)
        self.interactor.Initialize()
        self.managers = self._managers(app)
        self._mapper, self._actor = vtk.vtkImageMapper(), vtk.vtkActor2D()
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        self._actor.SetMapper(self._mapper)
        self._actor.GetProperty().SetDisplayLocationToBackground()
        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLApplicationLogic(app)
        app.GetSliceLogics().AddItem(self.logic)
        self.logic.SetMRMLScene(scene)
        self.node = self._slice_node(scene, name, orientation)
        self.composite = self.logic.GetSliceCompositeNode()
        self.managers.SetMRMLDisplayableNode(self.node)
        self.resize(*size)

    def _slice_node(self, scene: Any, name: str, orientation: str) -> Any:
        """The node of that name as a layout made it, else a new one."""
        node = scene.GetSingletonNode(name, "vtkMRMLSliceNode")
        if node is not None:
            self.logic.SetSliceNode(node)
            return node
        node = self.logic.AddSliceNode(name)
        node.SetOrientation(orientation)
        node.SetMappedInLayout(1)
        return node

    def _managers(self, app: Any) -> Any:
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        factory.SetMRMLApplicationLogic(app)
        for name in MANAGERS:
            if not factory.IsDisplayableManagerRegistered(name):
                factory.RegisterDisplayableManager(name)
        group = slicer.vtkMRMLDisplayableManagerGroup()
        group.SetRenderer(self.renderer)
        group.Initialize(factory, self.renderer)
        return group

    def resize(self, width: int, height: int) -> None:
        """Window and slice of that many pixels."""
        self.window.SetSize(width, height)
        self.logic.ResizeSliceNode(width, height)

    def fit(self) -> None:
        """Show the whole background volume, at a slice through voxel centres."""
        self.logic.FitSliceToBackground()
        self.logic.SnapSliceOffsetToIJK()

    def render(self) -> None:
        """Bring the pipeline up to date and paint."""
        connection = self.logic.GetImageDataConnection()
        self._mapper.SetInputConnection(connection)
        if not self.renderer.HasViewProp(self._actor):
            self.renderer.AddViewProp(self._actor)
        self._actor.SetVisibility(bool(connection))
        self.window.Render()

    def picture(self, path: Path | str | None = None) -> NDArray[np.uint8]:
        """What is painted now, uint8 ``[row, column, RGB]``, the first row at the top; also as PNG at ``path``."""
        self.render()
        grabber = vtk.vtkWindowToImageFilter()
        grabber.SetInput(self.window)
        grabber.ReadFrontBufferOff()
        grabber.ShouldRerenderOff()
        grabber.Update()
        image = grabber.GetOutput()
        width, height, _ = image.GetDimensions()
        pixels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1)[::-1, :, :3].copy()
        if path is not None:
            from PIL import Image

            Image.fromarray(pixels).save(path)
        return pixels


def save_scene(path: Path | str) -> bool:
    """Write the scene as .mrb, as the application's Save does."""
    scene = slicer.mrmlScene
    for index in range(scene.GetNumberOfNodes()):
        node = scene.GetNthNode(index)
        if node.IsA("vtkMRMLStorableNode") and node.GetSaveWithScene() and not node.GetStorageNode():
            node.AddDefaultStorageNode()
    return bool(scene.WriteToMRB(str(path)))


def load_scene(path: Path | str) -> bool:
    """Clear the scene and read a .mrb."""
    slicer.mrmlScene.Clear(0)
    return bool(slicer.mrmlScene.ReadFromMRB(str(path), False))


def node_count() -> int:
    """Number of nodes in the scene."""
    return int(slicer.mrmlScene.GetNumberOfNodes())


def observation_count() -> int:
    """Number of observations that MRML nodes, logics and views have of one another."""
    return int(slicer.vtkEventBroker.GetInstance().GetNumberOfObservations())
