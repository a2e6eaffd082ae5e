"""A cohort survives bad pairs, dead workers and interrupted commands; what is finished is done once and checked."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from cohort_samples import stub, write_list, write_stub_scans
from job_samples import wait_for

from ChangeMapJointLib.cohort import task as tasks
from ChangeMapJointLib.cohort.cluster import ClusterOptions, local_size
from ChangeMapJointLib.cohort.folder import cohort_folder
from ChangeMapJointLib.cohort.identity import options_hash
from ChangeMapJointLib.cohort.overview import write_overview
from ChangeMapJointLib.cohort.pairs import read_pairs
from ChangeMapJointLib.cohort.place import PairPlace
from ChangeMapJointLib.cohort.record import PairRecord, read_record
from ChangeMapJointLib.cohort.run import CohortRequest, run_cohort
from ChangeMapJointLib.cohort.table import ATTENTION, attention_of, by_attention, write_cohort_table
from ChangeMapJointLib.cohort.task import PairTask, complete_pair
from ChangeMapJointLib.comparison.config import RunConfig
from ChangeMapJointLib.core.errors import Cancelled, InputError
from ChangeMapJointLib.io.run_files import CHANGE_MAP, READING, REPORT, RUN

CONFIG = RunConfig()
HASH = options_hash(CONFIG)
HERE = Path(__file__).parent


def task_of(pair, out: Path, **changes) -> PairTask:
    return replace(PairTask(pair, out, "s1", CONFIG, HASH, compare=stub), **changes)


# -- the list ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty, expected a header with id,reference,template, each once"),
        ("id,reference\na,b\n", "found the columns id, reference, expected a header with id,reference,template"),
        ("id,reference,template\n", "lists no pair, expected one pair per line below the header"),
        ("id,reference,template\na,b\n", "line 2 has 2 values, expected 3"),
        ("id,reference,template\na,b,\n", "line 2 has no template"),
        ("id,reference,template\na,b,c\na,d,e\n", "lines 2 and 3 have the id 'a' twice; give each pair an own id"),
        ("id,reference,template\nCase,b,c\ncase,d,e\n", "lines 2 and 3 have the ids 'Case' and 'case', one folder"),
        ("id,reference,template\n../x,b,c\n", "line 2 has the id '../x', expected up to 100 letters"),
        ("id,reference,template\n" + "x" * 101 + ",b,c\n", "expected up to 100 letters"),
    ],
)
def test_a_wrong_list_gets_one_line(tmp_path, text, said) -> None:
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(InputError) as caught:
        read_pairs(tmp_path / "pairs.csv")
    assert str(caught.value).startswith(f"{tmp_path / 'pairs.csv'}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_list_from_a_spreadsheet(tmp_path) -> None:
    (tmp_path / "pairs.csv").write_text('\ufeffID;Template;note;Reference\r\n"Ä 1";b#2;;/data/c\r\n;;;\r\n', "utf-8")
    (pair,) = read_pairs(tmp_path / "pairs.csv")
    assert (pair.id, pair.reference, pair.template) == ("Ä 1", Path("/data/c"), tmp_path / "b#2")
    (tmp_path / "pairs.csv").write_bytes(b"id,reference,template\n\xff\xfe,b,c\n")
    with pytest.raises(InputError, match="is not UTF-8 text"):
        read_pairs(tmp_path / "pairs.csv")
    with pytest.raises(InputError, match="no such file, expected a CSV list"):
        read_pairs(tmp_path / "nothing.csv")


# -- the folder -------------------------------------------------------------------------
def test_a_folder_of_something_else_is_refused(tmp_path) -> None:
    pairs = write_stub_scans(tmp_path / "scans", 1)
    other = [replace(pairs[0], id="other")]
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.doc").write_text("years")

    def open_it(pairs=pairs, options=HASH, **kwargs) -> None:
        with cohort_folder(out, pairs, CONFIG, options, **kwargs):
            PairPlace(out, pairs[0].id).folder.mkdir(parents=True, exist_ok=True)

    with pytest.raises(InputError, match="holds other files than those of a cohort"):
        open_it()
    (out / "thesis.doc").unlink()
    (out / ".DS_Store").write_text("of a file manager")
    open_it()
    open_it()
    with pytest.raises(InputError, match="holds another cohort: none of its 1 pairs is in the list"):
        open_it(other)
    with pytest.raises(InputError, match="made with other options"):
        open_it(options="x")
    open_it(options="x", overwrite=True)
    with cohort_folder(out, pairs, CONFIG, "x"), pytest.raises(InputError, match="another command works on this"):
        open_it(options="x")
    (out / "cohort.json").write_text("{")
    with pytest.raises(InputError, match=r"cohort\.json: is damaged"):
        open_it()
    with (
        pytest.raises(InputError, match="is a file, expected a folder"),
        cohort_folder(pairs[0].reference, pairs, CONFIG, HASH),
    ):
        pass


# -- one pair ---------------------------------------------------------------------------
def test_a_finished_pair_is_done_once_and_a_damaged_one_again(tmp_path) -> None:
    (pair,) = write_stub_scans(tmp_path / "scans", 1)
    task = task_of(pair, tmp_path / "out")
    place = task.place
    first = complete_pair(task)
    assert (first.record.status, first.skipped, first.redone) == ("done", False, "")
    assert first.record.figures["verdict"] == "good"
    assert place.thumbnail.exists()
    again = complete_pair(task)
    assert again.skipped
    assert again.record == first.record
    for damage, words in (
        (lambda: (place.result / REPORT).write_text("x" * (place.result / REPORT).stat().st_size), "was changed"),
        ((place.result / CHANGE_MAP).unlink, "change_map.nrrd is missing"),
        ((place.result / RUN).unlink, "run.json is missing"),
        (lambda: (place.result / REPORT).write_text(""), "has 0 bytes instead of"),
        (lambda: shutil.rmtree(place.result), "the folder is missing"),
    ):
        damage()
        redone = complete_pair(task)
        assert words in redone.redone
        assert complete_pair(task).skipped
    (place.result / REPORT).write_text("x" * (place.result / REPORT).stat().st_size)
    assert complete_pair(replace(task, check="size")).skipped
    assert complete_pair(task).redone
    assert place.history("done") == 7
    (place.result / ".DS_Store").write_text("of a file manager")
    (place.result / READING).write_text("decisions")  # with which a viewer writes the report again
    (place.result / REPORT).write_text("<p>accepted</p>")
    assert complete_pair(task).skipped
    place.record.unlink()  # its worker was killed: the result is looked at anew
    assert complete_pair(task).skipped
    (place.result / ".DS_Store").unlink()
    assert complete_pair(task).skipped
    (place.result / CHANGE_MAP).unlink()
    assert complete_pair(task).redone
    assert (place.folder / "reading.earlier-1.json").read_text() == "decisions"
    (place.result / "notes.txt").write_text("a reader's")  # never removed
    kept = complete_pair(task)
    assert "notes.txt was added" in kept.redone
    assert kept.record.status == "fault"
    assert "holds other files than those of a run" in kept.record.message
    assert (place.result / "notes.txt").exists()


def test_decisions_that_are_kept_never_replace_earlier_ones(tmp_path):
    place = PairPlace(tmp_path, "a")
    place.result.mkdir(parents=True)
    (place.result / READING).write_text("now")
    (place.folder / "reading.earlier-2.json").write_text("before")  # somebody took the first one away
    place.make_room()
    place.make_room()
    kept = [(place.folder / f"reading.earlier-{number}.json").read_text() for number in (1, 2, 3)]
    assert kept == ["now", "before", "now"]


def test_changed_moved_and_other_scans(tmp_path, monkeypatch) -> None:
    pair, other = write_stub_scans(tmp_path / "scans", 2)
    task = task_of(pair, tmp_path / "out")
    complete_pair(task)
    moved = tmp_path / "moved.txt"
    shutil.copy(pair.reference, moved)
    assert complete_pair(replace(task, pair=replace(pair, reference=moved))).skipped  # the same content
    assert complete_pair(replace(task, pair=replace(pair, reference=moved))).skipped
    wrong = complete_pair(replace(task, pair=replace(other, id=pair.id)))
    assert "holds the result of another scan" in wrong.record.message
    assert read_record(task.place.record).status == "done"
    assert complete_pair(replace(task, pair=replace(other, id=pair.id), overwrite=True)).redone
    other.reference.write_text("something else")
    assert "was changed" in complete_pair(replace(task, pair=replace(other, id=pair.id))).redone
    other.reference.unlink()  # archived: what was made of it stays
    assert complete_pair(replace(task, pair=replace(other, id=pair.id))).skipped
    other.reference.write_text("something else")
    monkeypatch.setattr(tasks, "__version__", "9")
    assert "made by version" in complete_pair(replace(task, pair=replace(other, id=pair.id))).redone


def test_bad_pairs_are_told_in_one_line(tmp_path) -> None:
    refused, fault, full = write_stub_scans(tmp_path / "scans", 3)
    refused.reference.write_text("refuse")
    fault.reference.write_text("fault")
    full.reference.write_text("full")
    task = task_of(refused, tmp_path / "out")
    record = complete_pair(task).record
    assert (record.status, record.message) == ("refused", "the current scan: is not a chest CT")
    assert complete_pair(task).skipped  # the same again
    assert not complete_pair(replace(task, retry_refused=True)).skipped
    refused.reference.unlink()
    assert complete_pair(task).record.message.startswith("the current scan: no such file or folder")
    refused.reference.write_text("fine now")
    assert complete_pair(task).record.status == "done"
    task = task_of(fault, tmp_path / "out")
    record = complete_pair(task).record
    assert (record.status, record.message) == ("fault", "ZeroDivisionError: a fault")
    assert "ZeroDivisionError" in task.place.fault_log.read_text("utf-8")
    assert "it failed before" in complete_pair(task).redone
    task = task_of(full, tmp_path / "out")
    outcome = complete_pair(task)
    assert outcome.record is None
    assert (
        str(outcome.error) == f"{tmp_path / 'out'}: the disk is full; free space there and run the same command again"
    )
    assert read_record(task.place.record) is None

    def stop(request, listener) -> None:
        raise Cancelled("now")

    assert complete_pair(replace(task, compare=stop)).record is None


def test_a_whole_result_without_a_record_is_kept_and_a_partial_one_is_swept(tmp_path) -> None:
    """Its worker was killed between the last two steps; another one on another host, half-way."""
    (pair,) = write_stub_scans(tmp_path / "scans", 1)
    task = task_of(pair, tmp_path / "out")
    first = complete_pair(task).record
    before = (task.place.result / RUN).stat().st_mtime_ns
    task.place.record.unlink()
    (task.place.folder / ".result.elsewhere.77.x.partial").mkdir()
    (task.place.folder / ".1234abcd.record.json").write_text("{")
    kept = complete_pair(task)
    assert kept.skipped
    assert kept.record.outputs == first.outputs
    assert (task.place.result / RUN).stat().st_mtime_ns == before
    assert task.place.sweep() == 2
    task.place.record.write_text("{")
    pair.reference.write_text("another scan")
    assert "has no record, and is not of these scans" in complete_pair(task).redone
    task.place.result.rename(task.place.folder / ".result.elsewhere.77.y.old")  # killed while replacing
    task.place.sweep()
    assert complete_pair(task).skipped


# -- on workers -------------------------------------------------------------------------
@pytest.fixture
def forked():
    """Workers are forked from a process that has imported everything, which takes longest."""
    import dask
    from distributed.utils import get_mp_context

    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        get_mp_context().set_forkserver_preload(["cohort_samples", "ChangeMapJointLib.cohort.remote"])
        yield


def cluster_request(folder: Path, count: int = 6, **changes) -> CohortRequest:
    pairs = write_stub_scans(folder / "scans", count)
    cluster = ClusterOptions(workers=2, memory_gb=1.0, device="cpu", retries=1)
    return CohortRequest(tuple(pairs), folder / "out", CONFIG, cluster, compare=stub, **changes)


def test_killed_workers_bad_pairs_and_a_rerun(tmp_path, forked) -> None:
    request = cluster_request(tmp_path)
    words = ("fine", "kill", "deadly", "refuse", "verdict do not use", "verdict look closely")
    for pair, word in zip(request.pairs, words, strict=True):
        pair.reference.write_text(word)
    told = []
    result = run_cohort(request, lambda event: told.append(event) if event.last else None)
    status = {record.id: record.status for record in result.records}
    assert status == {"p0": "done", "p1": "done", "p2": "lost", "p3": "refused", "p4": "done", "p5": "done"}
    assert next(r for r in result.records if r.id == "p2").message.startswith("its worker died 2 times")
    assert sorted(event.last.id for event in told) == sorted(status)
    places = {pair.id: PairPlace(request.out, pair.id) for pair in request.pairs}
    assert places["p1"].history("started") == 2
    assert [places[name].history("done") for name in status] == [1, 1, 0, 0, 1, 1]
    assert not [path for path in request.out.rglob(".*") if path.name != ".lock"]

    import pandas as pd

    frame = pd.read_parquet(request.out / "table.parquet")
    assert list(frame["id"]) == ["p2", "p3", "p4", "p5", "p0", "p1"]  # what needs attention first
    assert list(pd.read_csv(request.out / "table.csv")["attention"]) == list(frame["attention"])
    page = (request.out / "overview.html").read_text("utf-8")
    assert page.index("p2") < page.index("p4") < page.index("p0")
    assert page.count("data:image/png") == 4

    request.pairs[2].reference.write_text("fine")
    again = run_cohort(request)
    assert (again.skipped, len(again.redone), len(again.failed)) == (5, 1, 1)
    assert [places[name].history("done") for name in status] == [1, 1, 1, 0, 1, 1]


COMMAND = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from cohort_samples import stub
from ChangeMapJointLib.cli import cohort
from ChangeMapJointLib.cli.main import main
if __name__ == "__main__":
    plain = cohort.CohortRequest
    cohort.CohortRequest = lambda *values: plain(*values, stub)
    main()
"""


def test_ctrl_c_leaves_a_state_that_a_rerun_continues(tmp_path, forked) -> None:
    """SIGINT to the whole group, as a terminal sends it, while one pair is done and one is half-way."""
    request = cluster_request(tmp_path, 3)
    request.pairs[1].reference.write_text("slow")
    (tmp_path / "command.py").write_text(COMMAND.format(here=str(HERE)))
    arguments = ["cohort", write_list(tmp_path / "pairs.csv", list(request.pairs)), "--out", request.out]
    arguments += ["--workers", "1", "--memory", "1", "--device", "cpu", "--progress", "json"]
    command = [sys.executable, str(tmp_path / "command.py"), *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    child = subprocess.Popen(command, start_new_session=True, **pipes)
    wait_for(lambda: request.pairs[1].reference.with_suffix(".struck").exists() or child.poll() is not None)
    workers = psutil.Process(child.pid).children(recursive=True)
    os.killpg(child.pid, signal.SIGINT)
    out, said = child.communicate(timeout=60)
    assert child.returncode == 130, said
    assert said.strip().splitlines()[-1] == (
        "changemap: Cancelled; 1 of 3 pairs have ended. Run the same command to continue."
    )
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["pair", "cancelled"]
    assert not psutil.wait_procs(workers, timeout=10)[1]
    places = [PairPlace(request.out, pair.id) for pair in request.pairs]
    assert [place.result.exists() for place in places] == [True, False, False]
    assert not [path for path in request.out.rglob(".*") if path.name != ".lock"]
    request.pairs[1].reference.write_text("fine")
    result = run_cohort(replace(request, cluster=replace(request.cluster, workers=1)))
    assert (result.skipped, len(result.failed)) == (1, 0)
    assert [place.history("done") for place in places] == [1, 1, 1]


def test_a_foreign_scheduler_with_gpu_workers_by_tag(tmp_path, monkeypatch) -> None:
    """Pairs for GPUs go to the worker with the tag alone; a worker that dies is told; the scheduler's end, too."""
    from distributed import LocalCluster

    request = cluster_request(tmp_path, 3)
    with LocalCluster(
        n_workers=1, threads_per_worker=1, resources={"GPU": 1}, processes=False, dashboard_address=None
    ) as cluster:
        request = replace(request, cluster=ClusterOptions(cluster.scheduler_address, device="cuda"))
        events = []
        result = run_cohort(request, events.append)
        assert not result.failed
        assert {event.slots for event in events} == {1}
    monkeypatch.setattr("ChangeMapJointLib.cohort.cluster.CONNECT_S", 0.2)
    with pytest.raises(InputError, match=r"cannot be reached, expected the address of a running Dask scheduler"):
        run_cohort(request)


# -- the end ----------------------------------------------------------------------------
def test_a_large_cohort_has_several_pages_and_formulas_are_no_formulas(tmp_path) -> None:
    figures = {"verdict": "good", "findings": 0, "reasons": "<script>alert(1)</script>"}
    records = [PairRecord(f"p{number:04d}", "done", figures=figures) for number in range(1001)]
    records.append(PairRecord("bad", "refused", "=cmd()"))
    write_cohort_table(tmp_path, records)
    assert "bad,not compared,refused,'=cmd()" in (tmp_path / "table.csv").read_text("utf-8")
    (tmp_path / "overview-9.html").write_text("of an earlier, larger cohort")
    page = write_overview(tmp_path, records, total=1002).read_text("utf-8")
    assert "<script" not in page
    assert [path.name for path in sorted(tmp_path.glob("overview*"))] == [
        "overview-2.html", "overview-3.html", "overview.html",
    ]  # fmt: skip
    assert by_attention(records)[0].id == "bad"
    write_cohort_table(tmp_path, [])
    assert "0</b>not compared" in write_overview(tmp_path, [], total=0).read_text("utf-8")


def test_attention_is_by_status_verdict_and_findings() -> None:
    def of(status="done", **figures):
        return attention_of(PairRecord("x", status, figures=figures))

    found = [
        of("lost"), of(verdict="do not use", findings=0), of(verdict="look closely", findings=3),
        of(verdict="good", findings=1), of(verdict="good", findings=0),
    ]  # fmt: skip
    assert tuple(found) == ATTENTION


@pytest.mark.parametrize(
    ("options", "said"),
    [({"workers": 0}, "workers"), ({"memory_gb": float("nan")}, "memory"), ({"retries": -1}, "retries")],
)
def test_wrong_cluster_options(options, said) -> None:
    with pytest.raises(InputError, match=said):
        ClusterOptions(**options)


def test_workers_fit_into_the_machine() -> None:
    assert local_size(5.0, cores=2, memory_bytes=24 * 10**9) == 2
    assert local_size(5.0, cores=64, memory_bytes=64 * 10**9) == 11
    assert local_size(50.0, cores=64, memory_bytes=16 * 10**9) == 1
    assert 1 <= local_size(0.5) <= multiprocessing.cpu_count()
