"""Rigid alignment of patients of any size: its distances in mm fit adults, so children are enlarged to that size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ChangeMapJointLib.core.grid import FloatArray, Grid
from ChangeMapJointLib.core.progress import Progress, silent
from ChangeMapJointLib.registration.rigid.align import RigidAlignment, align_rigid
from ChangeMapJointLib.registration.rigid.verdict import RigidOptions
from ChangeMapJointLib.scan.body_size import as_adult, body_scale
from ChangeMapJointLib.scan.scan import Scan


def align_any_size(
    reference: Scan,
    template: Scan,
    *,
    options: RigidOptions | None = None,
    progress: Progress = silent,
) -> RigidAlignment:
    """Align two scans by :func:`~ChangeMapJointLib.registration.rigid.align.align_rigid`, a child's at an adult's size.

    At the voxel size used for adults, a newborn's vessels and ribs would be lost, and its lungs would be below the
    smallest volume. Both scans are enlarged by one factor, that of the larger body, so that a rigid motion stays rigid.
    Scans of adults are aligned unchanged.

    Args:
        reference: the current scan and its lungs.
        template: the prior scan and its lungs.
        options: as for an adult.
        progress: called with the fraction done.

    Returns:
        The alignment, in the scans' own mm.

    Raises:
        InputError: as in ``align_rigid``.
    """
    scale = max(body_scale(reference.volume), body_scale(template.volume))
    scans = (reference, template) if scale == 1 else tuple(_enlarged(scan, scale) for scan in (reference, template))
    alignment = align_rigid(scans[0], scans[1], options=options, progress=progress)
    if scale == 1:
        return alignment
    if np.array_equal(alignment.matrix, np.eye(4)) and reference.grid.origin_mm == template.grid.origin_mm:
        return alignment  # exactly the identity, without rounding errors
    to_large, from_large = _about(reference.grid, 1 / scale), _about(template.grid, scale)
    x, y, z = (float(v) * scale for v in alignment.translation_mm)
    moved = f"Aligned: the lungs moved by {np.linalg.norm((x, y, z)):.1f} mm"
    status = moved + alignment.status.partition(" mm")[2]
    return replace(alignment, matrix=from_large @ alignment.matrix @ to_large, translation_mm=(x, y, z), status=status)


def _enlarged(scan: Scan, scale: float) -> Scan:
    grid = as_adult(scan.grid, scale)
    return Scan(replace(scan.volume, grid=grid), replace(scan.lungs, grid=grid))


def _about(grid: Grid, factor: float) -> FloatArray:
    """4x4 matrix that scales by ``factor`` about the first voxel, which :func:`as_adult` leaves in place."""
    matrix = np.eye(4)
    matrix[:3, :3] *= factor
    matrix[:3, 3] = (1 - factor) * np.asarray(grid.origin_mm)
    return matrix
