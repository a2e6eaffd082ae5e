"""The series that a source holds: what they are called, and which one is meant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.io.dicom.dicomdir import Source
from ChangeMapJointLib.io.dicom.stacks import Stack
from ChangeMapJointLib.io.sources import PACKED
from ChangeMapJointLib.scan.volume import Acquisition

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
        difference: what tells it from others of its UID where the acquisition does not.
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
        about = self.acquisition
        thickness = f"{about.slice_thickness_mm:g} mm" if about.slice_thickness_mm is not None else "unknown thickness"
        parts = (
            f"#{self.label} '{about.series_description or ''}'",
            f"{self.slices} image(s)",
            thickness,
            f"kernel {about.kernel or 'unknown'}",
            f"UID {self.uid}",
            " ".join(part for part in (about.date, about.time) if part),
            f"{about.kvp:g} kV" if about.kvp else "",
            about.phase or "",
            self.difference,
        )
        text = ", ".join(part for part in parts if part)
        return f"{text} ({self.problem})" if self.problem else text


def label_series(series: Sequence[Series]) -> tuple[Series, ...]:
    """Series numbers where they are unique, with a letter (a, b, ...) behind them where not."""
    numbers = [one.label or "0" for one in series if not one.excluded]
    seen: dict[str, int] = defaultdict(int)
    labelled = []
    for one in series:
        label = number = one.label or "0"
        if not one.excluded and numbers.count(number) > 1:
            label += _letters(seen[number])
            seen[number] += 1
        labelled.append(replace(one, label=label))
    return tuple(labelled)


def _letters(number: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    text = ""
    while number >= 0:
        text = chr(ord("a") + number % 26) + text
        number = number // 26 - 1
    return text


def choose_series(path: Path, series: Sequence[Series], selector: str | None, source: Source) -> Series:
    """The only candidate, or the selected series.

    Raises:
        InputError: none, several, or a selector that fits none or several.
    """
    if not series:
        raise InputError(f"no DICOM images found{_nothing(source)}", field=path)
    candidates = [one for one in series if not one.excluded]
    if selector is not None:
        chosen = [one for one in series if selector in (one.label, one.uid)]
        chosen = [one for one in chosen if not one.excluded] or chosen
        if len(chosen) == 1:
            return chosen[0]
        chosen = chosen or [one for one in candidates if one.label.rstrip("abcdefghijklmnopqrstuvwxyz") == selector]
        what = "no series" if not chosen else f"{len(chosen)} series"
        raise InputError(
            f"'#{selector}' fits {what}",
            field=path,
            remedy=f"choose one of: {_listing(chosen or candidates or series)}",
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


def _nothing(source: Source) -> str:
    """What to do where there is no image at all."""
    if listed := sum(source.listed.values()):
        return f", only a DICOMDIR that lists {listed} files which are not there; copy the whole disc"
    packed = [file.name for file in source.files if PurePath(file.name).suffix.lower() in PACKED]
    if packed:
        more = f" and {len(packed) - 1} more" if len(packed) > 1 else ""
        return f", but packed files: {packed[0]}{more}; give the zip itself, or unpack it and give the folder"
    return (
        "; expected the folder, zip or multi-frame file of a CT series (a scan of another format is given as the file "
        "itself)"
    )


def _listing(series: Sequence[Series]) -> str:
    roles = _roles(series)
    shown = "; ".join(f"{one}{roles.get(one.acquisition.date or '', '')}" for one in series[:MAX_LISTED])
    text = shown if len(series) <= MAX_LISTED else f"{shown}; and {len(series) - MAX_LISTED} more"
    patients = {one.acquisition.patient_key for one in series if one.acquisition.patient_key}
    return f"{text}; they are of {len(patients)} patients" if len(patients) > 1 else text


def _roles(series: Sequence[Series]) -> dict[str, str]:
    """Which date is likely the current scan's and which the prior's, where there are several of one patient."""
    dates = sorted({one.acquisition.date for one in series if one.acquisition.date}, reverse=True)
    patients = {one.acquisition.patient_key for one in series if one.acquisition.patient_key}
    if len(dates) < 2 or len(patients) > 1:
        return {}
    names = (": likely the current scan", ": likely the prior", *[": older"] * len(dates))
    return dict(zip(dates, names, strict=False))
