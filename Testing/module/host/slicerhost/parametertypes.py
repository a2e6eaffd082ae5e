"""How a parameter of each type is checked, written into a parameter node and read back; and the annotations."""

from __future__ import annotations

import enum
import pathlib
import types
import typing
from dataclasses import dataclass
from typing import Any

import slicer

_NOTHING = object()
_PATHS = (pathlib.Path, pathlib.PosixPath, pathlib.PurePath, pathlib.PurePosixPath)


class Validator:
    """Base of the annotations that refuse values."""

    def validate(self, value: Any) -> None:
        """Raise ValueError for a value that is not allowed."""


class WithinRange(Validator):
    """A number between two others, both included."""

    def __init__(self, minimum: float, maximum: float) -> None:
        self.minimum, self.maximum = minimum, maximum

    def validate(self, value: Any) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"Value must be within range [{self.minimum}, {self.maximum}], got {value}")


class Minimum(Validator):
    """A number of at least so much."""

    def __init__(self, minimum: float) -> None:
        self.minimum = minimum

    def validate(self, value: Any) -> None:
        if value < self.minimum:
            raise ValueError(f"Value must be at least {self.minimum}, got {value}")


class Maximum(Validator):
    """A number of at most so much."""

    def __init__(self, maximum: float) -> None:
        self.maximum = maximum

    def validate(self, value: Any) -> None:
        if value > self.maximum:
            raise ValueError(f"Value must be at most {self.maximum}, got {value}")


class Choice(Validator):
    """One of some values."""

    def __init__(self, choices: Any) -> None:
        self.choices = list(choices)

    def validate(self, value: Any) -> None:
        if value not in self.choices:
            raise ValueError(f"Value must be one of {self.choices}, got {value!r}")


@dataclass
class Default:
    """The value before anything else is set."""

    value: Any


@dataclass
class Decimals:
    """How many decimals the widget shows."""

    value: int


@dataclass
class SingleStep:
    """How far one step of the widget goes."""

    value: float


class ParameterInfo:
    """One parameter: its type, annotations and default.

    Raises:
        TypeError: a type that this stand-in does not know.
    """

    def __init__(self, name: str, annotated: Any, default: Any = _NOTHING) -> None:
        self.basename, self.unalteredType = name, annotated
        self.annotations: list[Any] = []
        if typing.get_origin(annotated) is typing.Annotated:
            annotated, *self.annotations = typing.get_args(annotated)
        self.types = _alternatives(annotated)
        self.type = self.types[0]
        self.is_node = all(issubclass(one, slicer.vtkMRMLNode) for one in self.types)
        known = (str, int, float, bool, *_PATHS)
        if not self.is_node and not (len(self.types) == 1 and (self.type in known or issubclass(self.type, enum.Enum))):
            raise TypeError(f"parameter {name}: the stand-in host does not know the type {annotated}")
        annotation = self.annotation(Default)
        self.default = annotation.value if annotation is not None else default
        if self.default is _NOTHING:
            self.default = self._empty()

    def annotation(self, kind: type) -> Any:
        """The first annotation of that class, or None."""
        return next((one for one in self.annotations if isinstance(one, kind)), None)

    def _empty(self) -> Any:
        if self.is_node:
            return None
        return next(iter(self.type)) if issubclass(self.type, enum.Enum) else self.type()

    def check(self, value: Any) -> None:
        """Refuse what the real wrapper refuses.

        Raises:
            ValueError: None where a value is needed, or a validator's objection.
            TypeError: another type.
        """
        if value is None:
            if not self.is_node:
                raise ValueError(f"{self.basename}: Value must not be None")
            return
        accepted = (int, float) if self.type is float else self.types
        if not isinstance(value, accepted):
            raise TypeError(f"{self.basename}: {accepted} wanted, got {type(value).__name__}")
        for one in self.annotations:
            if isinstance(one, Validator):
                one.validate(value)

    def is_in(self, node: Any) -> bool:
        """Whether the parameter node holds it already."""
        return bool(node.HasParameter(self.basename))

    def write(self, node: Any, value: Any) -> None:
        """Check, and store in the parameter node."""
        self.check(value)
        if self.is_node:
            node.SetParameter(self.basename, "")
            node.SetNodeReferenceID(self.basename, value.GetID() if value is not None else None)
        else:
            node.SetParameter(self.basename, value.name if isinstance(value, enum.Enum) else str(value))

    def read(self, node: Any) -> Any:
        """The stored value; the default is stored when there is none."""
        if not self.is_in(node):
            self.write(node, self.default)
        if self.is_node:
            return node.GetNodeReference(self.basename)
        text = node.GetParameter(self.basename)
        if self.type is bool:
            return text == "True"
        return self.type[text] if issubclass(self.type, enum.Enum) else self.type(text)


def _alternatives(annotated: Any) -> tuple[type, ...]:
    """The classes of a union without None, or the one class."""
    if typing.get_origin(annotated) in (typing.Union, types.UnionType):
        return tuple(one for one in typing.get_args(annotated) if one is not type(None))
    return (annotated,) if isinstance(annotated, type) else (object,)
