"""The aerated part of each lung: air inside the body, without airways and bowel, split at the midline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.filters import Mask, erode, largest_component
from ChangeMapJointLib.core.hu import GAS_HU
from ChangeMapJointLib.lungs.junction import junction_surface

Hu = NDArray[np.float32]

_BONE_HU = 200.0
_SPINE_SHARE = 0.25
_OUTSIDE_HU = -930.0  # air round the patient is darker than lung even in emphysema
_CERTAIN_ML = 500.0  # no bowel below a trachea is as large
_PART_ML = 20.0  # smaller separate pieces of lung only count where closing reaches them
_SHARE = 0.03  # of a merged pair: less on one side of the midline is no lung
_CONTACT = 0.5  # times volume^(2/3): lungs touch at less; a lung that bulges over the midline has 1.9
_GAS_PART_HU, _GAS_CONTRAST_HU = (
    -940.0,
    40.0,
)  # a quarter of a gas pocket is darker, and darker than the lung by so much
_WALL_MM = 4.0  # least distance of bowel gas under the diaphragm from the lung
_GAS_ML = 1.0  # smaller pockets are all partial volume
_BUBBLE_ML = 0.05
_WALL_HU = -600.0  # a thin diaphragm between lung and bowel gas is denser, partial volume included


@dataclass(frozen=True)
class AeratedLungs:
    """Air of the two lungs on the working grid.

    Attributes:
        right: ``[z, y, x]``; empty when there is none.
        left: the same on the patient's left.
        bowel: gas below the diaphragm that seemed to belong to them.
        found: what the largest air space looked like, for a message when it is no lung.
        touching: the two were one and had to be cut along the junction line.
    """

    right: Mask
    left: Mask
    bowel: Mask
    found: str
    touching: bool


def midline(hu: Hu, inside: Mask) -> float:
    """The x of the spine, the only bone that stays in one place from slice to slice; else of the body's middle."""
    bone = ndimage.gaussian_filter(((hu > _BONE_HU) & inside).mean(axis=0), 3.0)  # a table has rails
    if bone.max() > _SPINE_SHARE:
        return float(np.unravel_index(bone.argmax(), bone.shape)[1])
    return float(np.flatnonzero(inside.any(axis=(0, 1))).mean())


def split_lungs(hu: Hu, air: Mask, middle_vox: float, *, in_chest: bool, spacing_mm: float) -> AeratedLungs:
    """Choose the parts of ``air`` that are lung and tell right from left.

    Args:
        hu: ``[z, y, x]``, +x to the patient's left, +z to the head, one spacing.
        air: air inside the body without the airways.
        middle_vox: x between the lungs.
        in_chest: a trachea was found, so large air spaces are lung however dark.
        spacing_mm: of ``hu``.
    """
    labels, _ = ndimage.label(air)
    ml = np.bincount(labels.ravel()) * spacing_mm**3 / 1000
    ml[0] = 0
    found = f"{ml.max(initial=0) / 1000:.2f} l"
    on_right = np.arange(hu.shape[2]) < junction_surface(hu, air, middle_vox, spacing_mm)[:, :, None]
    sides: tuple[list[Mask], list[Mask]] = ([], [])  # right, left
    touching = False
    for rank, number in enumerate(np.argsort(-ml, kind="stable")):
        if ml[number] < _PART_ML:
            break
        part = labels == number
        median_hu = float(np.median(hu[_core(part, spacing_mm)]))
        if rank == 0:
            found += f" at {median_hu:.0f} HU"
        if median_hu < GAS_HU and not (in_chest and ml[number] > _CERTAIN_ML):
            continue
        if _is_pair(part, on_right):
            touching = True
            for side, half in zip(sides, _halves(part, on_right), strict=True):
                side.append(half)
        else:
            mostly_right = (part & on_right).sum() * 2 > part.sum()
            sides[0 if mostly_right else 1].append(part)
    right, right_bowel = _join(sides[0], hu, spacing_mm)
    left, left_bowel = _join(sides[1], hu, spacing_mm)
    return AeratedLungs(right, left, right_bowel | left_bowel, found, touching)


def _core(part: Mask, spacing_mm: float) -> Mask:
    """The inside of ``part``, free of partial volume; the whole of it where it is thin."""
    core = erode(part, 4.0, spacing_mm)
    return core if core.any() else part


def _is_pair(part: Mask, on_right: Mask) -> bool:
    """Do both lungs form ``part``: much on either side and a narrow contact between?"""
    right, left = part & on_right, part & ~on_right
    smaller = min(right.sum(), left.sum())
    if smaller < _SHARE * part.sum():
        return False
    contact = (right[:, :, :-1] & left[:, :, 1:]).sum()
    return bool(contact < _CONTACT * smaller ** (2 / 3))


def _halves(pair: Mask, on_right: Mask) -> tuple[Mask, Mask]:
    """``pair`` cut at the junction surface; crumbs that the cut leaves belong to the other side."""
    right, left = largest_component(pair & on_right), largest_component(pair & ~on_right)
    crumbs = pair & ~right & ~left
    return right | (crumbs & ~on_right), left | (crumbs & on_right)


def _join(parts: list[Mask], hu: Hu, spacing_mm: float) -> tuple[Mask, Mask]:
    """One lung of its parts, the largest first, without bowel beside or below it; and that bowel."""
    if not parts:
        nothing = np.zeros(hu.shape, dtype=bool)
        return nothing, nothing
    bowel = _attached_bowel(parts[0], hu, spacing_mm)
    lung = parts[0]
    if bowel.any():
        lung = largest_component(lung & ~nearer(bowel, lung & (hu < _WALL_HU) & ~bowel))
    for part in parts[1:]:
        if not _below(part, lung, spacing_mm) and not _is_gas_below(part, lung, hu, spacing_mm):
            lung = lung | part
    return lung, bowel


def _is_gas_below(part: Mask, lung: Mask, hu: Hu, spacing_mm: float) -> bool:
    """Is a part gas of stomach or bowel beside the lung's lower half or under it, where no lung lies over it?

    It is darker than the lung, has no lung below it, and none right above it as a bulla at the base has.
    """
    heights = [np.flatnonzero(mask.any(axis=(1, 2))) for mask in (part, lung)]
    if heights[0][-1] >= (heights[1][0] + heights[1][-1]) / 2:
        return False
    dark = np.percentile(hu[part], 25)
    if dark > _GAS_PART_HU or dark > np.percentile(hu[lung], 10) - _GAS_CONTRAST_HU:
        return False
    gap_mm, beneath = _over_and_under(part, lung, spacing_mm)
    return bool((gap_mm < _WALL_MM).mean() < 0.2 and beneath.mean() < 0.2)


def nearer(mask: Mask, other: Mask) -> Mask:
    """The voxels that are nearer to ``mask`` than to ``other``."""
    to_mask, to_other = (ndimage.distance_transform_edt(~part) for part in (mask, other))
    return np.asarray(to_mask < to_other)


def _attached_bowel(lung: Mask, hu: Hu, spacing_mm: float) -> Mask:
    """The parts of ``lung`` that are bowel gas touching it through a thin spot of the diaphragm.

    The diaphragm is there even where thick slices blur it to less than the lung's threshold: darker
    voxels fall apart at it. A part counts as bowel when it lies below and holds true gas; beside such a
    part, bubbles too small to hold any count as well.
    """
    labels, _ = ndimage.label(lung & (hu < _WALL_HU))
    sizes_ml = np.bincount(labels.ravel()) * spacing_mm**3 / 1000
    sizes_ml[0] = 0
    main = labels == sizes_ml.argmax()
    bowel = np.zeros(lung.shape, dtype=bool)
    for number in np.argsort(-sizes_ml, kind="stable")[1:]:
        small = sizes_ml[number] < _GAS_ML
        if sizes_ml[number] < _BUBBLE_ML or (small and not bowel.any()):
            break
        part = labels == number
        gas = (small or np.percentile(hu[part], 10) < _OUTSIDE_HU) and _below(part, main, spacing_mm)
        if gas or (not small and _is_gas_below(part, main, hu, spacing_mm)):
            bowel |= part
    return bowel


def _below(part: Mask, lung: Mask, spacing_mm: float) -> bool:
    """Does ``part`` lie under ``lung`` with a wall between, as bowel under the diaphragm does?"""
    gap_mm, beneath = _over_and_under(part, lung, spacing_mm)
    walled = np.isfinite(gap_mm) & (gap_mm >= _WALL_MM)
    return bool(walled.mean() > 0.5 and beneath.mean() < 0.2)


def _over_and_under(part: Mask, lung: Mask, spacing_mm: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """For every column of ``part``: mm from its top to the lung over it (infinite without), and is lung under it?"""
    z = np.arange(part.shape[0])[:, None, None]
    columns = part.any(axis=0)
    top = np.where(part, z, -1).max(axis=0)
    bottom = np.where(part, z, part.shape[0]).min(axis=0)
    above = np.where(lung & (z > top), z, 10 * part.shape[0]).min(axis=0)
    gap_mm = np.where(above < part.shape[0], (above - top - 1) * spacing_mm, np.inf)
    return gap_mm[columns], (lung & (z < bottom)).any(axis=0)[columns]
