"""Reading a DICOM CT series from a folder, a zip archive, a DICOMDIR or a multi-frame file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.progress import Progress, silent
from ChangeMapJointLib.io.dicom.dicomdir import Source, open_scan
from ChangeMapJointLib.io.dicom.headers import Frame, read_frames
from ChangeMapJointLib.io.dicom.listing import Series, choose_series, label_series
from ChangeMapJointLib.io.dicom.parts import MIN_SLICES, Part, slice_positions, split_into_stacks
from ChangeMapJointLib.io.dicom.pixels import Fingerprints, read_voxels
from ChangeMapJointLib.io.sources import SourceFile
from ChangeMapJointLib.scan.volume import Volume


def list_series(path: Path, *, progress: Progress = silent) -> tuple[Series, ...]:
    """Every series in a folder (searched recursively), a zip archive or a file, usable or not.

    Raises:
        InputError: unreadable archive or damaged DICOM header.
    """
    with open_scan(path) as source:
        return label_series(_series(source.files, progress))


def read_dicom(path: Path, selector: str | None = None, *, progress: Progress = silent) -> Volume:
    """The CT series of a folder, a zip archive, a disc by its DICOMDIR, or a multi-frame file.

    Args:
        path: where it is. Files that are not DICOM, localizers, reports, segmentations, pictures and series of
            fewer than three positions are passed over.
        selector: label or SeriesInstanceUID (see :class:`Series`); needed when there are several CT series.
        progress: called with the fraction done.

    Raises:
        InputError: no CT series, several and no selector (lists them), or one that is no even stack of CT slices.
    """
    with open_scan(path) as source:
        try:
            every = label_series(_series(source.files, lambda fraction, message="": progress(0.3 * fraction, message)))
            chosen = choose_series(path, every, selector, source)
            if chosen.stack is None:
                raise InputError(chosen.problem)
            array = read_voxels(
                chosen.stack, progress=lambda fraction, message="": progress(0.3 + 0.7 * fraction, message)
            )
        except InputError as error:
            raise error.at(path) from error
    notes = (*chosen.stack.notes, *_not_there(chosen, source))
    return Volume(array, chosen.stack.grid, path, chosen.acquisition, notes)


def _not_there(chosen: Series, source: Source) -> tuple[str, ...]:
    """A note where the disc's table of contents lists more of the series than there is."""
    missing, listed = source.missing.get(chosen.uid, 0), source.listed.get(chosen.uid, 0)
    if not missing or chosen.slices >= listed:
        return ()
    return (
        f"WARNING: the DICOMDIR lists {listed} files of this series, {missing} of which are not there: the scan may be "
        "cut short.",
    )


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
    whole = Series(_label(first), uid, len(slices or frames), first.acquisition)
    if not slices:
        return [replace(whole, problem=first.exclusion, excluded=True)]
    problems = [frame.problem for frame in slices if frame.problem]
    if problems:
        return [replace(whole, problem=problems[0])]
    if len(slice_positions(slices)) < MIN_SLICES:
        return [
            replace(
                whole, problem=f"{len(slice_positions(slices))} slice position(s), expected a volume", excluded=True
            )
        ]
    passed_over = sorted({frame.exclusion for frame in frames if frame.exclusion})
    note = (f"{len(frames) - len(slices)} image(s) of the series were left out: {', '.join(passed_over)}.",)
    found = split_into_stacks(slices, Fingerprints(slices))
    return [_of_part(whole, part, note if passed_over else ()) for part in found]


def _label(frame: Frame) -> str:
    return "" if frame.series_number is None else str(frame.series_number)


def _of_part(whole: Series, part: Part, notes: tuple[str, ...]) -> Series:
    stack = part.stack
    frames = part.frames if stack is None else stack.frames
    about = frames[0].acquisition
    thick = sorted({one.acquisition.slice_thickness_mm or 0.0 for one in frames} - {0.0})
    if len(thick) > 1:
        about = replace(about, slice_thickness_mm=thick[-1])
        notes += (f"The slices are {thick[0]:g} to {thick[-1]:g} mm thick; the larger counts for all.",)
    stack = stack and replace(stack, notes=(*stack.notes, *notes))
    return replace(
        whole,
        label=_label(frames[0]),
        slices=len(frames),
        acquisition=about,
        stack=stack,
        problem=part.problem,
        difference=part.difference,
    )
