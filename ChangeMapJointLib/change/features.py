"""What the judge looks at: numbers that describe one measured change and its surroundings.

All are of order 1, and defined wherever there is a region, so that a linear model can weigh them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.change.evidence import ChangeEvidence
from ChangeMapJointLib.change.naming import classify_change
from ChangeMapJointLib.core.blur import missing_sigma_mm
from ChangeMapJointLib.core.grid import FloatArray, Grid
from ChangeMapJointLib.lesions.growth import REPEAT_SCAN_UPPER, sphere_diameter_mm

if TYPE_CHECKING:
    from ChangeMapJointLib.change.lesion_pairs import Change
    from ChangeMapJointLib.lesions.measure import Lesion

_MARGIN_MM = 14.0  # around a region, of its surroundings
_MOST_SAMPLES = 72  # along an edge of the surroundings; larger ones are thinned out
_RIM_MM = 2.5  # depth below the surface of either lung that counts as its rim
_SHELL_MM = (2.0, 9.0)  # distances from the region of its surroundings
_BESIDE_MM = 6.0  # an opposite change as near as this may be the same structure
_CONTRAST_HU = 60.0  # weaker differences are not counted
_OUTSIDE_MM = (0.8, 2.6)  # distances from a lesion's surface at which it may go on as a vessel
_MOST_POINTS = 4000


@dataclass(frozen=True)
class Features:
    """The features of one change.

    Attributes:
        appeared: 1 where a lesion is new or resolved.
        changed: 1 where a lesion has grown or shrunk beyond the measurement error.
        unproven: 1 where a lesion is measured in both scans without a proven change.
        nameless: 1 where no lesion could be segmented.
        growth: logarithm of the ratio of volumes over its error, in the direction of the change; 0 unless both are
            measured.
        size: logarithm of the lesion's diameter over 6 mm; of the region's where there is no lesion.
        contrast: density of the lesion less that of the lung, in 1000 HU; the peak's where there is no lesion.
        massive: 1 where the lesion is a mass of any shape.
        lesion_length: logarithm of the lesion's longest over its shortest extent.
        fullness: radius of the largest ball in the lesion over that of the ball of its volume.
        covered: share of the region inside the lesion.
        filled: region's volume over the lesion's, at most 1.5.
        region_length: logarithm of the region's longest over its shortest extent.
        region_flatness: logarithm of its middle over its shortest extent.
        depth: distance in cm of the region's middle from the surface of either lung, at most 1.5.
        rim: share of the region in the rim of either lung.
        beyond: share of the region where only one mask has lung.
        along_surface: how far the region is a layer along the surface, 0 to 1.
        gap: mean distance in mm of the two lungs' surfaces around it, at most 6.
        distrust: 1 less the mean trust.
        restless: mean difference in its surroundings, in 100 HU.
        prominence: logarithm of its response over the strongest tenth of its surroundings'.
        significance: logarithm of its response over the noise of that scale.
        response: its strongest response in 300 HU.
        coarseness: scale of that response, 0 for the finest to 1.
        opposite: opposite change beside it over its own, at most 1.5.
        displaced: 1 where an opposite change was found to be the same structure.
        peak: largest value of CM_seq or CM_diff in the region.
        attached: share of the shell around the lesion that is as dense as the lesion.
        at_wall: share of that shell outside the lungs.
        thickness: larger slice spacing or voxel size in 5 mm.
        blur: difference of the two scans' blur in mm.
        unrest: noise of the middle scale in 50 HU.
        learned: largest value of CM_learn in the region; 0 without it.
    """

    appeared: float
    changed: float
    unproven: float
    nameless: float
    growth: float
    size: float
    contrast: float
    massive: float
    lesion_length: float
    fullness: float
    covered: float
    filled: float
    region_length: float
    region_flatness: float
    depth: float
    rim: float
    beyond: float
    along_surface: float
    gap: float
    distrust: float
    restless: float
    prominence: float
    significance: float
    response: float
    coarseness: float
    opposite: float
    displaced: float
    peak: float
    attached: float
    at_wall: float
    thickness: float
    blur: float
    unrest: float
    learned: float


def measure_features(change: Change, evidence: ChangeEvidence, *, displaced: bool) -> Features:
    """Measure the features of one change.

    Args:
        change: its region and the lesion in both scans.
        evidence: of the comparison.
        displaced: whether an opposite change was found to be the same structure, see
            :func:`~ChangeMapJointLib.change.naming.dipole_partners`.
    """
    voxels = tuple(change.region.voxels.T)
    trust = None if evidence.trust is None else evidence.trust(_some(change.region.points_mm(evidence.grid)))
    learned = 0.0 if evidence.learned is None else float(evidence.learned[voxels].max())
    return Features(
        **_lesion_features(change, evidence),
        **_surroundings(change, evidence),
        **_response_features(change, evidence),
        distrust=0.3 if trust is None else 1.0 - float(np.mean(trust)),
        displaced=float(displaced),
        peak=float((evidence.change_map if evidence.difference is None else evidence.difference)[voxels].max()),
        learned=learned,
        **_acquisition(evidence),
    )


# -- the lesion -------------------------------------------------------------------------
def _lesion_features(change: Change, evidence: ChangeEvidence) -> dict[str, float]:
    """Kind, size, density and shape of the lesion behind the region."""
    region, pair = change.region, change.pair
    lesion, kind = pair.primary(region.sign), classify_change(region.sign, pair)
    region_ml = len(region.voxels) * evidence.grid.voxel_volume_ml
    longest, middle, shortest = _extents(change, evidence.grid)
    values = {
        "appeared": float(kind in ("new", "resolved")),
        "changed": float(kind in ("grown", "shrunk")),
        "unproven": float(lesion is not None and kind in ("increase", "decrease")),
        "nameless": float(lesion is None),
        "growth": _growth(change),
        "region_length": math.log(longest / shortest),
        "region_flatness": math.log(middle / shortest),
    }
    if lesion is None:
        signed = np.abs(evidence.signed_hu[tuple(region.voxels.T)].astype(float))
        empty = dict.fromkeys(("massive", "lesion_length", "fullness", "covered", "filled", "attached", "at_wall"), 0.0)
        size, contrast = math.log(sphere_diameter_mm(region_ml) / 6.0), min(float(signed.max()), 1200.0) / 1000.0
        return {**values, **empty, "size": size, "contrast": contrast}
    points = _some(lesion.points_mm)
    spread = np.linalg.eigvalsh(np.cov(points.T, bias=True) + np.eye(3) * lesion.patch.step_mm**2 / 12)
    radius = 0.5 * sphere_diameter_mm(lesion.measure.volume_ml)
    seed = _some(region.points_mm(evidence.grid))
    seed = seed if region.sign > 0 else change.motion.to_template(seed)
    attached, at_wall = _shell(lesion)
    return {
        **values,
        "size": math.log(max(2 * radius, 1.0) / 6.0),
        "contrast": min(lesion.nodule.lesion_hu - lesion.nodule.background_hu, 1200.0) / 1000.0,
        "massive": float(not lesion.nodule.compact),
        "lesion_length": 0.5 * math.log(max(spread[-1] / spread[0], 1.0)),
        "fullness": min(lesion.nodule.radius_mm / max(radius, 0.5), 1.5),
        "covered": float(lesion.contains(seed, margin_mm=lesion.patch.step_mm).mean()),
        "filled": min(region_ml / max(lesion.measure.volume_ml, 1e-4), 1.5),
        "attached": attached,
        "at_wall": at_wall,
    }


def _growth(change: Change) -> float:
    """Logarithm of the ratio of volumes in the direction of the change, in standard deviations, from -1 to 2 of 4."""
    if change.pair.both is None:
        return 0.0
    now, before = change.pair.both
    error = math.hypot(math.log(REPEAT_SCAN_UPPER) / 1.96, now.volume_error / 1.96, before.volume_error / 1.96)
    deviations = change.region.sign * math.log(now.volume_ml / before.volume_ml) / error
    return float(np.clip(deviations / 4.0, -1.0, 2.0))


def _extents(change: Change, grid: Grid) -> tuple[float, float, float]:
    """Principal extents of the region in mm as standard deviations, the longest first."""
    points = change.region.points_mm(grid)
    spread = np.cov(points.T, bias=True) if len(points) > 1 else np.zeros((3, 3))
    step = float(np.cbrt(np.prod(grid.spacing_mm)))
    shortest, middle, longest = np.sqrt(np.linalg.eigvalsh(spread + np.eye(3) * step**2 / 12))
    return float(longest), float(middle), float(shortest)


def _shell(lesion: Lesion) -> tuple[float, float]:
    """Share of the shell around a lesion that is as dense, and that lies outside the lungs."""
    mask, patch = lesion.nodule.mask, lesion.patch
    margin = math.ceil(_OUTSIDE_MM[1] / patch.step_mm) + 1
    where = np.argwhere(mask)
    box = tuple(slice(max(a - margin, 0), b + margin + 1) for a, b in zip(where.min(0), where.max(0), strict=True))
    distance = ndimage.distance_transform_edt(~mask[box]) * patch.step_mm
    shell = (distance >= _OUTSIDE_MM[0]) & (distance <= _OUTSIDE_MM[1])
    if not shell.any():
        return 0.0, 0.0
    inside = patch.lungs[box][shell]
    dense = (patch.hu[box][shell] > lesion.nodule.level_hu) & inside
    return float(dense.mean()), float(1.0 - inside.mean())


def _some(points: FloatArray) -> FloatArray:
    return points[:: len(points) // _MOST_POINTS + 1]


# -- the surroundings -------------------------------------------------------------------
def _surroundings(change: Change, evidence: ChangeEvidence) -> dict[str, float]:
    """Where the region lies in both lungs, and what differs around it."""
    spacing = np.array(evidence.grid.spacing_mm)[::-1]
    margin = np.ceil(_MARGIN_MM / spacing).astype(int)
    low = np.maximum(change.region.voxels.min(axis=0) - margin, 0)
    high = np.minimum(change.region.voxels.max(axis=0) + margin + 1, evidence.grid.shape)
    step = np.maximum((high - low) // _MOST_SAMPLES, 1)
    whole = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    thin = tuple(slice(None, None, k) for k in step)
    spacing = spacing * step
    own = np.zeros(high - low, dtype=bool)
    own[tuple((change.region.voxels - low).T)] = True
    own = ndimage.maximum_filter(own, tuple(step))[thin] if (step > 1).any() else own
    box = tuple(slice(a, b, k) for a, b, k in zip(low, high, step, strict=True))
    now, before = evidence.pair.reference.mask[box], evidence.lungs_warped[box]
    signed = evidence.clipped_hu(whole)[thin]  # type: ignore[arg-type]
    depth = _depth(now & before, spacing)
    away = ndimage.distance_transform_edt(~own, sampling=spacing)
    shell = (away >= _SHELL_MM[0]) & (away <= _SHELL_MM[1])
    core = shell & (depth > 1.0)
    middle = _depth(now | before, spacing)[own]
    own_sum = float(np.abs(signed[own]).sum()) + 1.0
    beside = (away > 0) & (away <= _BESIDE_MM) & (signed * change.region.sign < -_CONTRAST_HU)
    return {
        "depth": float(np.clip(middle.mean(), 0.0, 15.0)) / 10.0,
        "rim": float((depth[own] < _RIM_MM).mean()),
        "beyond": float((now != before)[own].mean()),
        "along_surface": _along_surface(own, depth, spacing),
        "gap": _gap_mm(now, before, shell, spacing),
        "restless": min(float(np.abs(signed[core]).mean()) / 100.0, 4.0) if core.any() else 0.0,
        "opposite": min(float(np.abs(signed[beside]).sum()) / own_sum, 1.5),
    }


def _depth(mask: NDArray[np.bool_], spacing: NDArray[np.floating]) -> NDArray[np.floating]:
    """Distance in mm to the surface of a mask, 0 outside; the box's border is no surface."""
    if mask.all():
        return np.full(mask.shape, 2 * _MARGIN_MM)
    depth: NDArray[np.floating] = ndimage.distance_transform_edt(mask, sampling=spacing)
    return depth


def _along_surface(own: NDArray[np.bool_], depth: NDArray[np.floating], spacing: NDArray[np.floating]) -> float:
    """How far a region is a layer along the surface: near it, and thinner across it than along it."""
    near = float((depth[own] < 2 * _RIM_MM).mean())
    points = np.argwhere(own) * spacing
    if near == 0 or len(points) < 4:
        return 0.0
    smooth = ndimage.gaussian_filter(depth, 2.0 / spacing)
    normal = np.stack([g[own] for g in np.gradient(smooth, *spacing)], axis=1)
    mean = normal.mean(axis=0)
    length = float(np.linalg.norm(mean))
    if length < 1e-3:
        return 0.0
    spread = np.cov(points.T, bias=True) + np.diag(spacing**2) / 12.0
    across = float(np.sqrt(mean @ spread @ mean)) / length
    along = float(np.sqrt(max(np.trace(spread) - across**2, 1e-6) / 2))
    return near * float(np.clip(1.0 - across / along, 0.0, 1.0))


def _gap_mm(
    now: NDArray[np.bool_], before: NDArray[np.bool_], shell: NDArray[np.bool_], spacing: NDArray[np.floating]
) -> float:
    """Mean distance of the surfaces of two masks in a shell: the volume between them over the area of one."""
    either = now | before
    edge = either & ~ndimage.binary_erosion(either, border_value=1) & shell
    area = float(edge.sum())
    between = float(((now != before) & shell).sum())
    return min(between / area * float(np.cbrt(np.prod(spacing))), 6.0) if area >= 10 else 0.0


# -- its strength -----------------------------------------------------------------------
def _response_features(change: Change, evidence: ChangeEvidence) -> dict[str, float]:
    """Strength at the scale at which it stands out most, against noise and against its surroundings."""
    voxels = evidence.working_voxels(change.region.voxels)
    best = (0.0, 0.0, 0.0, 0)
    for number, response in enumerate(evidence.responses):
        if not len(voxels):
            break
        strength = change.region.sign * response.hu[tuple(voxels.T)]
        peak = float(strength.max())
        if peak / response.noise_hu > best[0]:
            best = (peak / response.noise_hu, peak, _around(response.hu, voxels, evidence.working_grid), number)
    ratio, peak, around, number = best
    return {
        "significance": math.log(max(ratio, 1.0)),
        "response": float(np.clip(peak / 300.0, 0.0, 3.0)),
        "prominence": float(np.clip(math.log(max(peak, 1.0) / max(around, 1.0)), -2.0, 3.0)),
        "coarseness": number / max(len(evidence.responses) - 1, 1),
    }


def _around(hu: NDArray[np.float32], voxels: NDArray[np.intp], grid: Grid) -> float:
    """The strongest tenth of a response around voxels, in HU."""
    spacing = np.array(grid.spacing_mm)[::-1]
    margin = np.ceil(_SHELL_MM[1] / spacing).astype(int)
    low = np.maximum(voxels.min(axis=0) - margin, 0)
    high = np.minimum(voxels.max(axis=0) + margin + 1, hu.shape)
    part = np.abs(hu[tuple(slice(a, b) for a, b in zip(low, high, strict=True))])
    own = np.zeros(part.shape, dtype=bool)
    own[tuple((voxels - low).T)] = True
    own = ndimage.binary_dilation(own, iterations=max(round(_SHELL_MM[0] / float(spacing.mean())), 1))
    others = part[~own & (part > 0)]
    return float(np.percentile(others, 90)) if len(others) else 0.0


def _acquisition(evidence: ChangeEvidence) -> dict[str, float]:
    """What the two scans allow."""
    now, before = evidence.pair.reference.grid, evidence.pair.template.grid
    missing = max(*missing_sigma_mm(now, before), *missing_sigma_mm(before, now))
    unrest = evidence.responses[1].noise_hu if len(evidence.responses) > 1 else 0.0
    return {
        "thickness": min(max(*now.spacing_mm, *before.spacing_mm) / 5.0, 2.0),
        "blur": min(missing, 3.0),
        "unrest": min(unrest / 50.0, 2.0),
    }
