"""How far the surfaces of the lungs lie apart after a registration, whole and by region."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.grid import FloatArray
from ChangeMapJointLib.core.hu import REGISTRATION_WINDOW_HU
from ChangeMapJointLib.registration.deformable.surface_term import SurfaceDistance, lung_surface
from ChangeMapJointLib.registration.pyramid import MARGIN_MM, ScanView, scan_pyramid, working_spacing
from ChangeMapJointLib.scan.lungs import LEFT, RIGHT
from ChangeMapJointLib.scan.pair import ScanPair
from ChangeMapJointLib.scan.scan import Scan

VOXEL_MM = 3.0  # the surface is known to a tenth of that
FACING = 0.6  # cosine from which a surface faces down (the diaphragm) or the midline (the mediastinum)
INWARDS_MM = 4.0  # from a point of the surface to where its lung is looked up
FEWEST_POINTS = 50  # of a region, or in all: fewer say nothing about it
REGIONS = ("ribs", "diaphragm", "mediastinum")


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances in mm of R's lung surface, moved by y, from T's, all >= 0: their mean, 95th percentile and maximum."""

    mean_mm: float
    p95_mm: float
    max_mm: float

    @classmethod
    def of(cls, distance_mm: FloatArray) -> SurfaceDistances:
        """Sum up the distances ``[n]`` of at least one point."""
        return cls(float(distance_mm.mean()), float(np.percentile(distance_mm, 95)), float(distance_mm.max()))


@dataclass(frozen=True)
class SurfaceAgreement(SurfaceDistances):
    """The distances where both scans show the surface.

    Attributes:
        regions: the same for each of :data:`REGIONS` that R shows enough of.
    """

    regions: dict[str, SurfaceDistances]


def surface_agreement(pair: ScanPair, field: DisplacementField) -> SurfaceAgreement | None:
    """Measure how far the surfaces of the lungs lie apart under y.

    The masks of the two scans were made apart from one another, but the registration drew them together: it is a
    residual, and where a mask is wrong it is the mask's error. Where the field of view ends the lungs of either scan,
    at a side or at a round edge, nothing is measured.

    Args:
        pair: R and T with their lungs.
        field: y from R to T.

    Returns:
        The distances; None where the scans share no surface, or hardly any.
    """
    surface, other = (lung_surface(_view(scan, pair)) for scan in (pair.reference, pair.template))
    if not len(surface.voxels) or not len(other.voxels):
        return None
    moved = field.apply(surface.points_mm)
    # by the scans, not by the views, which end 15 mm from the lungs
    shown = surface.measured(pair.reference.volume) & pair.template.grid.contains(moved)
    shown &= other.facing_measured(moved, pair.template.volume)
    if shown.sum() < FEWEST_POINTS:
        return None
    distance = np.abs(SurfaceDistance(other).anywhere_mm(moved[shown]))
    region = surface_regions(pair.reference, surface.points_mm[shown], surface.outwards[shown])
    parts = {name: distance[region == name] for name in REGIONS}
    regions = {name: SurfaceDistances.of(part) for name, part in parts.items() if len(part) >= FEWEST_POINTS}
    return SurfaceAgreement(**vars(SurfaceDistances.of(distance)), regions=regions)


def surface_regions(scan: Scan, points_mm: FloatArray, outwards: FloatArray) -> NDArray[np.str_]:
    """Name the region of each point on the surface of the lungs, ``[n]`` of :data:`REGIONS`, by where it faces.

    Args:
        scan: the scan with labelled lungs.
        points_mm: points on the surface, ``[n, 3]`` (x, y, z) LPS.
        outwards: unit vectors out of the lungs there, ``[n, 3]``.
    """
    lung = scan.lung_at(points_mm - INWARDS_MM * outwards)
    # x runs to the patient's left: out of the right lung towards the midline is +x
    to_midline = np.select([lung == RIGHT, lung == LEFT], [outwards[:, 0], -outwards[:, 0]], 0.0)
    names = np.select([outwards[:, 2] < -FACING, to_midline > FACING], ["diaphragm", "mediastinum"], "ribs")
    return np.asarray(names)


def _view(scan: Scan, pair: ScanPair) -> ScanView:
    """The scan at :data:`VOXEL_MM`, or its own voxel size where that is larger."""
    working = working_spacing(pair.reference.grid, pair.template.grid, VOXEL_MM)
    return scan_pyramid(scan, margin_mm=MARGIN_MM, working_mm=working, levels=1, window_hu=REGISTRATION_WINDOW_HU)[0]
