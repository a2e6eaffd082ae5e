"""The numbers of an image file: where they are, and how they come out without more memory than they fill.

A header is only a claim. Nothing is allocated for it before the file has shown that it can hold as much.
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
MOST_PACKED = 1032  # deflate makes at most so many bytes of one
MAX_TRAILING_BYTES = 2**24  # unpacked only to reach the checksum
GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
EXPORT_AGAIN = "copy or export it again"


class _NoEnd(Exception):
    """A packed stream ends too early."""


Packing = Literal["raw", "zlib", "bzip2", "text"]


@dataclass(frozen=True)
class VoxelData:
    """Where the numbers of an image are.

    Attributes:
        files: one, or several with equal shares in their order.
        dtype: of the numbers as they are stored.
        count: how many there are in all.
        packing: ``zlib`` is gzip as well.
        offset: bytes before them in each file; negative: they end where the file ends.
        skip: bytes before them once they are unpacked.
        attached: they are in the file of the header.
    """

    files: tuple[Path, ...]
    dtype: np.dtype[np.generic]
    count: int
    packing: Packing = "raw"
    offset: int = 0
    skip: int = 0
    attached: bool = True


def read_values(data: VoxelData) -> tuple[NDArray[np.generic], tuple[str, ...]]:
    """The numbers in one row, in this machine's byte order, and notes.

    Raises:
        InputError: the files are missing, damaged, or hold fewer numbers than the header says.
        MemoryError: there really are more than fit.
    """
    share = data.count // max(len(data.files), 1)
    if not data.files or share * len(data.files) != data.count:
        raise InputError(f"{len(data.files)} data files for {data.count} voxels", remedy=EXPORT_AGAIN)
    for path in data.files:
        with _opened(path) as stream:
            _check_promise(path, stream, data, share)
    values = np.empty(data.count, dtype=data.dtype)
    extra = 0
    for number, path in enumerate(data.files):
        with _opened(path) as stream:
            extra += _read_file(path, stream, data, values[number * share : (number + 1) * share])
    notes = (f"{extra} byte(s) behind the voxels were left out: the header may be another file's.",) if extra else ()
    if not values.dtype.isnative:
        values = values.byteswap(inplace=True).view(values.dtype.newbyteorder())
    return values, notes


def unpacked_start(path: Path, count: int) -> bytes:
    """The first ``count`` bytes of what a gzip file holds, or as many as there are.

    Raises:
        InputError: damaged.
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


def _name(path: Path, data: VoxelData) -> str:
    """How an error calls the file: not at all where it is the header's own, which is named anyway."""
    return "" if data.attached else f"{path.name} is "


def _opened(path: Path) -> BinaryIO:
    if not path.is_file():  # neither a folder nor a pipe, which would block
        raise InputError(f"its data file {path.name} is missing", remedy="copy both files into one folder")
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"its data file {path.name} cannot be read ({reason_of(error)})") from error


def _check_promise(path: Path, stream: BinaryIO, data: VoxelData, share: int) -> None:
    """Could the file hold its share? Where the packing leaves that open, it is unpacked once without being kept."""
    size, wanted = path.stat().st_size, data.skip + share * data.dtype.itemsize
    if data.packing == "raw":
        found = size - max(data.offset, 0)
    elif data.packing == "text":
        wanted, found = 2 * share - 1, size - max(data.offset, 0)  # a digit and a space each
    elif wanted > MOST_PACKED * size:
        stream.seek(max(data.offset, 0))
        found = 0
        with suppress(_NoEnd):
            for chunk in _unpacked(stream, data, path):
                found += len(chunk)
                if found >= wanted:
                    break
    else:
        return
    if found < wanted:
        raise _truncated(path, data, found - data.skip, wanted - data.skip)


def _truncated(path: Path, data: VoxelData, found: int, wanted: int) -> InputError:
    return InputError(f"{_name(path, data)}truncated, {max(found, 0)} of {wanted} bytes", remedy=EXPORT_AGAIN)


def _read_file(path: Path, stream: BinaryIO, data: VoxelData, values: NDArray[np.generic]) -> int:
    """Fill ``values`` from one file; gives the number of bytes behind them."""
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
    place, whole = -data.skip, True
    try:
        for chunk in _unpacked(stream, data, path):
            start, stop = max(place, 0), min(place + len(chunk), len(target))
            if start < stop:
                target[start:stop] = chunk[start - place : stop - place]
            place += len(chunk)
            if place > len(target) + MAX_TRAILING_BYTES:
                break
    except _NoEnd:
        whole = False
    if place < len(target):
        raise _truncated(path, data, place, len(target))
    if not whole:
        raise InputError(f"{_name(path, data)}damaged (its end with the checksum is missing)", remedy=EXPORT_AGAIN)
    return place - len(target)


def _unpacked(stream: BinaryIO, data: VoxelData, path: Path) -> Iterator[bytes]:
    """What the stream holds, in chunks.

    Raises:
        InputError: damaged.
        _NoEnd: after the last chunk, where the stream ends too early.
    """
    try:
        yield from _inflated(stream) if data.packing == "zlib" else _bunzipped(stream)
    except (zlib.error, OSError, ValueError) as error:
        raise InputError(f"{_name(path, data)}damaged ({error})", remedy=EXPORT_AGAIN) from error


def _inflated(stream: BinaryIO, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
    """Of gzip, also of several parts, or zlib; what follows and is neither is left."""
    unpacker, rest = zlib.decompressobj(GZIP_OR_ZLIB), b""
    while fed := rest or stream.read(CHUNK_BYTES):
        yield unpacker.decompress(fed, chunk_bytes)
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
            found = np.fromstring(stream.read().decode("ascii"), dtype=np.float64, sep=" ")
        except (ValueError, DeprecationWarning) as error:
            raise InputError(f"{_name(path, data)}damaged (voxels that are no numbers)", remedy=EXPORT_AGAIN) from error
    if found.size < values.size:
        raise InputError(f"{_name(path, data)}truncated, {found.size} of {values.size} values", remedy=EXPORT_AGAIN)
    with np.errstate(invalid="ignore"):
        values[:] = found[: values.size].astype(values.dtype)
    return 0
