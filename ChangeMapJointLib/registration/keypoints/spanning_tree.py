"""Belief propagation over a minimum spanning tree of the keypoints, on which it is exact."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree
from scipy.spatial import cKDTree

from ChangeMapJointLib.core.compiled import compiled_available, over_slices
from ChangeMapJointLib.core.grid import FloatArray

FloatMap = NDArray[np.float32]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class SpanningTree:
    """Minimum spanning tree of the keypoints: neighbours move alike.

    Attributes:
        levels: nodes of each depth, from the root down.
        parent: parent of each node; the root is its own.
        length_mm: length of the edge to the parent.
    """

    levels: list[IntArray]
    parent: IntArray
    length_mm: FloatArray

    @classmethod
    def over(cls, points_mm: FloatArray, neighbours: int = 12) -> SpanningTree:
        """The tree over points ``[n, 3]``; parts without common neighbours are joined at their closest points."""
        count = len(points_mm)
        distances, index = cKDTree(points_mm).query(points_mm, k=[*range(1, min(neighbours + 1, count) + 1)])
        rows = np.repeat(np.arange(count), index.shape[1])
        lengths = np.maximum(distances.ravel(), 1e-3)
        graph = csr_matrix((lengths, (rows, index.ravel())), shape=(count, count))
        parts, label = connected_components(graph, directed=False)
        while parts > 1:
            inside = label == label[0]
            apart, nearest = cKDTree(points_mm[inside]).query(points_mm[~inside])
            closest = int(np.argmin(apart))
            a, b = np.flatnonzero(~inside)[closest], np.flatnonzero(inside)[nearest[closest]]
            graph = graph + csr_matrix(([max(apart[closest], 1e-3)], ([a], [b])), shape=graph.shape)
            label[label == label[a]] = label[0]
            parts -= 1
        tree = minimum_spanning_tree(graph)
        order, parent = breadth_first_order(tree, 0, directed=False)
        parent = parent.astype(np.int64)
        parent[0] = 0
        depth = np.zeros(count, np.int64)
        for node in order[1:]:
            depth[node] = depth[parent[node]] + 1
        length = np.maximum(np.linalg.norm(points_mm - points_mm[parent], axis=1), 1.0)
        return cls([np.flatnonzero(depth == d) for d in range(int(depth.max()) + 1)], parent, length)

    def propagate(
        self, costs: FloatMap, base_mm: FloatMap, spacing: FloatMap, *, stiffness: float, compiled: bool = True
    ) -> FloatMap:
        """Min-marginals of the sum of the costs and ``stiffness |d_i - d_j|^2 / length`` over the edges.

        Args:
            costs: cost of each node and displacement, ``[n, s, s, s]``.
            base_mm: displacement of each node at which its search starts, ``[n, 3]`` (z, y, x).
            spacing: mm between displacements (z, y, x).
            stiffness: weight of the edges, >= 0.
            compiled: use Numba where it is installed.

        Returns:
            ``[n, s, s, s]``; those of each node are known up to a constant.
        """
        weight = (stiffness / self.length_mm).astype(np.float32)
        upward, message = costs.copy(), np.zeros_like(costs)
        for nodes in reversed(self.levels[1:]):
            up = self.parent[nodes]
            sent = min_convolve(upward[nodes], weight[nodes], base_mm[nodes] - base_mm[up], spacing, compiled=compiled)
            # minus its minimum: in single precision, the energy of a large tree would swamp differences of costs
            message[nodes] = sent - sent.min(axis=(1, 2, 3), keepdims=True)
            np.add.at(upward, up, message[nodes])
        marginals = upward
        for nodes in self.levels[1:]:
            up = self.parent[nodes]
            rest = marginals[up] - message[nodes]
            rest -= rest.min(axis=(1, 2, 3), keepdims=True)
            marginals[nodes] += min_convolve(
                rest, weight[nodes], base_mm[up] - base_mm[nodes], spacing, compiled=compiled
            )
        return marginals


def min_convolve(
    costs: FloatMap, weights: FloatMap, shifts_mm: FloatMap, spacing: FloatMap, *, compiled: bool = True
) -> FloatMap:
    """Compute ``min over e of costs[n, e] + w_n |spacing (e - d) + shift_n|^2`` for every d, exactly, axis by axis.

    Args:
        costs: float32 ``[n, s, s, s]``.
        weights: ``[n]``, >= 0, per mm^2.
        shifts_mm: ``[n, 3]`` (z, y, x).
        spacing: mm between displacements, ``[3]`` (z, y, x).
        compiled: use Numba where it is installed.

    Returns:
        float32 ``[n, s, s, s]``.
    """
    result = np.empty_like(costs)
    if compiled and compiled_available():
        from ChangeMapJointLib.registration.keypoints import kernels

        given = np.ascontiguousarray(costs), weights, shifts_mm, spacing
        over_slices(partial(kernels.min_convolve_compiled, *given, result), len(result))
        return result
    side = costs.shape[1]
    apart = np.arange(side)[None, :] - np.arange(side)[:, None]  # [d, e] = e - d
    result = costs
    for axis in range(3):
        penalty = weights[:, None, None] * (spacing[axis] * apart + shifts_mm[:, axis, None, None]) ** 2
        lines = np.moveaxis(result, 1 + axis, -1)
        best = np.stack([(lines + penalty[:, d, None, None, :]).min(axis=-1) for d in range(side)], axis=-1)
        result = np.moveaxis(best, -1, 1 + axis)
    return np.ascontiguousarray(result, dtype=np.float32)
