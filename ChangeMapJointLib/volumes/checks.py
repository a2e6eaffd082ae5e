"""Is this a chest-sized CT in HU, and do these two scans belong together?

Errors are for what cannot be worked with; everything else that a reader should know becomes a note.
Whether there are lungs is for the lung masks to say.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.volumes.volume import Volume

SAMPLED_VOXELS = 4_000_000
AIR_HU = (-1100.0, -500.0)  # air outside and lung
SOFT_HU = (-200.0, 200.0)  # fat, muscle, organs, blood with contrast
PEAK_RANGE_HU = (-350.0, 400.0)  # where the commonest soft tissue is looked for
METAL_HU = 4000.0
GAP_FACTOR = 1.5  # slices farther apart than this times their thickness leave gaps
RESCALE_INTERCEPT_HU = -1024.0  # the usual one; -1000 looks the same here


@dataclass(frozen=True)
class CheckLimits:
    """What a scan must have.

    Attributes:
        min_voxels: fewest voxels along any axis.
        min_extent_mm: smallest box edge.
        max_spacing_mm: coarsest voxel edge.
        thick_mm: slices farther apart than this get a note.
        min_air: smallest share of voxels in :data:`AIR_HU`.
        min_soft: smallest share of voxels in :data:`SOFT_HU`.
        usual_peak_hu: the commonest soft tissue lies here (fat to muscle); outside gets a note.
        possible_peak_hu: beyond this the numbers are no HU.
        max_metal: largest share of voxels above 4000 HU.
    """

    min_voxels: int = 10
    min_extent_mm: float = 50.0
    max_spacing_mm: float = 10.0
    thick_mm: float = 3.0
    min_air: float = 0.005
    min_soft: float = 0.05
    usual_peak_hu: tuple[float, float] = (-150.0, 130.0)
    possible_peak_hu: tuple[float, float] = (-250.0, 250.0)
    max_metal: float = 0.01


def check_ct(volume: Volume, *, limits: CheckLimits | None = None) -> Volume:
    """``volume`` with notes on what is unusual about it.

    Args:
        volume: what was read.
        limits: what it must have.

    Raises:
        InputError: too few or too coarse voxels, or numbers that are no HU of a CT: a label map, a picture, a
            normalised or unscaled image, MR, nothing but air.
    """
    limits = limits or CheckLimits()
    try:
        notes = (*_check_size(volume, limits), *_check_hu(volume.array, limits))
    except InputError as error:
        raise InputError(f"{volume.source}: {error}") from error
    return replace(volume, notes=(*volume.notes, *notes))


def check_pair(reference: Volume, template: Volume) -> tuple[str, ...]:
    """Notes on what a reader must know before comparing the two scans; never an error.

    Args:
        reference: the current scan.
        template: the prior scan.
    """
    new, old = reference.acquisition, template.acquisition
    notes = []
    if new.patient_key and old.patient_key and new.patient_key != old.patient_key:
        notes.append("WARNING: the two scans name different patients; make sure that they are of one person.")
    if new.date and old.date:
        days = (date.fromisoformat(new.date) - date.fromisoformat(old.date)).days
        if days < 0:
            notes.append(
                f"WARNING: the template (prior) of {old.date} is newer than the reference (current) of {new.date}; "
                "new and resolved, growing and shrinking are the wrong way round unless they are exchanged."
            )
        elif days == 0:
            notes.append(f"Both scans are of the same day, {new.date}.")
    if reference.grid.same_as(template.grid) and np.array_equal(reference.array, template.array):
        notes.append("WARNING: reference and template are the same images.")
    if new.kernel and old.kernel and new.kernel != old.kernel:
        notes.append(f"Different reconstruction kernels, {new.kernel} and {old.kernel}: fine texture may differ.")
    notes += _thickness_notes(reference, template)
    if (new.contrast is None) != (old.contrast is None):
        which = "reference" if new.contrast else "template"
        notes.append(f"Only the {which} is stated to have contrast agent: vessels and enhancing tissue may differ.")
    return tuple(notes)


def _thickness_notes(reference: Volume, template: Volume) -> list[str]:
    new, old = (
        volume.acquisition.slice_thickness_mm or max(volume.grid.spacing_mm) for volume in (reference, template)
    )
    if max(new, old) <= 1.5 * min(new, old):
        return []
    return [f"Different slice thickness, {new:.3g} and {old:.3g} mm: small nodules look fainter in the thicker one."]


def _check_size(volume: Volume, limits: CheckLimits) -> list[str]:
    grid = volume.grid
    size = " x ".join(str(n) for n in grid.size)
    extent = " x ".join(f"{mm:.0f}" for mm in grid.extent_mm)
    if min(grid.size) < limits.min_voxels:
        raise InputError(f"{size} voxels, expected at least {limits.min_voxels} along each axis (a chest CT)")
    if min(grid.extent_mm) < limits.min_extent_mm:
        raise InputError(
            f"covers {extent} mm, expected at least {limits.min_extent_mm:g} mm along each axis; give the whole scan"
        )
    coarsest = max(grid.spacing_mm)
    if coarsest > limits.max_spacing_mm:
        raise InputError(
            f"voxels of up to {coarsest:.3g} mm, expected at most {limits.max_spacing_mm:g} mm; give a finer series"
        )
    notes = []
    if coarsest > limits.thick_mm:
        notes.append(f"Voxels of {coarsest:.3g} mm along one axis: nodules smaller than that may be missed.")
    thickness, apart = volume.acquisition.slice_thickness_mm, grid.spacing_mm[2]  # pixels may be coarser than both
    if thickness and apart > GAP_FACTOR * thickness:
        notes.append(f"Slices of {thickness:.3g} mm every {apart:.3g} mm: what lies between them is not seen.")
    return notes


def _check_hu(array: NDArray[np.generic], limits: CheckLimits) -> list[str]:
    values = _sampled(array)
    low, high = float(array.min()), float(array.max())  # type: ignore[call-overload]
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError("voxels that are NaN or infinite, expected finite HU; repair or export it again")
    problem = _hu_problem(values, limits)
    if problem:
        raise InputError(f"values {low:g} to {high:g} are no HU of a CT: {_explained(values, problem, limits)}")
    peak = _soft_peak(values)
    if not limits.usual_peak_hu[0] <= peak <= limits.usual_peak_hu[1]:
        return [f"The commonest soft tissue has {peak:.0f} HU, which is unusual: the scale may be off."]
    return []


def _sampled(array: NDArray[np.generic]) -> NDArray[np.float32]:
    """At most some million voxels, evenly picked; all that histograms need."""
    stride = max(1, int(np.ceil((array.size / SAMPLED_VOXELS) ** (1 / 3))))
    return array[::stride, ::stride, ::stride].astype(np.float32).ravel()


def _hu_problem(values: NDArray[np.float32], limits: CheckLimits) -> str:
    """Why the values cannot be HU, or an empty string."""
    air, soft = (float(((values >= a) & (values <= b)).mean()) for a, b in (AIR_HU, SOFT_HU))
    if float((values > METAL_HU).mean()) > limits.max_metal:
        return f"{(values > METAL_HU).mean():.0%} of the voxels lie above {METAL_HU:g} HU"
    if air < limits.min_air:
        return f"only {air:.1%} of the voxels are air or lung ({AIR_HU[0]:g} to {AIR_HU[1]:g} HU)"
    if soft < limits.min_soft:
        return f"only {soft:.1%} of the voxels are soft tissue ({SOFT_HU[0]:g} to {SOFT_HU[1]:g} HU)"
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


def _explained(values: NDArray[np.float32], problem: str, limits: CheckLimits) -> str:
    """The problem, and what the numbers look like instead."""
    low, spread = float(values.min()), float(np.ptp(values))
    if not _hu_problem(np.maximum(values + RESCALE_INTERCEPT_HU, -1024.0), limits):
        return f"{problem}; they look like HU +1000 or +1024, give the file with the rescale intercept applied"
    wrapped = values > 2**15
    if wrapped.any() and not _hu_problem(np.where(wrapped, values - 2**16, values), limits):
        return f"{problem}; negative numbers seem to be stored as unsigned ones, export it again as signed"
    likeness = (
        (spread <= 20.0 and not np.array_equal(values, np.rint(values)), "it looks normalised, give the original CT"),
        (low >= 0 and np.unique(values).size <= 64, "it looks like a label map or mask, give the CT itself"),
        (spread <= 256, "it looks like a picture with 8 bits, give the original CT"),
        (low >= 0, "it looks like MR or an unscaled image, give a CT in HU"),
        (True, "give a CT in HU"),
    )
    return f"{problem}; {next(text for fits, text in likeness if fits)}"
