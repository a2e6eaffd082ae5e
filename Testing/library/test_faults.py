"""Killed, a full disk, a read-only folder, a clock set back, two runs at once: in every stage, and what is left then.

``docs/faults.md`` has the table. One program makes the cases (:mod:`fault_cases`), on a small disk of its own where one
can be mounted; every test looks at one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from job_samples import DEADLINE_S, STAGES

from ChangeMapJointLib.comparison.outcome import KILLED
from ChangeMapJointLib.io.run_files import WITH_MAP

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="cases are forked, disks are mounted: Linux")
OWN = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
MOUNT = 'mount -t tmpfs -o size=6m none "$0"'
WRITTEN = sorted(WITH_MAP)
EARLIER = ["out/run.json"]
WHOLE = [f"out/{name}" for name in WRITTEN]
MADE = ["report --pdf", "export --field", "export --dicom"]
LOG_ONLY = ["job.json", "lock", "state.json", "worker.log"]
Case = dict[str, Any]


def own_disk(folder: Path) -> bool:
    """Can a disk be mounted here, seen by its process alone?"""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*OWN, MOUNT, str(folder)], check=False, capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, str], Case]:
    """Every case by (way, kind, stage)."""
    disk = tmp_path_factory.mktemp("faults") / "disk"
    disk.mkdir()
    here = Path(__file__).parent
    program = [sys.executable, str(here / "fault_cases.py")]
    mounted = [*OWN, MOUNT + ' && exec "$1" "$2" "$0" own', str(disk), *program]
    command = mounted if own_disk(disk) else [*program, str(disk), "shared"]
    path = os.pathsep.join([str(here), str(here.parents[1])])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}  # threads do not outlive a fork
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=10 * DEADLINE_S
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {(case["way"], case["kind"], case["stage"]): case for case in found}


@pytest.fixture
def case(cases: dict[tuple[str, str, str], Case], way: str, kind: str, stage: str) -> Case:
    if (way, kind, stage) not in cases:
        pytest.skip("a disk of one's own cannot be mounted here")
    return cases[way, kind, stage]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("way", "kind"), [("command line", "kill")])
def test_a_killed_run_leaves_the_earlier_result_and_only_what_the_next_one_removes(case) -> None:
    assert case["code"] == -signal.SIGKILL
    assert case["earlier"]
    partial = [name for name in case["left"] if name not in EARLIER]
    assert all(name.startswith(".out.") and ".partial" in name for name in partial)
    assert len(partial) == (1 if case["stage"] == "write" else 0)
    assert case.get("next", WHOLE) == WHOLE


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("way", "kind"), [("worker", "kill")])
def test_a_killed_worker_leaves_its_log_and_says_what_to_do(case) -> None:
    assert case["code"] == -signal.SIGKILL
    assert (case["state"], case["state later"], case["message"]) == ("failed", "failed", KILLED)
    assert case["left"] == LOG_ONLY


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("way", "kind", "reason", "what_to_do"),
    [
        ("command line", "full", "No space left on device", "free space there or give another folder"),
        ("command line", "read-only", "Read-only file system", "give a folder that you may write to"),
    ],
)
def test_a_disk_that_takes_nothing_is_told_in_one_line(case, reason, what_to_do) -> None:
    assert case["code"] == 2
    assert case["earlier"]
    out = case["error"].split("--out ")[1].split(":")[0]
    assert case["error"] == f"changemap: --out {out}: cannot be written ({reason}); {what_to_do}\n"
    assert case["events"][-1]["message"] == case["error"].removeprefix("changemap: ").rstrip()
    removable = case["kind"] == "full" or case["stage"] != "write"
    assert [name for name in case["left"] if removable or ".partial" not in name] == EARLIER
    assert case.get("next", WHOLE) == WHOLE


@pytest.mark.parametrize("stage", WRITTEN)
@pytest.mark.parametrize(("way", "kind"), [("command line", "full at")])
def test_a_disk_that_is_full_at_one_file_leaves_none(case) -> None:
    assert case["code"] == 2
    assert case["earlier"]
    assert case["left"] == EARLIER
    assert "cannot be written (" in case["error"]
    assert ".partial" not in case["error"]
    assert len(case["error"].splitlines()) == 1


@pytest.mark.parametrize("way", ["0 pages", "2 pages"])
@pytest.mark.parametrize(("kind", "stage"), [("made", f"{what}") for what in MADE])
def test_what_is_made_of_a_run_is_whole_or_not_there(case) -> None:
    assert case["code"] == 2
    assert case["left"] == []
    (line,) = case["error"].splitlines()
    assert "(No space left on device); " in line


@pytest.mark.parametrize(("way", "kind", "stage"), [("full before", "sent", "send")])
def test_nothing_is_sent_that_could_not_be_recorded(case) -> None:
    assert case["code"] == 2
    assert case["left"] == []
    assert "objects.sent.json: cannot be written (No space left on device); nothing was sent" in case["error"]


@pytest.mark.parametrize(("way", "kind", "stage"), [("full at the first", "sent", "send")])
def test_what_was_sent_before_the_disk_was_full_is_said(case) -> None:
    assert case["code"] == 2
    assert re.search(
        r"cannot be written \(No space left on device\); 1 of \d+ objects have arrived, the last", case["error"]
    )
    assert len(case["error"].splitlines()) == 1


@pytest.mark.parametrize(("way", "kind", "stage"), [("free", "sent", "send")])
def test_the_same_command_goes_on_when_there_is_space(case) -> None:
    assert case["code"] == 0, case["error"]
    assert case["left"] == ["objects.sent.json"]
    assert case["events"][-1]["event"] == "finished"


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("way", "kind"), [("worker", "full")])
def test_a_worker_on_a_full_disk_says_so_and_keeps_its_log(case) -> None:
    assert case["code"] == 2
    assert (case["state"], case["state later"]) == ("failed", "failed")
    assert "disk is full" in case["message"]
    assert "Free space there" in case["message"]
    assert case["left"] == LOG_ONLY


@pytest.mark.parametrize("stage", ["lungs", "write"])
@pytest.mark.parametrize(("way", "kind"), [("command line", "clock")])
def test_a_clock_set_back_breaks_neither_progress_nor_record(case) -> None:
    assert case["code"] == 0, case["error"]
    assert case["left"] == WHOLE
    told = [event for event in case["events"] if event["event"] == "progress"]
    assert [event["fraction"] for event in told] == sorted(event["fraction"] for event in told)
    assert [event["elapsed_s"] for event in told] == sorted(event["elapsed_s"] for event in told)
    assert all(event["remaining_s"] is None or event["remaining_s"] >= 0 for event in told)
    assert [report["name"] for report in case["record"]["stages"]] == list(STAGES)
    assert all(report["time_s"] >= 0 for report in case["record"]["stages"])


@pytest.mark.parametrize(("way", "kind", "stage"), [("command line", "two", "write")])
def test_of_two_runs_over_an_earlier_one_the_last_stays_whole(case) -> None:
    assert case["code"] == 0, case["error"]
    assert not case["earlier"]
    assert case["left"] == WHOLE
    assert [event["event"] for event in case["events"]].count("finished") == 2


@pytest.mark.parametrize(("way", "kind", "stage"), [("command line", "two, no --overwrite", "write")])
def test_of_two_runs_into_a_new_folder_the_first_stays(case) -> None:
    assert case["code"] == 2
    assert "exists already; give another folder, or --overwrite" in case["error"]
    assert case["left"] == WHOLE
