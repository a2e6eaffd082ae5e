"""A run's folder appears under its name when it is whole, or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ChangeMapJointLib.core.errors import InputError

MARKER = "run.json"  # a folder with it was made by a run, and only such a folder is ever replaced


def check_output(out: Path, inputs: list[Path], *, overwrite: bool) -> None:
    """Refuse an output folder that could destroy something, before any work is done.

    Raises:
        InputError: exists without ``overwrite``, or is not a run's folder, is or lies in an input,
            contains an input, or cannot be written to.
    """
    target = out.resolve()
    for path in inputs:
        source = path.resolve()
        if target == source or (source.is_dir() and source in target.parents):
            raise InputError(f"--out {out}: lies in the input {path}; give a folder outside of it")
        if target in source.parents:
            raise InputError(f"--out {out}: contains the input {path}; give another folder")
    if target.exists():
        _check_existing(out, target, overwrite=overwrite)
    parent = next(p for p in target.parents if p.exists())
    if not parent.is_dir():
        raise InputError(f"--out {out}: {parent} is a file, expected a folder; give another one")
    if not writable(parent):
        raise InputError(f"--out {out}: cannot write to {parent}; give a folder that you may write to")


def writable(folder: Path) -> bool:
    """Whether a file can be made in ``folder``; tried, since permission bits do not tell all."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _check_existing(out: Path, target: Path, *, overwrite: bool) -> None:
    if not target.is_dir():
        raise InputError(f"--out {out}: is a file, expected the name of a new folder; give another one")
    if not overwrite:
        raise InputError(f"--out {out}: exists already; give another folder, or --overwrite to replace it")
    if any(target.iterdir()) and not (target / MARKER).is_file():
        raise InputError(f"--out {out}: holds other files than a run's, and is not replaced; give another folder")


@contextmanager
def run_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside ``out``, renamed to ``out`` when the block ends well, else removed.

    An earlier run under that name is replaced only after the new one is whole.
    """
    target = out.resolve()
    made = _make_parents(target.parent)
    clean_up(target)
    working = target.with_name(f".{target.name}.{os.getpid()}.partial")
    working.mkdir()
    try:
        yield working
        _replace(working, target)
    except BaseException:
        shutil.rmtree(working, ignore_errors=True)
        for folder in reversed(made):  # only those that this run made, and only while empty
            try:
                folder.rmdir()
            except OSError:
                break
        raise


def _make_parents(folder: Path) -> list[Path]:
    missing = [p for p in [folder, *folder.parents] if not p.exists()][::-1]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out: cannot make {folder} ({error.strerror}); give another folder") from error
    return missing


def _replace(working: Path, target: Path) -> None:
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    if target.exists():
        target.rename(old)
    try:
        working.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def clean_up(target: Path) -> None:
    """Remove what a run of the same name that was killed left behind."""
    prefix, suffix = f".{target.name}.", ".partial"
    for folder in target.parent.iterdir() if target.parent.is_dir() else ():
        number = folder.name[len(prefix) : -len(suffix)]
        if (
            folder.name.startswith(prefix)
            and folder.name.endswith(suffix)
            and number.isdigit()
            and not alive(int(number))
        ):
            shutil.rmtree(folder, ignore_errors=True)


def alive(process: int) -> bool:
    """Does a process of that number run?"""
    if os.name == "nt":  # signal 0 would end it there
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
