"""Other processes: whether one is alive, ending it with its children, and a lock that lasts as long as its holder.

Process ids are reused, and a process that nobody waited for keeps its id after it has ended. A file lock is held
exactly as long as its holder lives, so where there is a lock, the lock decides. The Windows branches have not been
run. psutil is imported late: Slicer's process looks for jobs before the library's packages are installed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

POLL_S = 0.005

# between two short loops, threads of GNU's OpenMP (PyTorch's) and of OpenBLAS (NumPy's) wait by spinning, which takes
# the cores from everything else
SLEEPING_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_NUM_THREADS": "1"}

_locked: list[IO[bytes]] = []  # kept open as long as this process lives


def is_alive(process: int) -> bool:
    """Return whether a process with that id runs; True where that is unknown."""
    try:
        import psutil

        return bool(psutil.pid_exists(process))
    except (ImportError, OverflowError):  # unknown
        return True


def end_group(leader: int, *, force: bool) -> None:
    """End the process ``leader`` and its children; does nothing if it is gone.

    Args:
        leader: id of the leader of a process group (POSIX), or of the root of a process tree (Windows).
        force: kill them at once; otherwise they are asked to end (POSIX only, Windows has no such signal).
    """
    if sys.platform == "win32":
        if force:
            kill_tree(leader)
        return
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL if force else signal.SIGTERM)


def kill_tree(root: int) -> None:
    """Kill the process ``root`` and all its descendants.

    Unlike in :func:`end_group`, processes whose parent has ended are not found.
    """
    import psutil

    gone = (psutil.NoSuchProcess, psutil.AccessDenied)
    with suppress(*gone):
        top = psutil.Process(root)
        for process in (*top.children(recursive=True), top):
            with suppress(*gone):
                process.kill()


def lead_group() -> None:
    """Make this process the leader of its own process group, so that it can be ended with its children."""
    if sys.platform != "win32":
        with suppress(PermissionError):  # it is one already
            os.setsid()


def end_children(patience_s: float = 0.3) -> None:
    """End all descendants of this process; the last thing that a group leader does.

    Children that do not end when asked are killed, and this process with them, since it is in the same group.
    """
    if sys.platform == "win32" or not _has_children():
        return  # on Windows, the process that started this one ends the tree
    with suppress(ValueError):  # not in the main thread, where signal handlers cannot be set
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end_group(os.getpgrp(), force=False)
    deadline = time.monotonic() + patience_s
    while _has_children():
        if time.monotonic() > deadline:
            end_group(os.getpgrp(), force=True)
        time.sleep(POLL_S)


def _has_children() -> bool:
    """Return whether children are still running; reaps those that have ended."""
    if sys.platform != "win32":
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            return True
    return False


def lock_until_exit(path: Path, *, patience_s: float = 1.0) -> bool:
    """Lock the file at ``path`` until this process ends.

    Args:
        path: the lock file; created if missing.
        patience_s: how long to try. :func:`is_locked` takes the lock for a moment, so one attempt is not enough.

    Returns:
        False if another process held the lock all the time.

    Raises:
        OSError: the file cannot be created.
    """
    stream = path.open("ab")
    deadline = time.monotonic() + patience_s
    while not lock(stream.fileno()):
        if time.monotonic() > deadline:
            stream.close()
            return False
        time.sleep(POLL_S)
    _locked.append(stream)
    return True


@contextmanager
def hold_lock(path: Path) -> Iterator[bool]:
    """Hold the lock of the file at ``path`` inside the block; yields False if another process holds it.

    Raises:
        OSError: the file cannot be created.
    """
    with path.open("ab") as stream:
        yield lock(stream.fileno())


def is_locked(path: Path) -> bool:
    """Return whether a living process holds the lock at ``path``."""
    try:
        stream = path.open("r+b")
    except OSError:
        return False
    with stream:
        return not lock(stream.fileno())


def lock(descriptor: int, *, at: int = 0) -> bool:
    """Lock an open file until it is closed; return False if somebody else holds the lock.

    Where files cannot be locked, the lock counts as taken successfully.

    Args:
        descriptor: of the file, open for writing.
        at: the byte that is locked on Windows, where others cannot read it then.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, at, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a network folder without locks
        return True
    return True


@contextmanager
def uninterrupted(*, deferred: bool = False) -> Iterator[None]:
    """Keep Ctrl-C and SIGTERM from interrupting the block (in the main thread; others do not get signals).

    Args:
        deferred: a signal that arrived meanwhile takes effect after the block; otherwise it is forgotten.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []
    # a handler that was not set from Python, as a program that embeds it may have, could not be set again
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not None]
    before = {n: signal.signal(n, lambda number, _: waiting.append(number)) for n in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if deferred and waiting:
        signal.raise_signal(waiting[0])


def sleeping_threads() -> dict[str, str]:
    """Return the variables that let a process's idle threads sleep, without those that the user has set.

    NumPy and PyTorch read them when they are imported.
    """
    return {name: value for name, value in SLEEPING_THREADS.items() if name not in os.environ}
