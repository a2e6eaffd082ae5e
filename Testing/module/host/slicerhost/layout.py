"""The layout manager: Slicer's real layout node and logic make the view nodes, and this places their widgets."""

from __future__ import annotations

import contextlib
import xml.etree.ElementTree as ET
from typing import Any

import slicer
import vtk
from headless import Application, SliceView
from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Property, Qt, Signal

from slicerhost.errorrecord import errors
from slicerhost.sliceviews import qMRMLSliceWidget

FOUR_UP = slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView
FIRST_SIZE = (320, 320)
LAST_OWN = slicer.vtkMRMLLayoutNode.SlicerLayoutUserView  # modules' layouts have higher numbers
EMPTY = '<layout type="vertical"/>'


class LayoutManager(QtCore.QObject):
    """``slicer.app.layoutManager()``. Only slice views are shown; others are gray with their name."""

    layoutChanged = Signal(int)

    def __init__(self, application: Application, viewport: QtWidgets.QWidget) -> None:
        super().__init__()
        self._application, self._viewport = application, viewport
        self._widgets: dict[str, qMRMLSliceWidget] = {}
        self._shown: QtWidgets.QWidget | None = None
        self._description = ""
        self._logic = slicer.vtkMRMLLayoutLogic()
        self._logic.SetMRMLApplicationLogic(application.logic)
        self._logic.SetMRMLScene(application.scene)
        self._node = self._logic.GetLayoutNode()
        self._layout = -1
        application.scene.AddObserver(slicer.vtkMRMLScene.NodeRemovedEvent, self._on_node_removed)
        application.scene.AddObserver(slicer.vtkMRMLScene.EndCloseEvent, self._on_layout_modified)
        self._node.AddObserver(vtk.vtkCommand.ModifiedEvent, self._on_layout_modified)
        self._node.SetViewArrangement(FOUR_UP)

    def layoutLogic(self) -> Any:
        return self._logic

    def viewport(self) -> QtWidgets.QWidget:
        return self._viewport

    def setLayout(self, layout: int) -> None:
        self._node.SetViewArrangement(layout)

    layout = Property(int, lambda self: self._node.GetViewArrangement(), setLayout)
    threeDViewCount = Property(int, lambda self: 0)
    tableViewCount = Property(int, lambda self: 0)
    plotViewCount = Property(int, lambda self: 0)

    def sliceViewNames(self) -> tuple[str, ...]:
        return tuple(self._widgets)

    def sliceWidget(self, name: str) -> qMRMLSliceWidget | None:
        return self._widgets.get(name)

    def mrmlSliceLogics(self) -> Any:
        return self._application.logic.GetSliceLogics()

    def resetSliceViews(self) -> None:
        for widget in self._widgets.values():
            widget.fitSliceToBackground()

    def resetThreeDViews(self) -> None:
        """There are none."""

    def forget_layouts(self) -> None:
        """Know only Slicer's own layouts, as a new application does (not in Slicer)."""
        for layout in self._node.GetLayoutIndices():
            if layout > LAST_OWN:
                self._node.SetLayoutDescription(layout, "")

    @property
    def shown_views(self) -> list[str]:
        """Names of the slice views in the present layout (not in Slicer)."""
        return [name for name, widget in self._widgets.items() if widget.mrmlSliceNode().IsMappedInLayout()]

    def paint_due(self, *names: str) -> None:
        """Draw these views if that was put off (not in Slicer)."""
        for name in set(names) & set(self._widgets):
            self._widgets[name].sliceView().paint_due()

    def _on_layout_modified(self, _caller: Any, _event: str) -> None:
        own = self._node.GetViewArrangement() <= LAST_OWN  # while the node is read, none of them is described
        description = self._node.GetCurrentLayoutDescription() or ("" if own else EMPTY)  # unknown here: gray
        if description and (description != self._description or self._views_changed(description)):
            self._description = description
            self._build(description)
        if self._node.GetViewArrangement() != self._layout:
            self._layout = self._node.GetViewArrangement()
            self.layoutChanged.emit(self._layout)

    def _views_changed(self, description: str) -> bool:
        """Whether a slice view of the layout has no widget, for example after a scene was closed."""
        names = {view.get("singletontag", "") for view in ET.fromstring(description).iter("view")}
        nodes = (self._application.scene.GetSingletonNode(name, "vtkMRMLSliceNode") for name in names)
        return any(node is not None and node.GetLayoutName() not in self._widgets for node in nodes)

    def _build(self, description: str) -> None:
        try:
            root = ET.fromstring(description)
        except ET.ParseError as error:
            errors.report("ui", f"layout {self._node.GetViewArrangement()}: {error}")
            return
        old = self._shown
        for widget in self._widgets.values():
            widget.hide()
            widget.setParent(None)
        self._shown = self._element(root)
        names = {view.get("singletontag") for view in root.iter("view")}
        for name, widget in self._widgets.items():
            widget.mrmlSliceNode().SetMappedInLayout(name in names)
        self._viewport.layout().addWidget(self._shown)
        if old is not None:
            old.hide()
            old.deleteLater()

    def _element(self, element: ET.Element) -> QtWidgets.QWidget:
        if element.tag == "view":
            return self._view(element)
        kind = element.get("type", "horizontal")
        items = list(element.findall("item"))
        children = [self._element(child) for item in items for child in item]
        if kind == "tab":
            return _tabs(children)
        if kind == "grid":
            return _grid(children, items)
        splitter = QtWidgets.QSplitter(Qt.Orientation.Vertical if kind == "vertical" else Qt.Orientation.Horizontal)
        splitter.setChildrenCollapsible(False)
        for child in children:
            splitter.addWidget(child)
        splitter.setSizes([int(item.get("splitSize", 0)) or 1000 // max(len(items), 1) for item in items])
        return splitter

    def _view(self, element: ET.Element) -> QtWidgets.QWidget:
        name = element.get("singletontag", "")
        if element.get("class") != "vtkMRMLSliceNode":
            label = QtWidgets.QLabel(f"{element.get('class', '').removeprefix('vtkMRML').removesuffix('Node')} {name}")
            label.setAlignment(Qt.AlignmentFlag.AlignCenter)
            label.setStyleSheet("background: #707080; color: white;")
            label.setSizePolicy(QtWidgets.QSizePolicy.Policy.Expanding, QtWidgets.QSizePolicy.Policy.Expanding)
            return label
        if name not in self._widgets:
            self._widgets[name] = qMRMLSliceWidget(SliceView(self._application, name, size=FIRST_SIZE))
        self._widgets[name].show()
        return self._widgets[name]

    def _on_node_removed(self, _scene: Any, _event: str, node: Any) -> None:
        name = node.GetLayoutName() if node.IsA("vtkMRMLSliceNode") else None
        widget = self._widgets.get(name or "")
        if widget is None or widget.mrmlSliceNode() is not node:
            return
        del self._widgets[name]
        widget.release()
        widget.hide()
        self.mrmlSliceLogics().RemoveItem(widget.sliceLogic())
        with contextlib.suppress(RuntimeError):  # the layout that held it may have gone already
            widget.setParent(None)
            widget.deleteLater()

    _on_node_removed.CallDataType = vtk.VTK_OBJECT  # type: ignore[attr-defined]


def _tabs(children: list[QtWidgets.QWidget]) -> QtWidgets.QWidget:
    tabs = QtWidgets.QTabWidget()
    for child in children:
        tabs.addTab(child, child.objectName)
    return tabs


def _grid(children: list[QtWidgets.QWidget], items: list[ET.Element]) -> QtWidgets.QWidget:
    frame = QtWidgets.QWidget()
    grid = QtWidgets.QGridLayout(frame)
    grid.setContentsMargins(0, 0, 0, 0)
    for child, item in zip(children, items, strict=True):
        place = [
            int(item.get(key, default)) for key, default in (("row", 0), ("column", 0), ("rowspan", 1), ("colspan", 1))
        ]
        grid.addWidget(child, *place)
    return frame
