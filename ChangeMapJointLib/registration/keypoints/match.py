"""Matching of the reference's keypoints in the template.

As in Ruehaak et al. 2017 (doi:10.1109/TMI.2017.2691259), the search minimises the same NGF distance as the
registration; as in Heinrich et al. 2015 (corrField), it is regularised over a minimum spanning tree of the keypoints,
on which belief propagation is exact. Matches that the backward search does not confirm are dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.blur import low_pass_sigma_mm
from ChangeMapJointLib.core.compiled import compiled_available, over_slices
from ChangeMapJointLib.core.grid import FloatArray, Grid
from ChangeMapJointLib.core.hu import AIR_HU, REGISTRATION_WINDOW_HU
from ChangeMapJointLib.core.lazy_torch import torch
from ChangeMapJointLib.core.options import require, within
from ChangeMapJointLib.core.parallel import run_parallel
from ChangeMapJointLib.core.progress import Progress, silent
from ChangeMapJointLib.core.resample import resample
from ChangeMapJointLib.registration.deformable.objective import Keypoints
from ChangeMapJointLib.registration.deformable.similarity import edge_parameter
from ChangeMapJointLib.registration.keypoints.detect import KeypointOptions, find_keypoints
from ChangeMapJointLib.registration.keypoints.spanning_tree import SpanningTree
from ChangeMapJointLib.registration.pyramid import MARGIN_MM, ScanView, scan_pyramid
from ChangeMapJointLib.scan.pair import ScanPair

FloatMap = NDArray[np.float32]
IntArray = NDArray[np.int64]
LONGEST_REACH_MM = 120.0
KEYPOINT_VOXEL_MM = 1.5  # voxel size at which keypoints are detected


@dataclass(frozen=True)
class Search:
    """One step of the coarse-to-fine search.

    Attributes:
        voxel_mm: voxel size of the search grid; displacements are whole voxels.
        reach: search range in voxels to either side of the start.
        patch: half width in voxels of the patch that is compared, of which every second voxel is used.
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
        searches: the searches, coarse to fine; each starts from the result of the one before.
        stiffness: weight of ``|difference of displacements|^2 / length`` (in mm) on the edges of the tree.
        agree_mm: largest distance between forward and backward match.
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
                "one or more searches, each with voxels of 1 to 20 mm, a reach of 1 to 12 voxels and at most 120 mm, "
                "and a patch of 1 to 10 voxels",
            ),
            stiffness=(within(self.stiffness, 0.0, 1e3), "0 to 1000"),
            agree_mm=(within(self.agree_mm, 0.01, 1e3), "0.01 to 1000"),
        )


@dataclass(frozen=True)
class Matches:
    """Result of :func:`match_keypoints`.

    Attributes:
        keypoints: the confirmed matches; the closer forward and backward match agree, the larger the weight, in (0, 1].
        found: number of keypoints that were searched for.
        dropped: number of matches that the backward search did not confirm.
        status: the result in one sentence.
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
    """Detect keypoints in the reference and match them in the template.

    Args:
        pair: both scans with lungs; the search starts from the rigid alignment.
        keypoints: options of the detection.
        options: options of the matching.
        progress: called with the fraction done; raise from it to stop.
    """
    reference, template = (
        scan_pyramid(
            scan, margin_mm=MARGIN_MM, working_mm=KEYPOINT_VOXEL_MM, levels=1, window_hu=REGISTRATION_WINDOW_HU
        )[0]
        for scan in (pair.reference, pair.template)
    )
    points = find_keypoints(reference.image.numpy(), reference.mask.numpy() > 0.5, reference.grid, keypoints)
    progress(0.1)
    return match_keypoints(reference, template, points, rigid=pair.rigid, options=options, progress=progress)


def match_keypoints(
    reference: ScanView,
    template: ScanView,
    points_mm: FloatArray,
    *,
    rigid: FloatArray,
    options: MatchingOptions = MatchingOptions(),
    progress: Progress = silent,
) -> Matches:
    """Find the reference's keypoints in the template.

    Args:
        reference: R, HU clipped, and its lungs.
        template: T, HU clipped, and its lungs; matches lie in or next to them.
        points_mm: keypoints ``[n, 3]`` in R's lungs (x, y, z in mm, LPS).
        rigid: 4x4, reference to template, from which the search starts.
        options: cost, reach and stiffness.
        progress: called with the fraction done; raise from it to stop.

    Returns:
        The confirmed matches in mm, and how many were dropped. Without keypoints, an empty result that says so.
    """
    count = len(points_mm)
    if not count:
        return Matches(Keypoints(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0)), 0, 0, "There are no keypoints.")
    forward: FloatArray = np.zeros((count, 3))
    backward: FloatArray = np.zeros((count, 3))
    tree = SpanningTree.over(points_mm)
    for number, search in enumerate(options.searches):
        progress(max(number / len(options.searches), 0.1))
        grid = _search_grid(reference.grid, search.voxel_mm, options.searches[0])
        fixed, moving = run_parallel(
            [partial(_Features.of, reference, np.eye(4), grid), partial(_Features.of, template, rigid, grid)],
            lambda: None,
        )
        forward = _search(fixed, moving, grid, points_mm, forward, tree, search, options)
        progress((number + 0.5) / len(options.searches))
        # the backward search starts from its own displacement, not from the forward match: an independent check
        backward = _search(moving, fixed, grid, points_mm + forward, backward, tree, search, options)
    apart = np.linalg.norm(forward + backward, axis=1)
    kept = apart <= options.agree_mm
    template_mm = (points_mm + forward) @ rigid[:3, :3].T + rigid[:3, 3]
    weight = 1 / (1 + (apart[kept] / options.agree_mm) ** 2)
    dropped = count - int(kept.sum())
    status = (
        f"{count - dropped} of {count} keypoints were matched; {dropped} were not confirmed by the backward search."
    )
    return Matches(Keypoints(points_mm[kept], template_mm[kept], weight), count, dropped, status)


@dataclass(frozen=True)
class _Features:
    """One scan on the search grid: features ``[z, y, x, c]``, and where matches may lie."""

    features: FloatMap
    allowed: NDArray[np.bool_]

    @classmethod
    def of(cls, view: ScanView, matrix: FloatArray, grid: Grid) -> _Features:
        image, mask = view.image.cpu().numpy(), view.mask.cpu().numpy()
        sigma = [low_pass_sigma_mm(h, new) / h for new, h in zip(grid.spacing_mm, view.grid.spacing_mm, strict=True)]
        smooth = ndimage.gaussian_filter(image, sigma[::-1], mode="nearest", truncate=3.0)
        values = resample(smooth, view.grid, grid, matrix=matrix, outside=AIR_HU)
        lungs = resample(mask, view.grid, grid, matrix=matrix) > 0.5
        allowed = ndimage.binary_dilation(lungs)
        return cls(unit_gradients(values, grid, lungs), allowed)


def unit_gradients(values: FloatMap, grid: Grid, lungs: NDArray[np.bool_], *, compiled: bool = True) -> FloatMap:
    """The vectors ``(gradient, e) / sqrt(|gradient|^2 + e^2)``, float32 ``[z, y, x, 4]``.

    The NGF distance of two voxels is one minus the squared inner product of their vectors.

    Args:
        values: HU ``[z, y, x]``.
        grid: grid of ``values``.
        lungs: bool ``[z, y, x]``, where the edge parameter e is estimated.
        compiled: use Numba where it is installed.
    """
    edge = 0.5 * edge_parameter(torch.as_tensor(values), grid.spacing_mm, torch.as_tensor(lungs))
    result = np.empty((*values.shape, 4), np.float32)
    if compiled and compiled_available():
        from ChangeMapJointLib.registration.keypoints import kernels

        steps = np.array(grid.spacing_mm[::-1], np.float32)
        fixed = (np.ascontiguousarray(values, np.float32), steps, np.float32(edge), result)
        over_slices(partial(kernels.unit_gradient_slices, *fixed), len(values))
        return result
    for axis, h in enumerate(reversed(grid.spacing_mm)):
        result[..., axis] = np.gradient(values, h, axis=axis) if values.shape[axis] > 1 else 0.0
    result[..., 3] = edge
    result /= np.linalg.norm(result, axis=-1, keepdims=True)
    return result


def _search_grid(grid: Grid, voxel_mm: float, widest: Search) -> Grid:
    """A grid of cubic voxels over ``grid`` and as far beyond it as the widest search reaches."""
    margin = widest.voxel_mm * widest.reach
    extent = [h * (n - 1) + 2 * margin for h, n in zip(grid.spacing_mm, grid.size, strict=True)]
    x, y, z = (int(np.ceil(e / voxel_mm)) + 1 for e in extent)
    ox, oy, oz = grid.to_physical(-margin / np.asarray(grid.spacing_mm))
    return Grid((z, y, x), (voxel_mm,) * 3, (float(ox), float(oy), float(oz)), grid.direction)


def _search(
    fixed: _Features,
    moving: _Features,
    grid: Grid,
    points_mm: FloatArray,
    start_mm: FloatArray,
    tree: SpanningTree,
    search: Search,
    options: MatchingOptions,
) -> FloatArray:
    """Displacements ``[n, 3]`` of the points in mm (LPS), within reach of ``start_mm``."""
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
    marginals = tree.propagate(costs, base, spacing, stiffness=options.stiffness, compiled=options.compiled)
    best = _parabolic_minimum(marginals) - search.reach
    index = fixed_vox + (moving_vox - fixed_vox) + best
    result: FloatArray = grid.to_physical(index[:, ::-1]) - grid.to_physical(fixed_vox[:, ::-1].astype(float))
    return result


def _costs(
    fixed: _Features,
    moving: _Features,
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

        features = fixed.features, moving.features, moving.allowed
        over_slices(partial(kernels.ngf_costs, *features, fixed_vox, moving_vox, patch, steps, costs), len(costs))
        return costs
    limit = np.array(fixed.allowed.shape) - 1
    fixed_patch = fixed.features[tuple(np.clip(fixed_vox[:, None] + patch, 0, limit).T)].swapaxes(0, 1)  # (n, p, c)
    for a, b, c in np.ndindex(side, side, side):
        place = moving_vox + steps[[a, b, c]]
        inside = ((place >= 0) & (place <= limit)).all(axis=1)
        inside &= moving.allowed[tuple(np.clip(place, 0, limit).T)]
        moving_patch = moving.features[tuple(np.clip(place[:, None] + patch, 0, limit).T)].swapaxes(0, 1)
        cost = 1.0 - ((fixed_patch * moving_patch).sum(-1) ** 2).mean(1)
        costs[:, a, b, c] = np.where(inside, cost, 1.0)
    return costs


def _parabolic_minimum(marginals: FloatMap) -> FloatArray:
    """Position ``[n, 3]`` of the minimum of each volume ``[n, s, s, s]``, refined by a parabola along each axis."""
    count, side = marginals.shape[:2]
    lowest = np.stack(np.unravel_index(marginals.reshape(count, -1).argmin(1), marginals.shape[1:]), -1)
    result = lowest.astype(float)
    rows = np.arange(count)
    for axis in range(3):
        low, high = lowest.copy(), lowest.copy()
        low[:, axis] -= 1
        high[:, axis] += 1
        inner = (low[:, axis] >= 0) & (high[:, axis] < side)
        np.clip(low, 0, side - 1, out=low)
        np.clip(high, 0, side - 1, out=high)
        a, b, c = (marginals[(rows, *p.T)].astype(float) for p in (low, lowest, high))
        bend = a - 2 * b + c
        shift = np.where(inner & (bend > 1e-9), 0.5 * (a - c) / np.maximum(bend, 1e-9), 0.0)
        result[:, axis] += np.clip(shift, -0.5, 0.5)
    return result
