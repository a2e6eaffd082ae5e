"""The command line when it is interrupted, killed, no longer listened to, or started twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from job_samples import DEADLINE_S, QUICK, sample_request
from warm_python import warm_python

from ChangeMapJointLib.comparison.events import OutputClosed, emit
from ChangeMapJointLib.comparison.output import is_run
from ChangeMapJointLib.core import lazy_torch
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.io.read import read_volume
from ChangeMapJointLib.io.write import write_nrrd

COMMAND = [sys.executable, "-m", "ChangeMapJointLib"]
REMEMBERING = f"""
import sys
sys.path.append({str(Path(__file__).parent)!r})
from remembered import remember
from ChangeMapJointLib.__main__ import main
remember()
main()
"""
TO_BE_KILLED = [sys.executable, "-c", REMEMBERING]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Arguments for a quick run."""
    folder = tmp_path_factory.mktemp("scans")
    (folder / "config.json").write_text(json.dumps(QUICK))
    request = sample_request()
    for side in ("reference", "template"):
        volume = getattr(request, side).volume
        write_nrrd(folder / f"{side}.nrrd", volume.array, volume.grid)
    scans = ["--reference", f"{folder / 'reference.nrrd'}", "--template", f"{folder / 'template.nrrd'}"]
    return [*scans, "--config", f"{folder / 'config.json'}", "--progress", "json"]


def start(*arguments: object, command: list[str] | None = None, **popen: object) -> subprocess.Popen[str]:
    """The command in a process of its own; one that is to be killed must not be forked: see ``TO_BE_KILLED``."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **popen}
    return subprocess.Popen([*(command or [warm_python(), *COMMAND[1:]]), *map(str, arguments)], **streams)


def until_stage(process: subprocess.Popen[str], stage: str) -> None:
    for line in process.stdout:
        if json.loads(line).get("stage") == stage:
            return
    raise AssertionError(process.stderr.read())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("package", ["ChangeMapJointLib.cli", "numpy.linalg", "scipy.sparse", "torch.autograd"])
def test_ctrl_c_while_packages_load_gives_no_traceback(package) -> None:
    """The interpreter tells on standard error of each package that it has loaded."""
    loading = [sys.executable, "-X", "importtime", *COMMAND[1:], "demo"]
    # whoever runs the tests in the background may have told its children to ignore Ctrl-C
    heed = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with subprocess.Popen(loading, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **heed) as process:
        for line in process.stderr:
            if line.rsplit("|", 1)[-1].strip() == package:
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
        process.wait(timeout=DEADLINE_S)
    assert "Traceback" not in rest
    assert "KeyboardInterrupt" not in rest
    assert process.returncode == -signal.SIGINT  # a shell says 130


def test_a_signal_while_torch_loads_is_not_lost(tmp_path, monkeypatch) -> None:
    """Packages catch errors of their optional parts, and with them what a signal's handler raises."""
    (tmp_path / "swallowing_package.py").write_text(
        "import signal\n"
        "try:\n    signal.raise_signal(signal.SIGINT)\n    interrupted = False\n"
        "except BaseException:\n    interrupted = True\n",
        "utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    stand_in = type(lazy_torch.torch)("swallowing_package")
    # whoever runs the tests in the background may have told them to ignore Ctrl-C
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            _ = stand_in.interrupted
    finally:
        signal.signal(signal.SIGINT, before)
    assert stand_in.interrupted is False
    sys.modules.pop("swallowing_package")


def test_ctrl_c_stays_ignored_where_it_was() -> None:
    """As with nohup."""
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from ChangeMapJointLib.__main__ import main\n"
        "try: main()\n"
        "finally: assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN"
    )
    done = subprocess.run([sys.executable, "-c", code, "--version"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", [["run", "--help"], ["--version"]])
def test_help_into_a_closed_pipe_ends_quietly(arguments) -> None:
    process = start(*arguments, command=COMMAND)  # what the interpreter does at its end counts
    process.stdout.close()
    assert process.stderr.read() == ""
    process.wait(timeout=DEADLINE_S)


def test_a_run_into_a_closed_pipe_ends_quietly_and_leaves_nothing(inputs, tmp_path) -> None:
    """As ``changemap run ... | head -1``."""
    process = start("run", *inputs, "--out", tmp_path / "out")
    assert json.loads(process.stdout.readline())["stage"] == "read"
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=DEADLINE_S) == 1
    assert names(tmp_path) == []


def test_both_streams_into_a_closed_pipe(inputs, tmp_path) -> None:
    """As ``changemap run ... 2>&1 | head -1``."""
    process = start("run", *inputs, "--progress", "bar", "--out", tmp_path / "out", stderr=subprocess.STDOUT)
    assert "read" in process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=DEADLINE_S) == 1
    assert names(tmp_path) == []


def test_a_closed_pipe_is_not_taken_for_a_damaged_file(monkeypatch, tmp_path) -> None:
    """Progress is told from inside the reading of files, which gives a name to every OSError."""
    reader, writer = os.pipe()
    os.close(reader)
    volume = sample_request().reference.volume
    write_nrrd(tmp_path / "scan.nrrd", volume.array, volume.grid)
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with pytest.raises(OutputClosed) as caught:
            read_volume(tmp_path / "scan.nrrd", progress=lambda fraction, message="": emit("progress"))
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    assert not isinstance(caught.value, (OSError, InputError))


@pytest.fixture(scope="module")
def after_a_kill(inputs, tmp_path_factory) -> tuple[list[str], Path]:
    """What a run left that was killed while it wrote, and the folder of the next one."""
    out = tmp_path_factory.mktemp("killed") / "out"
    with start("run", *inputs, "--out", out, command=TO_BE_KILLED) as process:
        until_stage(process, "write")
        process.kill()
        process.communicate()
    left = names(out.parent)
    with start("run", *inputs, "--out", out) as process:
        said = process.communicate(timeout=DEADLINE_S)[1]
    assert process.returncode == 0, said
    return left, out


def test_a_killed_run_leaves_only_what_the_next_one_removes(after_a_kill) -> None:
    left, out = after_a_kill
    assert all(name.startswith(".out.") and name.endswith(".partial") for name in left), left
    assert names(out.parent) == ["out"]
    assert is_run(out)


def test_a_run_killed_while_replacing_leaves_the_old_or_the_new(inputs, after_a_kill, tmp_path) -> None:
    out = tmp_path / "out"
    shutil.copytree(after_a_kill[1], out)
    before = (out / "run.json").read_text()
    with start("run", *inputs, "--out", out, "--overwrite", command=TO_BE_KILLED) as process:
        until_stage(process, "write")
        process.kill()
        process.communicate()
    assert (out / "run.json").read_text() == before


def test_two_runs_into_one_folder_give_one_result_and_one_message(inputs, tmp_path) -> None:
    out = tmp_path / "out"
    both = [start("run", *inputs, "--out", out) for _ in range(2)]
    ends: dict[int, tuple[int, str]] = {}

    def follow(number: int) -> None:
        said = both[number].communicate(timeout=DEADLINE_S)[1]
        ends[number] = both[number].returncode, said

    threads = [threading.Thread(target=follow, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    (well, nothing), (badly, said) = sorted(ends.values())
    assert (well, nothing, badly) == (0, "", 2)
    assert len(said.strip().splitlines()) == 1
    assert "exists already" in said
    assert names(tmp_path) == ["out"]
    assert is_run(out)
