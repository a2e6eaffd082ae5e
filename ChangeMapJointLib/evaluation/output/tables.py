"""Tables of an evaluation for readers, on the page and in LaTeX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ChangeMapJointLib.evaluation.map_score import AT

NONE = "–"
NOTHING = 1e-6  # rounding of a transform that does not change volume


@dataclass(frozen=True)
class Table:
    """A table for readers.

    Attributes:
        name: of its files.
        title: one line.
        note: what the columns mean.
        rows: texts by column, at least one.
    """

    name: str
    title: str
    note: str
    rows: Sequence[Mapping[str, str]]


def reader_tables(document: Mapping[str, Any]) -> list[Table]:
    """The tables for page and LaTeX; those without rows are left out."""
    tables = [
        _maps(document),
        _operating_points(document),
        _registration(document),
        _preservation(document),
        _lists(document),
        *_confusions(document),
        _growth(document),
        _trust(document),
        _comparisons(document),
        _costs(document),
    ]
    return [table for table in tables if table.rows]


# -- texts -----------------------------------------------------------------------------


def number_text(value: float | None, digits: int = 3) -> str:
    """A number for readers; a dash where there is none.

    Examples:
        >>> number_text(0.91234), number_text(1234.5), number_text(None), number_text(0.0)
        ('0.912', '1234', '–', '0')
    """
    if value is None:
        return NONE
    if abs(value) < NOTHING:
        return "0"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.{digits}g}" if abs(value) < 0.1 else f"{value:.{digits}f}".rstrip("0").rstrip(".")


def figure(entry: Mapping[str, float | None] | None, digits: int = 3) -> str:
    """A figure with its interval: ``0.91 [0.84, 0.97]``."""
    if entry is None or entry["value"] is None:
        return NONE
    text = number_text(entry["value"], digits)
    if entry["low"] is None or entry["high"] is None:
        return text
    return f"{text} [{number_text(entry['low'], digits)}, {number_text(entry['high'], digits)}]"


def _maps(document: Mapping[str, Any]) -> Table:
    rows = []
    for name, entry in document["maps"].items():
        f = entry["figures"]
        rows.append(
            {
                "map": name,
                "cases": str(entry["cases"]),
                "changes": str(entry["changes"]),
                "recall": figure(f["recall_at_0.68"]),
                "recall, XOR": figure(f["recall_at_0.68_xor"]),
                "guarded recall": figure(f["guarded_recall_at_0.68"]),
                "guarded recall, XOR": figure(f["guarded_recall_at_0.68_xor"]),
                "region precision": figure(f["region_precision_at_0.68"]),
                "false per scan": figure(f["false_per_scan_at_0.68"], 2),
                "their volume (ml)": figure(f["false_ml_per_scan_at_0.68"], 2),
                "false per null scan": figure(f["false_per_null_scan_at_0.68"], 2),
            }
        )
    return Table(
        "maps",
        f"Change maps at the paper's threshold of {AT:g}",
        "Recall: a change is found if any region of at least 5 voxels overlaps the union of its masks in both scans, "
        "or their symmetric difference (XOR). Guarded: regions and changes are matched one to one with an intersection "
        "over union above 0.1. A region is false if it overlaps no change.",
        rows,
    )


def _operating_points(document: Mapping[str, Any]) -> Table:
    rows = []
    for name, entry in document["maps"].items():
        points = {f"{_fraction(limit)} false": figure(value, 2) for limit, value in entry["sensitivity"].items()}
        f = entry["figures"]
        rows.append({"map": name, **points, "mean (CPM)": figure(f["cpm"]), "CPM, union": figure(f["cpm_union"])})
    return Table(
        "froc",
        "Sensitivity at 1/8 to 8 false regions per scan, over all thresholds",
        "Guarded recall against the symmetric difference (the last column: against the union). Comparable between maps "
        "whose values mean different things, since no threshold is given.",
        rows,
    )


def _fraction(limit: str) -> str:
    value = float(limit)
    return f"1/{1 / value:g}" if value < 1 else f"{value:g}"


def _registration(document: Mapping[str, Any]) -> Table:
    titles = {
        "tre_mm": "TRE (mm)",
        "tre_worst_30_percent_mm": "worst 30 % (mm)",
        "tre_p95_mm": "95th percentile (mm)",
        "tre_before_mm": "before (mm)",
        "lung_dice": "lung Dice",
        "folding_percent": "folding (%)",
        "sd_log_jacobian": "SD log det",
    }
    rows = [
        {"method": name, "cases": str(e["cases"]), **{t: figure(e["registration"][key]) for key, t in titles.items()}}
        for name, e in document["methods"].items()
        if e["registration"]
    ]
    return Table(
        "registration",
        "Registration",
        "TRE: distance of corresponding points after registration, as a mean over cases. Folding: voxels in the lungs "
        "with a Jacobian determinant of 0 or less. SD log det: spread of the logarithm of the determinant.",
        rows,
    )


def _preservation(document: Mapping[str, Any]) -> Table:
    rows = []
    for name, entry in document["methods"].items():
        for key, over in (("preservation", "|L^T|"), ("preservation_of_true", "|L^T(true y)|")):
            if entry[key]:
                kept = {kind: _kept(entry[key].get(kind)) for kind in ("grown", "shrunk", "resolved", "stable")}
                rows.append({"method": name, "|L^T(y)| over": over, **kept})
    return Table(
        "preservation",
        "Is change deformed away? Volume of the warped prior lesion over that of the prior lesion",
        "Median [10th, 90th percentile]. 1: the lesion keeps its size. A method that makes a grown lesion of the prior "
        "as large as it is now hides the growth. Where the lung breathed out, any smooth y makes lesions smaller: the "
        "rows over |L^T(true y)|, where the true y is known, are without that.",
        rows,
    )


def _kept(entry: Mapping[str, float] | None) -> str:
    if entry is None:
        return NONE
    return f"{entry['median']:.2f} [{entry['p10']:.2f}, {entry['p90']:.2f}] (n={entry['n']})"


def _lists(document: Mapping[str, Any]) -> Table:
    rows = []
    for name, entry in document["methods"].items():
        listed = entry["list"]
        if listed:
            f = listed["figures"]
            rows.append(
                {
                    "method": name,
                    "cases": str(listed["cases"]),
                    "threshold": ", ".join(number_text(t) for t in listed["thresholds"]) or NONE,
                    "recall": figure(f["recall"]),
                    "precision": figure(f["precision"]),
                    "false per scan": figure(f["false_per_scan"], 2),
                    "right kind": figure(f["kinds_right"]),
                }
            )
    return Table(
        "lists",
        "Lists of findings",
        "A finding belongs to a change when its centre lies within half the lesion's larger diameter (at least 3 mm) "
        "of the lesion's centre; one to one. Right kind: of the changes that were found.",
        rows,
    )


def _confusions(document: Mapping[str, Any]) -> list[Table]:
    return [
        Table(
            f"confusion_{i}",
            f"Kinds of change: {name}",
            "Rows: the truth; columns: what the list says.",
            [
                {"truth": row, **{column: str(n) for column, n in cells.items()}}
                for row, cells in entry["list"]["confusion"].items()
            ],
        )
        for i, (name, entry) in enumerate(document["methods"].items(), 1)
        if entry["list"]
    ]


def _growth(document: Mapping[str, Any]) -> Table:
    rows = []
    for name, entry in document["methods"].items():
        measured = entry["list"]["growth"] if entry["list"] else None
        if measured and measured["n"]:
            rows.append(
                {
                    "method": name,
                    "lesions": str(measured["n"]),
                    "error, median (points)": number_text(measured["error_percent_median"]),
                    "absolute error, median": number_text(measured["absolute_error_percent_median"]),
                    "doublings: bias [limits]": _agreement(measured["doublings"]),
                    "doubling time (days)": _agreement(measured["doubling_days"]),
                }
            )
    return Table(
        "growth",
        "Growth of lesions that are in both scans",
        "Error of the change of volume in percentage points of the prior's volume; agreement by Bland and Altman: "
        "bias [bias - 1.96 SD, bias + 1.96 SD] of the number of doublings (log2 of the volume ratio) and of the "
        "doubling time where truth and list both grew.",
        rows,
    )


def _agreement(entry: Mapping[str, Any]) -> str:
    if not entry["n"]:
        return NONE
    text = number_text(entry["bias"])
    if entry["low"] is not None:
        text += f" [{number_text(entry['low'])}, {number_text(entry['high'])}]"
    return f"{text} (n={entry['n']})"


def _trust(document: Mapping[str, Any]) -> Table:
    rows = []
    for name, entry in document["methods"].items():
        found = entry["trust"]
        if found:
            rows.append(
                {
                    "method": name,
                    "landmarks": str(found["points"]),
                    "errors above 3 mm": str(found["large_errors"]),
                    "of these with trust below 0.5": number_text(found["large_errors_marked"]),
                    "of errors below 1 mm": number_text(found["small_errors_marked"]),
                    "area under ROC": number_text(found["area_under_roc"]),
                }
            )
    return Table("trust", "Does low trust mark large errors?", "At the landmarks of all cases.", rows)


def _comparisons(document: Mapping[str, Any]) -> Table:
    rows = [
        {
            "figure": c["figure"],
            "first": c["first"],
            "second": c["second"],
            "first minus second": figure(c["difference"]),
            "p": number_text(c["p"]),
            "p (Holm)": number_text(c["p_holm"]),
            "patients": str(c["patients"]),
        }
        for c in document["comparisons"]
    ]
    return Table(
        "comparisons",
        "Paired comparisons",
        "Both methods on the same cases. p: exchange of the methods within patients (all exchanges up to 12 patients, "
        "9,999 random ones beyond), two-sided; Holm's correction over all pairs for one figure.",
        rows,
    )


def _costs(document: Mapping[str, Any]) -> Table:
    rows = [
        {
            "method": name,
            "time, median (s)": number_text(entry["cost"]["seconds_median"]),
            "memory, largest (MB)": number_text(entry["cost"]["peak_mb_largest"]),
            "its own verdicts": ", ".join(f"{v} {n}" for v, n in entry["verdicts"].items()) or NONE,
        }
        for name, entry in document["methods"].items()
        if entry["cost"]["seconds_median"] is not None or entry["cost"]["peak_mb_largest"] is not None
    ]
    return Table("cost", "Time and memory", "As the methods state them; machines may differ.", rows)
