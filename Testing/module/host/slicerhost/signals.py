"""``object.connect("signal(arguments)", slot)`` as PythonQt does it: by the exact signature, extra arguments dropped.

An unknown signature is reported and gives False; an exception in a slot is reported and goes no further.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import shiboken6
from PySide6 import QtCore

from slicerhost.errorrecord import errors
from slicerhost.pythonqt import plain_get


class Connection(NamedTuple):
    """One connection made by signature."""

    signature: str
    slot: Callable[..., Any]
    signal: Any
    receiver: Callable[..., Any]


_connections: dict[int, list[Connection]] = {}
_aliases: dict[tuple[type, str], str] = {}


def alias(cls: type, signature: str, attribute: str) -> None:
    """Let ``signature``, whose argument types Qt does not know here, name the signal ``attribute`` of ``cls``."""
    _aliases[cls, signature] = attribute


def connect(thing: Any, signature: Any, receiver: Any, *more: Any) -> Any:
    """Connect a signal, named by its signature, to a callable or to a receiver's named slot."""
    if isinstance(signature, QtCore.QObject):  # PySide's own use of the static method, as in QTimer.singleShot
        return QtCore.QObject.connect(signature, receiver, *more)
    if not isinstance(signature, str):
        return QtCore.QObject.connect(thing, signature, receiver, *more)
    slot = getattr(receiver, more[0].split("(")[0]) if more else receiver
    signal = _signal(thing, signature)
    if signal is None:
        errors.report("connect", f"signal '{signature}' does not exist on {thing.metaObject().className()}")
        return False
    if not callable(slot):
        errors.report("connect", f"'{signature}': {slot!r} cannot be called")
        return False
    relay = _of_arity(guarded(slot), _arity(signature))
    signal.connect(relay)
    _made_by(thing).append(Connection(_short(signature), slot, signal, relay))
    return True


def disconnect(thing: Any, signature: str, receiver: Any = None, *more: Any) -> bool:
    """Undo ``connect``; without a receiver, every connection of that signal."""
    slot = getattr(receiver, more[0].split("(")[0]) if more else receiver
    made = _made_by(thing)
    going = [one for one in made if one.signature == _short(signature) and (slot is None or one.slot == slot)]
    for one in going:
        one.signal.disconnect(one.receiver)
        made.remove(one)
    return bool(going)


def connection_count(thing: Any) -> int:
    """Number of connections made by signature from this object."""
    return len(_made_by(thing))


def _made_by(thing: Any) -> list[Connection]:
    """Kept by address: the Python wrapper of an object can come and go."""
    address = shiboken6.getCppPointer(thing)[0]
    if address not in _connections:
        _connections[address] = []
        thing.destroyed.connect(lambda: _connections.pop(address, None))
    return _connections[address]


def _short(signature: str) -> str:
    return signature.replace(" ", "")


def _arity(signature: str) -> int:
    inside = signature[signature.index("(") + 1 : signature.rindex(")")].strip()
    return inside.count(",") + 1 if inside else 0


def _signal(thing: Any, signature: str) -> Any:
    for cls in type(thing).__mro__:
        if (cls, _short(signature)) in _aliases:
            return getattr(thing, _aliases[cls, _short(signature)])
    normal = bytes(QtCore.QMetaObject.normalizedSignature(signature).data()).decode()
    if "(" not in signature or thing.metaObject().indexOfSignal(normal) < 0:
        return None
    return plain_get(thing, normal.split("(")[0])


def accepted_arguments(slot: Callable[..., Any]) -> int | None:
    """How many arguments PythonQt passes to a slot; None for all."""
    function = slot.__func__ if inspect.ismethod(slot) else slot
    if not inspect.isfunction(function) or function.__code__.co_flags & inspect.CO_VARARGS:
        return None
    return function.__code__.co_argcount - inspect.ismethod(slot)


def guarded(slot: Callable[..., Any]) -> Callable[..., None]:
    """The slot with no more arguments than it takes, its exceptions reported."""
    count = accepted_arguments(slot)

    def call(*arguments: Any) -> None:
        try:
            slot(*arguments[:count])
        except Exception:
            errors.report_exception("slot")

    return call


def _of_arity(call: Callable[..., None], arity: int) -> Callable[..., None]:
    """PySide6 passes as many arguments as a slot's code declares; so declare what the signature says."""

    def none() -> None:
        call()

    def one(first: Any) -> None:
        call(first)

    def two(first: Any, second: Any) -> None:
        call(first, second)

    def three(first: Any, second: Any, third: Any) -> None:
        call(first, second, third)

    return (none, one, two, three)[arity]
