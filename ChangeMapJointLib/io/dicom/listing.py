"""Lists the series in a source and selects one of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.io.dicom.dicomdir import ImageFiles
from ChangeMapJointLib.io.dicom.stacks import Stack
from ChangeMapJointLib.io.sources import IMAGE_FILES, PACKED
from ChangeMapJointLib.scan.volume import Acquisition

MAX_LISTED = 20  # series in one message


@dataclass(frozen=True)
class ListedSeries:
    """One stack of images in a source.

    Attributes:
        label: the number that selects it after ``#``: its SeriesNumber, with a letter where that is not unique.
        uid: SeriesInstanceUID; shared by series that were split from one.
        slices: number of images.
        acquisition: description, kernel, slice thickness, date; nothing that identifies the patient.
        problem: why it cannot be read as a CT volume, or an empty string.
        stack: its slices, readable while the source is open; None if there is a problem.
        excluded: whether it is not a CT series (localizer, other modality, report, ...).
        difference: how it differs from others with the same UID, if the acquisition does not show that.
    """

    label: str
    uid: str
    slices: int
    acquisition: Acquisition
    problem: str = ""
    stack: Stack | None = None
    excluded: bool = False
    difference: str = ""

    def __str__(self) -> str:
        acquisition = self.acquisition
        thickness_mm = acquisition.slice_thickness_mm
        thickness = f"{thickness_mm:g} mm" if thickness_mm is not None else "unknown thickness"
        parts = (
            f"#{self.label} '{acquisition.series_description or ''}'",
            f"{self.slices} image(s)",
            thickness,
            f"kernel {acquisition.kernel or 'unknown'}",
            f"UID {self.uid}",
            " ".join(part for part in (acquisition.date, acquisition.time) if part),
            f"{acquisition.kvp:g} kV" if acquisition.kvp else "",
            acquisition.phase or "",
            self.difference,
            _extent(self.stack),
        )
        text = ", ".join(part for part in parts if part)
        return f"{text} ({self.problem})" if self.problem else text


def _extent(stack: Stack | None) -> str:
    """Return from where to where a stack reaches along its slices, in mm of the patient's axes."""
    if stack is None:
        return ""
    first, last = (frame.position_mm for frame in (stack.frames[0], stack.frames[-1]))
    if first is None or last is None:
        return ""
    axis = max(range(3), key=lambda i: abs(last[i] - first[i]))
    low, high = sorted((first[axis], last[axis]))
    return f"{'xyz'[axis]} {low:.0f} to {high:.0f} mm"


def label_series(series: Sequence[ListedSeries]) -> tuple[ListedSeries, ...]:
    """Label series by their numbers, followed by a letter (a, b, ...) where a number is not unique."""
    numbers = [entry.label or "0" for entry in series if not entry.excluded]
    used: dict[str, int] = defaultdict(int)
    labelled = []
    for entry in series:
        label = number = entry.label or "0"
        if not entry.excluded and numbers.count(number) > 1:
            label += _letters(used[number])
            used[number] += 1
        labelled.append(replace(entry, label=label))
    return tuple(labelled)


def _letters(number: int) -> str:
    """Return a, b, ..., z, aa, ab, ... for 0, 1, ..."""
    text = ""
    while number >= 0:
        text = chr(ord("a") + number % 26) + text
        number = number // 26 - 1
    return text


def choose_series(path: Path, series: Sequence[ListedSeries], selector: str | None, source: ImageFiles) -> ListedSeries:
    """Return the only CT series, or the selected one.

    Raises:
        InputError: there is none, there are several, or the selector matches none or several.
    """
    if not series:
        raise InputError(f"no DICOM images found{_without_images(source)}", field=path)
    candidates = [entry for entry in series if not entry.excluded]
    if selector is not None:
        matches = [entry for entry in series if selector in (entry.label, entry.uid)]
        matches = [entry for entry in matches if not entry.excluded] or matches
        if len(matches) == 1:
            return matches[0]
        letters = "abcdefghijklmnopqrstuvwxyz"
        matches = matches or [entry for entry in candidates if entry.label.rstrip(letters) == selector]
        count = f"{len(matches)} series" if matches else "no series"
        raise InputError(
            f"'#{selector}' matches {count}",
            field=path,
            remedy=f"choose one of: {_listing(matches or candidates or series)}",
        )
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise InputError(
            f"no CT volume found, only: {_listing(series)}", field=path, remedy="give the folder of one CT series"
        )
    raise InputError(
        f"{len(candidates)} CT series",
        field=path,
        expected=f"one: {_listing(candidates)}",
        remedy=f"choose one by its number or UID, for example '{path}#{candidates[0].label}'",
    )


def _without_images(source: ImageFiles) -> str:
    """Return the rest of the message for a source without any image: what it holds, and what to do."""
    if listed := sum(source.listed.values()):
        return f", only a DICOMDIR that lists {listed} missing files; copy the whole disc"
    images = [file.name for file in source.files if file.name.lower().endswith(IMAGE_FILES)]
    if images:
        action = "unpack it and give the file" if source.files[0].packed else "give the file itself"
        return f", but {len(images)} image file(s): {images[0]}; {action}"
    packed = [file.name for file in source.files if PurePath(file.name).suffix.lower() in PACKED]
    if packed:
        more = f" and {len(packed) - 1} more" if len(packed) > 1 else ""
        return f", but packed files: {packed[0]}{more}; give the zip itself, or unpack it and give the folder"
    return ", expected the folder, zip or multi-frame file of a CT series; for another format, give the file itself"


def _listing(series: Sequence[ListedSeries]) -> str:
    roles = _roles(series)
    shown = "; ".join(f"{entry}{roles.get(entry.acquisition.date or '', '')}" for entry in series[:MAX_LISTED])
    text = shown if len(series) <= MAX_LISTED else f"{shown}; and {len(series) - MAX_LISTED} more"
    patients = {entry.acquisition.patient_key for entry in series if entry.acquisition.patient_key}
    return f"{text}; they are of {len(patients)} patients" if len(patients) > 1 else text


def _roles(series: Sequence[ListedSeries]) -> dict[str, str]:
    """Return which date is likely the current scan and which the prior, if there are several dates of one patient."""
    dates = sorted({entry.acquisition.date for entry in series if entry.acquisition.date}, reverse=True)
    patients = {entry.acquisition.patient_key for entry in series if entry.acquisition.patient_key}
    if len(dates) < 2 or len(patients) > 1:
        return {}
    names = (": likely the current scan", ": likely the prior", *[": older"] * len(dates))
    return dict(zip(dates, names, strict=False))
