"""Run a cohort: every pair of a list on the workers of a cluster, resumable, with one table at the end."""

from __future__ import annotations

import math
import queue
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ChangeMapJointLib import __version__
from ChangeMapJointLib.cohort.cluster import ClusterOptions, Workers, lost_scheduler, open_workers
from ChangeMapJointLib.cohort.folder import cohort_folder
from ChangeMapJointLib.cohort.identity import CHECKS, Check, options_hash
from ChangeMapJointLib.cohort.overview import write_overview
from ChangeMapJointLib.cohort.pairs import CohortPair
from ChangeMapJointLib.cohort.record import PairRecord, read_record
from ChangeMapJointLib.cohort.remote import work_on
from ChangeMapJointLib.cohort.table import write_cohort_table
from ChangeMapJointLib.cohort.task import Compare, PairTask, TaskOutcome, write_lost
from ChangeMapJointLib.comparison.config import RunConfig
from ChangeMapJointLib.comparison.run import run
from ChangeMapJointLib.core.errors import Cancelled, InputError, Stopped

if TYPE_CHECKING:
    from distributed import Future

AHEAD = 64  # pairs that wait at a foreign scheduler beside those that run, so that it can start further workers
TICK_S = 0.5


@dataclass(frozen=True)
class CohortRequest:
    """What to compare, and how.

    Attributes:
        pairs: from :func:`~ChangeMapJointLib.cohort.pairs.read_pairs`.
        out: the cohort's folder; a cohort that was stopped there is resumed.
        config: all options.
        cluster: where to compute.
        check: how finished pairs are checked: ``hash`` reads their files, ``size`` only looks at their sizes.
        retry_refused: try pairs again that were refused.
        overwrite: replace results that were made with other options or from other scans.
        compare: the comparison; ``changemap run``'s unless a test gives another.
    """

    pairs: tuple[CohortPair, ...]
    out: Path
    config: RunConfig = field(default_factory=RunConfig)
    cluster: ClusterOptions = field(default_factory=ClusterOptions)
    check: Check = "hash"
    retry_refused: bool = False
    overwrite: bool = False
    compare: Compare = run


@dataclass(frozen=True)
class CohortProgress:
    """Progress of a cohort.

    Attributes:
        total: number of pairs.
        done: pairs with a whole result, skipped ones included.
        skipped: pairs that were finished before, or refused before.
        failed: pairs without a result.
        running: pairs that the workers have now.
        slots: pairs that can run at the same time; 0 while there is no worker.
        elapsed_s: seconds since the start.
        remaining_s: estimated seconds; None before the first pair was compared.
        last: the pair that ended just now; None where none did.
        skipped_last: whether that pair was skipped.
        redone: why its earlier result was not kept; empty where there was none.
    """

    total: int
    done: int = 0
    skipped: int = 0
    failed: int = 0
    running: int = 0
    slots: int = 0
    elapsed_s: float = 0.0
    remaining_s: float | None = None
    last: PairRecord | None = None
    skipped_last: bool = False
    redone: str = ""

    @property
    def ended(self) -> int:
        """Pairs that are done or failed."""
        return self.done + self.failed


@dataclass(frozen=True)
class CohortResult:
    """How a cohort ended.

    Attributes:
        records: of all pairs that ended, in the order of the list.
        total: number of pairs in the list.
        skipped: pairs that had ended before.
        redone: pairs whose earlier result was not kept, and why.
        table: the CSV file.
        overview: the page.
    """

    records: tuple[PairRecord, ...]
    total: int
    skipped: int
    redone: tuple[tuple[str, str], ...]
    table: Path
    overview: Path

    @property
    def failed(self) -> tuple[PairRecord, ...]:
        """The pairs without a result."""
        return tuple(record for record in self.records if record.status != "done")


CohortListener: TypeAlias = Callable[[CohortProgress], None]


def run_cohort(request: CohortRequest, listener: CohortListener | None = None) -> CohortResult:
    """Compare all pairs that are not finished, and write the table and the overview of all.

    Args:
        request: what to compare, and how.
        listener: called whenever a pair ends, and twice a second; may raise ``Cancelled`` to stop.

    Returns:
        The records of all pairs. Pairs that failed are among them and raise nothing.

    Raises:
        InputError: the folder cannot be used, the disk is full, or the scheduler cannot be reached. What is finished
            stays, and the same call continues with the rest.
        Stopped: the listener or a signal asked to stop; likewise.
    """
    if request.check not in CHECKS:
        raise InputError(field="check", value=str(request.check), expected=f"one of {', '.join(CHECKS)}")
    out = Path(request.out).absolute()
    options = options_hash(request.config)
    with cohort_folder(out, request.pairs, request.config, options, overwrite=request.overwrite):
        common = PairTask(
            request.pairs[0],
            out,
            secrets.token_hex(4),
            request.config,
            options,
            check=request.check,
            retry_refused=request.retry_refused,
            overwrite=request.overwrite,
            compare=request.compare,
        )
        cohort = _Cohort(request.pairs, common, request.cluster.retries, listener or (lambda _: None))
        try:
            try:
                with open_workers(request.cluster) as workers:
                    cohort.work(workers)
            finally:
                if request.cluster.scheduler is None or cohort.complete:
                    cohort.sweep()
        except (Cancelled, KeyboardInterrupt) as error:
            result = cohort.write(out)
            words = (
                f"Cancelled; {len(result.records)} of {result.total} pairs have ended. "
                "Run the same command to continue."
            )
            raise Stopped(words) from error
        return cohort.write(out)


class _Cohort:
    """The pairs, what became of them, and what is on its way."""

    def __init__(self, pairs: tuple[CohortPair, ...], common: PairTask, retries: int, listener: CohortListener) -> None:
        self.pairs, self.common, self.retries, self.listener = pairs, common, retries, listener
        self.ended: dict[str, TaskOutcome] = {}
        self.failed = self.skipped = 0
        self.again: list[CohortPair] = []  # their workers died
        self.submitted: dict[Any, tuple[Future[TaskOutcome], CohortPair]] = {}  # by key
        self.submissions: Counter[str] = Counter()
        self.finished: queue.SimpleQueue[Future[TaskOutcome]] = queue.SimpleQueue()
        self.started = time.monotonic()
        self.slots, self.slots_asked = 0, -math.inf

    @property
    def complete(self) -> bool:
        """Whether every pair has ended."""
        return len(self.ended) == len(self.pairs)

    # -- the loop ---------------------------------------------------------------------------
    def work(self, workers: Workers) -> None:
        """Keep the workers busy until every pair has ended.

        Raises:
            InputError: no further pair can be compared.
            Cancelled: the listener or a signal asked to stop.
        """
        waiting = iter(self.pairs)
        try:
            while not self.complete:
                self._submit(workers, waiting)
                self.listener(self._progress())
                try:
                    future = self.finished.get(timeout=TICK_S)
                except queue.Empty:
                    continue
                while True:
                    self._take(future, workers)
                    if self.finished.empty():
                        break
                    future = self.finished.get()
        except BaseException:
            with suppress(Exception):  # the workers stop at their next step; those of this machine are ended
                workers.client.cancel([future for future, _ in self.submitted.values()], force=True)
            raise

    def _submit(self, workers: Workers, waiting: Iterator[CohortPair]) -> None:
        """Give the scheduler as many pairs as its workers can take now."""
        if time.monotonic() - self.slots_asked > TICK_S:
            self.slots, self.slots_asked = workers.slots, time.monotonic()
        most = max(self.slots, 1) if workers.local else self.slots + AHEAD
        while len(self.submitted) < most:
            pair = self.again.pop() if self.again else next(waiting, None)
            if pair is None:
                return
            self.submissions[pair.id] += 1
            key = (f"changemap-{self.common.session}", pair.id, self.submissions[pair.id])
            task = replace(self.common, pair=pair, device=workers.device)
            future = workers.client.submit(work_on, task, __version__, key=key, pure=False, resources=workers.resources)
            self.submitted[key] = (future, pair)
            future.add_done_callback(self.finished.put)

    def _take(self, future: Future[TaskOutcome], workers: Workers) -> None:
        """Take what became of one pair.

        Raises:
            InputError: no further pair can be compared.
        """
        from distributed import KilledWorker

        _, pair = self.submitted.pop(future.key)
        if future.status == "finished":
            outcome = future.result()
        elif future.status == "error" and isinstance(error := future.exception(), KilledWorker):
            place = self.common.place.of(pair.id)
            deaths = place.history("started", self.common.session)
            if deaths <= self.retries and self.submissions[pair.id] <= self.retries:
                self.again.append(pair)  # it waited at workers that died of other pairs
                return
            words = f"its worker died {max(deaths, self.retries + 1)} times, most likely because the memory ran out"
            outcome = TaskOutcome(write_lost(replace(self.common, pair=pair), words))
        elif future.status == "error" and isinstance(error, InputError):
            raise error
        elif future.status == "error":
            raise InputError(
                f"a worker could not start on a pair ({type(error).__name__}: {error})".splitlines()[0],
                field="scheduler",
                remedy="install the same version of changemapjoint on all workers",
            )
        else:  # cancelled or lost: by nobody here
            raise lost_scheduler(workers.client.scheduler.address if workers.client.scheduler else None)
        if outcome.error is not None:
            raise outcome.error
        if outcome.record is None:  # cancelled by another client of the scheduler
            raise lost_scheduler(None)
        self.ended[pair.id] = outcome
        self.failed += outcome.record.status != "done"
        self.skipped += outcome.skipped
        self.listener(self._progress(outcome))

    def _progress(self, last: TaskOutcome | None = None) -> CohortProgress:
        elapsed = max(time.monotonic() - self.started, 0.0)
        compared, left = len(self.ended) - self.skipped, len(self.pairs) - len(self.ended)
        return CohortProgress(
            total=len(self.pairs),
            done=len(self.ended) - self.failed,
            skipped=self.skipped,
            failed=self.failed,
            running=min(len(self.submitted), self.slots),
            slots=self.slots,
            elapsed_s=elapsed,
            remaining_s=elapsed / compared * left if compared else None,
            last=None if last is None else last.record,
            skipped_last=last is not None and last.skipped,
            redone="" if last is None else last.redone,
        )

    # -- the end ----------------------------------------------------------------------------
    def sweep(self) -> None:
        """Remove what killed workers left half-way; no worker may be at any pair."""
        for pair in self.pairs:
            self.common.place.of(pair.id).sweep()

    def write(self, out: Path) -> CohortResult:
        """Write table and overview of all pairs that have ended, now or before."""
        records = []
        for pair in self.pairs:
            outcome = self.ended.get(pair.id)
            record = outcome.record if outcome is not None else read_record(self.common.place.of(pair.id).record)
            if record is not None:
                records.append(replace(record, outputs={}))
        table = write_cohort_table(out, records)
        overview = write_overview(out, records, total=len(self.pairs))
        redone = tuple((name, outcome.redone) for name, outcome in self.ended.items() if outcome.redone)
        return CohortResult(tuple(records), len(self.pairs), self.skipped, redone, table, overview)
