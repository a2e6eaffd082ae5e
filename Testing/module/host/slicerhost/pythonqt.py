"""PySide6 objects that behave like PythonQt's: properties are attributes, typed, and nothing else can be set.

Slicer's Python sees Qt through PythonQt: ``button.text = "Apply"``, not ``setText``; a typing error in a property's
name raises; a float does not go into an int. PySide6 differs, so its attribute access is replaced here.
"""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import shiboken6
from PySide6 import QtCore, QtGui, QtNetwork, QtUiTools, QtWidgets

QT_MODULES = (QtCore, QtGui, QtWidgets, QtNetwork)
OWN_PACKAGE = __name__.split(".")[0]

plain_get = QtCore.QObject.__getattribute__
_properties: dict[type, dict[str, QtCore.QMetaProperty]] = {}
_methods: dict[str, Callable[..., Any]] = {}
_reading: set[tuple[int, str]] = set()
_quiet: list[bool] = []  # not empty: PySide6 itself sets attributes, and they are dropped


def declared_properties(cls: type) -> dict[str, QtCore.QMetaProperty]:
    """The Q_PROPERTYs of a class by name, without those whose name the class gives to a method of its own."""
    if cls not in _properties:
        meta = cls.staticMetaObject
        every = (meta.property(index) for index in range(meta.propertyCount()))
        _properties[cls] = {prop.name(): prop for prop in every if not _is_python_method(cls, prop.name())}
    return _properties[cls]


def _is_python_method(cls: type, name: str) -> bool:
    """Whether Qt would call this Python method instead of its own, as ``def sizeHint`` in a widget.

    Or whether PythonQt finds a static method before the property, as ``QTimer.singleShot``: it cannot be assigned to.
    """
    found = inspect.getattr_static(cls, name, None)
    return inspect.isfunction(found) or isinstance(found, staticmethod)


def is_native(cls: type) -> bool:
    """Whether the class stands for a C++ class (of Qt or of Slicer), not for one written in the module's Python."""
    return cls.__module__.split(".")[0] in ("PySide6", OWN_PACKAGE)


def is_dynamic_property(thing: QtCore.QObject, name: str) -> bool:
    """Whether the property was added to this object at run time, for example by a .ui file."""
    return name.encode() in [bytes(other.data()) for other in QtCore.QObject.dynamicPropertyNames(thing)]


@contextmanager
def attributes_dropped() -> Iterator[None]:
    """While QUiLoader makes children attributes of the form, which PythonQt does not do."""
    _quiet.append(True)
    try:
        yield
    finally:
        _quiet.pop()


def get_attribute(thing: Any, name: str, plain: Callable[[Any, str], Any] = plain_get) -> Any:
    """A method of PythonQt, else a property's value, else the Python attribute."""
    if name[0] == "_":
        return plain(thing, name)
    if name in _methods:
        return types.MethodType(_methods[name], thing)
    if name == "name":
        name = "objectName"
    if name in declared_properties(type(thing)) and (id(thing), name) not in _reading:
        return _read_property(thing, name)
    try:
        return plain(thing, name)
    except AttributeError:
        if is_dynamic_property(thing, name):
            return as_pythonqt(QtCore.QObject.property(thing, name))
        raise


def _read_property(thing: QtCore.QObject, name: str) -> Any:
    """The value; meanwhile PySide6, which looks for a Python method of that name, sees the plain attribute."""
    key = (id(thing), name)
    _reading.add(key)
    try:
        return as_pythonqt(QtCore.QObject.property(thing, name))
    finally:
        _reading.discard(key)


def as_pythonqt(value: Any) -> Any:
    """Lists of Qt are tuples in PythonQt."""
    return tuple(value) if isinstance(value, list) else value


def set_attribute(thing: Any, name: str, value: Any) -> None:
    """Set a property after PythonQt's rules on types; a new attribute only on classes written in Python."""
    prop = declared_properties(type(thing)).get("objectName" if name == "name" else name)
    if prop is not None:
        if not prop.isWritable():
            raise AttributeError(f"Property '{name}' of {type(thing).__name__} object is not writable")
        QtCore.QObject.setProperty(thing, prop.name(), as_property_type(value, prop.typeName(), name))
    elif name[0] != "_" and is_dynamic_property(thing, name):
        QtCore.QObject.setProperty(thing, name, value)
    elif _quiet and name[0] != "_" and isinstance(value, QtCore.QObject):
        return
    elif is_native(type(thing)) and not _called_by_host():
        kind = type(thing).__name__
        raise AttributeError(
            f"'{name}' does not exist on {kind} and creating new attributes on C++ objects is not allowed"
        )
    else:
        _set_python_attribute(thing, name, value)


def _set_python_attribute(thing: Any, name: str, value: Any) -> None:
    """As ``object.__setattr__``, which refuses PySide6's classes once theirs was replaced."""
    descriptor = _descriptor(type(thing), name)
    if descriptor is not None:
        descriptor.__set__(thing, value)
    else:
        vars(thing)[name] = value


@cache
def _descriptor(cls: type, name: str) -> Any:
    """What a class, as it was first seen, has under this name to set an attribute; None without."""
    found = inspect.getattr_static(cls, name, None)
    return found if hasattr(found, "__set__") else None


def _called_by_host() -> bool:
    return str(sys._getframe(2).f_globals.get("__name__", "")).split(".")[0] == OWN_PACKAGE


def as_property_type(value: Any, kind: str, name: str) -> Any:
    """The value as the property's C++ type.

    Raises:
        AttributeError: PythonQt would refuse it.
    """
    accepted = {"int": int, "bool": int, "double": (float, int)}.get(kind)
    if accepted is not None and not isinstance(value, accepted):
        raise AttributeError(
            f"Property '{name}' of type '{kind}' does not accept an object of type {type(value).__name__} ({value!r})"
        )
    if kind == "QString":
        return "" if value is None else str(value)
    if kind == "double":
        return float(value)
    if kind == "QStringList":
        return list(value)
    return value


def install(methods: dict[str, Callable[..., Any]]) -> None:
    """Give every Qt class PythonQt's attribute access, and the methods that PythonQt adds to each object."""
    _methods.update(methods)
    _methods["className"] = lambda thing: thing.metaObject().className()
    _methods["delete"] = shiboken6.delete
    for module in (*QT_MODULES, QtUiTools):
        for cls in list(vars(module).values()):
            if isinstance(cls, type) and issubclass(cls, QtCore.QObject):
                cls.__setattr__ = set_attribute
                own = cls.__dict__.get("__getattribute__")  # QFile, QProcess: one name for a static and a plain method
                if own is not None and own is not get_attribute:
                    cls.__getattribute__ = _wrapped(own)


def _wrapped(own: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    return lambda thing, name: get_attribute(thing, name, own)
