"""From aerated lung to the whole lung: include nodules and masses at the pleura and the hilum."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.filters import (
    Level,
    Mask,
    close_level,
    cube_opening,
    dilate,
    erode,
    label_sizes,
    mask_level,
    opening,
    surface_level,
)
from ChangeMapJointLib.core.grid import bounding_box
from ChangeMapJointLib.core.hu import SOFT_TISSUE_HU

Hu = NDArray[np.float32]

BONE_OR_VESSEL_HU = 150.0  # denser is bone or enhanced vessel
# an indentation of the lung is a mass when, eroded by _CORE_MM, it leaves at least _LIKELY_ML of the part that the
# small closing left open, and _CORE_ML of the part that a ball of _HILUM_MM leaves open; hila and aorta leave less
_CORE_MM = 6.0
_LIKELY_ML = 2.0
_HILUM_MM = 12.0
_CORE_ML = 8.0
_DENT_VOX = 2  # dents of ribs are not as deep
_GAP_MM = 80.0  # longest mass along the spine with lung above and below
_SAG_VOX = 0.125  # added to the geometric sag in the mouth of a dent, since the edge of a nodule is blurred
_DENT_ML = 0.016  # smaller dents are vessels and noise
_ADDED_VOX = 6  # around an added mask: 1.5 voxels in which the level may change, and the reach of the smoothing there
_MOUTH_ML = 4.0  # larger dents are hila, or masses, which have a rule of their own


def aerated_level(hu: Hu, lung: Mask, other_air: Mask, air_hu: float, spacing_mm: float) -> Level:
    """The level set of an aerated lung, whose surface lies where the density crosses ``air_hu``.

    Args:
        hu: ``[z, y, x]``.
        lung: bool ``[z, y, x]``: voxels of this lung below ``air_hu``.
        other_air: bool ``[z, y, x]``: air that does not belong to it.
        air_hu: the threshold.
        spacing_mm: voxel size of ``hu``.

    Returns:
        float32 ``[z, y, x]``: about the distance to the surface in mm, negative inside.
    """
    level = surface_level(hu, air_hu, spacing_mm)
    near = dilate(lung, 1.8 * spacing_mm, spacing_mm) & ~other_air
    outside = np.where(near, np.maximum(level, 0.01), np.float32(spacing_mm))
    return np.where(lung, np.minimum(level, -0.01), outside).astype(np.float32)


def close_lung(
    level: Level, hu: Hu, behind_vox: int, *, on_right: bool, radius_mm: float, mass_mm: float, spacing_mm: float
) -> tuple[Level, Mask]:
    """Close one lung with a small ball everywhere, and with a large ball over nodules and masses.

    Args:
        level: level set of the aerated lung, ``[z, y, x]``.
        hu: the scan on the same grid.
        behind_vox: first row (y) behind the trachea, where heart and great vessels do not lie beside the lung.
        on_right: whether it is the right lung.
        radius_mm: radius of the small ball, which closes over vessels and small nodules.
        mass_mm: radius of the large ball. Parts that only it adds are kept if they are masses or, away from the
            mediastinum, deep dents.
        spacing_mm: voxel size of ``hu``.

    Returns:
        The level set of the closed lung including masses, and the masses that only the large ball added.
    """
    closed = close_level(level, radius_mm, spacing_mm)
    wider = close_level(level, mass_mm, spacing_mm)
    wide = (wider < 0) & (hu < BONE_OR_VESSEL_HU)
    column = _between_in_z(wide, _GAP_MM, spacing_mm)
    column[:, :behind_vox] = False
    hollow = close_level(mask_level(wide | column, spacing_mm), 15.0, spacing_mm) < 0
    mass = _thick_parts(hollow & (closed >= 0) & (hu < BONE_OR_VESSEL_HU), _LIKELY_ML, spacing_mm)
    if mass.any():  # rare: check that it is more than a hilum or the bulge of the aorta
        shallow = close_level(level, _HILUM_MM, spacing_mm) < 0
        mass = _thick_parts(hollow & ~shallow & (hu < BONE_OR_VESSEL_HU), _CORE_ML, spacing_mm)
    beside = (hu < BONE_OR_VESSEL_HU) & ~medial(closed < 0, on_right=on_right)
    closed = np.where(beside, np.minimum(closed, wider), closed)
    closed = fill_mouths(closed, level < 0, hu, radius_mm=radius_mm, spacing_mm=spacing_mm)
    return fill_holes(add_mask(closed, mass, spacing_mm), spacing_mm), mass


def rim_of_dents(level: Level, aerated: Mask, hu: Hu, spacing_mm: float) -> Mask:
    """One voxel of soft tissue around the dents that were closed, since nodules extend into the wall.

    Ribs dent the lung as well, but not deeply enough to count.

    Args:
        level: level set of the closed lung, ``[z, y, x]``.
        aerated: the lung before the closing.
        hu: the scan on the same grid.
        spacing_mm: voxel size of the arrays.
    """
    lung = level < 0
    deep = cube_opening(lung & ~aerated, _DENT_VOX)
    return dilate(deep, spacing_mm, spacing_mm) & ~lung & (hu > SOFT_TISSUE_HU) & (hu < BONE_OR_VESSEL_HU)


def fill_mouths(level: Level, aerated: Mask, hu: Hu, *, radius_mm: float, spacing_mm: float) -> Level:
    """Compensate for the sag of the closing's ball into the mouth of a small dent.

    A ball of radius r sags into a mouth of half width w by w^2 / 2r, which is a large part of a small nodule that lies
    half in the wall. The surface is moved outwards by the same distance, through soft tissue only; w is taken from half
    a ball of the dent's volume.

    Args:
        level: level set of the closed lung, ``[z, y, x]``.
        aerated: the lung before the closing.
        hu: the scan on the same grid.
        radius_mm: r.
        spacing_mm: voxel size of the arrays.
    """
    if radius_mm <= 0:
        return level
    filled = (level < 0) & ~aerated
    dents, count = ndimage.label(filled & (hu > SOFT_TISSUE_HU) & (hu < BONE_OR_VESSEL_HU))
    outside = ndimage.binary_dilation(level >= 0)
    sizes_ml = label_sizes(dents, minlength=count + 1) * spacing_mm**3 / 1000
    wanted = (sizes_ml >= _DENT_ML) & (sizes_ml <= _MOUTH_ML)
    at_wall = np.zeros(count + 1, dtype=bool)
    at_wall[dents[outside & (dents > 0)]] = True
    boxes = ndimage.find_objects(dents)
    result = level.copy()
    for number in np.flatnonzero(wanted & at_wall):
        if number == 0:
            continue
        box = tuple(slice(max(s.start - 3, 0), s.stop + 3) for s in boxes[number - 1])
        dent = dents[box] == number
        whole_mm3 = (ndimage.binary_dilation(dent) & filled[box]).sum() * spacing_mm**3
        half_width_mm = (1.5 * whole_mm3 / np.pi) ** (1 / 3)
        sag_mm = min(half_width_mm**2 / (2 * radius_mm) + _SAG_VOX * spacing_mm, spacing_mm)
        mouth = ndimage.binary_dilation(dent, iterations=2) & (hu[box] > SOFT_TISSUE_HU) & (hu[box] < BONE_OR_VESSEL_HU)
        result[box] = np.where(mouth, np.minimum(result[box], level[box] - np.float32(sag_mm)), result[box])
    return result


def add_mask(level: Level, mask: Mask, spacing_mm: float) -> Level:
    """The level set of the shape with ``mask`` added to it; it is unchanged away from ``mask``."""
    if not mask.any():
        return level
    start, stop = bounding_box(mask, _ADDED_VOX)
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    part, added = level[box], mask[box]
    together = np.minimum(part, mask_level(added | (part < 0), spacing_mm))
    result = level.copy()
    result[box] = np.where(dilate(added, 1.5 * spacing_mm, spacing_mm), together, part)
    return result


def medial(lung: Mask, *, on_right: bool) -> Mask:
    """Voxels that lie medial to the whole lung in their row: mediastinum, and liver or spleen."""
    sideways = lung if on_right else np.flip(lung, 2)
    reached = np.flip(np.maximum.accumulate(np.flip(sideways, 2), axis=2), 2)
    beyond = ~reached & lung.any(axis=2, keepdims=True)
    return beyond if on_right else np.flip(beyond, 2)


def widen_mass(level: Level, mass: Mask, hu: Hu, thorax: Mask, *, margin_mm: float, spacing_mm: float) -> Level:
    """Extend a mass beyond the closing of its lung, into the mediastinum but not into the chest wall.

    A closing cannot tell how deep the base of a mass is. Soft tissue that lies between the two lungs in the axial slice
    is added, to a depth of at most ``margin_mm``.

    Args:
        level: level set of the closed lung, ``[z, y, x]``.
        mass: from :func:`close_lung`.
        hu: the scan on the same grid.
        thorax: the convex hull of both lungs in each axial slice.
        margin_mm: largest depth.
        spacing_mm: voxel size of ``hu``.
    """
    if not mass.any():
        return level
    start, stop = bounding_box(mass, int(margin_mm / spacing_mm) + 2)
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    soft = (hu[box] > SOFT_TISSUE_HU) & (hu[box] < BONE_OR_VESSEL_HU) & thorax[box]
    base = opening(dilate(mass[box], margin_mm, spacing_mm) & (soft | (level[box] < 0)), spacing_mm, spacing_mm)
    result = level.copy()
    result[box] = add_mask(level[box], base, spacing_mm)
    return result


def _thick_parts(hollow: Mask, least_ml: float, spacing_mm: float) -> Mask:
    """The parts of ``hollow`` that keep at least ``least_ml`` when they are eroded by ``_CORE_MM``."""
    labels, _ = ndimage.label(erode(hollow, _CORE_MM, spacing_mm))
    sizes_ml = label_sizes(labels) * spacing_mm**3 / 1000
    sizes_ml[0] = 0
    core = (sizes_ml >= least_ml)[labels]
    return dilate(core, _CORE_MM + 2 * spacing_mm, spacing_mm) & hollow


def _between_in_z(mask: Mask, gap_mm: float, spacing_mm: float) -> Mask:
    """Voxels between two parts of ``mask`` in their column (z) that are at most ``gap_mm`` apart."""
    z = np.arange(mask.shape[0], dtype=np.int32)[:, None, None]
    beyond = np.int32(4 * mask.shape[0])
    below = np.maximum.accumulate(np.where(mask, z, -beyond), axis=0)
    above = np.flip(np.minimum.accumulate(np.flip(np.where(mask, z, beyond), 0), axis=0), 0)
    narrow: NDArray[np.bool_] = (above - below - 1) * spacing_mm <= gap_mm
    return narrow


def fill_holes(level: Level, spacing_mm: float) -> Level:
    """The level set with all enclosed holes filled."""
    outside, _ = ndimage.label(np.pad(level >= 0, 1, constant_values=True))
    holes = (outside[1:-1, 1:-1, 1:-1] > 0) & (outside[1:-1, 1:-1, 1:-1] != outside[0, 0, 0])
    return np.where(holes, np.float32(-spacing_mm), level)
