"""Both scans as the network sees them: on one upright grid round the lungs, T in R's frame by the rigid map A.

The network finds u with ``y(x) = A (x + u(x))``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.blur import low_pass_variance_mm2, sampled_variance_mm2, squared_cosines
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.grid import FloatArray, Grid, Shape3, apply_affine
from ChangeMapJointLib.core.hu import AIR_HU
from ChangeMapJointLib.core.resample import index_points, resample, sample
from ChangeMapJointLib.scan.pair import ScanPair

MARGIN_MM = 15.0
FINEST_MM = 1.5  # of the deformation: small lungs in a large scan would make a field of gigabytes
SLAB = 16  # slices at a time


@dataclass(frozen=True)
class NetworkScans:
    """R and T on the network's grid.

    Attributes:
        grid: upright, round the reference's lungs.
        rigid: A, 4x4, reference to template.
        reference: R in HU, float32 ``[z, y, x]``.
        template: T(A x) in HU.
        lungs_reference: M_R, float32 in [0, 1].
        lungs_template: M_T(A x).
    """

    grid: Grid
    rigid: FloatArray
    reference: NDArray[np.float32]
    template: NDArray[np.float32]
    lungs_reference: NDArray[np.float32]
    lungs_template: NDArray[np.float32]


def network_grid(pair: ScanPair, shape: Shape3) -> Grid:
    """An upright grid of ``shape`` (z, y, x) that covers the lungs of both scans and 15 mm round them.

    Args:
        pair: both scans with lungs; the template may have been taken in deeper inspiration.
        shape: of the network's input.
    """
    current, prior = (
        scan.grid.to_physical(np.argwhere(scan.mask)[:, ::-1].astype(float)) for scan in (pair.reference, pair.template)
    )
    points = np.concatenate([current, apply_affine(np.linalg.inv(pair.rigid), prior)])
    low, high = points.min(axis=0) - MARGIN_MM, points.max(axis=0) + MARGIN_MM
    hx, hy, hz = (float(v) for v in (high - low) / (np.array(shape[::-1]) - 1))
    x, y, z = (float(v) for v in low)
    return Grid(shape, (hx, hy, hz), (x, y, z))


def network_scans(pair: ScanPair, shape: Shape3, *, match_resolution: bool = False) -> NetworkScans:
    """Both scans and their lungs, low-passed to the voxels of the network's grid.

    Args:
        pair: both scans with lungs, rigidly aligned.
        shape: (z, y, x) of the network's input.
        match_resolution: blur the sharper of R and T along every axis as the other is
            (:func:`~ChangeMapJointLib.core.blur.sampled_variance_mm2`). T's axes are taken as they are: A turns them by
            the few degrees by which the patient lies differently.
    """
    grid = network_grid(pair, shape)
    wanted = np.maximum(sampled_variance_mm2(pair.reference.grid, grid), sampled_variance_mm2(pair.template.grid, grid))
    sides = []
    for scan, matrix in ((pair.reference, np.eye(4)), (pair.template, pair.rigid)):
        missing = np.maximum(wanted - sampled_variance_mm2(scan.grid, grid), 0.0) if match_resolution else None
        image = resample(
            smoothed(scan.array, scan.grid, grid, more_mm2=missing), scan.grid, grid, matrix=matrix, outside=AIR_HU
        )
        mask = resample(smoothed(scan.mask, scan.grid, grid), scan.grid, grid, matrix=matrix)
        sides.append((image, mask))
    (r, mr), (t, mt) = sides
    return NetworkScans(grid, pair.rigid, r, t, mr, mt)


def smoothed(
    values: NDArray[np.generic], source: Grid, target: Grid, *, more_mm2: FloatArray | None = None
) -> NDArray[np.float32]:
    """``values`` ``[z, y, x]`` without what voxels of the target's size cannot show.

    Args:
        values: on ``source``.
        source: their grid.
        target: the grid that they will be sampled on.
        more_mm2: variance of a further blur along the target's axes (x, y, z). Where that leaves less than half a
            voxel of standard deviation, the sampled Gaussian blurs less than asked for.
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
    """The network's u of a field y, ``[3, z, y, x]`` in mm: ``u(x) = A^-1 y(x) - x``; :func:`from_network` undoes it.

    Beyond the field it is that of its border.

    Args:
        field: y, rigid part included.
        grid: upright, the network's.
        rigid: A, 4x4.
    """
    vectors = torch.from_numpy(field.vectors_mm).movedim(-1, 0)
    inverse = np.linalg.inv(rigid)
    linear = torch.as_tensor(inverse[:3, :3].T, dtype=torch.float32)
    turned = torch.as_tensor((inverse - np.eye(4)) @ field.grid.affine, dtype=torch.float32)
    last = torch.tensor(field.grid.size, dtype=torch.float32) - 1
    result = np.empty((3, *grid.shape), dtype=np.float32)
    for z in range(0, grid.shape[0], SLAB):
        slab = slice(z, z + SLAB)
        index = index_points(grid, field.grid.inverse_affine @ grid.affine, slab)
        index = torch.minimum(index.clamp_min(0), last)
        moved = sample(vectors, index, Grid(field.grid.shape)).movedim(0, -1) @ linear
        moved += index @ turned[:3, :3].T + turned[:3, 3]
        result[:, slab] = moved.movedim(-1, 0).numpy()
    return result


def from_network(u: torch.Tensor, grid: Grid, rigid: FloatArray, whole: Grid) -> DisplacementField:
    """``y(x) = A (x + u(x))`` on voxels of the network's size over the whole reference.

    Args:
        u: ``[3, z, y, x]`` in mm on ``grid``; its border is repeated beyond.
        grid: upright.
        rigid: A, 4x4.
        whole: the reference's own grid.
    """
    target = whole.with_spacing((max(min(grid.spacing_mm), FINEST_MM),) * 3)
    linear = torch.as_tensor(rigid[:3, :3].T, dtype=torch.float32)
    result = np.empty((*target.shape, 3), dtype=np.float32)
    for z in range(0, target.shape[0], SLAB):
        slab = slice(z, z + SLAB)
        moved = sample(u, index_points(target, target.affine, slab), grid).movedim(0, -1) @ linear
        moved += index_points(target, (rigid - np.eye(4)) @ target.affine, slab)
        result[slab] = moved.numpy()
    return DisplacementField(result, target)
