"""Signals in plain Python: the sender does not need to know its listeners."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


def ignore(value: Any) -> None:
    """Do nothing: the default listener."""


class Signal(Generic[T]):
    """Passes a value to all its listeners.

    Example:
        >>> loaded = Signal[str]()
        >>> loaded.connect(print)
        >>> loaded.emit("the result")
        the result
        >>> loaded.disconnect(print)
    """

    def __init__(self) -> None:
        self._listeners: list[Callable[[T], object]] = []

    def connect(self, listener: Callable[[T], object]) -> None:
        """Call ``listener`` from now on; connecting it twice has no effect."""
        if listener not in self._listeners:
            self._listeners.append(listener)

    def disconnect(self, listener: Callable[[T], object]) -> None:
        """Stop calling ``listener``; does nothing if it is not connected."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def emit(self, value: T) -> None:
        """Call all listeners in the order in which they were connected.

        Raises:
            Exception: the first error of a listener, after all were called; further ones go to ``sys.excepthook``.
        """
        first: Exception | None = None
        for listener in tuple(self._listeners):  # a listener may disconnect itself
            try:
                listener(value)
            except Exception as error:
                if first is None:
                    first = error
                else:
                    sys.excepthook(type(error), error, error.__traceback__)
        if first is not None:
            raise first
