"""What a DICOMDIR, the table of contents of a disc, says of the files beside it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath

from pydicom.uid import MediaStorageDirectoryStorage

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.io.dicom.headers import HEADER_BYTES, check_inflated, looks_like_dicom, read_dataset
from ChangeMapJointLib.io.dicom.values import as_text, parsing
from ChangeMapJointLib.io.sources import SourceFile, open_source, plain_file

NAME = "DICOMDIR"


@dataclass(frozen=True)
class Source:
    """The files of a scan.

    Attributes:
        files: all that may be images.
        listed: files that a DICOMDIR among them, or given itself, lists, by SeriesInstanceUID.
        missing: those of them that are not there.
    """

    files: tuple[SourceFile, ...]
    listed: Mapping[str, int] = field(default_factory=dict)
    missing: Mapping[str, int] = field(default_factory=dict)


@contextmanager
def open_scan(path: Path) -> Iterator[Source]:
    """The files of a folder, of a zip archive, the one file at ``path``, or those that a DICOMDIR lists.

    Where not all that a DICOMDIR lists can be found under the names that it gives, its whole folder is looked at.

    Raises:
        InputError: as :func:`~ChangeMapJointLib.io.sources.open_source`.
    """
    if path.is_file() and is_dicomdir(plain_file(path, path.name)):
        root = path.parent
        names = [name for lot in references(plain_file(path, path.name)).values() for name in lot]
        there = [root / PurePosixPath(name) for name in names]
        if names and all(_inside(name) for name in names) and all(file.is_file() for file in there):
            yield Source(tuple(plain_file(file, name) for file, name in zip(there, names, strict=True)))
            return
        with open_source(root) as files:
            yield _with_contents(files)
        return
    with open_source(path) as files:
        yield _with_contents(files)


def is_dicomdir(file: SourceFile) -> bool:
    """Is it a table of contents, by its name or by its class?"""
    if PurePath(file.name).name.upper() == NAME:
        return True
    start = file.read(HEADER_BYTES)
    return looks_like_dicom(start) and MediaStorageDirectoryStorage.encode() in start


def references(file: SourceFile) -> dict[str, list[str]]:
    """Names of the files that a DICOMDIR lists, relative to its folder, by SeriesInstanceUID; none when damaged."""
    found: dict[str, list[str]] = defaultdict(list)
    try:
        check_inflated(file, file.read(HEADER_BYTES))
        records = read_dataset(file, ["DirectoryRecordSequence"]).get("DirectoryRecordSequence") or []
        with parsing(file.name):
            series = ""
            for record in records:
                series = as_text(record.get("SeriesInstanceUID")) or series  # records stand below their series
                name = as_text(record.get("ReferencedFileID")).replace("\\", "/")
                if name:
                    found[series].append(name)
    except InputError:  # it only helps; the images speak for themselves
        return {}
    return dict(found)


def _inside(name: str) -> bool:
    """Names a file below the folder, not somewhere else."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _with_contents(files: tuple[SourceFile, ...]) -> Source:
    """The files without tables of contents, and what these say; names are compared as discs are read everywhere."""
    tables = [file for file in files if PurePath(file.name).name.upper() == NAME]
    if not tables:
        return Source(files)
    there = {_plain(file.name) for file in files}
    listed: dict[str, int] = defaultdict(int)
    missing: dict[str, int] = defaultdict(int)
    for table in tables:
        folder = PurePath(table.name).parent
        for series, names in references(table).items():
            listed[series] += len(names)
            missing[series] += sum(_plain(str(folder / name)) not in there for name in names)
    return Source(tuple(file for file in files if file not in tables), dict(listed), dict(missing))


def _plain(name: str) -> str:
    """A name without case, version (``;1``) and the suffix that some programs add."""
    text = PurePath(name).as_posix().upper().partition(";")[0]
    return text.removesuffix(".DCM").removesuffix(".")
