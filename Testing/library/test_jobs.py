"""Job folders: what they say, how they stand, what is kept of them, and words for every end."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from job_samples import gone, sample_job, sample_request, wait_for

from ChangeMapJointLib.background.job import Job, clean_up_jobs, explain_end, jobs_in, recoverable
from ChangeMapJointLib.comparison.outcome import CANCELLED, KILLED, OUT_OF_MEMORY, OWNER_GONE, explain_error
from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.core.process import is_alive, is_locked, kill_tree, lock_until_exit
from ChangeMapJointLib.io.read import read_volume
from ChangeMapJointLib.io.run_files import RUN as MARKER

STARTED = [{"event": "started", "pid": 1}]


def ended_job(root: Path, number: int, state: str) -> Job:
    """A job that ended; a later number is a newer one."""
    job = Job.create(root, sample_request())
    job = Job(job.folder.rename(root / f"20240101-0000{number:02d}-abcd"))
    job.input_file("reference").write_text("voxels")
    job.log_file.write_text("log")
    job.write_state("running", pid=1, started="2024-01-01T00:00:00+00:00")
    if state == "finished":
        (job.folder / "result").mkdir()
        (job.folder / "result" / MARKER).write_text('{"schema": "changemap.run/1"}')
    if state != "running":
        job.write_state(state, "as it was")
    return job


def files(job: Job) -> set[str]:
    return {path.name for path in job.folder.iterdir()}


# -- job.json --------------------------------------------------------------------------
def test_what_is_asked_for_comes_back_and_the_scans_are_uncompressed(tmp_path) -> None:
    request = sample_request(method="rigid", device="cpu")
    job = Job.create(tmp_path / "Jöbs of 1 person", request)
    job.write_inputs()
    found = Job(job.folder).read()
    assert (found.method, found.device, found.configuration) == ("rigid", "cpu", request.configuration)
    for side in ("reference", "template"):
        given, back = getattr(request, side), getattr(found, side)
        assert (back.name, back.date, back.node_id) == (given.name, given.date, given.node_id)
        assert back.acquisition == given.acquisition
        written = read_volume(job.input_file(side))
        assert (written.array == given.volume.array).all()
        assert written.grid.same_as(given.volume.grid)
        assert b"encoding: raw" in job.input_file(side).read_bytes()[:1000]
    assert job.state().state == "waiting"
    assert job.folder.stat().st_mode & 0o077 == 0  # scans of patients


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"schema": "changemap.job/9"}, "changemap.job/9"),
        ({"reference": None}, "reference"),
        ({"template": {"file": "../../etc/passwd", "name": "x"}}, "passwd"),
        ({"reference": {"file": "reference.nrrd", "name": "x", "date": "yesterday"}}, "yesterday"),
        ({"reference": {"file": "reference.nrrd", "name": 3}}, "name"),
        ({"method": 7}, "method"),
        ({"configuration": "fast"}, "fast"),
    ],
)
def test_a_job_that_is_none_is_told_in_one_line(tmp_path, change, word) -> None:
    job = Job.create(tmp_path, sample_request())
    path = job.folder / "job.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **change}), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        job.read()
    assert word in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("text", [None, "", "{", "[]", "\x00", "[" * 100_000])
def test_a_job_file_that_is_no_json(tmp_path, text) -> None:
    job = Job.create(tmp_path, sample_request())
    (job.folder / "job.json").unlink()
    if text is not None:
        (job.folder / "job.json").write_text(text)
    with pytest.raises(InputError, match=r"job\.json"):
        job.read()


def test_a_clock_set_back_leaves_the_order_of_jobs(tmp_path, monkeypatch) -> None:
    """Names tell which job is the newest: the one that is recovered, and the last to be removed."""
    first = Job.create(tmp_path, sample_request())

    class Earlier(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) - timedelta(days=1)

    monkeypatch.setattr("ChangeMapJointLib.background.job.datetime", Earlier)
    later = [Job.create(tmp_path, sample_request()) for _ in range(2)]
    assert [job.folder for job in jobs_in(tmp_path)] == [later[1].folder, later[0].folder, first.folder]
    assert jobs_in(tmp_path)[0].read().reference.name == sample_request().reference.name


def test_a_full_disk_while_handing_over_is_told(tmp_path, monkeypatch) -> None:
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    job = Job.create(tmp_path, sample_request())
    monkeypatch.setattr("ChangeMapJointLib.io.write._write_data", full)
    with pytest.raises(InputError, match="disk is full"):
        job.write_inputs()
    monkeypatch.setattr("ChangeMapJointLib.background.job.write_request", full)
    with pytest.raises(InputError, match="disk is full"):
        Job.create(tmp_path / "new", sample_request())
    assert list((tmp_path / "new").iterdir()) == []


def test_a_root_that_is_a_file(tmp_path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be made"):
        Job.create(tmp_path / "file", sample_request())


def test_imports_stay_light() -> None:
    """It is imported into Slicer's own process."""
    code = (
        "import sys, ChangeMapJointLib.background.job; "
        "heavy = {'numpy', 'torch', 'scipy', 'SimpleITK', 'rich', 'typer', 'numba'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# -- state -----------------------------------------------------------------------------
def test_state_of_a_worker_that_died_silently(tmp_path) -> None:
    job = ended_job(tmp_path, 1, "running")
    assert (job.state().state, job.state().message) == ("failed", OWNER_GONE)
    job.log_file.write_text("Fatal Python error: Segmentation fault\n\nThread ...")
    assert "Segmentation fault" in job.state().message
    job.request_cancel()
    assert (job.state().state, job.state().message) == ("cancelled", CANCELLED)


def test_a_lock_tells_the_living_from_a_namesake(tmp_path) -> None:
    """The number of a dead worker may be that of another process by now, which must not be ended."""
    job = ended_job(tmp_path, 1, "running")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True) as other:
        job.write_state("running", pid=other.pid)
        assert not job.alive()
        job.kill_now()
        assert job.kill()
        assert other.poll() is None
        other.communicate(b"\n")
    assert other.returncode == 0
    assert lock_until_exit(job.lock_file)
    assert is_locked(job.lock_file)
    assert not lock_until_exit(job.lock_file, patience_s=0.0)
    assert job.alive()


def test_processes_that_live_and_that_do_not() -> None:
    assert is_alive(os.getpid())
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    assert not is_alive(child.pid)
    assert is_alive(2**70)  # no number of a process: nothing is concluded


def test_without_psutil_nothing_is_concluded(monkeypatch) -> None:
    """Slicer's process, before the packages of the library were installed."""
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert is_alive(child.pid)


def test_a_tree_of_processes_is_killed_with_its_leaves() -> None:
    leaf = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'input()']); print(p.pid, flush=True)"
    command = [sys.executable, "-c", f"{leaf}; p.wait()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as root:
        assert root.stdout is not None
        number = int(root.stdout.readline())
        assert not gone(number)
        kill_tree(root.pid)
        assert root.wait() != 0
        wait_for(lambda: gone(number))
    kill_tree(root.pid)  # it is gone already


def test_state_file_that_is_damaged(tmp_path) -> None:
    job = ended_job(tmp_path, 1, "finished")
    for text in ("", "{", "[]", "3"):
        (job.folder / "state.json").write_text(text)
        assert job.state().state == "waiting"
    assert recoverable(tmp_path) is None


def test_a_cancelled_run_that_had_just_finished_is_cancelled(tmp_path) -> None:
    job = ended_job(tmp_path, 1, "finished")
    job.request_cancel()
    end = job.conclude(0, [{"event": "finished"}])
    assert (end.state, end.message, end.result) == ("cancelled", CANCELLED, None)
    assert not (job.folder / "result").exists()


def test_what_is_left_of_a_failed_job(tmp_path) -> None:
    job = ended_job(tmp_path, 1, "running")
    (job.folder / ".result.host.1.abc.partial").mkdir()
    end = job.conclude(-9, STARTED)
    assert (end.state, end.message, end.log) == ("failed", KILLED, job.log_file)
    assert files(job) == {"job.json", "state.json", "worker.log"}
    assert (job.state().state, job.state().message) == ("failed", KILLED)
    assert job.state().ended


def test_an_error_comes_back_in_its_parts(tmp_path) -> None:
    error = InputError("no CUDA device", field="device", value="cuda", remedy=("use ", Argument("device", "cpu")))
    event = json.loads(json.dumps({"event": "error", "message": str(error), "error": error.to_json()}))
    for failed, parts in ((event, error.to_json()), ({**event, "error": {"where": 3}}, None)):
        end = ended_job(tmp_path, 1 if parts else 2, "running").conclude(2, [*STARTED, failed])
        assert (end.state, end.message) == ("failed", "device='cuda': no CUDA device; use device='cpu'")
        assert (None if end.error is None else end.error.to_json()) == parts
    assert ended_job(tmp_path, 3, "finished").conclude(0, [{"event": "finished"}]).error is None


# -- words -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("code", "events", "log", "words"),
    [
        (0, [*STARTED, {"event": "finished"}], "", "Finished"),
        (2, [*STARTED, {"event": "error", "message": "CT: one slice"}], "", "CT: one slice"),
        (1, [{"event": "fault", "message": "A fault"}], "Fatal Python error: Aborted", "A fault"),
        (-9, STARTED, "", "memory"),
        (137, STARTED, "warning: slow", "memory"),
        (1, STARTED, "", "memory"),  # a launcher's code
        (None, STARTED, "", "memory"),
        (-1073741801, STARTED, "", "memory"),  # 0xC0000017
        (-6, STARTED, "Fatal Python error: Aborted\n", r"crashed \(Aborted\)"),
        (1, STARTED, "x\nFatal Python error: Segmentation fault\n", r"crashed \(Segmentation fault\)"),
        (-11, STARTED, "", "crashed .*SIGSEGV"),
        (139, STARTED, "", "crashed .*SIGSEGV"),
        (0xC0000005, STARTED, "", "access violation"),
        (-1073741819, STARTED, "", "access violation"),
        (
            1,
            [],
            "Traceback ...\nModuleNotFoundError: No module named 'x'\n",
            "could not be started: ModuleNotFoundError",
        ),
        (127, [], "", "could not be started: exit code 127"),
        (127, STARTED, "MemoryError: \ncannot allocate memory for thread-local data: ABORT\n", "ran out of memory"),
        (1, STARTED, "Traceback ...\nnumpy._core._exceptions._ArrayMemoryError: Unable\n", "ran out of memory"),
        (1, [], "Traceback ...\nMemoryError\n", "ran out of memory"),
        (
            -6,
            STARTED,
            "terminate called after throwing an instance of 'std::bad_alloc'\nFatal Python error: Aborted\n",
            "ran out of memory",
        ),
        (-6, STARTED, "libc++abi: terminating due to uncaught exception of type std::bad_alloc\n", "ran out of memory"),
        (1, STARTED, "Traceback\nOSError: [Errno 12] Cannot allocate memory\n", "ran out of memory"),
        (1, STARTED, "RuntimeError: thrown in x:\nFailed to allocate memory for image.\n", "ran out of memory"),
        (1, STARTED, "RuntimeError: DefaultCPUAllocator: can't allocate memory: 8 bytes\n", "ran out of memory"),
        (-11, STARTED, "MemoryError: x\nFatal Python error: Segmentation fault\n", r"crashed \(Segmentation"),
        (1, STARTED, "NotMemoryError: x\n", "exit code 1"),
        (1, STARTED, "WARNING the GPU is out of memory: the CPU is used\nKeyError: 'x'\n", "exit code 1"),
        (1, STARTED, "Traceback ...\nKeyError: 'x'\n", "exit code 1"),
        (0, STARTED, "", "exit code 0"),
    ],
)
def test_words_for_every_end(code, events, log, words) -> None:
    assert re.search(words, explain_end(code, events, log))


def test_words_for_errors_of_the_machine(tmp_path) -> None:
    def chained(error: Exception, cause: Exception) -> Exception:
        error.__cause__ = cause
        return error

    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        said = explain_error(chained(InputError("cannot be written"), OSError(number, "x")), tmp_path)
        assert said is not None
        assert "disk is full" in said
        assert str(tmp_path) in said
    assert explain_error(MemoryError(), tmp_path) == OUT_OF_MEMORY
    assert explain_error(RuntimeError("CUDA out of memory. Tried to ..."), tmp_path) == OUT_OF_MEMORY
    assert "nrrd" in (explain_error(ModuleNotFoundError("No module", name="nrrd"), tmp_path) or "")
    assert explain_error(InputError("one slice"), tmp_path) is None
    loop = KeyError("a")
    loop.__cause__ = chained(KeyError("b"), loop)
    assert explain_error(loop, tmp_path) is None


# -- later -----------------------------------------------------------------------------
def test_the_newest_finished_run_that_nobody_saw_is_recovered(tmp_path) -> None:
    assert recoverable(tmp_path / "nowhere") is None
    first, second = ended_job(tmp_path, 1, "finished"), ended_job(tmp_path, 2, "finished")
    ended_job(tmp_path, 3, "failed")
    ended_job(tmp_path, 4, "running")
    found = recoverable(tmp_path)
    assert found is not None
    assert found.folder == second.folder
    found.mark_loaded()
    assert recoverable(tmp_path).folder == first.folder
    (first.folder / "result" / MARKER).write_text("{}")  # not a run any more
    assert recoverable(tmp_path) is None


def test_the_job_of_another_slicer_that_runs_is_left_alone(tmp_path) -> None:
    job = ended_job(tmp_path, 1, "finished")
    path = job.folder / "job.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "owner": os.getppid()}))
    assert recoverable(tmp_path) is None
    clean_up_jobs(tmp_path, keep=0)
    assert job.folder.exists()


def test_clean_up_keeps_the_newest_and_what_is_no_job(tmp_path) -> None:
    jobs = [ended_job(tmp_path, n, "finished") for n in range(1, 5)]
    failed, died = ended_job(tmp_path, 5, "failed"), ended_job(tmp_path, 6, "running")
    cancelled = ended_job(tmp_path, 7, "cancelled")
    waiting = sample_job(tmp_path)
    (tmp_path / "20240101-000000-abcd.txt").write_text("mine")
    (tmp_path / "notes").mkdir()
    clean_up_jobs(tmp_path, keep=4)
    assert not cancelled.folder.exists()
    assert waiting.folder.exists()
    assert files(failed) == files(died) == {"job.json", "state.json", "worker.log"}
    assert died.state().ended
    assert [job.folder.exists() for job in jobs] == [False, False, True, True]
    assert (tmp_path / "notes").exists()
    assert (tmp_path / "20240101-000000-abcd.txt").exists()
    assert len(jobs_in(tmp_path)) == 5


def test_clean_up_of_a_folder_that_is_not_there(tmp_path) -> None:
    clean_up_jobs(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
