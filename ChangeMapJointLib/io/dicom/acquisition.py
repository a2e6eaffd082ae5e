"""How and when a DICOM image was acquired, and which elements of the header say so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset

from ChangeMapJointLib.io.dicom.contrast import contrast_agent
from ChangeMapJointLib.io.dicom.values import (
    as_iso_date,
    as_iso_time,
    as_numbers,
    as_text,
    lossy_ratio,
    patient_key,
    positive,
    without_identity,
)
from ChangeMapJointLib.scan.volume import Acquisition

_DATE_TIMES = (  # keywords of date and time, in order of preference
    ("AcquisitionDate", "AcquisitionTime"),
    ("AcquisitionDateTime", "AcquisitionDateTime"),
    ("SeriesDate", "SeriesTime"),
    ("ContentDate", "ContentTime"),
    ("StudyDate", "StudyTime"),
)
_PHASES = (  # keyword, functional group, text
    ("NominalPercentageOfCardiacPhase", "CardiacSynchronizationSequence", "{} % of the heart cycle"),
    ("NominalPercentageOfRespiratoryPhase", "RespiratorySynchronizationSequence", "{} % of the breathing cycle"),
    ("TemporalPositionIdentifier", "FrameContentSequence", "time point {}"),
    ("TemporalPositionIndex", "FrameContentSequence", "time point {}"),
)
TAGS = (
    *(keyword for keywords in _DATE_TIMES for keyword in keywords),
    *(keyword for keyword, *_ in _PHASES),
    *("Modality", "ConvolutionKernel", "SliceThickness", "ContrastBolusAgent", "Manufacturer", "SeriesDescription"),
    *("KVP", "Exposure", "ExposureInuAs", "CTDIvol", "CTExposureSequence"),
    *("LossyImageCompression", "LossyImageCompressionRatio"),
    *("PatientID", "PatientName", "SpecificCharacterSet"),
)


FindValue = Callable[[str, str], Any]


class FunctionalGroups:
    """Values for all frames of a file: from the shared functional groups, else from the top level; looked up once.

    Args:
        header: the top level.
        shared: the shared functional groups; None in a single-frame file.
    """

    def __init__(self, header: Dataset, shared: Dataset | None = None) -> None:
        self.header = header
        self._shared = _first_items(shared)
        self._found: dict[tuple[str, str], Any] = {}

    def find(self, keyword: str, sequence: str) -> Any:
        """Return the value for all frames, or None."""
        key = (keyword, sequence)
        if key not in self._found:
            value = self._shared[sequence].get(keyword) if sequence in self._shared else None
            self._found[key] = self.header.get(keyword) if value is None else value
        return self._found[key]

    def of_frame(self, own: Dataset | None) -> FrameGroups:
        """Return a lookup for one frame, given its own functional groups."""
        return FrameGroups(self, _first_items(own))


@dataclass(frozen=True)
class FrameGroups:
    """Values for one frame: from its own functional groups, else those for all frames.

    Attributes:
        common: values for all frames.
        own: the frame's own functional groups by keyword.
    """

    common: FunctionalGroups
    own: Mapping[str, Dataset]

    def find(self, keyword: str, sequence: str) -> Any:
        """Return the value for the frame, or None."""
        value = self.own[sequence].get(keyword) if sequence in self.own else None
        return self.common.find(keyword, sequence) if value is None else value


def _first_items(groups: Dataset | None) -> dict[str, Dataset]:
    """Return the first item of each sequence by keyword."""
    return {element.keyword: element.value[0] for element in groups or () if element.VR == "SQ" and element.value}


def acquisition_of(groups: FrameGroups) -> Acquisition:
    """Return the acquisition of the scan that a frame belongs to.

    Raises:
        InputError: the slice thickness is not a number.
    """
    header, find = groups.common.header, groups.find
    thickness = as_numbers(find("SliceThickness", "PixelMeasuresSequence"), 1, "SliceThickness")
    identity = [as_text(header.get(keyword)) for keyword in ("PatientID", "PatientName")]
    date, time = _date_time(header)
    return Acquisition(
        date=date,
        modality=as_text(header.get("Modality")) or None,
        kernel=as_text(find("ConvolutionKernel", "CTReconstructionSequence")) or None,
        slice_thickness_mm=thickness[0] if thickness else None,
        contrast=contrast_agent(as_text(header.get("ContrastBolusAgent")), identity),
        manufacturer=as_text(header.get("Manufacturer")) or None,
        series_description=without_identity(as_text(header.get("SeriesDescription")), identity) or None,
        patient_key=patient_key(*identity),
        time=time,
        phase=_phase(find),
        kvp=positive(find("KVP", "CTXRayDetailsSequence")),
        exposure_mas=_exposure_mas(find),
        ctdi_vol_mgy=positive(find("CTDIvol", "CTExposureSequence")),
        lossy_ratio=lossy_ratio(
            as_text(header.get("LossyImageCompression")),
            as_text(header.get("LossyImageCompressionRatio")),
            str(getattr(getattr(header, "file_meta", None), "TransferSyntaxUID", "")),
        ),
    )


def _date_time(header: Dataset) -> tuple[str | None, str | None]:
    """Return the preferred date and the time that belongs to it; without one, the preferred time of the series."""
    pairs = [(as_iso_date(header.get(day)), as_iso_time(header.get(hour), hour)) for day, hour in _DATE_TIMES]
    date, time = next(((date, time) for date, time in pairs if date), (None, None))
    return date, time or next((time for _, time in pairs[:-1] if time), None)


def _phase(find: FindValue) -> str | None:
    values: Sequence[tuple[str, str]] = [
        (as_text(find(keyword, sequence)), text) for keyword, sequence, text in _PHASES
    ]
    return next((text.format(value) for value, text in values if value), None)


def _exposure_mas(find: FindValue) -> float | None:
    mas = positive(find("ExposureInmAs", "CTExposureSequence"))
    mas = mas or positive(find("Exposure", ""))
    uas = positive(find("ExposureInuAs", ""))
    return mas or (uas / 1000.0 if uas else None)
