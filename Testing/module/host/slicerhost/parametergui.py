"""Which widget can show which parameter, and how: the connectors that Slicer's documentation lists, by exact class."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PySide6 import QtWidgets

from slicerhost import ctkcontainers, ctknumbers, ctkpaths
from slicerhost.nodeselector import qMRMLNodeComboBox
from slicerhost.parametertypes import _PATHS, Choice, Decimals, Maximum, Minimum, ParameterInfo, SingleStep, WithinRange

INT_LIMIT = 2**31
BOUNDED = (QtWidgets.QSlider, ctknumbers.ctkSliderWidget, ctknumbers.ctkDoubleSlider)


@dataclass
class Connector:
    """One widget bound to one parameter."""

    widget: Any
    signal: str
    read: Callable[[], Any]
    write: Callable[[Any], None]
    slot: Callable[..., None] | None = None

    def attach(self, slot: Callable[..., None]) -> None:
        """Call the slot when the user changes the widget."""
        self.slot = slot
        if self.signal:
            self.widget.connect(self.signal, slot)

    def detach(self) -> None:
        """Undo ``attach``."""
        if self.signal and self.slot is not None:
            self.widget.disconnect(self.signal, self.slot)
        self.slot = None


def create_connector(widget: Any, info: ParameterInfo) -> Connector:
    """Bind a widget to a parameter.

    Raises:
        RuntimeError: Slicer has no connector for the two.
    """
    cls = type(widget)
    for make in (_boolean, _integer, _real, _combo, _text, _path, _node):
        connector = make(widget, cls, info)
        if connector is not None:
            return connector
    raise RuntimeError(f"Unable to create GUI connector from datatype '{info.unalteredType}' to widget type '{cls}'")


def _of_property(widget: Any, name: str, signal: str) -> Connector:
    return Connector(widget, signal, lambda: getattr(widget, name), lambda value: setattr(widget, name, value))


def _boolean(widget: Any, cls: type, info: ParameterInfo) -> Connector | None:
    if info.type is not bool or cls not in (QtWidgets.QCheckBox, ctkcontainers.ctkCheckBox, QtWidgets.QPushButton):
        return None
    if cls is QtWidgets.QPushButton:
        widget.checkable = True
    return _of_property(widget, "checked", "toggled(bool)")


def _integer(widget: Any, cls: type, info: ParameterInfo) -> Connector | None:
    if info.type is not int or cls not in (QtWidgets.QSlider, QtWidgets.QSpinBox):
        return None
    _set_range(widget, info, -INT_LIMIT, INT_LIMIT - 1)
    return _of_property(widget, "value", "valueChanged(int)")


def _real(widget: Any, cls: type, info: ParameterInfo) -> Connector | None:
    kinds = (
        QtWidgets.QDoubleSpinBox,
        ctknumbers.ctkDoubleSpinBox,
        ctknumbers.ctkSliderWidget,
        ctknumbers.ctkDoubleSlider,
    )
    if info.type is not float or cls not in kinds:
        return None
    decimals = info.annotation(Decimals)
    if decimals is not None:
        widget.decimals = decimals.value
    _set_range(widget, info, -math.inf, math.inf)
    return _of_property(widget, "value", "valueChanged(double)")


def _set_range(widget: Any, info: ParameterInfo, lowest: float, highest: float) -> None:
    step = info.annotation(SingleStep)
    if step is not None:
        widget.singleStep = step.value
    within = info.annotation(WithinRange)
    low, high = within or info.annotation(Minimum), within or info.annotation(Maximum)
    if isinstance(widget, BOUNDED) and (low is None or high is None):
        raise RuntimeError(f"Cannot have a connection to {type(widget).__name__} where {info.basename} is unbounded.")
    widget.setRange(low.minimum if low else lowest, high.maximum if high else highest)


def _combo(widget: Any, cls: type, info: ParameterInfo) -> Connector | None:
    if cls not in (QtWidgets.QComboBox, ctkcontainers.ctkComboBox):
        return None
    if issubclass(info.type, enum.Enum):
        values = list(info.type)
        label = getattr(info.type, "label", lambda one: one.name)
        labels = [label(one) for one in values]
    elif info.type in (int, float, str, bool):
        choice = info.annotation(Choice)
        if choice is None:
            raise RuntimeError("ComboBoxToStringableConnector requires the Choice annotation to be used.")
        values, labels = choice.choices, [str(one) for one in choice.choices]
    else:
        return None
    widget.clear()
    for text in labels:
        widget.addItem(text)

    def write(value: Any) -> None:
        widget.currentIndex = values.index(value)

    return Connector(widget, "currentIndexChanged(int)", lambda: values[widget.currentIndex], write)


def _text(widget: Any, cls: type, info: ParameterInfo) -> Connector | None:
    if info.type is not str:
        return None
    if cls is QtWidgets.QLineEdit:
        return _of_property(widget, "text", "textChanged(QString)")
    if cls is QtWidgets.QTextEdit:
        return Connector(widget, "textChanged()", widget.toPlainText, widget.setPlainText)
    return _of_property(widget, "text", "") if cls is QtWidgets.QLabel else None


def _path(widget: Any, cls: type, info: ParameterInfo) -> Connector | None:
    kinds = {ctkpaths.ctkPathLineEdit: "currentPath", ctkpaths.ctkDirectoryButton: "directory"}
    if cls not in kinds or info.type not in _PATHS:
        return None
    name, make = kinds[cls], info.type
    signal = f"{name}Changed(QString)"
    return Connector(
        widget, signal, lambda: make(getattr(widget, name)), lambda value: setattr(widget, name, str(value))
    )


def _node(widget: Any, cls: type, info: ParameterInfo) -> Connector | None:
    if cls is not qMRMLNodeComboBox or not info.is_node:
        return None
    widget.nodeTypes = [one.__name__ for one in info.types]
    return Connector(widget, "currentNodeChanged(vtkMRMLNode*)", widget.currentNode, widget.setCurrentNode)
