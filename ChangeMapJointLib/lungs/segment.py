"""Lung masks by thresholding and morphology: no trained weights, and the same border in every scan.

The border is the surface where the density crosses -400 HU, half way between lung and soft tissue. It is kept as a
level set, with sub-voxel accuracy, from the working grid to the scan's own. A closing in mm includes pleural nodules,
masses, vessels and consolidations; trachea and main bronchi are excluded.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.errors import Argument, Cancelled, InputError
from ChangeMapJointLib.core.filters import Level, Mask, dilate, largest_component, nearest_parallel, resample_parallel
from ChangeMapJointLib.core.grid import Grid, bounding_box
from ChangeMapJointLib.core.hu import NOT_SCANNED_HU, TISSUE_HU
from ChangeMapJointLib.core.options import require, within
from ChangeMapJointLib.core.parallel import run_parallel
from ChangeMapJointLib.core.progress import Progress, silent
from ChangeMapJointLib.lungs.aerated import AeratedLungs, midline, nearer_to, split_lungs
from ChangeMapJointLib.lungs.airways import Airways, find_airways
from ChangeMapJointLib.lungs.body import inside_body
from ChangeMapJointLib.lungs.border import (
    BONE_OR_VESSEL_HU,
    add_mask,
    aerated_level,
    close_lung,
    fill_holes,
    medial,
    rim_of_dents,
    widen_mass,
)
from ChangeMapJointLib.lungs.check import UnlikelyLungs, lung_faults
from ChangeMapJointLib.lungs.hull import costal_dents, slice_middles, thorax_hull
from ChangeMapJointLib.scan.beside_lung import BesideLung, beside_larger_lung
from ChangeMapJointLib.scan.body_size import as_adult, body_box, body_scale
from ChangeMapJointLib.scan.lungs import LEFT, RIGHT, Lungs
from ChangeMapJointLib.scan.padding import unseen_mask
from ChangeMapJointLib.scan.volume import Volume

USUAL_ML = (1500.0, 10000.0)  # both lungs of an adult, between full expiration and full inspiration
USUAL_SHARE = 0.55  # of the larger lung; the left lung normally has about 0.85 of the right
_REMEDY = ("look at the picture of the mask, crop the scan to the chest, or change ", Argument("config.lungs"))
CHILD_MARGIN_MM = 20.0  # air kept around a child's body, at an adult's size
SAID_ML = 50.0  # less beyond the ribs is not said
EDGE_MM2 = 300.0  # a larger section of lung at a side of the scan means that the lung is cut off there


@dataclass(frozen=True)
class LungOptions:
    """Options of :func:`segment_lungs`.

    Attributes:
        air_hu: density below which a voxel may be lung.
        closing_mm: radius of the ball that closes over nodules at the pleura and vessels at the hilum.
        mass_closing_mm: radius of the ball that closes over masses at the chest wall; only thick parts of what it
            adds are kept.
        mass_margin_mm: how far a mass may extend beyond that closing into the mediastinum.
        spacing_mm: voxel size of the working grid.
        minimum_ml: a scan with less lung than this counts as having none.
    """

    air_hu: float = TISSUE_HU
    closing_mm: float = 18.0
    mass_closing_mm: float = 25.0
    mass_margin_mm: float = 8.0
    spacing_mm: float = 2.0
    minimum_ml: float = 200.0

    def __post_init__(self) -> None:
        require(
            self,
            air_hu=(within(self.air_hu, -950.0, -100.0), "-950 to -100"),
            closing_mm=(within(self.closing_mm, 0.0, 60.0), "0 to 60"),
            mass_closing_mm=(within(self.mass_closing_mm, 0.0, 60.0), "0 to 60"),
            mass_margin_mm=(within(self.mass_margin_mm, 0.0, 60.0), "0 to 60"),
            spacing_mm=(within(self.spacing_mm, 1.0, 6.0), "1 to 6"),
            minimum_ml=(within(self.minimum_ml, 0.0, 5000.0), "0 to 5000"),
        )


def segment_lungs(volume: Volume, *, options: LungOptions = LungOptions(), progress: Progress = silent) -> Lungs:
    """Segment both lungs of a chest CT.

    Args:
        volume: the scan; any orientation, cropped or not.
        options: thresholds and radii.
        progress: called with the fraction done and a message.

    Returns:
        The lungs as labels on the scan's own grid, with notes for the reader.

    Raises:
        InputError: the scan shows no lungs.
        UnlikelyLungs: the mask cannot be a pair of lungs, not even after a second, stricter attempt.
    """
    if not isinstance(volume, Volume):
        raise InputError(f"found {type(volume).__name__}", field="volume", expected="a Volume, as read() returns")
    scale = body_scale(volume)
    if scale < 1:  # the distances in mm fit adults
        return _segment_child(volume, scale, options, progress)
    return _segment_adult(volume, options, progress)


def _segment_adult(volume: Volume, options: LungOptions, progress: Progress) -> Lungs:
    """Segment the lungs of a body of an adult's size; try a second time where the first mask cannot be right."""
    first = _attempt(volume, options, progress)
    if not first.faults:
        return first.lungs
    faults = "; ".join(first.faults)
    try:
        second = _attempt(volume, options, progress, strict=True)
    except InputError:  # the stricter attempt finds no lungs
        second = first
    if second.faults or second.lungs.right_ml + second.lungs.left_ml < USUAL_ML[0]:
        raise UnlikelyLungs(
            f"lungs not found reliably ({faults})",
            first.hu,
            first.labels,
            field=volume.source,
            expected="a chest CT in HU",
            remedy=_REMEDY,
        )
    note = (
        f"The first lung mask was wrong ({faults}); the second leaves out lung that the field of view cuts off. "
        "Check the mask."
    )
    return replace(second.lungs, notes=(*second.lungs.notes, note))


@dataclass(frozen=True)
class _Attempt:
    """One attempt at the lungs.

    Attributes:
        lungs: the result.
        faults: what speaks against it, one phrase each.
        hu: the scan on the working grid.
        labels: the lungs on the working grid.
    """

    lungs: Lungs
    faults: tuple[str, ...]
    hu: NDArray[np.float32]
    labels: NDArray[np.uint8]


def _attempt(volume: Volume, options: LungOptions, progress: Progress, *, strict: bool = False) -> _Attempt:
    """Segment the lungs and check them; see :func:`inside_body` for ``strict``."""
    array, grid = volume.grid.lps_view(volume.array)
    h = options.spacing_mm
    work = grid.with_spacing((h, h, h))
    hu = resample_parallel(array, grid, work, clip=(NOT_SCANNED_HU, 1000.0))
    progress(0.15, "finding the lungs")
    inside = inside_body(hu, _unseen(volume, work), options.air_hu, h, strict=strict)
    if not (inside & (hu < options.air_hu)).any():
        raise _no_lungs(volume, f"no air inside the body (values from {hu.min():.0f} to {hu.max():.0f} HU)")
    start, stop = bounding_box(inside, 2)
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    hu, inside, work = hu[box], inside[box], work.crop(start, stop)
    airways, aerated = _find_air(hu, inside, volume, options)
    progress(0.45, "including nodules and vessels")
    levels, masses_ml = _close_lungs(hu, inside, airways, aerated, options)
    coarse = np.where(levels[RIGHT] < 0, np.uint8(RIGHT), np.where(levels[LEFT] < 0, np.uint8(LEFT), np.uint8(0)))
    faults = lung_faults(hu, coarse, h)
    progress(0.8, "drawing the border")
    labels = np.zeros(volume.grid.shape, dtype=np.uint8)
    view, _ = volume.grid.lps_view(labels)
    _write_labels(view, grid, levels, work)
    right_ml, left_ml = (float(np.count_nonzero(labels == side) * grid.voxel_volume_ml) for side in (RIGHT, LEFT))
    lungs_ml = {RIGHT: right_ml, LEFT: left_ml}
    unseen = volume.unseen if volume.unseen is None else volume.grid.lps_view(volume.unseen)[0]
    beside = beside_larger_lung(view, grid, unseen)
    notes = (*_notes(view, grid, masses_ml, aerated), *_size_notes(lungs_ml, beside))
    progress(1.0)
    return _Attempt(Lungs(labels, volume.grid, right_ml, left_ml, notes), faults, hu, coarse)


def _segment_child(volume: Volume, scale: float, options: LungOptions, progress: Progress) -> Lungs:
    """Enlarge a body that is ``scale`` times as large as an adult's, and segment its lungs as an adult's.

    Only the body is enlarged: children are often small in a field of view made for adults.
    """
    box = body_box(volume, CHILD_MARGIN_MM * scale)
    start, stop = zip(*(side.indices(n)[:2] for side, n in zip(box, volume.grid.shape, strict=True)), strict=True)
    unseen = None if volume.unseen is None else volume.unseen[box]
    part = replace(volume, array=volume.array[box], grid=volume.grid.crop(start, stop), unseen=unseen)
    lungs = _segment_adult(replace(part, grid=as_adult(part.grid, scale)), options, progress)
    labels = np.zeros(volume.grid.shape, dtype=np.uint8)
    labels[box] = lungs.labels
    notes = lungs.notes
    if notes:
        notes += (f"The body has {scale:.2f} of an adult's size; volumes in these notes are scaled to an adult's.",)
    return Lungs(labels, volume.grid, lungs.right_ml * scale**3, lungs.left_ml * scale**3, notes)


def segment_both(
    reference: Volume, template: Volume, *, options: LungOptions = LungOptions(), progress: Progress = silent
) -> tuple[Lungs, Lungs]:
    """Segment the lungs of two scans in parallel, see :func:`segment_lungs`.

    Args:
        reference: R.
        template: T.
        options: thresholds and radii.
        progress: called from the calling thread with the progress of both; raise from it to stop, and both threads end
            at their next step.

    Returns:
        The lungs of the reference and of the template.

    Raises:
        InputError: a scan shows no lungs; where both show none, the error names the reference.
    """
    stop, fractions, messages = threading.Event(), [0.0, 0.0], ["", ""]

    def progress_of(number: int) -> Progress:
        def report(fraction: float, message: str = "") -> None:
            if stop.is_set():
                raise Cancelled
            fractions[number], messages[number] = fraction, message

        return report

    calls = [
        partial(segment_lungs, volume, options=options, progress=progress_of(number))
        for number, volume in enumerate((reference, template))
    ]
    try:
        reference_lungs, template_lungs = run_parallel(calls, lambda: progress(sum(fractions) / 2, messages[0]))
        return reference_lungs, template_lungs
    finally:
        stop.set()


def _unseen(volume: Volume, work: Grid) -> Mask:
    """Where nothing was measured, on the grid ``work``, by nearest voxels."""
    unseen = unseen_mask(volume)
    if unseen is None:
        return np.zeros(work.shape, dtype=bool)
    mask, grid = volume.grid.lps_view(unseen)
    return nearest_parallel(mask, grid, work)


def _find_air(
    hu: NDArray[np.float32], inside: Mask, volume: Volume, options: LungOptions
) -> tuple[Airways, AeratedLungs]:
    """Find airways and aerated lungs; raise an InputError where there is too little lung."""
    h = options.spacing_mm
    air = inside & (hu < options.air_hu)
    largest = np.flatnonzero(largest_component(air).any(axis=(1, 2)))
    airways = find_airways(hu, inside, (largest[0] + largest[-1]) / 2, h)
    middle = airways.middle_vox[1] if airways.middle_vox else midline(hu, inside)
    aerated = split_lungs(
        hu, air & ~dilate(airways.tree, h, h), middle, in_chest=airways.middle_vox is not None, spacing_mm=h
    )
    total_ml = (aerated.right.sum() + aerated.left.sum()) * h**3 / 1000
    if total_ml < options.minimum_ml:
        amount = f"{total_ml / 1000:.2f} l of lung inside the body (largest air space: {aerated.largest_space})"
        limit = f", less than {options.minimum_ml:g} ml at an adult's size" if total_ml > 0 else ""
        raise _no_lungs(volume, amount + limit, ", or lower ", Argument("config.lungs.minimum_ml"))
    return airways, aerated


def _no_lungs(volume: Volume, reason: str, *remedy: str | Argument) -> InputError:
    """The error that a scan shows no lungs."""
    return InputError(
        f"no lungs, no chest was found: {reason}",
        field=volume.source,
        expected="a chest CT in HU with at least one lung",
        remedy=("choose another scan", *remedy),
    )


def _close_lungs(
    hu: NDArray[np.float32], inside: Mask, airways: Airways, aerated: AeratedLungs, options: LungOptions
) -> tuple[dict[int, Level], dict[int, float]]:
    """The final level set of each lung on the working grid, and the ml of its masses, by label."""
    h = options.spacing_mm
    air = inside & (hu < options.air_hu)
    behind = _first_row_behind(airways, aerated)
    sides = {RIGHT: aerated.right, LEFT: aerated.left}
    levels = {side: np.full(hu.shape, h, dtype=np.float32) for side in sides}
    masses = {side: np.zeros(hu.shape, dtype=bool) for side in sides}
    for side, lung in sides.items():
        if not lung.any():
            continue
        start, stop = bounding_box(lung, int(options.mass_closing_mm / h) + 3)
        box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        level = aerated_level(hu[box], lung[box], air[box] & ~lung[box], options.air_hu, h)
        levels[side][box], masses[side][box] = close_lung(
            level,
            hu[box],
            max(behind - start[1], 0),
            on_right=side == RIGHT,
            radius_mm=options.closing_mm,
            mass_mm=options.mass_closing_mm,
            spacing_mm=h,
        )
    excluded = airways.main
    if aerated.bowel.any():
        excluded = excluded | nearer_to(aerated.bowel, aerated.right | aerated.left)
    middles = slice_middles(inside)
    thorax = thorax_hull((levels[RIGHT] < 0) | (levels[LEFT] < 0), middles)
    for side, other in ((RIGHT, aerated.left), (LEFT, aerated.right)):
        level = widen_mass(levels[side], masses[side], hu, thorax, margin_mm=options.mass_margin_mm, spacing_mm=h)
        beside = ~medial(level < 0, on_right=side == RIGHT)
        level = add_mask(level, costal_dents(level < 0, thorax, middles, h) & beside & (hu < BONE_OR_VESSEL_HU), h)
        level = add_mask(level, rim_of_dents(level, sides[side], hu, h), h)
        level = np.where(other | excluded, h, fill_holes(level, h))
        levels[side] = np.where(largest_component(level < 0) | (level >= 0), level, h).astype(np.float32)
    _resolve_overlap(levels)
    return levels, {side: float(mass.sum() * h**3 / 1000) for side, mass in masses.items()}


def _first_row_behind(airways: Airways, aerated: AeratedLungs) -> int:
    """The first row (y) behind the trachea; without a trachea, behind the middle of the lungs."""
    if airways.middle_vox:
        return int(airways.middle_vox[0]) + 1
    rows = np.flatnonzero((aerated.right | aerated.left).any(axis=(0, 2)))
    return int(rows.mean()) + 1


def _resolve_overlap(levels: dict[int, Level]) -> None:
    """Assign voxels of both lungs to the lung in which they lie deeper."""
    right, left = levels[RIGHT], levels[LEFT]
    both = (right < 0) & (left < 0)
    levels[RIGHT] = np.where(both & (left <= right), 0.01, right).astype(np.float32)
    levels[LEFT] = np.where(both & (right < left), 0.01, left).astype(np.float32)


def _write_labels(labels: NDArray[np.uint8], grid: Grid, levels: dict[int, Level], work: Grid) -> None:
    """Write each lung's label where its level set, interpolated to ``grid``, is negative."""
    for side, level in levels.items():
        if not (level < 0).any():
            continue
        start, stop = bounding_box(level < 0, 1)
        part = work.crop(start, stop)
        box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        first = np.floor(grid.to_index(part.origin_mm)).astype(int)[::-1]
        last = np.ceil(grid.to_index(part.to_physical(np.array(part.size) - 1))).astype(int)[::-1] + 1
        first, last = np.maximum(first, 0), np.minimum(last, grid.shape)
        fine = resample_parallel(level[box], part, grid.crop(first, last), lowpass=False)
        target = labels[first[0] : last[0], first[1] : last[1], first[2] : last[2]]
        target[(fine < 0) & (target == 0)] = side


def _notes(
    labels: NDArray[np.uint8], grid: Grid, masses_ml: dict[int, float], aerated: AeratedLungs
) -> tuple[str, ...]:
    """Notes on the masks for the reader; ``labels`` lie on ``grid``, with +z to the head."""
    notes = []
    for side, name in ((RIGHT, "right"), (LEFT, "left")):
        if masses_ml[side] > 0:
            notes.append(
                f"{masses_ml[side]:.0f} ml of soft tissue in a deep indentation of the {name} lung were included as a "
                "possible mass; the border there is uncertain."
            )
    if aerated.beyond_ribs_ml >= SAID_ML:
        left_out = f"{aerated.beyond_ribs_ml:.0f} ml as dense as lung were left out"
        notes.append(f"{left_out}, since ribs seem to lie between them and the lung: check the mask.")
    if aerated.touching:
        notes.append("The lungs touch; they were separated along the densest sheet between them.")
    for edge, name in ((labels[0], "bottom"), (labels[-1], "top")):
        if edge.any():
            notes.append(f"The lungs reach the {name} edge of the scan and may be cut off there.")
    h = grid.spacing_mm
    faces = ((labels[:, 0], h[0]), (labels[:, -1], h[0]), (labels[..., 0], h[1]), (labels[..., -1], h[1]))
    if any(np.count_nonzero(edge) * across_mm * h[2] > EDGE_MM2 for edge, across_mm in faces):
        notes.append("The lungs reach a side edge of the scan and are cut off there.")
    return tuple(notes)


def _size_notes(lungs_ml: dict[int, float], beside: BesideLung | None) -> tuple[str, ...]:
    """Notes on lungs that are missing or unusually small, large or unequal.

    The cause is the field of view (``beside``: what it shows beside the larger lung), the patient, or a wrong mask.
    """
    smaller, larger = sorted(lungs_ml.values())
    if beside is not None and not beside.holds_a_lung:
        small, large = ("right", "left") if beside.side == RIGHT else ("left", "right")
        amount = f"only {smaller / 1000:.1f} l of the {small} lung are" if smaller else f"the {small} lung is not"
        return (f"The field of view ends {beside.ends} the {large} lung; {amount} in it.",)
    notes = [f"No {name} lung was found." for side, name in ((RIGHT, "right"), (LEFT, "left")) if not lungs_ml[side]]
    if smaller > 0 and not USUAL_ML[0] <= smaller + larger <= USUAL_ML[1]:
        notes.append(f"The lungs have {(smaller + larger) / 1000:.1f} l, which is unusual: check the masks.")
    if 0 < smaller < USUAL_SHARE * larger:
        name = "right" if lungs_ml[RIGHT] < lungs_ml[LEFT] else "left"
        notes.append(
            f"The {name} lung is small, {smaller / 1000:.1f} l against {larger / 1000:.1f} l: "
            "effusion, collapse or resection, or the mask misses a part of it."
        )
    return tuple(notes)
