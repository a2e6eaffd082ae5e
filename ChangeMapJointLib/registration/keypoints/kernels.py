"""Cost volumes and min-convolutions of the keypoint matching, compiled by Numba for the CPU.

:mod:`ChangeMapJointLib.registration.keypoints.match` holds the same in NumPy; the tests compare both.
Every kernel works on a part, from ``begin`` to ``end`` (exclusive), and releases the interpreter's lock.
"""

from __future__ import annotations

import numpy as np
from numba import njit

OPTIONS = {"cache": True, "fastmath": {"contract", "nsz", "arcp"}, "nogil": True}


@njit(**OPTIONS)
def ngf_costs(fixed, moving, allowed, fixed_vox, moving_vox, patch, steps, costs, begin, end):
    """Compute the mean NGF distance between a patch of the fixed and of the moving scan, for every displacement.

    Args:
        fixed: unit vectors ``[z, y, x, 4]``.
        moving: the same of the other scan, on the same grid.
        allowed: bool ``[z, y, x]``: where a match may lie.
        fixed_vox: keypoints, int ``[n, 3]`` (z, y, x).
        moving_vox: where their search starts, int ``[n, 3]`` (z, y, x).
        patch: offsets of the patch's voxels, int ``[p, 3]``.
        steps: displacements along one axis, in voxels, one apart, ascending.
        costs: output, float32 ``[n, s, s, s]``; 1 where no match may lie.
        begin: first keypoint.
        end: one past the last keypoint.
    """
    side, voxels = steps.shape[0], patch.shape[0]
    nz, ny, nx, _ = moving.shape
    low = np.array([steps[0] + patch[:, axis].min() for axis in range(3)])
    width = np.array([steps[-1] + patch[:, axis].max() - low[axis] + 1 for axis in range(3)])
    for n in range(begin, end):
        # the channels of all that the search can reach, so that the innermost loop runs over neighbours
        around = np.empty((4, width[0], width[1], width[2]), np.float32)
        _copy_around(moving, moving_vox[n] + low, around)
        here = np.empty((voxels, 4), np.float32)
        for p in range(voxels):
            k = min(max(fixed_vox[n, 0] + patch[p, 0], 0), nz - 1)
            j = min(max(fixed_vox[n, 1] + patch[p, 1], 0), ny - 1)
            i = min(max(fixed_vox[n, 2] + patch[p, 2], 0), nx - 1)
            for c in range(4):
                here[p, c] = fixed[k, j, i, c]
        total = np.empty(side, np.float32)
        usable = np.empty(side, np.bool_)
        for a in range(side):
            z = moving_vox[n, 0] + steps[a]
            for b in range(side):
                y = moving_vox[n, 1] + steps[b]
                for d in range(side):
                    x = moving_vox[n, 2] + steps[d]
                    usable[d] = 0 <= z < nz and 0 <= y < ny and 0 <= x < nx and allowed[z, y, x]
                if not usable.any():
                    costs[n, a, b] = 1.0
                    continue
                total[:] = 0.0
                for p in range(voxels):
                    k, j = steps[a] + patch[p, 0] - low[0], steps[b] + patch[p, 1] - low[1]
                    i = steps[0] + patch[p, 2] - low[2]
                    v0, v1, v2, v3 = here[p, 0], here[p, 1], here[p, 2], here[p, 3]
                    r0, r1 = around[0, k, j, i : i + side], around[1, k, j, i : i + side]
                    r2, r3 = around[2, k, j, i : i + side], around[3, k, j, i : i + side]
                    for d in range(side):
                        dot = v0 * r0[d] + v1 * r1[d] + v2 * r2[d] + v3 * r3[d]
                        total[d] += dot * dot
                for d in range(side):
                    costs[n, a, b, d] = 1.0 - total[d] / voxels if usable[d] else 1.0


@njit(**OPTIONS)
def _copy_around(vectors, corner, around):
    """Fill ``around`` (``[4, z, y, x]``) with the vectors from ``corner`` (z, y, x) on, the border repeated."""
    nz, ny, nx, _ = vectors.shape
    for a in range(around.shape[1]):
        k = min(max(corner[0] + a, 0), nz - 1)
        for b in range(around.shape[2]):
            j = min(max(corner[1] + b, 0), ny - 1)
            for d in range(around.shape[3]):
                i = min(max(corner[2] + d, 0), nx - 1)
                for c in range(4):
                    around[c, a, b, d] = vectors[k, j, i, c]


@njit(**OPTIONS)
def min_convolve_compiled(costs, weights, shifts, spacing, result, begin, end):
    """Compute ``result[n, d] = min over e of costs[n, e] + w_n |spacing (e - d) + shift_n|^2``, axis by axis.

    Args:
        costs: float32 ``[n, s, s, s]``.
        weights: float32 ``[n]``, >= 0, per mm^2.
        shifts: float32 ``[n, 3]`` in mm, (z, y, x).
        spacing: mm between neighbouring displacements, float32 ``[3]`` (z, y, x).
        result: output, of the shape of ``costs``; must be another array.
        begin: first volume.
        end: one past the last volume.
    """
    side = costs.shape[1]
    for n in range(begin, end):
        penalty = np.empty((side, side), np.float32)
        line = np.empty(side, np.float32)
        result[n] = costs[n]
        for axis in range(3):
            for e in range(side):
                for d in range(side):
                    apart = spacing[axis] * (e - d) + shifts[n, axis]
                    penalty[d, e] = weights[n] * apart * apart
            for a in range(side):
                for b in range(side):
                    for e in range(side):
                        line[e] = (
                            result[n, e, a, b] if axis == 0 else result[n, a, e, b] if axis == 1 else result[n, a, b, e]
                        )
                    for d in range(side):
                        best = np.float32(np.inf)
                        for e in range(side):
                            value = line[e] + penalty[d, e]
                            best = min(best, value)
                        if axis == 0:
                            result[n, d, a, b] = best
                        elif axis == 1:
                            result[n, a, d, b] = best
                        else:
                            result[n, a, b, d] = best


@njit(**OPTIONS)
def unit_gradient_slices(values, spacing, edge, result, begin, end):
    """Fill ``result`` with ``(gradient, e) / sqrt(|gradient|^2 + e^2)``, the gradient by central differences.

    Args:
        values: HU, float32 ``[z, y, x]``.
        spacing: mm along (z, y, x), float32 ``[3]``.
        edge: e in HU/mm.
        result: output, float32 ``[z, y, x, 4]``.
        begin: first slice.
        end: one past the last slice.
    """
    nz, ny, nx = values.shape
    for z in range(begin, end):
        z0, z1 = max(z - 1, 0), min(z + 1, nz - 1)
        sz = np.float32(1.0) / (spacing[0] * max(z1 - z0, 1))
        for y in range(ny):
            y0, y1 = max(y - 1, 0), min(y + 1, ny - 1)
            sy = np.float32(1.0) / (spacing[1] * max(y1 - y0, 1))
            for x in range(nx):
                x0, x1 = max(x - 1, 0), min(x + 1, nx - 1)
                sx = np.float32(1.0) / (spacing[2] * max(x1 - x0, 1))
                a = (values[z1, y, x] - values[z0, y, x]) * sz
                b = (values[z, y1, x] - values[z, y0, x]) * sy
                c = (values[z, y, x1] - values[z, y, x0]) * sx
                length = np.float32(1.0) / np.sqrt(a * a + b * b + c * c + edge * edge)
                result[z, y, x, 0] = a * length
                result[z, y, x, 1] = b * length
                result[z, y, x, 2] = c * length
                result[z, y, x, 3] = edge * length
