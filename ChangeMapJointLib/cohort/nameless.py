"""Messages about a pair without names of files and series, which may tell the patient: its id says which it is."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePath, PurePosixPath

from ChangeMapJointLib.core.errors import InputError, Wording
from ChangeMapJointLib.io.read import split_selector

SIDES = ("the current scan", "the prior scan")
INSIDE = "a file"
MOST_NAMES = 50_000  # looked up in a scan
DISTINCTIVE = 6  # characters of a name that is no word of a message
COMMON = (  # words that name files and folders, and stand in messages
    *("contrast", "current", "damaged", "detector", "dicomdir", "expected", "export", "folder", "header", "images"),
    *(
        "kernel",
        "lesion",
        "masks",
        "missing",
        "patient",
        "patients",
        "prior",
        "reference",
        "report",
        "result",
        "series",
    ),
    *("result", "results", "slices", "spacing", "template", "thorax", "truncated", "volume", "volumes", "voxels"),
)
_UID = re.compile(r"(, )?(UID )?\b\d+(\.\d+){4,}\b")
_HEADER = re.compile(r"(not a readable \w+ file|\bdata files) (\(.*\)|'.*')")  # and what a header says in it
_SERIES = re.compile(r"(#\w+) '[^']*'")  # a label, by which a series can be picked, and a description


class Nameless(Wording):
    """Words errors for the table and the overview of a cohort."""

    def __init__(self, reference: Path, template: Path, out: Path) -> None:
        """Keep what to look for.

        Args:
            reference: the current scan, as the table of pairs gives it.
            template: the prior scan.
            out: folder of the cohort, whose files are named.
        """
        self._sides: dict[str, str] = {}
        for path, side in zip((reference, template), SIDES, strict=True):
            source = split_selector(path)[0]
            self._sides |= {str(one): side for one in (path, source, source.resolve())}
        self._out = out

    def file(self, path: PurePath) -> str:
        """Return the words for a file or folder."""
        if str(path) in self._sides:
            return self._sides[str(path)]
        return str(path) if path.is_relative_to(self._out) else INSIDE

    def message(self, error: BaseException) -> str:
        """Return an error in one line."""
        if isinstance(error, InputError):
            return self.text(error.render(self))
        return self.text(f"{type(error).__name__}: {error}".splitlines()[0])

    def text(self, text: str) -> str:
        """Return a text without the paths of the scans, the names of their files, and what their series are called."""
        text = _SERIES.sub(r"\1", _UID.sub("", text))
        text = _HEADER.sub(r"\1", text)
        known = self._names | self._sides
        found = sorted((name for name in known if name in text), key=len, reverse=True)
        if found:
            names = "|".join((self._own, *map(_pattern, found)))
            text = re.sub(names, lambda match: known.get(match[0], match[0]), text).replace(f" ({INSIDE})", "")
        return self._beside.sub(INSIDE, text)

    @property
    def _own(self) -> str:
        """Pattern of paths in the cohort's folder, which stay as they are; of none where scans lie in it."""
        if any(Path(name).is_relative_to(self._out) for name in self._sides):
            return r"(?!)"
        return rf"(?<![\w.-]){re.escape(str(self._out))}(?![\w.-])[^\s'\":;,()]*"

    @cached_property
    def _names(self) -> dict[str, str]:
        """Names of the scans and of the files and folders in them, looked up once."""
        names: dict[str, str] = {}
        for source in {Path(name) for name in self._sides}:
            names |= dict.fromkeys(islice(_names_in(source), MOST_NAMES), INSIDE)
        for path, side in self._sides.items():
            name = Path(path).name
            names |= dict.fromkeys((name, name.partition(".")[0], Path(path).stem), side)
        return {name: words for name, words in names.items() if name}

    @cached_property
    def _beside(self) -> re.Pattern[str]:
        """Paths of files that lie beside a scan of one file, such as those with the voxels of a header."""
        folders = {str(source.parent) for source in map(Path, self._sides) if len(source.parent.parts) > 1}
        place = "|".join(re.escape(folder) for folder in sorted(folders, key=len, reverse=True)) or r"(?!)"
        return re.compile(rf"(?!{self._own})(?<![\w.-])(?:{place})[\\/][^'\":;,()\n]+")


def _names_in(source: Path) -> Iterator[str]:
    """The names of all files and folders in a folder or a zip archive; none in any other file."""
    with suppress(OSError, zipfile.BadZipFile, NotImplementedError):
        if source.is_dir():
            for _folder, folders, files in os.walk(source):
                yield from (*folders, *files)
        elif zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive:
                for member in archive.namelist():
                    yield from (member, *PurePosixPath(member).parts)


def _pattern(name: str) -> str:
    """How a name is looked for: as a word if it is distinctive, otherwise only where nothing but a name can stand.

    A file may be called ``1``, ``20`` or ``CT``, and messages have numbers and words of their own.
    """
    word = re.escape(name)
    extension = re.search(r"\.[a-z]\w{0,5}$", name, re.I)
    plain = re.fullmatch(r"[\d.,+-]+", name) or name.lower() in COMMON
    if extension or len(Path(name).parts) > 1 or (len(name) >= DISTINCTIVE and not plain):
        return rf"(?<![\w.-]){word}(?![\w-])"
    # neither a share, 1/20, nor a unit
    return rf"(?<=\D[\\/]){word}(?![\w.-])|(?<![\w.-]){word}(?=[\\/]\D)|(?<=['\"]){word}(?=['\"])|(?<=: ){word}(?=: )"
