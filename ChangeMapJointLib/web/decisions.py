"""A reader's decisions on the run on screen: shown on the page, stored beside the run, carried into its report."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.export.reading import write_reading
from ChangeMapJointLib.io.reading_file import ReadingFile
from ChangeMapJointLib.web.rows import Row

WATCH_S = 1.0  # how often reading.json is looked at for decisions of others
LONGEST_COMMENT = 2000


class PageDecisions:
    """``reading.json`` of one run, on trame's shared state.

    Attributes:
        file: what is stored; None without a run, and in a reading session.
    """

    def __init__(self, state: Any) -> None:
        """Make decisions on nothing.

        Args:
            state: of the trame server.
        """
        self._state = state
        self._folder: Path | None = None
        self.file: ReadingFile | None = None
        self._seen: tuple[int, int] | None = None

    def open(self, folder: Path | None, reader: str = "") -> None:
        """Show what is stored of a run.

        Args:
            folder: of the run; None for no run.
            reader: who decides; may be empty.
        """
        self._folder = folder
        self.file = None if folder is None else ReadingFile(folder, reader)
        self._seen = None
        self.show()

    def of(self, key: str) -> str:
        """Return the decision on a finding; empty without one."""
        return str(self._state.reviews.get(key, {}).get("decision", ""))

    def store(self, row: Row | None, **values: str) -> None:
        """Store a decision or a comment on a row of the list; see :meth:`ReadingFile.decide`."""
        if self.file is not None and row is not None:
            about = {"id": row["number"], "kind": row["rawKind"], "centre_mm": row["centre"]}
            self.file.decide(row["key"], about=about, **values)
            self._carry()

    def judge(self, verdict: str) -> None:
        """Store the reader's verdict on the registration."""
        if self.file is not None:
            self.file.judge(verdict)
            self._carry()

    def show(self) -> None:
        """Show what is stored."""
        if self.file is None:
            self._state.reviews, self._state.reader_verdict = {}, ""
            return
        try:
            content = self.file.read()
        except InputError as error:
            self._state.message = str(error)
            return
        self._state.reviews = {
            key: {name: entry.get(name, "") for name in ("decision", "comment")}
            for key, entry in content["findings"].items()
        }
        self._state.reader_verdict = content["registration"].get("verdict", "")

    async def watch(self) -> None:
        """Show decisions that another viewer stores, until cancelled."""
        while True:
            await asyncio.sleep(WATCH_S)
            if self.file is None:
                continue
            try:
                status = self.file.path.stat()
                seen: tuple[int, int] | None = (status.st_mtime_ns, status.st_size)
            except OSError:
                seen = None
            if seen != self._seen:
                self._seen = seen
                with self._state:
                    self.show()

    def _carry(self) -> None:
        """Show what is stored, and write it into the report; under the lock, so that no other viewer's is left out."""
        assert self.file is not None
        assert self._folder is not None
        self.show()
        with self.file.locked():
            write_reading(self._folder, self.file.read())
