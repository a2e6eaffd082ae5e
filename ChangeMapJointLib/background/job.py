"""Jobs: the folders through which 3D Slicer hands two scans to the background worker and gets a run back.

A job is a folder with

=====================================  ===================================================================
``job.json``                           what to do, see :class:`JobRequest`
``reference.nrrd``, ``template.nrrd``  the scans
``cancel``                             when it exists, the worker stops
``state.json``                         where the job stands, see :class:`JobState`
``worker.log``                         everything that the worker printed, and tracebacks
``lock``                               held by the worker as long as it lives
``loaded``                             the result has been loaded
``result``                             the run's folder; appears when it is whole
=====================================  ===================================================================

This file is imported into Slicer's own process: nothing heavy at file scope.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from ChangeMapJointLib.background.request import (
    SIDES,
    JobInput,
    JobRequest,
    read_json,
    read_request,
    write_json,
    write_request,
)
from ChangeMapJointLib.comparison.outcome import (
    CANCELLED,
    KILLED,
    OWNER_GONE,
    End,
    explain_end,
    explain_error,
    last_event,
)
from ChangeMapJointLib.comparison.output import is_run
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.process import end_group, is_alive, is_locked

__all__ = ["End", "Job", "JobInput", "JobRequest", "JobState", "clean_up", "explain_end", "jobs_in", "recoverable"]

FORMAT = "%Y%m%d-%H%M%S"
NAME = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")
LOG_SHOWN = 100_000  # characters of a log that are looked at


@dataclass(frozen=True)
class JobState:
    """Where a job stands.

    Attributes:
        state: ``waiting``, ``running``, ``finished``, ``failed`` or ``cancelled``.
        message: how it ended, in words.
        pid: the worker's process; None while waiting.
        started: ISO time.
        ended: ISO time.
    """

    state: str
    message: str = ""
    pid: int | None = None
    started: str | None = None
    ended: str | None = None


class Job:
    """The folder of one job; made by :meth:`create`, or found again by its path."""

    def __init__(self, folder: Path, request: JobRequest | None = None) -> None:
        """``request`` is kept until its volumes are written; without it, ``job.json`` says what to do."""
        self.folder = Path(folder)
        self._request = request

    @classmethod
    def create(cls, root: Path, request: JobRequest) -> Job:
        """A new folder in ``root`` that says what to do; :meth:`write_inputs` then adds the scans.

        Raises:
            InputError: it cannot be made, or the disk is full.
        """
        folder = root / f"{_stamp(root)}-{secrets.token_hex(2)}"
        try:
            folder.mkdir(parents=True, mode=0o700)  # scans of patients
            write_request(folder / "job.json", request)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            said = explain_error(error, root)
            if said is not None:
                raise InputError(said) from error
            raise InputError(
                f"cannot be made ({error.strerror})", field=folder, remedy="give another folder"
            ) from error
        return cls(folder, request)

    # -- what to do -------------------------------------------------------------------
    def write_inputs(self) -> None:
        """Write the scans, uncompressed. Needs no Qt and may run in a thread.

        Raises:
            InputError: the disk is full, or the folder is gone.
        """
        if self._request is None:
            return
        from ChangeMapJointLib.io.write import write_nrrd

        for side in SIDES:
            volume = getattr(self._request, side).volume
            if volume is None:
                raise ValueError(f"Job '{side}' has no volume to write")
            try:
                write_nrrd(self.input_file(side), volume.array, volume.grid, compress=False)
            except InputError as error:
                said = explain_error(error, self.folder)
                if said is None:
                    raise
                raise InputError(said) from error
        self._request = None  # the volumes are not kept in memory

    def input_file(self, side: str) -> Path:
        """Where the scan of ``side`` (``reference`` or ``template``) is."""
        return self.folder / f"{side}.nrrd"

    def read(self) -> JobRequest:
        """What ``job.json`` says, without volumes.

        Raises:
            InputError: missing, not JSON, of another schema, or a value of the wrong type.
        """
        return read_request(self.folder / "job.json")

    # -- where it stands --------------------------------------------------------------
    @property
    def lock_file(self) -> Path:
        """Locked by the worker as long as it lives."""
        return self.folder / "lock"

    @property
    def log_file(self) -> Path:
        """What the worker printed."""
        return self.folder / "worker.log"

    def log(self) -> str:
        """The last part of the worker's log; empty where there is none."""
        try:
            return self.log_file.read_text("utf-8", "replace")[-LOG_SHOWN:]
        except OSError:
            return ""

    def alive(self) -> bool:
        """Does its worker live?"""
        return is_locked(self.lock_file)

    def state(self) -> JobState:
        """Where the job stands; of a worker that died silently, ``failed``."""
        values = read_json(self.folder / "state.json")
        pid, message = values.get("pid"), str(values.get("message") or "")
        found = JobState(values.get("state", "waiting"), message, pid, values.get("started"), values.get("ended"))
        if found.state != "running" or self.alive():
            return found
        if self.cancel_requested:
            return JobState("cancelled", CANCELLED, found.pid, found.started)
        # its end was seen by nobody: Slicer was gone, too
        last = explain_end(None, [{"event": "started"}], self.log())
        return JobState("failed", OWNER_GONE if last == KILLED else last, found.pid, found.started)

    def write_state(self, state: str, message: str = "", **values: Any) -> None:
        """Keep where the job stands; where the disk is full, the old state stays."""
        old = {k: v for k, v in read_json(self.folder / "state.json").items() if k in ("pid", "started")}
        ended = {} if state == "running" else {"ended": now()}
        with suppress(OSError):
            write_json(self.folder / "state.json", {**old, "state": state, "message": message, **ended, **values})

    @property
    def result(self) -> Path | None:
        """The folder of the finished run, if there is one."""
        folder = self.folder / "result"
        return folder if is_run(folder) else None

    def conclude(self, return_code: int | None, events: Iterable[Mapping[str, Any]]) -> End:
        """Say how the run ended, once its process is gone; remove what it left half done.

        Args:
            return_code: of the process that was started.
            events: what it reported.
        """
        seen = list(events)
        last, result = last_event(seen), self.result
        if self.cancel_requested or (last and last["event"] == "cancelled"):
            state = "cancelled"
        else:
            state = "finished" if last and last["event"] == "finished" and result else "failed"
        message = CANCELLED if self.cancel_requested else explain_end(return_code, seen, self.log())
        if state != "finished":
            self.keep_log_only()
        if read_json(self.folder / "state.json").get("state") != state:
            self.write_state(state, message)
        log = self.log_file if self.log_file.exists() else None
        error = InputError.from_json(last.get("error")) if last and state == "failed" else None
        return End(state, message, return_code, result if state == "finished" else None, log, error)

    # -- stop and remove --------------------------------------------------------------
    @property
    def cancel_requested(self) -> bool:
        """Has the worker been asked to stop?"""
        return (self.folder / "cancel").exists()

    def request_cancel(self) -> None:
        """Ask the worker to stop; it does within a second unless it hangs. Returns at once."""
        with suppress(OSError):
            (self.folder / "cancel").touch()

    def kill_now(self) -> None:
        """End the worker and its children without asking; what they left stays for :meth:`conclude`."""
        pid = self.state().pid
        if pid is not None and self.alive():  # else the number may belong to somebody else by now
            end_group(pid, force=True)

    def kill(self, timeout_s: float = 2.0) -> bool:
        """Ask the worker to stop, end it where it does not, and wait for that.

        Returns:
            Whether it is gone.
        """
        self.request_cancel()
        start = time.monotonic()
        killed = False
        while self.alive():
            spent = time.monotonic() - start
            if spent > timeout_s:
                return False
            if spent > 0.65 * timeout_s and not killed:
                self.kill_now()
                killed = True
            time.sleep(0.01)
        return True

    def keep_log_only(self) -> None:
        """Remove the scans and whatever was half done; what tells of the failure stays."""
        for path in list(self.folder.iterdir()) if self.folder.is_dir() else ():
            if path.name in ("job.json", "state.json", "worker.log", "cancel", "lock", "result.refused.png"):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()

    def remove(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- later ------------------------------------------------------------------------
    @property
    def loaded(self) -> bool:
        """Has the result been loaded?"""
        return (self.folder / "loaded").exists()

    def mark_loaded(self) -> None:
        """Keep in mind that the result has been loaded; nobody needs its scans any more."""
        with suppress(OSError):
            (self.folder / "loaded").touch()
        for side in SIDES:
            with suppress(OSError):
                self.input_file(side).unlink()

    @property
    def owner(self) -> int | None:
        """The process that made the job."""
        owner = read_json(self.folder / "job.json").get("owner")
        return owner if isinstance(owner, int) and owner > 0 else None

    @property
    def in_use_elsewhere(self) -> bool:
        """Is it the job of another program that still runs, such as a second Slicer?"""
        return self.owner not in (None, os.getpid()) and is_alive(self.owner or 0)


def jobs_in(root: Path) -> list[Job]:
    """All jobs in ``root``, newest first."""
    with suppress(OSError):
        names = sorted((p.name for p in root.iterdir() if NAME.fullmatch(p.name) and p.is_dir()), reverse=True)
        return [Job(root / name) for name in names]
    return []


def _stamp(root: Path) -> str:
    """The time, or that of the newest job where the clock was set back since: names give the order of jobs."""
    current = f"{datetime.now(timezone.utc):{FORMAT}}"
    return max([current, *(_after(job.folder.name) for job in jobs_in(root)[:1])])


def _after(name: str) -> str:
    """The stamp one second after that of a job's name; of one that is no time, the stamp itself."""
    stamp = name[:15]
    try:
        return f"{datetime.strptime(stamp, FORMAT) + timedelta(seconds=1):{FORMAT}}"
    except (ValueError, OverflowError):
        return stamp


def recoverable(root: Path) -> Job | None:
    """The newest job in ``root`` that finished and was not loaded yet."""
    for job in jobs_in(root):
        if job.result is not None and not job.loaded and not job.in_use_elsewhere and job.state().state == "finished":
            return job
    return None


def clean_up(root: Path, keep: int = 5) -> None:
    """Remove what nobody needs: cancelled jobs, the scans of failed ones, and all but the newest.

    Jobs whose worker or whose Slicer lives are left alone, as is everything in ``root`` that is no job.

    Args:
        root: folder of the jobs.
        keep: how many jobs that ended stay, results and logs.
    """
    ended = []
    for job in jobs_in(root):
        state = job.state()
        if state.state == "running" or job.in_use_elsewhere or (state.state == "waiting" and job.owner == os.getpid()):
            continue
        if state.state in ("waiting", "cancelled"):
            job.remove()
            continue
        ended.append(job)
        if state.state == "failed":
            job.keep_log_only()
            if state.ended is None:
                job.write_state("failed", state.message)
    for job in ended[keep:]:
        job.remove()


def now() -> str:
    """The time, ISO, UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
