"""The errors that a caller may want to tell apart, and how they are put into words.

An :class:`InputError` keeps apart what it is about, what was found, what was expected and what to do. It names
arguments as the library does. The command line and the panel of 3D Slicer name them in their own words: each has a
:class:`Wording`, and ``str(error)`` uses Python's.

Example:
    >>> remedy = ("use ", Argument("device", "cpu"))
    >>> error = InputError("no CUDA device works here", field="device", value="cuda", remedy=remedy)
    >>> str(error)
    "device='cuda': no CUDA device works here; use device='cpu'"
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, TypeAlias, TypeVar

Value: TypeAlias = "str | int | float | bool | None"
E = TypeVar("E", bound="InputError")


class ChangeMapError(Exception):
    """Base of every error that this library raises on purpose."""


class Cancelled(ChangeMapError):
    """The user, or a signal, asked the run to stop. Nothing half-written is left."""


@dataclass(frozen=True)
class Argument:
    """An argument or an option, called as the library calls it.

    Attributes:
        name: for example ``device``, ``config.lungs.spacing_mm`` or ``LungOptions.spacing_mm``.
        value: what was given for it; in a remedy, what to give. None for neither.
    """

    name: str
    value: Value = None


Subject: TypeAlias = "Argument | PurePath"
Remedy: TypeAlias = "str | tuple[str | Argument, ...]"


class Wording:
    """How the parts of an error are called; this class calls them as Python does."""

    def subject(self, argument: Argument) -> str:
        """``argument`` where the error is about it."""
        return argument.name if argument.value is None else f"{argument.name}={argument.value!r}"

    def mention(self, argument: Argument) -> str:
        """``argument`` in the midst of a sentence on what to do."""
        return self.subject(argument)

    def file(self, path: PurePath) -> str:
        """A file or folder."""
        return str(path)

    def expected(self, what: str) -> str:
        """What was expected."""
        return f"expected {what}"


PYTHON = Wording()


class InputError(ChangeMapError, ValueError):
    """A file or an argument cannot be used (command line: exit code 2).

    In words it is one line: ``field: found, expected ...; remedy``. Parts that are empty are left out.

    Attributes:
        where: what it is about, from the outside in: for example the argument ``config`` with its file, then the
            option in it. Empty where ``found`` says it all.
        found: what was found, as a phrase: ``one slice``, ``found 99``, ``exists already``.
        expected: what was expected; follows the word "expected".
        remedy: what to do, an imperative; text and the arguments that it names.
    """

    def __init__(
        self,
        found: str = "",
        *,
        field: str | Subject | tuple[str | Subject, ...] = (),
        value: object = None,
        expected: str = "",
        remedy: Remedy = "",
    ) -> None:
        """``field`` is the name of an argument or the path of a file, or several, from the outside in.

        Args:
            found: what was found, or the whole message.
            field: a text names an argument, and a path a file.
            value: what was given for the argument ``field``.
            expected: what was expected.
            remedy: what to do.
        """
        super().__init__(found)
        fields = field if isinstance(field, tuple) else (field,)
        self.where: tuple[Subject, ...] = tuple(Argument(f) if isinstance(f, str) else f for f in fields)
        if value is not None and self.where and isinstance(self.where[-1], Argument):
            self.where = (*self.where[:-1], Argument(self.where[-1].name, _plain(value)))
        self.found, self.expected = found, expected
        self.remedy: tuple[str | Argument, ...] = (remedy,) if isinstance(remedy, str) else remedy

    @property
    def field(self) -> str:
        """The argument or file that is at fault, in the library's terms; empty where the error names none."""
        if not self.where:
            return ""
        last = self.where[-1]
        return last.name if isinstance(last, Argument) else str(last)

    def __str__(self) -> str:
        return self.render()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.args, self.__dict__)

    def render(self, wording: Wording = PYTHON) -> str:
        """The error on one line, in the words of whoever shows it."""
        words, parent = [], ""
        for one in self.where:
            if isinstance(one, Argument):
                inner = one.name.startswith(f"{parent}.") if parent else False
                words.append(PYTHON.subject(_relative(one, parent)) if inner else wording.subject(one))
                parent = one.name
            else:
                words.append(wording.file(one))
        wanted = wording.expected(self.expected) if self.expected else ""
        text = ": ".join([*words, ", ".join(filter(None, (self.found, wanted)))])
        todo = "".join(part if isinstance(part, str) else wording.mention(part) for part in self.remedy)
        return _one_line("; ".join(filter(None, (text, todo))))

    # -- copies that say more -----------------------------------------------------------
    def at(self: E, *outer: str | Subject) -> E:
        """A copy that names ``outer`` first, such as the file that holds the fault; raise it ``from`` this one."""
        subjects = tuple(Argument(one) if isinstance(one, str) else one for one in outer)
        return self._with(where=self.where if self.where[: len(subjects)] == subjects else (*subjects, *self.where))

    def moved(self: E, *where: Subject) -> E:
        """A copy that is about ``where`` instead."""
        return self._with(where=where)

    def renaming(self: E, known: Mapping[PurePath, Subject]) -> E:
        """A copy that names other subjects instead of the files in ``known``."""
        return self._with(where=tuple(known.get(one, one) if isinstance(one, PurePath) else one for one in self.where))

    def with_remedy(self: E, *remedy: str | Argument) -> E:
        """A copy with more to say at the end."""
        return self._with(remedy=(*self.remedy, *remedy))

    def _with(self: E, **changes: Any) -> E:
        other = copy.copy(self)
        other.__dict__.update(changes)
        return other

    # -- JSON ---------------------------------------------------------------------------
    def to_json(self) -> dict[str, Any]:
        """The parts as JSON values, for another process."""
        return {
            "where": [_subject_json(one) for one in self.where],
            "found": self.found,
            "expected": self.expected,
            "remedy": [one if isinstance(one, str) else _subject_json(one) for one in self.remedy],
        }

    @classmethod
    def from_json(cls, values: Any) -> InputError | None:
        """The inverse of :meth:`to_json`; None for anything else."""
        try:
            where = tuple(_subject(one) for one in values["where"])
            remedy = tuple(one if isinstance(one, str) else _argument(one) for one in values["remedy"])
            found, expected = str(values["found"]), str(values["expected"])
        except (KeyError, TypeError, AttributeError):
            return None
        return InputError(found, field=where, expected=expected, remedy=remedy)


def _one_line(text: str) -> str:
    """``text`` on one line, without what a terminal cannot show: names and damaged headers are quoted in messages."""
    if text.isprintable():
        return text
    text = re.sub(r"\s*[\r\n]\s*", " ", text.strip())
    return "".join(sign if sign.isprintable() else " " if sign.isspace() else "?" for sign in text)


def printable(text: str) -> str:
    """``text`` on one line, with a question mark for every sign that a terminal cannot show."""
    return text if text.isprintable() else "".join(one if one.isprintable() else "?" for one in text)


def _plain(value: object) -> Value:
    """What JSON can hold of a value; of a path its text."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    return os.fspath(value) if isinstance(value, PurePath) else str(value)


def _relative(argument: Argument, parent: str) -> Argument:
    """``config.lungs.spacing_mm`` within ``config`` is ``lungs.spacing_mm``."""
    return Argument(argument.name[len(parent) + 1 :], argument.value)


def _restored(kind: type[E], arguments: Iterable[Any], state: dict[str, Any]) -> E:
    """An error as it was, for copies and pickles, whatever its class asks for."""
    error = kind.__new__(kind, *arguments)
    error.args = tuple(arguments)
    error.__dict__.update(state)
    return error


def _subject_json(one: Subject) -> dict[str, Any]:
    return {"argument": one.name, "value": one.value} if isinstance(one, Argument) else {"file": str(one)}


def _subject(values: Any) -> Subject:
    return Path(values["file"]) if "file" in values else _argument(values)


def _argument(values: Any) -> Argument:
    return Argument(str(values["argument"]), _plain(values["value"]))
