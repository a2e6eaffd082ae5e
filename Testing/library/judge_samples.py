"""Aligned closed-form pairs as evidence for the judged list."""

from __future__ import annotations

from typing import Any

import numpy as np
from finding_samples import labels_of
from lung_shapes import cube, scan

from ChangeMapJointLib.change.evidence import ChangeEvidence
from ChangeMapJointLib.change.maps import change_map, lungs_of_both, signed_change
from ChangeMapJointLib.core.displacement import DisplacementField, warp
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.scan.pair import ScanPair
from ChangeMapJointLib.scan.volume import Volume


def evidence_of(reference: Volume, template: Volume, *, lungs: np.ndarray | None = None) -> ChangeEvidence:
    """What a comparison knows of a pair that is aligned already; all of it is lung by default."""
    grid = reference.grid
    field = DisplacementField.from_affine(np.eye(4), grid)
    labels = (labels_of(reference), labels_of(template)) if lungs is None else (lungs, lungs)
    moved = warp(template.array, template.grid, grid, field, outside=np.nan)
    inside = lungs_of_both(labels[0] > 0, labels[1] > 0, grid)
    return ChangeEvidence(
        change_map(reference.array, moved, inside),
        signed_change(reference.array, moved),
        ScanPair.of(reference, template, *labels),
        field,
        inside,
        labels[1] > 0,
        trust=lambda points: np.full(len(points), 0.9),
    )


def evidence(now: list[Any], before: list[Any], grid: Grid | None = None, *, noise_hu: float = 15.0) -> ChangeEvidence:
    """The same of shapes in lung."""
    grid = grid or cube()
    reference = scan(grid, *now, noise_hu=noise_hu, seed=1)
    return evidence_of(reference, scan(grid, *before, noise_hu=noise_hu, seed=2))
