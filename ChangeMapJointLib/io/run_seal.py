"""The seal of a run folder: size and SHA-256 of its files, in ``run.json``, so that damage and tampering show."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.io import run_files
from ChangeMapJointLib.io.run_records import RUN_AGAIN

BLOCK_BYTES = 1 << 20
# run.json holds the seal; a reader's decisions come later, and with them the report is written again
UNSEALED = frozenset({run_files.RUN, run_files.REPORT, run_files.READING})


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of one file."""
    total = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            total.update(block)
    return total.hexdigest()


def bytes_of(path: Path) -> int:
    """Return the size of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def seal_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Return ``{name: {"bytes": size, "sha256": hash}}`` of the files in the folder of a run, for ``run.json``."""
    files = sorted(path for path in folder.iterdir() if path.name not in UNSEALED)
    return {path.name: {"bytes": path.stat().st_size, "sha256": file_sha256(path)} for path in files}


def check_seal(folder: Path, record: Mapping[str, Any]) -> bool:
    """Check the files of a run against the seal in its ``run.json``.

    Args:
        folder: of the run.
        record: content of ``run.json``.

    Returns:
        False for a run without a seal, as older versions wrote it.

    Raises:
        InputError: a file is missing, leads out of the folder, or has another size or hash; names the file.
    """
    check_inside(folder, sorted(run_files.FILES | {run_files.READING}))
    seal = record.get("files")
    if seal is None:
        return False
    where = folder / run_files.RUN
    if not isinstance(seal, Mapping) or not all(isinstance(entry, Mapping) for entry in seal.values()):
        raise InputError("'files' is not as a run writes it", field=where, remedy=RUN_AGAIN)
    for name in seal:
        if not is_plain(str(name)):
            raise InputError(f"names the file {str(name)!r}, which leaves the folder", field=where, remedy=RUN_AGAIN)
    check_inside(folder, seal)
    for name, entry in seal.items():
        _check_file(folder / name, entry)
    return True


def is_plain(name: str) -> bool:
    """Return whether a name stays in its folder on every system.

    Examples:
        >>> is_plain("trust.nrrd"), is_plain("../trust.nrrd"), is_plain("C:trust.nrrd"), is_plain("..")
        (True, False, False, False)
    """
    plain = all(kind(name).name == name for kind in (PurePosixPath, PureWindowsPath))
    return plain and name not in ("", ".", "..") and ":" not in name and "\0" not in name


def check_inside(folder: Path, names: Iterable[str]) -> None:
    """Raise an InputError if one of these files is a link that leads out of the folder."""
    inside = folder.resolve()
    for name in names:
        path = folder / name
        try:
            leaves = path.is_symlink() and path.resolve().parent != inside
        except (OSError, RuntimeError):  # a loop of links
            leaves = True
        if leaves:
            raise InputError("is a link that leaves the folder", field=path, remedy=RUN_AGAIN)


def _check_file(path: Path, entry: Mapping[str, Any]) -> None:
    try:
        size = path.stat().st_size if path.is_file() else None
        if size is None:
            raise InputError("is missing", field=path, remedy=RUN_AGAIN)
        if size != entry.get("bytes"):
            raise InputError(f"has {size} bytes", field=path, expected=f"{entry.get('bytes')}", remedy=RUN_AGAIN)
        if file_sha256(path) != entry.get("sha256"):
            raise InputError("was changed after the run: its hash differs", field=path, remedy=RUN_AGAIN)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", field=path, remedy=RUN_AGAIN) from error
