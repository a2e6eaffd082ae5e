"""Morphology in millimetres and resampling between parallel grids, without torch.

Arrays are ``[z, y, x]``, with the same spacing along every axis unless three are given. A *level* is a signed distance
in mm to a surface, negative inside and valid only close to the surface. It places the surface between voxels, so that
a shape does not depend on the grid that it is drawn on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from ChangeMapJointLib.core.compiled import compiled_available
from ChangeMapJointLib.core.grid import Grid, bounding_box

Mask = NDArray[np.bool_]
SpacingZYX = float | tuple[float, float, float]  # mm along every axis, or along (z, y, x): Grid.spacing_mm reversed
Level = NDArray[np.float32]

_CHUNK = 64 * 1024  # voxels
_COUNTED = 1024 * 1024  # voxels at a time
_FAR = np.float32(1e8)  # mm^2, beyond any distance in a scan
IN_PLANE = np.stack([np.zeros((3, 3)), ndimage.generate_binary_structure(2, 1), np.zeros((3, 3))]).astype(bool)


def squared_distance(start: NDArray[np.float32], spacing_mm: SpacingZYX, reach_mm: float) -> NDArray[np.float32]:
    """Return ``min_y start(y) + |x - y|^2``, the lower envelope of paraboloids.

    With ``start`` 0 on a set and very large elsewhere, this is the squared Euclidean distance to the set, exact up to
    ``reach_mm`` (Felzenszwalb and Huttenlocher, doi:10.4086/toc.2012.v008a019; computed here by shifting the array,
    which is faster over the short distances of morphology).

    Args:
        start: mm^2, ``[z, y, x]``.
        spacing_mm: voxel spacing.
        reach_mm: the longest distance needed.

    Returns:
        mm^2, ``[z, y, x]``.
    """
    result = start.copy()
    _lower_envelope(result, spacing_mm, reach_mm)
    return result


def _lower_envelope(result: NDArray[np.float32], spacing_mm: SpacingZYX, reach_mm: float) -> None:
    """Turn ``start`` of :func:`squared_distance` into its result, in place: at full size, a copy counts."""
    for axis, h in enumerate(np.broadcast_to(spacing_mm, 3).tolist()):
        steps = min(int(reach_mm / h) + 1, result.shape[axis] - 1)
        rises = np.array([(step * h) ** 2 for step in range(1, steps + 1)], dtype=np.float32)
        if compiled_available() and result.flags.c_contiguous:
            from ChangeMapJointLib.core import envelope

            nz, ny, nx = result.shape
            if axis == 2:
                envelope.lower_envelope_rows(result.reshape(nz * ny, nx), rises)
            else:
                envelope.lower_envelope_lines(result.reshape((1, nz, ny * nx) if axis == 0 else result.shape), rises)
        else:
            _envelope_along(result, axis, rises)


def _envelope_along(result: NDArray[np.float32], axis: int, rises: NDArray[np.float32]) -> None:
    """One axis of :func:`_lower_envelope`, in NumPy; ``rises`` is what is added at a distance of 1, 2, ... voxels."""
    across = 1 if axis == 0 else 0
    count = max(_CHUNK * result.shape[across] // max(result.size, 1), 1)
    for first in range(0, result.shape[across], count):  # as much as fits into the CPU cache
        part = np.moveaxis(result, across, 0)[first : first + count]
        target = np.moveaxis(part, axis if axis else 1, 0)
        source = np.ascontiguousarray(target)
        lowest, shifted = source.copy(), np.empty_like(source)
        for step, rise in enumerate(rises, start=1):
            np.add(source, rise, out=shifted)
            np.minimum(lowest[step:], shifted[:-step], out=lowest[step:])
            np.minimum(lowest[:-step], shifted[step:], out=lowest[:-step])
        target[:] = lowest


def dilate(mask: Mask, radius_mm: float, spacing_mm: SpacingZYX) -> Mask:
    """Dilate ``mask`` by a ball: all voxels within ``radius_mm`` of it."""
    result = np.zeros(mask.shape, dtype=bool)
    box = _box_around(mask, [int(radius_mm / h) + 1 for h in np.broadcast_to(spacing_mm, 3).tolist()])
    if box is not None:
        result[box] = _dilated(mask[box], radius_mm, spacing_mm)
    return result


def _dilated(mask: Mask, radius_mm: float, spacing_mm: SpacingZYX) -> Mask:
    squared = np.full(mask.shape, _FAR)
    squared[mask] = 0
    _lower_envelope(squared, spacing_mm, radius_mm)
    return squared <= np.float32(radius_mm**2 + 1e-3)


def _box_around(mask: Mask, margin: list[int]) -> tuple[slice, ...] | None:
    """The box of ``mask`` with a margin of voxels along (z, y, x); None where it is empty."""
    if not mask.any():
        return None
    start, stop = bounding_box(mask, margin)
    return tuple(slice(a, b) for a, b in zip(start, stop, strict=True))


def erode(mask: Mask, radius_mm: float, spacing_mm: SpacingZYX) -> Mask:
    """Erode ``mask`` by a ball: keep voxels more than ``radius_mm`` from the background. The array's border is kept."""
    result = np.zeros(mask.shape, dtype=bool)
    box = _box_around(mask, [1, 1, 1])  # one voxel of background on every side is nearer than all beyond it
    if box is not None:
        result[box] = ~_dilated(~mask[box], radius_mm, spacing_mm)
    return result


def opening(mask: Mask, radius_mm: float, spacing_mm: SpacingZYX) -> Mask:
    """Open ``mask`` with a ball: the union of all balls of ``radius_mm`` that fit into it."""
    return dilate(erode(mask, radius_mm, spacing_mm), radius_mm, spacing_mm) & mask


def cube_opening(mask: Mask, edge_vox: int) -> Mask:
    """Open ``mask`` with a cube: the union of all cubes of ``edge_vox`` voxels that fit into it.

    Examples:
        >>> cube_opening(np.array([[[1, 1, 0, 1]], [[1, 1, 0, 0]]], bool), 1).astype(int).tolist()
        [[[1, 1, 0, 1]], [[1, 1, 0, 0]]]
    """
    corners = mask  # of the cubes that fit
    for axis in range(3):
        corners = _all_of_neighbours(corners, axis, edge_vox)
    result = np.zeros(mask.shape, dtype=bool)
    result[tuple(slice(n) for n in corners.shape)] = corners
    for axis in range(3):
        lines = np.moveaxis(result, axis, 0)
        grown = lines.copy()
        for step in range(1, edge_vox):
            grown[step:] |= lines[:-step]
        lines[:] = grown
    return result


def square_erosion(mask: Mask, radius_vox: int) -> Mask:
    """Erode ``mask`` in each axial slice by a square of ``2 radius_vox + 1`` voxels; the array's border is kept."""
    padded = np.pad(mask, ((0, 0), (radius_vox,) * 2, (radius_vox,) * 2), constant_values=True)
    for axis in (1, 2):
        padded = _all_of_neighbours(padded, axis, 2 * radius_vox + 1)
    return padded


def _all_of_neighbours(mask: Mask, axis: int, count: int) -> Mask:
    """Whether all of each run of ``count`` neighbours along an axis are set; ``count - 1`` shorter there."""
    lines = np.moveaxis(mask, axis, 0)
    length = max(len(lines) - count + 1, 0)
    result = lines[:length].copy()
    for step in range(1, count):
        result &= lines[step : step + length]
    return np.moveaxis(result, 0, axis)


def surface_level(values: NDArray[np.float32], threshold: float, spacing_mm: float) -> Level:
    """Return the signed distance in mm to the isosurface ``values = threshold``, negative below it.

    At voxels with a neighbour on the other side, the surface is interpolated linearly along each axis, which is exact
    for planes. Everywhere else the level is plus or minus one voxel.
    """
    height = values - np.float32(threshold)
    slope_squared = np.zeros_like(height)
    for axis in range(3):
        f, total = np.moveaxis(height, axis, 0), np.moveaxis(slope_squared, axis, 0)
        rise = np.where((f[1:] < 0) != (f[:-1] < 0), np.abs(f[1:] - f[:-1]) / np.float32(spacing_mm), np.float32(0))
        steepest = np.zeros_like(f)
        steepest[1:] = rise
        np.maximum(steepest[:-1], rise, out=steepest[:-1])
        total += steepest**2
    far = np.where(height < 0, np.float32(-spacing_mm), np.float32(spacing_mm))
    return np.where(slope_squared > 0, height / np.sqrt(np.maximum(slope_squared, np.float32(1e-12))), far)


def mask_level(mask: Mask, spacing_mm: float) -> Level:
    """Return the level of ``mask``, its surface smoothed by about one voxel."""
    blur_vox = 0.8
    share = ndimage.gaussian_filter(mask.astype(np.float32), blur_vox)
    # across a plane the share falls by 1 / (blur sqrt(2 pi)) per voxel
    per_share_mm = np.float32(blur_vox * np.sqrt(2 * np.pi) * spacing_mm)
    level: Level = np.clip((0.5 - share) * per_share_mm, -spacing_mm, spacing_mm)
    return level


def dilate_level(level: Level, radius_mm: float, spacing_mm: float) -> Level:
    """Return the level of the surface moved outwards by ``radius_mm``.

    A voxel y at signed distance f stands for the nearest surface point: x is reached when ``|x - y| + f <= r``, that
    is, ``|x - y|^2 + 2 r f - f^2 <= r^2``. Voxels deep inside count with f = 0: their level is not exact, and voxels
    at the surface reach farther.
    """
    f: Level = np.where(level > np.float32(-0.999 * spacing_mm), level, np.float32(0))
    f *= np.float32(2 * radius_mm) - f
    f[level > np.float32(0.75 * spacing_mm)] = _FAR
    _lower_envelope(f, spacing_mm, radius_mm + 2 * spacing_mm)
    np.sqrt(np.maximum(f, 0, out=f), out=f)
    f -= np.float32(radius_mm)
    return f


def close_level(level: Level, radius_mm: float, spacing_mm: float) -> Level:
    """Close a shape with a ball: everything that no ball of ``radius_mm`` outside the shape can reach is added.

    Beyond the array's border, the values at the border are repeated.
    """
    pad = int(radius_mm / spacing_mm) + 3
    grown = dilate_level(np.pad(level, pad, mode="edge"), radius_mm, spacing_mm)
    np.negative(grown, out=grown)
    closed = dilate_level(grown, radius_mm, spacing_mm)
    np.negative(closed, out=closed)
    return np.minimum(closed[pad:-pad, pad:-pad, pad:-pad], level)


def label_sizes(labels: NDArray[np.integer], minlength: int = 0) -> NDArray[np.intp]:
    """Count the voxels of each label, as ``np.bincount`` of a volume without its copy in 64 bits.

    Args:
        labels: not negative, any shape.
        minlength: length of the result at least.

    Examples:
        >>> label_sizes(np.array([[0, 2], [2, 0]], np.uint8)).tolist()
        [2, 0, 2]
    """
    sizes = np.zeros(max(minlength, int(labels.max(initial=0)) + 1), dtype=np.intp)
    step = max(_COUNTED * len(labels) // max(labels.size, 1), 1)
    for first in range(0, len(labels), step):
        sizes += np.bincount(labels[first : first + step].ravel(), minlength=len(sizes))
    return sizes


def largest_component(mask: Mask) -> Mask:
    """Return the largest face-connected component of ``mask``; all False where it is empty."""
    labels, _ = ndimage.label(mask)
    sizes = label_sizes(labels)
    sizes[0] = 0
    largest: Mask = (labels == sizes.argmax()) & mask
    return largest


def label_slices(mask: Mask) -> tuple[NDArray[np.int32], int]:
    """Label the edge-connected components of each axial slice.

    Returns:
        Labels ``[z, y, x]``, numbered through the volume, and their number.
    """
    labels, count = ndimage.label(mask, IN_PLANE)
    return labels.astype(np.int32, copy=False), int(count)


def fill_slices(mask: Mask) -> Mask:
    """Fill the holes of ``mask`` in each axial slice."""
    labels, count = label_slices(~mask)
    enclosed = np.ones(count + 1, dtype=bool)
    for edge in (labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]):
        enclosed[np.unique(edge)] = False
    enclosed[0] = True
    return enclosed[labels]


def _axis_weights(source: Grid, target: Grid, axis: int, lowpass: bool) -> sparse.csr_array:
    """Return interpolation weights ``[n_target, n_source]`` along one axis (0 = x): a triangle, the border repeated."""
    h = source.spacing_mm[axis]
    width = max(target.spacing_mm[axis] / h, 1.0) if lowpass else 1.0
    start = source.to_index(target.origin_mm)[axis]
    centre = start + np.arange(target.size[axis]) * target.spacing_mm[axis] / h
    n = source.size[axis]
    weights = np.maximum(1.0 - np.abs(np.clip(centre, 0, n - 1)[:, None] - np.arange(n)[None, :]) / width, 0.0)
    return sparse.csr_array((weights / weights.sum(axis=1, keepdims=True)).astype(np.float32))


def resample_parallel(
    array: NDArray[np.generic],
    source: Grid,
    target: Grid,
    *,
    lowpass: bool = True,
    clip: tuple[float, float] | None = None,
) -> NDArray[np.float32]:
    """Resample ``array`` linearly to a grid with the same axes; outside, the border is repeated.

    Args:
        array: ``[z, y, x]`` on ``source``; any real type.
        source: the grid of ``array``.
        target: a grid with the same direction.
        lowpass: where the target is coarser, average with a triangle two target voxels wide, to avoid aliasing.
        clip: (low, high); values are clipped to this range first.

    Returns:
        float32 ``[z, y, x]`` on ``target``.
    """
    x, y, z = (_axis_weights(source, target, axis, lowpass) for axis in range(3))
    return weighted_sums(array, (z, y, x), clip=clip)


def weighted_sums(
    array: NDArray[np.generic],
    weights: tuple[sparse.csr_array, sparse.csr_array, sparse.csr_array],
    *,
    clip: tuple[float, float] | None = None,
) -> NDArray[np.float32]:
    """Return weighted sums along z, y and x in turn; needs memory for a few slices beyond the result.

    Args:
        array: ``[z, y, x]``, any real type.
        weights: for z, y and x: float32 ``[n_target, n_source]`` each, without empty rows.
        clip: (low, high); values are clipped to this range first.

    Returns:
        float32 ``[z, y, x]`` with the shape of the targets.
    """
    along_z, along_y, along_x = weights
    result = np.empty((along_z.shape[0], along_y.shape[0], along_x.shape[0]), dtype=np.float32)
    shrinks = result[0].size < array[0].size
    kept: dict[int, NDArray[np.float32]] = {}  # source slices that the next target slice needs, too

    def plane(k: int) -> NDArray[np.float32]:
        """Return slice ``k`` of the source, at the target's pixels where those are fewer."""
        values: NDArray[np.float32] = array[k].astype(np.float32)
        if clip is not None:
            np.clip(values, *clip, out=values)
        if shrinks:
            values = (along_x @ (along_y @ values).T).T
        return values

    for z in range(len(result)):
        row = slice(along_z.indptr[z], along_z.indptr[z + 1])
        used = along_z.indices[row].tolist()
        kept = {k: kept[k] if k in kept else plane(k) for k in used}
        total = np.zeros(kept[used[0]].shape, dtype=np.float32)
        for k, weight in zip(used, along_z.data[row], strict=True):
            total += weight * kept[k]
        result[z] = total if shrinks else along_y @ (along_x @ total.T).T
    return result


def nearest_parallel(array: NDArray[Any], source: Grid, target: Grid) -> NDArray[Any]:
    """Resample ``array`` to a grid with the same axes by nearest neighbour; outside, the border is repeated.

    For masks and labels, and where noise does not matter.

    Args:
        array: ``[z, y, x]`` on ``source``.
        source: the grid of ``array``.
        target: a grid with the same direction.

    Returns:
        ``[z, y, x]`` on ``target``, in the type of ``array``.
    """
    first = source.to_index(target.origin_mm)
    steps = np.divide(target.spacing_mm, source.spacing_mm)
    z, y, x = (
        np.clip(np.rint(first[a] + np.arange(target.size[a]) * steps[a]).astype(int), 0, source.size[a] - 1)
        for a in (2, 1, 0)
    )
    return array[np.ix_(z, y, x)]
