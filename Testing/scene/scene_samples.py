"""Volumes with closed-form content, and a small run folder of the output contract."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.io.write import write_displacement, write_nrrd, write_rigid

GRID = Grid((12, 20, 16), (1.5, 1.25, 2.0), (-10.0, 20.0, -30.0))
TEMPLATE_GRID = Grid((14, 22, 18), (1.5, 1.25, 2.0), (-12.0, 17.0, -33.0))
AFFINE = np.array([[1.02, 0.03, 0.0, 4.0], [-0.03, 0.98, 0.01, -3.0], [0.0, -0.01, 1.01, 5.0], [0.0, 0.0, 0.0, 1.0]])


def rotation(degrees: tuple[float, float, float]) -> np.ndarray:
    """3x3 rotation about x, then y, then z."""
    a, b, c = np.radians(degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def grid_with(direction: np.ndarray, shape: tuple[int, int, int] = (5, 7, 9)) -> Grid:
    """A grid with these axes, uneven spacings and an origin far from 0."""
    a, b, c = np.asarray(direction, dtype=float).tolist()
    return Grid(shape, (0.7, 0.8, 2.5), (-123.4, 56.7, -890.1), (tuple(a), tuple(b), tuple(c)))


def findings_document() -> dict:
    """Content of findings.json: one denser and one less dense place."""
    rows = [
        {"id": 1, "kind": "new", "centre_mm": [-4.0, 30.0, -20.0], "remark": "New, 0.5 ml."},
        {"id": 2, "kind": "resolved", "centre_mm": [5.0, 35.0, -14.0], "remark": "Gone."},
    ]
    return {"schema": "changemap.findings", "schema_version": 1, "coordinates": "LPS, mm", "findings": rows}


def write_run(folder: Path, *, peak: float = 1.0, method: str = "sequential") -> Path:
    """A run whose map rises along x to ``peak``, denser in the lower half of y, with u of :data:`AFFINE`."""
    folder.mkdir(parents=True)
    nx, ny, _ = GRID.size
    ramp = np.broadcast_to(np.linspace(0, peak, nx, dtype=np.float32), GRID.shape).copy()
    sign = np.where(np.arange(ny) < ny // 2, 1, -1)[:, None]
    lungs = np.zeros(GRID.shape, np.uint8)
    lungs[2:-2, 2:-2, 2:-2] = 1
    write_nrrd(folder / "warped_template.nrrd", np.full(GRID.shape, -800, np.int16), GRID)
    write_nrrd(folder / "lungs_reference.nrrd", lungs, GRID)
    write_rigid(folder / "rigid.tfm", AFFINE)
    (folder / "quality.json").write_text(json.dumps({"quality": {"verdict": "good", "reasons": []}}))
    run = {"schema": "changemap.run/1", "configuration": {"method": method}}
    (folder / "run.json").write_text(json.dumps(run))
    if method == "rigid":
        return folder
    write_nrrd(folder / "change_map.nrrd", ramp, GRID)
    write_nrrd(folder / "signed_change.nrrd", (1050 * ramp * sign).astype(np.int16), GRID)
    write_nrrd(folder / "jacobian.nrrd", np.ones(GRID.shape, np.float32), GRID)
    write_nrrd(folder / "trust.nrrd", np.broadcast_to(np.linspace(0, 1, nx, dtype=np.float32), GRID.shape), GRID)
    write_displacement(folder / "deformation.nrrd", DisplacementField.from_affine(AFFINE, GRID))
    (folder / "findings.json").write_text(json.dumps(findings_document()))
    return folder
