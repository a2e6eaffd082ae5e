"""Sensitive candidates: every place where a lesion may have changed, before anything is measured there.

The change map at a low threshold shows strong change. Ground glass and nodules of a few voxels stay below it and stand
out only after smoothing at their own size. Therefore the extremes of the signed difference at several scales are
candidates as well, each with the voxels around it that reach half of its value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.change.evidence import ChangeEvidence, Response
from ChangeMapJointLib.change.regions import IndexArray, Region
from ChangeMapJointLib.core.filters import label_sizes

_FULL = ndimage.generate_binary_structure(3, 3)
_HALF = 0.5  # share of the extreme that a voxel of its region reaches
_SHARED = 0.4  # share of its voxels from which an extreme belongs to another candidate
_REACH = 3.5  # radius around the extreme in sigmas in which its region may lie
_SURROUNDINGS_SIGMAS, _SURROUNDINGS_MM = 3.0, 4.0  # half the edge of the box in which an extreme must stand out
_HOST = 3.0  # times the voxels of an extreme: a known candidate that large at its peak is another structure


@dataclass(frozen=True)
class CandidateOptions:
    """What counts as a faint candidate.

    Attributes:
        noise: least ratio of an extreme to the noise of its scale.
        floor_hu: least value of an extreme at each scale, in HU.
        most: number of faint candidates that are measured; the most conspicuous ones.
    """

    noise: float = 4.5
    floor_hu: tuple[float, float, float] = (60.0, 40.0, 25.0)
    most: int = 80


@dataclass(frozen=True)
class _Extreme:
    """An extreme of one response: its peak and its voxels on the working grid, and how conspicuous it is."""

    sign: int
    peak: IndexArray
    voxels: IndexArray
    rank: float


def faint_candidates(
    evidence: ChangeEvidence, taken: NDArray[np.bool_], *, options: CandidateOptions | None = None
) -> list[Region]:
    """Find the places where the signed difference stands out at one of the scales.

    Args:
        evidence: of the comparison.
        taken: bool ``[z, y, x]`` on the reference's grid: voxels of candidates that are known already.
        options: what counts.

    Returns:
        Regions on the reference's grid that share no voxel with ``taken`` or each other, the most conspicuous first.
    """
    options = options or CandidateOptions()
    if not evidence.responses:
        return []
    extremes: list[_Extreme] = []
    for response, floor in zip(evidence.responses, options.floor_hu, strict=False):
        least = max(options.noise * response.noise_hu, floor)
        extremes += _extremes(response, evidence, least, most=6 * options.most)
    extremes.sort(key=lambda extreme: -extreme.rank)
    owner = _owners(evidence, taken)
    sizes = label_sizes(owner).tolist()
    regions: list[Region] = []
    for extreme in extremes:
        if len(regions) == options.most:
            break
        own = extreme.voxels[owner[tuple(extreme.voxels.T)] == 0]
        host = int(owner[tuple(extreme.peak)])
        if len(own) <= (1 - _SHARED) * len(extreme.voxels) or (host and sizes[host] < _HOST * len(extreme.voxels)):
            continue
        owner[tuple(own.T)] = len(sizes)
        sizes.append(len(own))
        voxels = evidence.fine_voxels(own)
        voxels = voxels[~taken[tuple(voxels.T)]]
        if len(voxels):
            regions.append(Region(extreme.sign, voxels, evidence.change_map[tuple(voxels.T)]))
    return regions


def _owners(evidence: ChangeEvidence, taken: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Numbers of the known candidates on the working grid, 0 elsewhere."""
    known = np.zeros(evidence.working_grid.shape, dtype=bool)
    known[tuple(evidence.working_voxels(np.argwhere(taken)).T)] = True
    labels, _ = ndimage.label(known, _FULL)
    return np.asarray(labels, dtype=np.int32)


def _extremes(response: Response, evidence: ChangeEvidence, least_hu: float, *, most: int) -> list[_Extreme]:
    """The local extremes of one response that reach ``least_hu``, the strongest ``most``."""
    spacing = np.array(evidence.working_grid.spacing_mm)[::-1]
    size = np.maximum(2 * np.rint(response.scale_mm / spacing).astype(int) + 1, 3)
    strength = np.abs(response.hu)
    top = (strength >= least_hu) & (strength == ndimage.maximum_filter(strength, size))
    peaks = np.argwhere(top)
    peaks = peaks[np.argsort(-strength[tuple(peaks.T)], kind="stable")][:most]
    reach = np.ceil(_REACH * response.scale_mm / spacing).astype(int)
    found = []
    for peak in peaks:
        voxels = _around(response, peak, reach, spacing)
        value = float(response.hu[tuple(peak)])
        if len(voxels):
            found.append(_Extreme(1 if value > 0 else -1, peak, voxels, _rank(peak, response, voxels, spacing)))
    return found


def _around(
    response: Response, peak: NDArray[np.intp], reach: NDArray[np.intp], spacing: NDArray[np.floating]
) -> IndexArray:
    """The voxels connected to an extreme that reach half of it, within a ball."""
    low = np.maximum(peak - reach, 0)
    high = np.minimum(peak + reach + 1, response.hu.shape)
    part = response.hu[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    value = response.hu[tuple(peak)]
    axes = [((np.arange(a, b) - p) * h) ** 2 for a, b, p, h in zip(low, high, peak, spacing, strict=True)]
    distance = axes[0][:, None, None] + axes[1][:, None] + axes[2]
    inside = (part * np.sign(value) >= _HALF * abs(value)) & (distance <= (_REACH * response.scale_mm) ** 2)
    labels, _ = ndimage.label(inside, _FULL)
    voxels: IndexArray = np.argwhere(labels == labels[tuple(peak - low)]) + low
    return voxels


def _rank(peak: NDArray[np.intp], response: Response, voxels: IndexArray, spacing: NDArray[np.floating]) -> float:
    """How conspicuous an extreme is: against what is around it, and the rounder the more."""
    points = voxels * spacing
    spread = np.cov(points.T, bias=True) if len(points) > 1 else np.zeros((3, 3))
    axes = np.linalg.eigvalsh(spread + np.diag(spacing**2) / 12.0)
    reach = np.ceil((_SURROUNDINGS_SIGMAS * response.scale_mm + _SURROUNDINGS_MM) / spacing).astype(int)
    low, high = np.maximum(peak - reach, 0), peak + reach + 1
    around = response.hu[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    unrest = max(float(np.sqrt(np.mean(np.square(around)))), response.noise_hu)
    return abs(float(response.hu[tuple(peak)])) / unrest * float((axes[0] / axes[-1]) ** 0.5)
