"""How a background run ended, in words for the person who waits for it."""

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
CRASHED = "The comparison crashed ({why}). Nothing was kept; the log says where. Please report it."
NOT_STARTED = "The comparison could not be started: {why}"
SILENT = "The comparison ended without a result or a reason (exit code {code}). Look into the log."
LAST_EVENTS = ("finished", "error", "cancelled", "fault")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) if hasattr(errno, "EDQUOT") else (errno.ENOSPC, errno.EFBIG)
# what the interpreter's fault handler writes: "Fatal Python error: Aborted", "Windows fatal exception: ..."
FATAL = re.compile(r"^(?:Fatal Python error|Windows fatal exception): (.+)$", re.MULTILINE)
# an error of its own: then it was not the system that ended it
LAST_WORDS = re.compile(r"^\w*(?:Error|Exception|Interrupt)\b", re.MULTILINE)
CRASH_SIGNALS, SIGKILL = ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE"), 9
WINDOWS_CODES = {0xC0000005: "access violation", 0xC00000FD: "stack overflow", 0xC0000409: "fast fail"}
WINDOWS_NO_MEMORY = (0xC0000017, 0xC000012D)


@dataclass(frozen=True)
class End:
    """How a run ended.

    Attributes:
        state: ``finished``, ``failed`` or ``cancelled``.
        message: one or two sentences.
        return_code: of the process; None where it is not known.
        result: the run's folder, when finished.
        log: file with everything that the worker said, where it was kept.
        error: what is wrong with an input or an argument, for whoever calls them by other names; None where the end
            has another reason.
    """

    state: str
    message: str
    return_code: int | None = None
    result: Path | None = None
    log: Path | None = None
    error: InputError | None = None


def disk_full(folder: Path) -> str:
    """What to say when ``folder`` takes no more."""
    return f"The disk is full: {folder} takes no more. Free space there or choose another folder, and try again."


def explain_error(error: BaseException, folder: Path) -> str | None:
    """Words for an error that has to do with the machine, or None for any other.

    Args:
        error: it and what caused it are looked at.
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
    """Words for how a worker ended.

    The exit code alone does not tell: the launcher through which Slicer starts Python has one of its own.

    Args:
        return_code: of the process that was started; None where it is not known.
        events: what the worker reported.
        log: text of its log.
    """
    seen = list(events)
    last = last_event(seen)
    if last is not None:
        return str(last.get("message") or "Finished.")
    why = _crash(return_code or 0, log)
    if why:
        return CRASHED.format(why=why)
    if not seen and not _killed(return_code or 0):
        lines = log.strip().splitlines() or [f"exit code {return_code}"]
        return NOT_STARTED.format(why=lines[-1])
    if not _killed(return_code or 0) and (return_code == 0 or LAST_WORDS.search(log)):
        return SILENT.format(code=return_code)
    return KILLED  # the launcher's code says nothing, and the worker was not given time for a word


def _crash(code: int, log: str) -> str | None:
    """What crashed it, from the fault handler's words or the exit code."""
    found = FATAL.findall(log)
    if found:
        return str(found[-1])
    names = {int(getattr(signal, name)): name for name in CRASH_SIGNALS if hasattr(signal, name)}
    return names.get(_signal(code)) or WINDOWS_CODES.get(code & 0xFFFFFFFF)


def _killed(code: int) -> bool:
    return _signal(code) == SIGKILL or code & 0xFFFFFFFF in WINDOWS_NO_MEMORY


def _signal(code: int) -> int:
    """The signal of an exit code as Python gives it (-9) or as shells do (137); 0 for none."""
    return -code if -64 <= code < 0 else code - 128 if 128 < code < 192 else 0


def last_event(events: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The event that ends a run, where there was one."""
    found = [event for event in events if event.get("event") in LAST_EVENTS]
    return found[-1] if found else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    next_one: BaseException | None = error
    while next_one is not None and id(next_one) not in seen:
        seen.add(id(next_one))
        yield next_one
        next_one = next_one.__cause__ or next_one.__context__
