"""The errors that a caller may want to tell apart, and how they are worded.

An :class:`InputError` stores its subject, what was found, what was expected and what to do as separate parts. It names
arguments as the library does. The command line and the Slicer panel each have their own :class:`Wording`;
``str(error)`` uses Python's.

Examples:
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
    """The user or a signal stopped the run. Nothing half-written is left behind."""


class Stopped(Cancelled):
    """Work was stopped that the same command continues. The text says so, and what is finished already."""


@dataclass(frozen=True)
class Argument:
    """An argument or an option, by the name that the library uses.

    Attributes:
        name: for example ``device``, ``config.lungs.spacing_mm`` or ``LungOptions.spacing_mm``.
        value: the value that was given; in a remedy, the value to give. None to leave it out.
    """

    name: str
    value: Value = None


Subject: TypeAlias = "Argument | PurePath"
Remedy: TypeAlias = "str | tuple[str | Argument, ...]"


class Wording:
    """How the parts of an error are worded. This class words them for Python users."""

    def subject(self, argument: Argument) -> str:
        """Return the words for ``argument`` as the subject of the error."""
        return argument.name if argument.value is None else f"{argument.name}={argument.value!r}"

    def mention(self, argument: Argument) -> str:
        """Return the words for ``argument`` within a remedy."""
        return self.subject(argument)

    def file(self, path: PurePath) -> str:
        """Return the words for a file or folder."""
        return str(path)

    def expected(self, what: str) -> str:
        """Return the words for what was expected."""
        return f"expected {what}"


PYTHON = Wording()


class InputError(ChangeMapError, ValueError):
    """A file or an argument cannot be used (command line: exit code 2).

    The message is one line: ``field: found, expected ...; remedy``. Empty parts are left out.

    Attributes:
        subjects: the file or argument at fault, from the outside in: for example the argument ``config`` with its
            file, then the option in it. Empty where ``found`` says it all.
        found: what was found, as a phrase: ``one slice``, ``found 99``, ``exists already``.
        expected: what was expected; follows the word "expected" in the message.
        remedy: what to do, in the imperative: text and the arguments that it names.
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
        """Store the parts of the message.

        Args:
            found: what was found, or the whole message.
            field: the name of an argument (a string) or a file (a path); several, from the outside in, as a tuple.
            value: what was given for the argument ``field``.
            expected: what was expected.
            remedy: what to do.
        """
        super().__init__(found)
        fields = field if isinstance(field, tuple) else (field,)
        self.subjects: tuple[Subject, ...] = tuple(Argument(f) if isinstance(f, str) else f for f in fields)
        if value is not None and self.subjects and isinstance(self.subjects[-1], Argument):
            self.subjects = (*self.subjects[:-1], Argument(self.subjects[-1].name, _plain(value)))
        self.found, self.expected = found, expected
        self.remedy: tuple[str | Argument, ...] = (remedy,) if isinstance(remedy, str) else remedy

    @property
    def field(self) -> str:
        """The argument or file at fault, by the library's name; empty where the error names none."""
        if not self.subjects:
            return ""
        last = self.subjects[-1]
        return last.name if isinstance(last, Argument) else str(last)

    def __str__(self) -> str:
        return self.render()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__)

    def render(self, wording: Wording = PYTHON) -> str:
        """Return the error on one line, in the words of ``wording``."""
        names, parent = [], ""
        for subject in self.subjects:
            if isinstance(subject, Argument):
                nested = subject.name.startswith(f"{parent}.") if parent else False
                names.append(PYTHON.subject(_relative(subject, parent)) if nested else wording.subject(subject))
                parent = subject.name
            else:
                names.append(wording.file(subject))
        expected = wording.expected(self.expected) if self.expected else ""
        problem = ": ".join([*names, ", ".join(filter(None, (self.found, expected)))])
        remedy = "".join(part if isinstance(part, str) else wording.mention(part) for part in self.remedy)
        return _one_line("; ".join(filter(None, (problem, remedy))))

    # -- modified copies -----------------------------------------------------------
    def at(self: E, *outer: str | Subject) -> E:
        """Return a copy that names ``outer`` first, such as the file at fault; raise it ``from`` this one."""
        added = tuple(Argument(name) if isinstance(name, str) else name for name in outer)
        if self.subjects[: len(added)] == added:
            return self._with(subjects=self.subjects)
        return self._with(subjects=(*added, *self.subjects))

    def about(self: E, *subjects: Subject) -> E:
        """Return a copy whose subjects are ``subjects`` instead."""
        return self._with(subjects=subjects)

    def with_subjects(self: E, replacements: Mapping[PurePath, Subject]) -> E:
        """Return a copy in which the files in ``replacements`` are replaced by the subjects given there."""
        subjects = [replacements.get(s, s) if isinstance(s, PurePath) else s for s in self.subjects]
        return self._with(subjects=tuple(subjects))

    def with_remedy(self: E, *remedy: str | Argument) -> E:
        """Return a copy with ``remedy`` appended to its remedy."""
        return self._with(remedy=(*self.remedy, *remedy))

    def _with(self: E, **changes: Any) -> E:
        changed = copy.copy(self)
        changed.__dict__.update(changes)
        return changed

    # -- JSON ---------------------------------------------------------------------------
    def to_json(self) -> dict[str, Any]:
        """Return the parts as JSON values, for another process."""
        return {
            "where": [_subject_json(subject) for subject in self.subjects],
            "found": self.found,
            "expected": self.expected,
            "remedy": [part if isinstance(part, str) else _subject_json(part) for part in self.remedy],
        }

    @classmethod
    def from_json(cls, values: Any) -> InputError | None:
        """Return the error that :meth:`to_json` wrote; None where ``values`` is anything else."""
        try:
            subjects = tuple(_subject(entry) for entry in values["where"])
            remedy = tuple(part if isinstance(part, str) else _argument(part) for part in values["remedy"])
            found, expected = str(values["found"]), str(values["expected"])
        except (KeyError, TypeError, AttributeError):
            return None
        return InputError(found, field=subjects, expected=expected, remedy=remedy)


def _one_line(text: str) -> str:
    """Return ``text`` on one line without unprintable characters: messages quote file names and damaged headers."""
    if text.isprintable():
        return text
    text = re.sub(r"\s*[\r\n]\s*", " ", text.strip())
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)


def printable(text: str) -> str:
    """Return ``text`` with a question mark for every unprintable character, line breaks included."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def _plain(value: object) -> Value:
    """Return ``value`` as a JSON value: a path, or anything else that JSON has no type for, as text."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    return os.fspath(value) if isinstance(value, PurePath) else str(value)


def _relative(argument: Argument, parent: str) -> Argument:
    """Name an argument relative to its parent: ``config.lungs.spacing_mm`` in ``config`` is ``lungs.spacing_mm``."""
    return Argument(argument.name[len(parent) + 1 :], argument.value)


def _restore(kind: type[E], arguments: Iterable[Any], state: dict[str, Any]) -> E:
    """Rebuild an error for copies and pickles without calling its constructor, whose arguments vary by class."""
    error = kind.__new__(kind, *arguments)
    error.args = tuple(arguments)
    error.__dict__.update(state)
    return error


def _subject_json(subject: Subject) -> dict[str, Any]:
    if isinstance(subject, Argument):
        return {"argument": subject.name, "value": subject.value}
    return {"file": str(subject)}


def _subject(values: Any) -> Subject:
    return Path(values["file"]) if "file" in values else _argument(values)


def _argument(values: Any) -> Argument:
    return Argument(str(values["argument"]), _plain(values["value"]))
