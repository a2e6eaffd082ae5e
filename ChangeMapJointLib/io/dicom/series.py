"""Reads a DICOM CT series from a folder, a zip archive, a DICOMDIR or a multi-frame file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.progress import Progress, silent
from ChangeMapJointLib.io.dicom.dicomdir import ImageFiles, open_scan
from ChangeMapJointLib.io.dicom.headers import Frame, read_frames
from ChangeMapJointLib.io.dicom.listing import ListedSeries, choose_series, label_series
from ChangeMapJointLib.io.dicom.parts import MIN_SLICES, Part, slice_positions, split_into_stacks
from ChangeMapJointLib.io.dicom.pixels import Fingerprints, read_voxels
from ChangeMapJointLib.io.dicom.stacks import Stack
from ChangeMapJointLib.io.sources import SourceFile
from ChangeMapJointLib.scan.volume import Volume

LEAST_TILT_DEG = 1.0  # over a chest of 300 mm, less shears by at most 5 mm


def list_series(path: Path, *, progress: Progress = silent) -> tuple[ListedSeries, ...]:
    """List every series in a folder (searched recursively), a zip archive or a file, usable or not.

    Raises:
        InputError: the archive is unreadable, or a DICOM header is damaged.
    """
    with open_scan(path) as source:
        return label_series(_series(source.files, progress))


def read_dicom(path: Path, selector: str | None = None, *, progress: Progress = silent) -> Volume:
    """Read the CT series in a folder, a zip archive, on a disc with a DICOMDIR, or in a multi-frame file.

    Args:
        path: the source. Files that are not DICOM, localizers, reports, segmentations, pictures and series with fewer
            than three slice positions are ignored.
        selector: label or SeriesInstanceUID (see :class:`ListedSeries`); needed if there are several CT series.
        progress: called with the fraction done.

    Raises:
        InputError: there is no CT series, there are several and no selector (lists them), or the series is not an even
            stack of CT slices.
    """
    with open_stack(path, selector, progress=lambda f, m="": progress(0.3 * f, m)) as (chosen, stack, source):
        array = read_voxels(stack, progress=lambda f, m="": progress(0.3 + 0.7 * f, m))
    notes = (*stack.notes, *_missing_files_note(chosen, source))
    return Volume(array, stack.grid, path, chosen.acquisition, notes)


@contextmanager
def open_stack(
    path: Path, selector: str | None = None, *, progress: Progress = silent
) -> Iterator[tuple[ListedSeries, Stack, ImageFiles]]:
    """Choose the CT series in a source, whose files can be read inside the block; see :func:`read_dicom`.

    Raises:
        InputError: see :func:`read_dicom`; errors of the block name ``path``, too.
    """
    with open_scan(path) as source:
        try:
            chosen = choose_series(path, label_series(_series(source.files, progress)), selector, source)
            if chosen.stack is None:
                raise InputError(chosen.problem)
            yield chosen, chosen.stack, source
        except InputError as error:
            raise error.at(path) from error


def _missing_files_note(chosen: ListedSeries, source: ImageFiles) -> tuple[str, ...]:
    """Return a note if a DICOMDIR lists more files of the series than there are."""
    missing, listed = source.missing.get(chosen.uid, 0), source.listed.get(chosen.uid, 0)
    if not missing or chosen.slices >= listed:
        return ()
    return (
        f"WARNING: the DICOMDIR lists {listed} files of this series, {missing} of which are missing: the scan may be "
        "incomplete.",
    )


def _series(files: Sequence[SourceFile], progress: Progress) -> list[ListedSeries]:
    """Find the series in the files, without labels."""
    groups: dict[str, list[Frame]] = defaultdict(list)
    for number, file in enumerate(files, 1):
        for frame in read_frames(file):
            groups[frame.series_uid].append(frame)
        progress(number / len(files), "reading headers")
    groups = _joined_if_single(groups)
    series: list[ListedSeries] = []
    for uid, frames in groups.items():
        series += _series_of(uid, frames)
    return sorted(series, key=lambda entry: (int(entry.label or 0), entry.uid))


def _joined_if_single(groups: dict[str, list[Frame]]) -> dict[str, list[Frame]]:
    """Join CT images that each have a SeriesInstanceUID of their own, as some anonymisers leave them.

    Only where no series holds a volume, and the images have one series number and description.
    """
    single: dict[tuple[int | None, str | None], list[str]] = defaultdict(list)
    for uid, frames in groups.items():
        slices = [frame for frame in frames if not frame.exclusion and not frame.problem]
        if len(slice_positions(slices)) >= MIN_SLICES:
            return groups
        if slices:
            single[slices[0].series_number, slices[0].acquisition.series_description].append(uid)
    joined = dict(groups)
    for uids in single.values():
        if len(uids) >= MIN_SLICES:
            joined[uids[0]] = [frame for uid in uids for frame in joined.pop(uid)]
    return joined


def _why_no_volume(slices: Sequence[Frame]) -> str:
    """Return why so few positions cannot be a volume: they are missing, all the same, or few."""
    positions, count = len(slice_positions(slices)), len(slices)
    if count >= MIN_SLICES and not positions:
        return f"{count} images without ImagePositionPatient: their order and distance are unknown"
    if count >= MIN_SLICES and positions == 1:
        return f"{count} images that all have the same ImagePositionPatient"
    return f"{positions} slice position(s), expected a volume"


def _series_of(uid: str, frames: Sequence[Frame]) -> list[ListedSeries]:
    """Return the stacks of one SeriesInstanceUID, or one entry that says why there is none."""
    slices = [frame for frame in frames if not frame.exclusion]
    first = (slices or frames)[0]
    whole = ListedSeries(_label(first), uid, len(slices or frames), first.acquisition)
    if not slices:
        return [replace(whole, problem=first.exclusion, excluded=True)]
    problems = [frame.problem for frame in slices if frame.problem]
    if problems:
        return [replace(whole, problem=problems[0])]
    if len(slice_positions(slices)) < MIN_SLICES:
        return [replace(whole, problem=_why_no_volume(slices), excluded=True)]
    excluded = sorted({frame.exclusion for frame in frames if frame.exclusion})
    notes = [f"{len(frames) - len(slices)} image(s) of the series were left out: {', '.join(excluded)}."] * bool(
        excluded
    )
    if (uids := len({frame.series_uid for frame in slices})) > 1:
        notes.append(f"The images have {uids} different SeriesInstanceUIDs; they were taken for one series.")
    parts = split_into_stacks(slices, Fingerprints(slices))
    return [_of_part(whole, part, tuple(notes)) for part in parts]


def _label(frame: Frame) -> str:
    return "" if frame.series_number is None else str(frame.series_number)


def _of_part(whole: ListedSeries, part: Part, notes: tuple[str, ...]) -> ListedSeries:
    stack = part.stack
    frames = part.frames if stack is None else stack.frames
    acquisition = frames[0].acquisition
    thickness_mm = sorted({frame.acquisition.slice_thickness_mm or 0.0 for frame in frames} - {0.0})
    if len(thickness_mm) > 1:
        acquisition = replace(acquisition, slice_thickness_mm=thickness_mm[-1])
        notes += (f"The slices are {thickness_mm[0]:g} to {thickness_mm[-1]:g} mm thick; the larger value was used.",)
    notes += (*_frame_of_reference_notes(frames), *_tilt_notes(stack))
    stack = stack and replace(stack, notes=(*stack.notes, *notes))
    return replace(
        whole,
        label=_label(frames[0]),
        slices=len(frames),
        acquisition=acquisition,
        stack=stack,
        problem=part.problem,
        difference=part.difference,
    )


def _frame_of_reference_notes(frames: Sequence[Frame]) -> tuple[str, ...]:
    """Return a note if the positions refer to several frames of reference."""
    count = len({frame.frame_of_reference for frame in frames if frame.frame_of_reference})
    if count < 2:
        return ()
    return (
        f"The images name {count} frames of reference: by the header, their positions do not belong together. They "
        "were taken for one scan, since they form an even stack.",
    )


def _tilt_notes(stack: Stack | None) -> tuple[str, ...]:
    """Return a note if the header states a gantry tilt that the positions do not show."""
    degrees = 0.0 if stack is None else max((frame.tilt_degrees for frame in stack.frames), key=abs)
    if stack is None or abs(degrees) <= LEAST_TILT_DEG or stack.shear_mm != (0.0, 0.0):
        return ()
    normal = np.asarray(stack.grid.direction)[:, 2]
    if np.degrees(np.arccos(min(abs(float(normal[2])), 1.0))) > LEAST_TILT_DEG:
        return ()  # tilted images along a tilted axis, straightened by the scanner
    return (
        f"The header states a gantry tilt of {degrees:g} degrees that positions and orientation do not show: either "
        "the images were straightened before, or the scan is sheared.",
    )
