"""Conditions of the chest, simulated on real CT, for ``gate.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.scan.lungs import LEFT, RIGHT, Lungs
from ChangeMapJointLib.scan.volume import Volume

Known = tuple[Volume, Lungs]


def relabelled(lungs: Lungs, labels: NDArray[np.uint8]) -> Lungs:
    """Other labels on the same grid."""
    ml = lungs.grid.voxel_volume_ml
    return Lungs(labels, lungs.grid, float((labels == RIGHT).sum() * ml), float((labels == LEFT).sum() * ml))


def hu(volume: Volume, values: NDArray[np.floating]) -> Volume:
    """The scan with other values, rounded."""
    return replace(volume, array=np.clip(np.rint(values), -1024, 3071).astype(np.int16))


def noisy(volume: Volume, sigma_hu: float, seed: int = 1) -> Volume:
    """White noise on top."""
    return hu(volume, volume.array + np.random.default_rng(seed).normal(0.0, sigma_hu, volume.array.shape))


def part_of(scan: Known, side: int, axis: int, share: float, last: bool) -> NDArray[np.bool_]:
    """A share of a lung at one end of an LPS axis (0 z, 1 y), ``last``: head or back; vessels with it."""
    volume, lungs = scan
    labels, _ = volume.grid.lps_view(lungs.labels)
    lung = labels == side
    along = lung.sum(axis=tuple(other for other in range(3) if other != axis)).cumsum()
    place = np.searchsorted(along, along[-1] * (1 - share if last else share))
    rows = np.arange(lung.shape[axis]) >= place if last else np.arange(lung.shape[axis]) < place
    shape = [1, 1, 1]
    shape[axis] = -1
    where = np.zeros(volume.array.shape, dtype=bool)
    view, _ = volume.grid.lps_view(where)
    view[:] = lung & rows.reshape(shape)
    return where


def filled(volume: Volume, where: NDArray[np.bool_], value_hu: float, sigma_hu: float = 15.0) -> Volume:
    """Another density at some voxels."""
    array = volume.array.astype(np.float32)
    array[where] = value_hu + np.random.default_rng(2).normal(0.0, sigma_hu, int(where.sum()))
    return hu(volume, array)


def with_metal(scan: Known, radius_mm: float = 10.0) -> Volume:
    """A metal sphere in the chest wall before the left lung, with streaks in its slices."""
    volume, lungs = scan
    array = volume.array.astype(np.float32)
    view, grid = volume.grid.lps_view(array)
    labels, _ = volume.grid.lps_view(lungs.labels)
    z, _, x = (int(v) for v in np.argwhere(labels == LEFT).mean(axis=0))
    y = max(int(np.flatnonzero((labels == LEFT).any(axis=(0, 2)))[0]) - 4, 2)
    k, j, i = np.ogrid[: view.shape[0], : view.shape[1], : view.shape[2]]
    dz, dy, dx = ((a - b) * h for a, b, h in zip((k, j, i), (z, y, x), grid.spacing_mm[::-1], strict=True))
    near = np.exp(-np.hypot(dy, dx) / 60.0) * (np.abs(dz) < radius_mm)
    view += 300.0 * np.sin(12 * np.arctan2(dy, dx)) * near
    view[dz**2 + dy**2 + dx**2 < radius_mm**2] = 3071
    return hu(volume, array)


def with_contrast(scan: Known, rise_hu: float = 150.0) -> Volume:
    """Denser soft tissue between the lungs."""
    volume, lungs = scan
    labels, _ = volume.grid.lps_view(lungs.labels > 0)
    array = volume.array.astype(np.float32)
    view, _ = volume.grid.lps_view(array)
    before = np.maximum.accumulate(labels, axis=2)
    behind = np.flip(np.maximum.accumulate(np.flip(labels, 2), axis=2), 2)
    heart = before & behind & ~labels & (ndimage.uniform_filter(view, 3) > 0) & (view < 200)
    view[heart] += rise_hu
    return hu(volume, array)


def simulated(scan: Known) -> Iterator[tuple[str, str, Callable[[], Volume]]]:
    """Name of the condition, the rule that must say so, and what makes the scan."""
    volume = scan[0]
    kinds = (  # axis, share, at its end, HU, noise
        ("effusion, 25 %", "fluid_percent", 1, 0.25, True, 10.0, 15.0),
        ("pneumothorax, 15 %", "gas_percent", 1, 0.15, False, -1005.0, 8.0),
        ("consolidation, 25 %", "dense_percent", 0, 0.25, False, 40.0, 15.0),
        ("pneumonectomy, all", "one_lung", 0, 1.01, False, 25.0, 15.0),
    )
    for side, name in ((RIGHT, "right"), (LEFT, "left")):
        for words, rule, axis, share, last, value_hu, sigma_hu in kinds:
            place, density = (side, axis, share, last), (value_hu, sigma_hu)
            yield f"{words} of the {name} lung", rule, lambda p=place, d=density: filled(volume, part_of(scan, *p), *d)
    yield "metal, 4 ml", "metal_ml", lambda: with_metal(scan)
    yield "contrast agent in one scan, 150 HU", "blood_hu", lambda: with_contrast(scan)
    yield "noise of 120 HU", "noise_hu", lambda: noisy(volume, 120.0)
