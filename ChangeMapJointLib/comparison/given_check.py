"""Whether a given deformation fits the lungs, or would fit them far better if it were read differently.

Directions, units and frames are what goes wrong when fields of other programs are passed on: a transform that maps the
prior to the current scan, vectors in RAS or in voxels, positions instead of displacements, files in the wrong order.
Every such reading is tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.grid import LPS_TO_RAS, FloatArray
from ChangeMapJointLib.core.hu import CHANGE_WINDOW_HU
from ChangeMapJointLib.core.resample import sample_array
from ChangeMapJointLib.io.mappings import Chain, Dense, Linear, Mapping
from ChangeMapJointLib.registration import quality
from ChangeMapJointLib.registration.pyramid import MARGIN_MM, ScanView, scan_pyramid
from ChangeMapJointLib.registration.trust import EVIDENCE_MM
from ChangeMapJointLib.scan.pair import ScanPair

RIM_MM = 12.0  # around the reference's lungs, where the prior's would be if they do not fit
MOST_POINTS = 60_000
INVERSE_STEPS = 12
FLIP = np.diag(LPS_TO_RAS)[:3]
INVERSE, OTHER_ORDER = "read the other way round", "with its parts in the other order"
INVERSE_MATRIX, INVERSE_WARP = "with its matrix inverted", "with its warp inverted"
IN_RAS, IN_VOXELS = "with vectors in RAS", "with vectors in voxels"
POSITIONS, POSITIONS_IN_RAS = "with positions for vectors", "with positions in RAS for vectors"
READINGS = {
    INVERSE: "it looks like a mapping of the prior to the current scan; give its inverse",
    OTHER_ORDER: "its parts are stored in the other order",
    INVERSE_MATRIX: "its matrix looks like that of the prior to the current scan; give the inverse matrix",
    INVERSE_WARP: "its warp looks like the inverse one; give that with which the prior is resampled",
    IN_RAS: "it looks like RAS; convert its vectors to LPS",
    IN_VOXELS: "it looks like voxels; convert its vectors to mm",
    POSITIONS: "it looks like positions; subtract those of its voxels",
    POSITIONS_IN_RAS: "it looks like positions in RAS; convert them to displacements in LPS",
}
OTHER_FILES = "give the files in the reverse order, as the points of the current scan pass through them"


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


def look_for_a_better_reading(mapping: Mapping, pair: ScanPair, *, files: int = 1) -> str:
    """Try what else the deformation may mean.

    Args:
        mapping: y as given.
        pair: both scans with lungs.
        files: number of files that were given.

    Returns:
        A sentence that names the reading that fits the lungs far better; empty where none does.
    """
    points, reference, template = _sampled_scans(pair)
    given = _fit(mapping.apply, points, reference, template)
    fits = {name: _fit(read, points, reference, template) for name, read in _readings(mapping).items()}
    best = min(fits, key=lambda name: fits[name].residual_hu)
    if not fits[best].far_better_than(given):
        return ""
    advice = OTHER_FILES if best == OTHER_ORDER and files > 1 else READINGS[best]
    return (
        f"The given deformation leaves {given.residual_hu:.0f} HU between the lungs (Dice {given.dice:.2f}), but "
        f"{fits[best].residual_hu:.0f} HU (Dice {fits[best].dice:.2f}) {best}: {advice}."
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
    """The mapping of points under every other reading; of several files, all fields are read in the same other way."""
    readings: dict[str, Callable[[FloatArray], FloatArray]] = {INVERSE: lambda x: _inverse(mapping, x)}
    fields = list(_fields(mapping))
    for name, read in FIELD_READINGS.items() if fields else ():
        readings[name] = _with(mapping, Dense, partial(_Reread, read=read)).apply
    if all(np.allclose(_to_mm(field), np.eye(3), atol=0.02) for field in fields):
        readings.pop(IN_VOXELS, None)  # the same as mm
    if isinstance(mapping, Chain):
        readings[OTHER_ORDER] = Chain(mapping.parts[::-1]).apply
        readings[INVERSE_MATRIX] = _with(mapping, Linear, _Inverse).apply
        readings[INVERSE_WARP] = _with(mapping, Dense, _Inverse).apply
    return readings


def _fields(mapping: Mapping) -> Iterator[DisplacementField]:
    """The dense fields that a mapping consists of."""
    if isinstance(mapping, Dense):
        yield mapping.field
    for part in mapping.parts if isinstance(mapping, Chain) else ():
        yield from _fields(part)


def _with(mapping: Mapping, kind: type, make: Callable[[Any], Mapping]) -> Mapping:
    """The same mapping with ``make(part)`` in place of every part of a kind."""
    if isinstance(mapping, kind):
        return make(mapping)
    if isinstance(mapping, Chain):
        return Chain(tuple(_with(part, kind, make) for part in mapping.parts))
    return mapping


@dataclass(frozen=True, eq=False)
class _Reread:
    """A dense field whose vectors mean something else."""

    dense: Dense
    read: FieldReading

    def apply(self, points_mm: FloatArray) -> FloatArray:
        return self.read(points_mm, self.dense.field.at(points_mm).astype(float), self.dense.field)

    def covers(self, points_mm: FloatArray) -> NDArray[np.bool_]:
        return self.dense.covers(points_mm)


@dataclass(frozen=True, eq=False)
class _Inverse:
    """The inverse of a mapping."""

    mapping: Mapping

    def apply(self, points_mm: FloatArray) -> FloatArray:
        if isinstance(self.mapping, Linear):
            return Linear(np.asarray(np.linalg.inv(self.mapping.matrix), dtype=float)).apply(points_mm)
        return _inverse(self.mapping, points_mm)

    def covers(self, points_mm: FloatArray) -> NDArray[np.bool_]:
        return self.mapping.covers(points_mm)


def _to_mm(field: DisplacementField) -> FloatArray:
    """The 3x3 matrix from vectors in voxels to mm, LPS."""
    matrix: FloatArray = np.asarray(field.grid.direction) * np.asarray(field.grid.spacing_mm)
    return matrix


# where points go, by the points, the vectors there, and their field
FieldReading = Callable[[FloatArray, FloatArray, DisplacementField], FloatArray]
FIELD_READINGS: dict[str, FieldReading] = {
    IN_RAS: lambda x, u, _: x + FLIP * u,
    IN_VOXELS: lambda x, u, field: x + u @ _to_mm(field).T,
    POSITIONS: lambda _x, u, _: u,
    POSITIONS_IN_RAS: lambda _x, u, _: FLIP * u,
}


def _inverse(mapping: Mapping, points: FloatArray) -> FloatArray:
    """The points that ``mapping`` maps to ``points``, by fixed-point iteration; enough for a comparison."""
    found = points
    for _ in range(INVERSE_STEPS):
        found = np.clip(found - (mapping.apply(found) - points), -1e6, 1e6)
    return found
