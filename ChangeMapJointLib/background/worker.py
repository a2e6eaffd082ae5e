"""The background worker: ``python -m ChangeMapJointLib.background.worker JOB_FOLDER [--owner PID]``.

It compares the two scans of a job (see :mod:`ChangeMapJointLib.background.job`) in a process of its own, so
that whoever started it stays responsive. On standard output it writes JSON lines: ``started``, then the
same events as the command line. An ``error`` event holds the message, and under ``error`` its parts (see
:meth:`~ChangeMapJointLib.core.errors.InputError.to_json`). Everything else that is printed goes to ``worker.log``.

It stops within a second when the file ``cancel`` appears, on SIGTERM, or when its owner is gone, and
leaves nothing half done: a thread watches, asks the main thread to clean up, and does so itself where
the main thread is stuck in a long computation.
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
    Unheard,
    emit,
    json_line,
    json_listener,
    say,
    stoppable,
)
from ChangeMapJointLib.comparison.outcome import CANCELLED, OWNER_GONE, explain_error
from ChangeMapJointLib.comparison.stages import ProgressEvent
from ChangeMapJointLib.core.errors import Argument, Cancelled, InputError
from ChangeMapJointLib.core.process import end_children, is_alive, lead_group, lock_until_exit
from ChangeMapJointLib.io import run_files

if TYPE_CHECKING:
    from ChangeMapJointLib.comparison.inputs import Label
    from ChangeMapJointLib.comparison.run import Request

LOOK_S = 0.1  # between two looks at the file ``cancel`` and at the owner
PATIENCE_S = 0.7  # for the main thread to clean up
EXIT_FINISHED = 0


class Worker:
    """One job, from its first look at the folder to its last word."""

    def __init__(self, job: Job, owner: int | None, stream: IO[str] | None) -> None:
        """``owner`` is the process for which the work is done; ``stream`` takes the JSON lines."""
        self.job, self.owner, self.stream = job, owner, stream
        self.parent = os.getppid()
        self.stopped: str | None = None  # why, once somebody wants it
        self.ended = threading.Event()
        self._ending = threading.Lock()
        self._code = EXIT_FAULT

    def work(self) -> int:
        """Do the job; the exit code."""
        self.job.write_state("running", pid=os.getpid(), started=now())
        try:
            with stoppable():
                self.tell("started", pid=os.getpid())
                threading.Thread(target=self._watch, name="watch", daemon=True).start()
                found = self._compare()
        except (Cancelled, KeyboardInterrupt):
            self._stop_words()
        except Exception as error:
            self._error_words(error)
        else:
            self.end("finished", EXIT_FINISHED, **found)
        return self._code

    def _compare(self) -> dict[str, Any]:
        """Do the work; what to tell of it."""
        self._check()
        asked = self.job.read()
        from ChangeMapJointLib.comparison.run import run  # heavy: torch and all that computes

        request = make_request(self.job, asked)
        send = json_listener(self.tell)

        def listen(event: ProgressEvent) -> None:
            self._check()
            send(event)

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
            if self._reason() is not None:
                _thread.interrupt_main(signal.SIGTERM)
                if not self.ended.wait(PATIENCE_S):  # stuck in a library
                    self._stop_words()
                    os._exit(self._code)
                return

    def _check(self) -> None:
        """Raise :class:`Cancelled` when the work shall stop; libraries may have swallowed the first one."""
        if self._reason() is not None:
            raise Cancelled(self.stopped)

    def _reason(self) -> str | None:
        if self.stopped is None:
            if self.job.cancel_requested or not self.job.folder.exists():
                self.stopped = CANCELLED
            elif os.getppid() != self.parent or not (self.owner is None or is_alive(self.owner)):
                self.stopped = OWNER_GONE
        return self.stopped

    # -- last words -------------------------------------------------------------------
    def _stop_words(self) -> None:
        reason = self._reason() or "Stopped by a signal from outside; nothing was kept."
        if reason == OWNER_GONE:
            self.end("fault", EXIT_FAULT, message=reason)
        else:
            self.end("cancelled", EXIT_CANCELLED, message=reason)

    def _error_words(self, error: Exception) -> None:
        with suppress(OSError):
            traceback.print_exception(error)
        said = explain_error(error, self.job.folder)
        if said is not None:
            return self.end("error", EXIT_INPUT, message=said)
        if isinstance(error, InputError):
            known = of_scans(error, self.job)
            return self.end("error", EXIT_INPUT, message=str(known), error=known.to_json())
        return self.end("fault", EXIT_FAULT, message=f"A fault in the program: {type(error).__name__}: {error}")

    def end(self, event: str, code: int, *, message: str = "", **values: Any) -> None:
        """Say how it ended, once; before that, remove what is not whole, and every child."""
        with suppress(ValueError):  # from the watching thread; the main one is stuck then
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with self._ending:  # who comes second waits until all is done
            if self.ended.is_set():
                return
            remove_partial(self.job, result=event != "finished")
            state = {"finished": "finished", "cancelled": "cancelled"}.get(event, "failed")
            if self.job.folder.exists():
                self.job.write_state(state, message, exit_code=code)
            with suppress(Cancelled):
                self.tell(event, message=message, exit_code=code, **values)
            self._code = code
            self.ended.set()
            end_children()

    def tell(self, event: str, **values: Any) -> None:
        """One JSON line, at once.

        Raises:
            Cancelled: nobody listens any more.
        """
        try:
            say(self.stream, json_line(event, **values))
        except Unheard as error:
            self.stopped = self.stopped or OWNER_GONE
            raise Cancelled(self.stopped) from error


def make_request(job: Job, asked: JobRequest) -> Request:
    """What the library shall do for ``job``.

    Raises:
        InputError: it names options that do not exist.
    """
    from ChangeMapJointLib.comparison.config import config_from
    from ChangeMapJointLib.comparison.run import Request

    config = config_from({**asked.configuration, "method": asked.method})
    return Request(
        job.input_file("reference"),
        job.input_file("template"),
        job.folder / "result",
        config,
        asked.device,
        reference_label=_label(asked.reference),
        template_label=_label(asked.template),
        compress=False,
    )


def _label(given: JobInput) -> Label:
    from ChangeMapJointLib.comparison.inputs import Label
    from ChangeMapJointLib.core.options import from_mapping
    from ChangeMapJointLib.scan.volume import Acquisition

    acquisition = from_mapping(Acquisition, given.acquisition, "acquisition")
    return Label(given.name, acquisition if given.date is None else replace(acquisition, date=given.date))


def of_scans(error: InputError, job: Job) -> InputError:
    """The error about the scans that the user chose instead of about the job's files."""
    with suppress(InputError):
        asked = job.read()
        return error.with_subjects({job.input_file(side): Argument(side, getattr(asked, side).name) for side in SIDES})
    return error


def remove_partial(job: Job, *, result: bool) -> None:
    """Remove temporary files of the job's folder, and its ``result`` too where that is not wanted."""
    for path in list(job.folder.iterdir()) if job.folder.is_dir() else ():
        if path.name.startswith(".result.") or (result and path.name == "result"):
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def streams(log: Path) -> Iterator[IO[str] | None]:
    """Standard output for the JSON lines alone; whatever else is printed, by C code too, goes to ``log``.

    Raises:
        OSError: the log cannot be written.
    """
    number = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        stream: IO[str] | None = os.fdopen(os.dup(1), "w", encoding="ascii", newline="\n")
    except OSError:  # started without standard output
        stream = None
    for standard in (1, 2):
        os.dup2(number, standard)
    os.close(number)
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


def refuse(message: str) -> int:
    """The end of a worker that has no job to work on."""
    with suppress(Unheard):
        emit("error", message=message, exit_code=EXIT_INPUT)
    return EXIT_INPUT


def main(arguments: list[str] | None = None) -> int:
    """Entry point; the exit code is 0, 1 (fault), 2 (bad input) or 130 (cancelled)."""
    parser = argparse.ArgumentParser(prog="python -m ChangeMapJointLib.background.worker", description=__doc__)
    parser.add_argument("job", type=Path, help="folder of the job")
    parser.add_argument("--owner", type=int, help="process for which the work is done; when it ends, so does this")
    given = parser.parse_args(arguments)
    lead_group()
    job = Job(given.job.resolve())
    if not job.folder.is_dir():
        return refuse(f"{given.job}: no such folder; start the comparison again")
    try:
        if not lock_until_exit(job.lock_file):
            return refuse(f"{job.folder}: another worker is at this job; wait for it")
        with streams(job.log_file) as stream:
            return Worker(job, given.owner, stream).work()
    except OSError as error:
        reason = explain_error(error, job.folder) or f"{job.folder}: cannot be used ({error.strerror})"
        return refuse(reason)


if __name__ == "__main__":
    code = main()
    for text in (sys.stdout, sys.stderr):
        with suppress(OSError, AttributeError):
            text.flush()
    os._exit(code)  # an orderly exit takes torch half a second
