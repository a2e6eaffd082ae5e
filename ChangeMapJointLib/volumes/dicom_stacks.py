"""From loose CT slices to stacks on a regular grid, by geometry alone.

Neither file names nor InstanceNumber are looked at: slices are ordered by their position along
the slice normal ``n = row x column``, so flipped, shuffled and oblique series come out right. A
gantry tilt shows as positions that drift sideways from slice to slice; it is described by
:attr:`Stack.shear_mm` and taken out when the voxels are read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray, Grid
from ChangeMapJointLib.volumes.dicom_headers import SPLIT_KEYS, Frame
from ChangeMapJointLib.volumes.tilt import added_pixels

MIN_SLICES = 3  # fewer are localizers, previews or monitoring shots
SAME_POSITION_MM = 0.01
JITTER_MM = 0.1
JITTER_FRACTION = 0.05  # of the slice distance
GAP_FACTOR = 1.5  # neighbours farther apart than this times the usual distance miss a slice
SAME_DIRECTION = 1e-3  # largest difference of direction cosines within a series
MAX_VOXELS = 2**31
ALWAYS_SPLIT = range(3)  # of SPLIT_KEYS: kernel and temporal position

Fingerprint = Callable[[Frame], bytes]


@dataclass(frozen=True)
class Stack:
    """Slices that form one volume.

    Attributes:
        frames: in the order of z, one a slice.
        grid: the straight grid; wider than a slice when there is a tilt to take out.
        shear_mm: sideways drift (along rows, along columns) from one slice to the next; (0, 0) without tilt.
        notes: what a reader should know.
    """

    frames: tuple[Frame, ...]
    grid: Grid
    shear_mm: tuple[float, float] = (0.0, 0.0)
    notes: tuple[str, ...] = ()


def build_stacks(frames: Sequence[Frame], fingerprint: Fingerprint) -> tuple[Stack, ...]:
    """The stack, or the stacks, in the CT frames of one series.

    A series that holds several reconstruction kernels or temporal positions is split by them; one that
    is no even stack as a whole is split by whichever other key of the header gives even stacks.

    Args:
        frames: CT frames with one SeriesInstanceUID, in any order.
        fingerprint: equal for two frames exactly when their pixels are; only asked where positions coincide.

    Raises:
        InputError: no even stack; says what is wrong, without the path.
    """
    _check_uniform(frames)
    frames, copies = _drop_copies(frames, fingerprint)
    parts = _split(frames, ALWAYS_SPLIT)
    if not parts:
        try:
            parts = (build_stack(frames),)
        except InputError:
            parts = _split(frames, range(len(SPLIT_KEYS)))
    if not parts:
        frames, doubles = _drop_doubles(frames, fingerprint)
        parts, copies = (build_stack(frames),), (*copies, *doubles)
    return tuple(replace(part, notes=(*copies, *part.notes)) for part in parts)


def build_stack(frames: Sequence[Frame]) -> Stack:
    """One even stack of all ``frames``.

    Raises:
        InputError: positions that occur twice, a missing slice, uneven distances or sideways jumps.
    """
    first = frames[0]
    if len(frames) < 2 or first.orientation is None or first.spacing_mm is None:
        raise InputError(f"{len(frames)} slice, expected a volume")
    axes = _axes(first.orientation)
    positions = _positions(frames)
    order = np.argsort(positions @ axes[:, 2], kind="stable")
    ordered, local = [frames[i] for i in order], positions[order] @ axes  # along row, column, normal
    _check_distances(local[:, 2], ordered)
    steps = np.arange(len(ordered))
    slope, start = np.polyfit(steps, local, 1)
    residual = local - (start + steps[:, None] * slope)
    notes = _check_residual(residual, slope[2], ordered)
    if not notes:  # an even stack keeps its exact origin
        start = local[0]
    drift = slope[:2] if np.abs(slope[:2]).max() * (len(ordered) - 1) > JITTER_MM else np.zeros(2)
    if drift.any():
        angle = np.degrees(np.arctan2(np.hypot(*drift), slope[2]))
        notes.append(f"The slices are tilted by {angle:.1f} degrees (gantry tilt); they were sheared straight.")
    shear_mm = (float(drift[0]), float(drift[1]))
    grid = _straight_grid(ordered, axes, start, float(slope[2]), shear_mm)
    return Stack(tuple(ordered), grid, shear_mm, tuple(notes))


def _straight_grid(
    frames: Sequence[Frame], axes: FloatArray, start: FloatArray, step_mm: float, shear_mm: tuple[float, float]
) -> Grid:
    """The grid without drift that covers every slice; ``start`` is the first position along the axes."""
    assert frames[0].spacing_mm is not None
    hx, hy = frames[0].spacing_mm
    (left, right), (top, bottom) = added_pixels(shear_mm, len(frames), (hx, hy))
    shape = (len(frames), frames[0].shape[0] + top + bottom, frames[0].shape[1] + left + right)
    if np.prod(shape, dtype=float) > MAX_VOXELS:
        raise InputError(f"{shape} voxels are more than the {MAX_VOXELS} that can be handled")
    x, y, z = (float(v) for v in axes @ (start - np.array([left * hx, top * hy, 0.0])))
    a, b, c = axes.tolist()
    return Grid(shape, (hx, hy, round(step_mm, 6)), (x, y, z), (tuple(a), tuple(b), tuple(c)))


def _axes(orientation: tuple[float, ...]) -> FloatArray:
    """Orthonormal row, column and normal directions as columns of a right-handed 3x3 matrix."""
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if min(lengths) < 0.9 or max(lengths) > 1.1 or abs(row @ column) > SAME_DIRECTION:
        raise InputError(f"ImageOrientationPatient {orientation} is not made of two perpendicular unit vectors")
    row = row / lengths[0]
    normal = np.cross(row, column)
    normal /= np.linalg.norm(normal)
    return np.stack((row, np.cross(normal, row), normal), axis=1)


def _positions(frames: Sequence[Frame]) -> FloatArray:
    return np.array([frame.position_mm for frame in frames], dtype=float)


def _check_uniform(frames: Sequence[Frame]) -> None:
    """One size, spacing and orientation for all."""
    first = frames[0]
    for frame in frames:
        if frame.position_mm is None or frame.orientation is None or frame.spacing_mm is None:
            raise InputError(f"{frame.file.name} has no position, orientation or pixel spacing")
        if min(frame.spacing_mm) <= 0:
            raise InputError(f"{frame.file.name} has PixelSpacing {frame.spacing_mm}, expected two positive numbers")
        pairs = (
            ("size", first.shape, frame.shape, 0.0),
            ("PixelSpacing", first.spacing_mm, frame.spacing_mm, 1e-4 * min(frame.spacing_mm)),
            ("ImageOrientationPatient", first.orientation, frame.orientation, SAME_DIRECTION),
        )
        for name, expected, found, tolerance in pairs:
            if np.abs(np.subtract(expected, found)).max() > tolerance:  # type: ignore[arg-type]
                raise InputError(
                    f"{name} changes within the series: {expected} in {first.file.name}, {found} in {frame.file.name}"
                )


def _check_distances(along_mm: FloatArray, frames: Sequence[Frame]) -> None:
    """No position twice and none missing; ``along_mm`` is sorted."""
    steps = np.diff(along_mm)
    twice = np.flatnonzero(steps < SAME_POSITION_MM)
    if twice.size:
        i = int(twice[0])
        raise InputError(
            f"{twice.size} slice positions occur more than once with different images, the first at "
            f"{along_mm[i]:.2f} mm ({frames[i].file.name}, {frames[i + 1].file.name}); give one series only"
        )
    usual = float(np.median(steps))
    i = int(np.argmax(steps))
    if steps[i] > GAP_FACTOR * usual:
        missing = max(round(steps[i] / usual) - 1, 1)
        raise InputError(
            f"{missing} slice(s) missing between {along_mm[i]:.2f} mm ({frames[i].file.name}) and "
            f"{along_mm[i + 1]:.2f} mm ({frames[i + 1].file.name}), where slices are {usual:.2f} mm apart; "
            "export the whole series again"
        )


def _check_residual(residual: FloatArray, step_mm: float, frames: Sequence[Frame]) -> list[str]:
    """Notes on small deviations from even positions; an error beyond the tolerance."""
    tolerance = JITTER_MM + JITTER_FRACTION * float(step_mm)
    worst = np.abs(residual).max(axis=0)
    along, sideways = float(worst[2]), float(worst[:2].max())
    for value, axis, text in ((along, [2], "unevenly spaced"), (sideways, [0, 1], "shifted sideways unevenly")):
        if value > tolerance:
            frame = frames[int(np.abs(residual[:, axis]).max(axis=1).argmax())]
            raise InputError(
                f"the slices are {text}: {frame.file.name} is {value:.2f} mm off an even stack, expected at most "
                f"{tolerance:.2f} mm"
            )
    value = max(along, sideways)
    return [f"Slice positions deviate by up to {value:.2f} mm from an even stack."] if value > SAME_POSITION_MM else []


def _drop_copies(frames: Sequence[Frame], fingerprint: Fingerprint) -> tuple[list[Frame], tuple[str, ...]]:
    """Without second copies of one and the same image (same SOPInstanceUID, frame and position)."""
    kept: dict[tuple[object, ...], Frame] = {}
    for frame in frames:
        key = (frame.sop_uid or frame.file.name, frame.index, frame.position_mm)
        if key not in kept:
            kept[key] = frame
        elif fingerprint(kept[key]) != fingerprint(frame):
            raise InputError(f"{kept[key].file.name} and {frame.file.name} have one SOPInstanceUID but differ")
    return list(kept.values()), _note_of_dropped(len(frames) - len(kept))


def _drop_doubles(frames: Sequence[Frame], fingerprint: Fingerprint) -> tuple[list[Frame], tuple[str, ...]]:
    """Without images that repeat another's position and pixels under their own SOPInstanceUID."""
    places: dict[tuple[int, ...], list[Frame]] = defaultdict(list)
    for frame in frames:
        assert frame.position_mm is not None
        places[tuple(round(value / SAME_POSITION_MM) for value in frame.position_mm)].append(frame)
    kept: list[Frame] = []
    for group in places.values():
        kept += {fingerprint(frame): frame for frame in reversed(group)}.values() if len(group) > 1 else group
    return kept, _note_of_dropped(len(frames) - len(kept))


def _note_of_dropped(count: int) -> tuple[str, ...]:
    return (f"{count} slice(s) were there twice with the same pixels; one copy of each was used.",) if count else ()


def _split(frames: Sequence[Frame], keys: Iterable[int]) -> tuple[Stack, ...]:
    """Even stacks by the first of the header keys that gives nothing else, or none."""
    for number in keys:
        groups: dict[str, list[Frame]] = defaultdict(list)
        for frame in frames:
            groups[frame.split[number]].append(frame)
        if len(groups) < 2 or min(len(group) for group in groups.values()) < MIN_SLICES:
            continue
        try:
            return tuple(build_stack(groups[value]) for value in sorted(groups))
        except InputError:
            continue
    return ()
