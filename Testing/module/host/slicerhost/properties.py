"""Plain stored Qt properties for the stand-in widgets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PySide6.QtCore import Property


def stored(kind: Any, name: str, default: Any, changed: str | None = None) -> tuple[Property, Callable[..., None]]:
    """A property that keeps its value, and its setter.

    Args:
        kind: the type, or the name of Qt's ("QStringList").
        name: the property's name.
        default: value until it is set.
        changed: name of the method to call when the value has changed.
    """
    key = f"_{name}"

    def get(self: Any) -> Any:
        return self.__dict__.get(key, default)

    def put(self: Any, value: Any) -> None:
        if get(self) != value:
            self.__dict__[key] = value
            if changed:
                getattr(self, changed)()

    return Property(kind, get, put), put
