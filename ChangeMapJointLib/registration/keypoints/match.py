"""Partners of the reference's keypoints in the template.

As Ruehaak et al. 2017 (doi:10.1109/TMI.2017.2691259) the search is driven by the same NGF data term as the
registration; as Heinrich et al. 2015 (corrField) it is regularised over a minimum spanning tree of the keypoints, on
which belief propagation is exact. What the search back does not confirm is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree
from scipy.spatial import cKDTree

from ChangeMapJointLib.core.blur import low_pass_sigma_mm
from ChangeMapJointLib.core.grid import FloatArray, Grid
from ChangeMapJointLib.core.hu import AIR_HU, REGISTRATION_WINDOW_HU
from ChangeMapJointLib.core.options import require, within
from ChangeMapJointLib.core.progress import Progress, silent
from ChangeMapJointLib.core.resample import resample
from ChangeMapJointLib.registration.deformable.data_terms import compiled_available
from ChangeMapJointLib.registration.deformable.objective import Keypoints
from ChangeMapJointLib.registration.deformable.similarity import edge_parameter
from ChangeMapJointLib.registration.keypoints.detect import KeypointOptions, find_keypoints
from ChangeMapJointLib.registration.pyramid import MARGIN_MM, ScanView, scan_pyramid
from ChangeMapJointLib.scan.pair import ScanPair

FloatMap = NDArray[np.float32]
IntArray = NDArray[np.int64]
LONGEST_REACH_MM = 120.0
PICTURE_MM = 1.5  # of the picture in which keypoints are found


@dataclass(frozen=True)
class Search:
    """One step of the search, coarse to fine.

    Attributes:
        voxel_mm: of the grid on which it looks; displacements are whole voxels.
        reach: voxels to either side of where it starts.
        patch: voxels to either side that are compared, every second one.
    """

    voxel_mm: float
    reach: int
    patch: int


def _sensible(search: Search) -> bool:
    reach_mm = search.voxel_mm * search.reach
    return (
        within(search.voxel_mm, 1.0, 20.0)
        and within(search.reach, 1, 12)
        and within(search.patch, 1, 10)
        and within(reach_mm, 1.0, LONGEST_REACH_MM)
    )


@dataclass(frozen=True)
class MatchingOptions:
    """Options of :func:`match_keypoints`.

    Attributes:
        searches: coarse to fine; each starts where the one before ended.
        stiffness: of the tree, per mm of its edges: cost of ``|difference of displacements|^2 / length`` in mm.
        agree_mm: forward and backward may differ by so much.
        compiled: use Numba where it is installed.
    """

    searches: tuple[Search, ...] = (Search(5.0, 7, 2), Search(2.0, 4, 3))
    stiffness: float = 0.02
    agree_mm: float = 3.0
    compiled: bool = True

    def __post_init__(self) -> None:
        require(
            self,
            searches=(
                bool(self.searches) and all(map(_sensible, self.searches)),
                "one or more, of 1 to 20 mm, reaching 1 to 12 voxels and up to 120 mm, with patches of 1 to 10",
            ),
            stiffness=(within(self.stiffness, 0.0, 1e3), "0 to 1000"),
            agree_mm=(within(self.agree_mm, 0.01, 1e3), "0.01 to 1000"),
        )


@dataclass(frozen=True)
class Matches:
    """Result of :func:`match_keypoints`.

    Attributes:
        keypoints: those that were kept; the weight is the better, the closer forward and backward agree, in (0, 1].
        found: how many were looked for.
        dropped: how many the search back did not confirm.
        status: a sentence.
    """

    keypoints: Keypoints
    found: int
    dropped: int
    status: str


def find_correspondences(
    pair: ScanPair,
    *,
    keypoints: KeypointOptions | None = None,
    options: MatchingOptions = MatchingOptions(),
    progress: Progress = silent,
) -> Matches:
    """Keypoints of the reference and their partners in the template.

    Args:
        pair: both scans with lungs; the search starts where its rigid motion says.
        keypoints: how many, and how far apart.
        options: of the matching.
        progress: told the fraction done; raise from it to stop.
    """
    r, t = (
        scan_pyramid(scan, margin_mm=MARGIN_MM, working_mm=PICTURE_MM, levels=1, window_hu=REGISTRATION_WINDOW_HU)[0]
        for scan in (pair.reference, pair.template)
    )
    points = find_keypoints(r.image.numpy(), r.mask.numpy() > 0.5, r.grid, keypoints)
    progress(0.1)
    return match_keypoints(r, t, points, rigid=pair.rigid, options=options, progress=progress)


def match_keypoints(
    reference: ScanView,
    template: ScanView,
    points_mm: FloatArray,
    *,
    rigid: FloatArray,
    options: MatchingOptions = MatchingOptions(),
    progress: Progress = silent,
) -> Matches:
    """Find where the reference's keypoints lie in the template.

    Args:
        reference: R, HU clipped, and its lungs.
        template: T, HU clipped, and its lungs: partners lie in or next to them.
        points_mm: ``[n, 3]`` LPS, in R's lungs.
        rigid: 4x4, reference to template: where the search starts.
        options: cost, reach, stiffness.
        progress: told the fraction done; raise from it to stop.

    Returns:
        Correspondences in mm and what was dropped. Without keypoints an empty result that says so.
    """
    count = len(points_mm)
    if not count:
        return Matches(Keypoints(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0)), 0, 0, "There are no keypoints.")
    there: FloatArray = np.zeros((count, 3))
    back: FloatArray = np.zeros((count, 3))
    tree = _Tree.over(points_mm)
    for number, search in enumerate(options.searches):
        progress(max(number / len(options.searches), 0.1))
        grid = _around(reference.grid, search.voxel_mm, options.searches[0])
        fixed = _Scene.of(reference, np.eye(4), grid)
        moving = _Scene.of(template, rigid, grid)
        there = _search(fixed, moving, grid, points_mm, there, tree, search, options)
        progress((number + 0.5) / len(options.searches))
        # the way back starts as far from the truth as the way there did: it is a check, not an echo
        back = _search(moving, fixed, grid, points_mm + there, back, tree, search, options)
    apart = np.linalg.norm(there + back, axis=1)
    kept = apart <= options.agree_mm
    partners = (points_mm + there) @ rigid[:3, :3].T + rigid[:3, 3]
    weight = 1 / (1 + (apart[kept] / options.agree_mm) ** 2)
    dropped = count - int(kept.sum())
    status = f"{count - dropped} of {count} keypoints were matched; {dropped} were not confirmed by the search back."
    return Matches(Keypoints(points_mm[kept], partners[kept], weight), count, dropped, status)


@dataclass(frozen=True)
class _Scene:
    """One scan on the common grid: features ``[z, y, x, c]``, and where partners may lie."""

    features: FloatMap
    allowed: NDArray[np.bool_]

    @classmethod
    def of(cls, picture: ScanView, matrix: FloatArray, grid: Grid) -> _Scene:
        image, mask = picture.image.cpu().numpy(), picture.mask.cpu().numpy()
        own = picture.grid.spacing_mm
        sigma = [low_pass_sigma_mm(h, new) / h for new, h in zip(grid.spacing_mm, own, strict=True)]
        smooth = ndimage.gaussian_filter(image, sigma[::-1], mode="nearest", truncate=3.0)
        values = resample(smooth, picture.grid, grid, matrix=matrix, outside=AIR_HU)
        lungs = resample(mask, picture.grid, grid, matrix=matrix) > 0.5
        allowed = ndimage.binary_dilation(lungs)
        return cls(unit_gradients(values, grid, lungs), allowed)


def unit_gradients(values: FloatMap, grid: Grid, lungs: NDArray[np.bool_]) -> FloatMap:
    """``(gradient, e) / sqrt(|gradient|^2 + e^2)``, float32 ``[z, y, x, 4]``.

    The NGF distance of two voxels is one minus the squared inner product of theirs.
    """
    edge = 0.5 * edge_parameter(torch.as_tensor(values), grid.spacing_mm, torch.as_tensor(lungs))
    result = np.empty((*values.shape, 4), np.float32)
    for axis, h in enumerate(reversed(grid.spacing_mm)):
        result[..., axis] = np.gradient(values, h, axis=axis) if values.shape[axis] > 1 else 0.0
    result[..., 3] = edge
    result /= np.linalg.norm(result, axis=-1, keepdims=True)
    return result


def _around(grid: Grid, voxel_mm: float, widest: Search) -> Grid:
    """Cubic voxels over ``grid`` and as far beyond it as the widest search reaches."""
    margin = widest.voxel_mm * widest.reach
    extent = [h * (n - 1) + 2 * margin for h, n in zip(grid.spacing_mm, grid.size, strict=True)]
    x, y, z = (int(np.ceil(e / voxel_mm)) + 1 for e in extent)
    ox, oy, oz = grid.to_physical(-margin / np.asarray(grid.spacing_mm))
    return Grid((z, y, x), (voxel_mm,) * 3, (float(ox), float(oy), float(oz)), grid.direction)


def _search(
    fixed: _Scene,
    moving: _Scene,
    grid: Grid,
    points_mm: FloatArray,
    start_mm: FloatArray,
    tree: _Tree,
    search: Search,
    options: MatchingOptions,
) -> FloatArray:
    """Displacements ``[n, 3]`` in mm (LPS) of the points, near ``start_mm``."""
    at = grid.to_index(points_mm)[:, ::-1]  # (z, y, x)
    fixed_vox = np.rint(at).astype(np.int64)
    moving_vox = np.rint(grid.to_index(points_mm + start_mm)[:, ::-1]).astype(np.int64)
    limit = np.array(grid.shape) - 1
    fixed_vox = np.clip(fixed_vox, 0, limit)
    steps = np.arange(-search.reach, search.reach + 1)
    offsets = np.arange(-search.patch, search.patch + 1, 2)
    patch = np.stack(np.meshgrid(offsets, offsets, offsets, indexing="ij"), -1).reshape(-1, 3)
    costs = _costs(fixed, moving, fixed_vox, moving_vox, patch, steps, options)
    spacing = np.array(grid.spacing_mm[::-1], np.float32)
    base = ((moving_vox - fixed_vox) * spacing).astype(np.float32)
    marginals = tree.propagate(costs, base, spacing, options)
    best = _parabolic_minimum(marginals) - search.reach
    index = fixed_vox + (moving_vox - fixed_vox) + best
    result: FloatArray = grid.to_physical(index[:, ::-1]) - grid.to_physical(fixed_vox[:, ::-1].astype(float))
    return result


def _costs(
    fixed: _Scene,
    moving: _Scene,
    fixed_vox: IntArray,
    moving_vox: IntArray,
    patch: IntArray,
    steps: IntArray,
    options: MatchingOptions,
) -> FloatMap:
    """Cost volumes ``[n, s, s, s]`` in [0, 1]."""
    side = len(steps)
    costs = np.empty((len(fixed_vox), side, side, side), np.float32)
    if options.compiled and compiled_available():
        from ChangeMapJointLib.registration.keypoints import kernels

        kernels.ngf_costs(fixed.features, moving.features, moving.allowed, fixed_vox, moving_vox, patch, steps, costs)
        return costs
    limit = np.array(fixed.allowed.shape) - 1
    here = fixed.features[tuple(np.clip(fixed_vox[:, None] + patch, 0, limit).T)].swapaxes(0, 1)  # (n, p, c)
    for a, b, c in np.ndindex(side, side, side):
        place = moving_vox + steps[[a, b, c]]
        inside = ((place >= 0) & (place <= limit)).all(axis=1)
        inside &= moving.allowed[tuple(np.clip(place, 0, limit).T)]
        there = moving.features[tuple(np.clip(place[:, None] + patch, 0, limit).T)].swapaxes(0, 1)
        cost = 1.0 - ((here * there).sum(-1) ** 2).mean(1)
        costs[:, a, b, c] = np.where(inside, cost, 1.0)
    return costs


@dataclass(frozen=True)
class _Tree:
    """Minimum spanning tree of the keypoints: what is near moves alike.

    Attributes:
        levels: nodes of each depth, from the root down.
        parent: of every node; the root has itself.
        length_mm: of the edge to the parent.
    """

    levels: list[IntArray]
    parent: IntArray
    length_mm: FloatArray

    @classmethod
    def over(cls, points_mm: FloatArray, neighbours: int = 12) -> _Tree:
        """The tree over points ``[n, 3]``; pieces that the neighbours leave apart are joined where they are nearest."""
        count = len(points_mm)
        known = cKDTree(points_mm)
        found, index = known.query(points_mm, k=[*range(1, min(neighbours + 1, count) + 1)])
        rows = np.repeat(np.arange(count), index.shape[1])
        lengths = np.maximum(found.ravel(), 1e-3)
        graph = csr_matrix((lengths, (rows, index.ravel())), shape=(count, count))
        pieces, label = connected_components(graph, directed=False)
        while pieces > 1:
            inside = label == label[0]
            apart, nearest = cKDTree(points_mm[inside]).query(points_mm[~inside])
            one = int(np.argmin(apart))
            a, b = np.flatnonzero(~inside)[one], np.flatnonzero(inside)[nearest[one]]
            graph = graph + csr_matrix(([max(apart[one], 1e-3)], ([a], [b])), shape=graph.shape)
            label[label == label[a]] = label[0]
            pieces -= 1
        tree = minimum_spanning_tree(graph)
        order, parent = breadth_first_order(tree, 0, directed=False)
        parent = parent.astype(np.int64)
        parent[0] = 0
        depth = np.zeros(count, np.int64)
        for node in order[1:]:
            depth[node] = depth[parent[node]] + 1
        length = np.maximum(np.linalg.norm(points_mm - points_mm[parent], axis=1), 1.0)
        return cls([np.flatnonzero(depth == d) for d in range(int(depth.max()) + 1)], parent, length)

    def propagate(self, costs: FloatMap, base_mm: FloatMap, spacing: FloatMap, options: MatchingOptions) -> FloatMap:
        """Min-marginals ``[n, s, s, s]`` of the sum of the costs and ``stiffness |d_i - d_j|^2 / length`` on the edges.

        Each node's are known up to a constant.

        Args:
            costs: of every node and displacement.
            base_mm: where the displacements of a node start, ``[n, 3]`` (z, y, x).
            spacing: mm between displacements (z, y, x).
            options: stiffness, and how to compute.
        """
        weight = (options.stiffness / self.length_mm).astype(np.float32)
        upward, message = costs.copy(), np.zeros_like(costs)
        for nodes in reversed(self.levels[1:]):
            up = self.parent[nodes]
            sent = min_convolve(upward[nodes], weight[nodes], base_mm[nodes] - base_mm[up], spacing, options)
            # less its minimum: single precision could not tell costs apart beside the energy of a large tree
            message[nodes] = sent - sent.min(axis=(1, 2, 3), keepdims=True)
            np.add.at(upward, up, message[nodes])
        marginals = upward
        for nodes in self.levels[1:]:
            up = self.parent[nodes]
            rest = marginals[up] - message[nodes]
            rest -= rest.min(axis=(1, 2, 3), keepdims=True)
            marginals[nodes] += min_convolve(rest, weight[nodes], base_mm[up] - base_mm[nodes], spacing, options)
        return marginals


def min_convolve(
    costs: FloatMap, weights: FloatMap, shifts_mm: FloatMap, spacing: FloatMap, options: MatchingOptions
) -> FloatMap:
    """``min over e of costs[n, e] + w_n |spacing (e - d) + shift_n|^2`` for every d; exact, axis by axis.

    Args:
        costs: float32 ``[n, s, s, s]``.
        weights: ``[n]``, >= 0.
        shifts_mm: ``[n, 3]`` (z, y, x).
        spacing: ``[3]`` mm (z, y, x).
        options: how to compute.
    """
    result = np.empty_like(costs)
    if options.compiled and compiled_available():
        from ChangeMapJointLib.registration.keypoints import kernels

        kernels.min_convolve(np.ascontiguousarray(costs), weights, shifts_mm, spacing, result)
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


def _parabolic_minimum(marginals: FloatMap) -> FloatArray:
    """Where each volume ``[n, s, s, s]`` is smallest, with a parabola through the neighbours on each axis."""
    count, side = marginals.shape[:2]
    found = np.stack(np.unravel_index(marginals.reshape(count, -1).argmin(1), marginals.shape[1:]), -1)
    result = found.astype(float)
    rows = np.arange(count)
    for axis in range(3):
        low, high = found.copy(), found.copy()
        low[:, axis] -= 1
        high[:, axis] += 1
        inner = (low[:, axis] >= 0) & (high[:, axis] < side)
        np.clip(low, 0, side - 1, out=low)
        np.clip(high, 0, side - 1, out=high)
        a, b, c = (marginals[(rows, *p.T)].astype(float) for p in (low, found, high))
        bend = a - 2 * b + c
        shift = np.where(inner & (bend > 1e-9), 0.5 * (a - c) / np.maximum(bend, 1e-9), 0.0)
        result[:, axis] += np.clip(shift, -0.5, 0.5)
    return result
