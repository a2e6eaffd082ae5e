"""From a change map to regions: components above a threshold, one sign each, fragments joined."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from ChangeMapJointLib.core.grid import FloatArray, Grid, bounding_box

BoolArray = NDArray[np.bool_]
IndexArray = NDArray[np.intp]
SignedArray = NDArray[np.int16] | NDArray[np.float32]

CONNECTIVITY_RANK = {6: 1, 18: 2, 26: 3}
_MOST_BRIDGE_VOXELS = 2_000_000  # beyond that the map is broken, and joining fragments only costs time


@dataclass(frozen=True)
class Region:
    """Voxels that changed in one direction and belong together.

    Attributes:
        sign: +1 denser now, -1 less dense now.
        voxels: ``[n, 3]`` indices (z, y, x) on the map's grid, sorted.
        values: the change map there, float32 ``[n]`` in [0, 1].
    """

    sign: int
    voxels: IndexArray
    values: NDArray[np.float32]

    @cached_property
    def peak(self) -> float:
        """Largest value of the change map."""
        return float(self.values.max())

    @property
    def weight(self) -> float:
        """Voxels times peak: what regions are ordered by."""
        return len(self.voxels) * self.peak

    def points_mm(self, grid: Grid) -> FloatArray:
        """Physical points ``[n, 3]`` in (x, y, z) LPS of its voxels on ``grid``."""
        return grid.to_physical(self.voxels[:, ::-1])

    def merged_with(self, others: list[Region]) -> Region:
        """This region and others of its sign as one."""
        if not others:
            return self
        voxels = np.concatenate([self.voxels, *(o.voxels for o in others)])
        values = np.concatenate([self.values, *(o.values for o in others)])
        order = np.lexsort(voxels.T[::-1])
        return Region(self.sign, voxels[order], values[order])


def change_regions(
    change_map: NDArray[np.float32],
    signed_hu: SignedArray,
    grid: Grid,
    *,
    threshold: float,
    min_voxels: int,
    connectivity: int,
    merge_mm: float,
    bridge: float,
) -> list[Region]:
    """Components of ``change_map >= threshold``, increases and decreases apart, largest weight first.

    Components below ``min_voxels`` are dropped. Two that are left become one region where a path of weaker change
    of the same sign, at least ``bridge * threshold`` and nowhere farther than ``merge_mm / 2`` from
    a component, joins them: the fragments of the shell round a grown lesion.

    Args:
        change_map: float32 ``[z, y, x]`` in [0, 1].
        signed_hu: R - T(y) in HU; only its sign counts, 0 as an increase.
        grid: the maps' grid.
        threshold: lowest value of a component, in (0, 1].
        min_voxels: smallest component kept.
        connectivity: 6, 18 or 26 neighbours.
        merge_mm: widest gap that is bridged; 0 joins nothing.
        bridge: fraction of the threshold that the gap must reach.

    Returns:
        The regions; voxels of the weaker bridges do not belong to them.
    """
    above = change_map >= threshold
    if not above.any():
        return []
    start, stop = bounding_box(above)
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    structure = ndimage.generate_binary_structure(3, CONNECTIVITY_RANK[connectivity])
    regions = []
    for sign in (1, -1):
        direction = (signed_hu[box] >= 0) == (sign > 0)
        labels = _large_components(above[box] & direction, structure, min_voxels)
        if merge_mm > 0:
            weak = (change_map[box] >= bridge * threshold) & direction
            labels = _joined(labels, weak, grid, structure, merge_mm)
        regions += [
            Region(sign, voxels + start, change_map[box][tuple(voxels.T)]) for voxels in _voxels_by_label(labels)
        ]
    return sorted(regions, key=lambda region: (-region.weight, tuple(region.voxels[0])))


def _large_components(mask: BoolArray, structure: BoolArray, min_voxels: int) -> NDArray[np.int32]:
    labels, count = ndimage.label(mask, structure)
    large = np.bincount(labels.ravel(), minlength=count + 1) >= min_voxels
    large[0] = False
    labels[~large[labels]] = 0
    return np.asarray(labels, dtype=np.int32)


def _joined(
    labels: NDArray[np.int32], weak: BoolArray, grid: Grid, structure: BoolArray, merge_mm: float
) -> NDArray[np.int32]:
    """Labels with the components that a near bridge of weak change connects made one."""
    core = labels > 0
    islands, count = ndimage.label(weak | core, structure)
    pairs = np.unique(np.column_stack([islands[core], labels[core]]), axis=0)
    several = np.bincount(pairs[:, 0], minlength=count + 1) > 1  # islands with more than one component
    between = np.argwhere(several[islands] & ~core)
    if not len(between) or len(between) > _MOST_BRIDGE_VOXELS:
        return labels
    spacing = np.asarray(grid.spacing_mm)[::-1]
    tree = KDTree(np.argwhere(several[islands] & core) * spacing)
    distance, _ = tree.query(between * spacing, distance_upper_bound=merge_mm / 2 + 1e-6)
    bridges = core.copy()
    bridges[tuple(between[np.isfinite(distance)].T)] = True
    joined, _ = ndimage.label(bridges, structure)
    joined[~core] = 0
    return np.asarray(joined, dtype=np.int32)


def _voxels_by_label(labels: NDArray[np.int32]) -> list[IndexArray]:
    """The sorted voxels (z, y, x) of every label above 0."""
    voxels = np.argwhere(labels)
    if not len(voxels):
        return []
    owner = labels[tuple(voxels.T)]
    order = np.argsort(owner, kind="stable")
    ends = np.flatnonzero(np.diff(owner[order])) + 1
    return np.split(voxels[order], ends)
