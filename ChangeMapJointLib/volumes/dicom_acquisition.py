"""How and when a DICOM image was made, and where in the header that stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydicom.dataset import Dataset

from ChangeMapJointLib.volumes.dicom_values import (
    as_iso_date,
    as_iso_time,
    as_numbers,
    as_text,
    contrast_agent,
    patient_key,
    positive,
    without_identity,
)
from ChangeMapJointLib.volumes.volume import Acquisition

Groups = tuple[Dataset, Dataset, Dataset]  # of one frame: its own functional group, the shared one, the top level
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


def find(groups: Groups, keyword: str, sequence: str) -> Any:
    """A value from the frame's own group, else the shared one, else the top level."""
    for group in groups[:2]:
        items = group.get(sequence) if sequence else None
        if items and items[0].get(keyword) is not None:
            return items[0].get(keyword)
    return groups[2].get(keyword)


def acquisition_of(header: Dataset, groups: Groups) -> Acquisition:
    """What the header says of the scan that the frame is of.

    Raises:
        InputError: a slice thickness that is no number.
    """
    thickness = as_numbers(find(groups, "SliceThickness", "PixelMeasuresSequence"), 1, "SliceThickness")
    identity = [as_text(header.get(keyword)) for keyword in ("PatientID", "PatientName")]
    date, time = _moment(header)
    return Acquisition(
        date=date,
        modality=as_text(header.get("Modality")) or None,
        kernel=as_text(find(groups, "ConvolutionKernel", "CTReconstructionSequence")) or None,
        slice_thickness_mm=thickness[0] if thickness else None,
        contrast=contrast_agent(without_identity(as_text(header.get("ContrastBolusAgent")), identity)),
        manufacturer=as_text(header.get("Manufacturer")) or None,
        series_description=without_identity(as_text(header.get("SeriesDescription")), identity) or None,
        patient_key=patient_key(*identity),
        time=time,
        phase=_phase(groups),
        kvp=positive(find(groups, "KVP", "CTXRayDetailsSequence")),
        exposure_mas=_exposure_mas(groups),
        ctdi_vol_mgy=positive(find(groups, "CTDIvol", "CTExposureSequence")),
    )


def _moment(header: Dataset) -> tuple[str | None, str | None]:
    """The best date, and the time that belongs to it; where it has none, the best time of the series."""
    found = [(as_iso_date(header.get(day)), as_iso_time(header.get(hour), hour)) for day, hour in _MOMENTS]
    date, time = next(((date, time) for date, time in found if date), (None, None))
    return date, time or next((time for _, time in found[:-1] if time), None)


def _phase(groups: Groups) -> str | None:
    values: Sequence[tuple[str, str]] = [
        (as_text(find(groups, keyword, sequence)), text) for keyword, sequence, text in _PHASES
    ]
    return next((text.format(value) for value, text in values if value), None)


def _exposure_mas(groups: Groups) -> float | None:
    millis = positive(find(groups, "ExposureInmAs", "CTExposureSequence"))
    millis = millis or positive(groups[2].get("Exposure"))
    micros = positive(groups[2].get("ExposureInuAs"))
    return millis or (micros / 1000.0 if micros else None)
