"""Options as frozen dataclasses, read from and written to plain JSON values."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from ChangeMapJointLib.core.errors import Argument, InputError, Subject

T = TypeVar("T")
Where: TypeAlias = "str | Subject | tuple[str | Subject, ...]"
_TYPE_NAMES = {int: "a whole number", bool: "true or false", str: "a text"}


def read_json(path: Path, where: Subject) -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        where: how errors name it, for example ``Argument("config", "options.json")``, or the path itself.

    Raises:
        InputError: the file cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", field=where, remedy="give a JSON file") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON ({error})", field=where, expected="an object with options") from error


def require(options: object, **rules: tuple[bool, str]) -> None:
    """Check the fields of an options dataclass.

    Args:
        options: the dataclass; the error names its class and the value.
        rules: for each field, whether its value is valid, and what was expected.

    Raises:
        InputError: names the first field with an invalid value.
    """
    for name, (valid, expected) in rules.items():
        if not valid:
            class_name, value = type(options).__name__, getattr(options, name)
            raise InputError(f"found {value!r}", field=f"{class_name}.{name}", expected=expected)


def within(value: float, low: float, high: float) -> bool:
    """Return whether ``value`` is in [low, high]; False for NaN."""
    return low <= value <= high


def from_mapping(kind: type[T], values: Mapping[str, Any], where: Where = "config", *, base: T | None = None) -> T:
    """Make an options dataclass from JSON values; options that are not given keep their defaults.

    Args:
        kind: a dataclass whose fields are numbers, strings, tuples of them or further dataclasses.
        values: names and values, as in JSON.
        where: how errors name the source: the name of the argument, or ``Argument("config", path)`` for a file.
        base: options that are not given, also nested ones, are taken from here; ``kind()`` by default.

    Raises:
        InputError: an unknown name, a value of the wrong type, or a value out of range.

    Examples:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Steps:
        ...     iterations: int = 50
        ...     step_mm: float = 1.0
        >>> from_mapping(Steps, {"iterations": 10})
        Steps(iterations=10, step_mm=1.0)
    """
    if not isinstance(values, Mapping):
        raise InputError(f"found {values!r}", field=where, expected="an object with names and values")
    hints = typing.get_type_hints(kind)
    known = [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
    unknown = [name for name in values if name not in known]
    if unknown:
        raise InputError(f"unknown option {unknown[0]!r}", field=where, expected=f"one of {', '.join(known)}")
    required = _required(kind)
    if base is None and not required:
        base = kind()
    missing = [name for name in required if name not in values]
    if base is None and missing:
        raise InputError(f"found no '{missing[0]}'", field=where, expected=", ".join(required))
    fields = {
        name: _value(hints[name], value, _inside(where, name), getattr(base, name, None))
        for name, value in values.items()
    }
    try:
        return kind(**fields) if base is None else dataclasses.replace(base, **fields)  # type: ignore[type-var]
    except InputError as error:  # a value out of range: the class names the field; say where it was given
        prefix = f"{kind.__name__}."
        if error.field.startswith(prefix):
            raise error.about(*_inside(where, error.field[len(prefix) :])) from error
        raise error.at(*_subjects(where)) from error


def _subjects(where: Where) -> tuple[Subject, ...]:
    parts = where if isinstance(where, tuple) else (where,)
    return tuple(Argument(part) if isinstance(part, str) else part for part in parts)


def _inside(where: Where, name: str) -> tuple[Subject, ...]:
    """Return the subjects for the option ``name``, or the entry ``[0]``, in ``where``."""
    *outer, last = _subjects(where)
    if not isinstance(last, Argument):
        return (*outer, last, Argument(name))
    inner = Argument(last.name + (name if name.startswith("[") else f".{name}"))
    return (*outer, inner) if last.value is None else (*outer, last, inner)


def _required(kind: type[Any]) -> list[str]:
    """Return the names of the fields without a default."""
    missing = dataclasses.MISSING
    return [f.name for f in dataclasses.fields(kind) if f.default is missing and f.default_factory is missing]


def to_mapping(options: Any) -> dict[str, Any]:
    """Return an options dataclass, nested ones included, as JSON values; the inverse of :func:`from_mapping`."""
    return {f.name: _plain(getattr(options, f.name)) for f in dataclasses.fields(options)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_mapping(value)
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def _value(hint: Any, value: Any, where: Where, base: Any = None) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return from_mapping(typing.cast("type[Any]", hint), value, where, base=base)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _value(next(a for a in arguments if a is not type(None)), value, where)
    if origin is typing.Literal:
        valid = value in arguments
        expected = " or ".join(repr(a) for a in arguments)
    elif origin is tuple:
        return _tuple(arguments, value, where)
    elif hint is float:
        valid, expected = isinstance(value, (int, float)) and not isinstance(value, bool), "a number"
        valid = valid and abs(value) < 1e30  # neither NaN nor infinite
        value = float(value) if valid else value
    else:
        valid, expected = (
            isinstance(value, hint) and (hint is bool or not isinstance(value, bool)),
            _TYPE_NAMES.get(hint, hint.__name__),
        )
    if not valid:
        raise InputError(f"found {value!r}", field=where, expected=expected)
    return value


def _tuple(arguments: tuple[Any, ...], value: Any, where: Where) -> tuple[Any, ...]:
    open_ended = len(arguments) == 2 and arguments[1] is Ellipsis
    if not isinstance(value, (list, tuple)) or (not open_ended and len(value) != len(arguments)):
        count = "any number of" if open_ended else str(len(arguments))
        raise InputError(f"found {value!r}", field=where, expected=f"a list of {count} values")
    hints = [arguments[0]] * len(value) if open_ended else arguments
    return tuple(_value(h, v, _inside(where, f"[{i}]")) for i, (h, v) in enumerate(zip(hints, value, strict=True)))
