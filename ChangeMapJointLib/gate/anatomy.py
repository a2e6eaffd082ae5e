"""Does the chest lie in the scan as the header says? Apices at the head, spine at the back, heart at the left.

Lung masks and density alone decide; table and arms are not looked at, so that a prone patient, whose spine is still
at the back, is as good as a supine one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.filters import Mask, nearest_parallel, resample_parallel
from ChangeMapJointLib.core.grid import Grid, bounding_box
from ChangeMapJointLib.core.hu import METAL_HU, NOT_SCANNED_HU, SOFT_TISSUE_HU
from ChangeMapJointLib.scan.lungs import Lungs
from ChangeMapJointLib.scan.volume import Volume

WORK_MM = 3.0  # of an adult; a child's chest is looked at as finely as its lungs are small, and all mm are an adult's
ADULT_ML, FINEST_MM = 4000.0, 0.7
MARGIN_VOX = 12
SPINE_HU = 250.0
NEAR_SPINE = 0.25  # of the lungs' half width: the spine is looked for there
SPINE_PERCENTILE = 25  # over the slices: only the spine is dense in nearly all of them
SMOOTH_MM = 8.0
SPINE_MM = 15.0  # from its middle to its front
DOME_MM, HEART_SHARE = 15.0, 0.3  # usual differences, which count as 1
MOST_DOME_MM, MOST_EVIDENCE = 20.0, 1.5  # a dome that is higher still was pushed there
CUT = 0.5  # of the largest section of the lungs: a scan that ends there shows neither heart nor domes
EQUAL = 0.6  # of the larger lung: with a smaller one the heart has moved


@dataclass(frozen=True)
class ChestView:
    """A scan round its lungs on a working grid with axes to the patient's left, back and head, by its header.

    Attributes:
        hu: float32 ``[z, y, x]``.
        lungs: uint8 labels, 1 right, 2 left.
        spacing_mm: of the working grid, along every axis.
        spine_vox: (y, x) of the spine's middle.
        front_back: how far spine and bones lie behind the lungs' middle, by the header, -1 to 1.
    """

    hu: NDArray[np.float32]
    lungs: NDArray[np.uint8]
    spacing_mm: float
    spine_vox: tuple[int, int]
    front_back: float

    @property
    def mask(self) -> Mask:
        """Either lung."""
        return self.lungs > 0


@dataclass(frozen=True)
class Orientation:
    """How far the anatomy agrees with the header; negative: it seems turned. None: it cannot be told.

    Attributes:
        head_feet: rise of both ends of the lungs towards their middle, over their height: an apex is a dome at the
            head, a diaphragm one that reaches into the lung from the feet.
        front_back: place of spine and bones between the front (-1) and the back (1) of the lungs.
        left_right: heart and domes: about 0.7 to 3 in a chest as usual.
    """

    head_feet: float
    front_back: float
    left_right: float | None


def chest_view(volume: Volume, lungs: Lungs) -> ChestView | None:
    """The scan round its lungs, coarse; None without lungs."""
    if not lungs.labels.any():
        return None
    array, grid = volume.grid.lps_view(volume.array)
    labels, _ = volume.grid.lps_view(lungs.labels)
    start, stop = bounding_box(labels > 0, 1)
    h = _spacing_mm(lungs.right_ml + lungs.left_ml)
    margin = [int(np.ceil(MARGIN_VOX * h / s)) for s in grid.spacing_mm[::-1]]
    first, last = np.maximum(np.subtract(start, margin), 0), np.minimum(np.add(stop, margin), grid.shape)
    box = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    part = grid.crop(first, last)
    work = part.with_spacing((h, h, h))
    hu = _coarse(array[box], part, work)
    coarse = nearest_parallel(labels[box], part, work)
    if not coarse.any():
        return None
    return ChestView(hu, coarse, h, *_spine(hu, coarse > 0))


def _spacing_mm(lungs_ml: float) -> float:
    """Fine enough for the lungs of a child."""
    return float(np.clip(WORK_MM * (lungs_ml / ADULT_ML) ** (1 / 3), FINEST_MM, WORK_MM))


def _coarse(array: NDArray[np.generic], grid: Grid, work: Grid) -> NDArray[np.float32]:
    """HU on ``work``: means over whole blocks of voxels first, which is much faster, then linearly."""
    import SimpleITK as sitk

    factors = [max(1, min(int(w / s), n)) for w, s, n in zip(work.spacing_mm, grid.spacing_mm, grid.size, strict=True)]
    image = sitk.BinShrink(grid.to_image(array), factors)
    blocks = sitk.GetArrayViewFromImage(image)
    return resample_parallel(blocks, Grid.of_image(image), work, clip=(NOT_SCANNED_HU, METAL_HU))


def between_lungs(mask: Mask) -> Mask:
    """What has lung on both sides of it in its row: heart, vessels, and the front of the spine."""
    before = np.maximum.accumulate(mask, axis=2)
    behind = np.flip(np.maximum.accumulate(np.flip(mask, 2), axis=2), 2)
    found: Mask = before & behind & ~mask
    return found


def _spine(hu: NDArray[np.float32], mask: Mask) -> tuple[tuple[int, int], float]:
    """(y, x) of the spine, and how far it and the other bones lie behind the lungs' middle, -1 to 1.

    The spine is the column near the middle that is dense in most slices. In a part of a chest, vessels with contrast
    agent are so, too; ribs, shoulder blades and the arches of the vertebrae, which are not between the lungs, say on
    which side of the lungs it is looked for.
    """
    (z0, y0, x0), (z1, y1, x1) = bounding_box(mask)
    cut = (z1 - z0) // 10
    column = np.percentile(hu[z0 + cut : max(z1 - cut, z0 + cut + 1)], SPINE_PERCENTILE, axis=0)
    column = ndimage.gaussian_filter(column, SMOOTH_MM / WORK_MM)
    middle, half = (x0 + x1 - 1) / 2, (x1 - x0) / 2
    column[:, np.abs(np.arange(hu.shape[2]) - middle) > NEAR_SPINE * half] = -np.inf
    across = (y0 + y1 - 1) / 2
    place = (int(np.unravel_index(int(column.argmax()), column.shape)[0]) - across) / max((y1 - y0) / 2, 1)
    box = (slice(z0, z1), slice(None), slice(x0, x1))
    rows = ((hu[box] > SPINE_HU) & ~between_lungs(mask[box])).sum(axis=(0, 2))
    bones = place
    if rows.sum():
        bones = (float((rows * np.arange(len(rows))).sum() / rows.sum()) - across) / max((y1 - y0) / 2, 1)
    column[: int(across)] = -np.inf if bones >= 0 else column[: int(across)]
    column[int(across) + 1 :] = -np.inf if bones < 0 else column[int(across) + 1 :]
    y, x = np.unravel_index(int(column.argmax()), column.shape)
    return (int(y), int(x)), float((place + bones) / 2)


def orientation(view: ChestView) -> Orientation:
    """How far the chest lies as the header says.

    The rules and bars are in :data:`~ChangeMapJointLib.gate.rules.RULES`; a mirrored scan and a patient with situs
    inversus look the same.
    """
    mask, (spine_y, spine_x) = view.mask, view.spine_vox
    (z0, y0, _), (z1, y1, _) = bounding_box(mask)
    halves = (mask[:, :, :spine_x], mask[:, :, spine_x:])
    rises = [_rise(half, top=top) for half in halves if half.any() for top in (True, False)]
    head_feet = float(np.mean(rises)) * 2 / max(z1 - z0, 1)
    back = 1 if spine_y >= (y0 + y1 - 1) / 2 else -1
    upright = slice(None, None, 1 if head_feet >= 0 else -1)
    return Orientation(head_feet, view.front_back, _left_right(view.hu[upright], mask[upright], view, back))


def _rise(half: Mask, *, top: bool) -> float:
    """How many voxels the middle of a lung's upper or lower surface lies above its rim."""
    columns = half.any(axis=0)
    z = np.arange(half.shape[0])[:, None, None]
    surface = np.where(half, z, -1).max(axis=0) if top else np.where(half, z, half.shape[0]).min(axis=0)
    depth = ndimage.distance_transform_edt(columns)
    middle, rim = columns & (depth > 0.5 * depth.max()), columns & (depth < 0.25 * depth.max())
    if not (middle.any() and rim.any()):
        return 0.0
    return float(np.median(surface[middle]) - np.median(surface[rim]))


def _left_right(hu: NDArray[np.float32], mask: Mask, view: ChestView, back: int) -> float | None:
    """Evidence that heart and domes are where they usually are; ``hu`` and ``mask`` with the head at the top."""
    spine_y, x = view.spine_vox
    right, left = mask[:, :, :x], mask[:, :, x:]
    smaller, larger = sorted((int(right.sum()), int(left.sum())))
    sections = mask.sum(axis=(1, 2))
    labelled = np.bincount(view.lungs.ravel(), minlength=3)[1:3]  # one lung alone may lie on both sides of the column
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
    """Of the soft tissue between the lungs, the share on the left less the share on the right."""
    across = ((hu > SOFT_TISSUE_HU) & between_lungs(mask)).sum(axis=(0, 1))
    total = int(across.sum())
    return float(across[x + 1 :].sum() - across[:x].sum()) / total if total else 0.0


def _dome(lung: Mask) -> float:
    """Height of the diaphragm under the middle of a lung, in voxels."""
    columns = lung.any(axis=0)
    lowest = np.where(lung, np.arange(lung.shape[0])[:, None, None], lung.shape[0]).min(axis=0)
    depth = ndimage.distance_transform_edt(columns)
    return float(np.median(lowest[depth > 0.4 * depth.max()]))
