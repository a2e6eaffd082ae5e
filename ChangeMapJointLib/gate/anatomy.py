"""Checks the orientation in the header against the anatomy: apices at the head, spine at the back, heart at the left.

Only lung masks and density are used. Table and arms are ignored, so a prone patient, whose spine is still at the back,
passes like a supine one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.filters import Mask, label_sizes, nearest_parallel, resample_parallel
from ChangeMapJointLib.core.grid import Grid, bounding_box
from ChangeMapJointLib.core.hu import METAL_HU, NOT_SCANNED_HU, SOFT_TISSUE_HU
from ChangeMapJointLib.scan.beside_lung import SMALL_SHARE
from ChangeMapJointLib.scan.lungs import LEFT, RIGHT, Lungs
from ChangeMapJointLib.scan.volume import Volume

WORK_MM = (
    3.0  # working voxels of an adult; smaller for a child, in proportion to its lungs, so lengths below scale, too
)
ADULT_ML, FINEST_MM = 4000.0, 0.7  # lung volume of an adult; smallest working voxel
MARGIN_VOX = 12
SPINE_HU = 250.0
NEAR_SPINE = 0.25  # of the lungs' half width: search range for the spine, from the middle
NEAR_ONE_LUNG = (0.35, 0.2)  # of a single lung's width: the same from its inner edge, towards the lung and away from it
SPINE_PERCENTILE = 25  # over the slices: only the spine is dense in nearly all of them
SMOOTH_MM = 8.0
SPINE_MM = 15.0  # from the middle of the spine to its front
DOME_MM, HEART_SHARE = 15.0, 0.3  # usual left-right differences; each is evidence of 1
MOST_DOME_MM, MOST_EVIDENCE = 20.0, 1.5  # a larger difference of the domes is pathological
CUT = 0.5  # of the largest section of the lungs: a scan that ends in such a section shows neither heart nor domes
EQUAL = 0.6  # of the larger lung: if the other is smaller than this, the heart has shifted


@dataclass(frozen=True)
class ChestView:
    """The region around the lungs on a coarse working grid whose axes point to left, back and head, by the header.

    Attributes:
        hu: float32 ``[z, y, x]``.
        lungs: uint8 labels ``[z, y, x]``, 1 right, 2 left.
        spacing_mm: of the working grid, along every axis.
        spine_vox: (y, x) of the middle of the spine.
        front_back: position of spine and bones between front (-1) and back (1) of the lungs, by the header.
    """

    hu: NDArray[np.float32]
    lungs: NDArray[np.uint8]
    spacing_mm: float
    spine_vox: tuple[int, int]
    front_back: float

    @property
    def mask(self) -> Mask:
        """Both lungs."""
        return self.lungs > 0


@dataclass(frozen=True)
class Orientation:
    """Agreement of the anatomy with the orientation in the header; negative where it seems reversed.

    Attributes:
        head_feet: how far the middle of the lungs' upper and lower surfaces lies above their rims, relative to the
            height of the lungs: the apex is domed towards the head, and the diaphragm rises into the lung from below.
        front_back: position of spine and bones between the front (-1) and the back (1) of the lungs.
        left_right: from heart and diaphragm domes, about 0.7 to 3 in a normal chest; None where it cannot be told.
    """

    head_feet: float
    front_back: float
    left_right: float | None


def chest_view(volume: Volume, lungs: Lungs) -> ChestView | None:
    """Return the region around the lungs on the coarse working grid; None without lungs."""
    if not lungs.labels.any():
        return None
    array, grid = volume.grid.lps_view(volume.array)
    labels, _ = volume.grid.lps_view(lungs.labels)
    start, stop = bounding_box(labels > 0, 1)
    h = _spacing_mm(lungs.right_ml + lungs.left_ml)
    margin = [int(np.ceil(MARGIN_VOX * h / s)) for s in grid.spacing_mm[::-1]]
    first, last = np.maximum(np.subtract(start, margin), 0), np.minimum(np.add(stop, margin), grid.shape)
    box = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    cropped = grid.crop(first, last)
    work = cropped.with_spacing((h, h, h))
    hu = _coarse(array[box], cropped, work)
    coarse_labels = nearest_parallel(labels[box], cropped, work)
    if not coarse_labels.any():
        return None
    return ChestView(hu, coarse_labels, h, *_spine(hu, coarse_labels))


def _spacing_mm(lungs_ml: float) -> float:
    """Return the working voxel size for lungs of this volume, finer for a child."""
    return float(np.clip(WORK_MM * (lungs_ml / ADULT_ML) ** (1 / 3), FINEST_MM, WORK_MM))


def _coarse(array: NDArray[np.generic], grid: Grid, work: Grid) -> NDArray[np.float32]:
    """Resample HU to ``work``: average blocks of voxels first, which is much faster, then interpolate linearly."""
    import SimpleITK as sitk

    factors = [max(1, min(int(w / s), n)) for w, s, n in zip(work.spacing_mm, grid.spacing_mm, grid.size, strict=True)]
    image = sitk.BinShrink(grid.to_image(array), factors)
    blocks = sitk.GetArrayViewFromImage(image)
    return resample_parallel(blocks, Grid.of_image(image), work, clip=(NOT_SCANNED_HU, METAL_HU))


def between_lungs(mask: Mask) -> Mask:
    """Mark the voxels with lung on both sides in their row: heart, vessels, and the front of the spine.

    Args:
        mask: both lungs, bool ``[z, y, x]``.
    """
    before = np.maximum.accumulate(mask, axis=2)
    behind = np.flip(np.maximum.accumulate(np.flip(mask, 2), axis=2), 2)
    enclosed: Mask = before & behind & ~mask
    return enclosed


def _is_one_lung(labels: NDArray[np.uint8]) -> bool:
    """Return whether one lung is missing or very small."""
    smaller, larger = sorted(label_sizes(labels, minlength=3)[1:3])
    return bool(smaller < SMALL_SHARE * larger)


def _near_spine(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the columns x in which to search for the spine: near the middle of both lungs, or at the edge of one."""
    columns = np.arange(labels.shape[2])
    if not _is_one_lung(labels):
        (_, _, x0), (_, _, x1) = bounding_box(labels > 0)
        return np.asarray(np.abs(columns - (x0 + x1 - 1) / 2) <= NEAR_SPINE * (x1 - x0) / 2)
    voxels = label_sizes(labels, minlength=3)
    large = RIGHT if voxels[RIGHT] >= voxels[LEFT] else LEFT
    (_, _, x0), (_, _, x1) = bounding_box(labels == large)
    away = columns - (x1 - 1) if large == RIGHT else x0 - columns
    return np.asarray((away >= -NEAR_ONE_LUNG[0] * (x1 - x0)) & (away <= NEAR_ONE_LUNG[1] * (x1 - x0)))


def _spine(hu: NDArray[np.float32], labels: NDArray[np.uint8]) -> tuple[tuple[int, int], float]:
    """Find the spine, and where it and the other bones are between front and back of the lungs.

    The spine is the column near the middle that is dense in most slices. In part of a chest, vessels with contrast
    agent may be as dense. Ribs, shoulder blades and vertebral arches, which are not between the lungs, therefore decide
    whether to search in front of or behind the middle of the lungs.

    Returns:
        (y, x) of the middle of the spine, and the position of the bones, -1 (front) to 1 (back).
    """
    mask = labels > 0
    (z0, y0, x0), (z1, y1, x1) = bounding_box(mask)
    cut = (z1 - z0) // 10
    density = np.percentile(hu[z0 + cut : max(z1 - cut, z0 + cut + 1)], SPINE_PERCENTILE, axis=0)
    density = ndimage.gaussian_filter(density, SMOOTH_MM / WORK_MM)
    density[:, ~_near_spine(labels)] = -np.inf
    middle_y = (y0 + y1 - 1) / 2
    spine = (int(np.unravel_index(int(density.argmax()), density.shape)[0]) - middle_y) / max((y1 - y0) / 2, 1)
    box = (slice(z0, z1), slice(None), slice(x0, x1))
    rows = ((hu[box] > SPINE_HU) & ~between_lungs(mask[box])).sum(axis=(0, 2))
    bones = spine
    if rows.sum():
        bones = (float((rows * np.arange(len(rows))).sum() / rows.sum()) - middle_y) / max((y1 - y0) / 2, 1)
    density[: int(middle_y)] = -np.inf if bones >= 0 else density[: int(middle_y)]
    density[int(middle_y) + 1 :] = -np.inf if bones < 0 else density[int(middle_y) + 1 :]
    y, x = np.unravel_index(int(density.argmax()), density.shape)
    return (int(y), int(x)), float((spine + bones) / 2)


def orientation(view: ChestView) -> Orientation:
    """Measure how well the anatomy agrees with the orientation in the header.

    The limits are in :data:`~ChangeMapJointLib.gate.rules.RULES`. A mirrored scan and a patient with situs inversus
    look the same.
    """
    mask, (spine_y, spine_x) = view.mask, view.spine_vox
    (z0, y0, _), (z1, y1, _) = bounding_box(mask)
    halves = (mask,) if _is_one_lung(view.lungs) else (mask[:, :, :spine_x], mask[:, :, spine_x:])
    rises = [_rise(half, top=top) for half in halves if half.any() for top in (True, False)]
    head_feet = float(np.mean(rises)) * 2 / max(z1 - z0, 1)
    back = 1 if spine_y >= (y0 + y1 - 1) / 2 else -1
    upright = slice(None, None, 1 if head_feet >= 0 else -1)
    return Orientation(head_feet, view.front_back, _left_right(view.hu[upright], mask[upright], view, back))


def _rise(half: Mask, *, top: bool) -> float:
    """Return how many voxels the middle of a lung's upper or lower surface lies above the rim of that surface."""
    columns = half.any(axis=0)
    z = np.arange(half.shape[0])[:, None, None]
    surface = np.where(half, z, -1).max(axis=0) if top else np.where(half, z, half.shape[0]).min(axis=0)
    depth = ndimage.distance_transform_edt(columns)
    middle, rim = columns & (depth > 0.5 * depth.max()), columns & (depth < 0.25 * depth.max())
    if not (middle.any() and rim.any()):
        return 0.0
    return float(np.median(surface[middle]) - np.median(surface[rim]))


def _left_right(hu: NDArray[np.float32], mask: Mask, view: ChestView, back: int) -> float | None:
    """Return the evidence for a normal position of heart and domes; None where it cannot be told.

    Args:
        hu: ``[z, y, x]`` with the head at the end of z.
        mask: both lungs, likewise.
        view: as measured by the header.
        back: 1 where the back is at the end of y, else -1.
    """
    spine_y, x = view.spine_vox
    right, left = mask[:, :, :x], mask[:, :, x:]
    smaller, larger = sorted((int(right.sum()), int(left.sum())))
    sections = mask.sum(axis=(1, 2))
    labelled = label_sizes(view.lungs, minlength=3)[1:3]  # one lung alone may lie on both sides of the column
    if (
        min(smaller / max(larger, 1), labelled.min() / max(labelled.max(), 1)) < EQUAL
        or sections[0] > CUT * sections.max()
    ):
        return None
    front = spine_y - back * round(SPINE_MM / WORK_MM)
    rows = slice(0, max(front, 0)) if back > 0 else slice(front + 1, None)
    (z0, _, _), (z1, _, _) = bounding_box(mask)
    shares = [
        _leftness(
            hu[z0 + int(low * (z1 - z0)) : z0 + int((low + 0.4) * (z1 - z0)), rows],
            mask[z0 + int(low * (z1 - z0)) : z0 + int((low + 0.4) * (z1 - z0)), rows],
            x,
        )
        for low in (0.1, 0.3, 0.5)
    ]
    heart = float(np.mean(shares)) / HEART_SHARE
    dome_mm = (_dome(right) - _dome(left)) * WORK_MM
    dome = dome_mm / DOME_MM if abs(dome_mm) <= MOST_DOME_MM else 0.0
    return float(np.clip(heart, -MOST_EVIDENCE, MOST_EVIDENCE) + dome)


def _leftness(hu: NDArray[np.float32], mask: Mask, x: int) -> float:
    """Return the share of the soft tissue between the lungs on the left minus the share on the right."""
    per_column = ((hu > SOFT_TISSUE_HU) & between_lungs(mask)).sum(axis=(0, 1))
    total = int(per_column.sum())
    return float(per_column[x + 1 :].sum() - per_column[:x].sum()) / total if total else 0.0


def _dome(lung: Mask) -> float:
    """Return the height of the diaphragm below the middle of a lung, in voxels."""
    columns = lung.any(axis=0)
    lowest = np.where(lung, np.arange(lung.shape[0])[:, None, None], lung.shape[0]).min(axis=0)
    depth = ndimage.distance_transform_edt(columns)
    return float(np.median(lowest[depth > 0.4 * depth.max()]))
