"""From the loose CT slices of one series to its stacks.

One SeriesInstanceUID may hold more than one volume: several kernels or time points, a reformat, the same scan in two
folders; and images that belong to none: a scout that nobody marked as one. First images that are alike in size,
spacing and orientation are put together, then each lot is split until its stacks are even.
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
from ChangeMapJointLib.io.dicom.spacing import SAME_POSITION_MM
from ChangeMapJointLib.io.dicom.stacks import SAME_DIRECTION, Stack, build_stack

MIN_SLICES = 3  # fewer are localizers, previews or monitoring shots
COMPARABLE = 0.2  # a lot of this many times the images of the largest one is a volume of its own, not something stray
MAX_LOTS = 50  # beyond this nothing in the series is alike
# what never changes within a volume; by the other keys it is split where their stacks lie in one place
ALWAYS = ("StudyDate", "SeriesNumber", "ConvolutionKernel", "TemporalPositionIdentifier", "TemporalPositionIndex")
# what the list of series says anyway
UNTOLD = ("patient", "SeriesNumber", "ConvolutionKernel", "SliceThickness", "KVP", "SeriesDescription")

Fingerprint = Callable[[Frame], bytes]
Places = set[tuple[int, ...]]


@dataclass(frozen=True)
class Part:
    """Images of one series that belong together.

    Attributes:
        frames: in no order.
        stack: the volume that they form, or None.
        problem: why they form none.
        difference: what tells them from the other parts of the series.
    """

    frames: tuple[Frame, ...]
    stack: Stack | None = None
    problem: str = ""
    difference: str = ""


def split_into_stacks(frames: Sequence[Frame], fingerprint: Fingerprint) -> tuple[Part, ...]:
    """The stacks in the CT frames of one series; one part without stack says what is wrong.

    Lots of images of other size, spacing or orientation that are far smaller than the largest are left out with a
    note. A lot that holds several reconstruction kernels or temporal positions is split by them; one that is no stack
    as a whole is split by whichever other key of the header, or by which files or folders, gives stacks.

    Args:
        frames: CT frames with one SeriesInstanceUID, in any order.
        fingerprint: equal for two frames exactly when their pixels are; only asked where positions coincide.
    """
    lots = _alike(frames)
    volumes = [lot for lot in lots if len(slice_positions(lot)) >= MIN_SLICES]
    if not volumes or len(lots) > MAX_LOTS:
        return (Part(tuple(frames), problem=_what_differs(lots[0][0], lots[-1][0])),)
    volumes = [lot for lot in volumes if len(lot) >= COMPARABLE * len(volumes[0])]
    rest = [lot for lot in lots if not any(lot is volume for volume in volumes)]
    found: list[Part] = []
    for lot in volumes:
        parts = _parts(lot, fingerprint)
        if len(volumes) > 1:
            parts = [replace(part, difference=_joined(_look(lot[0]), part.difference)) for part in parts]
        found += parts
    return tuple(_without_rest(part, rest) for part in found) if rest else tuple(found)


def slice_positions(frames: Iterable[Frame]) -> Places:
    """Positions of the frames that have one, to a hundredth of a millimetre."""
    return {_place(frame) for frame in frames if frame.position_mm is not None}


def _place(frame: Frame) -> tuple[int, ...]:
    return tuple(round(value / SAME_POSITION_MM) for value in frame.position_mm or ())


def _without_rest(part: Part, rest: Sequence[Sequence[Frame]]) -> Part:
    """``part`` with what is to be said of the images that were left out."""
    if part.stack is None:  # perhaps they are what it lacks
        return replace(part, problem=f"{part.problem}; {_what_differs(part.frames[0], rest[0][0])}")
    looks = "; ".join(f"{len(lot)} {_look(lot[0])} ({lot[0].file.name})" for lot in rest[:3])
    more = f"; and {len(rest) - 3} more kinds" if len(rest) > 3 else ""
    note = (
        f"{sum(len(lot) for lot in rest)} image(s) of the series were left out: {looks}{more}; the volume is "
        f"{_look(part.frames[0])}."
    )
    return replace(part, stack=replace(part.stack, notes=(*part.stack.notes, note)))


# -- alike ----------------------------------------------------------------------------------
def _alike(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Lots of one size, spacing and orientation, the largest first; given up where there are too many."""
    lots: list[list[Frame]] = []
    for frame in frames:
        lot = next((lot for lot in lots if not _what_differs(lot[0], frame)), None)
        if lot is not None:
            lot.append(frame)
        elif len(lots) > MAX_LOTS:
            break
        else:
            lots.append([frame])
    return sorted(lots, key=len, reverse=True)


def _what_differs(first: Frame, frame: Frame) -> str:
    """What keeps ``frame`` from being a slice of the volume that ``first`` is of; an empty string when nothing does."""
    for one, other in ((frame, first), (first, frame)):
        if not _has_geometry(one):
            if _problem(one) == _problem(other):
                return ""
            return f"{one.file.name} {_problem(one)}"
    pairs = (
        ("size", first.shape, frame.shape, 0.0),
        ("PixelSpacing", first.spacing_mm, frame.spacing_mm, 1e-4 * min(frame.spacing_mm or (0.0,))),
        ("ImageOrientationPatient", first.orientation, frame.orientation, SAME_DIRECTION),
    )
    for name, expected, found, tolerance in pairs:
        if any(abs(a - b) > tolerance for a, b in zip(expected or (), found or (), strict=True)):
            return (
                f"{name} changes within the series: {expected} in {first.file.name}, {found} in {frame.file.name}; "
                "give the files of one volume only"
            )
    return ""


def _has_geometry(frame: Frame) -> bool:
    return not _problem(frame)


def _problem(frame: Frame) -> str:
    if frame.position_mm is None or frame.orientation is None or frame.spacing_mm is None:
        return "has no position, orientation or pixel spacing"
    if min(frame.spacing_mm) <= 0:
        return f"has PixelSpacing {frame.spacing_mm}, expected two positive numbers"
    return ""


def _look(frame: Frame) -> str:
    """Plane and size in words."""
    size = f"{frame.shape[1]} x {frame.shape[0]} pixels"
    if not _has_geometry(frame):
        return f"of {size} without position, orientation or pixel spacing"
    assert frame.orientation is not None
    assert frame.spacing_mm is not None
    normal = np.abs(np.cross(frame.orientation[:3], frame.orientation[3:]))
    plane = ("sagittal", "coronal", "axial")[int(normal.argmax())] if normal.max() > 0.8 else "oblique"
    return f"{plane}, {size} of {frame.spacing_mm[0]:.3g} mm"


# -- splitting ------------------------------------------------------------------------------
def _parts(frames: Sequence[Frame], fingerprint: Fingerprint) -> list[Part]:
    """The stacks of images that are alike, or one part with the reason why there is none."""
    if not _has_geometry(frames[0]):
        return [Part(tuple(frames), problem=f"{frames[0].file.name} {_problem(frames[0])}")]
    try:
        frames, copies = _drop_copies(frames, fingerprint)
        parts = _stacks(frames, fingerprint)
    except InputError as error:
        return [Part(tuple(frames), problem=str(error))]
    return [_noting(part, copies) for part in parts]


def _stacks(frames: Sequence[Frame], fingerprint: Fingerprint) -> list[Part]:
    """The stacks, by the first way of splitting that gives nothing else.

    Raises:
        InputError: there is none; says what keeps all images together from being a stack.
    """
    if parts := _told_apart(frames):
        return parts
    try:
        return [_whole(frames)]
    except InputError as error:
        reason = error
    for keyword, _ in SPLIT_KEYS:
        if parts := _split(frames, *_by_header(keyword)):
            return parts
    if len(slice_positions(frames)) < len(frames):
        single, notes = _drop_doubles(frames, fingerprint)
        if notes:
            return [_noting(_whole(single), notes)]
        for text, key in (("file", _file), ("folder", _folder), ("pass", _pass(frames))):
            if parts := _split(frames, text, key):
                return parts
    for keyword in ALWAYS:  # one kernel whole and another not
        if parts := _split(frames, *_by_header(keyword), some=True):
            return parts
    raise reason


def _told_apart(frames: Sequence[Frame]) -> list[Part]:
    """Stacks that the header tells apart, though all images together might look like one finer stack."""
    # in the order of their files: the keys are others in every process, but labels must stay
    patients = list(dict.fromkeys(frame.acquisition.patient_key for frame in frames))
    if parts := _split(frames, "patient", lambda frame: patients.index(frame.acquisition.patient_key)):
        return parts
    for keyword in (*ALWAYS, *(keyword for keyword, _ in SPLIT_KEYS if keyword not in ALWAYS)):
        parts = _split(frames, *_by_header(keyword))
        if parts and (keyword in ALWAYS or _overlap(parts)):
            return parts
    return []


def _noting(part: Part, notes: tuple[str, ...]) -> Part:
    """``part`` with notes before those of its stack."""
    return replace(part, stack=part.stack and replace(part.stack, notes=(*notes, *part.stack.notes)))


def _whole(frames: Sequence[Frame]) -> Part:
    return Part(tuple(frames), build_stack(frames))


def _split(frames: Sequence[Frame], text: str, key: Callable[[Frame], Hashable], *, some: bool = False) -> list[Part]:
    """Stacks by ``key``, or none where that gives not only stacks (with ``some``: no stack at all)."""
    groups: dict[Hashable, list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[key(frame)].append(frame)
    if len(groups) < 2 or (not some and min(len(group) for group in groups.values()) < MIN_SLICES):
        return []
    parts = []
    for value in sorted(groups, key=_order):
        difference = "" if text in UNTOLD else f"{text} {value or 'not given'}"
        try:
            parts.append(replace(_whole(groups[value]), difference=difference))
        except InputError as error:
            if not some:
                return []
            parts.append(Part(tuple(groups[value]), problem=str(error), difference=difference))
    return parts if any(part.stack for part in parts) else []


def _order(value: Hashable) -> tuple[float, str]:
    """Numbers by their size, and before texts."""
    text = str(value)
    with suppress(ValueError):
        return float(text), text
    return float("inf"), text


def _by_header(keyword: str) -> tuple[str, Callable[[Frame], Hashable]]:
    number = next(i for i, (one, _) in enumerate(SPLIT_KEYS) if one == keyword)
    return keyword, lambda frame: frame.split[number]


def _file(frame: Frame) -> str:
    return frame.file.name


def _folder(frame: Frame) -> str:
    return str(PurePath(frame.file.name).parent)


def _pass(frames: Sequence[Frame]) -> Callable[[Frame], Hashable]:
    """In the order of InstanceNumber and frames: whether an image is the first, second, ... at its place, from 1.

    Only where every place has the same number of images; elsewhere one that is missing would mix the volumes.
    """
    order = {frame: (frame.instance or 0, frame.index) for frame in frames}
    lots: dict[tuple[int, ...], list[Frame]] = defaultdict(list)
    for frame in sorted(frames, key=order.__getitem__):
        lots[_place(frame)].append(frame)
    if len(set(order.values())) < len(frames) or len({len(lot) for lot in lots.values()}) > 1:
        return lambda _: 0
    passes = {frame: number for lot in lots.values() for number, frame in enumerate(lot, 1)}
    return lambda frame: passes[frame]


def _overlap(parts: Sequence[Part]) -> bool:
    """Do the stacks show the same place, each at least half of the smallest?"""
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
    """Without second copies of one and the same image (same SOPInstanceUID, frame and position)."""
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
    return list(kept.values()), _note_of_dropped(len(frames) - len(kept))


def _drop_doubles(frames: Sequence[Frame], fingerprint: Fingerprint) -> tuple[list[Frame], tuple[str, ...]]:
    """Without images that repeat another's position and pixels under their own SOPInstanceUID.

    Looked at no further than to the first two that differ: then these are several volumes, and all stay.
    """
    lots: dict[tuple[int, ...], list[Frame]] = defaultdict(list)
    for frame in frames:
        lots[_place(frame)].append(frame)
    for lot in lots.values():
        if any(fingerprint(frame) != fingerprint(lot[0]) for frame in lot[1:]):
            return list(frames), ()
    return [lot[0] for lot in lots.values()], _note_of_dropped(len(frames) - len(lots))


def _note_of_dropped(count: int) -> tuple[str, ...]:
    return (f"{count} slice(s) were there twice with the same pixels; one copy of each was used.",) if count else ()


def _joined(*texts: str) -> str:
    return ", ".join(text for text in texts if text)
