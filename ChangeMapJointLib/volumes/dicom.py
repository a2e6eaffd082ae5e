"""Reading a DICOM CT series from a folder, a zip archive or a multi-frame file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.progress import Progress, silent
from ChangeMapJointLib.volumes.dicom_headers import Frame, read_frames
from ChangeMapJointLib.volumes.dicom_pixels import fingerprint, read_voxels
from ChangeMapJointLib.volumes.dicom_stacks import MIN_SLICES, SAME_POSITION_MM, Stack, build_stacks
from ChangeMapJointLib.volumes.sources import SourceFile, open_source
from ChangeMapJointLib.volumes.volume import Acquisition, Volume

MAX_LISTED = 20  # series in one message


@dataclass(frozen=True)
class Series:
    """One stack of images that a source holds.

    Attributes:
        label: what selects it after ``#``: its SeriesNumber, with a letter where that is not unique.
        uid: SeriesInstanceUID; two series split from one share it.
        slices: number of images.
        acquisition: description, kernel, slice thickness, date; nothing that names the patient.
        problem: why it cannot be read as a CT volume, or an empty string.
        stack: its slices, readable while the source is open; None when there is a problem.
        excluded: it is no candidate at all (localizer, other modality, report, ...).
    """

    label: str
    uid: str
    slices: int
    acquisition: Acquisition
    problem: str = ""
    stack: Stack | None = None
    excluded: bool = False

    def __str__(self) -> str:
        about = self.acquisition
        thickness = f"{about.slice_thickness_mm:g} mm" if about.slice_thickness_mm is not None else "unknown thickness"
        text = (
            f"#{self.label} '{about.series_description or ''}', {self.slices} image(s), {thickness}, "
            f"kernel {about.kernel or 'unknown'}, UID {self.uid}"
        )
        return f"{text} ({self.problem})" if self.problem else text


def list_series(path: Path, *, progress: Progress = silent) -> tuple[Series, ...]:
    """Every series in a folder (searched recursively), a zip archive or a file, usable or not.

    Raises:
        InputError: unreadable archive or damaged DICOM header.
    """
    with open_source(path) as files:
        return _with_labels(_series(files, progress))


def read_dicom(path: Path, selector: str | None = None, *, progress: Progress = silent) -> Volume:
    """The CT series of a folder, a zip archive or a multi-frame file.

    Args:
        path: where it is. Files that are not DICOM, localizers, reports, segmentations, pictures and series of
            fewer than three positions are passed over.
        selector: label or SeriesInstanceUID (see :class:`Series`); needed when there are several CT series.
        progress: called with the fraction done.

    Raises:
        InputError: no CT series, several and no selector (lists them), or one that is no even stack of CT slices.
    """
    with open_source(path) as files:
        try:
            every = _with_labels(_series(files, lambda fraction, message="": progress(0.3 * fraction, message)))
            chosen = _choose(path, every, selector)
            if chosen.stack is None:
                raise InputError(chosen.problem)
            array = read_voxels(
                chosen.stack, progress=lambda fraction, message="": progress(0.3 + 0.7 * fraction, message)
            )
        except InputError as error:
            text = str(error)
            raise InputError(text if text.startswith(str(path)) else f"{path}: {text}") from error
    return Volume(array, chosen.stack.grid, path, chosen.acquisition, chosen.stack.notes)


def _series(files: Sequence[SourceFile], progress: Progress) -> list[Series]:
    """The series in the files, without labels."""
    groups: dict[str, list[Frame]] = defaultdict(list)
    for number, file in enumerate(files, 1):
        for frame in read_frames(file):
            groups[frame.series_uid].append(frame)
        progress(number / len(files), "looking at files")
    found: list[Series] = []
    for uid, frames in groups.items():
        found += _series_of(uid, frames)
    return sorted(found, key=lambda one: (int(one.label or 0), one.uid))


def _series_of(uid: str, frames: Sequence[Frame]) -> list[Series]:
    """The stacks of one SeriesInstanceUID, or the one reason why there is none."""
    slices = [frame for frame in frames if not frame.exclusion]
    first = (slices or frames)[0]
    label = "" if first.series_number is None else str(first.series_number)
    whole = Series(label, uid, len(slices or frames), first.acquisition)
    if not slices:
        return [replace(whole, problem=first.exclusion, excluded=True)]
    places = {_place(frame) for frame in slices if frame.position_mm is not None}
    if len(places) < MIN_SLICES:
        return [replace(whole, problem=f"{len(places)} slice position(s), expected a volume", excluded=True)]
    try:
        stacks = build_stacks(slices, fingerprint)
    except InputError as error:
        return [replace(whole, problem=str(error))]
    passed_over = sorted({frame.exclusion for frame in frames if frame.exclusion})
    note = (f"{len(frames) - len(slices)} image(s) of the series were left out: {', '.join(passed_over)}.",)
    stacks = tuple(replace(stack, notes=(*stack.notes, *(note if passed_over else ()))) for stack in stacks)
    return [
        replace(whole, slices=len(stack.frames), acquisition=stack.frames[0].acquisition, stack=stack)
        for stack in stacks
    ]


def _place(frame: Frame) -> tuple[int, ...]:
    return tuple(round(value / SAME_POSITION_MM) for value in frame.position_mm or ())


def _with_labels(series: Sequence[Series]) -> tuple[Series, ...]:
    """Series numbers where they are unique, with a letter (a, b, ...) behind them where not."""
    numbers = [one.label for one in series if not one.excluded]
    seen: dict[str, int] = defaultdict(int)
    labelled = []
    for one in series:
        label = one.label or "0"
        if not one.excluded and numbers.count(one.label) > 1:
            label += _letters(seen[one.label])
            seen[one.label] += 1
        labelled.append(replace(one, label=label))
    return tuple(labelled)


def _letters(number: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    text = ""
    while number >= 0:
        text = chr(ord("a") + number % 26) + text
        number = number // 26 - 1
    return text


def _choose(path: Path, series: Sequence[Series], selector: str | None) -> Series:
    """The only candidate, or the selected series.

    Raises:
        InputError: none, several, or a selector that fits none or several.
    """
    if not series:
        raise InputError(
            f"{path}: no DICOM images found; expected the folder, zip or multi-frame file of a CT series (a scan of "
            "another format is given as the file itself)"
        )
    candidates = [one for one in series if not one.excluded]
    if selector is not None:
        chosen = [one for one in series if selector in (one.label, one.uid)]
        chosen = [one for one in chosen if not one.excluded] or chosen
        if len(chosen) == 1:
            return chosen[0]
        what = "no series" if not chosen else f"{len(chosen)} series"
        raise InputError(
            f"{path}: '#{selector}' fits {what}; choose one of: {_listing(chosen or candidates or series)}"
        )
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise InputError(f"{path}: no CT volume found, only: {_listing(series)}; give the folder of one CT series")
    raise InputError(
        f"{path}: {len(candidates)} CT series, expected one: {_listing(candidates)}; choose one by its number or UID, "
        f"for example '{path}#{candidates[0].label}'"
    )


def _listing(series: Sequence[Series]) -> str:
    shown = "; ".join(str(one) for one in series[:MAX_LISTED])
    return shown if len(series) <= MAX_LISTED else f"{shown}; and {len(series) - MAX_LISTED} more"
