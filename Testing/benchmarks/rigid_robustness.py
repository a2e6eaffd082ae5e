"""Rigid pre-alignment: how exact, how robust, and how clearly it tells one chest from another, at any voxel size.

    python Testing/benchmarks/rigid_robustness.py DATA [--quick] [--cache FOLDER] [--minutes 40]

DATA holds ``ct15``, ``native``, ``dicom``, ``pairs/known20mm``, ``pairs/popi`` and ``pairs/followup_lung``. What is
compared and the bars of ``RigidOptions`` were chosen on the patients of ``ct15`` and on the three given pairs, which
are the hardest right ones; the six patients of ``native`` and the native DICOM series are the other set, of which two
scans were seen while choosing and some figures before the bars were kept: a fair judgement needs further patients.

Pairs of one patient are made from real CTs (moved, breathed, cropped, noisy, thick, one lung filled, other voxels)
except POPI (real 4D CT), the one real follow-up and the native DICOM series against their own 1.5 mm versions. Pairs
that must be refused: another patient, mirrored, upside down, turned, other halves of a chest. Not every patient is
measured at every voxel size: each has its turn.

``--cache`` keeps the lungs and every finished pair: a run that was stopped, or ran out of its minutes, goes on from
there. Native scans whose lungs come out at less than 1.5 or more than 8 l are left out.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from record import metadata, write_results
from rigid_pairs import CHOSEN, JUDGED, Data, Pair, Truth, Unsuitable, all_pairs
from scipy.spatial.transform import Rotation

from ChangeMapJointLib.core.grid import FloatArray, apply_affine
from ChangeMapJointLib.registration.rigid.align import align_scans, prepare
from ChangeMapJointLib.registration.rigid.verdict import Overlap, RigidOptions, chest_problem, overlap_problem
from ChangeMapJointLib.scan.scan import Scan


# -- figures --------------------------------------------------------------------------
def errors_mm(matrix: FloatArray, truth: Truth) -> dict[str, float]:
    """Distances of the moved points from their partners: after alignment, and for the best rigid motion there is."""
    points, partners = truth
    error = np.linalg.norm(apply_affine(matrix, points) - partners, axis=1)
    a, b = points - points.mean(axis=0), partners - partners.mean(axis=0)
    turn, _ = Rotation.align_vectors(b, a)
    best = np.linalg.norm(turn.apply(a) - b, axis=1)
    return {
        "error_mean_mm": round(float(error.mean()), 4),
        "error_max_mm": round(float(error.max()), 4),
        "best_rigid_mean_mm": round(float(best.mean()), 4),
    }


def measure(pair: Pair, options: RigidOptions) -> dict[str, Any]:
    """One row of the table; without what follows from the bars, so that rows stay good when these change."""
    reference, template, truth = pair.make()
    start, cpu = time.monotonic(), time.process_time()
    fixed = prepare(Scan.of(reference.volume, reference.lungs), "reference", options)
    moving = prepare(Scan.of(template.volume, template.lungs), "template", options)
    found = align_scans(fixed, moving, options=options)
    row: dict[str, Any] = {
        "wall_s": round(time.monotonic() - start, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
    }
    if found is not None:
        row |= {"vessels": _round(found.similarity), "wall": _round(found.wall_similarity)}
        row |= {"lung_dice": _round(found.lung_dice), "overlap": [_round(v) for v in found.overlap]}
        if truth is not None:
            row |= errors_mm(found.matrix, truth)
    return row


def verdict(row: dict[str, Any], options: RigidOptions) -> str:
    if "overlap" not in row or overlap_problem(Overlap(*row["overlap"]), options):
        return "refused: no overlap"
    if chest_problem(row["vessels"], row["wall"], options):
        return "refused: not the same chest"
    return "doubtful" if row["vessels"] is None or row["vessels"] < options.warn_below else "accepted"


def summary(pairs: list[Pair], rows: dict[str, dict[str, Any]], options: RigidOptions) -> dict[str, dict[str, Any]]:
    """The margins of both sets, and for every group of pairs the ranges, what became of them, and the pairs."""
    measured = [pair for pair in pairs if pair.key in rows]
    groups: dict[str, dict[str, Any]] = {}
    for split in (CHOSEN, JUDGED):
        members = [pair for pair in measured if pair.split == split]
        planned = sum(pair.split == split for pair in pairs)
        groups[f"margins of the patients the bars were {split}"] = {
            "planned": planned,
            "measured": len(members),
            **margins(members, rows, options),
        }
    for split, group in dict.fromkeys((pair.split, pair.group) for pair in measured):
        members = [pair for pair in measured if (pair.split, pair.group) == (split, group)]
        found = [{"pair": pair.name, "verdict": verdict(rows[pair.key], options), **rows[pair.key]} for pair in members]
        line: dict[str, Any] = {"split": split, "expected": "accepted" if members[0].alike else "refused"}
        for figure in ("vessels", "wall", "error_mean_mm", "error_max_mm", "best_rigid_mean_mm", "cpu_s"):
            values = [row[figure] for row in found if row.get(figure) is not None]
            if values:
                line[figure] = {"min": min(values), "median": _round(float(np.median(values))), "max": max(values)}
        name = group if split == CHOSEN else f"{group} ({JUDGED})"
        groups[name] = {"count": len(found), **line, "pairs": found}
    return groups


def margins(pairs: list[Pair], rows: dict[str, dict[str, Any]], options: RigidOptions) -> dict[str, Any]:
    """How far the worst right and the best wrong pair are from the bar, and what became of all."""
    result: dict[str, Any] = {"bars": {"vessels": options.refuse_below, "wall": options.refuse_wall_below}}
    for alike, words in ((True, "right"), (False, "wrong")):
        members = [pair for pair in pairs if pair.alike is alike]
        verdicts = [verdict(rows[pair.key], options) for pair in members]
        line: dict[str, Any] = {
            "count": len(members),
            "verdicts": {v: verdicts.count(v) for v in sorted(set(verdicts))},
        }
        for figure in ("vessels", "wall"):
            values = {pair.key: rows[pair.key].get(figure) for pair in members}
            known = {key: value for key, value in values.items() if value is not None}
            if known:
                extreme = (min if alike else max)(known, key=lambda key: known[key])
                line[figure] = {"lowest" if alike else "highest": known[extreme], "pair": extreme}
        result[words] = line
    return result


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def main() -> None:
    """Measure every pair and write ``results/rigid_robustness.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--quick", action="store_true", help="every tenth pair only, and nothing is written")
    parser.add_argument("--cache", type=Path, help="folder for lungs and finished pairs; a stopped run goes on from it")
    parser.add_argument("--minutes", type=float, default=40.0, help="start no further pair after so long")
    arguments = parser.parse_args()
    options, start, began = RigidOptions(), metadata(), time.monotonic()
    if arguments.cache is not None:
        arguments.cache.mkdir(parents=True, exist_ok=True)
    kept = None if arguments.cache is None else arguments.cache / "pairs.json"
    rows: dict[str, dict[str, Any]] = json.loads(kept.read_text("utf-8")) if kept is not None and kept.exists() else {}
    pairs = all_pairs(Data(arguments.data, arguments.cache))
    for pair in pairs[:: 10 if arguments.quick else 1]:
        if pair.key not in rows and time.monotonic() - began < 60.0 * arguments.minutes:
            try:
                rows[pair.key] = measure(pair, options)
            except Unsuitable as problem:
                print(pair.key, "left out:", problem, flush=True)
                continue
            if kept is not None:
                kept.write_text(json.dumps(rows, indent=1), encoding="utf-8")
            print(pair.key, json.dumps(rows[pair.key]), verdict(rows[pair.key], options), flush=True)
    groups = summary(pairs, rows, options)
    if arguments.quick:
        print(json.dumps({name: line for name, line in groups.items() if name.startswith("margins")}, indent=2))
    else:
        print(write_results("rigid_robustness", groups, start))


if __name__ == "__main__":
    main()
