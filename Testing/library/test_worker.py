"""The background worker as a real process: its result, and every way in which it can end."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from job_samples import (
    COMMAND,
    DEADLINE_S,
    HANGS,
    MEEK,
    STAGES,
    STUBBORN,
    Running,
    child_of,
    gone,
    sample_job,
    sample_request,
    stuck_code,
    wait_for,
)
from warm_python import warm_python

from ChangeMapJointLib.background.job import Job, recoverable
from ChangeMapJointLib.comparison.outcome import CANCELLED, KILLED, OWNER_GONE
from ChangeMapJointLib.io.run_files import WITH_MAP

CANCEL_S = 2.0  # promised to the user
limits = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of a running process: Linux")
LOG_ONLY = {"job.json", "state.json", "worker.log", "lock"}


def files(job: Job) -> set[str]:
    return {path.name for path in job.folder.iterdir()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, Running]:
    """A whole run, in a folder with a space and an umlaut."""
    worker = Running(sample_job(tmp_path_factory.mktemp("Jobs größer 1")), "--owner", os.getpid(), command=COMMAND)
    assert worker.end() == 0, worker.explain()
    return worker.job, worker


def test_a_job_gives_a_run_folder_and_events(finished) -> None:
    job, worker = finished
    first, *progress, last = worker.events
    assert first == {"event": "started", "pid": worker.process.pid}
    assert [e["stage"] for e in progress if e["fraction"] == 1.0] == ["write"]
    assert list(dict.fromkeys(e["stage"] for e in progress)) == list(STAGES)
    assert (last["event"], last["exit_code"], last["findings"]) == ("finished", 0, 1)
    assert Path(last["report"]).is_file()
    end = job.conclude(0, worker.events)
    assert (end.state, end.result) == ("finished", job.result)
    assert job.result == Path(last["out"])
    assert {p.name for p in job.result.iterdir()} == WITH_MAP
    assert files(job) == {*LOG_ONLY, "reference.nrrd", "template.nrrd", "result"}
    state = job.state()
    assert (state.state, state.pid) == ("finished", worker.process.pid)
    assert state.started
    assert state.ended
    assert worker.other == []
    assert not job.alive()


def test_volumes_are_written_for_fast_loading(finished) -> None:
    for path in finished[0].result.glob("*.nrrd"):
        assert b"encoding: raw" in path.read_bytes()[:2000], path.name


def test_the_record_names_no_node_which_may_be_named_after_the_patient(finished) -> None:
    record = json.loads((finished[0].result / "run.json").read_text("utf-8"))
    assert "Thörax" not in json.dumps(record, ensure_ascii=False)
    assert record["reference"]["acquisition"]["date"] == "2024-05-06"
    assert record["reference"]["acquisition"]["kernel"] == "B30f"
    assert record["template"]["name"].startswith("scan ")
    assert str(finished[0].folder) not in json.dumps(record)
    report = (finished[0].result / "report.html").read_text("utf-8")
    assert "Thörax" not in report
    assert "2024-05-06" in report
    assert "2023-01-02" in report
    assert "reference.nrrd" not in report


def test_a_run_that_nobody_loaded_is_recovered(finished) -> None:
    found = recoverable(finished[0].folder.parent)
    assert found is not None
    assert found.folder == finished[0].folder


# -- cancel ----------------------------------------------------------------------------
@pytest.mark.parametrize("stage", ["started", *STAGES])
def test_cancel_at_each_stage_leaves_nothing(stage, tmp_path) -> None:
    job = sample_job(tmp_path)
    # at the start it still imports; and what is otherwise remembered can be cancelled, too
    remembered = stage not in ("lungs", "rigid")
    worker = Running(job, command=COMMAND if stage == "started" else None, remembered=remembered)
    worker.until_stage(stage)
    assert job.kill(CANCEL_S)  # says itself whether it took longer
    code = worker.end()
    assert (code, worker.events[-1]["event"]) == (130, "cancelled")
    assert files(job) == {*LOG_ONLY, "cancel", "reference.nrrd", "template.nrrd"}
    end = job.conclude(code, worker.events)
    assert (end.state, end.message, end.result) == ("cancelled", CANCELLED, None)
    assert job.state().state == "cancelled"
    assert files(job) == {*LOG_ONLY, "cancel"}
    job.remove()
    assert list(tmp_path.iterdir()) == []


def test_cancel_before_it_begins(tmp_path) -> None:
    job = sample_job(tmp_path)
    job.request_cancel()
    worker = Running(job)
    assert worker.end() == 130
    assert [e["event"] for e in worker.events] == ["started", "cancelled"]


@pytest.mark.parametrize("hang", HANGS)
@pytest.mark.parametrize("child", [MEEK, STUBBORN], ids=["meek", "stubborn"])
def test_cancel_ends_a_worker_that_hangs_and_its_children(hang, child, tmp_path) -> None:
    job = sample_job(tmp_path)
    worker = Running(job, command=[warm_python(), "-c", stuck_code(hang, child)])
    number = child_of(job)
    assert job.kill(CANCEL_S)
    worker.end()
    wait_for(lambda: gone(number))
    end = job.conclude(worker.process.returncode, worker.events)
    assert (end.state, end.message) == ("cancelled", CANCELLED)
    assert files(job) == {*LOG_ONLY, "cancel"}


def test_a_killed_launcher_takes_the_worker_with_it(tmp_path) -> None:
    """Slicer's Python is started by a launcher, whose death leaves the real one running."""
    launcher = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, *sys.argv[1:]]))"
    job = sample_job(tmp_path)
    worker = Running(job, command=[sys.executable, "-c", launcher, *COMMAND[1:]])
    worker.until_stage("lungs")
    assert worker.pid != worker.process.pid
    worker.process.kill()
    wait_for(lambda: not job.alive())
    assert worker.end() == -signal.SIGKILL
    assert job.state().state == "failed"
    assert not any(name.startswith(".result") for name in files(job))


# -- other ends ------------------------------------------------------------------------
def test_sigterm_from_outside(tmp_path) -> None:
    job = sample_job(tmp_path)
    worker = Running(job)
    worker.until_stage("rigid")
    os.kill(worker.pid, signal.SIGTERM)
    assert worker.end() == 130
    assert "signal" in worker.events[-1]["message"]
    assert job.conclude(130, worker.events).state == "cancelled"


@pytest.mark.parametrize(
    ("number", "words"),
    [(signal.SIGKILL, KILLED), (signal.SIGABRT, "crashed (Aborted)"), (signal.SIGSEGV, "crashed (Segmentation fault)")],
)
def test_killed_or_crashed_in_the_middle(number, words, tmp_path) -> None:
    """As the system does when memory runs out, and as libraries do."""
    job = sample_job(tmp_path)
    worker = Running(job)
    worker.until_stage("write")
    os.kill(worker.pid, number)
    assert worker.end() == -number
    end = job.conclude(-number, worker.events)
    assert end.state == "failed"
    assert words in end.message
    assert end.log is not None
    assert files(job) == LOG_ONLY
    assert words in job.state().message


@limits
def test_out_of_memory_is_told(tmp_path, monkeypatch) -> None:
    """The address space is limited from outside when the work begins."""
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")  # every array asks the system: none reuses what is free
    job = sample_job(tmp_path)
    worker = Running(job, command=COMMAND)
    worker.until_stage("lungs")
    used = int(Path(f"/proc/{worker.pid}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(worker.pid, resource.RLIMIT_AS, (used // 2, used // 2))
    code = worker.end()
    end = job.conclude(code, worker.events)
    assert end.state == "failed"
    assert "memory" in end.message or "crashed" in end.message, job.log()  # as the library that meets it has it
    assert files(job) == LOG_ONLY


@limits
def test_a_file_that_may_not_grow_is_a_full_disk(tmp_path) -> None:
    job = sample_job(tmp_path)
    worker = Running(job)
    worker.until_stage("findings")
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (50_000, 50_000))
    assert worker.end() == 2
    end = job.conclude(2, worker.events)
    assert end.state == "failed"
    assert "disk is full" in end.message
    assert str(job.folder) in end.message
    assert files(job) == LOG_ONLY
    assert "Traceback" in job.log()


def test_a_disk_that_is_really_full(tmp_path) -> None:
    """On a small disk of the worker's own, which only it sees."""
    own = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*own, "mount -t tmpfs none /mnt"], check=False).returncode:
        pytest.skip("a disk of one's own cannot be mounted here")
    job = sample_job(tmp_path)
    script = (
        'mount -t tmpfs -o size=1600k none "$0.mnt" && cp -r "$0/." "$0.mnt" && cd "$0.mnt" && '
        '"$1" -m ChangeMapJointLib.background.worker .; code=$?; cat worker.log >&2; ls -A; exit $code'
    )
    Path(f"{job.folder}.mnt").mkdir()
    size = sum(path.stat().st_size for path in job.folder.iterdir())
    assert size < 1_300_000
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [*own, script, str(job.folder), sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=DEADLINE_S)
    lines = done.stdout.splitlines()
    last = json.loads([line for line in lines if line.startswith("{")][-1])
    assert (done.returncode, last["event"]) == (2, "error"), done.stderr
    assert "disk is full" in last["message"]
    assert {line for line in lines if not line.startswith("{")} == {*LOG_ONLY, "reference.nrrd", "template.nrrd"}


def test_the_end_of_the_owner_ends_the_worker(tmp_path) -> None:
    job = sample_job(tmp_path)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as owner:
        worker = Running(job, "--owner", owner.pid)
        worker.until_stage("rigid")
        owner.communicate(b"\n")
    assert worker.end() == 1
    assert worker.events[-1]["message"] == OWNER_GONE
    assert (job.state().state, job.state().message) == ("failed", OWNER_GONE)
    assert not any(name.startswith(".result") for name in files(job))


def test_the_end_of_the_parent_ends_the_worker_and_its_pipe(tmp_path) -> None:
    """Slicer is killed: nobody is told, nobody listens."""
    job = sample_job(tmp_path)
    parent = (
        "import subprocess, sys; "
        "command = [sys.executable, '-m', 'ChangeMapJointLib.background.worker', sys.argv[1]]; "
        "p = subprocess.Popen(command, stdout=-1, text=True); "
        "[print(line, flush=True) for line in p.stdout]"
    )
    worker = Running(job, command=[sys.executable, "-c", parent])
    worker.until_stage("lungs")
    assert worker.pid != worker.process.pid
    worker.process.kill()
    wait_for(lambda: not job.alive())
    assert (job.state().state, job.state().message) == ("failed", OWNER_GONE)
    assert not any(name.startswith(".result") for name in files(job))


def test_an_owner_that_was_gone_before(tmp_path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as owner:
        owner.wait()
    worker = Running(sample_job(tmp_path), "--owner", owner.pid)
    assert worker.end() == 1
    assert worker.events[-1]["message"] == OWNER_GONE


# -- bad jobs --------------------------------------------------------------------------
def test_an_unusable_job_is_one_clear_line(tmp_path) -> None:
    job = sample_job(tmp_path)
    (job.folder / "job.json").write_text("{")
    worker = Running(job)
    assert worker.end() == 2
    assert worker.events[-1]["event"] == "error"
    assert "job.json" in worker.events[-1]["message"]
    assert len(worker.events[-1]["message"].splitlines()) == 1
    assert job.conclude(2, worker.events).message == worker.events[-1]["message"]


@pytest.mark.parametrize(
    ("changes", "field", "word"),
    [
        (
            {"method": "joint", "configuration": {"joint": {"model": "nobodys"}}},
            "config.joint.model",
            "nobodys.safetensors: missing",
        ),
        ({"method": "magic"}, "config.method", "magic"),
        ({"device": "abacus"}, "device", "abacus"),
        ({"configuration": {"lungs": {"spacing_mm": 99}}}, "config.lungs.spacing_mm", "found 99"),
        ({"configuration": {"nothing": 1}}, "config", "nothing"),
    ],
)
def test_options_that_do_not_exist(changes, field, word, tmp_path) -> None:
    job = sample_job(tmp_path, **changes)
    worker = Running(job)
    assert worker.end() == 2
    last = worker.events[-1]
    assert word in last["message"]
    assert last["error"]["where"][0]["argument"] == field
    end = job.conclude(2, worker.events)
    assert end.error is not None
    assert str(end.error) == end.message == last["message"]


def test_bad_scans_are_called_by_their_names(tmp_path) -> None:
    good = sample_request().reference
    job = sample_job(tmp_path)
    job.input_file("reference").write_bytes(b"NRRD0004\nnonsense\n\n")
    worker = Running(job)
    assert worker.end() == 2
    assert good.name in worker.events[-1]["message"]
    assert str(tmp_path) not in json.dumps(worker.events[-1])
    assert worker.events[-1]["error"]["where"] == [{"argument": "reference", "value": good.name}]
    assert "'" + good.name + "': not a readable NRRD file" in job.conclude(2, worker.events).message


def test_a_folder_that_is_not_there(tmp_path) -> None:
    worker = Running(Job(tmp_path / "nowhere"))
    assert worker.end() == 2
    assert "nowhere" in worker.events[-1]["message"]
    assert list(tmp_path.iterdir()) == []


def test_a_job_has_one_worker(tmp_path) -> None:
    job = sample_job(tmp_path)
    first = Running(job)
    first.until_stage("read")
    os.kill(first.pid, signal.SIGSTOP)  # so that it does not end meanwhile
    second = Running(job)
    assert second.end() == 2
    os.kill(first.pid, signal.SIGCONT)
    assert "another worker" in second.events[-1]["message"]
    assert job.state().pid == first.pid
    assert job.kill(CANCEL_S)
    assert first.end() == 130


def test_a_fault_in_the_program_keeps_its_traceback(tmp_path) -> None:
    job = sample_job(tmp_path)
    code = (
        "import sys; from ChangeMapJointLib.comparison import run; from ChangeMapJointLib.background import worker\n"
        "def broken(*a): raise ZeroDivisionError('made to fail')\n"
        "run.run = broken; print('said by a library'); sys.exit(worker.main())"
    )
    worker = Running(job, command=[warm_python(), "-c", code])
    assert worker.end() == 1
    assert worker.events[-1]["event"] == "fault"
    assert "made to fail" in worker.events[-1]["message"]
    assert worker.other == ["said by a library\n"]
    assert "ZeroDivisionError" in job.log()
    assert job.conclude(1, worker.events).state == "failed"
