"""The evaluation of a reader study: reading time, recall and precision by reader and arm, and what differs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.paths import as_path
from ChangeMapJointLib.evaluation.readers.load import read_log
from ChangeMapJointLib.evaluation.readers.log import ARMS, MARGIN_MM, SUFFIX, Arm, CaseReading
from ChangeMapJointLib.evaluation.readers.study_document import study_document
from ChangeMapJointLib.evaluation.readers.truth import Hits, StudyLesion, match_marks, read_study_truth

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class ReaderStudy:
    """An evaluated reader study.

    Attributes:
        readings: every reading, by reader, arm and order.
        hits: what its marks hit; None without a truth.
        lesions: true lesions by case; None likewise.
        document: all figures as plain JSON values; ``docs/reader-study.md`` describes them.
    """

    readings: tuple[CaseReading, ...]
    hits: tuple[Hits, ...] | None
    lesions: Mapping[str, tuple[StudyLesion, ...]] | None
    document: Mapping[str, Any]

    @property
    def table(self) -> pd.DataFrame:
        """A row for each reading."""
        import pandas as pd

        return pd.DataFrame([_row(r, None if self.hits is None else self.hits[i]) for i, r in enumerate(self.readings)])

    def save(self, out: Path | str, *, overwrite: bool = False) -> Path:
        """Write page, figures, tables, JSON, and files for iMRMC and RJafroc into a new folder.

        Raises:
            InputError: the folder exists or cannot be written.
        """
        from ChangeMapJointLib.evaluation.readers.folder import write_study

        return write_study(as_path(out, "out"), self, overwrite=overwrite)


def evaluate_readers(
    logs: Iterable[Path | str] | Path | str,
    truth: Path | str | None = None,
    *,
    margin_mm: float = MARGIN_MM,
    seed: int = 0,
) -> ReaderStudy:
    """Evaluate the reading logs of a study.

    Args:
        logs: the files, or folders that hold them (``*.jsonl``).
        truth: the true lesions, see :mod:`~ChangeMapJointLib.evaluation.readers.truth`; None for reading times alone.
        margin_mm: how far outside a lesion a mark may lie.
        seed: of the bootstrap.

    Returns:
        The figures; ``save`` writes them.

    Raises:
        InputError: a file cannot be read, logs are of different studies, a case was read twice by one reader in one
            arm, or the truth lacks a case.
    """
    if not isinstance(margin_mm, Real) or not 0 <= margin_mm < 100:
        raise InputError(f"found {margin_mm!r}", field="margin_mm", expected="a number from 0 to 100 mm")
    if not isinstance(seed, Integral) or seed < 0:
        raise InputError(f"found {seed!r}", field="seed", expected="a whole number from 0")
    truth = None if truth is None else as_path(truth, "truth")
    readings, notes = _gather(log_files(logs))
    lesions, hits = None, None
    if truth is not None:
        lesions, more = read_study_truth(truth)
        notes += more
        hits = tuple(match_marks(r.marks, _lesions_of(r, lesions, truth), margin_mm) for r in readings)
        lesions = {case: lesions[case] for case in sorted({r.case for r in readings})}
    document = study_document(readings, hits, margin_mm, seed, notes)
    return ReaderStudy(readings, hits, lesions, document)


def log_files(logs: Iterable[Path | str] | Path | str) -> list[Path]:
    """The files of ``logs``, those of folders in order of their names, each once.

    Raises:
        InputError: there is none, or a folder holds none.
    """
    files: list[Path] = []
    listed = logs if isinstance(logs, Iterable) and not isinstance(logs, str) else [logs]
    for path in (as_path(one, "logs") for one in listed):
        found = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
        if not found:
            raise InputError(f"holds no {SUFFIX} file", field=path, expected="a folder of reading logs")
        files += found
    if not files:
        raise InputError("found none", field="logs", expected="at least one reading log")
    unique = {path.resolve(): path for path in reversed(files)}
    return list(unique.values())[::-1]


def _gather(files: Sequence[Path]) -> tuple[tuple[CaseReading, ...], list[str]]:
    """All readings of one study in a fixed order, and what was left out."""
    readings: list[CaseReading] = []
    notes: list[str] = []
    where: dict[tuple[str, Arm, str], Path] = {}
    sessions: dict[tuple[str, str], Path] = {}
    for path in files:
        log = read_log(path)
        if readings and log.session.study != readings[0].session.study:
            raise InputError(
                f"is of study {log.session.study!r}",
                field=path,
                expected=f"{readings[0].session.study!r} as the others",
            )
        key = (log.session.reader, log.session.session)
        if key in sessions:
            raise InputError(f"is of reader {key[0]} and session {key[1]}, as {sessions[key]} is", field=path)
        sessions[key] = path
        for reading in log.readings:
            name = (reading.session.reader, reading.arm, reading.case)
            if name in where:
                raise InputError(
                    f"reader {name[0]} read case {name[2]!r} {name[1]} again, after {where[name]}",
                    field=path,
                    remedy="give one of both logs",
                )
            if reading.active_s <= 0:
                raise InputError(f"case {reading.case!r} has a reading time of 0", field=path)
            where[name] = path
            readings.append(reading)
        notes += log.notes
    if not readings:
        raise InputError("no case was submitted", field=files[0], expected="a session with a finished case")
    readings.sort(key=lambda r: (r.session.reader, ARMS.index(r.arm), r.started, r.order))
    return tuple(readings), notes


def _lesions_of(
    reading: CaseReading, lesions: Mapping[str, tuple[StudyLesion, ...]], truth: Path
) -> tuple[StudyLesion, ...]:
    if reading.case not in lesions:
        raise InputError(
            f"has no case {reading.case!r}, which reader {reading.session.reader} read",
            field=truth,
            remedy="add its lesions, or a row with the case alone if it has none",
        )
    return lesions[reading.case]


def _row(reading: CaseReading, hits: Hits | None) -> dict[str, Any]:
    """A reading as a row of ``readings.csv``."""
    session = reading.session
    row: dict[str, Any] = {
        "study": session.study,
        "reader": session.reader,
        "session": session.session,
        "arm": reading.arm,
        "case": reading.case,
        "order": reading.order,
        "started": reading.started.isoformat(),
        "submitted": None if reading.submitted is None else reading.submitted.isoformat(),
        "active_s": reading.active_s,
        "first_mark_s": reading.first_mark_s,
        "paused_s": reading.paused_s,
        "pauses": reading.pauses,
        "marks": len(reading.marks),
        "removed": reading.removed,
        "threshold": reading.threshold,
        "threshold_changes": reading.threshold_changes,
        "overlay_s": reading.overlay_s,
        "software": session.software,
        "interface": session.interface,
        "model": reading.model,
    }
    if hits is not None:
        row |= {
            "lesions": hits.lesions,
            "hit": len(hits.ratings),
            "false": len(hits.false),
            "repeated": hits.repeated,
        }
    return row
