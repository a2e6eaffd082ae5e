"""A cohort of 200 small pairs with one worker killed and the command interrupted once, and two workers against one.

``cohort.py SCRATCH`` writes ``results/cohort.json``. The pairs are closed-form chests of 6 mm voxels
(``cohort_samples``), compared by the rigid method; the second part compares deformably.
Nothing here says how well anything is found.

1. ``changemap cohort`` starts on two workers. When 40 pairs are done one worker is killed (SIGKILL); when 100 are done
   the command gets SIGINT. The same command then runs to its end, and once more with nothing to do.
2. Ten pairs on one worker, then on two, in folders of their own, each worker on a core of its own; throughput is taken
   between the first start of a pair and the last end, so that the start of the workers does not count.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "Testing" / "library"))

from cohort_samples import write_list, write_scans  # noqa: E402
from job_samples import QUICK  # noqa: E402
from record import metadata, write_results  # noqa: E402

PAIRS, KILL_AT, STOP_AT = 200, 0.2, 0.5  # the last two as shares of the pairs
TIMED_PAIRS = 10
VOXEL_MM = 6.0


def command(folder: Path, out: Path, *extra: str, method: str = "rigid") -> list[str]:
    """The command of a cohort in ``folder``."""
    options = ["--config", str(folder / "quick.json"), "--method", method, "--progress", "json", "--memory", "1.2"]
    start = [sys.executable, "-m", "ChangeMapJointLib", "cohort", str(folder / "pairs.csv"), "--out", str(out)]
    return [*start, "--device", "cpu", *options, *extra]


def finish(arguments: list[str]) -> dict[str, Any]:
    """Run a command to its end; its last event."""
    run = subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(run.stdout.splitlines()[-1])


def history(out: Path) -> dict[str, list[list[str]]]:
    """What happened to each pair: time, what, session, host, process."""
    return {
        path.parent.name: [line.split("\t") for line in path.read_text("utf-8").splitlines()]
        for path in sorted(out.glob("pairs/*/history.log"))
    }


def interrupted(folder: Path, out: Path, pairs: int) -> dict[str, Any]:
    """Part 1; checks everything and returns the figures."""
    start = time.monotonic()
    killed = stopped = None
    with subprocess.Popen(command(folder, out, "--workers", "2"), stdout=subprocess.PIPE, text=True) as child:
        for line in child.stdout:
            ended = json.loads(line).get("ended", 0)
            if killed is None and ended >= KILL_AT * pairs:
                killed = busy_worker(out)
                psutil.Process(killed).send_signal(signal.SIGKILL)
            if stopped is None and ended >= STOP_AT * pairs:
                stopped = ended
                child.send_signal(signal.SIGINT)
    assert child.returncode == 130, child.returncode
    done = {path.parent.name: path.stat().st_ino for path in out.glob("pairs/*/result")}
    leftovers = [str(path) for path in out.rglob(".*") if path.name != ".lock"]
    whole = {name: path_stamp(out, name) for name in done}
    again = finish(command(folder, out, "--workers", "2"))
    third_start = time.monotonic()
    third = finish(command(folder, out, "--workers", "2"))
    events = history(out)
    ends = {name: sum(event[1] in ("done", "adopted") for event in entries) for name, entries in events.items()}
    return {
        "pairs": pairs,
        "done_when_interrupted": len(done),
        "kept_by_the_rerun": sum(path_stamp(out, name) == stamp for name, stamp in whole.items()),
        "skipped_by_the_rerun": again["skipped"],
        "done_exactly_once": sum(count == 1 for count in ends.values()),
        "results": len(list(out.glob("pairs/*/result/run.json"))),
        "failed": again["failed"],
        "started_twice": sorted(n for n, entries in events.items() if sum(e[1] == "started" for e in entries) > 1),
        "partial_folders_after_the_interruption": len(leftovers),
        "partial_folders_at_the_end": len([path for path in out.rglob(".*") if path.name != ".lock"]),
        "skipped_by_a_third_run": third["skipped"],
        "third_run_s": round(time.monotonic() - third_start, 1),
        "all_runs_s": round(time.monotonic() - start, 1),
    }


def busy_worker(out: Path) -> int:
    """The process of a pair that has started and not ended."""
    while True:
        for entries in history(out).values():
            if entries[-1][1] == "started":
                return int(entries[-1][4])
        time.sleep(0.01)


def path_stamp(out: Path, name: str) -> tuple[int, int]:
    """What tells whether a result was written again."""
    state = (out / "pairs" / name / "result" / "run.json").stat()
    return state.st_ino, state.st_mtime_ns


def throughput(folder: Path, out: Path, workers: int) -> dict[str, float]:
    """Part 2 for a number of workers."""
    arguments = command(folder, out, "--workers", str(workers), method="sequential")
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL) as child:
        while child.poll() is None:
            pin_workers(out)
            time.sleep(0.1)
    assert child.returncode == 0, child.returncode
    times = [datetime.fromisoformat(event[0]) for entries in history(out).values() for event in entries]
    seconds = (max(times) - min(times)).total_seconds()
    return {"workers": workers, "seconds": round(seconds, 2), "pairs_per_minute": round(60 * TIMED_PAIRS / seconds, 2)}


def pin_workers(out: Path) -> None:
    """Give each process that has begun a pair one core, with all of its threads."""
    processes = sorted({int(event[4]) for entries in history(out).values() for event in entries})
    for core, process in enumerate(processes):
        for thread in Path(f"/proc/{process}/task").glob("*"):
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.sched_setaffinity(int(thread.name), {core})


def prepare(folder: Path, count: int) -> None:
    """Write scans, list and options."""
    shutil.rmtree(folder, ignore_errors=True)
    write_list(folder / "pairs.csv", write_scans(folder, count, size_mm=VOXEL_MM))
    (folder / "quick.json").write_text(json.dumps(QUICK))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--part", choices=("interrupted", "throughput"))
    parser.add_argument("--pairs", type=int, default=PAIRS, help="fewer try the script itself, and write no results")
    arguments = parser.parse_args()
    started = metadata()
    if arguments.part != "throughput":
        folder = arguments.scratch / "many"
        prepare(folder, arguments.pairs)
        figures = interrupted(folder, folder / "out", arguments.pairs)
        print(json.dumps(figures, indent=2))
        assert figures["done_exactly_once"] == figures["results"] == arguments.pairs
        assert figures["kept_by_the_rerun"] == figures["done_when_interrupted"]
        assert figures["partial_folders_at_the_end"] == figures["failed"] == 0
        if arguments.pairs == PAIRS:
            write_results("cohort", {"interrupted": figures}, started)
    if arguments.part != "interrupted":
        folder = arguments.scratch / "timed"
        prepare(folder, TIMED_PAIRS)
        one, two = (throughput(folder, folder / f"out{n}", n) for n in (1, 2))
        ratio = round(one["seconds"] / two["seconds"], 3)
        print(one, two, ratio)
        write_results("cohort", {"throughput": {"one": one, "two": two, "ratio": ratio}}, started)


if __name__ == "__main__":
    main()
