"""Conditions of the chest that affect the comparison: a missing lung, fluid, dense lung, free air, metal.

They are detected by simple rules from the shape of the lung masks and from density. They tell a reader where to look;
they are not a diagnosis.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.filters import Mask, fill_slices, largest_component, opening
from ChangeMapJointLib.core.grid import bounding_box
from ChangeMapJointLib.core.hu import SOFT_TISSUE_HU, TISSUE_HU
from ChangeMapJointLib.gate.anatomy import WORK_MM, ChestView, Orientation
from ChangeMapJointLib.gate.answer import GateReason, reason
from ChangeMapJointLib.scan.beside_lung import BesideLung, beside_larger_lung
from ChangeMapJointLib.scan.lungs import LEFT, RIGHT, Lungs
from ChangeMapJointLib.scan.padding import unseen_mask
from ChangeMapJointLib.scan.volume import Volume

FLUID_HU = 30.0  # a lower median of the dense tissue in a lung suggests fluid
COLLAPSED_HU = (-50.0, 90.0)  # airless lung, smoothed
EMPTY_HU, IMPLANT_HU = -975.0, 2500.0
EDGE_MM, EDGE_HU = 6.0, -900.0  # free air ends within this at tissue of this median; emphysema fades into lung
THIN_MM, THICK_MM, GAS_MM = 6.0, 8.0, 5.0  # radii of openings that remove vessels and walls
AIRWAYS_MM = 30.0  # from the middle: trachea and main bronchi lie within
NAMES = {RIGHT: "right", LEFT: "left"}


@dataclass(frozen=True)
class DenseTissue:
    """Dense tissue in or behind a lung.

    Attributes:
        ml: its volume: within the lung mask, and behind it where the other lung, mirrored, has lung.
        hu: its median density.
    """

    ml: float
    hu: float


def condition_reasons(
    volume: Volume, lungs: Lungs, view: ChestView, agreement: Orientation, scan: str
) -> Iterator[GateReason | None]:
    """Yield the signs of such conditions in one scan.

    Args:
        volume: the scan.
        lungs: its lungs.
        view: both on the coarse grid.
        agreement: of the anatomy with the orientation in the header.
        scan: ``Reference`` or ``Template``.
    """
    beside = _beside(volume, lungs)
    one_sided = beside is not None and not beside.holds_a_lung
    both_ml = max(2 * max(lungs.right_ml, lungs.left_ml) if one_sided else lungs.right_ml + lungs.left_ml, 1e-6)
    yield _missing_lung(lungs, beside, scan)
    smooth = ndimage.gaussian_filter(view.hu, 1.0)
    for side in (RIGHT, LEFT):
        if one_sided and beside is not None and side == beside.side:
            continue  # what lies there belongs to the mediastinum
        dense = _dense_tissue(view, smooth, side, behind=agreement.front_back >= 0)
        rule = "fluid_percent" if dense.hu < FLUID_HU else "dense_percent"
        yield reason(rule, 100 * dense.ml / both_ml, scan=scan, side=NAMES[side], ml=f"{dense.ml:.0f}")
    for side, gas_ml in _gas_ml(view, smooth).items():
        yield reason("gas_percent", 100 * gas_ml / both_ml, scan=scan, side=NAMES[side], ml=f"{gas_ml:.0f}")
    metal_ml = _metal_ml(volume, lungs)
    yield reason("metal_ml", metal_ml, scan=scan, ml=f"{metal_ml:.1f}")


def _beside(volume: Volume, lungs: Lungs) -> BesideLung | None:
    """Measure what the scan shows beside the larger lung."""
    labels, grid = volume.grid.lps_view(lungs.labels)
    unseen = unseen_mask(volume)
    return beside_larger_lung(labels, grid, None if unseen is None else volume.grid.lps_view(unseen)[0])


def _missing_lung(lungs: Lungs, beside: BesideLung | None, scan: str) -> GateReason | None:
    """Return the reason why one lung is missing or small: the field of view, or else the patient."""
    ml = {RIGHT: lungs.right_ml, LEFT: lungs.left_ml}
    small = min(ml, key=lambda side: ml[side])
    large = RIGHT + LEFT - small
    if beside is not None and not beside.holds_a_lung:
        amount = f"{ml[small] / 1000:.1f} l" if ml[small] else "nothing"
        words = {"side": NAMES[small], "larger": NAMES[large], "amount": amount, "ends": beside.ends}
        return reason("one_sided", 100 * beside.share, scan=scan, **words)
    liters = {"small": f"{ml[small] / 1000:.1f}", "large": f"{ml[large] / 1000:.1f}"}
    return reason("one_lung", 100 * ml[small] / max(ml[large], 1e-6), scan=scan, side=NAMES[small], **liters)


def _radius(view: ChestView, radius_mm: float) -> float:
    """Scale a radius given for an adult to the size of the chest."""
    return radius_mm * view.spacing_mm / WORK_MM


def _dense_tissue(view: ChestView, smooth: NDArray[np.float32], side: int, *, behind: bool) -> DenseTissue:
    """Measure the dense tissue of one side; ``behind`` says that the spine is at the end of y."""
    lung, other, h = view.lungs == side, view.lungs == RIGHT + LEFT - side, view.spacing_mm
    inside = opening((smooth > SOFT_TISSUE_HU) & lung, _radius(view, THIN_MM), h)
    x = view.spine_vox[1]
    source = 2 * x - np.arange(lung.shape[2])
    valid = (source >= 0) & (source < lung.shape[2])
    mirrored = np.zeros_like(other)
    mirrored[:, :, valid] = other[:, :, source[valid]]
    beside = mirrored & ~view.mask & (smooth > COLLAPSED_HU[0]) & (smooth < COLLAPSED_HU[1])
    (_, first, _), (_, last, _) = bounding_box(view.mask)
    middle = (first + last - 1) // 2
    beside[:, slice(0, middle) if behind else slice(middle, None)] = False  # heart and great vessels
    dense = inside | opening(beside, _radius(view, THICK_MM), h)
    voxels = int(dense.sum())
    return DenseTissue(voxels * h**3 / 1000, float(np.median(view.hu[dense])) if voxels else 0.0)


def _gas_ml(view: ChestView, smooth: NDArray[np.float32]) -> dict[int, float]:
    """Measure air without tissue inside the body by side, in ml, except near the middle, where the airways are."""
    h, x = view.spacing_mm, view.spine_vox[1]
    body = largest_component(opening(view.hu > TISSUE_HU, _radius(view, GAS_MM), h))
    inside = (fill_slices(body) | view.mask) & _slices_with_lung(view.mask)
    empty = opening((smooth < EMPTY_HU) & inside, _radius(view, GAS_MM), h)
    empty = _with_sharp_edge(empty, view)
    reach = round(AIRWAYS_MM / WORK_MM)
    sides = {RIGHT: empty[:, :, : max(x - reach, 0)], LEFT: empty[:, :, x + reach :]}
    return {side: int(part.sum()) * h**3 / 1000 for side, part in sides.items()}


def _with_sharp_edge(empty: Mask, view: ChestView) -> Mask:
    """Keep the pockets of air that end at tissue, as free air and bullae do; emphysema fades into the lung."""
    labels, _ = ndimage.label(empty)
    h = view.spacing_mm
    near, far = _radius(view, EDGE_MM), _radius(view, EDGE_MM) + h
    margin = int(np.ceil(far / h))
    kept = np.zeros(empty.shape, dtype=bool)
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        around = tuple(slice(max(side.start - margin, 0), side.stop + margin) for side in box)
        pocket = labels[around] == number
        distance = ndimage.distance_transform_edt(~pocket) * h
        edge = view.hu[around][(distance > near) & (distance <= far)]
        if edge.size and np.median(edge) > EDGE_HU:
            kept[around] |= pocket
    return kept


def _slices_with_lung(mask: Mask) -> Mask:
    """Return the slices with lung, bool ``[z, 1, 1]``; below them is the bowel."""
    return np.asarray(mask.any(axis=(1, 2)))[:, None, None]


def _metal_ml(volume: Volume, lungs: Lungs) -> float:
    """Return the volume of metal in the bounding box of the lungs, with a margin of 40 mm, in ml."""
    start, stop = bounding_box(lungs.labels > 0, [int(np.ceil(40.0 / s)) for s in volume.grid.spacing_mm[::-1]])
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    return float((volume.array[box] > IMPLANT_HU).sum() * volume.grid.voxel_volume_ml)
