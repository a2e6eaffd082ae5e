"""Lung masks by threshold and morphology: no trained weights, the same border in every scan.

The border is the surface where the density passes -400 HU, half way between lung and soft tissue, kept
between the voxels from the working grid to the scan's own. Pleural nodules, masses, vessels and
consolidations inside are taken in by closing in mm; trachea and main bronchi stay out.
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
from ChangeMapJointLib.lungs.aerated import AeratedLungs, midline, nearer, split_lungs
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
from ChangeMapJointLib.scan.body_size import as_adult, body_scale
from ChangeMapJointLib.scan.lungs import LEFT, RIGHT, Lungs
from ChangeMapJointLib.scan.padding import unseen_mask
from ChangeMapJointLib.scan.volume import Volume

USUAL_ML = (1500.0, 10000.0)  # both lungs of an adult, between full expiration and full inspiration
USUAL_SHARE = 0.55  # of the larger lung; the left is by nature the smaller one, about 0.85
_REMEDY = (
    "look at the picture of what was found, crop the scan to the chest, or change ",
    Argument("config.lungs"),
)
EDGE_MM2 = 300.0  # a lung cut off by the side of the scan shows more of its section there


@dataclass(frozen=True)
class LungOptions:
    """How lungs are found.

    Attributes:
        air_hu: lung is below this density.
        closing_mm: ball that closes over nodules at the pleura and vessels at the hilum.
        mass_closing_mm: ball that closes over masses at the wall; hollows that it fills count when thick.
        mass_margin_mm: how far a mass may reach beyond that hull into the mediastinum.
        spacing_mm: of the working grid.
        minimum_ml: less lung than this is none.
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
    """Both lungs of a chest CT.

    Args:
        volume: the scan; any orientation, cropped or not.
        options: how lungs are found.
        progress: told of the steps.

    Raises:
        InputError: the scan shows no lungs.
        UnlikelyLungs: what was found cannot be lungs, also on a second, stricter attempt.
    """
    scale = body_scale(volume)
    if scale < 1:  # what is in mm here fits adults
        return _of_child(volume, scale, options, progress)
    first = _attempt(volume, options, progress)
    if not first.faults:
        return first.lungs
    said = "; ".join(first.faults)
    try:
        second = _attempt(volume, options, progress, strict=True)
    except InputError:  # nothing is left
        second = first
    if second.faults or second.lungs.right_ml + second.lungs.left_ml < USUAL_ML[0]:
        raise UnlikelyLungs(
            f"lungs not found reliably ({said})",
            first.hu,
            first.labels,
            field=volume.source,
            expected="a chest CT in HU",
            remedy=_REMEDY,
        )
    note = f"The first lung mask was wrong ({said}); lungs that the field of view cuts off were left out. Look at it."
    return replace(second.lungs, notes=(*second.lungs.notes, note))


@dataclass(frozen=True)
class _Attempt:
    """Lungs, what speaks against them, and what they were found on: HU and labels of the working grid."""

    lungs: Lungs
    faults: tuple[str, ...]
    hu: NDArray[np.float32]
    labels: NDArray[np.uint8]


def _attempt(volume: Volume, options: LungOptions, progress: Progress, *, strict: bool = False) -> _Attempt:
    """Find lungs and check them; ``strict``: only what the body encloses, and the body without thin parts."""
    array, grid = volume.grid.lps_view(volume.array)
    h = options.spacing_mm
    work = grid.with_spacing((h, h, h))
    hu = resample_parallel(array, grid, work, clip=(NOT_SCANNED_HU, 1000.0))
    progress(0.15, "looking for the lungs")
    inside = inside_body(hu, _unseen(volume, work), options.air_hu, h, strict=strict)
    if not (inside & (hu < options.air_hu)).any():
        found = f"no air inside the body (values from {hu.min():.0f} to {hu.max():.0f})"
        raise _no_lungs(volume, found)
    start, stop = bounding_box(inside, 2)
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    hu, inside, work = hu[box], inside[box], work.crop(start, stop)
    airways, aerated = _find(hu, inside, volume, options)
    progress(0.45, "closing over nodules and vessels")
    levels, masses_ml = _close_both(hu, inside, airways, aerated, options)
    coarse = np.where(levels[RIGHT] < 0, np.uint8(RIGHT), np.where(levels[LEFT] < 0, np.uint8(LEFT), np.uint8(0)))
    faults = lung_faults(hu, coarse, h)
    progress(0.8, "drawing the border")
    labels = np.zeros(volume.grid.shape, dtype=np.uint8)
    view, _ = volume.grid.lps_view(labels)
    _draw(view, grid, levels, work)
    voxels = np.bincount(labels.ravel(), minlength=3)
    right_ml, left_ml = (float(voxels[side] * grid.voxel_volume_ml) for side in (RIGHT, LEFT))
    lungs_ml = {RIGHT: right_ml, LEFT: left_ml}
    notes = (*_notes(view, grid, lungs_ml, masses_ml, touching=aerated.touching), *_size_notes(lungs_ml))
    progress(1.0)
    return _Attempt(Lungs(labels, volume.grid, right_ml, left_ml, notes), faults, hu, coarse)


def _of_child(volume: Volume, scale: float, options: LungOptions, progress: Progress) -> Lungs:
    """The lungs of a body ``scale`` times as large as an adult's, found as if it were one."""
    large = replace(volume, grid=as_adult(volume.grid, scale))
    found = segment_lungs(large, options=options, progress=progress)
    notes = found.notes
    if notes:
        notes += (f"The body has {scale:.2f} of an adult's size; volumes in these notes are scaled to an adult's.",)
    return Lungs(found.labels, volume.grid, found.right_ml * scale**3, found.left_ml * scale**3, notes)


def segment_both(
    reference: Volume, template: Volume, *, options: LungOptions = LungOptions(), progress: Progress = silent
) -> tuple[Lungs, Lungs]:
    """:func:`segment_lungs` of two scans at once, on two cores.

    Args:
        reference: R.
        template: T.
        options: how lungs are found.
        progress: told of both, in the calling thread; raise from it to stop, and the threads end at their next step.

    Raises:
        InputError: a scan shows no lungs; that of the reference where neither does.
    """
    stop, done, said = threading.Event(), [0.0, 0.0], ["", ""]

    def told(number: int) -> Progress:
        def report(fraction: float, message: str = "") -> None:
            if stop.is_set():
                raise Cancelled
            done[number], said[number] = fraction, message

        return report

    calls = [
        partial(segment_lungs, volume, options=options, progress=told(number))
        for number, volume in enumerate((reference, template))
    ]
    try:
        ours, theirs = run_parallel(calls, lambda: progress(sum(done) / 2, said[0]))
        return ours, theirs
    finally:
        stop.set()


def _unseen(volume: Volume, work: Grid) -> Mask:
    """Where ``volume`` shows nothing, by the voxel nearest to each of ``work``."""
    fine = unseen_mask(volume)
    if fine is None:
        return np.zeros(work.shape, dtype=bool)
    mask, grid = volume.grid.lps_view(fine)
    return nearest_parallel(mask, grid, work)


def _find(hu: NDArray[np.float32], inside: Mask, volume: Volume, options: LungOptions) -> tuple[Airways, AeratedLungs]:
    """Airways and aerated lungs, or the error that there are none."""
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
        found = f"{total_ml / 1000:.2f} l of lung inside the body (largest air space: {aerated.found})"
        found += f", below {options.minimum_ml:g} ml for an adult's size" if total_ml > 0 else ""
        raise _no_lungs(volume, found, ", or lower ", Argument("config.lungs.minimum_ml"))
    return airways, aerated


def _no_lungs(volume: Volume, found: str, *remedy: str | Argument) -> InputError:
    """The error that a scan shows no lungs."""
    return InputError(
        f"no lungs: {found}",
        field=volume.source,
        expected="a chest CT in HU with at least one lung",
        remedy=("choose another scan", *remedy),
    )


def _close_both(
    hu: NDArray[np.float32], inside: Mask, airways: Airways, aerated: AeratedLungs, options: LungOptions
) -> tuple[dict[int, Level], dict[int, float]]:
    """The final level of each lung on the working grid, and the ml of its masses, by label."""
    h = options.spacing_mm
    air = inside & (hu < options.air_hu)
    behind = _behind(airways, aerated)
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
    never = airways.main
    if aerated.bowel.any():
        never = never | nearer(aerated.bowel, aerated.right | aerated.left)
    middles = slice_middles(inside)
    thorax = thorax_hull((levels[RIGHT] < 0) | (levels[LEFT] < 0), middles)
    for side, other in ((RIGHT, aerated.left), (LEFT, aerated.right)):
        level = widen_mass(levels[side], masses[side], hu, thorax, margin_mm=options.mass_margin_mm, spacing_mm=h)
        beside = ~medial(level < 0, on_right=side == RIGHT)
        level = add_mask(level, costal_dents(level < 0, thorax, middles, h) & beside & (hu < BONE_OR_VESSEL_HU), h)
        level = add_mask(level, rim_of_dents(level, sides[side], hu, h), h)
        level = np.where(other | never, h, fill_holes(level, h))
        levels[side] = np.where(largest_component(level < 0) | (level >= 0), level, h).astype(np.float32)
    _keep_apart(levels)
    return levels, {side: float(mass.sum() * h**3 / 1000) for side, mass in masses.items()}


def _behind(airways: Airways, aerated: AeratedLungs) -> int:
    """First y behind the trachea, or behind the middle of the lungs without one."""
    if airways.middle_vox:
        return int(airways.middle_vox[0]) + 1
    rows = np.flatnonzero((aerated.right | aerated.left).any(axis=(0, 2)))
    return int(rows.mean()) + 1


def _keep_apart(levels: dict[int, Level]) -> None:
    """Give what both lungs claim to the one in which it lies deeper."""
    right, left = levels[RIGHT], levels[LEFT]
    both = (right < 0) & (left < 0)
    levels[RIGHT] = np.where(both & (left <= right), 0.01, right).astype(np.float32)
    levels[LEFT] = np.where(both & (right < left), 0.01, left).astype(np.float32)


def _draw(labels: NDArray[np.uint8], grid: Grid, levels: dict[int, Level], work: Grid) -> None:
    """Write each lung's label where its level, interpolated to ``grid``, is negative."""
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
    labels: NDArray[np.uint8], grid: Grid, lungs_ml: dict[int, float], masses_ml: dict[int, float], *, touching: bool
) -> tuple[str, ...]:
    """What a reader should know about the masks; ``labels`` on ``grid``, with +z to the head."""
    notes = []
    for side, name in ((RIGHT, "right"), (LEFT, "left")):
        if lungs_ml[side] == 0:
            notes.append(f"No {name} lung was found.")
        if masses_ml[side] > 0:
            notes.append(
                f"{masses_ml[side]:.0f} ml of soft tissue in a deep hollow of the {name} lung were taken in as a "
                "possible mass; its border there is a guess."
            )
    if touching:
        notes.append("The lungs touch and were divided along the densest sheet between them.")
    for edge, name in ((labels[0], "bottom"), (labels[-1], "top")):
        if edge.any():
            notes.append(f"The lungs reach the {name} edge of the scan and may be cut off there.")
    h = grid.spacing_mm
    faces = ((labels[:, 0], h[0]), (labels[:, -1], h[0]), (labels[..., 0], h[1]), (labels[..., -1], h[1]))
    if any(np.count_nonzero(edge) * across_mm * h[2] > EDGE_MM2 for edge, across_mm in faces):
        notes.append("The lungs reach a side of the scan and are cut off there.")
    return tuple(notes)


def _size_notes(lungs_ml: dict[int, float]) -> tuple[str, ...]:
    """Lungs that are unusually small, large or unequal, which may be the patient's or the mask's."""
    smaller, larger = sorted(lungs_ml.values())
    notes = []
    if smaller > 0 and not USUAL_ML[0] <= smaller + larger <= USUAL_ML[1]:
        notes.append(f"The lungs have {(smaller + larger) / 1000:.1f} l, which is unusual: look at the masks.")
    if 0 < smaller < USUAL_SHARE * larger:
        name = "right" if lungs_ml[RIGHT] < lungs_ml[LEFT] else "left"
        notes.append(
            f"The {name} lung is small, {smaller / 1000:.1f} l against {larger / 1000:.1f} l: "
            "effusion, collapse or resection, or the mask leaves a part of it out."
        )
    return tuple(notes)
