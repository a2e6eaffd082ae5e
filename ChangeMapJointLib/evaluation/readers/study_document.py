"""The figures of a reader study: by reader, by arm, differences between arms, and what to keep in mind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ChangeMapJointLib import __version__
from ChangeMapJointLib.evaluation.readers import bootstrap
from ChangeMapJointLib.evaluation.readers.bootstrap import MEASURES, Crossed, Interval
from ChangeMapJointLib.evaluation.readers.jafroc import figure_of_merit, figure_of_merit_name
from ChangeMapJointLib.evaluation.readers.log import ARMS, Arm, CaseReading
from ChangeMapJointLib.evaluation.readers.mixed_model import fit_mixed_model
from ChangeMapJointLib.evaluation.readers.rank_tests import RankTest, rank_sum, signed_rank
from ChangeMapJointLib.evaluation.readers.truth import Hits
from ChangeMapJointLib.evaluation.statistics import holm

SCORED = ("recall", "precision", "false_per_case", "merit")  # measures that need the truth


def study_document(
    readings: Sequence[CaseReading], hits: Sequence[Hits] | None, margin_mm: float, seed: int, notes: Sequence[str]
) -> dict[str, Any]:
    """Compute all figures of a study as plain JSON values.

    Args:
        readings: of all readers, by reader, arm and order.
        hits: what the marks of each reading hit; None without a truth.
        margin_mm: how far outside a lesion a mark may lie.
        seed: of the bootstrap.
        notes: sentences that the page shows before those on the design of the study.

    Returns:
        What ``docs/reader-study.md`` describes.
    """
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
    arm: Arm, readers: Sequence[str], cases: Sequence[str], readings: Sequence[CaseReading], hits: Sequence[Hits] | None
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


def time_tests(readings: Sequence[CaseReading]) -> list[dict[str, Any]]:
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


def periods(readings: Sequence[CaseReading]) -> list[int]:
    """For each reading the number of its session among those of its reader, by time, from 1."""
    first: dict[tuple[str, str], Any] = {}
    for r in readings:
        key = (r.session.reader, r.session.session)
        first[key] = min(first.get(key, r.started), r.started)
    order = {
        key: 1 + sum(reader == key[0] and when < first[key] for (reader, _), when in first.items()) for key in first
    }
    return [order[r.session.reader, r.session.session] for r in readings]


def _group(readings: Sequence[CaseReading], hits: Sequence[Hits] | None, reader: str, arm: Arm) -> dict[str, Any]:
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


def _lesion_counts(readings: Sequence[CaseReading], hits: Sequence[Hits]) -> dict[str, int]:
    return {r.case: h.lesions for r, h in zip(readings, hits, strict=True)}


def _notes(
    readings: Sequence[CaseReading],
    readers: Sequence[str],
    cases: Sequence[str],
    arms: Sequence[Arm],
    tests: Sequence[Mapping[str, Any]],
) -> list[str]:
    """What to keep in mind, one sentence each."""
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


def _by_session(readings: Sequence[CaseReading]) -> dict[tuple[str, str], list[CaseReading]]:
    groups: dict[tuple[str, str], list[CaseReading]] = {}
    for reading in readings:
        groups.setdefault((reading.session.reader, reading.session.session), []).append(reading)
    return groups
