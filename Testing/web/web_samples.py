"""A small run with its two scans: two lesions of known place, and a motion of 6 mm to the patient's left."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np

from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.io.run_seal import file_sha256, seal_of
from ChangeMapJointLib.io.write import write_displacement, write_nrrd, write_rigid

GRID = Grid((40, 60, 60), (3.0, 3.0, 3.0), (-90.0, -90.0, -60.0))
SHIFT_MM = 6.0  # y(x) = x + (6, 0, 0)
NEW_MM, GROWN_MM = (45.0, 6.0, 9.0), (-45.0, -9.0, -21.0)  # centres, LPS
PALE = 0.5  # value of the map in the outer shell of a lesion; 0.9 inside
AFFINE = np.array([[1.0, 0, 0, SHIFT_MM], [0, 1.0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1.0]])
REPORT = "<!DOCTYPE html><html><head><meta charset=utf-8></head><body><main><h1>Change report</h1></main></body></html>"


def _distance_mm(centre_mm: tuple[float, float, float]) -> np.ndarray:
    z, y, x = (
        origin + h * np.arange(n)
        for origin, h, n in zip(GRID.origin_mm[::-1], GRID.spacing_mm[::-1], GRID.shape, strict=True)
    )
    cx, cy, cz = centre_mm
    return np.sqrt((x - cx) ** 2 + (y[:, None] - cy) ** 2 + (z[:, None, None] - cz) ** 2)


def write_run(folder: Path, *, method: str = "sequential", seal: bool = True) -> Path:
    """A run folder of the output contract; its scans lie beside it."""
    folder.mkdir(parents=True)
    noise = np.random.default_rng(1).normal(0, 20, GRID.shape)
    body = np.where(_distance_mm((0, 0, 0)) < 85, 40.0, -1000.0)
    lungs = (_distance_mm((45, 0, 0)) < 34) | (_distance_mm((-45, 0, 0)) < 34)
    scan = np.where(lungs, -850.0, body)
    now, change = scan.copy(), np.zeros(GRID.shape, np.float32)
    for centre in (NEW_MM, GROWN_MM):
        distance = _distance_mm(centre)
        now[distance < 12] = 30.0
        change[distance < 12], change[distance < 7] = PALE, 0.9
    reference, warped = (np.rint(a + noise).astype(np.int16) for a in (now, scan))
    template = np.roll(warped, round(SHIFT_MM / GRID.spacing_mm[0]), axis=2)
    scans = {"reference": folder.parent / "current.nrrd", "template": folder.parent / "prior.nrrd"}
    write_nrrd(scans["reference"], reference, GRID)
    write_nrrd(scans["template"], template, GRID)
    write_nrrd(folder / "warped_template.nrrd", warped, GRID)
    for name in ("lungs_reference", "lungs_template"):
        write_nrrd(folder / f"{name}.nrrd", lungs.astype(np.uint8), GRID)
    write_rigid(folder / "rigid.tfm", AFFINE)
    trust = np.where(_distance_mm(GROWN_MM) < 20, 0.3, 0.95).astype(np.float32)
    write_nrrd(folder / "trust.nrrd", trust, GRID)
    write_nrrd(folder / "jacobian.nrrd", np.ones(GRID.shape, np.float32), GRID)
    write_nrrd(folder / "signed_change.nrrd", (reference - warped).astype(np.int16), GRID)
    maps = ("change_map", "change_combined", "change_learned", "change_difference") if method == "joint" else ()
    for name in maps or ("change_map",):
        write_nrrd(folder / f"{name}.nrrd", change, GRID)
    write_displacement(folder / "deformation.nrrd", DisplacementField.from_affine(AFFINE, GRID))
    quality = {"verdict": "look closely", "reasons": ["The lungs overlap by Dice 0.96 only."]}
    (folder / "quality.json").write_text(json.dumps({"quality": quality}))
    points = {"sensitive": 0.1, "standard": 0.6, "specific": 0.9}
    head = {"schema": "changemap.findings", "threshold": 0.68, "operating_point": "standard", "listed_from": points}
    rows = [
        _finding(1, "new", NEW_MM, "finding", 0.97, 0.95),
        _finding(2, "grown", GROWN_MM, "finding", 0.8, 0.3),
    ]
    others = [_finding(3, "new", (30.0, 0.0, 0.0), "explained", 0.05, 0.9)]
    (folder / "findings.json").write_text(json.dumps({**head, "findings": rows}))
    (folder / "candidates.json").write_text(json.dumps({**head, "findings": others}))
    (folder / "findings.csv").write_text("id\n1\n2\n")
    (folder / "report.html").write_text(REPORT)
    sides = {
        side: {"name": path.name, "sha256": file_sha256(path), "acquisition": {"date": date}}
        for (side, path), date in zip(scans.items(), ("2026-03-02", "2025-01-15"), strict=True)
    }
    run = {"schema": "changemap.run/1", "configuration": {"method": method}, **sides}
    if method == "joint":
        run["model_sha256"] = "ab" * 32
    if seal:
        run["files"] = seal_of(folder)
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def _finding(number: int, kind: str, centre: tuple, section: str, probability: float, trust: float) -> dict:
    return {
        "id": number,
        "kind": kind,
        "centre_mm": list(centre),
        "peak_mm": list(centre),
        "volume_ml": 0.9,
        "peak": 0.9,
        "trust": trust,
        "remark": "Seen in the current scan only.",
        "section": section,
        "probability": probability,
        "reason": "vessel" if section == "explained" else None,
    }


def write_worklist(folder: Path) -> Path:
    """Two cases, each with a run of either method."""
    path = folder / "cases.csv"
    with path.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(("case", "arm", "run"))
        for case in ("p1", "p2"):
            for method in ("sequential", "joint"):
                write_run(folder / case / method, method=method)
                rows.writerow((case, method, f"{case}/{method}"))
    return path
