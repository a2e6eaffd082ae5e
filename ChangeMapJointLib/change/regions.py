"""Regions of a change map: components above a threshold, each of one sign, with fragments merged."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from ChangeMapJointLib.core.filters import label_sizes
from ChangeMapJointLib.core.grid import FloatArray, Grid, bounding_box

BoolArray = NDArray[np.bool_]
IndexArray = NDArray[np.intp]
SignedArray = NDArray[np.int16] | NDArray[np.float32]

CONNECTIVITY_RANK = {6: 1, 18: 2, 26: 3}
_MOST_BRIDGE_VOXELS = 2_000_000  # with more, the map is broken, and merging fragments only takes time


@dataclass(frozen=True)
class Region:
    """A connected set of voxels that changed in the same direction.

    Attributes:
        sign: +1 denser now, -1 less dense now.
        voxels: ``[n, 3]`` indices (z, y, x) on the map's grid, sorted.
        values: values of the change map there, float32 ``[n]`` in [0, 1].
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
        """Number of voxels times peak, by which regions are sorted."""
        return len(self.voxels) * self.peak

    def points_mm(self, grid: Grid) -> FloatArray:
        """Points ``[n, 3]`` of its voxels on ``grid`` (x, y, z in mm, LPS)."""
        return grid.to_physical(self.voxels[:, ::-1])

    def merged_with(self, others: list[Region]) -> Region:
        """This region merged with others of the same sign."""
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
    """Find the components of ``change_map >= threshold``, separately for increases and decreases.

    Components with fewer than ``min_voxels`` voxels are dropped. Two others are merged into one region, such as the
    fragments of the shell around a grown lesion, where a path of weaker change of the same sign connects them: at least
    ``bridge * threshold``, and nowhere farther than ``merge_mm / 2`` from a component.

    Args:
        change_map: float32 ``[z, y, x]`` in [0, 1].
        signed_hu: R - T(y) in HU; only its sign is used, and 0 counts as an increase.
        grid: grid of the maps.
        threshold: lowest value of a component, in (0, 1].
        min_voxels: smallest number of voxels of a component.
        connectivity: 6, 18 or 26 neighbours.
        merge_mm: widest gap that is bridged; 0 merges nothing.
        bridge: lowest value in the gap, as a fraction of the threshold.

    Returns:
        The regions, the largest weight first, without the voxels of the gaps.
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
            labels = _merge_fragments(labels, weak, grid, structure, merge_mm)
        regions += [
            Region(sign, voxels + start, change_map[box][tuple(voxels.T)]) for voxels in _voxels_by_label(labels)
        ]
    return sorted(regions, key=lambda region: (-region.weight, tuple(region.voxels[0])))


def _large_components(mask: BoolArray, structure: BoolArray, min_voxels: int) -> NDArray[np.int32]:
    """Labels of the components with at least ``min_voxels`` voxels, 0 elsewhere."""
    labels, count = ndimage.label(mask, structure)
    large = label_sizes(labels, minlength=count + 1) >= min_voxels
    large[0] = False
    labels[~large[labels]] = 0
    return np.asarray(labels, dtype=np.int32)


def _merge_fragments(
    labels: NDArray[np.int32], weak: BoolArray, grid: Grid, structure: BoolArray, merge_mm: float
) -> NDArray[np.int32]:
    """The labels after merging components that a short bridge of weak change connects."""
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
    """The sorted voxels (z, y, x) of each label above 0."""
    voxels = np.argwhere(labels)
    if not len(voxels):
        return []
    owner = labels[tuple(voxels.T)]
    order = np.argsort(owner, kind="stable")
    ends = np.flatnonzero(np.diff(owner[order])) + 1
    return np.split(voxels[order], ends)
