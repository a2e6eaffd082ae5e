"""What a deformation is judged by on a pair of known truth; the same for every program."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from registration_cases import Case
from scipy import ndimage

from ChangeMapJointLib.core.displacement import DisplacementField, warp
from ChangeMapJointLib.core.grid import Grid, bounding_box
from ChangeMapJointLib.core.resample import index_points
from ChangeMapJointLib.io.read import read_volume
from ChangeMapJointLib.registration.quality import dice
from ChangeMapJointLib.scan.volume import Volume

WINDOW_HU = (-1000.0, 200.0)
INNER_VOX = 2  # from the border: nearer to it a voxel of the truth is part lung, part wall, which move otherwise


def judge(case: Case, vectors_mm: NDArray[np.float32]) -> dict[str, Any]:
    """Figures of u, float32 ``[z, y, x, 3]`` in mm on the reference's grid.

    Of lesions: how far their centre in the reference is taken from that in the template, and the volume of L^T(y) over
    that of L^T, corrected for the true change of volume there (1: it keeps its size; grown ones above 1: the growth is
    registered away).
    """
    reference, template = read_volume(case.reference), read_volume(case.template)
    field = DisplacementField(vectors_mm, reference.grid)
    points = case.points
    error = np.linalg.norm(field.apply(points.reference_mm) - points.template_mm, axis=1)
    figures = distances(error, points.group)
    before = np.linalg.norm(points.reference_mm - points.template_mm, axis=1)
    figures["before_mm"] = distances(before, points.group)["tre_mean_mm"]
    if case.truth is None:
        return figures
    truth, grid = case.truth, reference.grid
    inside = truth.lungs_reference
    inner = ndimage.binary_erosion(inside, iterations=INNER_VOX)
    warped_lungs = warp(truth.lungs_template, template.grid, grid, field) >= 0.5
    determinant = field.jacobian_determinant()[inside]
    figures |= {
        "lung_dice": round(dice(inside, warped_lungs), 4),
        "folding_percent": round(100.0 * float((determinant <= 0).mean()), 4),
        "jacobian_min": round(float(determinant.min()), 3),
        "ncc": round(correlation(reference, template, field, inner), 4),
        "ncc_of_the_truth": round(correlation(reference, template, truth.field, inner), 4),
    }
    figures["lesions"] = [
        {
            "kind": lesion.kind,
            "centre_mm": round(float(np.linalg.norm(field.apply(lesion.reference_mm) - lesion.template_mm)), 2),
            **preserved(lesion.mask, template, field, truth.field),
        }
        for lesion in case.lesions
    ]
    return figures


def distances(error: NDArray[np.floating], group: NDArray[np.str_]) -> dict[str, float]:
    """Mean and 95th percentile over points anywhere in the lungs, and the mean over those on vessels."""
    lung, vessel = error[group == "lung"], error[group == "vessel"]
    found = {"tre_mean_mm": float(lung.mean()), "tre_p95_mm": float(np.percentile(lung, 95))}
    if len(vessel):
        found["tre_vessels_mm"] = float(vessel.mean())
    return {name: round(value, 3) for name, value in found.items()}


def preserved(
    lesion: NDArray[np.bool_], template: Volume, field: DisplacementField, truth: DisplacementField
) -> dict[str, float]:
    """``|L^T(y)| / |L^T(y_true)|``, nothing for a lesion that the template does not show."""
    if not lesion.any():
        return {}
    volumes = [warped_sum(lesion, template.grid, y) for y in (field, truth.on(field.grid))]  # sums over equal voxels
    return {"preserved": round(volumes[0] / volumes[1], 3)}


def warped_sum(lesion: NDArray[np.bool_], grid: Grid, field: DisplacementField) -> float:
    """The sum of L^T(y) over the field's grid, warped only where y reaches the lesion."""
    index = np.argwhere(lesion)[:, ::-1]
    near = np.stack([index.min(axis=0) - 1.0, index.max(axis=0) + 1.0])
    corners = grid.to_physical(np.stack(np.meshgrid(*near.T, indexing="ij"), axis=-1).reshape(-1, 3))
    low, high = corners.min(axis=0), corners.max(axis=0)
    y = index_points(field.grid, field.grid.affine).numpy() + field.vectors_mm
    reached = ((y >= low) & (y <= high)).all(axis=-1)
    if not reached.any():
        return 0.0
    start, stop = bounding_box(reached)
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    part_of = DisplacementField(np.ascontiguousarray(field.vectors_mm[box]), field.grid.crop(start, stop))
    return float(warp(lesion, grid, part_of.grid, part_of).sum())


def correlation(reference: Volume, template: Volume, field: DisplacementField, inside: NDArray[np.bool_]) -> float:
    """NCC of R and T(y) over the lungs; above that of the true motion, noise and change are registered away."""
    warped = warp(template.array, template.grid, reference.grid, field, outside=WINDOW_HU[0])
    r, t = (np.clip(values[inside], *WINDOW_HU).astype(np.float64) for values in (reference.array, warped))
    return float(np.corrcoef(r, t)[0, 1])
