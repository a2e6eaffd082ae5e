"""The same lesion in both scans: found from a region of change in the one, sought at its place in the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ChangeMapJointLib.change.regions import Region
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.grid import FloatArray, Grid, apply_affine, nearest_in
from ChangeMapJointLib.lesions.growth import sphere_diameter_mm
from ChangeMapJointLib.lesions.measure import Lesion, LesionMeasure, MeasureOptions, segment_lesion
from ChangeMapJointLib.lesions.segment import elongation, halfway_hu
from ChangeMapJointLib.scan.scan import Scan

_MARGIN_MM = 10.0  # round a region, where its local motion is taken
_NODES = 4  # samples of the field along each edge of that box
_MOST_SEEDS = 5000
_OWN_SHARE = 0.4  # of a region lies in the lesion that changed, at least
_KNOWN_SHARE = 0.9  # of the place must lie in the other scan's field of view for that
_EMPTY_SHARE = 0.35  # of the place may be dense (vessels) where a lesion is said to be absent
_OUTLINED_SHARE = 0.6  # of such a region lies in the lesion that it outlines, at least
_OUTLINED_RADIUS_MM = 2.0  # ball that fits into a region of change which is no displaced edge
_MASS_SHARE = 0.05  # of a massive structure has changed, at least, for it to be the lesion behind the change
_SMALLEST_SHARE = 0.05  # of a lesion's volume that its counterpart has; what is smaller is some other structure
_LARGEST_SHARE = 2.0  # the same for the largest: the lesion is the larger one, errors of measurement apart
_PALER_SHARE = 0.3  # the same for a counterpart that is less dense
_SLACK_MM = 3.0  # what a registration may be off


@dataclass(frozen=True)
class LocalMotion:
    """``y`` near a region as an affine map, and its inverse.

    It only says where to look: a lesion is measured where it is found.
    """

    matrix: FloatArray
    inverse: FloatArray

    def to_template(self, points_mm: FloatArray) -> FloatArray:
        """Reference points ``[n, 3]`` to template points."""
        return apply_affine(self.matrix, points_mm)

    def to_reference(self, points_mm: FloatArray) -> FloatArray:
        """Template points ``[n, 3]`` to reference points."""
        return apply_affine(self.inverse, points_mm)


@dataclass(frozen=True)
class LesionPair:
    """What is found of one lesion in the two scans.

    Attributes:
        reference: the lesion in the current scan, None where none could be delimited.
        template: the lesion in the prior scan.
        other_empty: the scan that is less dense here shows lung (and thin vessels) at the place.
    """

    reference: Lesion | None = None
    template: Lesion | None = None
    other_empty: bool = False

    def primary(self, sign: int) -> Lesion | None:
        """The lesion in the scan that is denser where the change has this sign."""
        return self.reference if sign > 0 else self.template

    @property
    def both(self) -> tuple[LesionMeasure, LesionMeasure] | None:
        """The lesion now and before, where it is measured in both scans."""
        if self.reference is None or self.template is None:
            return None
        return self.reference.measure, self.template.measure


@dataclass(frozen=True)
class Change:
    """A region of change with what is known of the lesion behind it."""

    region: Region
    motion: LocalMotion
    pair: LesionPair


def local_motions(regions: list[Region], grid: Grid, field: DisplacementField) -> list[LocalMotion]:
    """The best affine approximation of y round each region (least squares over a box)."""
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
    middle, target = points_mm.mean(axis=0), moved_mm.mean(axis=0)
    linear: FloatArray = np.linalg.lstsq(points_mm - middle, moved_mm - target, rcond=None)[0].T.astype(float)
    if not 0.2 < np.linalg.det(linear) < 5.0:  # folded or torn: only the shift can be trusted
        linear = np.eye(3)
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = target - linear @ middle
    inverse: FloatArray = np.linalg.inv(matrix).astype(float)
    return LocalMotion(matrix, inverse)


def find_lesion_pair(
    region: Region, grid: Grid, motion: LocalMotion, *, reference: Scan, template: Scan, options: MeasureOptions
) -> LesionPair:
    """The lesion behind a region of change, in both scans.

    It is delimited first in the scan that is denser there (R for an increase, T for a decrease), seeded by the
    region, then sought in the other scan at the place of the first.

    Args:
        region: where the change is.
        grid: the change map's grid.
        motion: y near the region.
        reference: the current scan R.
        template: the prior scan T.
        options: how lesions are measured.

    Returns:
        The pair; both None where the change is no lesion's.
    """
    points = region.points_mm(grid)[:: len(region.voxels) // _MOST_SEEDS + 1]
    now, before = _Side(reference, template, motion.to_template), _Side(template, reference, motion.to_reference)
    first, second = (now, before) if region.sign > 0 else (before, now)
    seed = points if region.sign > 0 else motion.to_template(points)
    lesion = first.lesion(seed, options=options)
    other = None
    if lesion is None or not _explains(lesion, region, grid) or not first.fills(lesion, seed, _OWN_SHARE):
        lesion = _outlined(region, grid, first, seed, options)
        if lesion is None or not _is_empty(lesion, second.scan, first.to_other(lesion.points_mm)):
            return LesionPair()
        empty = True
    else:
        place = first.to_other(lesion.points_mm)
        place = place[:: len(place) // _MOST_SEEDS + 1]
        other = _counterpart(lesion, second, place, options)
        empty = other is None and _is_empty(lesion, second.scan, place)
    return LesionPair(lesion, other, empty) if region.sign > 0 else LesionPair(other, lesion, empty)


@dataclass(frozen=True)
class _Side:
    """One scan with the way to the other."""

    scan: Scan
    other: Scan
    to_other: Callable[[FloatArray], FloatArray]

    def lesion(
        self,
        seed_mm: FloatArray,
        *,
        lesion_hu: float | None = None,
        slack_mm: float = 0.0,
        reach_mm: float = np.inf,
        within_mm: float | None = None,
        options: MeasureOptions,
    ) -> Lesion | None:
        """As :func:`segment_lesion`; what is lung in the other scan is no wall: masks often cut off a nodule."""
        return segment_lesion(
            self.scan.volume,
            self.scan.lungs.labels,
            seed_mm,
            lesion_hu=lesion_hu,
            slack_mm=slack_mm,
            reach_mm=reach_mm,
            within_mm=within_mm,
            also_lung=lambda points: self.other.lung_at(self.to_other(points)) != 0,
            options=options,
        )

    def fills(self, lesion: Lesion, seed_mm: FloatArray, share: float) -> bool:
        """Does at least ``share`` of the seed lie in the lesion, give or take a voxel?"""
        voxel = float(np.median(self.scan.grid.spacing_mm))
        return bool(lesion.contains(seed_mm, margin_mm=voxel).mean() >= share)


def _explains(lesion: Lesion, region: Region, grid: Grid) -> bool:
    """Is it a nodule, or a mass of which the region is more than a trifle? Otherwise it is the hilum."""
    region_ml = len(region.voxels) * grid.voxel_volume_ml
    return lesion.nodule.compact or region_ml >= _MASS_SHARE * lesion.measure.volume_ml


def _outlined(region: Region, grid: Grid, side: _Side, seed_mm: FloatArray, options: MeasureOptions) -> Lesion | None:
    """The lesion that a massive, compact region of change itself outlines: irregular, or on the hilum."""
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
    """The lesion at ``place_mm`` of the other scan.

    As dense as the first one, or else less dense (ground glass that became solid) but of a size with it.
    """
    size = 0.5 * sphere_diameter_mm(lesion.measure.volume_ml)
    reach = max(_SLACK_MM, 0.5 * size)
    density = lesion.nodule.lesion_hu
    least_ml, most_ml = _SMALLEST_SHARE * lesion.measure.volume_ml, _LARGEST_SHARE * lesion.measure.volume_ml
    for slack in (0.0, _SLACK_MM):
        found = side.lesion(place_mm, lesion_hu=density, slack_mm=slack, reach_mm=reach, options=options)
        if found is not None and least_ml < found.measure.volume_ml < most_ml:
            return found
    paler = side.lesion(place_mm, reach_mm=reach, options=options)
    same_size = paler is not None and _PALER_SHARE * lesion.measure.volume_ml < paler.measure.volume_ml < most_ml
    return paler if same_size else None


def _is_empty(lesion: Lesion, scan: Scan, place_mm: FloatArray) -> bool:
    """Is the place in the scan's field of view, and mostly lung?"""
    hu, known = nearest_in(scan.array, scan.grid, place_mm)
    if known.mean() < _KNOWN_SHARE:
        return False
    level = halfway_hu(lesion.nodule.lesion_hu, lesion.nodule.background_hu)
    return float((hu > level).mean()) < _EMPTY_SHARE
