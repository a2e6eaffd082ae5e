"""``slicer.parameterNodeWrapper``: a class of typed parameters kept in a parameter node and bound to widgets.

As the real one, any change of the node writes all connected widgets again.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

import vtk
from PySide6 import QtWidgets

from slicerhost.parametergui import Connector, create_connector
from slicerhost.parametertypes import ParameterInfo

PROPERTY_NAME = "SlicerParameterName"


class _Wrapper:
    """What the decorator adds to a class."""

    allParameters: typing.ClassVar[dict[str, ParameterInfo]]

    def __init__(self, parameterNode: Any, prefix: str | None = None) -> None:
        self.parameterNode = parameterNode
        self._connected: dict[int, tuple[dict[str, Connector], int]] = {}
        self._next_tag = 0
        self._updating = False
        for info in self.allParameters.values():
            if not info.is_in(parameterNode):
                info.write(parameterNode, info.default)

    def _info(self, name: str) -> ParameterInfo:
        if name not in self.allParameters:
            raise ValueError(f"Cannot find a param with the given name: {name}; found {list(self.allParameters)}")
        return self.allParameters[name]

    def getValue(self, name: str) -> Any:
        return self._info(name).read(self.parameterNode)

    def setValue(self, name: str, value: Any) -> None:
        self._info(name).write(self.parameterNode, value)

    def default(self, name: str) -> Any:
        return self._info(name).default

    def isCached(self, name: str) -> bool:
        """All types known here are cached in Slicer; here none is, which only costs time."""
        return bool(self._info(name))

    def dataType(self, name: str) -> Any:
        return self._info(name).unalteredType

    def connectGui(self, gui: Any) -> int:
        widgets = gui.findChildren(QtWidgets.QWidget) if isinstance(gui, QtWidgets.QWidget) else vars(gui).values()
        named = [(widget.property(PROPERTY_NAME), widget) for widget in widgets]
        return self.connectParametersToGui({name: widget for name, widget in named if name})

    def connectParametersToGui(self, mapping: dict[str, Any]) -> int:
        connectors = {name: create_connector(widget, self._info(name)) for name, widget in mapping.items()}
        for name, connector in connectors.items():
            connector.write(self.getValue(name))
            connector.attach(self._slot(name, connector))
        observer = self.AddObserver(vtk.vtkCommand.ModifiedEvent, self._on_modified)
        self._next_tag += 1
        self._connected[self._next_tag] = (connectors, observer)
        return self._next_tag

    def disconnectGui(self, tag: int) -> None:
        connectors, observer = self._connected.pop(tag, ({}, None))
        for connector in connectors.values():
            connector.detach()
        if observer is not None:
            self.RemoveObserver(observer)

    def _slot(self, name: str, connector: Connector) -> Callable[..., None]:
        def changed(*_value: Any) -> None:
            if not self._updating:
                modifying = self.StartModify()
                try:
                    self.setValue(name, connector.read())
                finally:
                    self.EndModify(modifying)

        return changed

    def _on_modified(self, _caller: Any, _event: str) -> None:
        if self._updating:
            return
        self._updating = True
        try:
            for connectors, _ in list(self._connected.values()):
                for name, connector in connectors.items():
                    connector.write(self.getValue(name))
        finally:
            self._updating = False

    def StartModify(self) -> int:
        return self.parameterNode.StartModify()

    def EndModify(self, modifying: int) -> None:
        self.parameterNode.EndModify(modifying)

    def Modified(self) -> None:
        self.parameterNode.Modified()

    def AddObserver(self, event: Any, callback: Any, priority: float = 0.0) -> int:
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:
        self.parameterNode.RemoveObserver(tag)


def parameterNodeWrapper(cls: type | None = None) -> Any:
    """Class decorator: each annotated name becomes a parameter."""
    if cls is None:
        return parameterNodeWrapper
    hints = typing.get_type_hints(cls, include_extras=True)
    values = {name: (getattr(cls, name),) for name in hints if hasattr(cls, name)}
    infos = {name: ParameterInfo(name, hint, *values.get(name, ())) for name, hint in hints.items()}
    for name in infos:
        if hasattr(_Wrapper, name):
            raise ValueError(f"Cannot use reserved name '{name}' in a parameterNodeWrapper")
        setattr(cls, name, _property(name))
    added = {
        name: value for name, value in vars(_Wrapper).items() if name not in ("__dict__", "__weakref__", "__doc__")
    }
    for name, value in {**added, "allParameters": infos, "_is_parameter_node_wrapper": True}.items():
        if name not in ("__module__", "__qualname__", "__annotations__"):
            setattr(cls, name, value)
    return cls


def isParameterNodeWrapper(thing: Any) -> bool:
    """Whether a class or object was made by the decorator."""
    return getattr(thing, "_is_parameter_node_wrapper", False)


def _property(name: str) -> property:
    return property(lambda self: self.getValue(name), lambda self, value: self.setValue(name, value))
