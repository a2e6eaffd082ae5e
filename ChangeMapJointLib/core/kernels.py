"""Trilinear sampling on lattices of points, and the Jacobian of a displacement, compiled by Numba for the CPU.

:mod:`~ChangeMapJointLib.core.resample` and :mod:`~ChangeMapJointLib.core.displacement` hold the same in torch; the
tests compare both. Every kernel works on the slices from ``first`` to ``last`` (exclusive) and releases the
interpreter's lock. Volumes are float32 ``[z, y, x]``; matrices are 3x4, float64, and map (x, y, z) index positions.
"""

from __future__ import annotations

import numpy as np
from numba import njit

OPTIONS = {"cache": True, "fastmath": {"contract", "nsz", "arcp"}, "nogil": True}
SLACK = 5e-7  # of the extent in voxels: rounding at the outer border


@njit(**OPTIONS)
def cell(position, count):
    """The lower of two neighbouring samples around ``position``, and the weight of the upper one; clamped."""
    if not position > 0.0:
        return 0, np.float32(0.0)
    if position >= count - 1:
        return max(count - 2, 0), np.float32(1.0 if count > 1 else 0.0)
    low = int(position)
    return low, np.float32(position - low)


@njit(**OPTIONS)
def mapped(matrix, x, y, z):
    """A 3x4 matrix applied to a position."""
    return (
        matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] * z + matrix[0, 3],
        matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] * z + matrix[1, 3],
        matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z + matrix[2, 3],
    )


@njit(**OPTIONS)
def value_at(volume, x, y, z):
    """The volume at one position; the border is repeated outside."""
    nz, ny, nx = volume.shape
    i, a = cell(x, nx)
    j, b = cell(y, ny)
    k, c = cell(z, nz)
    i1, j1, k1 = min(i + 1, nx - 1), min(j + 1, ny - 1), min(k + 1, nz - 1)
    one = np.float32(1.0)
    v00 = volume[k, j, i] * (one - a) + volume[k, j, i1] * a
    v01 = volume[k, j1, i] * (one - a) + volume[k, j1, i1] * a
    v10 = volume[k1, j, i] * (one - a) + volume[k1, j, i1] * a
    v11 = volume[k1, j1, i] * (one - a) + volume[k1, j1, i1] * a
    low, high = v00 * (one - b) + v01 * b, v10 * (one - b) + v11 * b
    return low * (one - c) + high * c


@njit(**OPTIONS)
def vector_at(vectors, x, y, z):
    """The three components of ``[z, y, x, 3]`` at one position; the border is repeated outside."""
    nz, ny, nx, _ = vectors.shape
    i, a = cell(x, nx)
    j, b = cell(y, ny)
    k, c = cell(z, nz)
    one = np.float32(1.0)
    ux, uy, uz = np.float32(0.0), np.float32(0.0), np.float32(0.0)
    for dk in range(2):
        wk = c if dk else one - c
        for dj in range(2):
            wj = wk * (b if dj else one - b)
            for di in range(2):
                weight = wj * (a if di else one - a)
                at = vectors[min(k + dk, nz - 1), min(j + dj, ny - 1), min(i + di, nx - 1)]
                ux += weight * at[0]
                uy += weight * at[1]
                uz += weight * at[2]
    return ux, uy, uz


@njit(**OPTIONS)
def is_inside(shape, x, y, z):
    """Whether a position lies in the box that the voxels fill, outer half voxels included."""
    nz, ny, nx = shape
    sx, sy, sz = 0.5 + SLACK * nx, 0.5 + SLACK * ny, 0.5 + SLACK * nz
    return -sx <= x <= nx - 1 + sx and -sy <= y <= ny - 1 + sy and -sz <= z <= nz - 1 + sz


@njit(**OPTIONS)
def affine_slices(volume, affine, outside, result, first, last):
    """Fill ``result`` with the volume at ``affine`` times its index; ``outside`` beyond the half-voxel border."""
    for z in range(first, last):
        for y in range(result.shape[1]):
            px = affine[0, 1] * y + affine[0, 2] * z + affine[0, 3]
            py = affine[1, 1] * y + affine[1, 2] * z + affine[1, 3]
            pz = affine[2, 1] * y + affine[2, 2] * z + affine[2, 3]
            for x in range(result.shape[2]):
                i, j, k = px + affine[0, 0] * x, py + affine[1, 0] * x, pz + affine[2, 0] * x
                result[z, y, x] = value_at(volume, i, j, k) if is_inside(volume.shape, i, j, k) else outside


@njit(**OPTIONS)
def warped_slices(volume, affine, linear, vectors, to_field, outside, result, first, last):
    """Fill ``result`` with the volume at ``affine`` times its index plus ``linear`` times the displacement.

    Args:
        volume: T.
        affine: from an index of the result to T's index.
        linear: ``[3, 3]`` from mm to T's index.
        vectors: the displacement in mm, ``[z, y, x, 3]`` on a grid of its own.
        to_field: from an index of the result to an index of that grid.
        outside: value beyond T's half-voxel border.
        result: output.
        first: first slice.
        last: one past the last slice.
    """
    for z in range(first, last):
        for y in range(result.shape[1]):
            for x in range(result.shape[2]):
                u, v, w = vector_at(vectors, *mapped(to_field, x, y, z))
                i, j, k = mapped(affine, x, y, z)
                i += linear[0, 0] * u + linear[0, 1] * v + linear[0, 2] * w
                j += linear[1, 0] * u + linear[1, 1] * v + linear[1, 2] * w
                k += linear[2, 0] * u + linear[2, 1] * v + linear[2, 2] * w
                result[z, y, x] = value_at(volume, i, j, k) if is_inside(volume.shape, i, j, k) else outside


@njit(**OPTIONS)
def vector_slices(vectors, affine, shift, result, first, last):
    """Fill ``result`` (``[z, y, x, 3]``) with ``vectors`` at ``affine`` times its index, plus ``shift`` times it."""
    for z in range(first, last):
        for y in range(result.shape[1]):
            for x in range(result.shape[2]):
                u, v, w = vector_at(vectors, *mapped(affine, x, y, z))
                sx, sy, sz = mapped(shift, x, y, z)
                result[z, y, x, 0] = u + sx
                result[z, y, x, 1] = v + sy
                result[z, y, x, 2] = w + sz


@njit(**OPTIONS)
def inverse_error_slices(vectors, affine, linear, backward, result, first, last):
    """Fill ``result`` with ``|u(x) + b(x + u(x))|`` in mm.

    Args:
        vectors: u in mm, ``[z, y, x, 3]`` on the grid of the result.
        affine: from an index of that grid to an index of the grid of ``backward``.
        linear: ``[3, 3]`` from mm to an index of the grid of ``backward``.
        backward: b in mm, ``[z, y, x, 3]``.
        result: output.
        first: first slice.
        last: one past the last slice.
    """
    for z in range(first, last):
        for y in range(result.shape[1]):
            for x in range(result.shape[2]):
                u, v, w = vectors[z, y, x, 0], vectors[z, y, x, 1], vectors[z, y, x, 2]
                i, j, k = mapped(affine, x, y, z)
                bx, by, bz = vector_at(
                    backward,
                    i + linear[0, 0] * u + linear[0, 1] * v + linear[0, 2] * w,
                    j + linear[1, 0] * u + linear[1, 1] * v + linear[1, 2] * w,
                    k + linear[2, 0] * u + linear[2, 1] * v + linear[2, 2] * w,
                )
                bx, by, bz = bx + u, by + v, bz + w
                result[z, y, x] = np.sqrt(bx * bx + by * by + bz * bz)


@njit(**OPTIONS)
def jacobian_slices(vectors, direction, spacing, result, first, last):
    """Fill ``result`` with det(I + grad u) by central differences, one-sided at the border.

    Args:
        vectors: u in mm, ``[z, y, x, 3]``.
        direction: ``[3, 3]`` float32; columns are the grid's axes in LPS.
        spacing: mm along (x, y, z), float32 ``[3]``.
        result: output.
        first: first slice.
        last: one past the last slice.
    """
    nz, ny, nx, _ = vectors.shape
    slope, turned = np.empty((3, 3), np.float32), np.empty((3, 3), np.float32)
    for z in range(first, last):
        z0, z1 = max(z - 1, 0), min(z + 1, nz - 1)
        sz = np.float32(1.0) / (spacing[2] * max(z1 - z0, 1))
        for y in range(ny):
            y0, y1 = max(y - 1, 0), min(y + 1, ny - 1)
            sy = np.float32(1.0) / (spacing[1] * max(y1 - y0, 1))
            for x in range(nx):
                x0, x1 = max(x - 1, 0), min(x + 1, nx - 1)
                sx = np.float32(1.0) / (spacing[0] * max(x1 - x0, 1))
                for c in range(3):
                    slope[0, c] = (vectors[z, y, x1, c] - vectors[z, y, x0, c]) * sx
                    slope[1, c] = (vectors[z, y1, x, c] - vectors[z, y0, x, c]) * sy
                    slope[2, c] = (vectors[z1, y, x, c] - vectors[z0, y, x, c]) * sz
                for lps in range(3):
                    for c in range(3):
                        turned[lps, c] = (
                            direction[lps, 0] * slope[0, c]
                            + direction[lps, 1] * slope[1, c]
                            + direction[lps, 2] * slope[2, c]
                        )
                    turned[lps, lps] += np.float32(1.0)
                a, b, c0 = turned[0, 0], turned[0, 1], turned[0, 2]
                d, e, f = turned[1, 0], turned[1, 1], turned[1, 2]
                g, h, i = turned[2, 0], turned[2, 1], turned[2, 2]
                result[z, y, x] = a * (e * i - f * h) - b * (d * i - f * g) + c0 * (d * h - e * g)
