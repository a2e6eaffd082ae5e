# mypy: ignore-errors
"""Kernels of :class:`~ChangeMapJointLib.registration.deformable.closed_form.FusedData`, in Triton for a CUDA device.

Each lane handles one voxel of a sorted list, so that neighbours along x are neighbours in memory, and voxels far from
the lungs cost nothing. A lane writes only its own voxel: there are no atomics, and the same input gives the same bytes.
The formulas are those of :mod:`ChangeMapJointLib.registration.deformable.kernels`. There are three launches, because a
voxel needs its neighbours' warped values and factors. Values that are cheaper to recompute than to store (slopes of T,
norms of R) are recomputed.

``constants`` holds, in the precision of the images: the 12 numbers of the affine map from R's to T's index, 1/h^2 along
(x, y, z), eR eT, eR^2, eT^2, and the weights of NGF and of the mask term. Displacement and pull are ``[3, voxels of the
box]`` in T's index; (nx, ny, nz) and (tx, ty, tz) are the sizes of R and T.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _place(at, constants, displacement, count, on, nx, ny):
    """T's index (x, y, z) of the voxels ``at`` of R."""
    x, row = at % nx, at // nx
    y, z = row % ny, row // ny
    u0 = tl.load(displacement + at, mask=on, other=0.0)
    x, y, z = x.to(u0.dtype), y.to(u0.dtype), z.to(u0.dtype)
    u1 = tl.load(displacement + count + at, mask=on, other=0.0)
    u2 = tl.load(displacement + 2 * count + at, mask=on, other=0.0)
    k = constants
    px = u0 + tl.load(k) * x + tl.load(k + 1) * y + tl.load(k + 2) * z + tl.load(k + 3)
    py = u1 + tl.load(k + 4) * x + tl.load(k + 5) * y + tl.load(k + 6) * z + tl.load(k + 7)
    pz = u2 + tl.load(k + 8) * x + tl.load(k + 9) * y + tl.load(k + 10) * z + tl.load(k + 11)
    return px, py, pz


@triton.jit
def _cell(p, n):
    """Along one axis: the voxels before and after ``p``, the fraction between them, and 1 where ``p`` lies inside."""
    free = ((p > 0) & (p < n - 1)).to(p.dtype)
    p = tl.minimum(tl.maximum(p, 0.0), n - 1.0)  # also maps NaN to a valid address
    low = p.to(tl.int32)
    return low, tl.minimum(low + 1, n - 1), p - low.to(p.dtype), free


@triton.jit
def _trilinear(volume, i, i1, fx, j, j1, fy, k, k1, fz, on, tx, ty):
    """Trilinear value of ``volume`` between eight voxels, and its derivative by index."""
    r00, r01, r10, r11 = (k * ty + j) * tx, (k * ty + j1) * tx, (k1 * ty + j) * tx, (k1 * ty + j1) * tx
    v000 = tl.load(volume + r00 + i, mask=on, other=0.0)
    d00 = tl.load(volume + r00 + i1, mask=on, other=0.0) - v000
    v010 = tl.load(volume + r01 + i, mask=on, other=0.0)
    d01 = tl.load(volume + r01 + i1, mask=on, other=0.0) - v010
    v100 = tl.load(volume + r10 + i, mask=on, other=0.0)
    d10 = tl.load(volume + r10 + i1, mask=on, other=0.0) - v100
    v110 = tl.load(volume + r11 + i, mask=on, other=0.0)
    d11 = tl.load(volume + r11 + i1, mask=on, other=0.0) - v110
    v00, v01, v10, v11 = v000 + fx * d00, v010 + fx * d01, v100 + fx * d10, v110 + fx * d11
    v0, v1 = v00 + fy * (v01 - v00), v10 + fy * (v11 - v10)
    d0, d1 = d00 + fy * (d01 - d00), d10 + fy * (d11 - d10)
    e0, e1 = v01 - v00, v11 - v10
    return v0 + fz * (v1 - v0), d0 + fz * (d1 - d0), e0 + fz * (e1 - e0), v1 - v0


@triton.jit
def warp_voxels(
    voxels, listed, constants, displacement, image, warped, count, nx, ny, tx, ty, tz, block: tl.constexpr
):  # fmt: skip
    """Compute ``warped`` = T(y) at the listed voxels."""
    lane = tl.program_id(0) * block + tl.arange(0, block)
    on = lane < listed
    at = tl.load(voxels + lane, mask=on, other=0)
    px, py, pz = _place(at, constants, displacement, count, on, nx, ny)
    i, i1, fx, _ = _cell(px, tx)
    j, j1, fy, _ = _cell(py, ty)
    k, k1, fz, _ = _cell(pz, tz)
    value, _, _, _ = _trilinear(image, i, i1, fx, j, j1, fy, k, k1, fz, on, tx, ty)
    tl.store(warped + at, value, mask=on)


@triton.jit
def _side(reference, warped, at, r, t, step, there, h):
    """Contributions of one neighbour to twice s, N_R and N_T."""
    dr = tl.where(there, r - tl.load(reference + at + step, mask=there, other=0.0), 0.0)
    dt = tl.where(there, t - tl.load(warped + at + step, mask=there, other=0.0), 0.0)
    return h * dr * dt, h * dr * dr, h * dt * dt


@triton.jit
def ngf_voxels(
    voxels, listed, constants, reference, warped, matched, factors, partial, count, nx, ny, nz, block: tl.constexpr
):  # fmt: skip
    """Compute A and B of NGF (``factors``, ``[2, voxels]``) and its value, summed over every block."""
    lane = tl.program_id(0) * block + tl.arange(0, block)
    on = lane < listed
    at = tl.load(voxels + lane, mask=on, other=0)
    x, row = at % nx, at // nx
    y, z = row % ny, row // ny
    w = tl.load(matched + at, mask=on, other=0.0)
    some = on & (w > 0)
    r = tl.load(reference + at, mask=some, other=0.0)
    t = tl.load(warped + at, mask=some, other=0.0)
    hx, hy, hz = tl.load(constants + 12), tl.load(constants + 13), tl.load(constants + 14)
    s0, q0, n0 = _side(reference, warped, at, r, t, -1, some & (x > 0), hx)
    s1, q1, n1 = _side(reference, warped, at, r, t, 1, some & (x < nx - 1), hx)
    s2, q2, n2 = _side(reference, warped, at, r, t, -nx, some & (y > 0), hy)
    s3, q3, n3 = _side(reference, warped, at, r, t, nx, some & (y < ny - 1), hy)
    s4, q4, n4 = _side(reference, warped, at, r, t, -nx * ny, some & (z > 0), hz)
    s5, q5, n5 = _side(reference, warped, at, r, t, nx * ny, some & (z < nz - 1), hz)
    s = 0.5 * (s0 + s1 + s2 + s3 + s4 + s5) + tl.load(constants + 15)
    q = 0.5 * (q0 + q1 + q2 + q3 + q4 + q5) + tl.load(constants + 16)
    n = 0.5 * (n0 + n1 + n2 + n3 + n4 + n5) + tl.load(constants + 17)
    ratio = s / (q * n)
    tl.store(factors + at, -2.0 * w * ratio, mask=on)
    tl.store(factors + count + at, w * s * ratio / n, mask=on)
    tl.store(partial + tl.program_id(0), tl.sum(tl.where(some, w * (1.0 - s * ratio), 0.0), axis=0))


@triton.jit
def _edge(reference, warped, factors, count, at, r, t, a, b, step, there, h):
    """Part of dD/dT(y) of a voxel from the edge to one neighbour, without the factor 1/2."""
    near = at + step
    a2 = a + tl.load(factors + near, mask=there, other=0.0)
    b2 = b + tl.load(factors + count + near, mask=there, other=0.0)
    dr = r - tl.load(reference + near, mask=there, other=0.0)
    dt = t - tl.load(warped + near, mask=there, other=0.0)
    return tl.where(there, h * (a2 * dr + 2.0 * b2 * dt), 0.0)


@triton.jit
def pull_voxels(
    voxels, listed, constants, displacement, image, mask, reference, reference_mask, weight, warped, factors,
    pull, partial, count, nx, ny, nz, tx, ty, tz, block: tl.constexpr,
):  # fmt: skip
    """Compute ``pull``, the gradient of both weighted terms by T's index, and the mask term summed over every block."""
    lane = tl.program_id(0) * block + tl.arange(0, block)
    on = lane < listed
    at = tl.load(voxels + lane, mask=on, other=0)
    x, row = at % nx, at // nx
    y, z = row % ny, row // ny
    r = tl.load(reference + at, mask=on, other=0.0)
    t = tl.load(warped + at, mask=on, other=0.0)
    a = tl.load(factors + at, mask=on, other=0.0)
    b = tl.load(factors + count + at, mask=on, other=0.0)
    hx, hy, hz = tl.load(constants + 12), tl.load(constants + 13), tl.load(constants + 14)
    g = _edge(reference, warped, factors, count, at, r, t, a, b, -1, on & (x > 0), hx)
    g += _edge(reference, warped, factors, count, at, r, t, a, b, 1, on & (x < nx - 1), hx)
    g += _edge(reference, warped, factors, count, at, r, t, a, b, -nx, on & (y > 0), hy)
    g += _edge(reference, warped, factors, count, at, r, t, a, b, nx, on & (y < ny - 1), hy)
    g += _edge(reference, warped, factors, count, at, r, t, a, b, -nx * ny, on & (z > 0), hz)
    g += _edge(reference, warped, factors, count, at, r, t, a, b, nx * ny, on & (z < nz - 1), hz)
    g *= 0.5 * tl.load(constants + 18)
    px, py, pz = _place(at, constants, displacement, count, on, nx, ny)
    i, i1, fx, inx = _cell(px, tx)
    j, j1, fy, iny = _cell(py, ty)
    k, k1, fz, inz = _cell(pz, tz)
    _, dx, dy, dz = _trilinear(image, i, i1, fx, j, j1, fy, k, k1, fz, on, tx, ty)
    q0, q1, q2 = g * dx, g * dy, g * dz
    w = tl.load(weight + at, mask=on, other=0.0)
    some = on & (w > 0)
    m, dx, dy, dz = _trilinear(mask, i, i1, fx, j, j1, fy, k, k1, fz, some, tx, ty)
    apart = m - tl.load(reference_mask + at, mask=some, other=0.0)
    tl.store(partial + tl.program_id(0), tl.sum(0.5 * w * apart * apart, axis=0))
    push = tl.load(constants + 19) * w * apart
    q0, q1, q2 = q0 + push * dx, q1 + push * dy, q2 + push * dz
    tl.store(pull + at, inx * q0, mask=on)
    tl.store(pull + count + at, iny * q1, mask=on)
    tl.store(pull + 2 * count + at, inz * q2, mask=on)
