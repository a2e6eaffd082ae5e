"""Subtraction maps: the signed change in HU, the change map in [0, 1], and the matching of resolution before them.

``T(y)`` is the template warped onto the reference's grid. A voxel of ``T(y)`` that is not finite (for example from
``warp(..., outside=numpy.nan)``), or that ``valid`` excludes, lies outside the template's field of view. Nothing is
known there, and both maps are 0.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, special

from ChangeMapJointLib.change.method_table import RIM_MM
from ChangeMapJointLib.core.blur import missing_sigma_mm
from ChangeMapJointLib.core.filters import opening
from ChangeMapJointLib.core.grid import FloatArray, Grid, Vector3, bounding_box
from ChangeMapJointLib.core.hu import CHANGE_WINDOW_HU, FULL_SCALE_HU

PART_MM = 2.0  # larger voxels are subdivided before a ball is fitted, so that their full thickness counts


def lungs_of_both(
    lungs_reference: NDArray[np.generic], lungs_warped: NDArray[np.generic], grid: Grid, *, rim_mm: float = RIM_MM
) -> NDArray[np.bool_]:
    """The region of a change map: R's lungs, and the parts of T(y)'s lungs beyond them that are thicker than a rim.

    At the border of the lungs, y has an error of one or a few voxels, most where the diaphragm moved far. There the
    warped lungs of T extend beyond R's by a thin rim, where R has soft tissue and T(y) has air. Most false positives of
    any subtraction lie in that rim. Lung that has since filled, by an effusion or a collapse, is thicker and is kept.

    Args:
        lungs_reference: M_R, not 0 in the lungs, ``[z, y, x]``.
        lungs_warped: M_T(y) on R's grid, likewise.
        grid: R's grid.
        rim_mm: beyond R's lungs, only parts that a ball of this radius fits into are kept, >= 0; 0 keeps all. A voxel
            larger than 2 mm is kept or removed as a whole.

    Returns:
        bool ``[z, y, x]``, a new array.

    Raises:
        ValueError: a mask does not have the grid's shape, or ``rim_mm`` is negative or not finite.
    """
    for name, mask in (("lungs_reference", lungs_reference), ("lungs_warped", lungs_warped)):
        if mask.shape != grid.shape:
            raise ValueError(f"lungs_of_both() '{name}' must have the grid's shape {grid.shape}, got {mask.shape}")
    if not 0 <= rim_mm < math.inf:
        raise ValueError(f"lungs_of_both() 'rim_mm' must be 0 or more, got {rim_mm}")
    reference_mask, warped_mask = lungs_reference != 0, lungs_warped != 0
    result: NDArray[np.bool_] = reference_mask | warped_mask
    beyond = warped_mask & ~reference_mask
    if rim_mm > 0 and beyond.any():
        start, stop = bounding_box(beyond, 1)
        box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        result[box] &= reference_mask[box] | _opened(beyond[box], rim_mm, grid.spacing_mm[::-1])
    return result


def _opened(mask: NDArray[np.bool_], radius_mm: float, spacing_zyx: Vector3) -> NDArray[np.bool_]:
    """Opening of ``mask`` by a ball; large voxels are subdivided, so that their full thickness counts."""
    parts = [math.ceil(h / PART_MM) for h in spacing_zyx]
    fine = mask
    for axis, count in enumerate(parts):
        fine = fine.repeat(count, axis) if count > 1 else fine
    z, y, x = (h / count for h, count in zip(spacing_zyx, parts, strict=True))
    opened = opening(fine, radius_mm, (z, y, x))
    for axis, count in enumerate(parts):
        if count > 1:
            opened = np.logical_or.reduceat(opened, np.arange(0, opened.shape[axis], count), axis)
    return opened


def signed_change(
    reference_hu: NDArray[np.generic],
    warped_template_hu: NDArray[np.generic],
    *,
    valid: NDArray[np.bool_] | None = None,
) -> NDArray[np.int16]:
    """``R - T(y)`` of the unclipped images: positive is denser now, negative is less dense now.

    It is neither clipped to the window of :func:`change_map` nor masked to the lungs, so that it also shows bone,
    calcifications and soft tissue. Its sign agrees with that of the clipped difference.

    Args:
        reference_hu: R in HU, ``[z, y, x]``.
        warped_template_hu: T(y) in HU on R's grid.
        valid: bool ``[z, y, x]``: where y(x) lies inside the template; everywhere by default.

    Returns:
        int16 ``[z, y, x]`` in HU, rounded and limited to the range of int16; 0 where nothing is known.
    """
    _check_shapes("signed_change", reference_hu, warped_template_hu=warped_template_hu, valid=valid)
    result = np.zeros(reference_hu.shape, dtype=np.int16)
    limits = np.iinfo(np.int16)
    for z in range(reference_hu.shape[0]):  # slice by slice, without temporary arrays of the whole volume
        difference = reference_hu[z].astype(np.float32)
        difference -= warped_template_hu[z].astype(np.float32)
        known = _known(difference, valid, z)
        difference[~known] = 0.0
        result[z] = np.clip(np.rint(difference, out=difference), limits.min, limits.max, out=difference)
    return result


def change_map(
    reference_hu: NDArray[np.generic],
    warped_template_hu: NDArray[np.generic],
    lungs: NDArray[np.generic],
    *,
    valid: NDArray[np.bool_] | None = None,
    window_hu: float = FULL_SCALE_HU,
    low_hu: float = CHANGE_WINDOW_HU[0],
    high_hu: float = CHANGE_WINDOW_HU[1],
) -> NDArray[np.float32]:
    """``CM = min(|clip(R) - clip(T(y))| / window, 1)`` inside the lungs, 0 outside.

    The window is fixed, so that maps of different pairs are comparable. In lung of -850 HU, a new solid nodule (40 HU)
    reaches 0.848, a part-solid one (-300 HU) 0.524, and ground glass (-600 HU) 0.238.

    Args:
        reference_hu: R in HU, ``[z, y, x]``.
        warped_template_hu: T(y) in HU on R's grid.
        lungs: not 0 where change is shown, on R's grid; see :func:`lungs_of_both`.
        valid: bool ``[z, y, x]``: where y(x) lies inside the template; everywhere by default.
        window_hu: difference in HU that is shown as 1, > 0.
        low_hu: lower limit to which both images are clipped first.
        high_hu: upper limit, > ``low_hu``.

    Returns:
        float32 ``[z, y, x]`` in [0, 1].
    """
    _check_shapes("change_map", reference_hu, warped_template_hu=warped_template_hu, lungs=lungs, valid=valid)
    if not (window_hu > 0 and high_hu > low_hu):
        arguments = f"window_hu={window_hu}, low_hu={low_hu}, high_hu={high_hu}"
        raise ValueError(f"change_map() needs window_hu > 0 and high_hu > low_hu, got {arguments}")
    result = np.zeros(reference_hu.shape, dtype=np.float32)
    for z in range(reference_hu.shape[0]):
        inside = lungs[z] != 0
        if not inside.any():
            continue
        difference = np.clip(reference_hu[z].astype(np.float32), low_hu, high_hu)
        difference -= np.clip(warped_template_hu[z].astype(np.float32), low_hu, high_hu)
        inside &= _known(difference, valid, z)
        np.abs(difference, out=difference)
        difference /= np.float32(window_hu)
        np.minimum(difference, 1.0, out=difference)
        np.copyto(result[z], difference, where=inside)
    return result


def _known(difference: NDArray[np.float32], valid: NDArray[np.bool_] | None, z: int) -> NDArray[np.bool_]:
    """Where slice ``z`` of the difference is known."""
    finite = np.isfinite(difference)
    return finite if valid is None else finite & valid[z]


def _check_shapes(function: str, reference: NDArray[np.generic], **others: NDArray[np.generic] | None) -> None:
    if reference.ndim != 3:
        raise ValueError(f"{function}() 'reference_hu' must be [z, y, x], got shape {reference.shape}")
    for name, array in others.items():
        if array is not None and array.shape != reference.shape:
            raise ValueError(
                f"{function}() '{name}' must have the reference's shape {reference.shape}, got {array.shape}"
            )


# -- resolution -----------------------------------------------------------------------
def match_voxel_blur(
    reference: NDArray[np.generic],
    reference_grid: Grid,
    template: NDArray[np.generic],
    template_grid: Grid,
    *,
    reference_unseen: NDArray[np.bool_] | None = None,
    template_unseen: NDArray[np.bool_] | None = None,
    tolerance: float = 0.2,
) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """Low-pass the finer scan to the resolution of the coarser one, axis by axis, before subtraction.

    Otherwise every fine vessel that only one scan resolves looks like change. Each axis of the finer scan is blurred by
    what its voxels lack (:func:`~ChangeMapJointLib.core.blur.missing_sigma_mm`). Both scans may be blurred, since one
    may be finer in plane and the other along the slices.

    Voxels that were not measured (padding, or filled in by a resampling) become NaN. Otherwise everything that the
    other scan shows there would look like change.

    Args:
        reference: R in HU, ``[z, y, x]``.
        reference_grid: R's grid.
        template: T in HU on its own grid, not warped.
        template_grid: T's grid.
        reference_unseen: bool ``[z, y, x]``: where R was not measured; None if it was measured everywhere.
        template_unseen: the same for T.
        tolerance: voxel sizes that differ by no more than this fraction count as equal.

    Returns:
        ``(R', T')``: float32 copies where something was filtered or set to NaN, otherwise the input arrays.
    """
    if reference.shape != reference_grid.shape or template.shape != template_grid.shape:
        shapes = f"{reference.shape} on {reference_grid.shape} and {template.shape} on {template_grid.shape}"
        raise ValueError(f"match_voxel_blur() needs arrays of their grids' shapes, got {shapes}")
    reference_sigma = missing_sigma_mm(reference_grid, template_grid, tolerance=tolerance)
    template_sigma = missing_sigma_mm(template_grid, reference_grid, tolerance=tolerance)
    return (
        _blur_and_mask(reference, reference_sigma, reference_grid, reference_unseen),
        _blur_and_mask(template, template_sigma, template_grid, template_unseen),
    )


def _blur_and_mask(
    array: NDArray[np.generic], sigma_mm: Vector3, grid: Grid, unseen: NDArray[np.bool_] | None
) -> NDArray[np.generic]:
    result = _blur(array, sigma_mm, grid)
    if unseen is None:
        return result
    if result is array:
        result = array.astype(np.float32)
    result[unseen] = np.nan
    return result


def _blur(array: NDArray[np.generic], sigma_mm: Vector3, grid: Grid) -> NDArray[np.generic]:
    if not any(sigma_mm):
        return array
    result = array.astype(np.float32)
    for axis in range(3):  # array axes x, y, z are dimensions 2, 1, 0
        sigma_vox = sigma_mm[axis] / grid.spacing_mm[axis]
        if sigma_vox > 0:
            weights = discrete_gaussian(sigma_vox)
            ndimage.correlate1d(result, weights, axis=2 - axis, output=result, mode="nearest")
    return result


def discrete_gaussian(sigma_vox: float) -> FloatArray:
    """Weights ``exp(-t) I_n(t)`` with ``t = sigma^2``: the discrete Gaussian, whose variance is exactly t.

    For the small widths that occur here, a sampled Gaussian is inaccurate: at 0.3 voxels its variance is more than ten
    times too small. After Lindeberg, IEEE PAMI 12(3):234, 1990.

    Args:
        sigma_vox: standard deviation in voxels, > 0.

    Returns:
        An odd number of weights that sum to 1.
    """
    radius = math.ceil(4.0 * sigma_vox) + 2
    weights: FloatArray = special.ive(np.abs(np.arange(-radius, radius + 1)), sigma_vox**2)
    kernel: FloatArray = weights / weights.sum()
    return kernel
