"""Is this a chest-sized CT in HU, and do these two scans belong together?

Errors are for what cannot be worked with; everything else that a reader should know becomes a reason of the gate.
Whether there are lungs is for the lung masks to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray
from ChangeMapJointLib.core.hu import AIR_OR_LUNG_HU, LOWEST_HU
from ChangeMapJointLib.gate.comparable import coverage_reasons, lung_reasons
from ChangeMapJointLib.gate.rules import BY_NAME, GateAnswer, GateReason, reason
from ChangeMapJointLib.scan.lungs import Lungs
from ChangeMapJointLib.scan.padding import find_padding, mark_unseen
from ChangeMapJointLib.scan.volume import Volume

SAMPLED_VOXELS = 4_000_000
SOFT_HU = (-200.0, 200.0)  # fat, muscle, organs, blood with contrast
PEAK_RANGE_HU = (-350.0, 400.0)  # where the commonest soft tissue is looked for
BEYOND_CT_HU = 4000.0  # few voxels of a CT exceed it, all of them metal
WRAPPED = 2**15  # negative numbers stored as unsigned ones begin here
HIGHEST_HU = 3071  # of 12 bits; metal on an extended scale has more
EDGE_SHARE = 0.001  # of a plane: fewer voxels that are no air are noise
RESCALE_INTERCEPT_HU = -1024.0  # the usual one; -1000 looks the same here


def _bar(rule: str) -> float:
    bar = BY_NAME[rule].refuse
    assert bar is not None
    return bar


@dataclass(frozen=True)
class CheckLimits:
    """What a scan must have; the bars at which :data:`~ChangeMapJointLib.gate.rules.RULES` refuse it.

    Attributes:
        min_voxels: fewest voxels along any axis.
        min_extent_mm: smallest box edge.
        max_spacing_mm: coarsest voxel edge.
        max_pixel_mm: coarsest of the two finer voxel edges.
        min_air: smallest share of voxels in :data:`~ChangeMapJointLib.core.hu.AIR_OR_LUNG_HU`.
        min_soft: smallest share of voxels in :data:`SOFT_HU`, of the box round all that is no air: a child may be
            small in its field of view.
        possible_peak_hu: beyond this the numbers are no HU.
        max_metal: largest share of voxels above 4000 HU.
    """

    min_voxels: int = int(_bar("voxels"))
    min_extent_mm: float = _bar("extent_mm")
    max_spacing_mm: float = _bar("voxel_mm")
    max_pixel_mm: float = _bar("pixel_mm")
    min_air: float = _bar("air_percent") / 100
    min_soft: float = _bar("soft_percent") / 100
    possible_peak_hu: tuple[float, float] = (_bar("soft_peak_low_hu"), _bar("soft_peak_high_hu"))
    max_metal: float = _bar("bright_percent") / 100


def check_ct(volume: Volume, *, limits: CheckLimits | None = None) -> Volume:
    """``volume`` with notes on what is unusual about it, and with the knowledge of what it does not show (``unseen``).

    Args:
        volume: what was read.
        limits: what it must have.

    Raises:
        InputError: too few or too coarse voxels, or numbers that are no HU of a CT: a label map, a picture, a
            normalised or unscaled image, MR, nothing but air.
    """
    limits = limits or CheckLimits()
    try:
        _check_size(volume, limits)
        _check_hu(volume, limits)
    except InputError as error:
        raise error.at(volume.source) from error
    volume = mark_unseen(volume)  # not before: what the numbers look like tells of a wrong scale
    return replace(volume, notes=(*volume.notes, *(one.sentence for one in _unusual(volume))))


def check_pair(
    reference: Volume,
    template: Volume,
    *,
    lungs: tuple[Lungs, Lungs] | None = None,
    matrix: FloatArray | None = None,
    remarks: Iterable[GateReason] = (),
) -> GateAnswer:
    """May the two scans be compared? Fine, look, or refuse, with the reasons; never an error.

    As much is checked as is known: headers and voxels always, the anatomy with lungs, coverage and breathing with the
    alignment. The rules are rows of :data:`~ChangeMapJointLib.gate.rules.RULES`.

    Args:
        reference: the current scan, from :func:`check_ct`.
        template: the prior scan, likewise.
        lungs: of both.
        matrix: 4x4, reference points to template points in mm.
        remarks: what the alignment adds.
    """
    found = [*_header_reasons(reference, template), *remarks]
    for name, volume in (("Reference", reference), ("Template", template)):
        found += _scan_reasons(volume, name)
    if lungs is not None:
        found += lung_reasons((reference, template), lungs)
        if matrix is not None:
            found += coverage_reasons((reference, template), lungs, matrix)
    return GateAnswer.of(found)


def _header_reasons(reference: Volume, template: Volume) -> Iterator[GateReason | None]:
    """What the headers say of the two, and whether they are the same images."""
    new, old = reference.acquisition, template.acquisition
    if new.patient_key and old.patient_key:
        yield reason("patient", new.patient_key != old.patient_key)
    same = reference.grid.same_as(template.grid) and np.array_equal(reference.array, template.array)
    yield reason("same_images", same)
    if new.date and old.date:
        days = (date.fromisoformat(old.date) - date.fromisoformat(new.date)).days
        yield reason("date_order", days, new=new.date, old=old.date)
        yield reason("same_day", days == 0, date=new.date)
    thickness = [v.acquisition.slice_thickness_mm or max(v.grid.spacing_mm) for v in (reference, template)]
    ratio = max(thickness) / min(thickness)
    yield reason("thickness", ratio, new=f"{thickness[0]:.3g}", old=f"{thickness[1]:.3g}")
    if new.kernel and old.kernel:
        yield reason("kernel", new.kernel != old.kernel, new=new.kernel, old=old.kernel)
    if new.kvp and old.kvp:
        yield reason("kv", abs(new.kvp - old.kvp), new=f"{new.kvp:g}", old=f"{old.kvp:g}")
    which = "reference" if new.contrast else "template"
    yield reason("contrast", (new.contrast is None) != (old.contrast is None), which=which)


def _scan_reasons(volume: Volume, name: str) -> Iterator[GateReason | None]:
    """What :func:`check_ct` finds unusual, and what reading has noted."""
    modality = volume.acquisition.modality
    yield reason("modality", modality not in (None, "CT"), scan=name, modality=modality)
    own = _unusual(volume)
    said = {one.sentence for one in own}
    yield from (replace(one, scan=name) for one in own)
    for note in volume.notes:
        if note not in said:
            yield reason("reading", 1.0, scan=name, said=note)


def _unusual(volume: Volume) -> list[GateReason]:
    """Reasons to look at one scan: thick voxels, gaps, an odd scale."""
    coarsest, thickness = max(volume.grid.spacing_mm), volume.acquisition.slice_thickness_mm
    peak = _soft_peak(_sampled(volume.array))
    found = [reason("voxel_mm", coarsest, mm=f"{coarsest:.3g}")]
    if thickness:
        apart = volume.grid.spacing_mm[2]  # pixels may be coarser than both
        words = {"thickness": f"{thickness:.3g}", "distance": f"{apart:.3g}"}
        found.append(reason("gaps", apart / thickness, **words))
    found += [reason(f"soft_peak_{end}_hu", peak, hu=f"{peak:.0f}") for end in ("high", "low")]
    return [one for one in found if one is not None]


def _check_size(volume: Volume, limits: CheckLimits) -> None:
    grid = volume.grid
    size = " x ".join(str(n) for n in grid.size)
    extent = " x ".join(f"{mm:.0f}" for mm in grid.extent_mm)
    if min(grid.size) < limits.min_voxels:
        raise InputError(f"{size} voxels", expected=f"at least {limits.min_voxels} along each axis (a chest CT)")
    if min(grid.extent_mm) < limits.min_extent_mm:
        raise InputError(
            f"covers {extent} mm",
            expected=f"at least {limits.min_extent_mm:g} mm along each axis",
            remedy="give the whole scan",
        )
    coarsest = max(grid.spacing_mm)
    if coarsest > limits.max_spacing_mm:
        raise InputError(
            f"voxels of up to {coarsest:.3g} mm",
            expected=f"at most {limits.max_spacing_mm:g} mm",
            remedy="give a finer series",
        )
    second = sorted(grid.spacing_mm)[1]
    if second > limits.max_pixel_mm:
        raise InputError(
            f"voxels of {second:.3g} mm or more along two axes",
            expected=f"at most {limits.max_pixel_mm:g} mm along two: vessels, by which patients are told apart, do not "
            "show",
            remedy="give a finer series",
        )


def _check_hu(volume: Volume, limits: CheckLimits) -> None:
    """Are these HU? What was filled in with more than any CT has does not count; other fill tells of a wrong scale."""
    array = volume.array
    if array.max() > HIGHEST_HU:
        fill = find_padding(array)
        if fill is not None:
            array = np.where(fill & (array > HIGHEST_HU) & (array < WRAPPED), array.dtype.type(LOWEST_HU), array)
    _check_values(array, limits)


def _check_values(array: NDArray[np.generic], limits: CheckLimits) -> None:
    values = _sampled(array)
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError("voxels that are NaN or infinite", expected="finite HU", remedy="repair or export it again")
    problem = _hu_problem(values, limits)
    if problem:
        found = f"values {low:g} to {high:g} are no HU of a CT: {problem}"
        raise InputError(found, remedy=_likeness(values, limits))


def _sampled(array: NDArray[np.generic]) -> NDArray[np.float32]:
    """At most some million voxels ``[z, y, x]``, evenly picked; all that histograms need."""
    stride = max(1, int(np.ceil((array.size / SAMPLED_VOXELS) ** (1 / 3))))
    return array[::stride, ::stride, ::stride].astype(np.float32)


def _body_box(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The part of ``[z, y, x]`` that holds all but air; the whole where there is nothing but air."""
    box = []
    for axis in range(3):
        solid = (values > AIR_OR_LUNG_HU[1]).mean(axis=tuple(other for other in range(3) if other != axis))
        ends = np.flatnonzero(solid > EDGE_SHARE)
        if ends.size == 0:
            return values
        box.append(slice(int(ends[0]), int(ends[-1]) + 1))
    return values[tuple(box)]


def _hu_problem(values: NDArray[np.float32], limits: CheckLimits) -> str:
    """Why the values cannot be HU, or an empty string."""
    air = float(((values >= AIR_OR_LUNG_HU[0]) & (values <= AIR_OR_LUNG_HU[1])).mean())
    body = _body_box(values)
    soft = float(((body >= SOFT_HU[0]) & (body <= SOFT_HU[1])).mean())
    if float((values > BEYOND_CT_HU).mean()) > limits.max_metal:
        return f"{(values > BEYOND_CT_HU).mean():.0%} of the voxels lie above {BEYOND_CT_HU:g} HU"
    if air < limits.min_air:
        return f"only {air:.1%} of the voxels are air or lung ({AIR_OR_LUNG_HU[0]:g} to {AIR_OR_LUNG_HU[1]:g} HU)"
    if soft < limits.min_soft:
        return f"only {soft:.1%} of the voxels that may be body are soft tissue ({SOFT_HU[0]:g} to {SOFT_HU[1]:g} HU)"
    peak = _soft_peak(values)
    if not limits.possible_peak_hu[0] <= peak <= limits.possible_peak_hu[1]:
        return f"the commonest soft tissue would have {peak:.0f} HU"
    return ""


def _soft_peak(values: NDArray[np.float32]) -> float:
    """The commonest value between fat and contrast-filled vessels, from a histogram smoothed by 10 HU."""
    counts, edges = np.histogram(values, bins=np.arange(PEAK_RANGE_HU[0], PEAK_RANGE_HU[1] + 1, 5.0))
    smooth = ndimage.gaussian_filter1d(counts.astype(float), 2.0)
    i = int(smooth.argmax())
    return float(edges[i] + edges[i + 1]) / 2


def _likeness(values: NDArray[np.float32], limits: CheckLimits) -> str:
    """What the numbers look like instead of HU, and what to do."""
    low, spread = float(values.min()), float(np.ptp(values))
    if not _hu_problem(np.maximum(values + RESCALE_INTERCEPT_HU, LOWEST_HU), limits):
        return "they look like HU +1000 or +1024, give the file with the rescale intercept applied"
    wrapped = values > WRAPPED
    if wrapped.any() and not _hu_problem(np.where(wrapped, values - 2**16, values), limits):
        return "negative numbers seem to be stored as unsigned ones, export it again as signed"
    likeness = (
        (spread <= 20.0 and not np.array_equal(values, np.rint(values)), "it looks normalised, give the original CT"),
        (low >= 0 and np.unique(values).size <= 64, "it looks like a label map or mask, give the CT itself"),
        (spread <= 256, "it looks like a picture with 8 bits, give the original CT"),
        (low >= 0, "it looks like MR or an unscaled image, give a CT in HU"),
        (True, "give a CT in HU"),
    )
    return next(text for fits, text in likeness if fits)
