"""The aerated part of each lung: air inside the body without airways and bowel, split into right and left."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.filters import Mask, dilate, erode, label_sizes, largest_component, opening
from ChangeMapJointLib.core.grid import bounding_box
from ChangeMapJointLib.core.hu import GAS_HU, SOFT_TISSUE_HU
from ChangeMapJointLib.lungs.junction import junction_surface

Hu = NDArray[np.float32]

_BONE_HU = 200.0
_SPINE_SHARE = 0.25  # of the slices show bone at the spine
_OUTSIDE_HU = -930.0  # air around the patient is darker than lung, even than emphysema
_CERTAIN_ML = 500.0  # bowel in a scan with a trachea is never as large
_PART_ML = 20.0  # smaller separate pieces of lung are included only where the closing reaches them
_SHARE = 0.03  # of two merged lungs: less on one side of the midline is not a lung
_CONTACT = 0.5  # times volume^(2/3): two touching lungs have less contact; a lung that bulges over the midline has 1.9
_GAS_PART_HU, _GAS_CONTRAST_HU = (
    -940.0,
    40.0,
)  # a quarter of a gas pocket is darker than this, and darker than the lung by this contrast
_WALL_MM = 4.0  # smallest distance between the lung and bowel gas under the diaphragm
_CHEST_WALL_MM = 8.0  # thinnest chest wall
_RIB_HU, _RIB_SHARE = 150.0, 0.08  # 16 to 53 % of the rows through a chest wall cross a rib
_BRIGHT_HU, _RIB_MM = 100.0, 7.5  # a heart with contrast agent is as bright as a rib, but a ball of this radius fits in
_RIB_DEPTH_MM = 25.0  # a rib lies no farther from the lung inside of it
_BAND_MM, _LEAST_BAND = 40.0, 0.02  # height of the bands in which ribs are looked for; share of the rows in one
_RIBBED_BANDS, _LEAST_RIBBED = 0.7, 3  # ribs are at nearly all heights, heart and vessels are not
_LOBE_ML = 250.0  # smaller parts may have ribs over any height: an adult's lobe beyond fluid is larger
_BLOOD_BLUR_MM = 2.0  # against noise
_PLAIN_AIR_HU = -950.0  # denser things beyond the ribs may be lung after all: foam, or a lobe beyond fluid
_BESIDE_SHARE, _WALLED_SHARE = 0.2, 0.8  # of the rows; an arm reaches below the lungs
_GAS_SHARE = 0.2  # of the other lung
_GAS_ML = 1.0  # smaller pockets hold only partial volume
_BUBBLE_ML = 0.05
_WALL_HU = -600.0  # a thin diaphragm between lung and bowel gas is denser, partial volume included


@dataclass(frozen=True)
class AeratedLungs:
    """Air of the two lungs on the working grid.

    Attributes:
        right: the patient's right lung, bool ``[z, y, x]``; empty where there is none.
        left: the left lung.
        bowel: gas below the diaphragm that touched the lungs.
        largest_space: volume and density of the largest air space, for the message where it is not lung.
        touching: both lungs were connected and had to be separated along the junction line.
        beyond_ribs_ml: volume of what was left out because ribs lie between it and the lung, without plain air.
    """

    right: Mask
    left: Mask
    bowel: Mask
    largest_space: str
    touching: bool
    beyond_ribs_ml: float = 0.0


def midline(hu: Hu, inside: Mask) -> float:
    """The x of the spine, the only bone that stays in place from slice to slice; without it, of the body's centre."""
    bone = ndimage.gaussian_filter(((hu > _BONE_HU) & inside).mean(axis=0), 3.0)  # smoothed: tables have narrow rails
    if bone.max() > _SPINE_SHARE:
        return float(np.unravel_index(bone.argmax(), bone.shape)[1])
    return float(np.flatnonzero(inside.any(axis=(0, 1))).mean())


def split_lungs(hu: Hu, air: Mask, middle_vox: float, *, in_chest: bool, spacing_mm: float) -> AeratedLungs:
    """Select the parts of ``air`` that are lung and assign them to the right or the left.

    Args:
        hu: ``[z, y, x]``, +x to the patient's left, +z to the head, isotropic.
        air: bool ``[z, y, x]``: air inside the body without the airways.
        middle_vox: x between the lungs.
        in_chest: a trachea was found, so that large air spaces are lung, however dark.
        spacing_mm: voxel size of ``hu``.
    """
    labels, _ = ndimage.label(air)
    ml = label_sizes(labels) * spacing_mm**3 / 1000
    ml[0] = 0
    largest_space = f"{ml.max(initial=0) / 1000:.2f} l"
    on_right = np.arange(hu.shape[2]) < junction_surface(hu, air, middle_vox, spacing_mm)[:, :, None]
    sides: tuple[list[Mask], list[Mask]] = ([], [])  # right, left
    touching = False
    for rank, number in enumerate(np.argsort(-ml, kind="stable")):
        if ml[number] < _PART_ML:
            break
        part = labels == number
        median_hu = float(np.median(hu[_core(part, spacing_mm)]))
        if rank == 0:
            largest_space += f" at {median_hu:.0f} HU"
        if median_hu < GAS_HU and not (in_chest and ml[number] > _CERTAIN_ML):
            continue
        if _is_both_lungs(part, on_right):
            touching = True
            for side, half in zip(sides, _split(part, on_right), strict=True):
                side.append(half)
        else:
            mostly_right = (part & on_right).sum() * 2 > part.sum()
            sides[0 if mostly_right else 1].append(part)
    rights, right_ml = _in_chest(sides[0], hu, spacing_mm)
    lefts, left_ml = _in_chest(sides[1], hu, spacing_mm, mirrored=True)
    rights, lefts = _without_gas(rights, lefts, hu, spacing_mm), _without_gas(lefts, rights, hu, spacing_mm)
    right, right_bowel = _join(rights, hu, spacing_mm)
    left, left_bowel = _join(lefts, hu, spacing_mm)
    return AeratedLungs(right, left, right_bowel | left_bowel, largest_space, touching, right_ml + left_ml)


def _in_chest(parts: list[Mask], hu: Hu, spacing_mm: float, *, mirrored: bool = False) -> tuple[list[Mask], float]:
    """Leave out air between the chest and an arm or a hand: lung lies further inside, behind the ribs.

    Args:
        parts: of one side; +x points inwards.
        hu: ``[z, y, x]``.
        spacing_mm: voxel size.
        mirrored: +x points outwards.

    Returns:
        The parts inside, and the ml of what else was left out than plain air: it may be lung.
    """
    if len(parts) < 2:
        return parts, 0.0
    middle_y, kept, doubtful_ml = _mean_y(hu > SOFT_TISSUE_HU), [], 0.0
    ribs: Mask | None = None
    for part in parts:
        others = np.any([other for other in parts if other is not part], axis=0)
        off, others_off = (_mean_y(mask) - middle_y for mask in (part, others))
        turns = [(1, 2, -1 if mirrored else 1)]  # seen from the side, and from the front or back
        if abs(off) > abs(others_off):  # farther from the middle of the body
            turns.append((2, 1, 1 if off < 0 else -1))
        outside = False
        for first, second, step in turns:
            turned = [mask.transpose(0, first, second)[:, :, ::step] for mask in (part, others)]
            wall = _wall_between(turned[0], turned[1], spacing_mm)
            if wall is None:
                continue
            ribs = _thin_bone(hu, spacing_mm) if ribs is None else ribs
            near = ribs & dilate(others, _RIB_DEPTH_MM, spacing_mm)
            least = _LEAST_RIBBED if part.sum() * spacing_mm**3 / 1000 >= _LOBE_ML else 1
            outside |= _has_ribs(wall, near.transpose(0, first, second)[:, :, ::step], spacing_mm, least)
        if not outside:
            kept.append(part)
        elif np.median(hu[_core(part, spacing_mm)]) > _PLAIN_AIR_HU:
            doubtful_ml += float(part.sum() * spacing_mm**3 / 1000)
    return kept, doubtful_ml


def _thin_bone(hu: Hu, spacing_mm: float) -> Mask:
    """Bone as thin as ribs: blood with contrast agent, in the heart or a great vessel, is thicker."""
    blood = ndimage.gaussian_filter(hu, _BLOOD_BLUR_MM / spacing_mm) > _BRIGHT_HU
    return np.asarray((hu > _RIB_HU) & ~dilate(opening(blood, _RIB_MM, spacing_mm), _RIB_MM, spacing_mm))


def _mean_y(mask: Mask) -> float:
    rows = mask.sum(axis=(0, 2))
    return float((rows * np.arange(len(rows))).sum() / max(rows.sum(), 1))


def _wall_between(part: Mask, others: Mask, spacing_mm: float) -> Mask | None:
    """Return what lies between ``part`` and ``others`` farther along x; None unless tissue does in nearly all rows."""
    start, stop = bounding_box(part)
    box = (slice(start[0], stop[0]), slice(start[1], stop[1]), slice(start[2], None))
    x = np.arange(part.shape[2] - start[2])
    inner_edge = np.where(part[box], x, -1).max(axis=2)
    lung = others[box] & (x > inner_edge[..., None])
    first = np.where(lung, x, len(x)).min(axis=2)
    rows = inner_edge >= 0
    beside = rows & (first < len(x))
    walled = beside & ((first - inner_edge - 1) * spacing_mm >= _CHEST_WALL_MM)
    if beside.sum() < _BESIDE_SHARE * rows.sum() or walled.sum() <= _WALLED_SHARE * beside.sum():
        return None
    wall = np.zeros(part.shape, dtype=bool)
    wall[box] = (x > inner_edge[..., None]) & (x < first[..., None]) & walled[..., None]
    return wall


def _has_ribs(wall: Mask, ribs: Mask, spacing_mm: float, least_bands: int) -> bool:
    """Whether rows of ``wall`` along x cross ``ribs``, at nearly all heights and in that many bands at least."""
    walled, crossed = (np.asarray(rows.any(axis=2)) for rows in (wall, wall & ribs))
    first, last = np.flatnonzero(walled.any(axis=1))[[0, -1]]
    starts = np.arange(0, last + 1 - first, max(1, round(_BAND_MM / spacing_mm)))
    counts = [np.add.reduceat(rows[first : last + 1].sum(axis=1), starts) for rows in (crossed, walled)]
    bands = counts[1] > _LEAST_BAND * walled.sum()
    ribbed = counts[0][bands] > _RIB_SHARE / 2 * counts[1][bands]
    at_all_heights = ribbed.sum() >= least_bands and ribbed.mean() > _RIBBED_BANDS
    return bool(crossed.sum() > _RIB_SHARE * walled.sum() and at_all_heights)


def _core(part: Mask, spacing_mm: float) -> Mask:
    """The inner part of ``part``, free of partial volume; all of it where it is thin."""
    core = erode(part, 4.0, spacing_mm)
    return core if core.any() else part


def _is_both_lungs(part: Mask, on_right: Mask) -> bool:
    """Whether ``part`` is both lungs: large on either side, with a narrow contact between."""
    right, left = part & on_right, part & ~on_right
    smaller = min(right.sum(), left.sum())
    if smaller < _SHARE * part.sum():
        return False
    contact = (right[:, :, :-1] & left[:, :, 1:]).sum()
    return bool(contact < _CONTACT * smaller ** (2 / 3))


def _split(pair: Mask, on_right: Mask) -> tuple[Mask, Mask]:
    """Split ``pair`` at the junction surface; fragments that the cut leaves go to the other side."""
    right, left = largest_component(pair & on_right), largest_component(pair & ~on_right)
    crumbs = pair & ~right & ~left
    return right | (crumbs & ~on_right), left | (crumbs & on_right)


def _without_gas(parts: list[Mask], others: list[Mask], hu: Hu, spacing_mm: float) -> list[Mask]:
    """Leave out gas in stomach or bowel on a side whose lung is missing: small against the other lung, and below it."""
    if not others:
        return parts
    first = 0
    while (
        first < len(parts)
        and parts[first].sum() < _GAS_SHARE * others[0].sum()
        and _is_gas_below(parts[first], others[0], hu, spacing_mm)
    ):
        first += 1
    return parts[first:]


def _join(parts: list[Mask], hu: Hu, spacing_mm: float) -> tuple[Mask, Mask]:
    """Join the parts of one lung, the largest first, without bowel beside or below it; return lung and bowel."""
    if not parts:
        empty = np.zeros(hu.shape, dtype=bool)
        return empty, empty
    bowel = _attached_bowel(parts[0], hu, spacing_mm)
    lung = parts[0]
    if bowel.any():
        lung = largest_component(lung & ~nearer_to(bowel, lung & (hu < _WALL_HU) & ~bowel))
    for part in parts[1:]:
        like_bowel = part.sum() < _GAS_SHARE * lung.sum() or np.percentile(hu[part], 10) < _OUTSIDE_HU  # or a lobe
        below = like_bowel and _below(part, lung, spacing_mm)
        if not below and not _is_gas_below(part, lung, hu, spacing_mm):
            lung = lung | part
    return lung, bowel


def _is_gas_below(part: Mask, lung: Mask, hu: Hu, spacing_mm: float) -> bool:
    """Whether a part is gas in stomach or bowel, beside the lower half of the lung or under it.

    Such gas is darker than the lung, has no lung below it, and, unlike a bulla at the base, no lung directly above it.
    """
    heights = [np.flatnonzero(mask.any(axis=(1, 2))) for mask in (part, lung)]
    if heights[0][-1] >= (heights[1][0] + heights[1][-1]) / 2:
        return False
    dark = np.percentile(hu[part], 25)
    if dark > _GAS_PART_HU or dark > np.percentile(hu[lung], 10) - _GAS_CONTRAST_HU:
        return False
    gap_mm, beneath = _over_and_under(part, lung, spacing_mm)
    return bool((gap_mm < _WALL_MM).mean() < 0.2 and beneath.mean() < 0.2)


def nearer_to(mask: Mask, other: Mask) -> Mask:
    """Voxels that lie nearer to ``mask`` than to ``other``."""
    to_mask, to_other = (ndimage.distance_transform_edt(~part) for part in (mask, other))
    return np.asarray(to_mask < to_other)


def _attached_bowel(lung: Mask, hu: Hu, spacing_mm: float) -> Mask:
    """The parts of ``lung`` that are bowel gas, connected to it through a thin spot of the diaphragm.

    Even where thick slices blur the diaphragm below the lung's threshold, a lower threshold separates the two sides. A
    part counts as bowel when it lies below the lung and contains true gas; once there is such a part, bubbles too small
    to contain true gas count as well.
    """
    labels, _ = ndimage.label(lung & (hu < _WALL_HU))
    sizes_ml = label_sizes(labels) * spacing_mm**3 / 1000
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
    """Whether ``part`` lies under ``lung`` with a wall between, as bowel lies under the diaphragm."""
    gap_mm, beneath = _over_and_under(part, lung, spacing_mm)
    walled = np.isfinite(gap_mm) & (gap_mm >= _WALL_MM)
    return bool(walled.mean() > 0.5 and beneath.mean() < 0.2)


def _over_and_under(part: Mask, lung: Mask, spacing_mm: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """For each column of ``part``: mm from its top to lung above (infinite without), and whether lung lies below."""
    z = np.arange(part.shape[0])[:, None, None]
    columns = part.any(axis=0)
    top = np.where(part, z, -1).max(axis=0)
    bottom = np.where(part, z, part.shape[0]).min(axis=0)
    above = np.where(lung & (z > top), z, 10 * part.shape[0]).min(axis=0)
    gap_mm = np.where(above < part.shape[0], (above - top - 1) * spacing_mm, np.inf)
    return gap_mm[columns], (lung & (z < bottom)).any(axis=0)[columns]
