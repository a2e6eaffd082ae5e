"""Input and output of the network in scanner space.

Both scans are resampled to one axis-parallel grid around the lungs, T through the rigid map A into R's frame. The
network predicts u with ``y(x) = A (x + u(x))``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.blur import low_pass_variance_mm2, sampled_variance_mm2, squared_cosines
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.grid import FloatArray, Grid, Shape3, apply_affine
from ChangeMapJointLib.core.hu import AIR_HU
from ChangeMapJointLib.core.lazy_torch import torch
from ChangeMapJointLib.core.resample import index_points, resample, sample
from ChangeMapJointLib.scan.pair import ScanPair

MARGIN_MM = 15.0
FINEST_MM = 1.5  # spacing of the field: small lungs in a large scan would otherwise need gigabytes
SLAB = 16  # slices processed at a time, to bound the memory


@dataclass(frozen=True)
class NetworkScans:
    """R and T on the network's grid.

    Attributes:
        grid: axis-parallel, around the lungs of both scans.
        rigid: A, 4x4, reference to template.
        reference: R in HU, float32 ``[z, y, x]``.
        template: T(A x) in HU, float32 ``[z, y, x]``.
        lungs_reference: M_R, float32 in [0, 1].
        lungs_template: M_T(A x), float32 in [0, 1].
    """

    grid: Grid
    rigid: FloatArray
    reference: NDArray[np.float32]
    template: NDArray[np.float32]
    lungs_reference: NDArray[np.float32]
    lungs_template: NDArray[np.float32]


def network_grid(pair: ScanPair, shape: Shape3) -> Grid:
    """An axis-parallel grid that covers the lungs of both scans with a margin of 15 mm.

    Args:
        pair: both scans with lungs; the template may have been taken in deeper inspiration.
        shape: (z, y, x) of the network's input.
    """
    reference_mm, template_mm = (
        scan.grid.to_physical(np.argwhere(scan.mask)[:, ::-1].astype(float)) for scan in (pair.reference, pair.template)
    )
    points = np.concatenate([reference_mm, apply_affine(np.linalg.inv(pair.rigid), template_mm)])
    low, high = points.min(axis=0) - MARGIN_MM, points.max(axis=0) + MARGIN_MM
    hx, hy, hz = (float(v) for v in (high - low) / (np.array(shape[::-1]) - 1))
    x, y, z = (float(v) for v in low)
    return Grid(shape, (hx, hy, hz), (x, y, z))


def network_scans(pair: ScanPair, shape: Shape3, *, match_resolution: bool = False) -> NetworkScans:
    """Resample both scans and their lungs to the network's grid, low-passed to its voxel size.

    Args:
        pair: both scans with lungs, rigidly aligned.
        shape: (z, y, x) of the network's input.
        match_resolution: along every axis, blur the sharper of R and T to the resolution of the other
            (:func:`~ChangeMapJointLib.core.blur.sampled_variance_mm2`). The rotation in A is ignored here: the
            position of a chest differs by a few degrees only.
    """
    grid = network_grid(pair, shape)
    blurrier_mm2 = np.maximum(
        sampled_variance_mm2(pair.reference.grid, grid), sampled_variance_mm2(pair.template.grid, grid)
    )
    resampled = []
    for scan, matrix in ((pair.reference, np.eye(4)), (pair.template, pair.rigid)):
        missing = np.maximum(blurrier_mm2 - sampled_variance_mm2(scan.grid, grid), 0.0) if match_resolution else None
        image = resample(
            smoothed(scan.array, scan.grid, grid, more_mm2=missing), scan.grid, grid, matrix=matrix, outside=AIR_HU
        )
        mask = resample(smoothed(scan.mask, scan.grid, grid), scan.grid, grid, matrix=matrix)
        resampled.append((image, mask))
    (reference, lungs_reference), (template, lungs_template) = resampled
    return NetworkScans(grid, pair.rigid, reference, template, lungs_reference, lungs_template)


def smoothed(
    values: NDArray[np.generic], source: Grid, target: Grid, *, more_mm2: FloatArray | None = None
) -> NDArray[np.float32]:
    """Low-pass a volume to the voxel size of the grid that it will be resampled to.

    Args:
        values: ``[z, y, x]`` on ``source``.
        source: their grid.
        target: the grid that they will be sampled on.
        more_mm2: variance in mm^2 of an additional blur along the target's axes (x, y, z). Below a standard deviation
            of half a voxel, the sampled Gaussian blurs less than asked for.

    Returns:
        float32 ``[z, y, x]`` on ``source``.
    """
    variance = low_pass_variance_mm2(source, target)
    if more_mm2 is not None:
        variance = variance + squared_cosines(source, target) @ more_mm2
    sigma_vox = np.sqrt(variance) / source.spacing_mm
    smooth: NDArray[np.float32] = ndimage.gaussian_filter(
        values.astype(np.float32), sigma_vox[::-1], mode="nearest", truncate=3.0
    )
    return smooth


def to_network(field: DisplacementField, grid: Grid, rigid: FloatArray) -> NDArray[np.float32]:
    """Convert a field y to the network's displacement ``u(x) = A^-1 y(x) - x``; the inverse of :func:`from_network`.

    Args:
        field: y, rigid part included; its border values are repeated outside.
        grid: the network's, axis-parallel.
        rigid: A, 4x4.

    Returns:
        u, float32 ``[3, z, y, x]`` in mm, components (x, y, z).
    """
    vectors = torch.from_numpy(field.vectors_mm).movedim(-1, 0)
    inverse = np.linalg.inv(rigid)
    linear = torch.as_tensor(inverse[:3, :3].T, dtype=torch.float32)
    rotated = torch.as_tensor((inverse - np.eye(4)) @ field.grid.affine, dtype=torch.float32)
    last = torch.tensor(field.grid.size, dtype=torch.float32) - 1
    result = np.empty((3, *grid.shape), dtype=np.float32)
    for z in range(0, grid.shape[0], SLAB):
        slab = slice(z, z + SLAB)
        index = index_points(grid, field.grid.inverse_affine @ grid.affine, slab)
        index = torch.minimum(index.clamp_min(0), last)
        moved = sample(vectors, index, Grid(field.grid.shape)).movedim(0, -1) @ linear
        moved += index @ rotated[:3, :3].T + rotated[:3, 3]
        result[:, slab] = moved.movedim(-1, 0).numpy()
    return result


def from_network(u: torch.Tensor, grid: Grid, rigid: FloatArray, reference_grid: Grid) -> DisplacementField:
    """Convert the network's u to the field ``y(x) = A (x + u(x))`` over the whole reference.

    Args:
        u: ``[3, z, y, x]`` in mm on ``grid``; its border values are repeated outside.
        grid: the network's, axis-parallel.
        rigid: A, 4x4.
        reference_grid: the reference's own grid.

    Returns:
        y with isotropic voxels of the network's finest spacing, but not finer than :data:`FINEST_MM`.
    """
    target = reference_grid.with_spacing((max(min(grid.spacing_mm), FINEST_MM),) * 3)
    linear = torch.as_tensor(rigid[:3, :3].T, dtype=torch.float32)
    result = np.empty((*target.shape, 3), dtype=np.float32)
    for z in range(0, target.shape[0], SLAB):
        slab = slice(z, z + SLAB)
        moved = sample(u, index_points(target, target.affine, slab), grid).movedim(0, -1) @ linear
        moved += index_points(target, (rigid - np.eye(4)) @ target.affine, slab)
        result[slab] = moved.numpy()
    return DisplacementField(result, target)
