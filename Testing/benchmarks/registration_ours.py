"""The project's registration as the product runs it.

    registration_ours.py register ours REFERENCE TEMPLATE FOLDER
    registration_ours.py dense ours REFERENCE TEMPLATE FOLDER

``register`` reads both scans, finds the lungs, aligns rigidly, matches keypoints, registers and writes the deformation;
``dense`` turns it into ``dense.npy`` as :mod:`registration_peers` does.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.io.read import read_volume
from ChangeMapJointLib.lungs.segment import segment_both
from ChangeMapJointLib.registration.deformable.register import register_deformable
from ChangeMapJointLib.registration.keypoints.match import find_correspondences
from ChangeMapJointLib.registration.rigid.align import align_rigid
from ChangeMapJointLib.scan.pair import ScanPair
from ChangeMapJointLib.scan.scan import Scan


def run(reference: str, template: str, out: Path) -> None:
    """What is timed."""
    r, t = (read_volume(Path(name)) for name in (reference, template))
    lungs = [found.mask for found in segment_both(r, t)]
    rigid = align_rigid(*map(Scan.of, (r, t), lungs)).matrix
    matches = find_correspondences(ScanPair.of(r, t, *lungs, rigid=rigid))
    found = register_deformable(ScanPair.of(r, t, *lungs, rigid=rigid), keypoints=matches.keypoints)
    np.save(out / "vectors.npy", found.field.vectors_mm)
    grid = found.field.grid
    kept = {"shape": grid.shape, "spacing_mm": grid.spacing_mm, "origin_mm": grid.origin_mm}
    (out / "grid.json").write_text(json.dumps({**kept, "direction": np.asarray(grid.direction).tolist()}))


def dense(reference: str, out: Path) -> None:
    """U at every voxel of the reference."""
    told = json.loads((out / "grid.json").read_text())
    grid = Grid(*(tuple(told[name]) for name in ("shape", "spacing_mm", "origin_mm", "direction")))  # type: ignore[arg-type]
    field, wanted = DisplacementField(np.load(out / "vectors.npy"), grid), read_volume(Path(reference)).grid
    rows = [field.at(wanted.to_physical(index)) for index in _indices(wanted)]
    np.save(out / "dense.npy", np.concatenate(rows).reshape(*wanted.shape, 3))


def _indices(grid: Grid) -> list[np.ndarray]:
    nz, ny, nx = grid.shape
    y, x = (v.ravel().astype(float) for v in np.mgrid[:ny, :nx])
    return [np.stack([x, y, np.full_like(x, z)], axis=1) for z in range(nz)]


if __name__ == "__main__":
    step, _, fixed_name, moving_name, folder = sys.argv[1:]
    if step == "register":
        run(fixed_name, moving_name, Path(folder))
    else:
        dense(fixed_name, Path(folder))
