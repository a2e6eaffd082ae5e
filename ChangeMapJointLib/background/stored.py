"""What ended jobs have left in their folder: listed with its size, and deleted where the user asks."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ChangeMapJointLib.background.job import Job, jobs_in
from ChangeMapJointLib.background.request import read_object


@dataclass(frozen=True)
class StoredJob:
    """An ended job.

    Attributes:
        name: of its folder.
        time: when it ended, else when it started, UTC, to the minute; empty if unknown.
        method: of the comparison; empty if unknown.
        state: ``finished``, ``failed`` or ``cancelled``.
        bytes: its size on the disk.
    """

    name: str
    time: str
    method: str
    state: str
    bytes: int


def stored_jobs(root: Path) -> list[StoredJob]:
    """Return the ended jobs in ``root``, newest first; not those of another program that is running."""
    return [_stored(job) for job in jobs_in(root) if _deletable(job)]


def delete_stored(root: Path, names: Collection[str]) -> None:
    """Delete these ended jobs; a name that is not one of theirs is ignored."""
    for job in jobs_in(root):
        if job.folder.name in names and _deletable(job):
            job.remove()


def _deletable(job: Job) -> bool:
    state = job.state().state
    if state == "waiting" and job.owner == os.getpid():
        return False  # it is about to start
    return state != "running" and not job.in_use_elsewhere


def _stored(job: Job) -> StoredJob:
    state = job.state()
    time = (state.ended or state.started or "")[:16].replace("T", " ")
    method = read_object(job.folder / "job.json").get("method")
    return StoredJob(job.folder.name, time, str(method or ""), state.state, _size(job.folder))


def _size(folder: Path) -> int:
    total = 0
    for path, _folders, files in os.walk(folder):
        for name in files:
            with suppress(OSError):  # it has just gone
                total += (Path(path) / name).lstat().st_size
    return total
