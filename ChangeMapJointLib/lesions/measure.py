"""Measurement of one lesion in one scan, on that scan's own grid, never on a warped image.

In a warped template, a lesion that grew looks unchanged wherever the registration stretched it. Each scan is therefore
measured in its own space.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from ChangeMapJointLib.core.grid import FloatArray, Vector3, bounding_box
from ChangeMapJointLib.lesions.diameter import axial_diameters, lps_spacing_mm
from ChangeMapJointLib.lesions.growth import volume_change, volume_interval, voxel_error
from ChangeMapJointLib.lesions.nodule_type import Extent, Texture, nodule_type
from ChangeMapJointLib.lesions.patch import IsLung, Patch, cut_patch
from ChangeMapJointLib.lesions.segment import BoolArray, Nodule, NoduleOptions, find_nodule, halfway_hu, lung_density_hu
from ChangeMapJointLib.scan.volume import Volume

_BAND_VOX = 1.25  # half width, in scan voxels, of the zone around the surface that is weighted by density
_LUNG_SHELL_VOX = 3.0  # the lung's density is measured out to this distance, in scan voxels
_EXTENSION = 0.3  # fraction of its extent by which a patch grows on a side that cuts the lesion


@dataclass(frozen=True)
class MeasureOptions:
    """Options of the measurement of lesions.

    Attributes:
        nodule: what counts as a nodule.
        margin_mm: margin around the seed that is searched first; it grows on the sides where a lesion does not fit.
        max_extent_mm: largest edge of the region that is searched.
        max_samples: largest number of samples along an edge, which bounds the time.
    """

    nodule: NoduleOptions = field(default_factory=NoduleOptions)
    margin_mm: float = 12.0
    max_extent_mm: float = 200.0
    max_samples: int = 64


@dataclass(frozen=True)
class LesionMeasure:
    """A lesion in one scan.

    Attributes:
        centre_mm: centroid, physical (x, y, z) LPS in that scan's space.
        volume_ml: volume; voxels on the surface count by their density.
        volume_error: relative error of the volume from the voxel size, see
            :func:`~ChangeMapJointLib.lesions.growth.voxel_error`.
        long_diameter_mm: longest diameter in an axial slice.
        perpendicular_diameter_mm: longest diameter perpendicular to it in the same slice.
        mean_hu: mean density.
        peak_hu: highest density.
        lung_hu: density of the surrounding lung.
        voxels: volume in voxels of the scan, rounded.
        texture: 'solid', 'part-solid' or 'ground-glass'; None where blur hides it, and in folders of older runs. See
            :func:`~ChangeMapJointLib.lesions.nodule_type.nodule_type`.
        extent: what was measured: the 'whole' lesion, or the 'solid part' of a part-solid one.
        calcified: whether a tenth or more of its inner part is calcium.
        juxtapleural: whether it touches the border of the lung.
    """

    centre_mm: Vector3
    volume_ml: float
    volume_error: float
    long_diameter_mm: float
    perpendicular_diameter_mm: float
    mean_hu: float
    peak_hu: float
    lung_hu: float
    voxels: int
    texture: Texture | None = None
    extent: Extent = "whole"
    calcified: bool = False
    juxtapleural: bool = False

    @property
    def mean_diameter_mm(self) -> float:
        """Mean of the long and the perpendicular axial diameter."""
        return 0.5 * (self.long_diameter_mm + self.perpendicular_diameter_mm)

    @property
    def mass_mg(self) -> float:
        """Mass: volume times density, where 0 HU is 1 mg/mm3 and -1000 HU is 0 (de Hoop et al., Radiology 255:199)."""
        return self.volume_ml * max(self.mean_hu + 1000.0, 0.0)

    @property
    def volume_interval_ml(self) -> tuple[float, float]:
        """Confidence interval (about 95 %) of the volume; see :func:`volume_interval`."""
        return volume_interval(self.volume_ml, self.volume_error)

    @property
    def mean_diameter_interval_mm(self) -> tuple[float, float]:
        """Confidence interval (about 95 %) of the mean diameter: that of the volume, at the same shape."""
        low, high = ((end / self.volume_ml) ** (1.0 / 3.0) for end in self.volume_interval_ml)
        return self.mean_diameter_mm * low, self.mean_diameter_mm * high

    def volume_change_since(self, before: LesionMeasure) -> tuple[float, float, float]:
        """Change from ``before`` in percent, with its confidence interval; see :func:`volume_change`."""
        return volume_change(
            self.volume_ml, before.volume_ml, now_error=self.volume_error, before_error=before.volume_error
        )


@dataclass(frozen=True)
class Lesion:
    """A measured lesion and its segmentation.

    Attributes:
        measure: its figures.
        patch: the part of the scan that was searched.
        nodule: the segmentation on the patch.
    """

    measure: LesionMeasure
    patch: Patch
    nodule: Nodule

    @property
    def points_mm(self) -> FloatArray:
        """Points ``[n, 3]`` of the samples inside the lesion (x, y, z in mm, LPS, in the scan's space)."""
        return self.patch.grid.to_physical(np.argwhere(self.nodule.mask)[:, ::-1])

    def may_contain(self, points_mm: FloatArray) -> bool:
        """Whether the mean of points ``[n, 3]`` lies in the lesion's patch: a quick test before :meth:`contains`."""
        return bool(self.patch.grid.contains(points_mm.mean(axis=0)))

    def contains(self, points_mm: ArrayLike, *, margin_mm: float = 0.0) -> NDArray[np.bool_]:
        """Whether points ``[n, 3]`` in the scan's space lie in the lesion or within ``margin_mm`` of it."""
        points = np.asarray(points_mm, dtype=float)
        mask = self.nodule.mask
        if margin_mm > 0:
            reach = max(round(margin_mm / self.patch.step_mm), 1)
            mask = ndimage.binary_dilation(mask, iterations=reach)
        result = np.zeros(len(points), dtype=bool)
        known = self.patch.grid.contains(points)
        result[known] = mask[tuple(self.patch.nearest(points[known]).T)]
        return result


def segment_lesion(
    volume: Volume,
    lungs: NDArray[np.generic],
    seed_mm: FloatArray,
    *,
    lesion_hu: float | None = None,
    fixed: bool = False,
    slack_mm: float = 0.0,
    reach_mm: float = np.inf,
    within_mm: float | None = None,
    also_lung: IsLung | None = None,
    options: MeasureOptions | None = None,
) -> Lesion | None:
    """Segment and measure the lesion at a seed.

    Args:
        volume: the scan.
        lungs: its lung mask on the scan's grid, not 0 in the lungs.
        seed_mm: points ``[n, 3]`` (x, y, z in mm, LPS).
        lesion_hu: expected density of the lesion; by default the 90th percentile in the seed.
        fixed: whether the lesion is measured at that density, also if it turns out to be less dense: two scans of one
            lesion must be measured at one threshold, or the solid part in one is compared with the whole in the other.
        slack_mm: largest distance between the seed and the lesion.
        reach_mm: largest distance between the seed and the centre of the lesion's largest inscribed ball.
        within_mm: if given, the seed outlines the lesion, which ends at this distance from it and may have any shape.
        also_lung: points that it accepts count as lung in addition to ``lungs``.
        options: options of the measurement.

    Returns:
        The lesion, or None where there is none.
    """
    options = options or MeasureOptions()
    nodule_options = options.nodule
    if within_mm is not None:
        nodule_options = replace(nodule_options, max_reach=np.inf, max_elongation=np.inf)
    low, high = seed_mm.min(axis=0) - options.margin_mm, seed_mm.max(axis=0) + options.margin_mm
    while (extent := float((high - low).max())) <= options.max_extent_mm:
        step = max(sample_step_mm(volume), extent / options.max_samples)
        patch = cut_patch(volume, lungs, low, high, step_mm=step)
        if also_lung is not None:
            patch = patch.with_lung(also_lung)
        if within_mm is not None:
            patch = patch.limited_to(seed_mm, within_mm)
        nodule = _segment_nodule(
            patch,
            seed_mm,
            lesion_hu=lesion_hu,
            fixed=fixed,
            slack_mm=slack_mm,
            reach_mm=reach_mm,
            options=nodule_options,
        )
        if nodule is None:
            return None
        if nodule.complete:
            return Lesion(_measure(patch, nodule, volume, lesion_hu if fixed else None), patch, nodule)
        if not _may_fit_a_larger_patch(patch, nodule, nodule_options):
            return None
        cut_low, cut_high = nodule.cut_sides()
        low, high = low - cut_low * _EXTENSION * extent, high + cut_high * _EXTENSION * extent
    return None


def weighed(lesion: Lesion, volume: Volume, tissue_hu: float) -> Lesion:
    """The same segmentation with the volume of so much tissue of a given density as makes its mass.

    Blur spreads a nodule of a few voxels: half way between its own, lowered density and the lung's, it looks as large
    as the larger one that it grew into. What it adds to the density of the lung is the same, however it is spread.

    Args:
        lesion: in ``volume``.
        volume: its scan.
        tissue_hu: density of the tissue, as known from a larger lesion or the other scan.
    """
    return replace(lesion, measure=_measure(lesion.patch, lesion.nodule, volume, tissue_hu))


def sample_step_mm(volume: Volume) -> float:
    """Distance in mm between the samples on which a scan's lesions are measured: about half its pixel size."""
    return float(np.clip(0.5 * np.median(volume.grid.spacing_mm), 0.5, 1.0))


def _segment_nodule(
    patch: Patch,
    seed_mm: FloatArray,
    *,
    lesion_hu: float | None,
    fixed: bool,
    slack_mm: float,
    reach_mm: float,
    options: NoduleOptions,
) -> Nodule | None:
    """Find the nodule at the threshold half way between its density and the lung's, in two passes unless ``fixed``."""
    seed = patch.nearest(seed_mm)
    if len(seed) == 0:
        return None
    lung_hu = lung_density_hu(patch)
    expected = float(np.percentile(patch.hu[tuple(seed.T)], 90)) if lesion_hu is None else lesion_hu
    if expected - lung_hu < options.min_contrast_hu:
        return None
    level = halfway_hu(expected, lung_hu)
    first = find_nodule(patch, seed, level_hu=level, slack_mm=slack_mm, reach_mm=reach_mm, options=options)
    if fixed or first is None or not first.complete or abs(first.level_hu - level) < 30.0:
        return first
    core = np.array([first.core])
    second = find_nodule(patch, core, level_hu=first.level_hu, options=options)
    return second if second is not None and second.complete else first


def _may_fit_a_larger_patch(patch: Patch, nodule: Nodule, options: NoduleOptions) -> bool:
    """Whether a structure that the patch cuts may be a nodule; a thin one that comes from afar is a vessel."""
    last = np.array(patch.hu.shape) - 1
    to_border = float(np.minimum(nodule.core, last - np.array(nodule.core)).min()) * patch.step_mm
    return nodule.radius_mm >= options.massive_radius_mm or to_border < options.max_reach * nodule.radius_mm


def _measure(patch: Patch, nodule: Nodule, volume: Volume, density_hu: float | None) -> LesionMeasure:
    """The figures of a segmented nodule; at a given density, the volume is that of so much tissue of this density."""
    spacing = lps_spacing_mm(volume.grid)
    weighed = nodule if density_hu is None else replace(nodule, lesion_hu=density_hu)
    volume_ml, lung_hu = _weighted_volume(patch, weighed, spacing)
    values = patch.hu[nodule.mask]
    long_mm, across_mm = axial_diameters(nodule.mask, patch.grid)
    x, y, z = patch.grid.to_physical(np.argwhere(nodule.mask)[:, ::-1].mean(axis=0))
    kind = nodule_type(patch, nodule, spacing)
    return LesionMeasure(
        centre_mm=(float(x), float(y), float(z)),
        volume_ml=volume_ml,
        volume_error=voxel_error(volume_ml, np.maximum(spacing, patch.step_mm)),
        long_diameter_mm=long_mm,
        perpendicular_diameter_mm=across_mm,
        mean_hu=float(values.mean()),
        peak_hu=float(values.max()),
        lung_hu=lung_hu,
        voxels=max(round(volume_ml / volume.grid.voxel_volume_ml), 1),
        texture=kind.texture,
        extent=kind.extent,
        calcified=kind.calcified,
        juxtapleural=kind.juxtapleural,
    )


def _weighted_volume(patch: Patch, nodule: Nodule, spacing_mm: FloatArray) -> tuple[float, float]:
    """Volume in ml including partial volumes, and the density of the surrounding lung.

    Deep inside the lesion, a sample counts 1. Near the surface it counts ``(I - lung) / (lesion - lung)``, whose sum
    neither blur nor interpolation changes. Outside the mask, only samples below the threshold count, so that a vessel
    that was cut off does not.
    """
    sampling = patch.step_mm / spacing_mm[::-1]  # distances in scan voxels, (z, y, x)
    margin = np.ceil((_LUNG_SHELL_VOX + 1.0) / sampling).astype(int)
    start, stop = bounding_box(nodule.mask, margin)
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    hu, lungs, mask = patch.hu[box], patch.lungs[box], nodule.mask[box]
    outside = ndimage.distance_transform_edt(~mask, sampling=sampling)
    inside = ndimage.distance_transform_edt(mask, sampling=sampling)
    dark = lungs & ~mask & (hu <= nodule.level_hu)
    shell = dark & (outside > _BAND_VOX) & (outside <= _LUNG_SHELL_VOX)
    lung_hu = float(np.median(hu[shell])) if shell.any() else nodule.background_hu
    weight = np.clip((hu - lung_hu) / (nodule.lesion_hu - lung_hu), -0.5, 1.5)
    weight[inside > _BAND_VOX] = 1.0
    band = _free_of_wall(lungs, mask, spacing_mm, patch.step_mm) & dark & (outside <= _BAND_VOX)
    samples = max(float(weight[mask].sum() + weight[band].sum()), 1.0)
    return samples * patch.step_mm**3 / 1000.0, lung_hu


def _free_of_wall(lungs: BoolArray, mask: BoolArray, spacing_mm: FloatArray, step_mm: float) -> BoolArray:
    """Samples of the lung that are not blurred with the density of its wall."""
    reach = max(round(float(np.median(spacing_mm)) / step_mm), 1)
    free: BoolArray = ndimage.binary_erosion(lungs, iterations=reach, border_value=1) & ~mask
    return free
