"""Cost volumes and min-convolutions of the keypoint matching, compiled by Numba for the CPU.

:mod:`ChangeMapJointLib.registration.keypoints.match` holds the same in NumPy; the tests compare both.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

OPTIONS = {"parallel": True, "cache": True, "fastmath": {"contract", "nsz", "arcp"}, "nogil": True}


@njit(**OPTIONS)
def ngf_costs(fixed, moving, allowed, fixed_vox, moving_vox, patch, steps, costs):
    """Compute the mean NGF distance between a patch of the fixed and of the moving scan, for every displacement.

    Args:
        fixed: unit vectors ``[z, y, x, 4]``.
        moving: the same of the other scan, on the same grid.
        allowed: bool ``[z, y, x]``: where a match may lie.
        fixed_vox: keypoints, int ``[n, 3]`` (z, y, x).
        moving_vox: where their search starts, int ``[n, 3]`` (z, y, x).
        patch: offsets of the patch's voxels, int ``[p, 3]``.
        steps: displacements along one axis, in voxels, ascending.
        costs: output, float32 ``[n, s, s, s]``; 1 where no match may lie.
    """
    count, side = fixed_vox.shape[0], steps.shape[0]
    nz, ny, nx, _ = moving.shape
    for n in prange(count):
        here = np.empty((patch.shape[0], 4), np.float32)
        for p in range(patch.shape[0]):
            k = min(max(fixed_vox[n, 0] + patch[p, 0], 0), nz - 1)
            j = min(max(fixed_vox[n, 1] + patch[p, 1], 0), ny - 1)
            i = min(max(fixed_vox[n, 2] + patch[p, 2], 0), nx - 1)
            for c in range(4):
                here[p, c] = fixed[k, j, i, c]
        for a in range(side):
            z = moving_vox[n, 0] + steps[a]
            for b in range(side):
                y = moving_vox[n, 1] + steps[b]
                for d in range(side):
                    x = moving_vox[n, 2] + steps[d]
                    if z < 0 or y < 0 or x < 0 or z >= nz or y >= ny or x >= nx or not allowed[z, y, x]:
                        costs[n, a, b, d] = 1.0
                        continue
                    total = np.float32(0.0)
                    for p in range(patch.shape[0]):
                        k = min(max(z + patch[p, 0], 0), nz - 1)
                        j = min(max(y + patch[p, 1], 0), ny - 1)
                        i = min(max(x + patch[p, 2], 0), nx - 1)
                        there = moving[k, j, i]
                        dot = (
                            here[p, 0] * there[0]
                            + here[p, 1] * there[1]
                            + here[p, 2] * there[2]
                            + here[p, 3] * there[3]
                        )
                        total += dot * dot
                    costs[n, a, b, d] = 1.0 - total / patch.shape[0]


@njit(**OPTIONS)
def min_convolve_compiled(costs, weights, shifts, spacing, result):
    """Compute ``result[n, d] = min over e of costs[n, e] + w_n |spacing (e - d) + shift_n|^2``, axis by axis.

    Args:
        costs: float32 ``[n, s, s, s]``.
        weights: float32 ``[n]``, >= 0, per mm^2.
        shifts: float32 ``[n, 3]`` in mm, (z, y, x).
        spacing: mm between neighbouring displacements, float32 ``[3]`` (z, y, x).
        result: output, of the shape of ``costs``; must be another array.
    """
    count, side = costs.shape[0], costs.shape[1]
    for n in prange(count):
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


@njit(cache=True, nogil=True, fastmath={"contract", "nsz", "arcp"})
def unit_gradient_slices(values, spacing, edge, result, first, last):
    """Fill ``result`` with ``(gradient, e) / sqrt(|gradient|^2 + e^2)``, the gradient by central differences.

    Args:
        values: HU, float32 ``[z, y, x]``.
        spacing: mm along (z, y, x), float32 ``[3]``.
        edge: e in HU/mm.
        result: output, float32 ``[z, y, x, 4]``.
        first: first slice.
        last: one past the last slice.
    """
    nz, ny, nx = values.shape
    for z in range(first, last):
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
