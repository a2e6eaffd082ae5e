"""A folder of results that appears when it is complete, and never replaces anything but earlier results of its kind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.io.run_files import names_in


def check_result_folder(out: Path, *, document: str, content: Collection[str], overwrite: bool = False) -> None:
    """Check that ``out`` may be written.

    Args:
        out: the folder.
        document: name of the file by which earlier results are known.
        content: names of everything that such results hold.
        overwrite: whether earlier results may be replaced.

    Raises:
        InputError: it exists, unless it holds earlier results that may be replaced.
    """
    if not out.exists():
        return
    if not out.is_dir() or (names_in(out) and not (out / document).exists()):
        raise InputError("exists already", field="out", value=out, remedy="give a new folder")
    if names_in(out) - set(content):
        raise InputError("holds other files, too", field="out", value=out, remedy="give a new folder")
    if names_in(out) and not overwrite:
        raise InputError(
            "exists already", field="out", value=out, remedy=("give a new folder, or ", Argument("overwrite", True))
        )


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Fill a folder beside ``out`` inside the block; it takes the place of ``out`` when the block ends well.

    Raises:
        InputError: the folder cannot be written; nothing is left behind.
    """
    absolute = Path(os.path.abspath(out))  # noqa: PTH100 - resolve() follows links
    part = absolute.with_name(f".{absolute.name}.{os.getpid()}.partial")
    checked = _names(absolute)
    try:
        absolute.parent.mkdir(parents=True, exist_ok=True)
        for old in absolute.parent.glob(f".{absolute.name}.*.partial"):  # left by a killed command
            if _left_behind(old):
                shutil.rmtree(old, ignore_errors=True)
        part.mkdir()
        yield part
        if _names(absolute) - checked:  # nobody has asked whether these may go
            raise InputError("holds files that appeared meanwhile", field="out", value=out, remedy="give a new folder")
        if absolute.exists():
            shutil.rmtree(absolute)
        part.replace(absolute)
    except OSError as error:
        raise InputError(
            f"cannot be written ({error.strerror or error})", field="out", value=out, remedy="give another folder"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _names(folder: Path) -> set[str]:
    return names_in(folder) if folder.is_dir() else set()


def _left_behind(part: Path) -> bool:
    """Whether the process that made a partial folder is gone."""
    number = part.name.split(".")[-2]
    return number.isdecimal() and not psutil.pid_exists(int(number))
