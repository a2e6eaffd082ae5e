"""The background run: a separate worker process, followed from Slicer's main thread."""

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
from ChangeMapJointLib.core.process import sleeping_threads

POLL_MS = 50
LET_THREAD_WORK_S = 0.02  # the main thread sleeps this long to let the writing thread run
KILL_AFTER_MS = 1300  # the worker itself stops within a second; a cancelled run is gone within two
WORKER = "ChangeMapJointLib.background.worker"


def pythonOfSlicer() -> str:
    """Return the path of Slicer's Python: a launcher that sets up the libraries and starts the interpreter."""
    return shutil.which("PythonSlicer") or sys.executable


class BackgroundRun:
    """Runs one job in a separate process; callbacks are called on the main thread.

    The event loop drives all steps: write the scans (in a thread), start the worker, read its lines, report its end.
    ``onEvent`` gets the worker's events as dictionaries, and other output as ``{"event": "log", "text": ...}``.
    ``onEnd`` gets an :class:`~ChangeMapJointLib.comparison.outcome.End`, once, when the process is gone.
    """

    def __init__(
        self,
        job: Job,
        python: str | None = None,
        environment: dict[str, str] | None = None,
        onEvent: Callable[[dict[str, Any]], None] = ignore,
        onEnd: Callable[[End], None] = ignore,
    ) -> None:
        """Prepare the run; :meth:`start` starts it.

        Args:
            job: the job to run.
            python: the interpreter; Slicer's own by default.
            environment: variables to add to those of this process.
            onEvent: called with each event.
            onEnd: called once, when the process is gone.
        """
        self.job, self.python = job, python or pythonOfSlicer()
        self.environment = dict(environment or {})
        self.onEvent, self.onEnd = onEvent, onEnd
        self.end: End | None = None
        self._events: list[dict[str, Any]] = []
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None
        self._returned: float | None = None
        self._writeError: InputError | None = None
        self._lines: queue.Queue[str | int | None] = queue.Queue()

    @property
    def running(self) -> bool:
        """Whether the run was started and has not ended."""
        return self._thread is not None and self.end is None

    def start(self) -> None:
        """Write the scans and start the worker; returns at once."""
        if self._thread is not None:
            raise RuntimeError("BackgroundRun.start() was called twice")
        self._thread = threading.Thread(target=self._handOver, daemon=True)
        self._thread.start()
        qt.QTimer.singleShot(0, self._onHandedOver)

    def cancel(self) -> None:
        """Ask the worker to stop, and kill it if it does not; returns at once, ``onEnd`` is called later."""
        if not self.running:
            return
        self.job.request_cancel()
        qt.QTimer.singleShot(KILL_AFTER_MS, self._onPatienceOver)

    def stop(self, timeout: float = 2.0) -> End | None:
        """End the worker now, since Slicer quits or the module is unloaded. Waits for it, and calls no callback.

        Args:
            timeout: in seconds.

        Returns:
            How it ended; the log is kept. None if the run was never started.
        """
        if not self.running:
            return self.end
        self.onEvent = self.onEnd = ignore
        if self._thread is not None:
            self._thread.join(timeout)
        self.job.kill(timeout)
        self._killProcess()
        message = _("3D Slicer was closed while the comparison was running; nothing was kept. Start it again.")
        self.job.keep_log_only()
        self.job.write_state("failed", message)
        self.end = End("failed", message, log=self.job.log_file if self.job.log_file.exists() else None)
        return self.end

    def wait(self, timeout: float | None = None) -> End | None:
        """Process Slicer's events until the run has ended; None if it has not after ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.running and (deadline is None or time.monotonic() < deadline):
            slicer.app.processEvents()
            time.sleep(0.01)
        return self.end

    # -- steps, each called by the event loop -------------------------------------------
    def _handOver(self) -> None:
        """Write the scans, hundreds of megabytes; runs in a thread."""
        try:
            self.job.write_inputs()
        except InputError as error:
            self._writeError = error

    def _onHandedOver(self) -> None:
        if self.end is not None:
            return
        if self._thread is not None:
            self._thread.join(LET_THREAD_WORK_S)  # an event loop that keeps Python's lock gives a thread no time
        if self._thread is not None and self._thread.is_alive():
            qt.QTimer.singleShot(0, self._onHandedOver)
        elif self._writeError is not None:
            self._fail(str(self._writeError), self._writeError)
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
        return {**libraryEnvironment(), **self.environment}

    def _read(self) -> None:
        """Queue the worker's lines, then its exit code; runs in a thread, before Slicer 5.12."""
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
        """Handle a line of the worker: an event, or output from before it redirected its output to the log."""
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
        if self.job.alive():  # only the launcher has ended; wait for the worker, and kill it in the end
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
        """Report that the worker was never started."""
        parts = None if error is None else error.to_json()
        self._conclude(self.job.conclude(None, [{"event": "error", "message": message, "error": parts}]))

    def _conclude(self, end: End) -> None:
        if end.state == "cancelled":
            self.job.remove()
        self.end = end
        guarded(self.onEnd, end)

    def _killProcess(self) -> None:
        """Kill the process that was started, which may be a launcher; the job kills the worker itself."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(OSError):
                self._process.kill()


def hasCallbacks(util: Any) -> bool:
    """Return whether ``launchConsoleProcess`` can follow a process by itself (Slicer 5.12)."""
    parameters = inspect.signature(util.launchConsoleProcess).parameters
    return {"blocking", "logCallback", "completedCallback"} <= set(parameters)


def launch(command: list[str], environment: dict[str, str], folder: Path) -> subprocess.Popen[str]:
    """Start ``command`` in a new session, without a console window on Windows (not tested there)."""
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


def libraryEnvironment() -> dict[str, str]:
    """Return the variables with which a Python process finds the library, and writes its lines at once in UTF-8.

    Its idle threads leave the cores to Slicer.
    """
    paths = [str(libraryRoot()), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    own = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
    return {**own, **sleeping_threads()}


def libraryRoot() -> Path:
    """Return the folder that holds ``ChangeMapJointLib``."""
    import ChangeMapJointLib

    return Path(ChangeMapJointLib.__file__).resolve().parents[1]


def guarded(callback: Callable[[Any], None], value: Any) -> None:
    """Call ``callback(value)``; an error is shown like any error in a slot, and the run is still followed."""
    try:
        callback(value)
    except Exception:
        sys.excepthook(*sys.exc_info())
