"""Checks that a scan is a chest-sized CT in HU, and that two scans can be compared.

A scan that cannot be used raises an error; anything else that a reader should know becomes a reason of the gate.
Whether there are lungs is checked later, by their segmentation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray
from ChangeMapJointLib.core.hu import AIR_OR_LUNG_HU, LOWEST_HU
from ChangeMapJointLib.gate.answer import GateAnswer, GateReason, reason
from ChangeMapJointLib.gate.comparable import coverage_reasons, lung_reasons
from ChangeMapJointLib.gate.rules import BY_NAME
from ChangeMapJointLib.scan.lungs import Lungs
from ChangeMapJointLib.scan.missing import without_missing
from ChangeMapJointLib.scan.padding import Mask, find_padding, mark_unseen
from ChangeMapJointLib.scan.volume import Volume

SAMPLED_VOXELS = 4_000_000
SOFT_HU = (-200.0, 200.0)  # fat, muscle, organs, blood with contrast
PEAK_RANGE_HU = (-350.0, 400.0)  # search range for the most common soft-tissue value
PEAK_BIN_HU = 5.0
FAT_BELOW_HU, FAT_HEIGHT, FAT_WIDTH_HU = -40.0, 0.05, 150.0  # its peak, against the highest; lung's slope is wider
DARKEST_PERCENT, GAS_PERCENT = 1.0, 0.02  # the trachea alone is more than the latter
BEYOND_CT_HU = 4000.0  # few voxels of a CT exceed it, all of them metal
AERATED_HU = (-950.0, -500.0)
LEAST_LUNG = 0.3  # of the measured voxels, where all but the lungs was removed
MOSTLY_PADDING = 0.5  # of a scan
WRAPPED = 2**15  # negative numbers stored as unsigned ones are at least this large
HIGHEST_HU = 3071  # of 12 bits; metal on an extended scale has more
EDGE_SHARE = 0.001  # of a plane: fewer voxels denser than air are noise
LEAST_SHIFTED = -100.0  # air of a scan in HU + 1000
RESCALE_INTERCEPT_HU = -1024.0  # the usual one; -1000 looks the same here


def _limit(rule: str) -> float:
    limit = BY_NAME[rule].refuse
    assert limit is not None
    return limit


@dataclass(frozen=True)
class CheckLimits:
    """What a scan must have: the limits beyond which :data:`~ChangeMapJointLib.gate.rules.RULES` refuse it.

    Attributes:
        min_voxels: fewest voxels along any axis.
        min_extent_mm: smallest box edge.
        max_spacing_mm: longest voxel edge.
        max_pixel_mm: second longest voxel edge.
        min_air: smallest share of voxels in :data:`~ChangeMapJointLib.core.hu.AIR_OR_LUNG_HU`.
        min_soft: smallest share of voxels in :data:`SOFT_HU` within the bounding box of all that is denser than air,
            since a child may be small in its field of view.
        possible_peak_hu: range of the most common soft-tissue value; beyond it, the numbers are not HU.
        min_tissue: smallest share of soft tissue in soft tissue and lung where most of the scan is padding: with less,
            all but the lungs was removed.
        max_metal: largest share of voxels above 4000 HU.
        max_darkest_hu: highest value of the darkest 1 % of what was measured.
    """

    min_voxels: int = int(_limit("voxels"))
    min_extent_mm: float = _limit("extent_mm")
    max_spacing_mm: float = _limit("voxel_mm")
    max_pixel_mm: float = _limit("pixel_mm")
    min_air: float = _limit("air_percent") / 100
    min_soft: float = _limit("soft_percent") / 100
    possible_peak_hu: tuple[float, float] = (_limit("soft_peak_low_hu"), _limit("soft_peak_high_hu"))
    min_tissue: float = _limit("only_lung_percent") / 100
    max_metal: float = _limit("bright_percent") / 100
    max_darkest_hu: float = _limit("darkest_hu")


def check_ct(volume: Volume, *, limits: CheckLimits | None = None) -> Volume:
    """Check a single scan; find its padding and note anything unusual.

    Args:
        volume: the scan as it was read.
        limits: what it must have.

    Returns:
        The scan with ``unseen`` set and with notes.

    Raises:
        InputError: too few or too coarse voxels, voxels without a number or empty slices inside the volume, or numbers
            that are not CT numbers in HU: a label map, a picture, a normalised or unscaled image, MR, nothing but air.
    """
    limits = limits or CheckLimits()
    try:
        _check_size(volume, limits)
        volume = _with_numbers(volume)
        _check_whole(volume, limits)
        _check_hu(volume, limits)
        _check_blank_slices(volume)
    except InputError as error:
        raise error.at(volume.source) from error
    volume = mark_unseen(volume)  # not earlier: padding values help to recognise a wrong scale
    return replace(volume, notes=(*volume.notes, *(entry.sentence for entry in _unusual(volume))))


def check_pair(
    reference: Volume,
    template: Volume,
    *,
    lungs: tuple[Lungs, Lungs] | None = None,
    rigid: FloatArray | None = None,
    remarks: Iterable[GateReason] = (),
) -> GateAnswer:
    """Check whether two scans can be compared; raises no error.

    Headers and voxels are always checked, the anatomy if lungs are given, and coverage and breathing if the alignment
    is given as well. The rules are in :data:`~ChangeMapJointLib.gate.rules.RULES`.

    Args:
        reference: the current scan, from :func:`check_ct`.
        template: the prior scan, likewise.
        lungs: of reference and template.
        rigid: 4x4, reference points to template points in mm.
        remarks: reasons that the alignment adds.

    Returns:
        Fine, look or refuse, with the reasons.
    """
    reasons = [*_header_reasons(reference, template), *remarks]
    for name, volume in (("Reference", reference), ("Template", template)):
        reasons += _scan_reasons(volume, name)
    if lungs is not None:
        reasons += lung_reasons((reference, template), lungs)
        if rigid is not None:
            reasons += coverage_reasons((reference, template), lungs, rigid)
    return GateAnswer.of(reasons)


def _header_reasons(reference: Volume, template: Volume) -> Iterator[GateReason | None]:
    """Compare the headers, and whether both are the same images."""
    current, prior = reference.acquisition, template.acquisition
    if current.patient_key and prior.patient_key:
        yield reason("patient", current.patient_key != prior.patient_key)
    same = reference.grid.same_as(template.grid) and np.array_equal(reference.array, template.array)
    yield reason("same_images", same)
    if current.date and prior.date:
        days = (date.fromisoformat(prior.date) - date.fromisoformat(current.date)).days
        yield reason("date_order", days, current=current.date, prior=prior.date)
        yield reason("same_day", days == 0, date=current.date)
    thickness = [v.acquisition.slice_thickness_mm or max(v.grid.spacing_mm) for v in (reference, template)]
    ratio = max(thickness) / min(thickness)
    yield reason("thickness", ratio, current=f"{thickness[0]:.3g}", prior=f"{thickness[1]:.3g}")
    if current.kernel and prior.kernel:
        yield reason("kernel", current.kernel != prior.kernel, current=current.kernel, prior=prior.kernel)
    if current.kvp and prior.kvp:
        yield reason("kv", abs(current.kvp - prior.kvp), current=f"{current.kvp:g}", prior=f"{prior.kvp:g}")
    if current.contrast != "" and prior.contrast != "":  # what a header says is clear
        which = "current scan" if current.contrast else "prior scan"
        yield reason("contrast", bool(current.contrast) != bool(prior.contrast), which=which)


def _scan_reasons(volume: Volume, name: str) -> Iterator[GateReason | None]:
    """Collect what is unusual about one scan, and the notes from reading it."""
    modality = volume.acquisition.modality
    yield reason("modality", modality not in (None, "CT"), scan=name, modality=modality)
    if volume.acquisition.lossy_ratio is not None:
        ratio = volume.acquisition.lossy_ratio
        words = f"ratio {ratio:.3g}:1" if ratio > 1 else "ratio not given"
        yield reason("lossy", ratio, scan=name, ratio=words)
    unusual = _unusual(volume)
    sentences = {entry.sentence for entry in unusual}
    yield from (replace(entry, scan=name) for entry in unusual)
    for note in volume.notes:
        if note not in sentences:  # check_ct() has noted these, too
            yield reason("reading", 1.0, scan=name, message=note)


def _unusual(volume: Volume) -> list[GateReason]:
    """Return the reasons to look at one scan: thick slices, gaps, an unusual scale."""
    coarsest, thickness = max(volume.grid.spacing_mm), volume.acquisition.slice_thickness_mm
    values = _sampled(volume.array)
    unseen = None if volume.unseen is None else _sampled(volume.unseen) > 0
    peak, fat, gas = _soft_peak(values), _fat_peak(values), _darkest_hu(values, GAS_PERCENT, unseen)
    reasons = [reason("voxel_mm", coarsest, mm=f"{coarsest:.3g}")]
    if thickness:
        distance = volume.grid.spacing_mm[2]  # not the coarsest: pixels may be larger
        words = {"thickness": f"{thickness:.3g}", "distance": f"{distance:.3g}"}
        reasons.append(reason("gaps", distance / thickness, **words))
    reasons += [reason(f"soft_peak_{end}_hu", peak, hu=f"{peak:.0f}") for end in ("high", "low")]
    reasons.append(reason("gas_hu", gas, hu=f"{gas:.0f}"))
    if fat is not None:
        reasons.append(reason("fat_hu", fat, hu=f"{fat:.0f}"))
    return [entry for entry in reasons if entry is not None]


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
            expected=f"at most {limits.max_pixel_mm:g} mm, so that the lung vessels, which identify a patient, can be "
            "seen",
            remedy="give a finer series",
        )


def _with_numbers(volume: Volume) -> Volume:
    """Mark NaN and infinity at the outside of the volume as unseen."""
    array, missing = without_missing(volume.array)
    if missing is None:
        return volume
    return replace(volume, array=array, unseen=missing if volume.unseen is None else missing | volume.unseen)  # type: ignore[arg-type]


def _check_blank_slices(volume: Volume) -> None:
    """Check that no axial slice between others is empty: the lungs above and below it would be taken apart."""
    array, grid = volume.grid.lps_view(volume.array)
    blank = array.min(axis=(1, 2)) == array.max(axis=(1, 2))
    filled = np.flatnonzero(~blank)
    inner = np.flatnonzero(blank[filled[0] : filled[-1]]) + filled[0] if filled.size else filled
    if inner.size:
        z_mm = grid.to_physical((0, 0, int(inner[0])))[2]
        raise InputError(
            f"{inner.size} slice(s) between others hold a single value, the lowest at z = {z_mm:.0f} mm",
            expected="a scan without gaps",
            remedy="export the whole series again, or give the part above or below",
        )


def _check_whole(volume: Volume, limits: CheckLimits) -> None:
    """Check that tissue was left around the lungs."""
    step = max(1, int(np.ceil((volume.array.size / SAMPLED_VOXELS) ** (1 / 3))))
    planes = volume.array[::step]
    padding = find_padding(planes)
    if padding is None or padding.mean() <= MOSTLY_PADDING:
        return
    values = planes[:, ::step, ::step][~padding[:, ::step, ::step]]
    soft = int(((values >= SOFT_HU[0]) & (values <= SOFT_HU[1])).sum())
    lung = int(((values >= AERATED_HU[0]) & (values <= AERATED_HU[1])).sum())
    if lung > LEAST_LUNG * values.size and soft < limits.min_tissue * (soft + lung):
        raise InputError(
            f"only {soft / (soft + lung):.1%} of what was measured is soft tissue",
            expected="the whole chest, but all except the lungs seems to be removed",
            remedy="give the scan as it was acquired",
        )


def _check_hu(volume: Volume, limits: CheckLimits) -> None:
    """Check that the values are HU.

    Padding with a value higher than any CT has is ignored; other padding helps to recognise a wrong scale.
    """
    array = volume.array
    if array.max() > HIGHEST_HU:
        padding = find_padding(array)
        if padding is not None:
            array = np.where(padding & (array > HIGHEST_HU) & (array < WRAPPED), array.dtype.type(LOWEST_HU), array)
    _check_values(array, limits)


def _check_values(array: NDArray[np.generic], limits: CheckLimits) -> None:
    values = _sampled(array)
    problem = _hu_problem(values, limits)
    if problem:
        low, high = float(array.min()), float(array.max())
        message = f"values {low:g} to {high:g} are not HU of a CT of the chest: {problem}"
        raise InputError(message, remedy=_likeness(values, limits))


def _sampled(array: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return an evenly spaced sample ``[z, y, x]`` of at most some million voxels, enough for histograms."""
    stride = max(1, int(np.ceil((array.size / SAMPLED_VOXELS) ** (1 / 3))))
    return array[::stride, ::stride, ::stride].astype(np.float32)


def _body_box(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Crop ``[z, y, x]`` to the bounding box of everything denser than air; return it whole if it is all air."""
    box = []
    for axis in range(3):
        solid = (values > AIR_OR_LUNG_HU[1]).mean(axis=tuple(a for a in range(3) if a != axis))
        ends = np.flatnonzero(solid > EDGE_SHARE)
        if ends.size == 0:
            return values
        box.append(slice(int(ends[0]), int(ends[-1]) + 1))
    return values[tuple(box)]


def _hu_problem(values: NDArray[np.float32], limits: CheckLimits) -> str:
    """Return why the values cannot be HU, or an empty string."""
    air = float(((values >= AIR_OR_LUNG_HU[0]) & (values <= AIR_OR_LUNG_HU[1])).mean())
    body = _body_box(values)
    soft = float(((body >= SOFT_HU[0]) & (body <= SOFT_HU[1])).mean())
    if float((values > BEYOND_CT_HU).mean()) > limits.max_metal:
        return f"{(values > BEYOND_CT_HU).mean():.0%} of the voxels lie above {BEYOND_CT_HU:g} HU"
    if air < limits.min_air:
        return f"only {air:.1%} of the voxels are air or lung ({AIR_OR_LUNG_HU[0]:g} to {AIR_OR_LUNG_HU[1]:g} HU)"
    if soft < limits.min_soft:
        return f"only {soft:.1%} of the voxels that may be body are soft tissue ({SOFT_HU[0]:g} to {SOFT_HU[1]:g} HU)"
    return _scale_problem(values, limits)


def _scale_problem(values: NDArray[np.float32], limits: CheckLimits) -> str:
    """Return which tissue has values that it cannot have, or an empty string."""
    darkest = _darkest_hu(values)
    if darkest > limits.max_darkest_hu:
        return f"only 1% of the voxels lie below {darkest:.0f} HU, but air has -1000"
    peak = _soft_peak(values)
    if not limits.possible_peak_hu[0] <= peak <= limits.possible_peak_hu[1]:
        return f"the most common soft-tissue value would be {peak:.0f} HU"
    return ""


def _darkest_hu(values: NDArray[np.float32], percent: float = DARKEST_PERCENT, unseen: Mask | None = None) -> float:
    """Return the value below which ``percent`` of what was measured lies; ``unseen`` is found if it is not given."""
    padding = find_padding(values) if unseen is None else unseen
    measured = values if padding is None or padding.all() else values[~padding]
    return float(np.percentile(measured, percent))


def _smooth_counts(values: NDArray[np.float32]) -> tuple[FloatArray, FloatArray]:
    """Return a histogram smoothed by 10 HU, and the middles of its bins of 5 HU."""
    counts, edges = np.histogram(values, bins=np.arange(PEAK_RANGE_HU[0], PEAK_RANGE_HU[1] + 1, PEAK_BIN_HU))
    return ndimage.gaussian_filter1d(counts.astype(float), 10.0 / PEAK_BIN_HU), (edges[1:] + edges[:-1]) / 2


def _soft_peak(values: NDArray[np.float32]) -> float:
    """Return the most common value between fat and contrast-filled vessels."""
    counts, middles = _smooth_counts(values)
    return float(middles[counts.argmax()])


def _fat_peak(values: NDArray[np.float32]) -> float | None:
    """Return the most common value of fat, the peak below that of soft tissue; None where there is little fat."""
    counts, middles = _smooth_counts(values)
    width = (None, FAT_WIDTH_HU / PEAK_BIN_HU)
    peaks, _ = signal.find_peaks(counts, prominence=FAT_HEIGHT * counts.max(), width=width)
    below = peaks[middles[peaks] < FAT_BELOW_HU]
    return float(middles[below[-1]]) if below.size else None


def _likeness(values: NDArray[np.float32], limits: CheckLimits) -> str:
    """Return what the numbers look like instead of HU, and what to do."""
    low, spread = float(values.min()), float(np.ptp(values))
    shifted = _darkest_hu(values) >= LEAST_SHIFTED
    if shifted and not _hu_problem(np.maximum(values + RESCALE_INTERCEPT_HU, LOWEST_HU), limits):
        return "they look like HU +1000 or +1024: give the file with the rescale intercept applied"
    if _darkest_hu(values) > limits.max_darkest_hu and not _hu_problem(-values, limits):
        return "the scale is inverted: give the original CT"
    wrapped = values > WRAPPED
    if wrapped.any() and not _hu_problem(np.where(wrapped, values - 2**16, values), limits):
        return "negative numbers seem to be stored as unsigned: export it again as signed"
    likeness = (
        (spread <= 20.0 and not np.array_equal(values, np.rint(values)), "it looks normalised: give the original CT"),
        (low >= 0 and np.unique(values).size <= 64, "it looks like a label map or mask: give the CT itself"),
        (spread <= 256, "it looks like an 8-bit picture: give the original CT"),
        (low >= 0, "it looks like MR or an unscaled image: give a CT in HU"),
        (True, "give a CT in HU"),
    )
    return next(text for fits, text in likeness if fits)
