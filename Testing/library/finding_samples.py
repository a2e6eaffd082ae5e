"""Pairs of closed-form scans with a given registration, and what is found in them."""

from __future__ import annotations

from typing import Any

import numpy as np
from lung_shapes import Shape, Wall, cube, inside, scan
from phantoms import voxel_points

from ChangeMapJointLib.change.findings import Finding, FindingOptions, Findings, list_findings
from ChangeMapJointLib.change.maps import change_map, lungs_of_both, signed_change
from ChangeMapJointLib.core.displacement import DisplacementField, warp
from ChangeMapJointLib.core.grid import Grid, Vector3
from ChangeMapJointLib.scan.pair import ScanPair
from ChangeMapJointLib.scan.volume import Volume

CENTRE: Vector3 = (0.4, -0.9, 0.6)
FAINT = FindingOptions(threshold=0.3)


def labels_of(volume: Volume, wall: Wall | None = None) -> np.ndarray:
    """Right lung where x < 0, left elsewhere (LPS: x grows to the patient's left)."""
    points = voxel_points(volume.grid)
    labels = np.where(points[..., 0] < 0, 1, 2).astype(np.uint8)
    if wall is not None:
        labels[inside(wall, points)] = 0
    return labels


def compare(
    reference: Volume,
    template: Volume,
    *,
    field: DisplacementField | None = None,
    wall: Wall | None = None,
    lungs: tuple[np.ndarray, np.ndarray] | None = None,
    trust: Any = None,
    options: FindingOptions | None = None,
) -> Findings:
    """Maps and findings of a pair whose registration is given (identity by default)."""
    grid = reference.grid
    field = field or DisplacementField.from_affine(np.eye(4), grid)
    lungs_r, lungs_t = lungs or (labels_of(reference, wall), labels_of(template, wall))
    moved = warp(template.array, template.grid, grid, field, outside=np.nan)
    inside = lungs_of_both(lungs_r > 0, warp(lungs_t > 0, template.grid, grid, field) >= 0.5, grid)
    return list_findings(
        change_map(reference.array, moved, inside),
        signed_change(reference.array, moved),
        ScanPair.of(reference, template, lungs_r, lungs_t),
        field,
        trust=trust,
        options=options,
    )


def pair(now: list[Shape], before: list[Shape], grid: Grid | None = None, **kwargs: Any) -> Findings:
    grid = grid or cube()
    reference = scan(grid, *now, noise_hu=15.0, seed=1)
    return compare(reference, scan(grid, *before, noise_hu=15.0, seed=2), **kwargs)


def only(findings: Findings) -> Finding:
    assert len(findings.items) == 1
    return findings.items[0]
