"""Sources of DICOM files: a folder, a zip archive or one file.

Archives are never unpacked to disk: their members are read as streams, so that their names cannot point anywhere and
no files are left behind.
"""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from ChangeMapJointLib.core.errors import InputError, printable

MAX_FILES = 200_000
MAX_FILE_BYTES = 4 * 2**30
IMAGE_FILES = (".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd")
PACKED = (".zip", ".7z", ".rar", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".iso")  # files that may contain a series
ZIP_METHODS = {0, 8, 12, 14}  # that Python can unpack: stored, deflated, bzip2, LZMA
ZIP_METHOD_NAMES = {9: "Deflate64, as Windows does for large files", 93: "Zstandard", 95: "XZ", 98: "PPMd"}
READ_ERRORS = (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)


def reason_of(error: BaseException) -> str:
    """Return the message of a reading error without the number and path that system errors include."""
    return getattr(error, "strerror", None) or str(error) or "out of memory"


@dataclass(frozen=True)
class SourceFile:
    """One readable file of a source.

    Attributes:
        name: its path inside the folder or archive, used in messages.
        size: in bytes.
        opener: opens a new binary stream.
        packed: whether it is a member of an archive, where seeking backwards means unpacking again.
    """

    name: str
    size: int
    opener: Callable[[], BinaryIO]
    packed: bool = False

    def read(self, limit: int = -1) -> bytes:
        """Read the content, or its first ``limit`` bytes.

        Raises:
            InputError: it cannot be read or is too large.
        """
        if limit < 0:
            self.check_size()
        try:
            with self.opener() as stream:
                return stream.read(limit)
        except READ_ERRORS as error:
            remedy = "check its permissions" if isinstance(error, PermissionError) else "copy the data again"
            raise InputError(f"cannot be read ({reason_of(error)})", field=Path(self.name), remedy=remedy) from error

    def check_size(self) -> None:
        """Check that the file is small enough to be read whole.

        Raises:
            InputError: it is too large.
        """
        if self.size > MAX_FILE_BYTES:
            raise InputError(f"{self.size} bytes", field=Path(self.name), expected=f"at most {MAX_FILE_BYTES}")


@contextmanager
def open_source(path: Path) -> Iterator[tuple[SourceFile, ...]]:
    """Open the files of a folder (searched recursively), of a zip archive, or the one file at ``path``.

    The files are sorted by name. Links to folders are followed, each folder once. Archives inside an archive are not
    opened.

    Raises:
        InputError: the archive is unreadable, encrypted or packed by an unsupported method, or there are far too many
            files.
    """
    if path.is_dir():
        yield _limited(path, _folder_files(path))
    elif zipfile.is_zipfile(path):
        with _open_zip(path) as archive:
            yield _limited(path, _zip_files(path, archive))
    else:
        yield (plain_file(path, path.name),)


def _limited(path: Path, files: Iterator[SourceFile]) -> tuple[SourceFile, ...]:
    """Collect ``files``, unless somebody gave a whole disk."""
    collected: list[SourceFile] = []
    for file in files:
        if len(collected) == MAX_FILES:
            raise InputError(f"more than {MAX_FILES} files", field=path, remedy="give the folder of one study")
        collected.append(file)
    return tuple(sorted(collected, key=lambda file: file.name))


def _folder_files(root: Path) -> Iterator[SourceFile]:
    seen: set[str] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link back to a folder above, or a second one
            subfolders.clear()
            continue
        seen.add(real)
        subfolders.sort()  # of two links to one folder, always the same one is followed
        for name in names:
            path = Path(folder, name)
            if path.is_file():  # a socket or a pipe would block
                yield plain_file(path, str(path.relative_to(root)))


def plain_file(path: Path, name: str) -> SourceFile:
    """Return the file at ``path`` as a source file called ``name``."""
    return SourceFile(printable(name), path.stat().st_size, lambda: _File(io.FileIO(path)))


class _File(io.BufferedReader):
    """A reader that allocates no more than the size of the file, whatever length a damaged element claims."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(size if size is None or size < 0 else min(size, os.fstat(self.fileno()).st_size))


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except READ_ERRORS as error:
        raise InputError(f"not a readable zip archive ({error})", field=path, remedy="copy or pack it again") from error


def _zip_files(path: Path, archive: zipfile.ZipFile) -> Iterator[SourceFile]:
    for info in archive.infolist():
        if not info.filename or info.is_dir():
            continue
        if info.flag_bits & 0x1:
            raise InputError("the archive is encrypted", field=path, remedy="unpack it and give the folder")
        if info.compress_type not in ZIP_METHODS:
            method = ZIP_METHOD_NAMES.get(info.compress_type, f"method {info.compress_type}")
            raise InputError(
                f"{info.filename} is packed by a method that cannot be unpacked here ({method})",
                field=path,
                expected="ordinary deflate",
                remedy="unpack the archive and give the folder, or zip it again",
            )
        yield SourceFile(printable(info.filename), info.file_size, _member_opener(archive, info), packed=True)


def _member_opener(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[], BinaryIO]:
    return lambda: cast(BinaryIO, archive.open(info))
