"""The complete tables of an evaluation, as CSV for further work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ChangeMapJointLib.evaluation.map_score import ALL_THRESHOLDS, AT, GUARDED_XOR, OVERLAP_UNION, RULES
from ChangeMapJointLib.evaluation.pooled_maps import ROW_AT
from ChangeMapJointLib.evaluation.pooled_methods import FIELD_FIGURES
from ChangeMapJointLib.evaluation.score_case import CaseScore

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]


def data_tables(cases: Sequence[CaseScore], document: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """The complete tables by name of their file."""
    import pandas as pd

    curves: list[Row] = []
    groups: list[Row] = []
    froc: list[Row] = []
    for name, entry in document["maps"].items():
        paper = entry["paper"]
        for rule in RULES:
            for i, threshold in enumerate(paper["thresholds"]):
                values = {column: numbers[i] for column, numbers in paper[rule].items()}
                curves.append({"map": name, "rule": rule, "threshold": threshold, **values})
        groups += [{"map": name, **group} for group in entry["size_groups"]]
        for rule, curve in entry["froc"].items():
            pairs = zip(curve["false_per_scan"], curve["recall"], strict=True)
            froc += [{"map": name, "rule": rule, "false_per_scan": x, "recall": y} for x, y in pairs]
    figures = [
        {"scored": name, "figure": figure, **value}
        for name, values in _all_figures(document)
        for figure, value in values.items()
    ]
    tables = {
        "figures": figures,
        "recall_curves": curves,
        "froc": froc,
        "size_groups": groups,
        "comparisons": [
            {**{k: v for k, v in c.items() if k != "difference"}, **c["difference"]} for c in document["comparisons"]
        ],
        "cases": [row for case in cases for row in _case_rows(case)],
        "lesions": [row for case in cases for row in _lesion_rows(case)],
    }
    return {name: pd.DataFrame(rows) for name, rows in tables.items() if rows}


def _all_figures(document: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    maps = [(name, entry["figures"]) for name, entry in document["maps"].items()]
    fields = [(name, entry["registration"]) for name, entry in document["methods"].items()]
    lists = [
        (name, {f"list_{k}": v for k, v in entry["list"]["figures"].items()})
        for name, entry in document["methods"].items()
        if entry["list"]
    ]
    return [*maps, *fields, *lists]


# -- rows of the complete tables ----------------------------------------------------------


def _case_rows(case: CaseScore) -> list[Row]:
    """One row for every map and every method of a case."""
    head = {"case": case.name, "patient": case.patient, "changes": len(case.changes), "null": case.null}
    rows = []
    for name, score in case.maps.items():
        hits = {rule: int(score.hit[i, ROW_AT].sum()) for i, rule in enumerate(RULES)}
        rows.append(
            {
                **head,
                "scored": name,
                **{f"found at {AT:g} ({rule})": n for rule, n in hits.items()},
                "false": int(score.false[OVERLAP_UNION, ROW_AT]),
                "false_ml": score.false_ml[OVERLAP_UNION, ROW_AT],
                "highest": score.highest,
            }
        )
    for name, method in case.methods.items():
        row = {**head, "scored": name, "seconds": method.seconds, "peak_mb": method.peak_mb, "verdict": method.verdict}
        if method.field is not None:
            row |= {key: measure(method.field) for key, measure in FIELD_FIGURES.items()}
        if method.findings is not None:
            row |= {
                "list_found": sum(m.finding is not None for m in method.findings.changes),
                "list_false": len(method.findings.false) + len(method.findings.stable),
            }
        rows.append(row)
    return rows


def _lesion_rows(case: CaseScore) -> list[Row]:
    """One row for every true change: what each map and each list made of it."""
    rows: list[Row] = []
    for i, lesion in enumerate(case.changes):
        row: Row = {
            "case": case.name,
            "patient": case.patient,
            "lesion": lesion.id,
            "kind": lesion.kind,
            "inserted": lesion.inserted,
            "diameter_reference_mm": lesion.diameter_reference_mm,
            "diameter_template_mm": lesion.diameter_template_mm,
            "growth_percent": lesion.growth_percent,
        }
        for name, score in case.maps.items():
            row[f"{name}: found at {AT:g}"] = bool(score.hit[OVERLAP_UNION, ROW_AT, i])
            row[f"{name}: highest threshold"] = _highest(score.hit[GUARDED_XOR, :, i])
        for name, method in case.methods.items():
            if method.findings is not None:
                match = next(m for m in method.findings.changes if m.lesion is lesion)
                row[f"{name}: listed as"] = match.finding.kind if match.finding else ""
                row[f"{name}: growth_percent"] = match.measured_percent
            if method.field is not None:
                row[f"{name}: volume kept"] = method.field.preserved.get(lesion.id)
        rows.append(row)
    return rows


def _highest(found: Any) -> float | None:
    """Highest threshold at which a change is matched."""
    rows = np.flatnonzero(found)
    return float(ALL_THRESHOLDS[rows[-1]]) if rows.size else None
