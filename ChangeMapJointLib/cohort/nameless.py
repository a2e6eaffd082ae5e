"""Messages about a pair without names of files and series, which may tell the patient: its id says which it is."""

from __future__ import annotations

import re
from pathlib import Path, PurePath

from ChangeMapJointLib.core.errors import InputError, Wording
from ChangeMapJointLib.io.read import split_selector

SIDES = ("the current scan", "the prior scan")
INSIDE = "a file"
_UID = re.compile(r"(, )?(UID )?\b\d+(\.\d+){4,}\b")
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
        names = {name: side for name, side in self._sides.items() if name in text}
        for source in (Path(name) for name in self._sides):
            if source.is_dir():
                names |= {file.name: INSIDE for file in source.rglob("*") if file.name in text}
        if not names:
            return text
        longest_first = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
        whole_words = rf"(?<![\w.-])(?:{longest_first})(?![\w-])"
        return re.sub(whole_words, lambda match: names[match[0]], text).replace(f" ({INSIDE})", "")
