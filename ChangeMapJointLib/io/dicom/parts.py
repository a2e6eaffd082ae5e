"""Splits the CT slices of one series into stacks.

One SeriesInstanceUID may hold several volumes (kernels, time points, a reformat, the same scan in two folders) and
images that belong to none (a scout that is not marked as one). Images with the same size, spacing and orientation are
grouped first; then each group is split until its stacks are evenly spaced.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import PurePath

import numpy as np

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.io.dicom.headers import SPLIT_KEYS, Frame
from ChangeMapJointLib.io.dicom.joining import join_stacks
from ChangeMapJointLib.io.dicom.spacing import GAP_FACTOR, SAME_POSITION_MM
from ChangeMapJointLib.io.dicom.stacks import SAME_DIRECTION, Stack, build_stack

MIN_SLICES = 3  # fewer are localizers, previews or monitoring shots
COMPARABLE = 0.2  # a group with at least this fraction of the images of the largest one is a volume, not stray images
MAX_GROUPS = 50  # with more, the images of the series have nothing in common
# elements that never change within a volume; the others split a group only if the resulting stacks overlap
ALWAYS_SPLIT = ("StudyDate", "SeriesNumber", "ConvolutionKernel", "TemporalPositionIdentifier", "TemporalPositionIndex")
# elements in which acquisitions at several positions of the table differ
TABLE_POSITIONS = ("AcquisitionNumber", "AcquisitionTime", "AcquisitionDateTime", "FrameAcquisitionDateTime")
# differences that the list of series shows anyway
SHOWN_IN_LIST = ("patient", "SeriesNumber", "ConvolutionKernel", "SliceThickness", "KVP", "SeriesDescription")

Fingerprint = Callable[[Frame], bytes]
Positions = set[tuple[int, ...]]


@dataclass(frozen=True)
class Part:
    """Images of one series that belong together.

    Attributes:
        frames: the images, in no particular order.
        stack: the volume that they form, or None.
        problem: why they form no volume.
        difference: how they differ from the other parts of the series.
    """

    frames: tuple[Frame, ...]
    stack: Stack | None = None
    problem: str = ""
    difference: str = ""


def split_into_stacks(frames: Sequence[Frame], fingerprint: Fingerprint) -> tuple[Part, ...]:
    """Split the CT frames of one series into stacks.

    Images that differ in size, spacing or orientation are left out with a note if they are far fewer than the others. A
    group with several reconstruction kernels or time points is split by them. A group that is not a stack as a whole is
    split by any other element of the header, or by files or folders, if that gives stacks.

    Args:
        frames: CT frames with one SeriesInstanceUID, in any order.
        fingerprint: equal for two frames exactly if their pixels are; called only where positions coincide.

    Returns:
        The stacks; if there are none, one part without a stack that says why.
    """
    groups = _group_by_geometry(frames)
    volumes = [group for group in groups if len(slice_positions(group)) >= MIN_SLICES]
    if not volumes or len(groups) > MAX_GROUPS:
        return (Part(tuple(frames), problem=_geometry_difference(groups[0][0], groups[-1][0])),)
    volumes = [group for group in volumes if len(group) >= COMPARABLE * len(volumes[0])]
    rest = [group for group in groups if not any(group is volume for volume in volumes)]
    result: list[Part] = []
    for group in volumes:
        parts = _split_group(group, fingerprint)
        if len(volumes) > 1:
            parts = [replace(part, difference=_joined(_describe(group[0]), part.difference)) for part in parts]
        result += parts
    return tuple(_with_note_on_rest(part, rest) for part in result) if rest else tuple(result)


def slice_positions(frames: Iterable[Frame]) -> Positions:
    """Return the distinct positions of the frames, in units of 0.01 mm; frames without a position are ignored."""
    return {_position(frame) for frame in frames if frame.position_mm is not None}


def _position(frame: Frame) -> tuple[int, ...]:
    return tuple(round(value / SAME_POSITION_MM) for value in frame.position_mm or ())


def _with_note_on_rest(part: Part, rest: Sequence[Sequence[Frame]]) -> Part:
    """Add a note on the images that were left out to a part."""
    if part.stack is None:  # perhaps the missing images are among them
        return replace(part, problem=f"{part.problem}; {_geometry_difference(part.frames[0], rest[0][0])}")
    kinds = "; ".join(f"{len(group)} {_describe(group[0])} ({group[0].file.name})" for group in rest[:3])
    more = f"; and {len(rest) - 3} more kinds" if len(rest) > 3 else ""
    note = (
        f"{sum(len(group) for group in rest)} image(s) of the series were left out: {kinds}{more}; the volume is "
        f"{_describe(part.frames[0])}."
    )
    return replace(part, stack=replace(part.stack, notes=(*part.stack.notes, note)))


# -- geometry ----------------------------------------------------------------------------------
def _group_by_geometry(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Group frames by size, spacing and orientation, the largest group first; stops when there are too many groups."""
    groups: list[list[Frame]] = []
    for frame in frames:
        group = next((group for group in groups if not _geometry_difference(group[0], frame)), None)
        if group is not None:
            group.append(frame)
        elif len(groups) > MAX_GROUPS:
            break
        else:
            groups.append([frame])
    return sorted(groups, key=len, reverse=True)


def _geometry_difference(first: Frame, frame: Frame) -> str:
    """Return why ``frame`` cannot be a slice of the same volume as ``first``, or an empty string."""
    for candidate, other in ((frame, first), (first, frame)):
        if not _has_geometry(candidate):
            if _problem(candidate) == _problem(other):
                return ""
            return f"{candidate.file.name} {_problem(candidate)}"
    pairs = (
        ("size", first.shape, frame.shape, 0.0),
        ("PixelSpacing", first.spacing_mm, frame.spacing_mm, 1e-4 * min(frame.spacing_mm or (0.0,))),
        ("ImageOrientationPatient", first.orientation, frame.orientation, SAME_DIRECTION),
    )
    for name, expected, actual, tolerance in pairs:
        if any(abs(a - b) > tolerance for a, b in zip(expected or (), actual or (), strict=True)):
            return (
                f"{name} changes within the series: {expected} in {first.file.name}, {actual} in {frame.file.name}; "
                "give the files of one volume only"
            )
    return ""


def _has_geometry(frame: Frame) -> bool:
    return not _problem(frame)


def _problem(frame: Frame) -> str:
    missing = [
        name
        for name, value in (
            ("ImagePositionPatient", frame.position_mm),
            ("ImageOrientationPatient", frame.orientation),
            ("PixelSpacing (ImagerPixelSpacing, that of a detector, is no substitute)", frame.spacing_mm),
        )
        if value is None
    ]
    if missing or frame.spacing_mm is None:
        return f"has no {' and no '.join(missing)}; export the series again"
    if min(frame.spacing_mm) <= 0:
        return f"has PixelSpacing {frame.spacing_mm}, expected two positive numbers"
    return ""


def _describe(frame: Frame) -> str:
    """Describe plane and size of a frame in words."""
    size = f"{frame.shape[1]} x {frame.shape[0]} pixels"
    if not _has_geometry(frame):
        return f"of {size} without position, orientation or pixel spacing"
    assert frame.orientation is not None
    assert frame.spacing_mm is not None
    normal = np.abs(np.cross(frame.orientation[:3], frame.orientation[3:]))
    plane = ("sagittal", "coronal", "axial")[int(normal.argmax())] if normal.max() > 0.8 else "oblique"
    return f"{plane}, {size} of {frame.spacing_mm[0]:.3g} mm"


# -- splitting ------------------------------------------------------------------------------
def _split_group(frames: Sequence[Frame], fingerprint: Fingerprint) -> list[Part]:
    """Split frames with the same geometry into stacks; if there are none, return one part with the reason."""
    if not _has_geometry(frames[0]):
        return [Part(tuple(frames), problem=f"{frames[0].file.name} {_problem(frames[0])}")]
    try:
        frames, copies = _drop_copies(frames, fingerprint)
        parts = _find_stacks(frames, fingerprint)
    except InputError as error:
        return [Part(tuple(frames), problem=str(error))]
    return [_with_notes(part, copies) for part in parts]


def _find_stacks(frames: Sequence[Frame], fingerprint: Fingerprint) -> list[Part]:
    """Find the first way of splitting that gives only stacks.

    Raises:
        InputError: there is none; says why all images together are not a stack.
    """
    if parts := _split_by_header(frames):
        return parts
    try:
        return [_as_one_stack(frames)]
    except InputError as error:
        reason = error
    for keyword, _ in SPLIT_KEYS:
        if parts := _split(frames, *_by_header(keyword)):
            return parts
    if len(slice_positions(frames)) < len(frames):
        single, notes = _drop_doubles(frames, fingerprint)
        if notes:
            return [_with_notes(_as_one_stack(single), notes)]
        for name, key in (("file", _file), ("folder", _folder), ("pass", _pass(frames))):
            if parts := _split(frames, name, key):
                return parts
    for keyword in ALWAYS_SPLIT:  # one kernel may be complete and another not
        if parts := _split(frames, *_by_header(keyword), some=True):
            return parts
    raise reason


def _continued(parts: Sequence[Part]) -> list[Part]:
    """Join parts that continue each other; where they disagree, say so in each; nothing if they do not continue."""
    joined = join_stacks([part.stack for part in parts if part.stack is not None])
    if isinstance(joined, Stack):
        return [Part(joined.frames, joined)]
    return [replace(part, difference=_joined(part.difference, joined)) for part in parts] if joined else []


def _split_by_header(frames: Sequence[Frame]) -> list[Part]:
    """Split frames that the header distinguishes, even if all of them together might look like one finer stack."""
    # numbered in the order of the files: the keys differ in every process, but labels must not
    patients = list(dict.fromkeys(frame.acquisition.patient_key for frame in frames))
    if parts := _split(frames, "patient", lambda frame: patients.index(frame.acquisition.patient_key)):
        return parts
    for keyword in (*ALWAYS_SPLIT, *(keyword for keyword, _ in SPLIT_KEYS if keyword not in ALWAYS_SPLIT)):
        parts = _split(frames, *_by_header(keyword))
        if parts and (keyword in ALWAYS_SPLIT or _overlap(parts)):
            return parts
        if parts and keyword in TABLE_POSITIONS and (joined := _continued(parts)):
            return joined
    return _continued(_split(frames, "part", _run(frames)))


def _with_notes(part: Part, notes: tuple[str, ...]) -> Part:
    """Add notes before those of the part's stack."""
    return replace(part, stack=part.stack and replace(part.stack, notes=(*notes, *part.stack.notes)))


def _as_one_stack(frames: Sequence[Frame]) -> Part:
    return Part(tuple(frames), build_stack(frames))


def _split(frames: Sequence[Frame], name: str, key: Callable[[Frame], Hashable], *, some: bool = False) -> list[Part]:
    """Split frames by ``key``; return nothing unless all groups are stacks (with ``some``: at least one)."""
    groups: dict[Hashable, list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[key(frame)].append(frame)
    if len(groups) < 2 or (not some and min(len(group) for group in groups.values()) < MIN_SLICES):
        return []
    parts = []
    for value in sorted(groups, key=_order):
        difference = "" if name in SHOWN_IN_LIST else f"{name} {value or 'not given'}"
        try:
            parts.append(replace(_as_one_stack(groups[value]), difference=difference))
        except InputError as error:
            if not some:
                return []
            parts.append(Part(tuple(groups[value]), problem=str(error), difference=difference))
    return parts if any(part.stack for part in parts) else []


def _order(value: Hashable) -> tuple[float, str]:
    """Return a sort key: numbers by size, then texts."""
    text = str(value)
    with suppress(ValueError):
        return float(text), text
    return float("inf"), text


def _by_header(keyword: str) -> tuple[str, Callable[[Frame], Hashable]]:
    index = [key for key, _ in SPLIT_KEYS].index(keyword)
    return keyword, lambda frame: frame.split[index]


def _file(frame: Frame) -> str:
    return frame.file.name


def _folder(frame: Frame) -> str:
    return str(PurePath(frame.file.name).parent)


def _pass(frames: Sequence[Frame]) -> Callable[[Frame], Hashable]:
    """Return a key that numbers the images at each position from 1, in the order of InstanceNumber and frame.

    It is constant unless every position has the same number of images: a missing image would mix the volumes.
    """
    order = {frame: (frame.instance or 0, frame.index) for frame in frames}
    groups: dict[tuple[int, ...], list[Frame]] = defaultdict(list)
    for frame in sorted(frames, key=order.__getitem__):
        groups[_position(frame)].append(frame)
    if len(set(order.values())) < len(frames) or len({len(group) for group in groups.values()}) > 1:
        return lambda _: 0
    passes = {frame: number for group in groups.values() for number, frame in enumerate(group, 1)}
    return lambda frame: passes[frame]


def _run(frames: Sequence[Frame]) -> Callable[[Frame], Hashable]:
    """Return a key that numbers the runs of images in which the position moves evenly, in the order of the numbers.

    It is constant without an InstanceNumber for each image.
    """
    order = {frame: (frame.instance or 0, frame.index) for frame in frames}
    if len(set(order.values())) < len(frames):
        return lambda _: 0
    ordered = sorted(frames, key=order.__getitem__)
    assert frames[0].orientation is not None
    normal = np.cross(frames[0].orientation[:3], frames[0].orientation[3:])
    steps = np.diff(np.array([frame.position_mm for frame in ordered], dtype=float) @ normal)
    usual = float(np.median(np.abs(steps)))
    jumps = (np.abs(steps) > GAP_FACTOR * usual) | (np.sign(steps) != np.sign(np.median(steps)))
    runs = dict(zip(ordered, [1, *(1 + np.cumsum(jumps)).tolist()], strict=True))
    return lambda frame: runs[frame]


def _overlap(parts: Sequence[Part]) -> bool:
    """Return whether all stacks share at least half of the extent of the smallest one."""
    ends = []
    for part in parts:
        assert part.stack is not None
        normal = np.asarray(part.stack.grid.direction)[:, 2]
        along = [float(normal @ np.asarray(frame.position_mm)) for frame in part.stack.frames]
        ends.append((min(along), max(along)))
    shared = min(high for _, high in ends) - max(low for low, _ in ends)
    return shared > 0.5 * min(high - low for low, high in ends)


# -- copies ---------------------------------------------------------------------------------
def _drop_copies(frames: Sequence[Frame], fingerprint: Fingerprint) -> tuple[list[Frame], tuple[str, ...]]:
    """Remove second copies of the same image (same SOPInstanceUID, frame and position).

    Raises:
        InputError: two images have one SOPInstanceUID but different pixels.
    """
    kept: dict[tuple[object, ...], Frame] = {}
    for frame in frames:
        key = (frame.sop_uid or frame.file.name, frame.index, frame.position_mm, frame.split)
        if key not in kept:
            kept[key] = frame
        elif fingerprint(kept[key]) != fingerprint(frame):
            raise InputError(
                f"{kept[key].file.name} and {frame.file.name} have one SOPInstanceUID but differ",
                remedy="keep one of the two",
            )
    return list(kept.values()), _note_on_dropped(len(frames) - len(kept))


def _drop_doubles(frames: Sequence[Frame], fingerprint: Fingerprint) -> tuple[list[Frame], tuple[str, ...]]:
    """Remove images that repeat another's position and pixels under a different SOPInstanceUID.

    If any two images at one position differ, there are several volumes, and all images are kept.
    """
    groups: dict[tuple[int, ...], list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[_position(frame)].append(frame)
    for group in groups.values():
        if any(fingerprint(frame) != fingerprint(group[0]) for frame in group[1:]):
            return list(frames), ()
    return [group[0] for group in groups.values()], _note_on_dropped(len(frames) - len(groups))


def _note_on_dropped(count: int) -> tuple[str, ...]:
    return (f"{count} slice(s) occurred twice with the same pixels; one copy of each was used.",) if count else ()


def _joined(*texts: str) -> str:
    return ", ".join(text for text in texts if text)
