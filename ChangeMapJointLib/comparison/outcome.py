"""How a background run ended, and the message for the user."""

from __future__ import annotations

import errno
import re
import signal
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.memory import is_out_of_memory

CANCELLED = "Cancelled; nothing was kept."
OWNER_GONE = "3D Slicer ended while the comparison was running; nothing was kept. Start it again."
OUT_OF_MEMORY = (
    "The comparison ran out of memory. Close other programs or scenes, or set a coarser registration grid "
    "(registration.working_mm), and try again."
)
KILLED = (
    "The comparison was killed by the system, most likely because the memory ran out. Close other programs or scenes, "
    "or set a coarser registration grid (registration.working_mm), and try again."
)
CRASHED = "The comparison crashed ({why}). Nothing was kept; the log shows where. Please report it."
NOT_STARTED = "The comparison could not be started: {why}"
SILENT = "The comparison ended without a result or a message (exit code {code}). See the log."
LAST_EVENTS = ("finished", "error", "cancelled", "fault")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) if hasattr(errno, "EDQUOT") else (errno.ENOSPC, errno.EFBIG)
# written by Python's fault handler: "Fatal Python error: Aborted", "Windows fatal exception: ..."
FATAL = re.compile(r"^(?:Fatal Python error|Windows fatal exception): (.+)$", re.MULTILINE)
# the worker reported a Python error: then the system did not kill it
PYTHON_ERROR = re.compile(r"^\w*(?:Error|Exception|Interrupt)\b", re.MULTILINE)
# written by Python, by C++ and by the C library (which then ends the process with code 127)
NO_MEMORY = re.compile(
    r"^(?:(?:[\w.]*[._])?(?:Array)?MemoryError\b|.*std::bad_alloc|(?:OSError: .*)?cannot allocate memory|"
    r"(?:RuntimeError: .*)?(?:can't|failed to) allocate memory)",
    re.MULTILINE | re.IGNORECASE,
)
CRASH_SIGNALS, SIGKILL = ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE"), 9
WINDOWS_CODES = {0xC0000005: "access violation", 0xC00000FD: "stack overflow", 0xC0000409: "fast fail"}
WINDOWS_NO_MEMORY = (0xC0000017, 0xC000012D)


@dataclass(frozen=True)
class End:
    """How a run ended.

    Attributes:
        state: ``finished``, ``failed`` or ``cancelled``.
        message: one or two sentences for the user.
        return_code: of the process; None if unknown.
        result: the run's folder if it finished; else None.
        log: file with everything that the worker printed, if it was kept.
        error: the input error that ended the run, so that a user interface can put it in its own words; None if the
            run ended for another reason.
    """

    state: str
    message: str
    return_code: int | None = None
    result: Path | None = None
    log: Path | None = None
    error: InputError | None = None


def disk_full(folder: Path) -> str:
    """Return the message for a full disk."""
    return f"The disk is full: {folder}. Free space there or choose another folder, and try again."


def explain_error(error: BaseException, folder: Path) -> str | None:
    """Return the message for an error of the machine (disk, memory, missing package), or None for any other error.

    Args:
        error: the error; its causes are searched, too.
        folder: where results are written.
    """
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in FULL:
            return disk_full(folder)
        if is_out_of_memory(cause):
            return OUT_OF_MEMORY
        if isinstance(cause, ModuleNotFoundError):
            return f"The Python package {cause.name} is missing; install it, then start again."
    return None


def explain_end(return_code: int | None, events: Iterable[Mapping[str, Any]], log: str) -> str:
    """Return the message for the end of a worker.

    The exit code alone is not enough: it may be that of the launcher through which Slicer starts Python.

    Args:
        return_code: of the process that was started; None if unknown.
        events: what the worker reported.
        log: text of the worker's log.
    """
    events = list(events)
    last = last_event(events)
    if last is not None:
        return str(last.get("message") or "Finished.")
    why = _crash_reason(return_code or 0, log)
    if NO_MEMORY.search(log) and why in (None, "Aborted", "SIGABRT"):  # C++ aborts where it cannot go on
        return OUT_OF_MEMORY
    if why:
        return CRASHED.format(why=why)
    if not events and not _killed(return_code or 0):
        lines = log.strip().splitlines() or [f"exit code {return_code}"]
        return NOT_STARTED.format(why=lines[-1])
    if not _killed(return_code or 0) and (return_code == 0 or PYTHON_ERROR.search(log)):
        return SILENT.format(code=return_code)
    return KILLED  # the launcher's exit code tells nothing, and the worker had no time to report


def _crash_reason(code: int, log: str) -> str | None:
    """Return why the process crashed, from the fault handler's output or the exit code; None if it did not."""
    fatal_errors = FATAL.findall(log)
    if fatal_errors:
        return str(fatal_errors[-1])
    names = {int(getattr(signal, name)): name for name in CRASH_SIGNALS if hasattr(signal, name)}
    return names.get(_signal(code)) or WINDOWS_CODES.get(code & 0xFFFFFFFF)


def _killed(code: int) -> bool:
    return _signal(code) == SIGKILL or code & 0xFFFFFFFF in WINDOWS_NO_MEMORY


def _signal(code: int) -> int:
    """Return the signal in an exit code, as Python (-9) or a shell (137) gives it; 0 if there is none."""
    return -code if -64 <= code < 0 else code - 128 if 128 < code < 192 else 0


def last_event(events: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the event that ended the run, or None."""
    final = [event for event in events if event.get("event") in LAST_EVENTS]
    return final[-1] if final else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__
