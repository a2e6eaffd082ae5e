"""The evaluation of a reader study: reading time, recall and precision by reader and arm, and what differs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ChangeMapJointLib import __version__
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.evaluation.readers import bootstrap
from ChangeMapJointLib.evaluation.readers.bootstrap import MEASURES, Crossed, Interval
from ChangeMapJointLib.evaluation.readers.jafroc import figure_of_merit, figure_of_merit_name
from ChangeMapJointLib.evaluation.readers.load import read_log
from ChangeMapJointLib.evaluation.readers.log import ARMS, MARGIN_MM, SUFFIX, Arm, Reading
from ChangeMapJointLib.evaluation.readers.mixed_model import fit_mixed_model
from ChangeMapJointLib.evaluation.readers.rank_tests import RankTest, holm, rank_sum, signed_rank
from ChangeMapJointLib.evaluation.readers.truth import Hits, StudyLesion, match_marks, read_study_truth

if TYPE_CHECKING:
    import pandas as pd

SCORED = ("recall", "precision", "false_per_case", "merit")  # measures that need the truth


@dataclass(frozen=True, eq=False)
class ReaderStudy:
    """An evaluated reader study.

    Attributes:
        readings: every reading, by reader, arm and order.
        hits: what its marks hit; None without a truth.
        lesions: true lesions by case; None likewise.
        document: all figures as plain JSON values; ``docs/reader-study.md`` describes them.
    """

    readings: tuple[Reading, ...]
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

        return write_study(Path(out), self, overwrite=overwrite)


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
    if not 0 <= margin_mm < 100:
        raise InputError(f"found {margin_mm}", field="margin_mm", expected="from 0 to 100 mm")
    readings, notes = _gather(log_files(logs))
    lesions, hits = None, None
    if truth is not None:
        lesions, more = read_study_truth(truth)
        notes += more
        hits = tuple(match_marks(r.marks, _lesions_of(r, lesions, Path(truth)), margin_mm) for r in readings)
        lesions = {case: lesions[case] for case in sorted({r.case for r in readings})}
    document = _document(readings, hits, margin_mm, seed, notes)
    return ReaderStudy(readings, hits, lesions, document)


def log_files(logs: Iterable[Path | str] | Path | str) -> list[Path]:
    """The files of ``logs``, those of folders in order of their names, each once.

    Raises:
        InputError: there is none, or a folder holds none.
    """
    files: list[Path] = []
    for path in map(Path, [logs] if isinstance(logs, (str, Path)) else logs):
        found = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
        if not found:
            raise InputError(f"holds no {SUFFIX} file", field=path, expected="a folder of reading logs")
        files += found
    if not files:
        raise InputError("found none", field="logs", expected="at least one reading log")
    unique = {path.resolve(): path for path in reversed(files)}
    return list(unique.values())[::-1]


def _gather(files: Sequence[Path]) -> tuple[tuple[Reading, ...], list[str]]:
    """All readings of one study in a fixed order, and what was left out."""
    readings: list[Reading] = []
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
    reading: Reading, lesions: Mapping[str, tuple[StudyLesion, ...]], truth: Path
) -> tuple[StudyLesion, ...]:
    if reading.case not in lesions:
        raise InputError(
            f"has no case {reading.case!r}, which reader {reading.session.reader} read",
            field=truth,
            remedy="add its lesions, or a row with the case alone if it has none",
        )
    return lesions[reading.case]


def _document(
    readings: Sequence[Reading], hits: Sequence[Hits] | None, margin_mm: float, seed: int, notes: Sequence[str]
) -> dict[str, Any]:
    """All figures as plain JSON values."""
    arms = [arm for arm in ARMS if any(r.arm == arm for r in readings)]
    readers = sorted({r.session.reader for r in readings})
    cases = sorted({r.case for r in readings})
    crossed = {arm: _crossed(arm, readers, cases, readings, hits) for arm in arms}
    measures = ["seconds", *(SCORED if hits is not None else ())]
    model = fit_mixed_model(readings, periods(readings))
    lesions = None if hits is None else _lesion_counts(readings, hits)
    tests = time_tests(readings)
    return {
        "format": "changemap-reader-study-1",
        "version": __version__,
        "study": readings[0].session.study,
        "readers": readers,
        "cases": cases,
        "arms": arms,
        "readings": len(readings),
        "lesions": None if lesions is None else sum(lesions.values()),
        "cases_without_lesion": None if lesions is None else sum(n == 0 for n in lesions.values()),
        "margin_mm": margin_mm if hits is not None else None,
        "figure_of_merit": None if lesions is None else figure_of_merit_name(list(lesions.values())),
        "seed": seed,
        "by_reader": [_group(readings, hits, reader, arm) for reader in readers for arm in arms],
        "by_arm": {
            arm: {name: asdict(_interval(MEASURES[name](crossed[arm]), readers, cases, seed)) for name in measures}
            for arm in arms
        },
        "differences": _differences(arms, crossed, measures, readers, cases, seed),
        "time_tests": tests,
        "mixed_model": None if model is None else asdict(model),
        "notes": [*notes, *_notes(readings, readers, cases, arms, tests)],
    }


def _crossed(
    arm: Arm, readers: Sequence[str], cases: Sequence[str], readings: Sequence[Reading], hits: Sequence[Hits] | None
) -> Crossed:
    index = {(r.session.reader, r.case): i for i, r in enumerate(readings) if r.arm == arm}
    places = [[index.get((reader, case)) for case in cases] for reader in readers]
    return Crossed(
        [[None if i is None else readings[i] for i in row] for row in places],
        None if hits is None else [[None if i is None else hits[i] for i in row] for row in places],
    )


def _interval(statistic: bootstrap.Statistic, readers: Sequence[str], cases: Sequence[str], seed: int) -> Interval:
    return bootstrap.interval(statistic, len(readers), len(cases), seed)


def _differences(
    arms: Sequence[Arm],
    crossed: Mapping[Arm, Crossed],
    measures: Sequence[str],
    readers: Sequence[str],
    cases: Sequence[str],
    seed: int,
) -> list[dict[str, Any]]:
    """Every pair of arms, later minus earlier, over the readings that both have."""
    found = []
    for earlier, later in _pairs(arms):
        a, b = crossed[earlier].only(crossed[later]), crossed[later].only(crossed[earlier])
        both = sum(r is not None for row in a.readings for r in row)
        if not both:
            continue
        entry: dict[str, Any] = {"first": earlier, "second": later, "readings": both}
        percent = bootstrap.change_percent(MEASURES["seconds"](b), MEASURES["seconds"](a))
        entry["seconds_percent"] = asdict(_interval(percent, readers, cases, seed))
        for name in measures:
            statistic = bootstrap.difference(MEASURES[name](b), MEASURES[name](a))
            entry[name] = asdict(_interval(statistic, readers, cases, seed))
        found.append(entry)
    return found


def _pairs(arms: Sequence[Arm]) -> list[tuple[Arm, Arm]]:
    return [(a, b) for i, a in enumerate(arms) for b in arms[i + 1 :]]


def time_tests(readings: Sequence[Reading]) -> list[dict[str, Any]]:
    """Rank tests of the reading times of each reader between two arms, Holm-corrected over readers and pairs."""
    tests: list[dict[str, Any]] = []
    for reader in sorted({r.session.reader for r in readings}):
        times = {
            arm: {r.case: r.active_s for r in readings if r.session.reader == reader and r.arm == arm} for arm in ARMS
        }
        for earlier, later in _pairs([arm for arm in ARMS if times[arm]]):
            a, b = times[earlier], times[later]
            both = sorted(set(a) & set(b))
            change = 100 * (np.mean(list(b.values())) / np.mean(list(a.values())) - 1)
            entry = {"reader": reader, "first": earlier, "second": later, "change_percent": float(change)}
            entry["rank_sum"] = _plain(rank_sum(list(b.values()), list(a.values())))
            entry["signed_rank"] = _plain(signed_rank([b[c] for c in both], [a[c] for c in both]))
            tests.append(entry)
    for name in ("rank_sum", "signed_rank"):
        for test, p in zip(tests, holm([t[name]["p"] for t in tests]), strict=True):
            test[name]["p_holm"] = p
    return tests


def _plain(test: RankTest) -> dict[str, Any]:
    return {"p": test.p, "smallest_p": test.smallest_p, "n": list(test.n), "exact": test.exact}


def periods(readings: Sequence[Reading]) -> list[int]:
    """For each reading the number of its session among those of its reader, by time, from 1."""
    first: dict[tuple[str, str], Any] = {}
    for r in readings:
        key = (r.session.reader, r.session.session)
        first[key] = min(first.get(key, r.started), r.started)
    order = {
        key: 1 + sum(reader == key[0] and when < first[key] for (reader, _), when in first.items()) for key in first
    }
    return [order[r.session.reader, r.session.session] for r in readings]


def _group(readings: Sequence[Reading], hits: Sequence[Hits] | None, reader: str, arm: Arm) -> dict[str, Any]:
    """The figures of one reader in one arm."""
    chosen = [i for i, r in enumerate(readings) if r.session.reader == reader and r.arm == arm]
    entry: dict[str, Any] = {"reader": reader, "arm": arm, "cases": len(chosen)}
    if not chosen:
        return entry
    seconds = [readings[i].active_s for i in chosen]
    marked = [s for i in chosen if (s := readings[i].first_mark_s) is not None]
    entry |= {
        "mean_s": float(np.mean(seconds)),
        "least_s": min(seconds),
        "most_s": max(seconds),
        "median_s": float(np.median(seconds)),
        "first_mark_s": float(np.median(marked)) if marked else None,
        "paused_s": float(np.mean([readings[i].paused_s for i in chosen])),
        "overlay_share": float(sum(readings[i].overlay_s for i in chosen) / sum(seconds)),
        "marks": sum(len(readings[i].marks) for i in chosen),
    }
    if hits is None:
        return entry
    hit, false, all_lesions = (
        sum(counts)
        for counts in zip(*((len(h.ratings), len(h.false), h.lesions) for h in (hits[i] for i in chosen)), strict=True)
    )
    merit = float(figure_of_merit([hits[i] for i in chosen])[0])
    return entry | {
        "hit": hit,
        "false": false,
        "lesions": all_lesions,
        "repeated": sum(hits[i].repeated for i in chosen),
        "recall": hit / all_lesions if all_lesions else None,
        "precision": hit / (hit + false) if hit + false else None,
        "false_per_case": false / len(chosen),
        "merit": merit if np.isfinite(merit) else None,
    }


def _lesion_counts(readings: Sequence[Reading], hits: Sequence[Hits]) -> dict[str, int]:
    return {r.case: h.lesions for r, h in zip(readings, hits, strict=True)}


def _notes(
    readings: Sequence[Reading],
    readers: Sequence[str],
    cases: Sequence[str],
    arms: Sequence[Arm],
    tests: Sequence[Mapping[str, Any]],
) -> list[str]:
    """What to keep in mind, a sentence each."""
    notes = []
    missing = len(readers) * len(cases) * len(arms) - len(readings)
    if missing:
        notes.append(
            f"{missing} of {len(readers) * len(cases) * len(arms)} readings are missing. Differences between arms use "
            "the readings that both have."
        )
    limits = {t["signed_rank"]["n"][0]: t["signed_rank"]["smallest_p"] for t in tests}
    notes += [
        f"The signed-rank test of {n} cases cannot give a p below {p:.4g}, whatever the times are."
        for n, p in sorted(limits.items())
        if p is not None and p > 0.05
    ]
    if len(arms) > 1 and all(
        len({p for r, p in zip(readings, periods(readings), strict=True) if r.arm == arm}) == 1 for arm in arms
    ):
        notes.append(
            "Every reader read the arms in the same order: practice cannot be told from the arm. Let half of the "
            "readers begin with another arm."
        )
    orders = Counter(
        tuple(r.case for r in sorted(group, key=lambda r: r.order)) for group in _by_session(readings).values()
    )
    if len(orders) == 1 and len(_by_session(readings)) > 1 and len(cases) > 1:
        notes.append("All sessions showed the cases in the same order: a case and its place cannot be told apart.")
    if len(readers) < bootstrap.LEAST or len(cases) < bootstrap.LEAST:
        notes.append(f"Intervals draw readers or cases only where there are at least {bootstrap.LEAST}.")
    software = sorted({r.session.software for r in readings})
    if len(software) > 1:
        notes.append(f"Readings come from several programs: {', '.join(software)}.")
    for arm in arms:
        models = sorted({r.model for r in readings if r.arm == arm})
        if len(models) > 1:
            notes.append(f"The overlay of {arm} was made by several models: {', '.join(m or 'none' for m in models)}.")
    return notes


def _by_session(readings: Sequence[Reading]) -> dict[tuple[str, str], list[Reading]]:
    groups: dict[tuple[str, str], list[Reading]] = {}
    for reading in readings:
        groups.setdefault((reading.session.reader, reading.session.session), []).append(reading)
    return groups


def _row(reading: Reading, hits: Hits | None) -> dict[str, Any]:
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
