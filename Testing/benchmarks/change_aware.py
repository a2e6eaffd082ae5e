"""What letting go of change does: an ablation over 48 lesions in six pairs of four patients.

    python Testing/benchmarks/change_aware.py DATA

DATA holds ``ct15``. Every pair (real CT, known motion to 30 mm, synthetic lesions of 6 to 16 mm) is registered with
``change_hu``, the residual at which NGF counts half, at several values; 0 is off. Of every setting: mean error in the
lungs; how far lesion centres are taken from their place (of a new one, where the tissue round it was); the volume
of L^T(y) over that with the true y; what CM_seq finds at two thresholds. Writes ``results/change_aware.json``.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from record import write_results
from scipy import ndimage

from ChangeMapJointLib.change.maps import change_map
from ChangeMapJointLib.core.displacement import DisplacementField, warp
from ChangeMapJointLib.evaluation.detection import match_labels
from ChangeMapJointLib.io.read import read_volume
from ChangeMapJointLib.lungs.segment import segment_both, segment_lungs
from ChangeMapJointLib.registration.deformable.register import RegistrationOptions, register_deformable
from ChangeMapJointLib.registration.keypoints.match import find_correspondences
from ChangeMapJointLib.registration.rigid.align import align_rigid
from ChangeMapJointLib.scan.pair import ScanPair
from ChangeMapJointLib.scan.scan import Scan
from ChangeMapJointLib.synthesis.motion import MotionOptions
from ChangeMapJointLib.synthesis.pairs import KnownPair, LesionPlan, PairOptions, make_pair

SETTINGS_HU = (0.0, 75.0, 100.0, 150.0)
THRESHOLDS = (0.4, 0.68)
LEAST_VOXELS = 5
# scan, seed, mm at the diaphragm, share of sliding, noise in HU
PAIRS = (
    ("0001", 301, 20.0, 0.0, 20.0),
    ("0002", 302, 30.0, 0.5, 20.0),
    ("0314", 303, 20.0, 1.0, 30.0),
    ("1011", 304, 30.0, 0.0, 30.0),
    ("0001", 305, 30.0, 1.0, 30.0),
    ("0314", 306, 30.0, 0.5, 20.0),
)
LESIONS = (
    LesionPlan("new", 12.0, 0.0),
    LesionPlan("new", 7.0, 0.0, place="vessel"),
    LesionPlan("resolved", 0.0, 12.0),
    LesionPlan("resolved", 0.0, 7.0, place="vessel"),
    LesionPlan("grown", 16.0, 10.0),
    LesionPlan("grown", 10.0, 6.0),
    LesionPlan("shrunk", 10.0, 15.0),
    LesionPlan("stable", 12.0, 12.0),
)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    rows: dict[float, list[dict[str, Any]]] = {}
    for plan in PAIRS:
        for setting, row in measured(data, *plan):
            rows.setdefault(setting, []).append(row)
            print(plan, setting, row["error_mm"], flush=True)
    results = {f"change_hu {setting:g}": summary(found) for setting, found in rows.items()}
    for name, figures in results.items():
        print(name, json.dumps(figures))
    what = "48 lesions in six pairs of four patients; synthetic change on real CT"
    write_results("change_aware", {"ablation": {"what": what, "settings": results}})


def measured(
    data: Path, scan: str, seed: int, motion_mm: float, sliding: float, noise_hu: float
) -> list[tuple[float, dict[str, Any]]]:
    """One row a setting."""
    volume = read_volume(data / "ct15" / f"LIDC-IDRI-{scan}_ct.nii.gz")
    options = PairOptions(
        motion=MotionOptions(diaphragm_mm=motion_mm, ventral_mm=motion_mm / 4, bump_mm=6.0),
        sliding=sliding,
        lesions=LESIONS,
        reference_spacing_mm=(1.5,) * 3,
        template_spacing_mm=(1.5,) * 3,
        reference_noise_hu=noise_hu,
        template_noise_hu=noise_hu,
    )
    pair = make_pair(volume, segment_lungs(volume).mask, seed=seed, options=options)
    r, t = pair.reference, pair.template
    lungs = [found.mask for found in segment_both(r, t)]
    rigid = align_rigid(*map(Scan.of, (r, t), lungs)).matrix
    keypoints = find_correspondences(ScanPair.of(r, t, *lungs, rigid=rigid)).keypoints
    rows = []
    for change_hu in SETTINGS_HU:
        setting = replace(RegistrationOptions(), change_hu=change_hu)
        field = register_deformable(ScanPair.of(r, t, *lungs, rigid=rigid), keypoints=keypoints, options=setting).field
        rows.append((change_hu, figures(pair, field, lungs)))
    return rows


def figures(pair: KnownPair, field: DisplacementField, lungs: list[Any]) -> dict[str, Any]:
    """Error, centres and preservation by kind, hits by threshold."""
    r, t, truth = pair.reference, pair.template, pair.field()
    error = np.linalg.norm(field.apply(pair.points.reference_mm) - pair.points.template_mm, axis=1)
    centres: dict[str, list[float]] = {}
    kept: dict[str, list[float]] = {}
    for change in pair.changes:
        place = np.array([change.centre_reference_mm])
        apart = float(np.linalg.norm(field.apply(place) - np.array([change.centre_template_mm])))
        centres.setdefault(change.kind, []).append(apart)
        lesion = pair.lesions_template == change.id
        if lesion.any() and change.kind != "resolved":
            volumes = [float(warp(lesion, t.grid, r.grid, y).sum()) for y in (field, truth)]
            kept.setdefault(change.kind, []).append(volumes[0] / volumes[1])
    inside = lungs[0] | (warp(lungs[1], t.grid, r.grid, field) >= 0.5)
    cm = change_map(r.array, warp(t.array, t.grid, r.grid, field, outside=np.nan), inside)
    found = {str(threshold): detected(pair, cm >= threshold) for threshold in THRESHOLDS}
    return {"error_mm": float(error.mean()), "centres_mm": centres, "preserved": kept, "found": found}


def detected(pair: KnownPair, changed: np.ndarray) -> tuple[int, int, int]:
    """True changes, those hit, and false components."""
    labels, _ = ndimage.label(changed, np.ones((3, 3, 3)))
    small = np.bincount(labels.ravel()) < LEAST_VOXELS
    labels[small[labels]] = 0
    result = match_labels(labels, pair.changes, pair.reference.grid)
    return len(result.changes()), len(result.found()), len(result.false_volumes_ml)


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means of errors, medians and extremes of lesions, recall and false positives."""
    every = {kind for row in rows for kind in row["centres_mm"]}
    centres = {kind: [v for row in rows for v in row["centres_mm"].get(kind, [])] for kind in sorted(every)}
    kept = {kind: [v for row in rows for v in row["preserved"].get(kind, [])] for kind in ("grown", "shrunk", "stable")}
    moved = np.array([v for kind, values in centres.items() if kind != "stable" for v in values])
    told: dict[str, Any] = {
        "error_mm": round(float(np.mean([row["error_mm"] for row in rows])), 3),
        "changed_lesions": len(moved),
        "centre_median_mm": round(float(np.median(moved)), 2),
        "centre_p90_mm": round(float(np.percentile(moved, 90)), 2),
        "centre_max_mm": round(float(moved.max()), 2),
        "centre_median_by_kind_mm": {kind: round(float(np.median(v)), 2) for kind, v in centres.items()},
        "preserved_median_10_90": {
            kind: [round(float(np.percentile(v, p)), 3) for p in (50, 10, 90)] for kind, v in kept.items()
        },
    }
    for threshold in map(str, THRESHOLDS):
        wanted, hit, false = np.sum([row["found"][threshold] for row in rows], axis=0)
        told[f"at {threshold}"] = {
            "recall": round(float(hit / wanted), 3),
            "of": int(wanted),
            "false_positives_per_scan": round(float(false / len(rows)), 2),
        }
    return told


if __name__ == "__main__":
    main()
