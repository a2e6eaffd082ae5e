"""Warping, NGF and mask distance with their closed-form gradient, compiled by Numba for the CPU.

One evaluation reads both images once, works only on the voxels near the lungs, and builds no autograd graph. The same
formulas in plain torch are in :class:`~ChangeMapJointLib.registration.deformable.closed_form.ClosedFormData`; the tests
compare both with autograd.

For every voxel i with weight w_i, and every edge e between two neighbours (differences dR_e, dT_e per
mm, shared by both ends; see :func:`~ChangeMapJointLib.registration.deformable.similarity.edges_to_voxels`):

    s = 1/2 sum_e dR_e dT_e + eR eT,   N_R = 1/2 sum_e dR_e^2 + eR^2,   N_T = 1/2 sum_e dT_e^2 + eT^2
    D = sum_i w_i (1 - s^2 / (N_R N_T))
    A = dD/ds = -2 w s / (N_R N_T),    B = dD/dN_T = w s^2 / (N_R N_T^2)
    dD/d(dT_e) = sum over both ends of 1/2 (A dR_e + 2 B dT_e)

Arrays are float32 ``[z, y, x]``. Sums are taken in float64 slice by slice, so that the result does not depend on the
number of threads. ``first`` and ``last`` (``[z, y]``) bound each row: only the voxels between them are touched. Every
kernel works on the slices from ``begin`` to ``end`` (exclusive) and releases the interpreter's lock; threads share the
slices, since Numba's own parallel loops take three times as long to compile.
"""

from __future__ import annotations

import numpy as np
from numba import njit

STEPS = np.array([(-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1)])
OPTIONS = {"cache": True, "fastmath": {"contract", "nsz", "arcp"}, "nogil": True}


@njit(**OPTIONS)
def warp_rows(
    coefficients, bz, by, bx, kz, ky, kx, affine, linear, image, mask, reference_mask, weight, mask_scale,
    first, last, warped, slope, mask_pull, mask_value, begin, end,
):  # fmt: skip
    """Warp T, and compute its gradient and the mask term with its gradient, for the voxels of every row.

    Args:
        coefficients: ``[cz, cy, cx, 3]`` mm.
        bz: ``[z, 4]`` values of the four splines that reach each slice.
        by: the same along y.
        bx: the same along x.
        kz: ``[z]`` index of the first of those splines.
        ky: the same along y.
        kx: the same along x.
        affine: ``[3, 4]`` from R's index to T's index (rigid part).
        linear: ``[3, 3]`` from mm to T's index.
        image: T.
        mask: M_T.
        reference_mask: M_R.
        weight: weight of every voxel, already divided by the sum of all.
        mask_scale: weight of the mask term.
        first: first voxel of each row, ``[z, y]``.
        last: one past the last voxel of each row.
        warped: output, T(y).
        slope: output, ``[z, y, x, 3]``: derivative of T(y) by T's index.
        mask_pull: output, ``[z, y, x, 3]``: derivative of the scaled mask term by T's index.
        mask_value: output, ``[z]``: the mask term of every slice, not scaled.
        begin: first slice.
        end: one past the last slice.
    """
    ny = first.shape[1]
    tz, ty, tx = image.shape
    columns = coefficients.shape[2]
    for z in range(begin, end):
        row = np.empty((columns, 3), dtype=np.float32)
        total = 0.0
        for y in range(ny):
            if first[z, y] >= last[z, y]:
                continue
            row[:] = 0.0
            for a in range(4):
                for b in range(4):
                    value = bz[z, a] * by[y, b]
                    source = coefficients[kz[z] + a, ky[y] + b]
                    for c in range(kx[first[z, y]], kx[last[z, y] - 1] + 4):
                        row[c, 0] += value * source[c, 0]
                        row[c, 1] += value * source[c, 1]
                        row[c, 2] += value * source[c, 2]
            for x in range(first[z, y], last[z, y]):
                u0 = u1 = u2 = np.float32(0.0)
                for a in range(4):
                    value = bx[x, a]
                    c = kx[x] + a
                    u0 += value * row[c, 0]
                    u1 += value * row[c, 1]
                    u2 += value * row[c, 2]
                px = affine[0, 0] * x + affine[0, 1] * y + affine[0, 2] * z + affine[0, 3]
                py = affine[1, 0] * x + affine[1, 1] * y + affine[1, 2] * z + affine[1, 3]
                pz = affine[2, 0] * x + affine[2, 1] * y + affine[2, 2] * z + affine[2, 3]
                px += linear[0, 0] * u0 + linear[0, 1] * u1 + linear[0, 2] * u2
                py += linear[1, 0] * u0 + linear[1, 1] * u1 + linear[1, 2] * u2
                pz += linear[2, 0] * u0 + linear[2, 1] * u1 + linear[2, 2] * u2
                # outside the image its border value is repeated, with slope 0
                gx = np.float32(1.0 if 0.0 < px < tx - 1 else 0.0)
                gy = np.float32(1.0 if 0.0 < py < ty - 1 else 0.0)
                gz = np.float32(1.0 if 0.0 < pz < tz - 1 else 0.0)
                px, py, pz = min(max(px, 0.0), tx - 1.0), min(max(py, 0.0), ty - 1.0), min(max(pz, 0.0), tz - 1.0)
                i, j, k = int(px), int(py), int(pz)
                fx, fy, fz = np.float32(px - i), np.float32(py - j), np.float32(pz - k)
                i1, j1, k1 = min(i + 1, tx - 1), min(j + 1, ty - 1), min(k + 1, tz - 1)
                v, dx, dy, dz = _trilinear(image, i, j, k, i1, j1, k1, fx, fy, fz)
                warped[z, y, x] = v
                slope[z, y, x, 0], slope[z, y, x, 1], slope[z, y, x, 2] = gx * dx, gy * dy, gz * dz
                w = weight[z, y, x]
                if w > 0.0:
                    m, dx, dy, dz = _trilinear(mask, i, j, k, i1, j1, k1, fx, fy, fz)
                    apart = m - reference_mask[z, y, x]
                    total += 0.5 * w * apart * apart
                    pull = mask_scale * w * apart
                    mask_pull[z, y, x, 0] = pull * gx * dx
                    mask_pull[z, y, x, 1] = pull * gy * dy
                    mask_pull[z, y, x, 2] = pull * gz * dz
        mask_value[z] = total


@njit(cache=True, inline="always")
def _trilinear(volume, i, j, k, i1, j1, k1, fx, fy, fz):
    """Trilinear value of ``volume`` between eight voxels, and its derivative by index."""
    v000, v001 = volume[k, j, i], volume[k, j, i1]
    v010, v011 = volume[k, j1, i], volume[k, j1, i1]
    v100, v101 = volume[k1, j, i], volume[k1, j, i1]
    v110, v111 = volume[k1, j1, i], volume[k1, j1, i1]
    d00, d01, d10, d11 = v001 - v000, v011 - v010, v101 - v100, v111 - v110
    v00, v01, v10, v11 = v000 + fx * d00, v010 + fx * d01, v100 + fx * d10, v110 + fx * d11
    v0, v1 = v00 + fy * (v01 - v00), v10 + fy * (v11 - v10)
    d0, d1 = d00 + fy * (d01 - d00), d10 + fy * (d11 - d10)
    e0, e1 = v01 - v00, v11 - v10
    return v0 + fz * (v1 - v0), d0 + fz * (d1 - d0), e0 + fz * (e1 - e0), v1 - v0


@njit(**OPTIONS)
def reference_norms(reference, inverse_spacing, edge_square, norm, begin, end):
    """Compute ``norm`` = N_R, once per level."""
    nz, ny, nx = reference.shape
    hx, hy, hz = inverse_spacing
    for z in range(begin, end):
        for y in range(ny):
            for x in range(nx):
                total = np.float32(0.0)
                here = reference[z, y, x]
                if x > 0:
                    total += ((here - reference[z, y, x - 1]) * hx) ** 2
                if x < nx - 1:
                    total += ((reference[z, y, x + 1] - here) * hx) ** 2
                if y > 0:
                    total += ((here - reference[z, y - 1, x]) * hy) ** 2
                if y < ny - 1:
                    total += ((reference[z, y + 1, x] - here) * hy) ** 2
                if z > 0:
                    total += ((here - reference[z - 1, y, x]) * hz) ** 2
                if z < nz - 1:
                    total += ((reference[z + 1, y, x] - here) * hz) ** 2
                norm[z, y, x] = np.float32(0.5) * total + edge_square


@njit(**OPTIONS)
def ngf_rows(
    reference, warped, norm, weight, inverse_spacing, edge_product, edge_square, first, last, factors, value,
    begin, end,
):  # fmt: skip
    """Compute the NGF distance, and A and B of every voxel.

    Args:
        reference: R.
        warped: T(y), valid on the rows and their neighbours.
        norm: N_R.
        weight: w, already divided by the sum of all; 0 outside the rows.
        inverse_spacing: 1/h along (x, y, z).
        edge_product: eR eT.
        edge_square: eT^2.
        first: first voxel of each row, ``[z, y]``.
        last: one past the last voxel of each row.
        factors: output, ``[z, y, x, 2]``: A and B.
        value: output, ``[z]``: the distance of every slice.
        begin: first slice.
        end: one past the last slice.
    """
    nz, ny, nx = reference.shape
    h = (inverse_spacing[0] ** 2, inverse_spacing[1] ** 2, inverse_spacing[2] ** 2)
    half = np.float32(0.5)
    for z in range(begin, end):
        total = 0.0
        for y in range(ny):
            for x in range(first[z, y], last[z, y]):
                w = weight[z, y, x]
                if w == 0.0:
                    factors[z, y, x, 0] = factors[z, y, x, 1] = 0.0
                    continue
                r, t = reference[z, y, x], warped[z, y, x]
                s = n = np.float32(0.0)
                if x > 0:
                    d = t - warped[z, y, x - 1]
                    s += (r - reference[z, y, x - 1]) * d * h[0]
                    n += d * d * h[0]
                if x < nx - 1:
                    d = warped[z, y, x + 1] - t
                    s += (reference[z, y, x + 1] - r) * d * h[0]
                    n += d * d * h[0]
                if y > 0:
                    d = t - warped[z, y - 1, x]
                    s += (r - reference[z, y - 1, x]) * d * h[1]
                    n += d * d * h[1]
                if y < ny - 1:
                    d = warped[z, y + 1, x] - t
                    s += (reference[z, y + 1, x] - r) * d * h[1]
                    n += d * d * h[1]
                if z > 0:
                    d = t - warped[z - 1, y, x]
                    s += (r - reference[z - 1, y, x]) * d * h[2]
                    n += d * d * h[2]
                if z < nz - 1:
                    d = warped[z + 1, y, x] - t
                    s += (reference[z + 1, y, x] - r) * d * h[2]
                    n += d * d * h[2]
                s = half * s + edge_product
                n = half * n + edge_square
                ratio = s / (norm[z, y, x] * n)
                total += w * (1.0 - s * ratio)
                factors[z, y, x, 0] = np.float32(-2.0) * w * ratio
                factors[z, y, x, 1] = w * s * ratio / n
        value[z] = total


@njit(**OPTIONS)
def gradient_rows(
    reference, warped, factors, slope, mask_pull, inverse_spacing, linear, scale, bx, kx, first, last, rows, begin, end
):  # fmt: skip
    """Compute the gradient of the data terms by the coefficients along x, for every row.

    Args:
        reference: R.
        warped: T(y).
        factors: A and B of every voxel, 0 where its weight is 0.
        slope: derivative of T(y) by T's index.
        mask_pull: derivative of the mask term by T's index.
        inverse_spacing: 1/h along (x, y, z).
        linear: ``[3, 3]`` from mm to T's index.
        scale: weight of the NGF term.
        bx: ``[x, 4]`` values of the four splines that reach each voxel.
        kx: ``[x]`` index of the first of those splines.
        first: first voxel of each row, ``[z, y]``.
        last: one past the last voxel of each row.
        rows: output, ``[z, y, cx, 3]``.
        begin: first slice.
        end: one past the last slice.
    """
    nz, ny, nx = reference.shape
    h = (inverse_spacing[0] ** 2, inverse_spacing[1] ** 2, inverse_spacing[2] ** 2)
    half = np.float32(0.5) * np.float32(scale)
    two = np.float32(2.0)
    for z in range(begin, end):
        for y in range(ny):
            rows[z, y] = 0.0
            for x in range(first[z, y], last[z, y]):
                r, t = reference[z, y, x], warped[z, y, x]
                a, b = factors[z, y, x, 0], factors[z, y, x, 1]
                g = np.float32(0.0)
                for side in range(6):
                    i, j, k = x + STEPS[side, 0], y + STEPS[side, 1], np.int64(z) + STEPS[side, 2]
                    if i < 0 or j < 0 or k < 0 or i >= nx or j >= ny or k >= nz:
                        continue
                    # this voxel minus its neighbour, on either side: the signs of both differences cancel
                    a2, b2 = a + factors[k, j, i, 0], b + factors[k, j, i, 1]
                    g += h[side // 2] * (a2 * (r - reference[k, j, i]) + two * b2 * (t - warped[k, j, i]))
                g *= half
                q0 = g * slope[z, y, x, 0] + mask_pull[z, y, x, 0]
                q1 = g * slope[z, y, x, 1] + mask_pull[z, y, x, 1]
                q2 = g * slope[z, y, x, 2] + mask_pull[z, y, x, 2]
                p0 = np.float32(linear[0, 0] * q0 + linear[1, 0] * q1 + linear[2, 0] * q2)
                p1 = np.float32(linear[0, 1] * q0 + linear[1, 1] * q1 + linear[2, 1] * q2)
                p2 = np.float32(linear[0, 2] * q0 + linear[1, 2] * q1 + linear[2, 2] * q2)
                for c in range(4):
                    value = bx[x, c]
                    rows[z, y, kx[x] + c, 0] += value * p0
                    rows[z, y, kx[x] + c, 1] += value * p1
                    rows[z, y, kx[x] + c, 2] += value * p2


@njit(**OPTIONS)
def gather_planes(rows, by, ky, planes, begin, end):
    """Sum rows ``[z, y, cx, 3]`` into ``planes`` ``[z, cy, cx, 3]`` with the splines along y."""
    _, ny, columns, _ = rows.shape
    for z in range(begin, end):
        planes[z] = 0.0
        for y in range(ny):
            for b in range(4):
                value = by[y, b]
                target = planes[z, ky[y] + b]
                for c in range(columns):
                    target[c, 0] += value * rows[z, y, c, 0]
                    target[c, 1] += value * rows[z, y, c, 1]
                    target[c, 2] += value * rows[z, y, c, 2]


@njit(**OPTIONS)
def gather_volume(planes, bz, kz, gradient, begin, end):
    """Sum planes ``[z, cy, cx, 3]`` into ``gradient`` ``[cz, cy, cx, 3]`` with the splines along z.

    ``begin`` and ``end`` count cy.
    """
    nz, _, cx, _ = planes.shape
    for j in range(begin, end):
        gradient[:, j] = 0.0
        for z in range(nz):
            for a in range(4):
                value = bz[z, a]
                for c in range(cx):
                    gradient[kz[z] + a, j, c, 0] += value * planes[z, j, c, 0]
                    gradient[kz[z] + a, j, c, 1] += value * planes[z, j, c, 1]
                    gradient[kz[z] + a, j, c, 2] += value * planes[z, j, c, 2]


@njit(cache=True, nogil=True)
def distance_at(distance, spacing, index, value, slope):
    """Interpolate a volume of distances trilinearly, and its gradient along the grid's axes, at points inside it.

    Args:
        distance: ``[z, y, x]`` in mm.
        spacing: mm along (x, y, z).
        index: positions, float64 ``[n, 3]`` (x, y, z).
        value: output, ``[n]``; left as it is outside the grid.
        slope: output, ``[n, 3]``; left as it is outside the grid.
    """
    nz, ny, nx = distance.shape
    low, up, t = np.zeros(3, np.int64), np.zeros(3, np.int64), np.zeros(3)
    last = np.array((nx - 1, ny - 1, nz - 1))
    for n in range(index.shape[0]):
        inside = True
        for axis in range(3):
            at = index[n, axis]
            if not (at >= 0 and at <= last[axis]):
                inside = False
                break
            low[axis] = min(int(np.floor(at)), max(last[axis] - 1, 0))
            up[axis] = min(low[axis] + 1, last[axis])
            t[axis] = min(max(at - low[axis], 0.0), 1.0)
        if not inside:
            continue
        total, dx, dy, dz = 0.0, 0.0, 0.0, 0.0
        for c in range(2):
            k, wz, sz = (up[2], t[2], 1.0) if c else (low[2], 1 - t[2], -1.0)
            for b in range(2):
                j, wy, sy = (up[1], t[1], 1.0) if b else (low[1], 1 - t[1], -1.0)
                for a in range(2):
                    i, wx, sx = (up[0], t[0], 1.0) if a else (low[0], 1 - t[0], -1.0)
                    d = float(distance[k, j, i])
                    total += d * wx * wy * wz
                    dx += sx * d * wy * wz
                    dy += sy * d * wx * wz
                    dz += sz * d * wx * wy
        value[n] = total
        slope[n, 0], slope[n, 1], slope[n, 2] = dx / spacing[0], dy / spacing[1], dz / spacing[2]
