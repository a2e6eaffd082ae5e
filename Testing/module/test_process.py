"""The background run as the panel follows it: real workers, Slicer's two ways of starting a process, every end."""

from __future__ import annotations

import itertools
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import qt
import slicer
from slicerhost import errors, user

sys.path.append(str(Path(__file__).resolve().parents[2] / "ChangeMapJoint"))
sys.path.append(str(Path(__file__).resolve().parents[1] / "library"))

from ChangeMapJointGui.process import BackgroundRun, hasCallbacks, libraryEnvironment
from job_samples import DEADLINE_S, STUBBORN, child_of, gone, sample_job, sample_request, stuck_code, wait_for
from warm_python import warm_python

from ChangeMapJointLib.background.job import Job
from ChangeMapJointLib.comparison.outcome import CANCELLED, KILLED, End


def launchOf510(args, useStartupEnvironment=True, updateEnvironment=None, cwd=None) -> Any:
    """The signature that Slicer 5.10 has."""
    raise AssertionError("it must not be used")


def launchOf512(
    args,
    useStartupEnvironment=True,
    updateEnvironment=None,
    cwd=None,
    blocking=True,
    logCallback=None,
    completedCallback=None,
) -> Any:
    """What Slicer 5.12 does: a thread that reads, a timer that calls back every 100 ms."""
    assert not blocking
    assert not useStartupEnvironment
    environment = {**os.environ, **updateEnvironment}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(args, env=environment, cwd=cwd, encoding="utf-8", errors="replace", **streams)
    lines: queue.Queue[Any] = queue.Queue()

    def read() -> None:
        for line in process.stdout:
            lines.put(line.rstrip())
        lines.put(process.wait())

    def check() -> None:
        while not lines.empty():
            item = lines.get()
            if isinstance(item, int):
                completedCallback(item)
                return
            logCallback(item)
        qt.QTimer.singleShot(100, check)

    threading.Thread(target=read, daemon=True).start()
    qt.QTimer.singleShot(0, check)
    return process


LAUNCHERS = {"5.10": launchOf510, "5.12": launchOf512}


@pytest.fixture(params=LAUNCHERS)
def launcher(request, monkeypatch) -> None:
    """Both ways in which Slicer starts a process."""
    monkeypatch.setattr(slicer.util, "launchConsoleProcess", LAUNCHERS[request.param])
    assert hasCallbacks(slicer.util) == (request.param == "5.12")


def test_threads_of_a_run_leave_the_cores_to_slicer(monkeypatch) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    environment = libraryEnvironment()
    assert environment["OPENBLAS_NUM_THREADS"] == "1"
    assert "OMP_WAIT_POLICY" not in environment  # the user's own stays


class Followed:
    """A background run and what it told."""

    def __init__(
        self, job: Job, at: str = "", do: Callable[[BackgroundRun], Any] | None = None, **options: Any
    ) -> None:
        """``do`` is called when the worker tells of the stage or event ``at``."""
        self.events: list[dict[str, Any]] = []
        self.ends: list[End] = []
        self.threads: set[int] = set()
        self._at, self._do = at, do
        options = {"python": warm_python(), **options}
        self.run = BackgroundRun(job, onEvent=self.onEvent, onEnd=self.onEnd, **options)
        self.run.start()

    def onEvent(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        self.threads.add(threading.get_ident())
        if self._do is not None and self._at in (event["event"], event.get("stage")):
            do, self._do = self._do, None
            do(self.run)

    def onEnd(self, end: End) -> None:
        self.ends.append(end)
        self.threads.add(threading.get_ident())

    def end(self) -> End:
        assert self.run.wait(DEADLINE_S), (self.events[-2:], self.run.job.log()[-1000:])
        assert self.ends == [self.run.end]
        assert self.threads <= {threading.get_ident()}
        assert not self.run.running
        return self.ends[0]


def pid(run: BackgroundRun) -> int:
    return run.job.state().pid


@pytest.fixture
def jobs(tmp_path) -> Path:
    return tmp_path / "Jobs größer 1"


def test_a_run_to_the_end(launcher, jobs) -> None:
    """The scans are handed over by the run itself."""
    job = Job.create(jobs, sample_request())
    plain = hasCallbacks(slicer.util)  # the start of the interpreter is shown once, it is the same in both
    followed = Followed(job, python=sys.executable if plain else warm_python())
    assert followed.run.running
    end = followed.end()
    assert (end.state, end.result) == ("finished", job.result), end
    assert [event["event"] for event in (followed.events[0], followed.events[-1])] == ["started", "finished"]
    assert job.folder.exists()


@pytest.mark.parametrize(
    ("launcher", "stage"),
    [("5.10", "started"), ("5.12", "started"), ("5.10", "register"), ("5.12", "write")],
    indirect=["launcher"],
)
def test_cancel_leaves_no_process_and_no_file(launcher, stage, jobs) -> None:
    numbers = []
    followed = Followed(sample_job(jobs), stage, lambda run: (numbers.append(pid(run)), run.cancel()))
    end = followed.end()
    assert (end.state, end.message) == ("cancelled", CANCELLED)
    assert gone(numbers[0])
    assert list(jobs.iterdir()) == []


def test_cancel_while_the_scans_are_handed_over(launcher, jobs, monkeypatch) -> None:
    written = threading.Event()
    job = Job.create(jobs, sample_request())
    monkeypatch.setattr(job, "write_inputs", lambda: written.wait(DEADLINE_S))
    followed = Followed(job)
    slicer.app.processEvents()
    followed.run.cancel()
    written.set()
    assert followed.end().state == "cancelled"
    assert followed.events == []
    assert list(jobs.iterdir()) == []


@pytest.mark.parametrize(("launcher", "hang"), [("5.10", "library"), ("5.12", "deaf")], indirect=["launcher"])
def test_cancel_of_a_worker_that_hangs(launcher, hang, jobs, tmp_path) -> None:
    """Started by a launcher, as Slicer does, whose death would leave it running."""
    script = tmp_path / "stuck.py"
    script.write_text(stuck_code(hang, STUBBORN))
    python = tmp_path / "launcher"
    python.write_text(f'#!/bin/sh\nshift 2\n"{warm_python()}" "{script}" "$@"\nexit $?\n')
    python.chmod(0o755)
    job = sample_job(jobs)
    followed = Followed(job, "started", python=str(python))
    user.wait_until(lambda: "child " in job.log(), DEADLINE_S)
    number, worker = child_of(job), pid(followed.run)
    followed.run.cancel()
    assert followed.end().state == "cancelled"
    assert gone(worker)
    wait_for(lambda: gone(number))
    assert list(jobs.iterdir()) == []


@pytest.mark.parametrize(
    ("launcher", "number", "words"),
    [
        ("5.10", signal.SIGKILL, KILLED),
        ("5.12", signal.SIGKILL, KILLED),
        ("5.12", signal.SIGSEGV, "crashed"),
        ("5.12", signal.SIGTERM, "signal"),
    ],
    indirect=["launcher"],
)
def test_killed_or_crashed(launcher, number, words, jobs) -> None:
    job = sample_job(jobs)
    followed = Followed(job, "rigid", lambda run: os.kill(pid(run), number))
    end = followed.end()
    assert words in end.message
    if number == signal.SIGTERM:
        assert end.state == "cancelled"
        return
    assert end.state == "failed"
    assert end.log == job.log_file
    assert {path.name for path in job.folder.iterdir()} == {"job.json", "state.json", "worker.log", "lock"}


@pytest.mark.parametrize("launcher", ["5.12"], indirect=True)
def test_bad_input_is_told_in_the_workers_words(launcher, jobs) -> None:
    end = Followed(sample_job(jobs, configuration={"nothing": 1})).end()
    assert end.state == "failed"
    assert "nothing" in end.message


def test_a_full_disk_while_the_scans_are_handed_over(launcher, jobs, monkeypatch) -> None:
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    job = Job.create(jobs, sample_request())
    monkeypatch.setattr("ChangeMapJointLib.io.write._write_data", full)
    end = Followed(job).end()
    assert end.state == "failed"
    assert "disk is full" in end.message
    assert job.state().state == "failed"


def test_a_python_that_is_not_there(launcher, jobs) -> None:
    end = Followed(sample_job(jobs), python=str(jobs / "nowhere")).end()
    assert end.state == "failed"
    assert "nowhere" in end.message


def test_a_python_that_cannot_load_the_library(launcher, jobs, tmp_path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'ImportError: größer is missing'\nexit 1\n", "utf-8")
    python.chmod(0o755)
    followed = Followed(sample_job(jobs), python=str(python))
    end = followed.end()
    assert end.state == "failed"
    assert "could not be started: ImportError" in end.message
    assert [event["event"] for event in followed.events] == ["log"]
    assert "ImportError" in end.log.read_text("utf-8")


def test_an_error_in_a_callback_is_shown_and_the_run_goes_on(launcher, jobs) -> None:
    with errors.expected("made to fail", "slot"):
        followed = Followed(sample_job(jobs), "read", lambda run: json.loads("made to fail" + 1))
        user.wait_until(lambda: any(event.get("stage") == "lungs" for event in followed.events), DEADLINE_S)
        followed.run.cancel()
        assert followed.end().state == "cancelled"


def test_stop_when_slicer_quits_keeps_the_log_and_calls_nobody(launcher, jobs) -> None:
    job = sample_job(jobs)
    followed = Followed(job)
    user.wait_until(lambda: any(event.get("stage") == "lungs" for event in followed.events), DEADLINE_S)
    number = pid(followed.run)
    end = followed.run.stop()
    assert gone(number)
    assert (end.state, end.log) == ("failed", job.log_file)
    assert "Slicer was closed" in end.message
    assert (job.state().state, job.state().message) == ("failed", end.message)
    deadline = time.monotonic() + 0.5  # longer than any timer that is still under way
    user.wait_until(lambda: time.monotonic() > deadline)
    assert followed.ends == []
    assert followed.run.stop() is end
    assert followed.run.wait(0.0) is end


def test_stop_before_it_begins(launcher, jobs) -> None:
    run = BackgroundRun(sample_job(jobs), warm_python())
    assert run.stop() is None
    assert not run.running
    run.cancel()
    run.start()
    with pytest.raises(RuntimeError, match="twice"):
        run.start()
    assert run.stop().state == "failed"


def test_slicer_stays_responsive(launcher, jobs) -> None:
    """A timer measures the longest time in which nothing could be clicked."""
    ticks: list[float] = []
    timer = qt.QTimer()
    timer.setInterval(5)
    timer.connect("timeout()", lambda: ticks.append(time.monotonic()))
    timer.start()
    Followed(Job.create(jobs, sample_request(method="rigid"))).end()
    timer.stop()
    longest = max(after - before for before, after in itertools.pairwise(ticks))
    print(f"longest stall: {1000 * longest:.0f} ms")
    assert len(ticks) > 20
