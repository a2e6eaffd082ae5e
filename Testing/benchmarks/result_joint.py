"""The table of ``docs/validation.md`` on the joint method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from result_files import load, table


def _recall(where: Mapping[str, Any], level: str, rim: str = "") -> str:
    combined, sequential = (where[f"{m}{rim}"][level] for m in ("optimised combined", "sequential difference"))
    small = "recall_below_5.8_mm"
    return (
        f"CM_comb {combined['recall']:.2f}, CM_seq {sequential['recall']:.2f}; "
        f"below 5.8 mm {combined[small]:.2f} against {sequential[small]:.2f}"
    )


def _null(case: Mapping[str, Any], level: str) -> str:
    def false(entry: Mapping[str, Any]) -> int:
        return sum(entry["false_in_each_null_pair"])

    found, again = case["detection"], case["optimised combined at the recall of sequential difference"]
    names = ("optimised combined", "sequential difference")
    inside, rim = ([false(found[f"{n}{end}"][level]) for n in names] for end in ("", " with the rim"))
    matched = round(again[level]["false_per_null_pair"] * case["null_pairs"])
    return (
        f"CM_comb {inside[0]}, CM_seq {inside[1]}. Where CM_comb finds as much as CM_seq: {matched} against "
        f"{inside[1]}. With the rim: {rim[0]} against {rim[1]}"
    )


def joint() -> str:
    """The joint method beside the sequential one on pairs of patients that the network has not seen."""
    (case,) = load("joint").values()
    found, gain = case["detection"], case["recall of optimised combined above sequential difference"]["both patients"]
    cut = case["lesions cut from CT"]
    grown, shrunk = (
        [case[method]["preserved_volume_quartiles"][kind]["quartiles"][1] for method in ("network", "optimised")]
        for kind in ("grown", "shrunk")
    )

    one, four, rim = "at_1_false_per_scan", "at_4_false_per_scan", " with the rim"
    low, high = gain[one]["interval"]
    changes = found["sequential difference"]["changes"]
    method = {name: case[name]["tre_mm"] for name in ("rigid", "network", "optimised", "sequential")}
    folds = max(case[name]["largest_folding_percent"] for name in ("network", "optimised"))
    rows = [
        (
            "lung points",
            f"{method['rigid']:.2f} to {method['network']:.2f} mm by the network alone, {method['optimised']:.4f} mm "
            f"with instance optimisation (sequential {method['sequential']:.4f} mm); "
            f"{'no folding' if folds == 0 else f'{folds:g} % folded'}. Median on one core, two at a time, in float32: "
            f"network {case['network']['median_seconds']:.0f} s",
            "2.0 mm, within 0.05 mm of sequential",
        ),
        (
            f"recall of {changes} changes at 1 FP per scan",
            f"{_recall(found, one)}. 95 % interval of the difference over pairs: {low:.2f} to {high:.2f}",
            "at least CM_seq; more below 5.8 mm",
        ),
        (
            "the same at 4 FP per scan",
            f"{_recall(found, four)}. Interval: {gain[four]['interval'][0]:.2f} to {gain[four]['interval'][1]:.2f}",
            "the same",
        ),
        (
            "the same with the rim where T's lungs reach beyond R's, which the maps leave out",
            f"at 1: {_recall(found, one, rim)}. At 4: {_recall(found, four, rim)}",
            "",
        ),
        (
            f"{cut['pairs']} further pairs, lesions cut from the CTs of the two patients instead of painted, "
            f"{cut['sequential difference']['changes']} changes",
            f"at 1: {_recall(cut, one)}. At 4: {_recall(cut, four)}",
            "",
        ),
        (
            f"{case['null_pairs']} null pairs (stable lesions, another kernel, slices of another thickness): FP in "
            f"all, at the threshold that gives each map 1 FP per scan on the {case['pairs']} pairs",
            _null(case, one),
            "half of CM_seq",
        ),
        ("the same, at the threshold for 4", _null(case, four), "half of CM_seq"),
        (
            "volume kept, median of 49 grown and of 39 shrunk lesions",
            f"network {grown[0]:.2f} and {shrunk[0]:.2f}; with instance optimisation {grown[1]:.2f} and "
            f"{shrunk[1]:.2f}",
            "0.9 to 1.1",
        ),
    ]
    return table(["case", "result", "bar"], rows)
