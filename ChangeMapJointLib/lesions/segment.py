"""Segmentation of one nodule in a patch of one scan, detached from the vessels and the wall that it touches.

The steps are a threshold half way between lesion and lung, the largest inscribed ball near the seed, an opening by a
ball that is a fraction of it, and a reconstruction within the threshold, after Kuhnigk et al., IEEE TMI 25(4):417,
2006.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.grid import FloatArray, bounding_box
from ChangeMapJointLib.lesions.patch import Patch

BoolArray = NDArray[np.bool_]
IndexArray = NDArray[np.intp]

_FACES = ndimage.generate_binary_structure(3, 1)
_AIRY_HU = -500.0  # parenchyma is below, vessels and lesions are above
_NORMAL_LUNG_HU = -850.0  # assumed where the patch shows no parenchyma
_DENSEST_HU = 100.0  # denser lesions (calcium) do not raise the threshold further
_CANDIDATES = 3  # number of inscribed balls tried near the seed


@dataclass(frozen=True)
class NoduleOptions:
    """What counts as a nodule.

    Attributes:
        opening: radius of the opening as a fraction of that of the largest inscribed ball; thinner attachments are
            cut off.
        max_reach: largest distance of a point of the nodule from the centre of that ball, in radii of the ball;
            vessels and sheets reach farther.
        max_elongation: largest ratio of the longest to the shortest principal extent.
        massive_radius_mm: a ball of this radius fits into no vessel of the lung. Structures that contain one may have
            any shape; they are masses or the hilum (see :attr:`Nodule.compact`).
        min_radius_mm: radius of the smallest inscribed ball; smaller nodules cannot be told from vessels.
        min_contrast_hu: smallest difference in density between lesion and lung.
    """

    opening: float = 0.5
    max_reach: float = 3.0
    max_elongation: float = 2.5
    massive_radius_mm: float = 8.0
    min_radius_mm: float = 1.25
    min_contrast_hu: float = 150.0


@dataclass(frozen=True)
class Nodule:
    """A segmented nodule.

    Attributes:
        mask: bool ``[z, y, x]`` on the patch.
        core: index (z, y, x) of the centre of the largest inscribed ball.
        radius_mm: radius of that ball.
        lesion_hu: median density of its inner part.
        background_hu: density of the surrounding lung.
        compact: whether it has the shape of a nodule; False for massive structures of any other shape.
    """

    mask: BoolArray
    core: tuple[int, int, int]
    radius_mm: float
    lesion_hu: float
    background_hu: float
    compact: bool

    def cut_sides(self) -> tuple[BoolArray, BoolArray]:
        """Whether the mask reaches the patch's low and high border, along x, y, z; two bool arrays ``[3]``."""
        borders = [np.moveaxis(self.mask, axis, 0)[[0, -1]].any(axis=(1, 2)) for axis in (2, 1, 0)]
        low, high = np.array(borders).T
        return low, high

    @property
    def complete(self) -> bool:
        """Whether the mask stays clear of the patch's border."""
        low, high = self.cut_sides()
        return not (low.any() or high.any())

    @property
    def level_hu(self) -> float:
        """The threshold half way between lesion and lung."""
        return halfway_hu(self.lesion_hu, self.background_hu)


def halfway_hu(lesion_hu: float, background_hu: float) -> float:
    """The threshold half way between a lesion and the surrounding lung."""
    return 0.5 * (min(lesion_hu, _DENSEST_HU) + background_hu)


def lung_density_hu(patch: Patch) -> float:
    """Median HU of the parenchyma in the patch; that of normal lung where it shows none."""
    lungs = patch.lungs if patch.whole_lungs is None else patch.whole_lungs
    values = patch.hu[lungs & (patch.hu < _AIRY_HU)]
    return float(np.median(values)) if values.size else _NORMAL_LUNG_HU


def find_nodule(
    patch: Patch,
    seed: IndexArray,
    *,
    level_hu: float,
    slack_mm: float = 0.0,
    reach_mm: float = np.inf,
    options: NoduleOptions,
) -> Nodule | None:
    """Find the most massive nodule at or near the seed.

    Args:
        patch: the part of the scan.
        seed: sample indices ``[n, 3]`` (z, y, x) where the nodule may be.
        level_hu: threshold.
        slack_mm: largest distance between the seed and the nodule.
        reach_mm: largest distance between the seed and the centre of the nodule's largest inscribed ball.
        options: what counts as a nodule.

    Returns:
        The nodule, which is not ``complete`` where the patch's border cuts it; None where there are only parenchyma,
        vessels or sheets.
    """
    solid = (patch.hu > level_hu) & patch.lungs
    dense = ndimage.binary_fill_holes(solid)  # cavities belong to their lesion
    near = np.zeros(dense.shape, dtype=bool)
    near[tuple(seed.T)] = True
    if slack_mm > 0:
        near = ndimage.binary_dilation(near, _FACES, max(round(slack_mm / patch.step_mm), 1))
    labels, _ = ndimage.label(dense, _FACES)
    touched = np.unique(labels[near & dense])
    if touched.size == 0:
        return None
    dense = np.isin(labels, touched)
    depth = _depth(dense) * patch.step_mm
    start = np.where(near, depth, 0.0)
    for _ in range(_CANDIDATES):
        core = _climb(depth, start)
        if depth[core] < options.min_radius_mm:
            return None
        if _distance_mm(core, seed, patch.step_mm) <= reach_mm:
            nodule = _open(patch, solid, dense, depth, core, options=options)
            if nodule is not None:
                return nodule
        start[_ball(start.shape, core, 1.5 * depth[core] / patch.step_mm)] = 0.0
    return None


def _depth(mask: BoolArray) -> FloatArray:
    """Distance in samples of each True sample to the mask's surface, half a sample before the next False one."""
    result: FloatArray = np.zeros(mask.shape)
    start, stop = bounding_box(mask, 1)
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    result[box] = np.maximum(ndimage.distance_transform_edt(mask[box]) - 0.5, 0.0)
    return result


def _climb(depth: FloatArray, start: FloatArray) -> tuple[int, int, int]:
    """Climb in ``depth`` from the largest value of ``start`` to a local maximum; its index (z, y, x)."""
    z, y, x = (int(i) for i in np.unravel_index(int(np.argmax(start)), start.shape))
    while True:
        low = (max(z - 2, 0), max(y - 2, 0), max(x - 2, 0))
        window = depth[low[0] : z + 3, low[1] : y + 3, low[2] : x + 3]
        step = np.unravel_index(int(np.argmax(window)), window.shape)
        if window[step] <= depth[z, y, x]:
            return z, y, x
        z, y, x = (int(a + b) for a, b in zip(low, step, strict=True))


def _distance_mm(core: tuple[int, int, int], seed: IndexArray, step_mm: float) -> float:
    """Distance in mm from ``core`` to the nearest sample of the seed."""
    return float(np.sqrt(((seed - np.array(core)) ** 2).sum(axis=1).min())) * step_mm


def _ball(shape: tuple[int, ...], centre: tuple[int, int, int], radius_vox: float) -> BoolArray:
    """Mask of a ball in an array of ``shape``."""
    z, y, x = (np.arange(n) - c for n, c in zip(shape, centre, strict=True))
    inside: BoolArray = z[:, None, None] ** 2 + y[:, None] ** 2 + x**2 <= radius_vox**2
    return inside


def _open(
    patch: Patch,
    solid: BoolArray,
    dense: BoolArray,
    depth: FloatArray,
    core: tuple[int, int, int],
    *,
    options: NoduleOptions,
) -> Nodule | None:
    """The part of ``dense`` around ``core`` that survives the opening; None where it is not a nodule."""
    radius = float(depth[core])
    cut = options.opening * radius
    labels, _ = ndimage.label(depth > cut, _FACES)
    eroded = labels == labels[core]
    start, stop = bounding_box(eroded, int(np.ceil(cut / patch.step_mm)) + 2)
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    distance = ndimage.distance_transform_edt(~eroded[box]) * patch.step_mm
    mask = np.zeros_like(dense)
    mask[box] = dense[box] & (distance <= cut + patch.step_mm)
    labels, _ = ndimage.label(mask, _FACES)
    mask = labels == labels[core]
    compact = _is_compact(mask, core, radius / patch.step_mm, options)
    inner = mask & solid & (depth >= 0.6 * radius)
    values = patch.hu[inner if inner.any() else mask & solid]
    nodule = Nodule(mask, core, radius, float(np.median(values)), lung_density_hu(patch), compact)
    acceptable = compact or not nodule.complete or radius >= options.massive_radius_mm
    return nodule if acceptable else None


def _is_compact(mask: BoolArray, core: tuple[int, int, int], radius_vox: float, options: NoduleOptions) -> bool:
    """Whether a mask has the shape of a nodule."""
    points = np.argwhere(mask)
    reach = np.sqrt(((points - np.array(core)) ** 2).sum(axis=1).max())
    return bool(reach <= options.max_reach * radius_vox + 1.0 and elongation(points) <= options.max_elongation)


def elongation(points: NDArray[np.generic], unit: float = 1.0) -> float:
    """Ratio of the longest to the shortest principal extent of a set of samples; 1 for a ball or a cube.

    Args:
        points: positions of the samples, ``[n, 3]``.
        unit: distance between neighbouring samples, in the unit of ``points``.
    """
    spread = np.cov(np.asarray(points, dtype=float).T, bias=True) if len(points) > 1 else np.zeros((3, 3))
    values = np.linalg.eigvalsh(spread + np.eye(3) * unit**2 / 12.0)  # the extent of a single sample
    return float(np.sqrt(values[-1] / values[0]))
