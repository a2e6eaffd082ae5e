"""All figures of an evaluation as one JSON document, from which page, tables and pictures are made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from itertools import combinations
from typing import Any

import numpy as np

from ChangeMapJointLib import __version__
from ChangeMapJointLib.evaluation import pooled_methods
from ChangeMapJointLib.evaluation.map_score import (
    AT,
    GUARDED_UNION,
    GUARDED_XOR,
    OVERLAP_UNION,
    OVERLAP_XOR,
    PAPER_THRESHOLDS,
    RULES,
)
from ChangeMapJointLib.evaluation.outcome import PAPER_MAPS
from ChangeMapJointLib.evaluation.pooled_maps import FALSE_PER_SCAN, ROW_AT, MapPool, size_groups
from ChangeMapJointLib.evaluation.pooled_methods import ListCounts
from ChangeMapJointLib.evaluation.score_case import CaseScore
from ChangeMapJointLib.evaluation.statistics import (
    LEVEL,
    RESAMPLES,
    Comparison,
    Statistic,
    compare_pair,
    corrected_by_holm,
    mean_of_cases,
    with_interval,
)

SCHEMA, SCHEMA_VERSION = "changemap.evaluation", 1
COMPARED_FIELDS = ("tre_mm", "lung_dice", "folding_percent")


def evaluation_document(cases: Sequence[CaseScore]) -> dict[str, Any]:
    """Pool the cases; numbers have six significant digits, and what is not known is None."""
    maps, methods = map_names(cases), method_names(cases)
    changes = [lesion for case in cases for lesion in case.changes]
    compared = [*_compare_maps(cases, maps), *_compare_methods(cases, methods)]
    mixed = any(c.inserted for c in changes) and not all(c.inserted for c in changes)
    document = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "version": __version__,
        "about": {
            "cases": len(cases),
            "patients": len({case.patient for case in cases}),
            "changes": len(changes),
            "synthetic_changes": sum(c.inserted for c in changes),
            "null_cases": sum(case.null for case in cases),
            "cases_without_lesions_known": sum(not case.lesions_known for case in cases),
            "mean_diameter_change_mm": float(np.mean([c.diameter_change_mm for c in changes])) if changes else None,
            "interval": f"{100 * LEVEL:g} %, {RESAMPLES} bootstrap samples of patients",
            "threshold": AT,
            "rules": RULES,
            "paper_curves_over": "synthetic changes" if mixed else "all changes",
        },
        "maps": {name: _map(_having(cases, name), name, inserted_only=mixed) for name in maps},
        "methods": {name: _method([case for case in cases if name in case.methods], name) for name in methods},
        "comparisons": [_rounded(c) for c in corrected_by_holm(compared)],
        "notes": _notes(cases, maps, methods),
    }
    rounded: dict[str, Any] = _rounded(document)
    return rounded


def map_names(cases: Sequence[CaseScore]) -> list[str]:
    """Names of all maps, the paper's first and in its order."""
    names = list(dict.fromkeys(name for case in cases for name in case.maps))
    return [n for n in PAPER_MAPS if n in names] + [n for n in names if n not in PAPER_MAPS]


def method_names(cases: Sequence[CaseScore]) -> list[str]:
    """Names of all methods in the order in which they appear."""
    return list(dict.fromkeys(name for case in cases for name in case.methods))


def map_statistics(pool: MapPool) -> dict[str, Statistic]:
    """The figures of a map that get an interval."""
    return {
        "recall_at_0.68": pool.recall(OVERLAP_UNION),
        "recall_at_0.68_xor": pool.recall(OVERLAP_XOR),
        "guarded_recall_at_0.68": pool.recall(GUARDED_UNION),
        "guarded_recall_at_0.68_xor": pool.recall(GUARDED_XOR),
        "region_precision_at_0.68": pool.precision(OVERLAP_UNION),
        "false_per_scan_at_0.68": pool.per_scan(pool.false[OVERLAP_UNION, ROW_AT]),
        "false_ml_per_scan_at_0.68": pool.per_scan(pool.false_ml[OVERLAP_UNION, ROW_AT]),
        "false_per_null_scan_at_0.68": pool.per_scan(pool.false[OVERLAP_UNION, ROW_AT], null_only=True),
        "cpm": pool.sensitivity(GUARDED_XOR, FALSE_PER_SCAN),
        "cpm_union": pool.sensitivity(GUARDED_UNION, FALSE_PER_SCAN),
        "recall_at_1_false_per_scan": pool.sensitivity(GUARDED_XOR, (1.0,)),
    }


def _map(cases: list[CaseScore], name: str, *, inserted_only: bool) -> dict[str, Any]:
    """Everything about one map."""
    pool = MapPool.of(cases, name)
    paper = MapPool.of(cases, name, inserted_only=True) if inserted_only else pool
    nulls = [case.maps[name] for case in cases if case.null]
    froc = {RULES[rule]: pool.froc(rule) for rule in (GUARDED_XOR, GUARDED_UNION)}
    return {
        "cases": len(cases),
        "changes": int(pool.changes.sum()),
        "figures": {key: with_interval(value, pool.patients) for key, value in map_statistics(pool).items()},
        "paper": {
            "thresholds": PAPER_THRESHOLDS,
            **{RULES[rule]: paper.curve(rule, PAPER_THRESHOLDS) for rule in range(len(RULES))},
        },
        "froc": {rule: {"false_per_scan": x, "recall": y} for rule, (x, y) in froc.items()},
        "sensitivity": {
            f"{limit:g}": with_interval(pool.sensitivity(GUARDED_XOR, (limit,)), pool.patients)
            for limit in FALSE_PER_SCAN
        },
        "size_groups": [asdict(g) for g in size_groups(cases, name, OVERLAP_UNION, inserted_only=inserted_only)],
        "null": {
            "cases": len(nulls),
            "regions_at_0.68": int(sum(score.regions[ROW_AT] for score in nulls)),
            "highest_value": max((score.highest for score in nulls), default=None),
        },
        "voxel_mm": sorted({tuple(round(h, 3) for h in case.maps[name].voxel_mm) for case in cases})[:5],
    }


def _method(cases: list[CaseScore], name: str) -> dict[str, Any]:
    """Everything about one method beside its maps."""
    with_list, lists = pooled_methods.with_list(cases, name)
    counts = ListCounts.of(lists)
    patients = [case.patient for case in with_list]
    verdicts = [case.methods[name].verdict for case in cases if case.methods[name].verdict]
    thresholds = sorted({t for case in cases if (t := case.methods[name].threshold) is not None})
    return {
        "cases": len(cases),
        "registration": pooled_methods.registration(cases, name),
        "preservation": pooled_methods.preservation(cases, name),
        "preservation_of_true": pooled_methods.preservation(cases, name, of_true=True),
        "list": {
            "cases": len(lists),
            "thresholds": thresholds,
            "figures": {key: with_interval(value, patients) for key, value in counts.statistics().items()},
            "confusion": pooled_methods.confusion(lists),
            "growth": pooled_methods.growth(with_list, lists).summary(),
        }
        if lists
        else None,
        "trust": pooled_methods.trust_at_landmarks(cases, name),
        "verdicts": {verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))},
        "cost": pooled_methods.cost(cases, name),
    }


def _compare_maps(cases: Sequence[CaseScore], names: Sequence[str]) -> list[Comparison]:
    found = []
    for first, second in combinations(names, 2):
        shared = _having(_having(cases, first), second)
        if not shared:
            continue
        pools = MapPool.of(shared, first), MapPool.of(shared, second)
        each = [map_statistics(pool) for pool in (*pools, pools[0].and_then(pools[1]))]
        found += [
            compare_pair(key, (first, second), (each[0][key], each[1][key]), each[2][key], pools[0].patients)
            for key in ("recall_at_0.68", "cpm", "recall_at_1_false_per_scan")
        ]
    return found


def _compare_methods(cases: Sequence[CaseScore], names: Sequence[str]) -> list[Comparison]:
    found = []
    for first, second in combinations(names, 2):
        shared = [case for case in cases if first in case.methods and second in case.methods]
        patients = [case.patient for case in shared]
        for key in COMPARED_FIELDS:
            values = [[_field(case, name, key) for case in shared] for name in (first, second)]
            both_known = [i for i in range(len(shared)) if None not in (values[0][i], values[1][i])]
            if both_known:
                a, b = ([side[i] for i in both_known] for side in values)
                each = mean_of_cases(a), mean_of_cases(b)
                who = [patients[i] for i in both_known]
                found.append(compare_pair(key, (first, second), each, mean_of_cases([*a, *b]), who))
    return found


def _field(case: CaseScore, method: str, key: str) -> float | None:
    scored = case.methods[method].field
    return None if scored is None else pooled_methods.FIELD_FIGURES[key](scored)


def _having(cases: Sequence[CaseScore], name: str) -> list[CaseScore]:
    return [case for case in cases if name in case.maps]


def _notes(cases: Sequence[CaseScore], maps: Sequence[str], methods: Sequence[str]) -> list[str]:
    """What a reader of the figures must know."""
    notes = [f"{case.name}: {note}" for case in cases for note in case.notes]
    scored = [case for case in cases if case.lesions_known]
    for name in maps:
        lacking = len(scored) - len(_having(cases, name))
        if lacking:
            notes.append(f"{name} is missing in {lacking} of {len(scored)} cases; comparisons use the cases with both.")
    for name in methods:
        lacking = sum(name not in case.methods for case in cases)
        if lacking:
            notes.append(f"{name} is missing in {lacking} of {len(cases)} cases.")
    patients = len({case.patient for case in cases})
    if patients < 3:
        notes.append(f"With {patients} patient(s) there are no intervals: figures are over patients, not over lesions.")
    return notes


def _rounded(value: Any) -> Any:
    """JSON types; numbers with six significant digits, NaN and infinity as None."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    elif isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
