"""Findings at any threshold, at once: the components of a change map while a slider moves.

The voxels above a floor are sorted by their value, and joined by a minimum spanning forest whose edges are ordered by
the weaker of the two voxels. The components of ``change_map >= t`` are then those of a prefix of that forest: the same
components that labelling the map would give, for a fraction of the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from ChangeMapJointLib.change.regions import CONNECTIVITY_RANK, SignedArray
from ChangeMapJointLib.core.grid import FloatArray, Grid, Vector3

FLOOR = 0.1  # weaker change is noise
MOST_VOXELS = 400_000  # a map with more above the floor is broken, or wants a higher threshold anyway


@dataclass(frozen=True)
class TreeRegion:
    """One component of the map at a threshold.

    Attributes:
        sign: +1 denser now, -1 less dense now.
        voxels: its size.
        volume_ml: its volume.
        peak: largest value of the change map in it, in [0, 1].
        peak_mm: where that is, physical (x, y, z) LPS.
        centre_mm: its centroid.
        key: names its peak voxel; the same at every threshold at which that voxel is the component's strongest.
        position: of its peak in :attr:`ThresholdTree.values`.
        component: its number in :meth:`ThresholdTree.components` at the same threshold.
    """

    sign: int
    voxels: int
    volume_ml: float
    peak: float
    peak_mm: Vector3
    centre_mm: Vector3
    key: int
    position: int
    component: int


@dataclass(frozen=True)
class ThresholdTree:
    """The components of one change map at every threshold from ``floor`` on.

    Attributes:
        grid: the map's grid.
        floor: lowest threshold that can be asked for.
        values: the map's values from ``floor`` on, float32 ``[n]``, descending.
        signs: +1 or -1, int8 ``[n]``.
        voxels: their flat indices on the grid, int64 ``[n]``.
        joins: edges of the spanning forest, ``[m, 2]`` positions in ``values``, the larger one first and ascending.
    """

    grid: Grid
    floor: float
    values: NDArray[np.float32]
    signs: NDArray[np.int8]
    voxels: NDArray[np.int64]
    joins: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        change_map: NDArray[np.float32],
        signed_hu: SignedArray,
        grid: Grid,
        *,
        floor: float = FLOOR,
        connectivity: int = 26,
        most_voxels: int = MOST_VOXELS,
    ) -> ThresholdTree:
        """Prepare ``change_map`` for a slider.

        Args:
            change_map: float32 ``[z, y, x]`` in [0, 1]; NaN counts as 0.
            signed_hu: R - T(y) in HU; only its sign counts, 0 as an increase.
            grid: the maps' grid.
            floor: lowest threshold wanted, above 0.
            connectivity: 6, 18 or 26 neighbours.
            most_voxels: the floor is raised until no more voxels than this are above it.

        Raises:
            ValueError: an array that does not have the grid's shape.
        """
        for name, array in (("change_map", change_map), ("signed_hu", signed_hu)):
            if array.shape != grid.shape:
                raise ValueError(
                    f"ThresholdTree.of() '{name}' must have the grid's shape {grid.shape}, got {array.shape}"
                )
        flat = np.ascontiguousarray(change_map).reshape(-1)
        voxels = np.flatnonzero(flat >= np.float32(floor)).astype(np.int64)
        values = flat[voxels]
        if len(voxels) > most_voxels:
            weakest = np.partition(values, len(values) - most_voxels)[len(values) - most_voxels]
            above = values > weakest  # whole steps of the value: no component is cut in half
            floor = float(values[above].min()) if above.any() else float(weakest)
            voxels, values = voxels[values >= floor], values[values >= floor]
        order = np.lexsort((voxels, -values))
        voxels, values = voxels[order], values[order]
        signs = np.where(np.asarray(signed_hu).reshape(-1)[voxels] >= 0, 1, -1).astype(np.int8)
        joins = _spanning_forest(voxels, signs, grid.shape, connectivity)
        return cls(grid, float(floor), values, signs, voxels, joins)

    def at(self, threshold: float, *, min_voxels: int = 1) -> list[TreeRegion]:
        """The components of ``change_map >= threshold``, the largest weight (voxels times peak) first.

        Args:
            threshold: in (0, 1]; below :attr:`floor` it counts as the floor.
            min_voxels: smaller components are left out.
        """
        count, label = self._labels(threshold)
        if not len(label):
            return []
        sizes = np.bincount(label, minlength=count)
        first = np.full(count, len(label))
        np.minimum.at(first, label, np.arange(len(label)))  # values descend: the first voxel is the peak
        index = np.stack(np.unravel_index(self.voxels[: len(label)], self.grid.shape)[::-1], axis=1).astype(float)
        centres = np.stack([np.bincount(label, index[:, i], count) / sizes for i in range(3)], axis=1)
        kept = np.flatnonzero(sizes >= min_voxels)
        kept = kept[np.argsort(-(sizes * self.values[first])[kept], kind="stable")]
        peaks, middles = self.grid.to_physical(index[first[kept]]), self.grid.to_physical(centres[kept])
        return [
            TreeRegion(
                sign=int(self.signs[first[i]]),
                voxels=int(sizes[i]),
                volume_ml=float(sizes[i]) * self.grid.voxel_volume_ml,
                peak=float(self.values[first[i]]),
                peak_mm=_vector(peak),
                centre_mm=_vector(middle),
                key=int(self.voxels[first[i]]),
                position=int(first[i]),
                component=int(i),
            )
            for i, peak, middle in zip(kept, peaks, middles, strict=True)
        ]

    def components(self, threshold: float) -> NDArray[np.int32]:
        """The number of the component of each of :attr:`values` that is at least ``threshold``, ``[k]``, k <= n."""
        return self._labels(threshold)[1]

    def _labels(self, threshold: float) -> tuple[int, NDArray[np.int32]]:
        """Number of components, and the component of every voxel that is above ``threshold``."""
        count = int(np.searchsorted(-self.values, -np.float32(max(threshold, self.floor)), side="right"))
        edges = self.joins[: np.searchsorted(self.joins[:, 0], count)]
        rows, columns = edges.T.astype(np.int32)
        graph = sparse.coo_array((np.ones(len(edges), bool), (rows, columns)), shape=(count, count))
        found, label = csgraph.connected_components(graph, directed=False) if count else (0, np.zeros(0, np.int32))
        return found, label

    def positions_of(self, points_mm: FloatArray) -> NDArray[np.int64]:
        """Positions in :attr:`values` of the voxels at physical points ``[k, 3]`` (LPS); -1 below the floor."""
        points = np.asarray(points_mm, dtype=float).reshape(-1, 3)
        index = np.rint(self.grid.to_index(points)).astype(int)[:, ::-1]
        inside = ((index >= 0) & (index < self.grid.shape)).all(axis=1)
        found = np.full(len(points), -1, dtype=np.int64)
        if len(self.voxels):
            wanted = np.ravel_multi_index(tuple(index[inside].T), self.grid.shape)
            order = np.argsort(self.voxels)
            nearest = order[np.minimum(np.searchsorted(self.voxels, wanted, sorter=order), len(order) - 1)]
            found[inside] = np.where(self.voxels[nearest] == wanted, nearest, -1)
        return found


def _spanning_forest(
    voxels: NDArray[np.int64], signs: NDArray[np.int8], shape: tuple[int, int, int], connectivity: int
) -> NDArray[np.int64]:
    """Edges that join neighbouring voxels of one sign as soon as the weaker one is above the threshold."""
    by_place = np.argsort(voxels)
    places = voxels[by_place]
    index = np.stack(np.unravel_index(places, shape), axis=1)
    steps = np.array([shape[1] * shape[2], shape[2], 1])
    pairs = []
    for offset in product((-1, 0, 1), repeat=3):
        move = int(np.dot(offset, steps))
        if offset <= (0, 0, 0) or np.abs(offset).sum() > CONNECTIVITY_RANK[connectivity]:
            continue  # half of the neighbours: the other half is the same edges
        inside = ((index + offset >= 0) & (index + offset < shape)).all(axis=1)
        found = np.searchsorted(places, places[inside] + move)
        there = found < len(places)
        here, found = np.flatnonzero(inside)[there], found[there]
        hit = places[found] == places[here] + move
        a, b = by_place[here[hit]], by_place[found[hit]]
        same = signs[a] == signs[b]
        pairs.append(np.stack([np.maximum(a, b), np.minimum(a, b)], axis=1)[same])
    edges = np.concatenate(pairs)
    weights = edges[:, 0] + 1.0  # the later of the two voxels in descending order decides; 0 would be no edge
    rows, columns = edges.T.astype(np.int32)  # csgraph takes no wider indices
    graph = sparse.coo_array((weights, (rows, columns)), shape=(len(voxels), len(voxels)))
    tree = csgraph.minimum_spanning_tree(graph.tocsr()).tocoo()
    joins = np.stack([np.maximum(tree.row, tree.col), np.minimum(tree.row, tree.col)], axis=1).astype(np.int64)
    return joins[np.argsort(joins[:, 0], kind="stable")]


def _vector(point: FloatArray) -> Vector3:
    x, y, z = (float(v) for v in point)
    return x, y, z
