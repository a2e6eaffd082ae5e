"""The background run: a worker process of its own, followed from Slicer's main thread."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from ChangeMapJointGui.signals import ignore
from ChangeMapJointLib.background.job import End, Job
from ChangeMapJointLib.core.errors import InputError

POLL_MS = 50
LET_THREAD_WORK_S = 0.02
KILL_AFTER_MS = 1300  # the worker stops within a second by itself; a cancelled run is gone within two
WORKER = "ChangeMapJointLib.background.worker"


def pythonOfSlicer() -> str:
    """Slicer's own Python: a launcher that sets up the libraries and starts the real one."""
    return shutil.which("PythonSlicer") or sys.executable


class BackgroundRun:
    """Runs one job in a process of its own; callbacks arrive on the main thread.

    Everything goes through the event loop: hand the scans over (in a thread), start the worker, read its
    lines, say how it ended. ``onEvent`` gets the worker's events as dictionaries, and what it printed
    besides as ``{"event": "log", "text": ...}``; ``onEnd`` gets an
    :class:`~ChangeMapJointLib.comparison.outcome.End`, once, when the process is gone.
    """

    def __init__(
        self,
        job: Job,
        python: str | None = None,
        environment: dict[str, str] | None = None,
        onEvent: Callable[[dict[str, Any]], None] = ignore,
        onEnd: Callable[[End], None] = ignore,
    ) -> None:
        """``environment`` is added to the one of this process."""
        self.job, self.python = job, python or pythonOfSlicer()
        self.environment = dict(environment or {})
        self.onEvent, self.onEnd = onEvent, onEnd
        self.end: End | None = None
        self._events: list[dict[str, Any]] = []
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None
        self._returned: float | None = None
        self._handedOver: InputError | None = None
        self._lines: queue.Queue[str | int | None] = queue.Queue()

    @property
    def running(self) -> bool:
        """Started and not ended yet."""
        return self._thread is not None and self.end is None

    def start(self) -> None:
        """Hand the scans over and start the worker; returns at once."""
        if self._thread is not None:
            raise RuntimeError("BackgroundRun.start() was called twice")
        self._thread = threading.Thread(target=self._handOver, daemon=True)
        self._thread.start()
        qt.QTimer.singleShot(0, self._onHandedOver)

    def cancel(self) -> None:
        """Ask the worker to stop, and end it when it does not; returns at once, ``onEnd`` follows."""
        if not self.running:
            return
        self.job.request_cancel()
        qt.QTimer.singleShot(KILL_AFTER_MS, self._onPatienceOver)

    def stop(self, timeout: float = 2.0) -> End | None:
        """End the worker now, because Slicer quits or the module goes: waits for it, calls nobody back.

        Args:
            timeout: in seconds.

        Returns:
            How it ended: the log stays and says that Slicer was closed. None when nothing ran.
        """
        if not self.running:
            return self.end
        self.onEvent = self.onEnd = ignore
        if self._thread is not None:
            self._thread.join(timeout)
        self.job.kill(timeout)
        self._killProcess()
        said = _("3D Slicer was closed while the comparison was running; nothing was kept. Start it again.")
        self.job.keep_log_only()
        self.job.write_state("failed", said)
        self.end = End("failed", said, log=self.job.log_file if self.job.log_file.exists() else None)
        return self.end

    def wait(self, timeout: float | None = None) -> End | None:
        """Keep Slicer alive until the run has ended; None when it has not after ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.running and (deadline is None or time.monotonic() < deadline):
            slicer.app.processEvents()
            time.sleep(0.01)
        return self.end

    # -- steps, each called by the event loop -------------------------------------------
    def _handOver(self) -> None:
        """In a thread: hundreds of megabytes are written."""
        try:
            self.job.write_inputs()
        except InputError as error:
            self._handedOver = error

    def _onHandedOver(self) -> None:
        if self.end is not None:
            return
        if self._thread is not None:
            self._thread.join(LET_THREAD_WORK_S)  # where the event loop keeps Python's lock, a thread gets none
        if self._thread is not None and self._thread.is_alive():
            qt.QTimer.singleShot(0, self._onHandedOver)
        elif self._handedOver is not None:
            self._fail(str(self._handedOver), self._handedOver)
        elif self.job.cancel_requested:
            self._onCompleted(0)
        else:
            self._launch()

    def _launch(self) -> None:
        command = [self.python, "-m", WORKER, str(self.job.folder), "--owner", str(os.getpid())]
        try:
            if hasCallbacks(slicer.util):
                self._process = slicer.util.launchConsoleProcess(
                    command,
                    useStartupEnvironment=False,
                    updateEnvironment=self._environment(),
                    cwd=str(libraryRoot()),
                    blocking=False,
                    logCallback=self._onLine,
                    completedCallback=self._onCompleted,
                )
            else:
                self._process = launch(command, {**os.environ, **self._environment()}, libraryRoot())
                threading.Thread(target=self._read, daemon=True).start()
                qt.QTimer.singleShot(POLL_MS, self._onPoll)
        except OSError as error:
            text = _("The comparison could not be started: {program}: {why}")
            self._fail(text.format(program=self.python, why=error.strerror))

    def _environment(self) -> dict[str, str]:
        paths = [str(libraryRoot()), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        ours = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
        return {**ours, **self.environment}

    def _read(self) -> None:
        """In a thread, before Slicer 5.12: lines, then the exit code."""
        assert self._process is not None
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                self._lines.put(line.rstrip())
        self._lines.put(self._process.wait())

    def _onPoll(self) -> None:
        while not self._lines.empty():
            item = self._lines.get()
            if isinstance(item, int):
                self._onCompleted(item)
                return
            self._onLine(str(item))
        if self.end is None:
            qt.QTimer.singleShot(POLL_MS, self._onPoll)

    def _onLine(self, line: str) -> None:
        """One line of the worker: an event, or what came before it could send its output to the log."""
        if self.end is not None:
            return
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, dict) or "event" not in event:
            with contextlib.suppress(OSError), self.job.log_file.open("a", encoding="utf-8") as log:
                log.write(line + "\n")
            event = {"event": "log", "text": line}
        else:
            self._events.append(event)
        guarded(self.onEvent, event)

    def _onCompleted(self, returnCode: int) -> None:
        if self.end is not None:
            return
        if self.job.alive():  # the launcher went first; what it started follows, or is made to
            self._returned = self._returned or time.monotonic()
            if 1000 * (time.monotonic() - self._returned) > KILL_AFTER_MS:
                self.job.kill_now()
            qt.QTimer.singleShot(POLL_MS, lambda: self._onCompleted(returnCode))
            return
        self._conclude(self.job.conclude(returnCode, self._events))

    def _onPatienceOver(self) -> None:
        if self.running:
            self.job.kill_now()
            self._killProcess()

    def _fail(self, message: str, error: InputError | None = None) -> None:
        """It never ran."""
        parts = None if error is None else error.to_json()
        self._conclude(self.job.conclude(None, [{"event": "error", "message": message, "error": parts}]))

    def _conclude(self, end: End) -> None:
        if end.state == "cancelled":
            self.job.remove()  # nothing is left behind
        self.end = end
        guarded(self.onEnd, end)

    def _killProcess(self) -> None:
        """End what was started, which may be a launcher; the worker itself is ended by its job."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(OSError):
                self._process.kill()


def hasCallbacks(util: Any) -> bool:
    """Does ``launchConsoleProcess`` follow a process by itself (Slicer 5.12)?"""
    known = inspect.signature(util.launchConsoleProcess).parameters
    return {"blocking", "logCallback", "completedCallback"} <= set(known)


def launch(command: list[str], environment: dict[str, str], folder: Path) -> subprocess.Popen[str]:
    """Start ``command`` in a session of its own, without a console window on Windows (not tested there)."""
    windows = os.name == "nt"
    return subprocess.Popen(
        command,
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=not windows,
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0) if windows else 0,
    )


def libraryRoot() -> Path:
    """The folder that holds ``ChangeMapJointLib``."""
    import ChangeMapJointLib

    return Path(ChangeMapJointLib.__file__).resolve().parents[1]


def guarded(callback: Callable[[Any], None], what: Any) -> None:
    """Call back; an error in there is shown as any error in a slot, and must not stop us from following the run."""
    try:
        callback(what)
    except Exception:
        sys.excepthook(*sys.exc_info())
