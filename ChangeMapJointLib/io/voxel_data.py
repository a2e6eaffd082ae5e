"""Reads the voxel values of an image file without using more memory than they need.

The size in a header cannot be trusted: memory is allocated only after checking that the file can hold as much.
"""

from __future__ import annotations

import bz2
import warnings
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.io.sources import reason_of

CHUNK_BYTES = 2**22
MAX_DEFLATE_RATIO = 1032  # largest number of bytes that one byte of deflate can give
MAX_TRAILING_BYTES = 2**24  # unpacked after the voxels, only to reach the checksum
GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
EXPORT_AGAIN = "copy or export it again"


class _NoEnd(Exception):
    """A compressed stream ends too early."""


Packing = Literal["raw", "zlib", "bzip2", "text"]


@dataclass(frozen=True)
class VoxelData:
    """Where the voxel values of an image are stored.

    Attributes:
        files: one file, or several in order with the same number of values each.
        dtype: data type of the stored values.
        count: number of values in all files together.
        packing: compression; ``zlib`` includes gzip.
        offset: bytes before the values in each file; negative if the values end at the end of the file.
        skip: bytes before the values after decompression.
        attached: whether the values are in the same file as the header.
    """

    files: tuple[Path, ...]
    dtype: np.dtype[np.generic]
    count: int
    packing: Packing = "raw"
    offset: int = 0
    skip: int = 0
    attached: bool = True


def read_values(data: VoxelData) -> tuple[NDArray[np.generic], tuple[str, ...]]:
    """Read the values as a flat array in native byte order, with notes.

    Raises:
        InputError: the files are missing, damaged, or hold fewer values than the header says.
        MemoryError: the values do not fit into memory.
    """
    per_file = data.count // max(len(data.files), 1)
    if not data.files or per_file * len(data.files) != data.count:
        raise InputError(f"{len(data.files)} data files for {data.count} voxels", remedy=EXPORT_AGAIN)
    for path in data.files:
        with _opened(path) as stream:
            _check_size(path, stream, data, per_file)
    values = np.empty(data.count, dtype=data.dtype)
    extra = 0
    for number, path in enumerate(data.files):
        with _opened(path) as stream:
            extra += _read_file(path, stream, data, values[number * per_file : (number + 1) * per_file])
    notes = (f"{extra} byte(s) after the voxels were ignored: the header may belong to another file.",) if extra else ()
    if not values.dtype.isnative:
        values = values.byteswap(inplace=True).view(values.dtype.newbyteorder())
    return values, notes


def unpacked_start(path: Path, count: int) -> bytes:
    """Return the first ``count`` bytes of the content of a gzip file, or as many as there are.

    Raises:
        InputError: the file is damaged.
    """
    start = b""
    with path.open("rb") as stream:
        try:
            for chunk in _inflated(stream, count):
                start += chunk
                if len(start) >= count:
                    break
        except _NoEnd:
            pass
        except zlib.error as error:
            raise InputError(f"damaged ({error})", remedy=EXPORT_AGAIN) from error
    return start[:count]


def _named(path: Path, data: VoxelData) -> tuple[Path, ...]:
    """Return what an error names: a separate data file; a header's own file is named anyway."""
    return () if data.attached else (Path(path.name),)


def _opened(path: Path) -> BinaryIO:
    if not path.is_file():  # a folder cannot be read, and a pipe would block
        raise InputError("the data file is missing", field=Path(path.name), remedy="copy both files into one folder")
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"cannot be read ({reason_of(error)})", field=Path(path.name)) from error


def _check_size(path: Path, stream: BinaryIO, data: VoxelData, count: int) -> None:
    """Check that the file can hold ``count`` values; if compression leaves that open, unpack it once and discard."""
    size, expected = path.stat().st_size, data.skip + count * data.dtype.itemsize
    if data.packing == "raw":
        available = size - max(data.offset, 0)
    elif data.packing == "text":
        expected, available = 2 * count - 1, size - max(data.offset, 0)  # a digit and a space each
    elif expected > MAX_DEFLATE_RATIO * size:
        stream.seek(max(data.offset, 0))
        available = 0
        with suppress(_NoEnd):
            for chunk in _unpacked(stream, data, path):
                available += len(chunk)
                if available >= expected:
                    break
    else:
        return
    if available < expected:
        raise _truncated(path, data, available - data.skip, expected - data.skip)


def _truncated(path: Path, data: VoxelData, available: int, expected: int) -> InputError:
    return InputError(
        f"truncated, {max(available, 0)} of {expected} bytes", field=_named(path, data), remedy=EXPORT_AGAIN
    )


def _read_file(path: Path, stream: BinaryIO, data: VoxelData, values: NDArray[np.generic]) -> int:
    """Fill ``values`` from one file; return the number of bytes after them."""
    if data.packing == "text":
        stream.seek(data.offset)
        return _read_text(path, stream, data, values)
    target = memoryview(values.view(np.uint8))  # type: ignore[arg-type]
    if data.packing == "raw":
        size = path.stat().st_size
        start = data.offset + data.skip if data.offset >= 0 else size - len(target)
        stream.seek(start)
        done = 0
        while done < len(target) and (count := stream.readinto(target[done : done + CHUNK_BYTES])):  # type: ignore[attr-defined]
            done += count
        if done < len(target):
            raise _truncated(path, data, done, len(target))
        return max(size - start - done, 0)
    stream.seek(max(data.offset, 0))
    position, complete = -data.skip, True
    try:
        for chunk in _unpacked(stream, data, path):
            start, stop = max(position, 0), min(position + len(chunk), len(target))
            if start < stop:
                target[start:stop] = chunk[start - position : stop - position]
            position += len(chunk)
            if position > len(target) + MAX_TRAILING_BYTES:
                break
    except _NoEnd:
        complete = False
    if position < len(target):
        raise _truncated(path, data, position, len(target))
    if not complete:
        raise InputError(
            "damaged (its end with the checksum is missing)", field=_named(path, data), remedy=EXPORT_AGAIN
        )
    return position - len(target)


def _unpacked(stream: BinaryIO, data: VoxelData, path: Path) -> Iterator[bytes]:
    """Decompress the stream in chunks.

    Raises:
        InputError: the stream is damaged.
        _NoEnd: after the last chunk, if the stream ends too early.
    """
    try:
        yield from _inflated(stream) if data.packing == "zlib" else _bunzipped(stream)
    except (zlib.error, OSError, ValueError) as error:
        raise InputError(f"damaged ({reason_of(error)})", field=_named(path, data), remedy=EXPORT_AGAIN) from error


def _inflated(stream: BinaryIO, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
    """Decompress gzip (also of several members) or zlib; anything else that follows is ignored."""
    unpacker, rest = zlib.decompressobj(GZIP_OR_ZLIB), b""
    while packed := rest or stream.read(CHUNK_BYTES):
        yield unpacker.decompress(packed, chunk_bytes)
        rest = unpacker.unconsumed_tail
        if unpacker.eof:
            rest = unpacker.unused_data or stream.read(CHUNK_BYTES)
            if rest[:2] != b"\x1f\x8b":
                return
            unpacker = zlib.decompressobj(GZIP_OR_ZLIB)
    yield unpacker.flush()
    if not unpacker.eof:
        raise _NoEnd


def _bunzipped(stream: BinaryIO) -> Iterator[bytes]:
    with bz2.BZ2File(stream) as file:
        try:
            while chunk := file.read(2**16):
                yield chunk
        except EOFError:
            raise _NoEnd from None


def _read_text(path: Path, stream: BinaryIO, data: VoxelData, values: NDArray[np.generic]) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            numbers = np.fromstring(stream.read().decode("ascii"), dtype=np.float64, sep=" ")
        except (ValueError, DeprecationWarning) as error:
            raise InputError(
                "damaged (voxels that are not numbers)", field=_named(path, data), remedy=EXPORT_AGAIN
            ) from error
    if numbers.size < values.size:
        raise InputError(
            f"truncated, {numbers.size} of {values.size} values", field=_named(path, data), remedy=EXPORT_AGAIN
        )
    with np.errstate(invalid="ignore"):
        values[:] = numbers[: values.size].astype(values.dtype)
    return 0
