"""The patient's body in a scan, and which air lies inside it.

Table, blanket, gown, wires and separate arms are excluded. Air around the patient is never inside, whatever objects it
contains. Lungs that the field of view cuts off are inside, although they are open to its edge.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.filters import (
    IN_PLANE,
    Mask,
    fill_slices,
    label_sizes,
    label_slices,
    largest_component,
    opening,
)

Hu = NDArray[np.float32]

_SKIN_MM = 4.0  # thicker than a table's shell, clothes and cables; thinner than the chest wall
_WALL_MM = 6.0  # half of the thinnest chest wall; tables and arms are rarely attached to the body by more
_CORE_VOX = 2  # at this distance from tissue within the slice, density is free of partial volume
_DARKEST_HU = -988.0  # lowest median of lung, including emphysema; air around the patient is usually darker
_FOAM_HU = -900.0  # mattresses and cushions are never denser
_PATTERN_HU = 20.0  # local standard deviation: vessels make lung rough, air and foam are smooth
_LUNG_HU, _VESSELS_HU = -940.0, 25.0  # density and pattern required where nothing else indicates lung
_EVERY_VOXEL, _STEP = 1000, 7  # in spaces with more voxels than this, every seventh is sampled
_WINDOW_VOX = 5  # window of the local standard deviation
_SHARE = 0.5  # of a space that must have body on enough sides, or lung in the next slice
_LUNG_MM = 8.0  # a ball of this radius fits into enclosed lung; gaps beside arms and table are mostly thinner
_LEAST_MM2 = 150.0  # smaller spaces at the edge of a slice are folds of the skin
_LEAST_SHARE = 0.02  # of the body's volume: less open lung is ignored


def inside_body(hu: Hu, unseen: Mask, air_hu: float, spacing_mm: float, *, strict: bool = False) -> Mask:
    """The patient without table and clothes, with lungs and other cavities filled.

    A lung that the field of view cuts off is open to the edge of the scan in some or all slices. The chest wall lies
    between such a lung and the air around the patient, so that they are separate spaces in each slice. They are told
    apart by density, by the pattern of vessels, and by how far the body surrounds them.

    Args:
        hu: ``[z, y, x]``, isotropic.
        unseen: bool ``[z, y, x]``: where nothing was measured.
        air_hu: air and lung are below this density.
        spacing_mm: voxel size of the arrays.
        strict: include only cavities that the body encloses within a slice, and no parts of the body that are thinner
            than the chest wall.

    Returns:
        bool ``[z, y, x]``.
    """
    air = hu < air_hu
    body = largest_component(opening(~air & ~unseen, _WALL_MM if strict else _SKIN_MM, spacing_mm))
    inside = fill_slices(body)
    if strict:
        return inside
    enclosed = inside & air
    lung = _open_lung(hu, ~inside & ~unseen & air, body, opening(enclosed, _LUNG_MM, spacing_mm), spacing_mm)
    if lung.any():
        spaces, count = ndimage.label(lung | enclosed)
        voxels = label_sizes(spaces, minlength=count + 1)
        lung &= (voxels > _LEAST_SHARE * inside.sum())[spaces]
    return inside | lung


def _open_lung(hu: Hu, open_air: Mask, body: Mask, enclosed: Mask, spacing_mm: float) -> Mask:
    """The spaces of ``open_air`` in each slice that are lung.

    Spaces with body on three sides come first: lung that one side of the field of view cuts off. From them, and from
    lungs that the body encloses, lung is followed upwards and downwards. Where there are neither, as in a field of
    view inside the chest, body on two sides is enough.
    """
    labels, count = label_slices(open_air)
    area = label_sizes(labels, minlength=count + 1)
    area[0] = 0
    inner = np.flatnonzero(ndimage.binary_erosion(open_air, IN_PLANE, iterations=_CORE_VOX, border_value=1))
    sampled = inner[(area[labels.ravel()[inner]] < _EVERY_VOXEL) | (inner % _STEP == 0)]  # enough for medians
    inner_labels = labels.ravel()[sampled]
    numbers = np.flatnonzero(area * spacing_mm**2 >= _LEAST_MM2)
    numbers = numbers[np.bincount(inner_labels, minlength=count + 1)[numbers] > 0]
    if not numbers.size:
        return np.zeros(hu.shape, dtype=bool)
    density = np.asarray(ndimage.median(hu.ravel()[sampled], inner_labels, numbers))
    pattern = np.zeros(len(numbers))
    dense = density > _DARKEST_HU  # of others, air around the patient, the pattern does not matter
    if dense.any():
        chosen = np.zeros(count + 1, dtype=bool)
        chosen[numbers[dense]] = True
        there = sampled[chosen[inner_labels]]
        pattern[dense] = ndimage.median(_local_spread(hu, there), labels.ravel()[there], numbers[dense])
    sides = _sides(body)
    likely = (density > _DARKEST_HU) & ((pattern > _PATTERN_HU) | (density > _FOAM_HU))

    def surrounded(least: int) -> NDArray[np.bool_]:
        return np.bincount(labels[sides >= least], minlength=count + 1)[numbers] >= _SHARE * area[numbers]

    def spaces(chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        table = np.zeros(count + 1, dtype=bool)
        table[numbers[chosen]] = True
        return table

    lung = _follow(labels, area, spaces(likely), spaces(likely & surrounded(3)), enclosed)
    if (lung | enclosed).sum() < _LEAST_SHARE * body.sum():
        lung = spaces((density > _LUNG_HU) & (pattern > _VESSELS_HU) & surrounded(2))[labels]
    return lung


def _follow(
    labels: NDArray[np.int32],
    area: NDArray[np.int64],
    likely: NDArray[np.bool_],
    certain: NDArray[np.bool_],
    enclosed: Mask,
) -> Mask:
    """The ``certain`` spaces, and the ``likely`` ones above or below lung; both tables are indexed by label."""
    lung: Mask = certain[labels]
    for order in (range(1, len(labels)), range(len(labels) - 2, -1, -1)):
        step = order.step
        for z in order:
            known = lung[z - step] | enclosed[z - step]
            if known.any():
                over = np.bincount(labels[z][known], minlength=len(area))
                lung[z] |= (likely & (over >= _SHARE * area))[labels[z]] & (labels[z] > 0)
    return lung


def _local_spread(hu: Hu, voxels: NDArray[np.intp]) -> Hu:
    """Standard deviation in a cube around ``voxels``, raveled indices ``[n]``: float32 ``[n]``."""
    index = np.unravel_index(voxels, hu.shape)
    start = [max(int(i.min()) - _WINDOW_VOX, 0) for i in index]
    box = tuple(slice(a, int(i.max()) + 1 + _WINDOW_VOX) for a, i in zip(start, index, strict=True))
    inside = tuple(i - a for a, i in zip(start, index, strict=True))
    values = hu[box] + np.float32(900)  # keeps float32 squares accurate
    mean = ndimage.uniform_filter(values, _WINDOW_VOX)[inside]
    square = ndimage.uniform_filter(values**2, _WINDOW_VOX)[inside]
    deviation: NDArray[np.float32] = np.sqrt(np.maximum(square - mean**2, 0))
    return deviation


def _sides(body: Mask) -> NDArray[np.uint8]:
    """On how many of its four sides within the slice each voxel has body, uint8 ``[z, y, x]``."""
    sides = np.zeros(body.shape, dtype=np.uint8)
    for axis in (1, 2):
        sides += np.maximum.accumulate(body, axis=axis)
        sides += np.flip(np.maximum.accumulate(np.flip(body, axis), axis=axis), axis)
    return sides
