"""Whether a given deformation fits the lungs, or would fit them far better if it were read differently.

Directions, units and frames are what goes wrong when fields of other programs are passed on: a transform that maps the
prior to the current scan, vectors in RAS or in voxels, positions instead of displacements. Every such reading is tried.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.grid import LPS_TO_RAS, FloatArray
from ChangeMapJointLib.core.hu import CHANGE_WINDOW_HU
from ChangeMapJointLib.core.resample import sample_array
from ChangeMapJointLib.io.mappings import Dense, Mapping
from ChangeMapJointLib.registration import quality
from ChangeMapJointLib.registration.pyramid import MARGIN_MM, ScanView, scan_pyramid
from ChangeMapJointLib.registration.trust import EVIDENCE_MM
from ChangeMapJointLib.scan.pair import ScanPair

RIM_MM = 12.0  # around the reference's lungs, where the prior's would be if they do not fit
MOST_POINTS = 60_000
INVERSE_STEPS = 12
FLIP = np.diag(LPS_TO_RAS)[:3]
INVERSE = "read the other way round"
READINGS = {
    INVERSE: "it looks like a mapping of the prior to the current scan; give its inverse",
    "with vectors in RAS": "it looks like RAS; convert its vectors to LPS",
    "with vectors in voxels": "it looks like voxels; convert its vectors to mm",
    "with positions for vectors": "it looks like positions; subtract those of its voxels",
    "with positions in RAS for vectors": "it looks like positions in RAS; convert them to displacements in LPS",
}


@dataclass(frozen=True)
class Fit:
    """How well both scans agree under a mapping.

    Attributes:
        residual_hu: mean |R - T(y)| in either lung, clipped to the window of change maps.
        dice: overlap of both lungs.
    """

    residual_hu: float
    dice: float

    def far_better_than(self, other: Fit) -> bool:
        """Return whether it fits so much better that the other must be wrong, as the verdict on a registration does."""
        return other.residual_hu > quality.WORSE_FACTOR * self.residual_hu + quality.WORSE_HU


def look_for_a_better_reading(mapping: Mapping, pair: ScanPair) -> str:
    """Try what else the deformation may mean.

    Args:
        mapping: y as given.
        pair: both scans with lungs.

    Returns:
        A sentence that names the reading that fits the lungs far better; empty where none does.
    """
    points, reference, template = _sampled_scans(pair)
    given = _fit(mapping.apply, points, reference, template)
    fits = {name: _fit(read, points, reference, template) for name, read in _readings(mapping).items()}
    best = min(fits, key=lambda name: fits[name].residual_hu)
    if not fits[best].far_better_than(given):
        return ""
    return (
        f"The given deformation leaves {given.residual_hu:.0f} HU between the lungs (Dice {given.dice:.2f}), but "
        f"{fits[best].residual_hu:.0f} HU (Dice {fits[best].dice:.2f}) {best}: {READINGS[best]}."
    )


@dataclass(frozen=True, eq=False)
class _Samples:
    hu: NDArray[np.float32]
    lungs: NDArray[np.bool_]


def _sampled_scans(pair: ScanPair) -> tuple[FloatArray, _Samples, ScanView]:
    """Points in and round the reference's lungs, what it shows there, and the template to sample."""
    reference, template = (
        scan_pyramid(scan, margin_mm=MARGIN_MM, working_mm=EVIDENCE_MM, levels=1, window_hu=CHANGE_WINDOW_HU)[0]
        for scan in (pair.reference, pair.template)
    )
    lungs = reference.mask.numpy() > 0.5
    distance = ndimage.distance_transform_edt(~lungs, sampling=reference.grid.spacing_mm[::-1])
    voxels = np.argwhere(distance <= RIM_MM)
    voxels = voxels[:: max(1, len(voxels) // MOST_POINTS)]
    at = tuple(voxels.T)
    return (
        reference.grid.to_physical(voxels[:, ::-1].astype(float)),
        _Samples(reference.image.numpy()[at], lungs[at]),
        template,
    )


def _fit(read: Callable[[FloatArray], FloatArray], points: FloatArray, reference: _Samples, template: ScanView) -> Fit:
    places = np.nan_to_num(read(points), nan=1e9, posinf=1e9, neginf=-1e9)
    inside = template.grid.contains(places)
    hu = np.full(len(points), CHANGE_WINDOW_HU[0], dtype=np.float32)
    lungs = np.zeros(len(points), dtype=bool)
    if inside.any():
        hu[inside] = sample_array(template.image.numpy(), template.grid, places[inside])
        lungs[inside] = sample_array(template.mask.numpy(), template.grid, places[inside]) > 0.5
    either = lungs | reference.lungs
    # where the prior shows nothing, soft tissue and air alike disagree
    hu[~inside] = np.where(reference.hu[~inside] < np.mean(CHANGE_WINDOW_HU), CHANGE_WINDOW_HU[1], CHANGE_WINDOW_HU[0])
    return Fit(float(np.abs(reference.hu - hu)[either].mean()), quality.dice(reference.lungs, lungs))


def _readings(mapping: Mapping) -> dict[str, Callable[[FloatArray], FloatArray]]:
    """The mapping of points under every other reading."""
    readings: dict[str, Callable[[FloatArray], FloatArray]] = {INVERSE: lambda x: _inverse(mapping, x)}
    if not isinstance(mapping, Dense):
        return readings
    field = mapping.field

    def at(points: FloatArray) -> FloatArray:
        return field.at(points).astype(float)

    to_mm = np.asarray(field.grid.direction) * np.asarray(field.grid.spacing_mm)
    readings["with vectors in RAS"] = lambda x: x + FLIP * at(x)
    if not np.allclose(to_mm, np.eye(3), atol=0.02):
        readings["with vectors in voxels"] = lambda x: x + at(x) @ to_mm.T
    readings["with positions for vectors"] = at
    readings["with positions in RAS for vectors"] = lambda x: FLIP * at(x)
    return readings


def _inverse(mapping: Mapping, points: FloatArray) -> FloatArray:
    """The points that ``mapping`` maps to ``points``, by fixed-point iteration; enough for a comparison."""
    found = points
    for _ in range(INVERSE_STEPS):
        found = np.clip(found - (mapping.apply(found) - points), -1e6, 1e6)
    return found
