"""Write the folder of a run: it appears under its name only when it is complete."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ChangeMapJointLib.comparison.outcome import FULL
from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.core.process import is_alive, uninterrupted
from ChangeMapJointLib.io import run_files
from ChangeMapJointLib.io.sources import reason_of

_FOLDERS = threading.RLock()  # held while folders of this process are made, cleaned up or renamed
_in_use: set[str] = set()  # names of the working folders of this process
REPLACE = ("give another folder, or ", Argument("overwrite", True), " to replace it")


def check_no_input(path: Path, scan: Path) -> None:
    """Refuse to write ``path`` over a scan, or into the folder of one.

    Raises:
        InputError: ``path`` is the scan, or lies in it.
    """
    target, source = path.resolve(), scan.resolve()
    if target == source or (source.is_dir() and source in target.parents):
        raise InputError(f"would be written over the scan {scan}", field=path, remedy="give another file")


def check_output(out: Path, inputs: list[Path], *, overwrite: bool) -> None:
    """Check the output folder before any work is done, so that nothing of the user's can be destroyed.

    Args:
        out: the folder to make.
        inputs: files and folders that the run reads.
        overwrite: whether an earlier run's folder may be replaced.

    Raises:
        InputError: ``out`` exists and ``overwrite`` is False, is not the folder of a run, is or lies in an input,
            contains an input, or cannot be written.
    """
    if not writable_name(out):
        raise InputError(
            "the name is not UTF-8 text",
            field="out",
            value=str(out).encode("utf-8", "backslashreplace").decode(),
            remedy="give another folder",
        )
    try:
        _check(out, inputs, overwrite=overwrite)
    except (OSError, RuntimeError) as error:  # no permission, a loop of links, a name too long
        raise InputError(
            f"cannot be used ({reason_of(error)})", field="out", value=out, remedy="give another folder"
        ) from error


def writable_name(path: Path) -> bool:
    """Return whether a file can be written under that name: ITK ends the process at a name that is not UTF-8."""
    try:
        return b"\0" not in str(path).encode()
    except UnicodeEncodeError:
        return False


def _check(out: Path, inputs: list[Path], *, overwrite: bool) -> None:
    target = out.resolve()
    if not target.name:
        raise InputError("has no name", field="out", value=out, remedy="give the name of a new folder")
    for path in inputs:
        source = path.resolve()
        if target == source or (source.is_dir() and source in target.parents):
            raise InputError(f"lies in the input {path}", field="out", value=out, remedy="give a folder outside of it")
        if target in source.parents:
            raise InputError(f"contains the input {path}", field="out", value=out, remedy="give another folder")
    check_replaceable(out, target, overwrite=overwrite)
    parent = next(p for p in target.parents if p.exists())
    if not parent.is_dir():
        raise InputError(f"{parent} is a file", field="out", value=out, expected="a folder", remedy="give another one")
    reason = why_not_writable(parent)
    if reason is not None:
        raise InputError(
            f"cannot write to {parent} ({reason_of(reason)})", field="out", value=out, remedy=remedy(reason)
        )
    target.with_name(working_prefix(target) + "12345678.partial").exists()  # OSError where the name is too long


def why_not_writable(folder: Path) -> OSError | None:
    """Return why no file can be made in ``folder``, or None. It tries, since permission bits are not enough."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error


def remedy(error: OSError) -> str:
    """Return what the user can do if a folder cannot be written."""
    if error.errno in FULL:
        return "free space there or give another folder"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) or isinstance(error, PermissionError):
        return "give a folder that you may write to"
    return "give another folder"


def check_replaceable(out: Path, target: Path, *, overwrite: bool) -> None:
    """Check that ``target`` does not exist, or that it is an earlier run and nothing else and may be replaced.

    Args:
        out: the folder as the user gave it, for messages.
        target: the same, resolved.
        overwrite: whether an earlier run may be replaced.

    Raises:
        InputError: it is a file, it exists and ``overwrite`` is False, or it holds other files than those of a run.
    """
    if not target.exists():
        return
    if not target.is_dir():
        raise InputError(
            "is a file", field="out", value=out, expected="the name of a new folder", remedy="give another one"
        )
    if not overwrite:
        raise InputError("exists already", field="out", value=out, remedy=REPLACE)
    names = run_files.names_in(target)
    if names and (names - run_files.REPLACEABLE or not is_run(target)):
        raise InputError(
            "holds other files than those of a run, and is not replaced",
            field="out",
            value=out,
            remedy="give another folder",
        )


def is_run(folder: Path) -> bool:
    """Return whether ``folder`` holds the ``run.json`` of a run."""
    try:
        return str(json.loads((folder / run_files.RUN).read_text("utf-8"))["schema"]).startswith(run_files.SCHEMA_NAME)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


@contextmanager
def run_folder(out: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside ``out``; rename it to ``out`` if the block succeeds, else remove it.

    With ``overwrite``, an earlier run under that name is replaced only when the new one is complete.

    Raises:
        InputError: the folder cannot be made, the disk is full, or ``out`` was created by something else meanwhile.
    """
    target = out.resolve()
    new_parents = _make_parents(target.parent)
    working = None
    try:
        with _FOLDERS:
            clean_up_run(target)
            working = Path(tempfile.mkdtemp(prefix=working_prefix(target), suffix=".partial", dir=target.parent))
            _in_use.add(working.name)
        working.chmod(0o777 & ~_umask())
        yield working
        check_replaceable(out, target, overwrite=overwrite)
        with _FOLDERS, uninterrupted():
            _swap(working, target, overwrite=overwrite)
    except BaseException as error:
        if working is not None:
            shutil.rmtree(working, ignore_errors=True)
        for folder in reversed(new_parents):  # rmdir keeps those that are no longer empty
            with suppress(OSError):
                folder.rmdir()
        cause = _write_error(error, working)
        if cause is not None:
            raise _input_error(out, cause) from error
        raise
    finally:
        if working is not None:
            _in_use.discard(working.name)


def _write_error(error: BaseException, working: Path | None) -> OSError | None:
    """Return the OSError of the output folder that ended a run, or None if something else did."""
    if isinstance(error, OSError):
        return _without_traceback(error)
    if working is None or not isinstance(error, InputError) or not isinstance(error.__cause__, OSError):
        return None
    is_inside = any(isinstance(path, Path) and working in path.parents for path in error.subjects)
    return error.__cause__ if is_inside else None


def _without_traceback(error: OSError) -> OSError:
    """Return the error of the system, where pydicom has put one of its own round it, with a traceback as its text."""
    cause = error
    while cause.strerror is None and isinstance(cause.__cause__, OSError):
        cause = cause.__cause__
    return cause


def _input_error(out: Path, error: OSError) -> InputError:
    """Return the InputError to raise when ``error`` ended the writing of ``out``."""
    problem, advice = f"cannot be written ({error.strerror or error})", remedy(error)
    if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
        problem, advice = "another run has written it meanwhile, and that one stays", "give another folder"
    return InputError(problem, field="out", value=out, remedy=advice)


def working_prefix(target: Path) -> str:
    """Return the prefix of this process's temporary folders for ``target``."""
    return f".{target.name}.{socket.gethostname()[:40]}.{os.getpid()}."


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _make_parents(folder: Path) -> list[Path]:
    missing = [p for p in [folder, *folder.parents] if not p.exists()][::-1]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make {folder} ({error.strerror})", field="out", remedy="give another folder"
        ) from error
    return missing


def _swap(working: Path, target: Path, *, overwrite: bool) -> None:
    """Rename ``working`` to ``target``; another run may be doing the same at this moment.

    Raises:
        OSError: renaming failed, or the other run was faster; then ``target`` holds its result.
    """
    old = working.with_suffix(".old")
    if overwrite:
        with suppress(FileNotFoundError):
            target.rename(old)
    try:
        working.rename(target)
    except BaseException:
        if old.exists() and not target.exists():
            old.rename(target)
        raise
    finally:
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)


def clean_up_run(target: Path) -> None:
    """Remove what a killed run of the same name left behind, and restore the run that it was about to replace."""
    with _FOLDERS:
        _clean_up(target)


def _clean_up(target: Path) -> None:
    host = f".{target.name}.{socket.gethostname()[:40]}."
    for folder in list(target.parent.iterdir()) if target.parent.is_dir() else ():
        pid = folder.name[len(host) :].split(".")[0]
        if not folder.name.startswith(host) or not pid.isdigit() or alive(int(pid)) or folder.name in _in_use:
            continue
        if folder.suffix == ".old" and not target.exists():
            folder.rename(target)
        elif folder.suffix in (".old", ".partial"):
            shutil.rmtree(folder, ignore_errors=True)


def alive(pid: int) -> bool:
    """Return whether another process with this number is running."""
    if pid == os.getpid():  # leftovers with our own number are from an earlier process: numbers are reused
        return False
    return is_alive(pid)
