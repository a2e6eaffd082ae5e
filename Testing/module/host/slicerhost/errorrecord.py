"""What went wrong where no exception can reach the test: in slots, connections, observers and .ui files.

PythonQt prints such errors to the console and goes on. Here they are also recorded, and a test that leaves any fails.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import vtk


class Entry(NamedTuple):
    """One recorded error: where it arose ("slot", "connect", "ui", "vtk", "dialog", "thread") and its text."""

    kind: str
    text: str


class ErrorRecord:
    """The errors since the last ``clear``."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._window: Any = None

    def report(self, kind: str, text: str) -> None:
        """Add an error and print it."""
        self.entries.append(Entry(kind, text))
        sys.stderr.write(f"[slicerhost] {kind}: {text}\n")

    def report_exception(self, kind: str) -> None:
        """Add the exception that is being handled."""
        self.report(kind, traceback.format_exc())

    def clear(self) -> None:
        """Forget all."""
        self.entries.clear()

    @contextmanager
    def expected(self, fragment: str, kind: str | None = None) -> Iterator[None]:
        """The block must record at least one error that contains ``fragment``; those are taken off the record.

        Raises:
            AssertionError: there was none.
        """
        before = len(self.entries)
        yield
        new = self.entries[before:]
        hits = [entry for entry in new if fragment in entry.text and kind in (None, entry.kind)]
        assert hits, f"no error with '{fragment}' was recorded, only {new}"
        self.entries[before:] = [entry for entry in new if entry not in hits]

    def __str__(self) -> str:
        return "\n".join(f"{kind}: {text}" for kind, text in self.entries)

    def watch(self) -> None:
        """Record what Qt, VTK and threads would only print: exceptions in their callbacks, and VTK's errors."""
        sys.excepthook = self._hook
        threading.excepthook = lambda args: self._hook(args.exc_type, args.exc_value, args.exc_traceback, "thread")
        self._window = vtk.vtkOutputWindow.GetInstance()
        self._window.AddObserver(vtk.vtkCommand.ErrorEvent, self._on_vtk_error)

    def _hook(self, kind: Any, value: Any, trace: Any, where: str = "slot") -> None:
        self.report(where, "".join(traceback.format_exception(kind, value, trace)))

    def _on_vtk_error(self, _caller: Any, _event: str, text: str) -> None:
        self.report("vtk", text)

    _on_vtk_error.CallDataType = vtk.VTK_STRING  # type: ignore[attr-defined]


errors = ErrorRecord()
