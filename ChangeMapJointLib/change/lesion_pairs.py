"""The same lesion in both scans: segmented from a region of change in one, searched for at its place in the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ChangeMapJointLib.change.regions import Region
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.grid import FloatArray, Grid, apply_affine, nearest_in
from ChangeMapJointLib.lesions.growth import sphere_diameter_mm
from ChangeMapJointLib.lesions.measure import Lesion, LesionMeasure, MeasureOptions, segment_lesion, weighed
from ChangeMapJointLib.lesions.segment import elongation, halfway_hu
from ChangeMapJointLib.scan.scan import Scan

_MARGIN_MM = 10.0  # around a region, for its local motion
_NODES = 4  # samples of the field along each edge of that box
_MOST_SEEDS = 5000
_OWN_SHARE = 0.4  # of a region that must lie in the lesion that changed
_KNOWN_SHARE = (
    0.9  # of a lesion's place that must lie in the other scan's field of view for the lesion to be absent there
)
_EMPTY_SHARE = 0.35  # of that place that may be dense (vessels) for the lesion to be absent there
_OUTLINED_SHARE = 0.6  # of a region that must lie in the lesion that it outlines
_OUTLINED_RADIUS_MM = 1.4  # a region that holds a ball of this radius is not just a displaced edge
_MASS_SHARE = 0.05  # of a massive structure that must have changed for it to be the lesion behind the change
_SMALLEST_SHARE = 0.05  # smallest volume of a counterpart, of the lesion's; anything smaller is another structure
_LARGEST_SHARE = 2.0  # largest volume of a counterpart: apart from measurement errors, the lesion is the larger one
_PALER_SHARE = 0.3  # smallest volume of a counterpart that is less dense
_GOES_ON_SHARE = 0.1  # of the layer around what is dense inside an outline, beyond which it goes on as a vessel
_SAME_HU = 150.0  # by which two scans of one tissue differ: noise, kernel and breath
_BLURRED_VOX = 1.0  # radius in the longest edge of a voxel, below which blur lowers the density of a lesion
_SLACK_MM = 3.0  # tolerance for the error of the registration


@dataclass(frozen=True)
class LocalMotion:
    """The deformation ``y`` near a region as an affine map, and its inverse.

    It serves only to locate a lesion in the other scan, where it is then measured in that scan's own space.

    Attributes:
        matrix: 4x4, reference to template.
        inverse: 4x4, template to reference.
    """

    matrix: FloatArray
    inverse: FloatArray

    def to_template(self, points_mm: FloatArray) -> FloatArray:
        """Map points ``[n, 3]`` of the reference to the template."""
        return apply_affine(self.matrix, points_mm)

    def to_reference(self, points_mm: FloatArray) -> FloatArray:
        """Map points ``[n, 3]`` of the template to the reference."""
        return apply_affine(self.inverse, points_mm)


@dataclass(frozen=True)
class LesionPair:
    """One lesion in both scans.

    Attributes:
        reference: the lesion in the current scan; None where none could be segmented.
        template: the lesion in the prior scan; None where none could be segmented.
        other_empty: whether the scan that is less dense here shows only lung and thin vessels at the lesion's place.
    """

    reference: Lesion | None = None
    template: Lesion | None = None
    other_empty: bool = False

    def primary(self, sign: int) -> Lesion | None:
        """The lesion in the denser scan: the reference where ``sign`` is positive, otherwise the template."""
        return self.reference if sign > 0 else self.template

    @property
    def both(self) -> tuple[LesionMeasure, LesionMeasure] | None:
        """The lesion now and before; None unless it is measured in both scans."""
        if self.reference is None or self.template is None:
            return None
        return self.reference.measure, self.template.measure


@dataclass(frozen=True)
class Change:
    """A region of change and the lesion behind it.

    Attributes:
        region: the region.
        motion: the deformation near it.
        pair: the lesion in both scans.
    """

    region: Region
    motion: LocalMotion
    pair: LesionPair


def local_motions(regions: list[Region], grid: Grid, field: DisplacementField) -> list[LocalMotion]:
    """The best affine approximation of y around each region, by least squares over a box."""
    boxes = []
    for region in regions:
        points = region.points_mm(grid)
        low, high = points.min(axis=0) - _MARGIN_MM, points.max(axis=0) + _MARGIN_MM
        axes = [np.linspace(a, b, _NODES) for a, b in zip(low, high, strict=True)]
        boxes.append(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3))
    if not boxes:
        return []
    moved = field.apply(np.concatenate(boxes)).reshape(len(boxes), -1, 3)
    return [_fit_motion(box, target) for box, target in zip(boxes, moved, strict=True)]


def _fit_motion(points_mm: FloatArray, moved_mm: FloatArray) -> LocalMotion:
    """Fit an affine map to points and their images."""
    middle, target = points_mm.mean(axis=0), moved_mm.mean(axis=0)
    linear: FloatArray = np.linalg.lstsq(points_mm - middle, moved_mm - target, rcond=None)[0].T.astype(float)
    if not 0.2 < np.linalg.det(linear) < 5.0:  # folded or torn: use the shift only
        linear = np.eye(3)
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = target - linear @ middle
    inverse: FloatArray = np.linalg.inv(matrix).astype(float)
    return LocalMotion(matrix, inverse)


def find_lesion_pair(
    region: Region, grid: Grid, motion: LocalMotion, *, reference: Scan, template: Scan, options: MeasureOptions
) -> LesionPair:
    """Find the lesion behind a region of change in both scans.

    It is first segmented in the scan that is denser there (R for an increase, T for a decrease), with the region as
    seed, and then searched for at the corresponding place in the other scan.

    Args:
        region: the region of change.
        grid: grid of the change map.
        motion: y near the region.
        reference: the current scan R.
        template: the prior scan T.
        options: options of the measurement.

    Returns:
        The pair; without lesions where the change is not that of a lesion.
    """
    points = region.points_mm(grid)[:: len(region.voxels) // _MOST_SEEDS + 1]
    now, before = _Side(reference, template, motion.to_template), _Side(template, reference, motion.to_reference)
    denser, less_dense = (now, before) if region.sign > 0 else (before, now)
    seed = points if region.sign > 0 else motion.to_template(points)
    lesion = denser.lesion(seed, options=options)
    if lesion is None or not _explains(lesion, region, grid) or not denser.fills(lesion, seed, _OWN_SHARE):
        lesion = _outlined_lesion(region, grid, denser, seed, options)
        if lesion is None:
            return LesionPair()
        place = denser.to_other(lesion.points_mm)
        counterpart, empty = None, _is_empty(lesion, less_dense.scan, place)
        if not empty:
            counterpart = _within(lesion, less_dense, place, options)
            if counterpart is None:
                return LesionPair()
    else:
        place = denser.to_other(lesion.points_mm)
        place = place[:: len(place) // _MOST_SEEDS + 1]
        counterpart = _counterpart(lesion, less_dense, place, options)
        empty = counterpart is None and _is_empty(lesion, less_dense.scan, place)
        if counterpart is None and not empty:
            counterpart = _within(lesion, less_dense, place, options)
    return LesionPair(lesion, counterpart, empty) if region.sign > 0 else LesionPair(counterpart, lesion, empty)


def find_again(
    lesion: Lesion,
    scan: Scan,
    other: Scan,
    *,
    to_other: Callable[[FloatArray], FloatArray],
    to_scan: Callable[[FloatArray], FloatArray],
    options: MeasureOptions,
) -> tuple[Lesion | None, bool]:
    """Find a lesion of one scan at the corresponding place of another scan.

    Args:
        lesion: segmented in ``scan``; it should be the larger of the two.
        scan: where it was segmented.
        other: where it is searched for.
        to_other: maps points ``[n, 3]`` of ``scan`` to ``other``, in mm, LPS.
        to_scan: the inverse.
        options: options of the measurement.

    Returns:
        The lesion in ``other``, or None; and whether ``other`` shows only lung and thin vessels there.
    """
    points = lesion.points_mm
    place = to_other(points[:: len(points) // _MOST_SEEDS + 1])
    found = _counterpart(lesion, _Side(other, scan, to_scan), place, options)
    return found, found is None and _is_empty(lesion, other, place)


@dataclass(frozen=True)
class _Side:
    """One scan, the other scan, and the map of points to it."""

    scan: Scan
    other: Scan
    to_other: Callable[[FloatArray], FloatArray]

    def lesion(
        self,
        seed_mm: FloatArray,
        *,
        lesion_hu: float | None = None,
        fixed: bool = False,
        slack_mm: float = 0.0,
        reach_mm: float = np.inf,
        within_mm: float | None = None,
        options: MeasureOptions,
    ) -> Lesion | None:
        """As :func:`segment_lesion`; lung of the other scan counts too, since masks may cut nodules off."""
        return segment_lesion(
            self.scan.volume,
            self.scan.lungs.labels,
            seed_mm,
            lesion_hu=lesion_hu,
            fixed=fixed,
            slack_mm=slack_mm,
            reach_mm=reach_mm,
            within_mm=within_mm,
            also_lung=lambda points: self.other.lung_at(self.to_other(points)) != 0,
            options=options,
        )

    def fills(self, lesion: Lesion, seed_mm: FloatArray, share: float) -> bool:
        """Whether at least ``share`` of the seed lies in the lesion, with a tolerance of one voxel."""
        voxel = float(np.median(self.scan.grid.spacing_mm))
        return bool(lesion.contains(seed_mm, margin_mm=voxel).mean() >= share)


def _explains(lesion: Lesion, region: Region, grid: Grid) -> bool:
    """Whether the lesion is a nodule, or a mass of which a large enough part changed; otherwise it is the hilum."""
    region_ml = len(region.voxels) * grid.voxel_volume_ml
    return lesion.nodule.compact or region_ml >= _MASS_SHARE * lesion.measure.volume_ml


def _outlined_lesion(
    region: Region, grid: Grid, side: _Side, seed_mm: FloatArray, options: MeasureOptions
) -> Lesion | None:
    """The lesion that a massive, compact region of change outlines: an irregular one, or one at the hilum."""
    start, stop = region.voxels.min(axis=0), region.voxels.max(axis=0) + 1
    mask = np.zeros(stop - start + 2, dtype=bool)
    mask[tuple((region.voxels - start + 1).T)] = True
    radius = ndimage.distance_transform_edt(mask, sampling=grid.spacing_mm[::-1]).max() - min(grid.spacing_mm) / 2
    if radius < _OUTLINED_RADIUS_MM or elongation(region.points_mm(grid)) > options.nodule.max_elongation:
        return None
    voxel = max(*grid.spacing_mm, *side.scan.grid.spacing_mm)
    lesion = side.lesion(seed_mm, within_mm=voxel, options=options)
    return lesion if lesion is not None and side.fills(lesion, seed_mm, _OUTLINED_SHARE) else None


def _counterpart(lesion: Lesion, side: _Side, place_mm: FloatArray, options: MeasureOptions) -> Lesion | None:
    """The lesion at ``place_mm`` in the other scan.

    It is as dense as the first one. Where it seems paler, it is measured at the density of the first one: as the solid
    part of a part-solid lesion, or as what blur leaves of a few voxels. Else it is less dense (ground glass that became
    solid) but of similar size.
    """
    radius_mm = 0.5 * sphere_diameter_mm(lesion.measure.volume_ml)
    reach = max(_SLACK_MM, 0.5 * radius_mm)
    density = lesion.nodule.lesion_hu
    least_ml, most_ml = _SMALLEST_SHARE * lesion.measure.volume_ml, _LARGEST_SHARE * lesion.measure.volume_ml

    def at(density_hu: float | None, slack_mm: float, *, fixed: bool = False) -> Lesion | None:
        found = side.lesion(
            place_mm, lesion_hu=density_hu, fixed=fixed, slack_mm=slack_mm, reach_mm=reach, options=options
        )
        return found if found is not None and least_ml < found.measure.volume_ml < most_ml else None

    for slack in (0.0, _SLACK_MM):
        candidate = at(density, slack)
        if candidate is not None and abs(candidate.nodule.lesion_hu - density) > _SAME_HU:
            candidate = at(density, slack, fixed=True) or _unblurred(candidate, side, density)
        if candidate is not None:
            return candidate
    paler = side.lesion(place_mm, reach_mm=reach, options=options)
    if paler is None:
        return None
    blurred = _unblurred(paler, side, density)
    least_ml = least_ml if blurred is not paler else _PALER_SHARE * lesion.measure.volume_ml
    return blurred if least_ml < blurred.measure.volume_ml < most_ml else None


def _unblurred(lesion: Lesion, side: _Side, density_hu: float) -> Lesion:
    """The lesion, with the volume that it has at a known density if blur has lowered its own."""
    blurred = lesion.nodule.radius_mm < _BLURRED_VOX * max(side.scan.grid.spacing_mm)
    return weighed(lesion, side.scan.volume, density_hu) if blurred else lesion


def _within(lesion: Lesion, side: _Side, place_mm: FloatArray, options: MeasureOptions) -> Lesion | None:
    """What is as dense in the other scan inside the lesion's own outline, where the wall hides its end.

    None where it goes on in the lung beyond the outline: a vessel that was there before is no smaller lesion.
    """
    voxel = max(side.scan.grid.spacing_mm)
    found = side.lesion(place_mm, lesion_hu=lesion.nodule.lesion_hu, fixed=True, within_mm=voxel, options=options)
    if found is None or found.patch.whole_lungs is None:
        return None
    beyond = found.patch.whole_lungs & ~found.patch.lungs & (found.patch.hu > found.nodule.level_hu)
    layer = ndimage.binary_dilation(found.nodule.mask) & ~found.nodule.mask
    share = found.measure.volume_ml / lesion.measure.volume_ml
    return found if _SMALLEST_SHARE < share < 1.0 and beyond[layer].mean() < _GOES_ON_SHARE else None


def _is_empty(lesion: Lesion, scan: Scan, place_mm: FloatArray) -> bool:
    """Whether the place lies in the scan's field of view and is mostly lung."""
    hu, inside = nearest_in(scan.array, scan.grid, place_mm)
    if inside.mean() < _KNOWN_SHARE:
        return False
    level = halfway_hu(lesion.nodule.lesion_hu, lesion.nodule.background_hu)
    return float((hu > level).mean()) < _EMPTY_SHARE
