"""The background worker: ``python -m ChangeMapJointLib.background.worker JOB_FOLDER [--owner PID]``.

It compares the two scans of a job (see :mod:`ChangeMapJointLib.background.job`) in a separate process, so that the
program that started it stays responsive. It writes JSON lines to standard output: ``started``, then the same events as
the command line. An ``error`` event holds the message, and under ``error`` its parts (see
:meth:`~ChangeMapJointLib.core.errors.InputError.to_json`). Everything else that is printed goes to ``worker.log``.

It stops within a second when the file ``cancel`` appears, on SIGTERM, or when its owner has ended, and leaves no
incomplete files: a thread watches for these, asks the main thread to clean up, and cleans up itself if the main thread
is stuck in a long computation.
"""

from __future__ import annotations

import _thread
import argparse
import faulthandler
import io
import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ChangeMapJointLib.background.job import Job, now
from ChangeMapJointLib.background.request import SIDES, JobInput, JobRequest
from ChangeMapJointLib.comparison.events import (
    EXIT_CANCELLED,
    EXIT_FAULT,
    EXIT_INPUT,
    OutputClosed,
    cancel_on_signals,
    emit,
    json_line,
    json_listener,
    write_now,
)
from ChangeMapJointLib.comparison.outcome import CANCELLED, OWNER_GONE, explain_error
from ChangeMapJointLib.comparison.stages import ProgressEvent
from ChangeMapJointLib.core.errors import Argument, Cancelled, InputError
from ChangeMapJointLib.core.process import end_children, is_alive, lead_group, lock_until_exit
from ChangeMapJointLib.io import run_files

if TYPE_CHECKING:
    from ChangeMapJointLib.comparison.inputs import Label
    from ChangeMapJointLib.comparison.run import Request

LOOK_S = 0.1  # between two checks of the file ``cancel`` and of the owner
PATIENCE_S = 0.7  # time for the main thread to clean up
EXIT_FINISHED = 0


class Worker:
    """Runs one job, and reports its progress and its end."""

    def __init__(self, job: Job, owner: int | None, stream: IO[str] | None) -> None:
        """Prepare the job; :meth:`work` does it.

        Args:
            job: the job to do.
            owner: number of the process for which the work is done; None if it is not to be watched.
            stream: takes the JSON lines; None if there is no standard output.
        """
        self.job, self.owner, self.stream = job, owner, stream
        self.parent = os.getppid()
        self.stopped: str | None = None  # the reason, once the job is to stop
        self.ended = threading.Event()
        self._ending = threading.Lock()
        self._code = EXIT_FAULT

    def work(self) -> int:
        """Do the job, and return the exit code."""
        self.job.write_state("running", pid=os.getpid(), started=now())
        try:
            with cancel_on_signals():
                self.send("started", pid=os.getpid())
                threading.Thread(target=self._watch, name="watch", daemon=True).start()
                summary = self._compare()
        except (Cancelled, KeyboardInterrupt):
            self._report_stop()
        except Exception as error:
            self._report_error(error)
        else:
            self.end("finished", EXIT_FINISHED, **summary)
        return self._code

    def _compare(self) -> dict[str, Any]:
        """Compare the scans, and return the content of the event ``finished``."""
        self._raise_if_stopped()
        job_request = self.job.read()
        from ChangeMapJointLib.comparison.run import run  # here, since its packages take a second

        request = make_request(self.job, job_request)
        report = json_listener(self.send)

        def listen(event: ProgressEvent) -> None:
            self._raise_if_stopped()
            report(event)

        result = run(request, listen)
        if self.job.cancel_requested:
            raise Cancelled
        return {
            "out": str(request.out),
            "report": str(request.out / run_files.REPORT),
            "verdict": result.quality.verdict,
            "findings": None if result.findings is None else len(result.findings.items),
            "gate": result.gate.answer,
            "withheld": 0 if result.findings is None else result.findings.withheld,
        }

    # -- stopping ---------------------------------------------------------------------
    def _watch(self) -> None:
        while not self.ended.wait(LOOK_S):
            if self._stop_reason() is not None:
                _thread.interrupt_main(signal.SIGTERM)
                if not self.ended.wait(PATIENCE_S):  # stuck in a library
                    self._report_stop()
                    os._exit(self._code)
                return

    def _raise_if_stopped(self) -> None:
        """Raise :class:`Cancelled` if the job is to stop; a library may have swallowed an earlier one."""
        if self._stop_reason() is not None:
            raise Cancelled(self.stopped)

    def _stop_reason(self) -> str | None:
        if self.stopped is None:
            if self.job.cancel_requested or not self.job.folder.exists():
                self.stopped = CANCELLED
            elif os.getppid() != self.parent or not (self.owner is None or is_alive(self.owner)):
                self.stopped = OWNER_GONE
        return self.stopped

    # -- reporting the end -------------------------------------------------------------------
    def _report_stop(self) -> None:
        reason = self._stop_reason() or "Stopped by a signal; nothing was kept."
        if reason == OWNER_GONE:
            self.end("fault", EXIT_FAULT, message=reason)
        else:
            self.end("cancelled", EXIT_CANCELLED, message=reason)

    def _report_error(self, error: Exception) -> None:
        with suppress(OSError):
            traceback.print_exception(error)
        message = explain_error(error, self.job.folder)
        if message is not None:
            return self.end("error", EXIT_INPUT, message=message)
        if isinstance(error, InputError):
            named = name_scans_in_error(error, self.job)
            return self.end("error", EXIT_INPUT, message=str(named), error=named.to_json())
        return self.end("fault", EXIT_FAULT, message=f"A fault in the program: {type(error).__name__}: {error}")

    def end(self, event: str, code: int, *, message: str = "", **values: Any) -> None:
        """Remove incomplete files, report the end of the job, and end child processes; only the first call counts."""
        with suppress(ValueError):  # in the watching thread, which must not set signals
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with self._ending:  # a second thread waits until the first is done
            if self.ended.is_set():
                return
            remove_partial(self.job, result=event != "finished")
            state = {"finished": "finished", "cancelled": "cancelled"}.get(event, "failed")
            if self.job.folder.exists():
                self.job.write_state(state, message, exit_code=code)
            with suppress(Cancelled):
                self.send(event, message=message, exit_code=code, **values)
            self._code = code
            self.ended.set()
            end_children()

    def send(self, event: str, **values: Any) -> None:
        """Write an event as a JSON line.

        Raises:
            Cancelled: the reader closed the stream.
        """
        try:
            write_now(self.stream, json_line(event, **values))
        except OutputClosed as error:
            self.stopped = self.stopped or OWNER_GONE
            raise Cancelled(self.stopped) from error


def make_request(job: Job, job_request: JobRequest) -> Request:
    """Convert the request of ``job`` to one for the library.

    Raises:
        InputError: an option is unknown or has a value of the wrong type.
    """
    from ChangeMapJointLib.comparison.config import config_from
    from ChangeMapJointLib.comparison.run import Request

    config = config_from({**job_request.configuration, "method": job_request.method})
    return Request(
        job.input_file("reference"),
        job.input_file("template"),
        job.folder / "result",
        config,
        job_request.device,
        reference_label=_label(job_request.reference),
        template_label=_label(job_request.template),
        compress=False,
    )


def _label(scan: JobInput) -> Label:
    from ChangeMapJointLib.comparison.inputs import Label
    from ChangeMapJointLib.core.options import from_mapping
    from ChangeMapJointLib.scan.volume import Acquisition

    acquisition = from_mapping(Acquisition, scan.acquisition, "acquisition")
    return Label(scan.name, acquisition if scan.date is None else replace(acquisition, date=scan.date))


def name_scans_in_error(error: InputError, job: Job) -> InputError:
    """Return the error with the names of the user's scans instead of the job's files."""
    with suppress(InputError):
        request = job.read()
        return error.with_subjects(
            {job.input_file(side): Argument(side, getattr(request, side).name) for side in SIDES}
        )
    return error


def remove_partial(job: Job, *, result: bool) -> None:
    """Remove temporary files in the job's folder, and with ``result`` also the result itself."""
    for path in list(job.folder.iterdir()) if job.folder.is_dir() else ():
        if path.name.startswith(".result.") or (result and path.name == "result"):
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def streams(log: Path) -> Iterator[IO[str] | None]:
    """Reserve standard output for JSON lines, and redirect everything else that is printed to ``log``.

    Output of C code is redirected, too. Yields the stream for the JSON lines; None without standard output.

    Raises:
        OSError: the log cannot be written.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        stream: IO[str] | None = os.fdopen(os.dup(1), "w", encoding="ascii", newline="\n")
    except OSError:  # started without standard output
        stream = None
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)
    for text in (sys.stdout, sys.stderr):
        if isinstance(text, io.TextIOWrapper):
            text.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    faulthandler.enable(2)
    try:
        yield stream
    finally:
        with suppress(OSError):
            if stream is not None:
                stream.close()


def report_refusal(message: str) -> int:
    """Report that the job cannot be worked on, and return the exit code."""
    with suppress(OutputClosed):
        emit("error", message=message, exit_code=EXIT_INPUT)
    return EXIT_INPUT


def main(arguments: list[str] | None = None) -> int:
    """Run the worker; return 0, 1 (fault), 2 (bad input) or 130 (cancelled)."""
    parser = argparse.ArgumentParser(prog="python -m ChangeMapJointLib.background.worker", description=__doc__)
    parser.add_argument("job", type=Path, help="folder of the job")
    parser.add_argument("--owner", type=int, help="process for which the work is done; when it ends, so does this")
    options = parser.parse_args(arguments)
    lead_group()
    job = Job(options.job.resolve())
    if not job.folder.is_dir():
        return report_refusal(f"{options.job}: no such folder; start the comparison again")
    try:
        if not lock_until_exit(job.lock_file):
            return report_refusal(f"{job.folder}: another worker is doing this job; wait for it")
        with streams(job.log_file) as stream:
            return Worker(job, options.owner, stream).work()
    except OSError as error:
        reason = explain_error(error, job.folder) or f"{job.folder}: cannot be used ({error.strerror})"
        return report_refusal(reason)


if __name__ == "__main__":
    code = main()
    for text in (sys.stdout, sys.stderr):
        with suppress(OSError, AttributeError):
            text.flush()
    os._exit(code)  # with torch, an orderly exit takes half a second
