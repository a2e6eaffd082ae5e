"""One pair as an idempotent task: skipped when its result is complete and unchanged, otherwise compared.

A task needs no cluster. It sees the cohort's folder and the scans by their paths; what it gets and gives back are a
few kB, never images.
"""

from __future__ import annotations

import socket
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from ChangeMapJointLib import __version__
from ChangeMapJointLib.cohort.identity import (
    Check,
    InputIdentity,
    content_of,
    damage_of,
    hash_outputs,
    identify,
    recorded_options_hash,
)
from ChangeMapJointLib.cohort.nameless import SIDES, Nameless
from ChangeMapJointLib.cohort.pairs import CohortPair
from ChangeMapJointLib.cohort.place import PairPlace
from ChangeMapJointLib.cohort.record import PairRecord, figures_of, read_record
from ChangeMapJointLib.cohort.thumbnail import write_thumbnail
from ChangeMapJointLib.comparison.config import RunConfig
from ChangeMapJointLib.comparison.outcome import FULL
from ChangeMapJointLib.comparison.run import Request, run
from ChangeMapJointLib.comparison.stages import Listener, ignore_progress
from ChangeMapJointLib.core.choices import DEFAULT_DEVICE
from ChangeMapJointLib.core.errors import Argument, Cancelled, InputError
from ChangeMapJointLib.core.memory import is_out_of_memory, peak_memory_mb
from ChangeMapJointLib.io import run_files
from ChangeMapJointLib.io.run_records import read_records

Compare: TypeAlias = Callable[[Request, Listener], Any]
Identities: TypeAlias = tuple[InputIdentity, InputIdentity]


@dataclass(frozen=True)
class PairTask:
    """One pair, and how it is compared.

    Attributes:
        pair: its name and scans.
        out: the cohort's folder.
        session: of the command that asks; deaths of workers are counted in it.
        config: all options.
        options_sha256: of ``config``.
        device: ``auto``, ``cpu`` or ``cuda``.
        check: how a finished result is checked.
        retry_refused: try pairs again that were refused.
        overwrite: replace results that were made with other options or from other scans.
        compare: the comparison; ``changemap run``'s unless a test gives another.
    """

    pair: CohortPair
    out: Path
    session: str
    config: RunConfig
    options_sha256: str
    device: str = DEFAULT_DEVICE
    check: Check = "hash"
    retry_refused: bool = False
    overwrite: bool = False
    compare: Compare = run

    @property
    def place(self) -> PairPlace:
        """Its folder."""
        return PairPlace(self.out, self.pair.id)

    @property
    def wording(self) -> Nameless:
        """How its errors are told."""
        return Nameless(self.pair.reference, self.pair.template, self.out)


class OtherScansError(InputError):
    """The pair's folder holds the result of other scans, which stays as it is."""


@dataclass(frozen=True)
class TaskOutcome:
    """How a task ended.

    Attributes:
        record: of the pair; None where the task was cancelled.
        skipped: whether nothing had to be done.
        redone: why an earlier result was not kept, in words; empty where there was none.
        error: what keeps every further pair from being compared, such as a full disk; None otherwise.
    """

    record: PairRecord | None
    skipped: bool = False
    redone: str = ""
    error: InputError | None = None


def complete_pair(task: PairTask, listener: Listener = ignore_progress) -> TaskOutcome:
    """Bring one pair to its end; may be called any number of times, and by several workers at once.

    Args:
        task: the pair.
        listener: called with progress events; may raise ``Cancelled`` to stop.

    Returns:
        How it ended. Whatever is wrong with the pair is stated in the outcome; nothing is raised.
    """
    try:
        return _complete(task, listener)
    except Cancelled:
        return TaskOutcome(None)
    except Exception as error:
        if _is_full(error):
            return _full(task)
        if isinstance(error, OtherScansError):
            return TaskOutcome(
                PairRecord(task.pair.id, "refused", task.wording.message(error))
            )  # the record there is that of the others
        if isinstance(error, InputError):
            return _ended(task, PairRecord(task.pair.id, "refused", task.wording.message(error)))
        return _ended(task, _fault(task, error))


def _complete(task: PairTask, listener: Listener) -> TaskOutcome:
    place = task.place
    place.folder.mkdir(parents=True, exist_ok=True)
    known, redone = read_record(place.record), ""
    try:
        inputs = identify(task.pair.reference), identify(task.pair.template)
    except InputError:
        if known is None or known.status != "done" or _why_outdated(task, known):
            raise
        return TaskOutcome(known, skipped=True)  # its scans were taken away since; what was made of them stays
    if known is not None:
        redone, inputs = _why_redo(task, known, inputs)
        if not redone:
            if known.inputs != inputs:  # moved, or copied: the same content
                known = replace(known, inputs=inputs)
                known.write(place.record)
            return TaskOutcome(known, skipped=True)
    elif place.result.is_dir():  # its worker was killed before it wrote the record
        adopted = _adopt(task, inputs)
        if adopted is not None:
            return TaskOutcome(adopted, skipped=True)
        redone = "its result has no record, and is not of these scans, options and version"
    return _compare(task, inputs, listener, redone)


def _compare(task: PairTask, inputs: Identities, listener: Listener, redone: str) -> TaskOutcome:
    """Compare the pair and keep its record."""
    place = task.place
    place.note("started", task.session)
    start, before = time.monotonic(), _stamp(place)
    request = Request(
        task.pair.reference, task.pair.template, place.result, task.config, task.device, overwrite=place.make_room()
    )
    try:
        task.compare(request, listener)
    except Cancelled:
        raise
    except Exception as error:
        faster = _stamp(place) != before  # another worker, which the scheduler took for dead
        adopted = _adopt(task, inputs) if faster else None
        if adopted is not None:
            return TaskOutcome(adopted, skipped=True)
        record = PairRecord(task.pair.id, "fault", inputs=inputs, time_s=_since(start))
        return _failed(task, error, record, redone)
    record = replace(_record_of(task, inputs), time_s=_since(start))
    with suppress(OSError):
        place.fault_log.unlink()
    return _ended(task, record, redone)


def _failed(task: PairTask, error: Exception, record: PairRecord, redone: str) -> TaskOutcome:
    """Keep the record of a pair whose comparison raised an error."""
    if _is_full(error):
        return _full(task)
    if not isinstance(error, InputError):
        record = replace(record, message=_fault(task, error).message)
    elif error.field == "out":
        record = replace(record, message=task.wording.message(error))
    else:
        task.place.drop_result()  # of other scans, options or versions, or damaged
        record = replace(record, status="refused", message=task.wording.message(error))
    return _ended(task, record, redone)


def _fault(task: PairTask, error: Exception) -> PairRecord:
    """Keep the traceback of a fault, and put it into words."""
    words = "ran out of memory" if is_out_of_memory(error) else task.wording.message(error)
    with suppress(OSError):
        task.place.fault_log.write_text(task.wording.text(traceback.format_exc()), "utf-8")
    return PairRecord(task.pair.id, "fault", words)


def _stamp(place: PairPlace) -> tuple[int, int] | None:
    """Return what tells a result from an earlier one; None where there is none."""
    try:
        state = (place.result / run_files.RUN).stat()
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns


# -- is there anything to do? -----------------------------------------------------------
def _why_redo(task: PairTask, known: PairRecord, inputs: Identities) -> tuple[str, Identities]:
    """Return in words why a pair is compared again, or an empty text, and its inputs with what is known of them.

    Raises:
        InputError: the result is that of other scans.
    """
    if known.status in ("fault", "lost"):
        return f"it failed before ({known.message})", inputs
    changed, inputs = _compare_inputs(task, known, inputs)
    return changed or _why_outdated(task, known), inputs


def _why_outdated(task: PairTask, known: PairRecord) -> str:
    """Return in words what is wrong with an earlier result, whatever its scans; or an empty text."""
    if known.options_sha256 != task.options_sha256:
        return "it was made with other options"
    if known.version != __version__:
        return f"it was made by version {known.version or 'unknown'}"
    if known.status == "refused":
        return "it was refused before" if task.retry_refused or known.inputs is None else ""
    damage = damage_of(task.place.result, known.outputs, task.check)
    return f"its result is damaged: {damage}" if damage else ""


def _compare_inputs(task: PairTask, known: PairRecord, inputs: Identities) -> tuple[str, Identities]:
    """Return in words which scan changed since, or an empty text, and the inputs with the hashes that are known.

    Only scans that were moved or written since are read.

    Raises:
        InputError: the result is that of other scans, and ``overwrite`` is not set.
    """
    if known.inputs is None:
        return ("a scan was missing" if known.status == "refused" else ""), inputs
    changed, current = [], []
    paths = task.pair.reference, task.pair.template
    for side, path, before, now in zip(SIDES, paths, known.inputs, inputs, strict=True):
        if (before.path_sha256, before.stat_sha256) == (now.path_sha256, now.stat_sha256):
            current.append(replace(now, sha256=before.sha256))
            continue
        sha256 = content_of(path)
        current.append(replace(now, sha256=sha256))
        if sha256 == before.sha256:
            continue
        if before.path_sha256 != now.path_sha256 and known.status == "done" and not task.overwrite:
            raise OtherScansError(
                f"holds the result of another scan than {side}",
                field=task.place.folder,
                remedy=("give another folder, another id, or ", Argument("overwrite", True)),
            )
        changed.append(f"{side} was changed")
    return ", ".join(changed), (current[0], current[1])


def _adopt(task: PairTask, inputs: Identities) -> PairRecord | None:
    """Make the record of a whole result that has none; None where it is not of this task."""
    place = task.place
    try:
        run_record = read_records(place.result)["run"]
        if run_record.get("versions", {}).get("changemapjoint") != __version__:
            return None
        if recorded_options_hash(run_record) != task.options_sha256:
            return None
        record = _record_of(task, inputs)
    except (InputError, OSError, AttributeError):
        return None
    assert record.inputs is not None
    if [one.sha256 for one in record.inputs] != [content_of(p) for p in (task.pair.reference, task.pair.template)]:
        return None
    return _ended(task, record, noted="adopted").record


# -- records ----------------------------------------------------------------------------
def _record_of(task: PairTask, inputs: Identities) -> PairRecord:
    """Make the record of a whole result.

    Raises:
        InputError: the result is damaged.
    """
    place = task.place
    figures, run_record = figures_of(place.result), read_records(place.result)["run"]
    hashes = [str(run_record.get(side, {}).get("sha256") or "") for side in ("reference", "template")]
    known = replace(inputs[0], sha256=hashes[0]), replace(inputs[1], sha256=hashes[1])
    write_thumbnail(place.result / run_files.REPORT, place.thumbnail)
    return PairRecord(task.pair.id, "done", "", known, outputs=hash_outputs(place.result), figures=figures)


def _ended(task: PairTask, record: PairRecord, redone: str = "", *, noted: str = "") -> TaskOutcome:
    """Keep the record of a pair that was worked on."""
    place = task.place
    record = replace(
        record,
        options_sha256=task.options_sha256,
        version=__version__,
        starts=place.history("started"),
        host=socket.gethostname(),
        peak_memory_mb=peak_memory_mb(),
    )
    try:
        record.write(place.record)
        place.note(noted or record.status, task.session)
    except (InputError, OSError) as error:
        if _is_full(error):
            return _full(task)
        lost = replace(record, status="fault", message=f"its record cannot be written ({error})")
        return TaskOutcome(lost, redone=redone)
    return TaskOutcome(record, redone=redone)


def write_lost(task: PairTask, message: str) -> PairRecord:
    """Keep the record of a pair whose workers died; unlike the others it is written by the client."""
    record = _ended(task, PairRecord(task.pair.id, "lost", message)).record
    return record or PairRecord(task.pair.id, "lost", message)


def _full(task: PairTask) -> TaskOutcome:
    error = InputError("the disk is full", field=task.out, remedy="free space there and run the same command again")
    return TaskOutcome(None, error=error)


def _is_full(error: BaseException | None) -> bool:
    """Return whether an error, or what caused it, is a full disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        error = error.__cause__
    return False


def _since(start: float) -> float:
    return round(max(time.monotonic() - start, 0.0), 3)
