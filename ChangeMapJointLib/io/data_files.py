"""Text headers of images, and the files that they name for their voxels."""

from __future__ import annotations

import re
from pathlib import Path

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.io.voxel_data import EXPORT_AGAIN

MAX_HEADER_BYTES = 2**24
MAX_DATA_FILES = 2**16


def read_header_bytes(path: Path) -> bytes:
    """As much of a file as a header may be long."""
    with path.open("rb") as stream:
        return stream.read(MAX_HEADER_BYTES)


def as_text(content: bytes) -> str:
    """Header text; names of files keep their bytes whatever their encoding was."""
    return content.decode("utf-8", "surrogateescape")


def named_data_files(header: Path, value: str, following: list[str]) -> tuple[Path, ...]:
    """The data files that a header names, beside it unless their paths are absolute.

    Args:
        header: the header's file.
        value: a name; ``LIST``, with a name in each of the lines that follow; or a pattern as of C's printf with
            first and last number and step, ``slice%03d.raw 1 120 1``.
        following: the header's lines behind that one.

    Raises:
        InputError: no name, too many, or a pattern that gives none.
    """
    folder, words = header.parent, value.split()
    if not words or "\0" in value:
        raise InputError("no name of a data file", remedy=EXPORT_AGAIN)
    if words[0] == "LIST":
        names = [line.strip() for line in following if line.strip()]
    elif re.search(r"%0?\d*d", value) and len(words) >= 3:
        names = _numbered(words)
    else:
        names = [value.strip()]
    if not names or len(names) > MAX_DATA_FILES or any("\0" in name for name in names):
        raise InputError(f"{len(names)} names of data files", expected=f"1 to {MAX_DATA_FILES}", remedy=EXPORT_AGAIN)
    return tuple(folder / name for name in names)


def _numbered(words: list[str]) -> list[str]:
    pattern, numbers = words[0], words[1:4]
    if len(re.findall("%", pattern)) != 1 or not all(re.fullmatch(r"-?\d{1,9}", word) for word in numbers):
        raise InputError(
            f"data files '{' '.join(words)[:80]}'", expected="one pattern and whole numbers", remedy=EXPORT_AGAIN
        )
    first, last, step = (int(word) for word in [*numbers, "1"][:3])
    if step == 0 or not 0 <= (last - first) // step < MAX_DATA_FILES:
        raise InputError(f"data files '{' '.join(words)[:80]}' are none or too many", remedy=EXPORT_AGAIN)
    place = re.search(r"%(0?)(\d{0,2})d", pattern)
    if place is None:
        raise InputError(
            f"data files '{pattern[:80]}'", expected="a pattern such as slice%03d.raw", remedy=EXPORT_AGAIN
        )
    before, after = pattern[: place.start()], pattern[place.end() :]
    fill, width = place.group(1) or " ", int(place.group(2) or 0)
    stop = last + (1 if step > 0 else -1)
    return [f"{before}{str(number).rjust(width, fill)}{after}" for number in range(first, stop, step)]
