"""Growth that another program deforms away, and that comes back when its field is refined.

    python Testing/benchmarks/given_field.py DATA --peers peers/bin/python [--methods greedy demons]

DATA holds ``pairs/known20mm``: real CT, a known motion of up to 20 mm, six synthetic lesions. Each peer of
``registration_peers.py`` registers the pair; its own files (warp and matrix, or field) are given to ``compare``, as
they are and with ``refine``; our own registration stands beside them. Of each: the error at 4,500 points; of every
lesion that the prior shows ``|L^T(y)| / |L^T(y_true)|`` (1: it keeps its size; above 1: growth is registered away;
below: shrinkage); of the tissue that truly changed (grown, new) the mean of the map and the share at or above two
thresholds; findings, verdict, trust, and the places that the verdict names. On ``pairs/popi``, two phases of one real
4D CT, nothing changed: every place that is named there is named in vain. Writes ``results/given_field.json``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from record import measure, metadata, write_results
from registration_cases import Case, known20mm, popi, rows_of
from registration_measures import distances, preserved

import ChangeMapJointLib as cmj
from ChangeMapJointLib.comparison.given_check import look_for_a_better_reading
from ChangeMapJointLib.comparison.swallowed import find_swallowed
from ChangeMapJointLib.core.displacement import warp
from ChangeMapJointLib.io.deformation_files import read_deformation
from ChangeMapJointLib.io.mappings import sampled

FILES = {"greedy": ("warp.nii.gz", "affine.mat"), "demons": ("field.mha",)}
THRESHOLDS = (0.4, 0.68)


def main() -> None:
    """Register, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--peers", type=Path, required=True, help="Python with registration_peers.txt")
    parser.add_argument("--methods", nargs="+", default=list(FILES), choices=list(FILES))
    arguments = parser.parse_args()
    started = metadata()
    with tempfile.TemporaryDirectory() as scratch:
        case = known20mm(arguments.data, Path(scratch), "known20mm")
        volumes = [cmj.read(path) for path in (case.reference, case.template)]
        scans = [cmj.Scan(volume, cmj.segment_lungs(volume)) for volume in volumes]
        changed = changed_tissue(case, arguments.data, scans)
        rows = {"ours": figures(case, cmj.compare(*scans), changed)}
        report("ours", rows)
        for name in arguments.methods:
            files = registered(name, case, Path(scratch), arguments.peers)
            for refine in (False, True):
                label = f"{name}, refined" if refine else f"{name}, as given"
                rows[label] = figures(case, cmj.compare(*scans, deformation=files, refine=refine), changed)
                report(label, rows)
        still = popi(arguments.data, Path(scratch), "popi")
        vain = {
            name: in_vain(still, registered(name, still, Path(scratch), arguments.peers)) for name in arguments.methods
        }
    print("popi", json.dumps(vain))
    what = "known20mm: lesions and motion are synthetic on real CT; the limit of the places named was chosen on it"
    results = {
        "known20mm": {"what": what, "fields": rows},
        "popi": {"what": "real breathing without change; not used in choosing", "fields": vain},
    }
    write_results("given_field", results, started)


def registered(name: str, case: Case, scratch: Path, peers: Path) -> list[Path]:
    """Files of a peer's registration, in the order in which points pass through them."""
    folder = scratch / f"{name}-{case.name}"
    folder.mkdir()
    program = str(Path(__file__).with_name("registration_peers.py"))
    measure([str(peers), program, "register", name, str(case.reference), str(case.template), str(folder)])
    return [folder / file for file in FILES[name]]


def in_vain(case: Case, files: list[Path]) -> dict[str, Any]:
    """What is named of a field though nothing changed."""
    scans = [cmj.Scan(volume, cmj.segment_lungs(volume)) for volume in map(cmj.read, (case.reference, case.template))]
    mapping, grid = read_deformation(files), scans[0].grid
    error = np.linalg.norm(mapping.apply(case.points.reference_mm) - case.points.template_mm, axis=1)
    places = find_swallowed(sampled(mapping, grid), scans[0].mask, grid)
    return {
        "landmarks_mm": round(float(error.mean()), 3),
        "places_named": [[*place.centre_mm, place.factor, place.volume_ml] for place in places],
        "better_reading": look_for_a_better_reading(mapping, cmj.ScanPair(*scans)),
    }


def report(label: str, rows: dict[str, Any]) -> None:
    print(label, json.dumps(rows[label]), flush=True)


def changed_tissue(case: Case, data: Path, scans: list[cmj.Scan]) -> dict[str, NDArray[np.bool_]]:
    """Voxels of R, by the kind of change, that a lesion takes now and did not take before (by the true motion)."""
    assert case.truth is not None
    reference, template = (scan.grid for scan in scans)
    points = reference.to_physical(np.indices(reference.shape)[::-1].transpose(1, 2, 3, 0))
    tissue: dict[str, NDArray[np.bool_]] = {}
    for row in rows_of(data / "pairs" / "known20mm" / "lesions.csv"):
        kind, radius = row["kind"], float(row["radius_reference_mm"])
        if kind not in ("grown", "new"):
            continue
        centre = np.array([float(row[f"r{axis}"]) for axis in "xyz"])
        now = np.linalg.norm(points - centre, axis=-1) <= radius
        lesion = next(one for one in case.lesions if np.allclose(one.reference_mm[0], centre))
        before = warp(lesion.mask, template, reference, case.truth.field) >= 0.5
        tissue[kind] = tissue.get(kind, np.zeros(reference.shape, dtype=bool)) | (now & ~before)
    return tissue


def figures(case: Case, result: cmj.Result, changed: dict[str, NDArray[np.bool_]]) -> dict[str, Any]:
    """What is told of one result."""
    assert case.truth is not None
    assert result.change_map is not None
    assert result.findings is not None
    field, template = result.deformation.field, result.pair.template.volume
    error = np.linalg.norm(field.apply(case.points.reference_mm) - case.points.template_mm, axis=1)
    told: dict[str, Any] = {
        **distances(error, case.points.group),
        "lesions": [
            {"kind": lesion.kind, **preserved(lesion.mask, template, field, case.truth.field)}
            for lesion in case.lesions
        ],
    }
    for kind, voxels in changed.items():
        values = result.change_map[voxels]
        told[f"map_in_{kind}_tissue"] = {
            "mean": round(float(values.mean()), 3),
            **{f"share_at_{level}": round(float((values >= level).mean()), 3) for level in THRESHOLDS},
        }
    told["findings"] = [finding.kind for finding in result.findings.items]
    told["candidates"] = len(result.candidates.items) if result.candidates else 0
    if result.given is not None:
        told["places_named"] = [[*place.centre_mm, place.factor] for place in result.given.swallowed]
    quality = result.quality
    told |= {
        "verdict": quality.verdict,
        "trusted_percent": round(quality.trusted_percent or 0.0, 2),
        "lung_dice": round(quality.lung_dice, 4),
        "inverse_consistency_mm": round(quality.inverse_consistency_mm or 0.0, 3),
        "keypoint_error_mm": round(quality.keypoint_error_mm or 0.0, 3),
    }
    return told


if __name__ == "__main__":
    main()
