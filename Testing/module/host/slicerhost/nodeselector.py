"""qMRMLNodeComboBox: the drop-down list of the scene's nodes of some types."""

from __future__ import annotations

from typing import Any, ClassVar

import shiboken6
from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Property, Signal
from vtk import VTK_OBJECT

from slicerhost import signals
from slicerhost.properties import stored

CREATE, RENAME, DELETE = "Create new ", "Rename current ", "Delete current "


def _forget(observations: list[tuple[Any, int]]) -> None:
    """Remove observers and empty the list."""
    for scene, tag in observations:
        scene.RemoveObserver(tag)
    observations.clear()


class qMRMLSortFilterProxyModel(QtCore.QObject):
    """What a selector leaves out."""

    hiddenNodeIDs, setHiddenNodeIDs = stored("QStringList", "hiddenNodeIDs", [], "_tell")

    def _tell(self) -> None:
        self.parent()._refresh()


class qMRMLNodeComboBox(QtWidgets.QWidget):
    """Lists nodes, selects one, and creates or removes some."""

    node_changed = Signal(object)
    node_valid = Signal(bool)
    node_activated = Signal(object)
    node_added = Signal(object)
    node_added_by_user = Signal(object)
    currentNodeIDChanged = Signal(str)

    showHidden, setShowHidden = stored(bool, "showHidden", False, "_refresh")
    showChildNodeTypes, setShowChildNodeTypes = stored(bool, "showChildNodeTypes", True, "_refresh")
    noneEnabled, setNoneEnabled = stored(bool, "noneEnabled", False, "_refresh")
    addEnabled, setAddEnabled = stored(bool, "addEnabled", True, "_refresh")
    removeEnabled, setRemoveEnabled = stored(bool, "removeEnabled", True, "_refresh")
    editEnabled, setEditEnabled = stored(bool, "editEnabled", False, "_refresh")
    renameEnabled, setRenameEnabled = stored(bool, "renameEnabled", False, "_refresh")
    selectNodeUponCreation, setSelectNodeUponCreation = stored(bool, "selectNodeUponCreation", True)
    interactionNodeSingletonTag = stored(str, "interactionNodeSingletonTag", "")[0]
    baseName, setBaseName = stored(str, "baseName", "")
    noneDisplay, setNoneDisplay = stored(str, "noneDisplay", "None", "_refresh")
    nodeTypes, setNodeTypes = stored("QStringList", "nodeTypes", [], "_refresh")

    _ACTIONS: ClassVar = (("addEnabled", CREATE), ("renameEnabled", RENAME), ("removeEnabled", DELETE))

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._scene: Any = None
        self._filter = qMRMLSortFilterProxyModel(self)
        self._observations: list[tuple[Any, int]] = []
        self._current: Any = None
        self._entries: list[tuple[str, str]] = []
        self._attributes: list[tuple[str, str, Any]] = []
        self._list = QtWidgets.QComboBox(self)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._list)
        self._list.setSizeAdjustPolicy(QtWidgets.QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self._list.activated.connect(self._on_activated)
        observations = self._observations
        self.destroyed.connect(lambda: _forget(observations))  # a method would not be called any more
        self._refresh()

    def sortFilterProxyModel(self) -> qMRMLSortFilterProxyModel:
        return self._filter

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        if scene is self._scene:
            return
        _forget(self._observations)
        self._scene = scene
        if scene is not None:
            for event in (scene.EndCloseEvent, scene.EndImportEvent):
                self._observations.append((scene, scene.AddObserver(event, self._on_scene_changed)))
            for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent):
                self._observations.append((scene, scene.AddObserver(event, self._on_node)))
        self.setEnabled(scene is not None)
        self._refresh()

    def _on_scene_changed(self, _scene: Any, _event: str) -> None:
        if self._lives():
            self._refresh()

    def _lives(self) -> bool:
        """Whether Qt has not deleted the list; a selector without it observes the scene no longer."""
        if shiboken6.isValid(self.__dict__["_list"]):
            return True
        _forget(self.__dict__["_observations"])
        return False

    def _on_node(self, _scene: Any, _event: str, node: Any) -> None:
        if self._lives() and any(node.IsA(kind) for kind in self._kept("nodeTypes", ())):
            self._refresh()

    _on_node.CallDataType = VTK_OBJECT  # type: ignore[attr-defined]

    def _kept(self, name: str, default: Any) -> Any:
        """The value of a stored property, without the way of PythonQt, which every node of the scene would take."""
        return self.__dict__.get(f"_{name}", default)

    def _nodes(self) -> list[Any]:
        if self._scene is None:
            return []
        found: list[Any] = []
        for kind in self._kept("nodeTypes", ()):
            for index in range(self._scene.GetNumberOfNodesByClass(kind)):
                node = self._scene.GetNthNodeByClass(index, kind)
                if node not in found and self._is_listed(node, kind):
                    found.append(node)
        return found

    def _is_listed(self, node: Any, kind: str) -> bool:
        if node.GetHideFromEditors() and not self._kept("showHidden", False):
            return False
        if node.GetID() in self._filter.__dict__.get("_hiddenNodeIDs", ()):
            return False
        if not self._kept("showChildNodeTypes", True) and node.GetClassName() != kind:
            return False
        wanted = [(name, value) for cls, name, value in self._attributes if cls == kind]
        return all(
            node.GetAttribute(name) is not None and value in (None, node.GetAttribute(name)) for name, value in wanted
        )

    def _refresh(self) -> None:
        nodes, kinds, none = self._nodes(), self._kept("nodeTypes", ()), self._kept("noneEnabled", False)
        entries = [(self._kept("noneDisplay", "None"), "")] if none or not nodes else []
        entries += [(node.GetName() or "", node.GetID()) for node in nodes]
        kind = kinds[0].removeprefix("vtkMRML").removesuffix("Node") if kinds else ""
        entries += [(text + kind, text) for name, text in self._ACTIONS if self._kept(name, name != "renameEnabled")]
        if entries != self._entries:  # most nodes that come and go are not listed
            self._entries = entries
            self._list.clear()
            for text, data in entries:
                self._list.addItem(text, data)
        current = self._current if self._current in nodes else None
        if current is None and not none and nodes:
            current = nodes[0]
        self._select(current)

    def _select(self, node: Any) -> None:
        self._list.setCurrentIndex(self._list.findData(node.GetID() if node is not None else ""))
        if node is not self._current:
            self._current = node
            self.node_changed.emit(node)
            self.node_valid.emit(node is not None)
            self.currentNodeIDChanged.emit(node.GetID() or "" if node is not None else "")

    def _on_activated(self, index: int) -> None:
        chosen = self._list.itemData(index)
        if chosen == CREATE:
            self.addNode()
        elif chosen == DELETE:
            self.removeCurrentNode()
        elif chosen == RENAME:
            self._select(self._current)
        else:
            self._select(self._scene.GetNodeByID(chosen) if chosen else None)
        self.node_activated.emit(self._current)

    def currentNode(self) -> Any:
        return self._current

    def setCurrentNode(self, node: Any) -> None:
        if isinstance(node, str):
            node = self._scene.GetNodeByID(node) if node else None
        self._select(node if node in self._nodes() else None)

    def setCurrentNodeID(self, identity: str) -> None:
        self.setCurrentNode(identity or None)

    def setCurrentNodeIndex(self, index: int) -> None:
        self._select(self._nodes()[index])

    currentNodeID = Property(str, lambda self: self._current.GetID() if self._current else "", setCurrentNodeID)

    def nodeCount(self) -> int:
        return len(self._nodes())

    def nodeFromIndex(self, index: int) -> Any:
        return self._nodes()[index]

    def addNode(self, kind: str | None = None) -> Any:
        kind = kind or self.nodeTypes[0]
        node = self._scene.CreateNodeByClass(kind)
        node.UnRegister(None)
        node.SetName(self._scene.GenerateUniqueName(self.baseName or node.GetNodeTagName()))
        for cls, name, value in self._attributes:
            if cls == kind:
                node.SetAttribute(name, "" if value is None else value)
        self._scene.AddNode(node)
        if self.selectNodeUponCreation:
            self._select(node)
        self.node_added.emit(node)
        self.node_added_by_user.emit(node)
        return node

    def removeCurrentNode(self) -> None:
        if self._current is not None:
            self._scene.RemoveNode(self._current)

    def addAttribute(self, kind: str, name: str, value: Any = None) -> None:
        self._attributes.append((kind, name, None if value is None else str(value)))
        self._refresh()

    def removeAttribute(self, kind: str, name: str) -> None:
        self._attributes = [one for one in self._attributes if one[:2] != (kind, name)]
        self._refresh()


for _signature, _name in (
    ("currentNodeChanged(vtkMRMLNode*)", "node_changed"),
    ("currentNodeChanged(bool)", "node_valid"),
    ("nodeActivated(vtkMRMLNode*)", "node_activated"),
    ("nodeAdded(vtkMRMLNode*)", "node_added"),
    ("nodeAddedByUser(vtkMRMLNode*)", "node_added_by_user"),
):
    signals.alias(qMRMLNodeComboBox, _signature, _name)
