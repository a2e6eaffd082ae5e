"""Sums over the pairs of ``joint.py``: recall of each map at the false positives that are allowed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ChangeMapJointLib.evaluation.froc import THRESHOLDS, ScanCounts, false_positives, recall_at
from ChangeMapJointLib.synthesis.truth import TrueChange

FIRST, OTHER = "LIDC-IDRI-1011", "4DLung-113_40pct"
RIM = " with the rim"
SMALL_MM = 5.8  # the paper's limit for small changes of diameter
ALLOWED = (1.0, 4.0)
MOST_FALSE = 4 * 40  # more in one pair are above 4 a pair, whatever the others say
RESIZED = ("grown", "shrunk")
QUARTERS = (25, 50, 75)
DRAWS = 1000
METHODS = ("sequential", "network", "optimised")


def summary(held: Sequence[dict[str, Any]], null: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All figures of the validation."""
    result: dict[str, Any] = {"pairs": len(held), "null_pairs": len(null)}
    for method in ("rigid", *METHODS):
        ours = [pair[method] for pair in held]
        names = ("tre_mm", "tre_worst_30_percent_mm", "folding_percent", "dice")
        result[method] = {name: round(float(np.mean([p[name] for p in ours])), 4) for name in names}
        result[method]["largest_folding_percent"] = round(max(p["folding_percent"] for p in ours), 4)
        if method != "rigid":
            result[method]["median_seconds"] = round(float(np.median([p["seconds"] for p in ours])), 2)
            result[method]["preserved_volume_quartiles"] = preserved_volume(ours)
    result["detection"] = {
        f"{method} {name}": detection([p[method] for p in held], [p[method] for p in null], name)
        for method in METHODS
        for name in held[0][method]["counts"]
    }
    allowed = [f"at_{a:g}_false_per_scan" for a in ALLOWED]
    wanted = {name: result["detection"]["sequential difference"][name]["recall"] for name in allowed}
    sides = [[p["optimised"] for p in pairs] for pairs in (held, null)]
    result["optimised combined at the recall of sequential difference"] = {
        name: at_recall(*sides, "combined", recall) for name, recall in wanted.items()
    }
    result["recall of optimised combined above sequential difference"] = {
        of + where: gain([pair for pair in held if patient in pair["name"]], where)
        for where in ("", RIM)
        for of, patient in {"both patients": "", FIRST: FIRST, OTHER: OTHER}.items()
    }
    return result


def of_cut_lesions(cut: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Recall of both methods on lesions that are cut from CT."""
    compared = {"sequential": "difference", "optimised": "combined"}
    return {
        "pairs": len(cut),
        "gain of optimised combined": gain(cut, ""),
        **{f"{method} {name}": detection([p[method] for p in cut], [], name) for method, name in compared.items()},
    }


def preserved_volume(pairs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Quartiles of ``|L^T(y)| / |L^T|`` of lesions that grew, of those that shrank, and of both."""
    ratios = {kind: [ratio for p in pairs for ratio in p["preserved"][kind]] for kind in RESIZED}
    ratios["both"] = [ratio for kind in RESIZED for ratio in ratios[kind]]
    return {
        name: {"lesions": len(values), "quartiles": [round(float(v), 3) for v in np.percentile(values, QUARTERS)]}
        for name, values in ratios.items()
    }


def gain(held: Sequence[dict[str, Any]], where: str) -> dict[str, Any]:
    """What CM_comb finds more than CM_seq at the same false positives; 95 % interval over pairs drawn anew."""
    maps = [
        scan_counts([p[method] for p in held], name + where)
        for method, name in (("optimised", "combined"), ("sequential", "difference"))
    ]
    draws = np.random.default_rng(0).integers(0, len(held), (DRAWS, len(held)))
    found: dict[str, Any] = {"pairs": len(held)}
    for allowed in ALLOWED:
        recalls = [recall_at(scans, allowed) for scans in maps]
        drawn = [np.subtract(*(recall_at([scans[n] for n in draw], allowed) for scans in maps)) for draw in draws]
        low, high = np.percentile(drawn, (2.5, 97.5))
        found[f"at_{allowed:g}_false_per_scan"] = {
            "combined": round(recalls[0], 4),
            "sequential": round(recalls[1], 4),
            "interval": [round(float(low), 3), round(float(high), 3)],
        }
    return found


def at_recall(
    held: Sequence[dict[str, Any]], null: Sequence[dict[str, Any]], name: str, recall: float
) -> dict[str, float] | None:
    """False positives of one map where it is as quiet as it may be for that recall; None where that was not counted."""
    scans, quiet = scan_counts(held, name), scan_counts(null, name)
    reached = sum(s.hit.sum(axis=1) for s in scans) / sum(len(s.changes) for s in scans) >= recall - 1e-4
    if not reached.any():
        return None
    row = int(np.flatnonzero(reached)[-1])
    if any(s.false[row] > MOST_FALSE for s in (*scans, *quiet)):
        return None  # not counted down to there
    return {
        "threshold": round(float(THRESHOLDS[row]), 3),
        "false_per_scan": round(float(false_positives(scans)[row]), 2),
        "false_per_null_pair": round(float(false_positives(quiet)[row]), 2),
    }


def detection(held: Sequence[dict[str, Any]], null: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    """Recall of one map at the allowed false positives, and what it says of null pairs there, where there are any."""
    scans, quiet = scan_counts(held, name), scan_counts(null, name)
    found: dict[str, Any] = {"changes": sum(len(s.changes) for s in scans)}
    per_scan = false_positives(scans)

    def in_null(row: int) -> dict[str, float]:
        return {"false_per_null_pair": round(float(false_positives(quiet)[row]), 2)} if quiet else {}

    for allowed in ALLOWED:
        hits = np.where(per_scan <= allowed, sum(s.hit.sum(axis=1) for s in scans), -1)
        best = int(np.flatnonzero(hits == hits.max())[-1])  # of equally good thresholds the quietest
        found[f"at_{allowed:g}_false_per_scan"] = {
            "threshold": round(float(THRESHOLDS[best]), 3),
            "recall": round(recall_at(scans, allowed), 4),
            f"recall_below_{SMALL_MM}_mm": round(recall_at(scans, allowed, below_mm=SMALL_MM), 4),
            **in_null(best),
            "false_in_each_null_pair": [int(s.false[best]) for s in quiet],
        }
    rows = [int(np.abs(THRESHOLDS - wanted).argmin()) for wanted in (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.68)]
    whole = [all(s.false[row] <= MOST_FALSE for s in (*scans, *quiet)) for row in range(len(THRESHOLDS))]
    found["by_threshold"] = {
        f"{THRESHOLDS[row]:.2f}": {
            "recall": round(sum(float(s.hit[row].sum()) for s in scans) / found["changes"], 4),
            "false_per_scan": round(float(per_scan[row]), 2),
            **in_null(row),
        }
        for row in rows
        if whole[row]
    }
    return found


def scan_counts(pairs: Sequence[dict[str, Any]], name: str) -> list[ScanCounts]:
    """The counts of one map, as they were kept."""
    result = []
    for pair in pairs:
        kept, changes = pair["counts"][name], pair["changes"]
        hit = np.array(kept["hit"], dtype=bool).reshape(len(THRESHOLDS), len(changes))
        sized = tuple(_of_size(n, **change) for n, change in enumerate(changes, 1))
        result.append(ScanCounts(hit, np.array(kept["false"]), sized))
    return result


def _of_size(number: int, kind: str, change_mm: float) -> TrueChange:
    """A change that differs by so many mm; only that counts here."""
    sizes = {"new": (change_mm, 0.0), "resolved": (0.0, change_mm)}.get(kind, (100.0, 100.0 - change_mm))
    now, before = sizes if kind != "shrunk" else sizes[::-1]
    return TrueChange(number, kind, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), now, before)  # type: ignore[arg-type]
