"""Jobs with small closed-form chests, and workers that really run, for the tests."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from phantoms import Sphere, chest_phantom
from remembered import FOLDER
from warm_python import warm_python

from ChangeMapJointLib.background.job import Job, JobInput, JobRequest
from ChangeMapJointLib.change.method_table import METHODS

QUICK = {
    "lungs": {"spacing_mm": 6.0},
    "rigid": {"starts": 1},
    "keypoints": {"most": 200},
    "matching": {"compiled": False, "searches": [{"voxel_mm": 5.0, "reach": 2, "patch": 2}]},
    "registration": {"iterations": [5, 3], "compiled": False},
    "backward": {"iterations": [3], "compiled": False},
}  # a whole run takes some seconds, half of them for what it imports; loading the compiled kernels would take longer
DEADLINE_S = 120.0  # for anything that is waited for, on a machine with much else to do
STAGES = tuple(METHODS["sequential"].shares)
Event = dict[str, Any]


def sample_request(**changes: Any) -> JobRequest:
    """The chest before, and with a nodule of 24 mm now; not moved: few steps would leave borders to list as changes."""
    now = chest_phantom(edge_mm=5.0, lesions=[Sphere((60.0, 0.0, 20.0), 12.0)])
    before = chest_phantom(edge_mm=5.0)
    values: dict[str, Any] = {
        "reference": JobInput("Thörax 1/2 now", "2024-05-06", "vtkMRMLScalarVolumeNode1", {"kernel": "B30f"}, now),
        "template": JobInput("before", "2023-01-02", "vtkMRMLScalarVolumeNode2", volume=before),
        "configuration": QUICK,
    }
    return JobRequest(**{**values, **changes})


def sample_job(root: Path, **changes: Any) -> Job:
    """A job that is ready to be worked on."""
    job = Job.create(root, sample_request(**changes))
    job.write_inputs()
    return job


COMMAND = [sys.executable, "-m", "ChangeMapJointLib.background.worker"]


class Running:
    """A worker process; its events are read as they come."""

    def __init__(self, job: Job, *options: object, command: list[str] | None = None, remembered: bool = True) -> None:
        """Without ``command`` it starts in milliseconds, and lungs and alignments are ``remembered``.

        :data:`COMMAND` starts it as Slicer does.
        """
        self.job = job
        arguments = [str(job.folder), *map(str, options)]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        if not remembered:
            environment.pop(FOLDER, None)
        self.process = subprocess.Popen(
            [*(command or [warm_python(), *COMMAND[1:]]), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,  # as Slicer starts it
            text=True,
            env=environment,
        )
        self.events: list[Event] = []
        self.other: list[str] = []  # lines that are no events
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def until(self, wanted: Callable[[Event], bool] | None = None) -> Event | None:
        """The next event that is wanted, or None at the end of the output."""
        deadline = time.monotonic() + DEADLINE_S
        while (line := self._lines.get(timeout=max(0.1, deadline - time.monotonic()))) is not None:
            try:
                self.events.append(json.loads(line))
            except ValueError:
                self.other.append(line)
                continue
            if wanted is not None and wanted(self.events[-1]):
                return self.events[-1]
        return None

    def until_stage(self, stage: str) -> None:
        """Wait until ``stage`` (or the event ``started``) has been told."""
        assert self.until(lambda event: stage in (event["event"], event.get("stage"))), self.explain()

    def end(self) -> int:
        """Wait for the end; the exit code."""
        self.until()
        code: int = self.process.wait(timeout=DEADLINE_S)
        return code

    @property
    def pid(self) -> int:
        """Of the worker, as it told it."""
        if not self.events:
            self.until_stage("started")
        return int(self.events[0]["pid"])

    def explain(self) -> str:
        """For a failed assertion."""
        return f"{self.events[-2:]} {self.other} {self.job.log()[-1000:]}"


def wait_for(condition: Callable[[], bool]) -> None:
    """Look until ``condition`` holds; fails at the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


def gone(pid: int) -> bool:
    """Has the process ended (or is it a zombie that nobody has waited for)?"""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


# -- workers that do not listen --------------------------------------------------------
STUCK = """
    import ctypes, subprocess, sys, time
    from contextlib import suppress
    from ChangeMapJointLib.comparison import run
    from ChangeMapJointLib.background import worker

    def stuck(request, listener):
        request.out.with_name(".result.host.1.x.partial").mkdir()
        child = subprocess.Popen([sys.executable, "-c", '''{child}'''], stdout=subprocess.PIPE)
        child.stdout.readline()
        sys.stderr.write(f"child {{child.pid}}\\n")
        {hang}

    run.run = stuck
    sys.exit(worker.main())
"""
STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(1, flush=True)
time.sleep(1000)
"""
MEEK = "print(1, flush=True); import time; time.sleep(1000)"
HANGS = {
    "python": "time.sleep(1000)",
    "swallows": "for _ in range(1000):\n            with suppress(Exception):\n                time.sleep(1000)",
    "library": "ctypes.CDLL(None).sleep(1000)",
    "deaf": "ctypes.PyDLL(None).sleep(1000)",  # keeps the interpreter's lock: no thread of it runs
}


def stuck_code(hang: str, child: str) -> str:
    """A program like the worker whose computation has a child and hangs in one of the ways of :data:`HANGS`."""
    return textwrap.dedent(STUCK).format(hang=HANGS[hang], child=child.replace("\n", "\\n"))


def child_of(job: Job) -> int:
    """The number of the child of a stuck worker, once it is there."""
    wait_for(lambda: "child " in job.log())
    return int(job.log().split("child ")[1].split()[0])
