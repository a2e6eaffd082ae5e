"""The components of a change map at any threshold, fast enough for a slider.

The voxels above a floor are sorted by value and connected by a minimum spanning forest, whose edges are ordered by the
weaker of their two voxels. The components of ``change_map >= t`` are then those of a prefix of the forest. They are the
same as those from labelling the map, in a fraction of the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from ChangeMapJointLib.change.regions import CONNECTIVITY_RANK, SignedArray
from ChangeMapJointLib.core.grid import FloatArray, Grid, Vector3

FLOOR = 0.1  # weaker change is noise
MOST_VOXELS = 400_000  # a map with more voxels above the floor is broken, or needs a higher threshold anyway


@dataclass(frozen=True)
class TreeRegion:
    """One component of the map at a threshold.

    Attributes:
        sign: +1 denser now, -1 less dense now.
        voxels: number of voxels.
        volume_ml: volume.
        peak: largest value of the change map in the component, in [0, 1].
        peak_mm: position of that value, physical (x, y, z) LPS.
        centre_mm: centroid.
        key: flat index of the peak voxel on the grid, the same at every threshold at which that voxel is the peak.
        position: index of the peak in :attr:`ThresholdTree.values`.
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
class StrongVoxels:
    """The voxels of a change map that are at least a floor: all that a tree needs of it.

    Attributes:
        grid: grid of the map.
        floor: the lowest value.
        values: of the map, float32 ``[n]``, descending.
        signs: sign of the change there, +1 or -1, int8 ``[n]``.
        voxels: flat indices of these voxels on the grid, int64 ``[n]``.
    """

    grid: Grid
    floor: float
    values: NDArray[np.float32]
    signs: NDArray[np.int8]
    voxels: NDArray[np.int64]

    @classmethod
    def of_signed(
        cls, signed: NDArray[np.float32], grid: Grid, *, floor: float = FLOOR, most_voxels: int = MOST_VOXELS
    ) -> StrongVoxels:
        """Take the voxels of a map that has the sign of the change; no other array of its size is made.

        Args:
            signed: float32 ``[z, y, x]`` in [-1, 1], denser now positive; NaN counts as 0.
            grid: grid of the map.
            floor: lowest value, > 0.
            most_voxels: largest number of voxels, see :meth:`ThresholdTree.of`.
        """
        flat, step = np.ascontiguousarray(signed).reshape(-1), max(signed[0].size, 1)
        least = np.float32(floor)
        parts = (
            start + np.flatnonzero(np.abs(flat[start : start + step]) >= least) for start in range(0, len(flat), step)
        )
        voxels = np.concatenate([*parts, np.zeros(0, np.int64)]).astype(np.int64)
        values = flat[voxels]
        return cls._ordered(
            grid, floor, np.abs(values), np.where(values < 0, -1, 1).astype(np.int8), voxels, most_voxels
        )

    @classmethod
    def _ordered(
        cls,
        grid: Grid,
        floor: float,
        values: NDArray[np.float32],
        signs: NDArray[np.int8],
        voxels: NDArray[np.int64],
        most_voxels: int,
    ) -> StrongVoxels:
        """Order voxels by their values, and raise the floor where there are more than ``most_voxels``."""
        if len(voxels) > most_voxels:
            weakest = np.partition(values, len(values) - most_voxels)[len(values) - most_voxels]
            above = values > weakest  # keep or drop all voxels of equal value, so that no component is cut
            floor = float(values[above].min()) if above.any() else float(weakest)
        kept = np.flatnonzero(values >= np.float32(floor))
        order = kept[np.lexsort((voxels[kept], -values[kept]))]
        return cls(grid, float(floor), values[order], signs[order], voxels[order])


@dataclass(frozen=True)
class ThresholdTree:
    """The components of one change map at all thresholds from ``floor`` upwards.

    Attributes:
        grid: grid of the map.
        floor: lowest threshold.
        values: values of the map that are at least ``floor``, float32 ``[n]``, descending.
        signs: sign of the change there, +1 or -1, int8 ``[n]``.
        voxels: flat indices of these voxels on the grid, int64 ``[n]``.
        joins: edges of the spanning forest, ``[m, 2]``: positions in ``values``, the larger one first, in ascending
            order of it.
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
        """Build the tree of a change map.

        Args:
            change_map: float32 ``[z, y, x]`` in [0, 1]; NaN counts as 0.
            signed_hu: R - T(y) in HU; only its sign is used, and 0 counts as an increase.
            grid: grid of the maps.
            floor: lowest threshold, > 0.
            connectivity: 6, 18 or 26 neighbours.
            most_voxels: largest number of voxels above the floor, which is raised where there are more.

        Raises:
            ValueError: an array does not have the grid's shape.
        """
        for name, array in (("change_map", change_map), ("signed_hu", signed_hu)):
            if array.shape != grid.shape:
                raise ValueError(
                    f"ThresholdTree.of() '{name}' must have the grid's shape {grid.shape}, got {array.shape}"
                )
        flat = np.ascontiguousarray(change_map).reshape(-1)
        voxels = np.flatnonzero(flat >= np.float32(floor)).astype(np.int64)
        hu: NDArray[Any] = np.asarray(signed_hu).reshape(-1)[voxels]
        signs = np.where(hu >= 0, 1, -1).astype(np.int8)
        strong = StrongVoxels._ordered(grid, floor, flat[voxels], signs, voxels, most_voxels)
        return cls.over(strong, connectivity=connectivity)

    @classmethod
    def over(cls, strong: StrongVoxels, *, connectivity: int = 26) -> ThresholdTree:
        """Build the tree of the voxels of a map; the map itself may be freed before, which takes more memory."""
        joins = _spanning_forest(strong.voxels, strong.signs, strong.grid.shape, connectivity)
        return cls(strong.grid, strong.floor, strong.values, strong.signs, strong.voxels, joins)

    def at(self, threshold: float, *, min_voxels: int = 1) -> list[TreeRegion]:
        """The components of ``change_map >= threshold``, by voxels times peak, the largest first.

        Args:
            threshold: threshold in (0, 1]; values below :attr:`floor` count as the floor.
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
        """The component number of each of the k :attr:`values` that are at least ``threshold``, int32 ``[k]``."""
        return self._labels(threshold)[1]

    def _labels(self, threshold: float) -> tuple[int, NDArray[np.int32]]:
        """The number of components, and the component of each voxel that reaches ``threshold``."""
        count = int(np.searchsorted(-self.values, -np.float32(max(threshold, self.floor)), side="right"))
        edges = self.joins[: np.searchsorted(self.joins[:, 0], count)]
        rows, columns = edges.T.astype(np.int32)
        graph = sparse.coo_array((np.ones(len(edges), bool), (rows, columns)), shape=(count, count))
        number, label = csgraph.connected_components(graph, directed=False) if count else (0, np.zeros(0, np.int32))
        return number, label

    def positions_of(self, points_mm: FloatArray) -> NDArray[np.int64]:
        """Positions in :attr:`values` of the voxels at points ``[k, 3]`` (x, y, z in mm, LPS); -1 below the floor."""
        points = np.asarray(points_mm, dtype=float).reshape(-1, 3)
        index = np.rint(self.grid.to_index(points)).astype(int)[:, ::-1]
        inside = ((index >= 0) & (index < self.grid.shape)).all(axis=1)
        positions = np.full(len(points), -1, dtype=np.int64)
        if len(self.voxels):
            wanted = np.ravel_multi_index(tuple(index[inside].T), self.grid.shape)
            order = np.argsort(self.voxels)
            nearest = order[np.minimum(np.searchsorted(self.voxels, wanted, sorter=order), len(order) - 1)]
            positions[inside] = np.where(self.voxels[nearest] == wanted, nearest, -1)
        return positions


def _spanning_forest(
    voxels: NDArray[np.int64], signs: NDArray[np.int8], shape: tuple[int, int, int], connectivity: int
) -> NDArray[np.int64]:
    """Minimum spanning forest of neighbouring voxels of the same sign; see :attr:`ThresholdTree.joins`."""
    by_index = np.argsort(voxels)
    flat = voxels[by_index]
    index = np.stack(np.unravel_index(flat, shape), axis=1)
    steps = np.array([shape[1] * shape[2], shape[2], 1])
    pairs = []
    for offset in product((-1, 0, 1), repeat=3):
        move = int(np.dot(offset, steps))
        if offset <= (0, 0, 0) or np.abs(offset).sum() > CONNECTIVITY_RANK[connectivity]:
            continue  # half of the neighbours: the other half gives the same edges
        inside = ((index + offset >= 0) & (index + offset < shape)).all(axis=1)
        neighbour = np.searchsorted(flat, flat[inside] + move)
        in_list = neighbour < len(flat)
        voxel, neighbour = np.flatnonzero(inside)[in_list], neighbour[in_list]
        listed = flat[neighbour] == flat[voxel] + move
        a, b = by_index[voxel[listed]], by_index[neighbour[listed]]
        same = signs[a] == signs[b]
        a, b = a[same].astype(np.int32), b[same].astype(np.int32)  # csgraph accepts no wider indices
        pairs.append(np.stack([np.maximum(a, b), np.minimum(a, b)]))
    rows, columns = np.concatenate(pairs, axis=1)
    weights = rows + 1.0  # by the weaker voxel, the later one in descending order; + 1, since 0 would be no edge
    graph = sparse.coo_array((weights, (rows, columns)), shape=(len(voxels), len(voxels))).tocsr()
    del pairs, rows, columns, weights
    tree = csgraph.minimum_spanning_tree(graph, overwrite=True).tocoo()
    joins = np.stack([np.maximum(tree.row, tree.col), np.minimum(tree.row, tree.col)], axis=1).astype(np.int64)
    return joins[np.argsort(joins[:, 0], kind="stable")]


def _vector(point: FloatArray) -> Vector3:
    x, y, z = (float(v) for v in point)
    return x, y, z
