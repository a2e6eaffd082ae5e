"""QUiLoader that makes the stand-in widgets and reports classes, properties and connections that do not exist."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

from PySide6 import QtCore, QtUiTools, QtWidgets

from slicerhost import pythonqt, signals
from slicerhost.errorrecord import errors

widget_classes: dict[str, type] = {}
_kept: dict[int, list[Any]] = {}  # Python parts of a form's widgets, which Qt alone would not keep


def widget_class(name: str) -> type | None:
    """The class that a .ui file calls by this name."""
    return widget_classes.get(name) or getattr(QtWidgets, name, None)


class UiLoader(QtUiTools.QUiLoader):
    """``qt.QUiLoader``."""

    def __init__(self, parent: QtCore.QObject | None = None) -> None:
        super().__init__(parent)
        self.__dict__["_made"] = []

    def createWidget(self, name: str, parent: Any = None, object_name: str = "") -> Any:
        """Called by Qt for every widget of the file."""
        cls = widget_class(name)
        if cls is None:
            if name != "Line":
                errors.report("ui", f"unknown widget class {name} ({object_name})")
            return super().createWidget(name if name == "Line" else "QWidget", parent, object_name)
        if cls is QtWidgets.QWidget:
            return super().createWidget(name, parent, object_name)
        try:
            widget = cls(parent) if parent is not None else cls()
        except Exception:  # Qt would go on without the widget
            errors.report_exception("ui")
            raise
        widget.setObjectName(object_name)
        self.__dict__["_made"].append(widget)
        return widget

    def load(self, device: Any, parent: Any = None) -> Any:
        """The form, checked and connected."""
        root = ET.fromstring(bytes(device.readAll().data()))
        _check_properties(root)
        _number_flags(root)
        connections = _take_connections(root)
        buffer = QtCore.QBuffer()
        buffer.setData(ET.tostring(root))
        buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
        self.__dict__["_made"] = []
        with pythonqt.attributes_dropped():
            form = super().load(buffer, parent)
        key = id(form)
        _kept[key] = self.__dict__["_made"]
        form.destroyed.connect(lambda: _kept.pop(key, None))
        for connection in connections:
            _make_connection(form, *connection)
        return form


def _check_properties(root: ET.Element) -> None:
    for widget in root.iter("widget"):
        cls = widget_class(widget.get("class", ""))
        if cls is None:
            continue
        for prop in widget.findall("property"):
            if prop.get("stdset") != "0" and prop.get("name") not in pythonqt.declared_properties(cls):
                errors.report("ui", f"{widget.get('class')} {widget.get('name')}: no property '{prop.get('name')}'")


def _number_flags(root: ET.Element) -> None:
    """Flags of a stand-in's own kind as a number; Qt looks up only those of real classes."""
    for widget in root.iter("widget"):
        for flags in widget.iterfind("property/set"):
            names = [one.split("::") for one in (flags.text or "").split("|")]
            cls = widget_class(names[0][0])
            known = getattr(cls, "FLAGS", None) if cls is not None else None
            if known is not None:
                flags.tag, flags.text = "number", str(sum(known[name] for _cls, name in names))


def _take_connections(root: ET.Element) -> list[list[str]]:
    """Sender, signal, receiver and slot of each connection, which Qt could not make between stand-ins."""
    found = []
    section = root.find("connections")
    for connection in list(section) if section is not None else []:
        found.append([connection.findtext(tag, "") for tag in ("sender", "signal", "receiver", "slot")])
        section.remove(connection)
    return found


def _make_connection(form: Any, sender: str, signal: str, receiver: str, slot: str) -> None:
    def named(name: str) -> Any:
        return form if name == form.objectName else form.findChild(QtCore.QObject, name)

    source, target = named(sender), named(receiver)
    method = getattr(target, slot.split("(", maxsplit=1)[0], None)
    if source is None or method is None:
        errors.report("ui", f"connection {sender}.{signal} -> {receiver}.{slot} cannot be made")
        return
    signals.connect(source, signal, method)
