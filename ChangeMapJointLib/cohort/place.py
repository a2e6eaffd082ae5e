"""Where a cohort keeps what: its own files, and those of each pair.

::

    OUT/cohort.json            options, version, and a mark by which workers recognise the folder
    OUT/table.csv, .parquet    one row per pair
    OUT/overview.html          one row and one picture per pair
    OUT/pairs/ID/result/       the folder of the run, as ``changemap run`` writes it
    OUT/pairs/ID/record.json   what it was made of, hashes of its files, and how it ended
    OUT/pairs/ID/thumbnail.png
    OUT/pairs/ID/history.log   every start and every end
    OUT/pairs/ID/reading.earlier-1.json   a reader's decisions on a result that was replaced

Each pair has a folder of its own, since a run lists the folder that its result appears in.
"""

from __future__ import annotations

import itertools
import os
import shutil
import socket
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from ChangeMapJointLib.comparison.output import clean_up_run, is_run
from ChangeMapJointLib.io import run_files

COHORT, TABLE_CSV, TABLE_PARQUET, OVERVIEW = "cohort.json", "table.csv", "table.parquet", "overview.html"
PAIRS, RESULT, RECORD, THUMBNAIL, HISTORY = "pairs", "result", "record.json", "thumbnail.png", "history.log"


@dataclass(frozen=True)
class PairPlace:
    """The folder of one pair.

    Attributes:
        out: the cohort's folder.
        id: of the pair.
    """

    out: Path
    id: str

    @property
    def folder(self) -> Path:
        """Everything of the pair."""
        return self.out / PAIRS / self.id

    @property
    def result(self) -> Path:
        """The folder of its run."""
        return self.folder / RESULT

    @property
    def record(self) -> Path:
        """What the result was made of."""
        return self.folder / RECORD

    @property
    def thumbnail(self) -> Path:
        """A small picture."""
        return self.folder / THUMBNAIL

    @property
    def fault_log(self) -> Path:
        """The traceback of a fault."""
        return self.folder / "fault.log"

    def of(self, name: str) -> PairPlace:
        """Return the folder of another pair of the cohort."""
        return PairPlace(self.out, name)

    # -- history ----------------------------------------------------------------------------
    def note(self, what: str, session: str) -> None:
        """Append a line to the history: what happened, in which session, where."""
        self.folder.mkdir(parents=True, exist_ok=True)
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        with (self.folder / HISTORY).open("a", encoding="utf-8") as stream:
            stream.write(f"{now}\t{what}\t{session}\t{socket.gethostname()}\t{os.getpid()}\n")

    def history(self, what: str, session: str | None = None) -> int:
        """Return how often something happened: in one session, or ever."""
        try:
            text = (self.folder / HISTORY).read_text("utf-8", errors="replace")
        except OSError:
            return 0
        entries = [line.split("\t") for line in text.splitlines()]
        return sum(len(e) > 2 and e[1] == what and session in (None, e[2]) for e in entries)

    # -- result -----------------------------------------------------------------------------
    def make_room(self) -> bool:
        """Get ready for a new result.

        Returns:
            Whether there is an earlier result, which the new one replaces once it is complete. A folder without
            ``run.json`` does not count: it is removed if it holds nothing but files of a run.
        """
        clean_up_run(self.result.resolve())
        if not self.result.is_dir():
            return False
        if not is_run(self.result) and run_files.names_in(self.result) <= run_files.FILES:
            shutil.rmtree(self.result)
            return False
        self._keep_reading()
        return True

    def _keep_reading(self) -> None:
        """Put a reader's decisions beside a result that is about to be replaced."""
        reading = self.result / run_files.READING
        if reading.exists():
            names = (self.folder / f"reading.earlier-{number}.json" for number in itertools.count(1))
            shutil.copyfile(reading, next(path for path in names if not path.exists()))

    def drop_result(self) -> None:
        """Remove a result that does not belong to the scans as they are now, if it holds nothing but files of a run."""
        with suppress(OSError):
            self.thumbnail.unlink()
        with suppress(OSError):
            if run_files.names_in(self.result) <= run_files.FILES:
                shutil.rmtree(self.result)

    def sweep(self) -> int:
        """Remove what workers that were killed left half-way, on any host; only while no worker is at this pair.

        Returns:
            The number of folders removed.
        """
        count = 0
        try:
            leftovers = [path for path in self.folder.iterdir() if path.name.startswith(".")]
        except OSError:
            return 0
        for path in leftovers:
            if path.suffix == ".old" and path.is_dir() and not self.result.exists():
                path.rename(self.result)
            elif path.is_dir() and path.suffix in (".old", ".partial"):
                shutil.rmtree(path, ignore_errors=True)
                count += 1
            elif path.is_file():  # of a record or picture that was being written
                path.unlink(missing_ok=True)
                count += 1
        return count
