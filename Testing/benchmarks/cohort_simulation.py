"""What 100,000 pairs on 64 workers would need, and what would give way first: the real loop with stub comparisons.

    python Testing/benchmarks/cohort_simulation.py RUN_FOLDER [--pairs 100000] [--scratch FOLDER]

RUN_FOLDER is the result of one real ``changemap run``: its time and size are those of every pair. List, client loop,
Dask scheduler, 64 workers, table and overview are the product's own; only the comparison is a stub, which waits for a
share of the real time and returns a record of the real size. All 64 workers are threads of this process, so that the
cost of a pair counts scheduler, client and workers together: more than the scheduler of a real cluster carries.

Measured: what a pair costs the scheduler, the memory that grows with the number of pairs, and how long the list, the
table and the overview take. Computed from that: hours, storage and traffic. Writes ``results/cohort_simulation.json``.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import psutil
from distributed import Client, LocalCluster
from record import metadata, write_results

import ChangeMapJointLib.cohort.run as cohort_run
from ChangeMapJointLib.cohort.cluster import Workers
from ChangeMapJointLib.cohort.overview import write_overview
from ChangeMapJointLib.cohort.pairs import read_pairs
from ChangeMapJointLib.cohort.place import PairPlace
from ChangeMapJointLib.cohort.record import PairRecord, figures_of
from ChangeMapJointLib.cohort.table import write_cohort_table
from ChangeMapJointLib.cohort.task import PairTask, TaskOutcome
from ChangeMapJointLib.cohort.thumbnail import write_thumbnail
from ChangeMapJointLib.comparison.config import RunConfig

WORKERS, WAIT_S = 64, 0.05
INPUT_MB = 2 * 100.0  # two scans of 512 x 512 x 300, compressed as DICOM files usually are
LINKS = 50_000  # to one file; ext4 allows 65,000
NETWORK_MB_S = 1000.0  # of the shared storage, all workers together: 10 Gbit/s
T = TypeVar("T")


def timed(call: Callable[[], T]) -> tuple[T, float]:
    """What a call returns, and its seconds."""
    start = time.monotonic()
    return call(), round(time.monotonic() - start, 1)


def memory_mb() -> float:
    """Resident memory of this process."""
    return psutil.Process().memory_info().rss / 1e6


def cpu_s() -> float:
    """CPU seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def write_list(folder: Path, count: int) -> Path:
    """A list of ``count`` pairs; nobody reads the scans."""
    path = folder / "pairs.csv"
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("id", "reference", "template"))
        writer.writerows((f"pair-{n:06d}", f"scans/{n:06d}-2.nrrd", f"scans/{n:06d}-1.nrrd") for n in range(count))
    return path


def loop(cohort: Any, figures: dict[str, Any], seconds: float) -> dict[str, float]:
    """Bring all pairs through the real loop, with a stub for the comparison."""

    def stub(task: PairTask, version: str) -> TaskOutcome:
        del version
        time.sleep(WAIT_S)
        return TaskOutcome(PairRecord(task.pair.id, "done", figures=figures, time_s=seconds, host="simulated"))

    before_mb, before_s = memory_mb(), cpu_s()
    with (
        mock.patch.object(cohort_run, "work_on", stub),
        LocalCluster(
            n_workers=WORKERS,
            threads_per_worker=1,
            processes=False,
            memory_limit=0,
            dashboard_address=None,
            silence_logs=50,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        _, wall = timed(lambda: cohort.work(Workers(client, "cpu", None, local=False)))
    used = cpu_s() - before_s
    return {
        "pairs": len(cohort.ended),
        "wall_s": wall,
        "cpu_s": round(used, 1),
        "cpu_ms_a_pair": round(1000 * used / len(cohort.ended), 2),
        "pairs_a_second": round(len(cohort.ended) / wall, 1),
        "memory_grown_mb": round(memory_mb() - before_mb, 1),
    }


def pages(folder: Path, records: list[PairRecord], run: Path) -> dict[str, Any]:
    """Table and overview of all pairs, each with a picture of its own."""
    picture = folder / "thumbnail.png"
    write_thumbnail(run / "report.html", picture)
    for number, record in enumerate(records):
        if number % LINKS == 0:
            picture = Path(shutil.copy(picture, folder / f"thumbnail{number}.png"))
        place = PairPlace(folder, record.id)
        place.folder.mkdir(parents=True)
        place.thumbnail.hardlink_to(picture)
    table, table_s = timed(lambda: write_cohort_table(folder, records))
    overview, overview_s = timed(lambda: write_overview(folder, records, total=len(records)))
    every = list(folder.glob("overview*.html"))
    return {
        "table_s": table_s,
        "table_mb": round(table.stat().st_size / 1e6, 1),
        "overview_s": overview_s,
        "overview_pages": len(every),
        "overview_mb": round(sum(page.stat().st_size for page in every) / 1e6, 1),
        "first_page_mb": round(overview.stat().st_size / 1e6, 2),
    }


def computed(count: int, seconds: float, folder_mb: float, loop_figures: dict[str, float]) -> dict[str, Any]:
    """Hours, storage and loads of the whole, and the number of workers at which each part is full."""
    rate = WORKERS / seconds  # pairs a second
    traffic = rate * (INPUT_MB + folder_mb)
    limits = {
        "scheduler and client, at one core": 1000 * seconds / loop_figures["cpu_ms_a_pair"],
        f"storage, at {NETWORK_MB_S:g} MB/s": NETWORK_MB_S * seconds / (INPUT_MB + folder_mb),
    }
    return {
        "hours": round(count * seconds / WORKERS / 3600, 1),
        "results_tb": round(count * folder_mb / 1e6, 2),
        "inputs_tb": round(count * INPUT_MB / 1e6, 1),
        "pairs_a_second": round(rate, 2),
        "scheduler_load_percent_of_a_core": round(0.1 * rate * loop_figures["cpu_ms_a_pair"], 2),
        "traffic_mb_s": round(traffic, 1),
        "workers_at_which_it_is_full": {name: int(value) for name, value in limits.items()},
        "first_to_give_way": min(limits, key=lambda name: limits[name]),
    }


def main() -> None:
    """Simulate, compute, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, help="of a pair on one thread; else the sum of the run's stages")
    parser.add_argument("--scratch", type=Path, default=None)
    arguments = parser.parse_args()
    started, figures = metadata(), figures_of(arguments.run)
    record = json.loads((arguments.run / "run.json").read_text("utf-8"))
    seconds = arguments.seconds or sum(stage["time_s"] for stage in record["stages"])
    folder_mb = sum(path.stat().st_size for path in arguments.run.iterdir()) / 1e6
    scratch = Path(tempfile.mkdtemp(dir=arguments.scratch))
    try:
        pairs, list_s = timed(lambda: read_pairs(write_list(scratch, arguments.pairs)))
        common = PairTask(pairs[0], scratch, "simulated", RunConfig(), "0" * 64)
        cohort = cohort_run._Cohort(pairs, common, 2, lambda _: None)
        through = loop(cohort, figures, seconds)
        records = [outcome.record for outcome in cohort.ended.values() if outcome.record is not None]
        found = {
            "a_pair": {"seconds": round(seconds, 1), "folder_mb": round(folder_mb, 1), "inputs_mb": INPUT_MB},
            "workers": WORKERS,
            "list_s": list_s,
            "loop": through,
            "pages": pages(scratch, records, arguments.run),
            "computed": computed(arguments.pairs, seconds, folder_mb, through),
        }
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(json.dumps(found, indent=2))
    write_results("cohort_simulation", {"simulation": found}, started)


if __name__ == "__main__":
    main()
