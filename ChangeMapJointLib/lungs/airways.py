"""Trachea and main bronchi: detect the trachea, then grow it until it would leak into the lung."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.filters import Mask, dilate, erode, label_sizes, label_slices, opening

_LUMEN_HU = -700.0  # every trachea is darker than this, including partial volume
_AREA_MM2 = (40.0, 800.0)  # lumen of a child's trachea, and of a wide carina
_LENGTH_MM = 16.0  # shortest trachea
_GROW_HU = range(-960, -600, 20)
_LEAK_ML = 100.0  # trachea and bronchi hold 20 to 60 ml; a larger volume includes lung
_MAIN_RADIUS_MM = 4.0  # lobar bronchi are thinner
_WALL_MM = 2.0


@dataclass(frozen=True)
class Airways:
    """The central airways on the working grid.

    Attributes:
        tree: lumen of all airways that were reached, bool ``[z, y, x]``; empty without a trachea.
        main: trachea and main bronchi with their walls.
        middle_vox: mean (y, x) of the trachea; None without one.
    """

    tree: Mask
    main: Mask
    middle_vox: tuple[float, float] | None


def find_airways(hu: NDArray[np.float32], inside: Mask, lower_vox: float, spacing_mm: float) -> Airways:
    """Find trachea and bronchi on the working grid.

    Args:
        hu: ``[z, y, x]``, +z to the head, isotropic.
        inside: bool ``[z, y, x]``: the body with all that it encloses.
        lower_vox: slices below this are not searched for a trachea, since bowel lies there.
        spacing_mm: voxel size of ``hu``.
    """
    empty = np.zeros(hu.shape, dtype=bool)
    trachea = _trachea(hu, inside, lower_vox, spacing_mm)
    if trachea is None:
        return Airways(empty, empty, None)
    tree = _grow(hu, inside, trachea, spacing_mm)
    _, y, x = np.nonzero(trachea)
    wide = opening(tree, _MAIN_RADIUS_MM, spacing_mm) | trachea
    labels, _ = ndimage.label(wide)
    main = np.isin(labels, np.unique(labels[trachea]))
    return Airways(tree, dilate(main, _WALL_MM, spacing_mm), (float(y.mean()), float(x.mean())))


def _trachea(hu: NDArray[np.float32], inside: Mask, lower_vox: float, spacing_mm: float) -> Mask | None:
    """The longest stack of round dark spots near the middle: the lumen above the carina; None where there is none."""
    labels, count = label_slices(inside & (hu < _LUMEN_HU))
    area_mm2 = label_sizes(labels, minlength=count + 1) * spacing_mm**2
    round_spot = np.zeros(count + 1, dtype=bool)
    columns = np.flatnonzero(inside.any(axis=(0, 1)))
    if columns.size == 0:
        return None
    middle, reach = (columns[0] + columns[-1]) / 2, 0.2 * (columns[-1] - columns[0])
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None or not _AREA_MM2[0] <= area_mm2[number] <= _AREA_MM2[1]:
            continue
        height, width = ((s.stop - s.start) * spacing_mm for s in box[1:])
        slim = max(height, width) > 2.5 * min(height, width) or area_mm2[number] < 0.5 * height * width
        central = abs((box[2].start + box[2].stop - 1) / 2 - middle) <= reach
        round_spot[number] = not slim and central and box[0].start >= lower_vox
    stacks, count = ndimage.label(round_spot[labels])
    lengths = [(box[0].stop - box[0].start) * spacing_mm for box in ndimage.find_objects(stacks)]
    if count == 0 or max(lengths) < _LENGTH_MM:
        return None
    longest: NDArray[np.bool_] = stacks == int(np.argmax(lengths)) + 1
    return longest


def _grow(hu: NDArray[np.float32], inside: Mask, trachea: Mask, spacing_mm: float) -> Mask:
    """The largest connected lumen around ``trachea`` that does not leak into the lung.

    What is connected below one threshold is so below the next one, too. The lumen is therefore followed from voxel to
    voxel, threshold by threshold, until it leaks: that is less than 100 ml of the scan.
    """
    core = erode(trachea, 2.0, spacing_mm)
    seeds = np.flatnonzero(np.pad(core if core.any() else trachea, 1))
    values = np.ascontiguousarray(np.pad(np.where(inside, hu, np.float32(np.inf)), 1, constant_values=np.inf))
    flat, met, most = values.ravel(), np.zeros(values.size, dtype=bool), _LEAK_ML * 1000 / spacing_mm**3
    met[seeds] = True
    strides = [sign * stride // values.itemsize for stride in values.strides for sign in (-1, 1)]
    waiting: list[list[int]] = [[] for _ in range(len(_GROW_HU) + 1)]  # for the first threshold above each voxel
    for index in seeds.tolist():
        waiting[bisect_right(_GROW_HU, flat[index])].append(index)
    reached: list[int] = []
    lumen = 0  # of ``reached``: what the last threshold without a leak gives
    for now, queue in enumerate(waiting[:-1]):
        while queue and len(reached) <= most:
            index = queue.pop()
            reached.append(index)
            for neighbour in [index + stride for stride in strides if not met[index + stride]]:
                met[neighbour] = True
                waiting[max(bisect_right(_GROW_HU, flat[neighbour]), now)].append(neighbour)
        if len(reached) > most:
            break
        lumen = len(reached)
    tree = np.ascontiguousarray(np.pad(trachea, 1))
    tree.ravel()[reached[:lumen]] = True
    return tree[1:-1, 1:-1, 1:-1]
