"""DICOMDIR files: the table of contents of a disc, which lists the files beside it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.io.dicom.headers import check_inflated, read_dataset
from ChangeMapJointLib.io.dicom.recognise import DICOMDIR, HEADER_BYTES, is_dicomdir
from ChangeMapJointLib.io.dicom.values import as_text, parsing
from ChangeMapJointLib.io.sources import SourceFile, open_source, plain_file


@dataclass(frozen=True)
class ImageFiles:
    """The files of a source, and what a DICOMDIR says about them.

    Attributes:
        files: all files that may be images.
        listed: number of files that a DICOMDIR lists, by SeriesInstanceUID.
        missing: number of those that are missing, by SeriesInstanceUID.
    """

    files: tuple[SourceFile, ...]
    listed: Mapping[str, int] = field(default_factory=dict)
    missing: Mapping[str, int] = field(default_factory=dict)


@contextmanager
def open_scan(path: Path) -> Iterator[ImageFiles]:
    """Open the files of a folder, of a zip archive, the one file at ``path``, or those that a DICOMDIR lists.

    If some of the files that a DICOMDIR lists are not found under their names, its whole folder is searched.

    Raises:
        InputError: see :func:`~ChangeMapJointLib.io.sources.open_source`.
    """
    if path.is_file() and is_dicomdir(plain_file(path, path.name)):
        root = path.parent
        names = [name for group in listed_names(plain_file(path, path.name)).values() for name in group]
        paths = [root / PurePosixPath(name) for name in names]
        if names and all(_inside(name) for name in names) and all(file.is_file() for file in paths):
            yield ImageFiles(tuple(plain_file(file, name) for file, name in zip(paths, names, strict=True)))
            return
        with open_source(root) as files:
            yield _with_contents(files)
        return
    with open_source(path) as files:
        yield _with_contents(files)


def listed_names(file: SourceFile) -> dict[str, list[str]]:
    """Return the file names in a DICOMDIR, relative to its folder, by SeriesInstanceUID; none if it is damaged."""
    names: dict[str, list[str]] = defaultdict(list)
    try:
        check_inflated(file, file.read(HEADER_BYTES))
        records = read_dataset(file, ["DirectoryRecordSequence"]).get("DirectoryRecordSequence") or []
        with parsing(file.name):
            series = ""
            for record in records:
                series = as_text(record.get("SeriesInstanceUID")) or series  # records follow that of their series
                name = as_text(record.get("ReferencedFileID")).replace("\\", "/")
                if name:
                    names[series].append(name)
    except InputError:  # a DICOMDIR only helps; the images can be read without it
        return {}
    return dict(names)


def _inside(name: str) -> bool:
    """Return whether a name points to a file inside the folder."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _with_contents(files: tuple[SourceFile, ...]) -> ImageFiles:
    """Return the files without the DICOMDIRs, and what these list; names are compared regardless of file system."""
    tables = [file for file in files if PurePath(file.name).name.upper() == DICOMDIR]
    if not tables:
        return ImageFiles(files)
    present = {_normalised(file.name) for file in files}
    listed: dict[str, int] = defaultdict(int)
    missing: dict[str, int] = defaultdict(int)
    for table in tables:
        folder = PurePath(table.name).parent
        for series, names in listed_names(table).items():
            listed[series] += len(names)
            missing[series] += sum(_normalised(str(folder / name)) not in present for name in names)
    return ImageFiles(tuple(file for file in files if file not in tables), dict(listed), dict(missing))


def _normalised(name: str) -> str:
    """Return a name in upper case without version (``;1``) and without the suffix that some programs add."""
    text = PurePath(name).as_posix().upper().partition(";")[0]
    return text.removesuffix(".DCM").removesuffix(".")
