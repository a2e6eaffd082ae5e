"""Jobs: folders through which 3D Slicer passes two scans to the background worker and gets the result back.

A job is a folder with

=====================================  ===================================================================
``job.json``                           what to do, see :class:`JobRequest`
``reference.nrrd``, ``template.nrrd``  the scans
``cancel``                             the worker stops when this file exists
``state.json``                         the state of the job, see :class:`JobState`
``worker.log``                         everything that the worker printed, and tracebacks
``lock``                               held by the worker while it runs
``loaded``                             exists when the result has been loaded
``result``                             the run's folder; appears when it is complete
=====================================  ===================================================================

Slicer imports this file into its own process, so it must not import anything heavy at module level.
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
    read_object,
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

__all__ = ["End", "Job", "JobInput", "JobRequest", "JobState", "clean_up_jobs", "explain_end", "jobs_in", "recoverable"]

FORMAT = "%Y%m%d-%H%M%S"
NAME = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")
LOG_SHOWN = 100_000  # characters that are read from the end of a log


@dataclass(frozen=True)
class JobState:
    """The state of a job.

    Attributes:
        state: ``waiting``, ``running``, ``finished``, ``failed`` or ``cancelled``.
        message: for the user; how the job ended.
        pid: process number of the worker; None while waiting.
        started: ISO time.
        ended: ISO time.
    """

    state: str
    message: str = ""
    pid: int | None = None
    started: str | None = None
    ended: str | None = None


class Job:
    """The folder of one job; made by :meth:`create`, or opened by its path."""

    def __init__(self, folder: Path, request: JobRequest | None = None) -> None:
        """Open a job's folder; ``request`` is needed only until :meth:`write_inputs` has written its volumes."""
        self.folder = Path(folder)
        self._request = request

    @classmethod
    def create(cls, root: Path, request: JobRequest) -> Job:
        """Make a job's folder in ``root`` with its ``job.json``; :meth:`write_inputs` adds the scans.

        Raises:
            InputError: the folder cannot be made, or the disk is full.
        """
        folder = root / f"{_stamp(root)}-{secrets.token_hex(2)}"
        try:
            folder.mkdir(parents=True, mode=0o700)  # scans of patients
            write_request(folder / "job.json", request)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            message = explain_error(error, root)
            if message is not None:
                raise InputError(message) from error
            raise InputError(
                f"cannot be made ({error.strerror})", field=folder, remedy="give another folder"
            ) from error
        return cls(folder, request)

    # -- request and scans -------------------------------------------------------------------
    def write_inputs(self) -> None:
        """Write the scans, uncompressed. It does not use Qt and may run in a thread.

        Raises:
            InputError: the disk is full, or the folder no longer exists.
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
                message = explain_error(error, self.folder)
                if message is None:
                    raise
                raise InputError(message) from error
        self._request = None  # frees the volumes

    def input_file(self, side: str) -> Path:
        """Return the path of the scan of ``side``, ``reference`` or ``template``."""
        return self.folder / f"{side}.nrrd"

    def read(self) -> JobRequest:
        """Read ``job.json``; the request has no volumes.

        Raises:
            InputError: the file is missing, is not JSON, has another schema, or a value of the wrong type.
        """
        return read_request(self.folder / "job.json")

    # -- state --------------------------------------------------------------
    @property
    def lock_file(self) -> Path:
        """Path of the file that the worker locks while it runs."""
        return self.folder / "lock"

    @property
    def log_file(self) -> Path:
        """Path of the log: everything that the worker printed."""
        return self.folder / "worker.log"

    def log(self) -> str:
        """Return the end of the worker's log; empty if there is none."""
        try:
            return self.log_file.read_text("utf-8", "replace")[-LOG_SHOWN:]
        except OSError:
            return ""

    def alive(self) -> bool:
        """Return whether the worker is running."""
        return is_locked(self.lock_file)

    def state(self) -> JobState:
        """Return the state of the job; ``failed`` if the worker died without writing its end."""
        values = read_object(self.folder / "state.json")
        pid, message = values.get("pid"), str(values.get("message") or "")
        state = JobState(values.get("state", "waiting"), message, pid, values.get("started"), values.get("ended"))
        if state.state != "running" or self.alive():
            return state
        if self.cancel_requested:
            return JobState("cancelled", CANCELLED, state.pid, state.started)
        # nothing recorded the end: Slicer had ended, too
        reason = explain_end(None, [{"event": "started"}], self.log())
        return JobState("failed", OWNER_GONE if reason == KILLED else reason, state.pid, state.started)

    def write_state(self, state: str, message: str = "", **values: Any) -> None:
        """Write the state of the job; if the disk is full, the old state stays."""
        old = {k: v for k, v in read_object(self.folder / "state.json").items() if k in ("pid", "started")}
        ended = {} if state == "running" else {"ended": now()}
        with suppress(OSError):
            write_json(self.folder / "state.json", {**old, "state": state, "message": message, **ended, **values})

    @property
    def result(self) -> Path | None:
        """Path of the finished run; None if there is none."""
        folder = self.folder / "result"
        return folder if is_run(folder) else None

    def conclude(self, return_code: int | None, events: Iterable[Mapping[str, Any]]) -> End:
        """Determine how the run ended, once its process is gone, and remove incomplete files.

        Args:
            return_code: of the process that was started; None if it was not started.
            events: what the worker reported.
        """
        events = list(events)
        last, result = last_event(events), self.result
        if self.cancel_requested or (last and last["event"] == "cancelled"):
            state = "cancelled"
        else:
            state = "finished" if last and last["event"] == "finished" and result else "failed"
        message = CANCELLED if self.cancel_requested else explain_end(return_code, events, self.log())
        if state != "finished":
            self.keep_log_only()
        if read_object(self.folder / "state.json").get("state") != state:
            self.write_state(state, message)
        log = self.log_file if self.log_file.exists() else None
        error = InputError.from_json(last.get("error")) if last and state == "failed" else None
        return End(state, message, return_code, result if state == "finished" else None, log, error)

    # -- stop and remove --------------------------------------------------------------
    @property
    def cancel_requested(self) -> bool:
        """Whether the worker has been asked to stop."""
        return (self.folder / "cancel").exists()

    def request_cancel(self) -> None:
        """Ask the worker to stop, which takes up to a second; returns at once."""
        with suppress(OSError):
            (self.folder / "cancel").touch()

    def kill_now(self) -> None:
        """Kill the worker and its child processes; :meth:`conclude` removes what they left."""
        pid = self.state().pid
        if pid is not None and self.alive():  # else the number may belong to another process by now
            end_group(pid, force=True)

    def kill(self, timeout_s: float = 2.0) -> bool:
        """Ask the worker to stop, kill it if it does not, and wait for its end.

        Args:
            timeout_s: seconds to wait in all; the worker is killed after 65 % of them.

        Returns:
            Whether the worker has ended.
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
        """Remove the scans and incomplete results; keep the files that describe the failure."""
        for path in list(self.folder.iterdir()) if self.folder.is_dir() else ():
            if path.name in ("job.json", "state.json", "worker.log", "cancel", "lock", "result.refused.png"):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()

    def remove(self) -> None:
        """Remove the folder and its content."""
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- later ------------------------------------------------------------------------
    @property
    def loaded(self) -> bool:
        """Whether the result has been loaded."""
        return (self.folder / "loaded").exists()

    def mark_loaded(self) -> None:
        """Record that the result has been loaded, and remove the scans, which are no longer needed."""
        with suppress(OSError):
            (self.folder / "loaded").touch()
        for side in SIDES:
            with suppress(OSError):
                self.input_file(side).unlink()

    @property
    def owner(self) -> int | None:
        """Number of the process that made the job; None if unknown."""
        owner = read_object(self.folder / "job.json").get("owner")
        return owner if isinstance(owner, int) and owner > 0 else None

    @property
    def in_use_elsewhere(self) -> bool:
        """Whether the job belongs to another running program, such as a second Slicer."""
        return self.owner not in (None, os.getpid()) and is_alive(self.owner or 0)


def jobs_in(root: Path) -> list[Job]:
    """Return all jobs in ``root``, newest first."""
    with suppress(OSError):
        names = sorted((p.name for p in root.iterdir() if NAME.fullmatch(p.name) and p.is_dir()), reverse=True)
        return [Job(root / name) for name in names]
    return []


def _stamp(root: Path) -> str:
    """Return the time for a new job's name; later than the newest job's even if the clock was set back.

    The names give the order of the jobs.
    """
    current = f"{datetime.now(timezone.utc):{FORMAT}}"
    return max([current, *(_after(job.folder.name) for job in jobs_in(root)[:1])])


def _after(name: str) -> str:
    """Return the time one second after that in a job's name; if it is not a valid time, return it unchanged."""
    stamp = name[:15]
    try:
        return f"{datetime.strptime(stamp, FORMAT) + timedelta(seconds=1):{FORMAT}}"
    except (ValueError, OverflowError):
        return stamp


def recoverable(root: Path) -> Job | None:
    """Return the newest job in ``root`` that finished and was not loaded yet, or None."""
    for job in jobs_in(root):
        if job.result is not None and not job.loaded and not job.in_use_elsewhere and job.state().state == "finished":
            return job
    return None


def clean_up_jobs(root: Path, keep: int = 5) -> None:
    """Remove cancelled jobs, the scans of failed jobs, and all ended jobs but the newest.

    Jobs whose worker or whose Slicer is running are left alone, like everything in ``root`` that is not a job.

    Args:
        root: folder of the jobs.
        keep: number of ended jobs to keep, with results and logs.
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
    """Return the current time in UTC, ISO format."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
