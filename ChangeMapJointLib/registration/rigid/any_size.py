"""Rigid alignment of bodies of any size: what is in mm there fits adults, so a child is aligned as large as one."""

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
    """:func:`~ChangeMapJointLib.registration.rigid.align.align_rigid`, a child's scans enlarged to an adult's size.

    Vessels and ribs of a newborn are lost at the spacing that tells adults apart, and its lungs are below the least
    volume. Both scans are enlarged by the same factor, that of the larger body of the two, so that a rigid motion
    stays one. Adults are aligned as they are.

    Args:
        reference: the current scan and its lungs.
        template: the prior scan and its lungs.
        options: as for an adult.
        progress: told how far it is.

    Raises:
        InputError: as ``align_rigid``.
    """
    scale = max(body_scale(reference.volume), body_scale(template.volume))
    scans = (reference, template) if scale == 1 else tuple(_enlarged(scan, scale) for scan in (reference, template))
    found = align_rigid(scans[0], scans[1], options=options, progress=progress)
    if scale == 1:
        return found
    if np.array_equal(found.matrix, np.eye(4)) and reference.grid.origin_mm == template.grid.origin_mm:
        return found  # exactly the identity, without rounding
    to_large, from_large = _about(reference.grid, 1 / scale), _about(template.grid, scale)
    x, y, z = (float(v) * scale for v in found.translation_mm)
    moved = f"Aligned: lungs moved by {np.linalg.norm((x, y, z)):.1f} mm,"
    status = moved + found.status.partition("mm,")[2]
    return replace(found, matrix=from_large @ found.matrix @ to_large, translation_mm=(x, y, z), status=status)


def _enlarged(scan: Scan, scale: float) -> Scan:
    grid = as_adult(scan.grid, scale)
    return Scan(replace(scan.volume, grid=grid), replace(scan.lungs, grid=grid))


def _about(grid: Grid, factor: float) -> FloatArray:
    """4x4: stretch by ``factor`` about the first voxel, which :func:`as_adult` leaves where it is."""
    matrix = np.eye(4)
    matrix[:3, :3] *= factor
    matrix[:3, 3] = (1 - factor) * np.asarray(grid.origin_mm)
    return matrix
