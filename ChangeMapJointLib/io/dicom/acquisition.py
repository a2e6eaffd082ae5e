"""How and when a DICOM image was made, and where in the header that stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset

from ChangeMapJointLib.io.dicom.values import (
    as_iso_date,
    as_iso_time,
    as_numbers,
    as_text,
    contrast_agent,
    patient_key,
    positive,
    without_identity,
)
from ChangeMapJointLib.scan.volume import Acquisition

_MOMENTS = (  # keywords of date and time, the best first
    ("AcquisitionDate", "AcquisitionTime"),
    ("AcquisitionDateTime", "AcquisitionDateTime"),
    ("SeriesDate", "SeriesTime"),
    ("ContentDate", "ContentTime"),
    ("StudyDate", "StudyTime"),
)
_PHASES = (  # keyword, functional group, how it is written
    ("NominalPercentageOfCardiacPhase", "CardiacSynchronizationSequence", "{} % of the heart cycle"),
    ("NominalPercentageOfRespiratoryPhase", "RespiratorySynchronizationSequence", "{} % of the breathing cycle"),
    ("TemporalPositionIdentifier", "FrameContentSequence", "time point {}"),
    ("TemporalPositionIndex", "FrameContentSequence", "time point {}"),
)
TAGS = (
    *(keyword for moment in _MOMENTS for keyword in moment),
    *(keyword for keyword, *_ in _PHASES),
    *("Modality", "ConvolutionKernel", "SliceThickness", "ContrastBolusAgent", "Manufacturer", "SeriesDescription"),
    *("KVP", "Exposure", "ExposureInuAs", "CTDIvol", "CTExposureSequence"),
    *("PatientID", "PatientName", "SpecificCharacterSet"),
)


Find = Callable[[str, str], Any]


class FunctionalGroups:
    """What a file says of all its frames: shared functional groups, else the top level; looked up once.

    Args:
        header: the top level.
        shared: the shared functional groups; empty in a classic file.
    """

    def __init__(self, header: Dataset, shared: Dataset | None = None) -> None:
        self.header = header
        self._shared = _first_items(shared)
        self._known: dict[tuple[str, str], Any] = {}

    def find(self, keyword: str, sequence: str) -> Any:
        """The value for all frames, or None."""
        key = (keyword, sequence)
        if key not in self._known:
            value = self._shared[sequence].get(keyword) if sequence in self._shared else None
            self._known[key] = self.header.get(keyword) if value is None else value
        return self._known[key]

    def of_frame(self, own: Dataset | None) -> FrameGroups:
        """The same with the functional groups of one frame."""
        return FrameGroups(self, _first_items(own))


@dataclass(frozen=True)
class FrameGroups:
    """What a file says of one frame: its own functional groups, else what counts for all.

    Attributes:
        common: what counts for all.
        own: the frame's own groups by keyword.
    """

    common: FunctionalGroups
    own: Mapping[str, Dataset]

    def find(self, keyword: str, sequence: str) -> Any:
        """The frame's value, or None."""
        value = self.own[sequence].get(keyword) if sequence in self.own else None
        return self.common.find(keyword, sequence) if value is None else value


def _first_items(groups: Dataset | None) -> dict[str, Dataset]:
    """The first item of each sequence."""
    return {one.keyword: one.value[0] for one in groups or () if one.VR == "SQ" and one.value}


def acquisition_of(groups: FrameGroups) -> Acquisition:
    """What the header says of the scan that the frame is of.

    Raises:
        InputError: a slice thickness that is no number.
    """
    header, find = groups.common.header, groups.find
    thickness = as_numbers(find("SliceThickness", "PixelMeasuresSequence"), 1, "SliceThickness")
    identity = [as_text(header.get(keyword)) for keyword in ("PatientID", "PatientName")]
    date, time = _moment(header)
    return Acquisition(
        date=date,
        modality=as_text(header.get("Modality")) or None,
        kernel=as_text(find("ConvolutionKernel", "CTReconstructionSequence")) or None,
        slice_thickness_mm=thickness[0] if thickness else None,
        contrast=contrast_agent(without_identity(as_text(header.get("ContrastBolusAgent")), identity)),
        manufacturer=as_text(header.get("Manufacturer")) or None,
        series_description=without_identity(as_text(header.get("SeriesDescription")), identity) or None,
        patient_key=patient_key(*identity),
        time=time,
        phase=_phase(find),
        kvp=positive(find("KVP", "CTXRayDetailsSequence")),
        exposure_mas=_exposure_mas(find),
        ctdi_vol_mgy=positive(find("CTDIvol", "CTExposureSequence")),
    )


def _moment(header: Dataset) -> tuple[str | None, str | None]:
    """The best date, and the time that belongs to it; where it has none, the best time of the series."""
    found = [(as_iso_date(header.get(day)), as_iso_time(header.get(hour), hour)) for day, hour in _MOMENTS]
    date, time = next(((date, time) for date, time in found if date), (None, None))
    return date, time or next((time for _, time in found[:-1] if time), None)


def _phase(find: Find) -> str | None:
    values: Sequence[tuple[str, str]] = [
        (as_text(find(keyword, sequence)), text) for keyword, sequence, text in _PHASES
    ]
    return next((text.format(value) for value, text in values if value), None)


def _exposure_mas(find: Find) -> float | None:
    millis = positive(find("ExposureInmAs", "CTExposureSequence"))
    millis = millis or positive(find("Exposure", ""))
    micros = positive(find("ExposureInuAs", ""))
    return millis or (micros / 1000.0 if micros else None)
