"""Text headers of image files, and the data files that they name."""

from __future__ import annotations

import re
from pathlib import Path

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.io.voxel_data import EXPORT_AGAIN

MAX_HEADER_BYTES = 2**24
MAX_DATA_FILES = 2**16


def read_header_bytes(path: Path) -> bytes:
    """Read the start of a file, as long as a header may be."""
    with path.open("rb") as stream:
        return stream.read(MAX_HEADER_BYTES)


def header_text(content: bytes) -> str:
    """Decode header text; file names keep their bytes, whatever their encoding."""
    return content.decode("utf-8", "surrogateescape")


def named_data_files(header: Path, value: str, following: list[str]) -> tuple[Path, ...]:
    """Return the paths of the data files that a header names, relative to its folder unless absolute.

    Args:
        header: the header file.
        value: a name; ``LIST``, with one name on each of the following lines; or a printf pattern with first and last
            number and step, ``slice%03d.raw 1 120 1``.
        following: the lines of the header after that field.

    Raises:
        InputError: no name, too many names, or a pattern that gives none.
    """
    folder, words = header.parent, value.split()
    if not words or "\0" in value:
        raise InputError("the header names no data file", remedy=EXPORT_AGAIN)
    if words[0] == "LIST":
        names = [line.strip() for line in following if line.strip()]
    elif re.search(r"%0?\d*d", value) and len(words) >= 3:
        names = _numbered(words)
    else:
        names = [value.strip()]
    if not names or len(names) > MAX_DATA_FILES or any("\0" in name for name in names):
        raise InputError(
            f"the header names {len(names)} data files", expected=f"1 to {MAX_DATA_FILES}", remedy=EXPORT_AGAIN
        )
    return tuple(folder / name for name in names)


def _numbered(words: list[str]) -> list[str]:
    pattern, numbers = words[0], words[1:4]
    if len(re.findall("%", pattern)) != 1 or not all(re.fullmatch(r"-?\d{1,9}", word) for word in numbers):
        raise InputError(
            f"data files '{' '.join(words)[:80]}'", expected="one pattern and whole numbers", remedy=EXPORT_AGAIN
        )
    first, last, step = (int(word) for word in [*numbers, "1"][:3])
    if step == 0 or not 0 <= (last - first) // step < MAX_DATA_FILES:
        raise InputError(f"data files '{' '.join(words)[:80]}' give no file or too many", remedy=EXPORT_AGAIN)
    field = re.search(r"%(0?)(\d{0,2})d", pattern)
    if field is None:
        raise InputError(
            f"data files '{pattern[:80]}'", expected="a pattern such as slice%03d.raw", remedy=EXPORT_AGAIN
        )
    before, after = pattern[: field.start()], pattern[field.end() :]
    fill, width = field.group(1) or " ", int(field.group(2) or 0)
    stop = last + (1 if step > 0 else -1)
    return [f"{before}{str(number).rjust(width, fill)}{after}" for number in range(first, stop, step)]
