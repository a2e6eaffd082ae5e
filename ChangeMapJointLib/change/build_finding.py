"""Build one finding from its region of change and the lesion behind it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.change.finding import Finding, Lung
from ChangeMapJointLib.change.judgement import Judgement
from ChangeMapJointLib.change.lesion_pairs import Change, LesionPair
from ChangeMapJointLib.change.location import Third, third
from ChangeMapJointLib.change.naming import classify_change, write_remark
from ChangeMapJointLib.change.regions import Region, SignedArray
from ChangeMapJointLib.change.sections import reason_sentence
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.grid import FloatArray, Grid, Vector3
from ChangeMapJointLib.lesions.diameter import axial_diameters
from ChangeMapJointLib.lesions.growth import doubling_time
from ChangeMapJointLib.lesions.segment import elongation
from ChangeMapJointLib.scan.lungs import LEFT, RIGHT
from ChangeMapJointLib.scan.scan import Scan

TrustFunction = Callable[[FloatArray], NDArray[np.floating]]


def build_finding(
    number: int,
    change: Change,
    *,
    partner: int | None,
    signed_hu: SignedArray,
    grid: Grid,
    field: DisplacementField,
    reference: Scan,
    template: Scan,
    trust: NDArray[np.floating] | TrustFunction | None,
    judgement: Judgement | None = None,
) -> Finding:
    """Compute the figures of one finding.

    Args:
        number: its id.
        change: the region of change and the lesion behind it.
        partner: id of the other side of a dipole; None where there is none.
        signed_hu: R - T(y) in HU, ``[z, y, x]``.
        grid: grid of the maps.
        field: y from R to T.
        reference: the current scan R.
        template: the prior scan T.
        trust: trust on the maps' grid, or a function of points ``[n, 3]`` in mm; None where unknown.
        judgement: probability, section and reason; None where nothing judged the change.
    """
    region, pair = change.region, change.pair
    points = region.points_mm(grid)
    centre = points.mean(axis=0)
    displaced = partner is not None and (judgement is None or judgement.reason == "displaced")
    kind = classify_change(region.sign, pair, displaced=displaced)
    signed = signed_hu[tuple(region.voxels.T)].astype(float)
    long_mm, across_mm = _region_diameters(region, grid)
    shape = elongation(points, float(np.cbrt(np.prod(grid.spacing_mm))))
    percent, interval, diameter = _differences(pair)
    mean_trust = _mean_trust(trust, region, points)
    lung = _lung(change, points, reference, template)
    days = _days_between(template, reference)
    remark = write_remark(kind, change, elongation=shape, partner=partner, trust=mean_trust)
    if judgement is not None and judgement.reason not in (None, "displaced"):  # that one the remark says already
        remark = f"{remark} {reason_sentence(judgement.reason)}"
    return Finding(
        id=number,
        kind=kind,
        centre_mm=_vector(centre),
        centre_template_mm=_vector(field.apply(centre[None])[0]),
        peak_mm=_vector(points[int(region.values.argmax())]),
        lung=lung,
        voxels=len(region.voxels),
        volume_ml=len(region.voxels) * grid.voxel_volume_ml,
        peak=region.peak,
        peak_hu=float(signed[np.argmax(np.abs(signed))]),
        long_diameter_mm=long_mm,
        perpendicular_diameter_mm=across_mm,
        elongation=shape,
        lesion_reference=None if pair.reference is None else pair.reference.measure,
        lesion_template=None if pair.template is None else pair.template.measure,
        volume_change_percent=percent,
        volume_change_interval_percent=interval,
        diameter_change_mm=diameter,
        trust=mean_trust,
        partner=partner,
        remark=remark,
        probability=None if judgement is None else judgement.probability,
        section="finding" if judgement is None else judgement.section,
        reason=None if judgement is None else judgement.reason,
        third=_third(change, centre, lung, reference, template),
        interval_days=days,
        doubling_time_days=None if percent is None else doubling_time(percent, days),
        doubling_time_interval_days=_doubling_interval(interval, days),
    )


def _region_diameters(region: Region, grid: Grid) -> tuple[float, float]:
    """Long and perpendicular axial diameter of a region in mm."""
    start, stop = region.voxels.min(axis=0), region.voxels.max(axis=0) + 1
    mask = np.zeros(stop - start, dtype=bool)
    mask[tuple((region.voxels - start).T)] = True
    return axial_diameters(mask, grid.crop(start, stop))


def _differences(pair: LesionPair) -> tuple[float | None, tuple[float, float] | None, float | None]:
    """Change of volume in percent with its interval, and change of the long diameter in mm."""
    if pair.both is None:
        return None, None, None
    now, before = pair.both
    percent, low, high = now.volume_change_since(before)
    return percent, (low, high), now.long_diameter_mm - before.long_diameter_mm


def _mean_trust(
    trust: NDArray[np.floating] | TrustFunction | None, region: Region, points_mm: FloatArray
) -> float | None:
    """Mean trust over the region; None where unknown."""
    if trust is None:
        return None
    values = trust(points_mm) if callable(trust) else trust[tuple(region.voxels.T)]
    return float(values.mean())


def _doubling_interval(
    change_percent: tuple[float, float] | None, days: int | None
) -> tuple[float, float | None] | None:
    """Shortest and longest doubling time within the interval of the change of volume."""
    if change_percent is None:
        return None
    slowest, fastest = (doubling_time(end, days) for end in change_percent)
    return None if fastest is None else (fastest, slowest)


def _days_between(template: Scan, reference: Scan) -> int | None:
    """Days from the prior scan to the current one; None where a date is unknown."""
    days = [scan.volume.acquisition.date for scan in (template, reference)]
    before, now = (None if day is None else date.fromisoformat(day) for day in days)
    return None if before is None or now is None else (now - before).days


def _third(change: Change, centre_mm: FloatArray, lung: Lung, reference: Scan, template: Scan) -> Third | None:
    """Third of the lung's height in the denser scan; in the other one where the denser one cuts the lung."""
    label = LEFT if lung == "left" else RIGHT
    now = third(reference, label, centre_mm)
    before = third(template, label, change.motion.to_template(centre_mm[None])[0])
    first, second = (now, before) if change.region.sign > 0 else (before, now)
    return first or second


def _lung(change: Change, points_mm: FloatArray, reference: Scan, template: Scan) -> Lung:
    """The lung with most of the region, by the reference's labels, or by the template's where those show none."""
    labels = reference.lung_at(points_mm)
    if not labels.any():
        labels = template.lung_at(change.motion.to_template(points_mm))
    return "left" if (labels == LEFT).sum() > (labels == RIGHT).sum() else "right"


def _vector(point: FloatArray) -> Vector3:
    x, y, z = (float(v) for v in point)
    return x, y, z
