"""Other processes: does one live, end it with its children, and a lock that says so beyond doubt.

Numbers of processes are used again, and a process that nobody waited for keeps its number after its
end. A lock on a file is held exactly as long as its holder lives, so it decides where there is one.
The branches for Windows have not been run. psutil is imported late: Slicer's process looks for jobs
before the packages of the library are installed.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

LOOK_S = 0.005  # between two looks at what is about to end

_held: list[IO[bytes]] = []  # open as long as this process lives


def is_alive(process: int) -> bool:
    """Does a process of that number run, as far as can be seen?"""
    try:
        import psutil

        return bool(psutil.pid_exists(process))
    except (ImportError, OverflowError):  # nothing is concluded
        return True


def end_group(leader: int, *, force: bool) -> None:
    """End the process ``leader`` and its children; nothing happens where it is gone.

    Args:
        leader: of a process group (POSIX), or the root of a tree of processes (Windows).
        force: at once; else they are asked to (POSIX only, Windows has no such signal).
    """
    if sys.platform == "win32":
        if force:
            kill_tree(leader)
        return
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL if force else signal.SIGTERM)


def kill_tree(root: int) -> None:
    """Kill the process ``root``, its children and theirs; unlike a group, without those whose parent is gone."""
    import psutil

    gone = (psutil.NoSuchProcess, psutil.AccessDenied)
    with suppress(*gone):
        top = psutil.Process(root)
        for process in (*top.children(recursive=True), top):
            with suppress(*gone):
                process.kill()


def lead_group() -> None:
    """Make this process the leader of a group of its own, so that it can be ended with its children."""
    if sys.platform != "win32":
        with suppress(PermissionError):  # it is one already
            os.setsid()


def end_children(patience_s: float = 0.3) -> None:
    """End the children of this process and theirs; a group leader's last deed.

    Children that do not go when asked are killed, and this process, of the same group, with them.
    """
    if sys.platform == "win32" or not _has_children():
        return  # on Windows, who started this process ends the tree
    with suppress(ValueError):  # not the main thread: there, signals are only noted
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end_group(os.getpgrp(), force=False)
    deadline = time.monotonic() + patience_s
    while _has_children():
        if time.monotonic() > deadline:
            end_group(os.getpgrp(), force=True)
        time.sleep(LOOK_S)


def _has_children() -> bool:
    """Are there children that have not ended? Takes note of those that have."""
    if sys.platform != "win32":
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            return True
    return False


def hold(path: Path, *, patience_s: float = 1.0) -> bool:
    """Lock the file at ``path`` until this process ends; False when another one has it all the time.

    Args:
        path: is made where it is missing.
        patience_s: :func:`is_held` takes the lock for a moment, so one try is not enough.

    Raises:
        OSError: the file cannot be made.
    """
    stream = path.open("ab")
    deadline = time.monotonic() + patience_s
    while not _lock(stream):
        if time.monotonic() > deadline:
            stream.close()
            return False
        time.sleep(LOOK_S)
    _held.append(stream)
    return True


def is_held(path: Path) -> bool:
    """Does a living process hold the lock at ``path``?"""
    try:
        stream = path.open("r+b")
    except OSError:
        return False
    with stream:
        return not _lock(stream)


def _lock(stream: IO[bytes]) -> bool:
    """Take the lock; False when it is taken. Where files cannot be locked, it counts as free."""
    try:
        if sys.platform == "win32":
            import msvcrt

            stream.seek(0)
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a network folder without locks
        return True
    return True
