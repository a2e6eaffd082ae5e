"""What the header of a DICOM file says of each of its images, classic or multi-frame."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import Vector3
from ChangeMapJointLib.volumes.dicom_values import (
    as_integer,
    as_iso_date,
    as_number,
    as_numbers,
    as_text,
    contrast_agent,
    parsing,
    patient_key,
    without_identity,
)
from ChangeMapJointLib.volumes.sources import SourceFile
from ChangeMapJointLib.volumes.volume import Acquisition

CT_CLASSES = frozenset({CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage})
NO_CROSS_SECTION = {  # words of ImageType that mark pictures which are no CT slices in HU
    "LOCALIZER": "localizer",
    "SCOUT": "localizer",
    "SCREEN SAVE": "screen picture",
    "DOSE_INFO": "dose report",
    "PROTOCOL": "protocol page",
    "MIP": "projection",
    "MINIP": "projection",
    "PROJECTION IMAGE": "projection",
}
_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
# what may tell two stacks in one series apart: keyword, and the functional group it is in
SPLIT_KEYS = (
    ("ConvolutionKernel", "CTReconstructionSequence"),
    ("TemporalPositionIdentifier", "FrameContentSequence"),
    ("TemporalPositionIndex", "FrameContentSequence"),
    ("NominalPercentageOfCardiacPhase", "CardiacSynchronizationSequence"),
    ("TriggerTime", ""),
    ("ImageType", ""),
    ("FrameType", "CTImageFrameTypeSequence"),
    ("StackID", "FrameContentSequence"),
    ("AcquisitionNumber", "FrameContentSequence"),
    ("SliceThickness", "PixelMeasuresSequence"),
    ("KVP", "CTXRayDetailsSequence"),
    ("FilterType", ""),
    ("SeriesDescription", ""),
    ("AcquisitionTime", ""),
)
_TAGS = [
    *_GROUPS,
    *(keyword for keyword, _ in SPLIT_KEYS),
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "Modality"),
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("AcquisitionDate", "AcquisitionDateTime", "SeriesDate", "ContentDate", "StudyDate"),
    *("Manufacturer", "ContrastBolusAgent", "PatientID", "PatientName", "SpecificCharacterSet"),
]


@dataclass(frozen=True)
class Frame:
    """One image (slice) of a DICOM file.

    Attributes:
        file: where it is.
        index: number of the frame inside the file, from 0.
        frames_in_file: how many there are.
        series_uid: SeriesInstanceUID.
        sop_uid: SOPInstanceUID of the file.
        series_number: SeriesNumber, if given.
        shape: (rows, columns).
        position_mm: centre of the first pixel, LPS; None where the header does not say.
        orientation: row direction, then column direction (six numbers); None likewise.
        spacing_mm: (between columns, between rows); None likewise.
        slope: HU per stored unit; 1 where the header does not say.
        intercept: HU of stored 0; 0 where the header does not say.
        split: values of :data:`SPLIT_KEYS`, in their order.
        acquisition: what the header says of the scan.
        exclusion: why it is no CT slice, or an empty string.
    """

    file: SourceFile
    index: int
    frames_in_file: int
    series_uid: str
    sop_uid: str
    series_number: int | None
    shape: tuple[int, int]
    position_mm: Vector3 | None
    orientation: tuple[float, ...] | None
    spacing_mm: tuple[float, float] | None
    slope: float
    intercept: float
    split: tuple[str, ...]
    acquisition: Acquisition
    exclusion: str = ""


def read_frames(file: SourceFile) -> tuple[Frame, ...]:
    """The images of a file; none when it is not DICOM.

    Raises:
        InputError: a DICOM file whose header cannot be understood.
    """
    if not looks_like_dicom(file.read(132)):
        return ()
    header = read_dataset(file, _TAGS)
    with parsing(file.name):
        if "SOPClassUID" not in header and "Modality" not in header:
            return ()
        exclusion = _exclusion(header)
        return (_excluded(file, header, exclusion),) if exclusion else tuple(_frames(file, header))


def read_dataset(file: SourceFile, keywords: list[str]) -> Dataset:
    """The elements of a file that are asked for; the others are not parsed, however odd they are.

    Raises:
        InputError: when it cannot be parsed.
    """
    with parsing(file.name):
        if "PixelData" in keywords:
            return pydicom.dcmread(BytesIO(file.read()), force=True, specific_tags=list(keywords))
        with file.opener() as stream:
            return pydicom.dcmread(stream, force=True, specific_tags=list(keywords), stop_before_pixels=True)


def looks_like_dicom(start: bytes) -> bool:
    """A part-10 file whatever its preamble holds, or a bare little-endian data set."""
    if start[128:132] == b"DICM":
        return True
    group, element = start[:2], start[2:4]
    return group in (b"\x08\x00", b"\x02\x00") and element in (b"\x00\x00", b"\x01\x00", b"\x05\x00", b"\x08\x00")


def _excluded(file: SourceFile, header: Dataset, reason: str) -> Frame:
    """One entry for a whole file that holds no CT slices; whatever else is wrong with it does not matter."""
    number = None
    with suppress(Exception):
        number = as_integer(header.get("SeriesNumber"))
    identity = [as_text(header.get(keyword)) for keyword in ("PatientID", "PatientName")]
    description = without_identity(as_text(header.get("SeriesDescription")), identity) or None
    return Frame(
        file=file,
        index=0,
        frames_in_file=1,
        series_uid=as_text(header.get("SeriesInstanceUID")) or "none",
        sop_uid="",
        series_number=number,
        shape=(0, 0),
        position_mm=None,
        orientation=None,
        spacing_mm=None,
        slope=1.0,
        intercept=0.0,
        split=("",) * len(SPLIT_KEYS),
        acquisition=Acquisition(modality=as_text(header.get("Modality")) or None, series_description=description),
        exclusion=reason,
    )


def _frames(file: SourceFile, header: Dataset) -> Iterator[Frame]:
    shared = (header.get(_GROUPS[0]) or [Dataset()])[0]
    per_frame = header.get(_GROUPS[1]) or []
    count = int(header.get("NumberOfFrames") or 1)
    rows, columns = int(header.get("Rows") or 0), int(header.get("Columns") or 0)
    if count > 1 and len(per_frame) != count:
        raise InputError(f"{count} frames, but {len(per_frame)} per-frame functional groups")
    acquisition = None
    for index in range(count):
        groups = (per_frame[index] if per_frame else Dataset(), shared, header)
        split = tuple(as_text(_find(groups, *key)) for key in SPLIT_KEYS)
        acquisition = acquisition or _acquisition(header, groups)
        spacing = as_numbers(_find(groups, "PixelSpacing", "PixelMeasuresSequence"), 2, "PixelSpacing")
        position = as_numbers(_find(groups, "ImagePositionPatient", "PlanePositionSequence"), 3, "ImagePositionPatient")
        scale = _find(groups, "RescaleSlope", "PixelValueTransformationSequence")
        offset = _find(groups, "RescaleIntercept", "PixelValueTransformationSequence")
        yield Frame(
            file=file,
            index=index,
            frames_in_file=count,
            series_uid=str(header.get("SeriesInstanceUID") or "none"),
            sop_uid=str(header.get("SOPInstanceUID") or ""),
            series_number=as_integer(header.get("SeriesNumber")),
            shape=(rows, columns),
            position_mm=(position[0], position[1], position[2]) if position else None,
            orientation=as_numbers(
                _find(groups, "ImageOrientationPatient", "PlaneOrientationSequence"), 6, "ImageOrientationPatient"
            ),
            spacing_mm=(spacing[1], spacing[0]) if spacing else None,
            slope=as_number(scale, 1.0, "RescaleSlope"),
            intercept=as_number(offset, 0.0, "RescaleIntercept"),
            split=split,
            acquisition=acquisition,
            exclusion=_type_exclusion(_find(groups, "FrameType", "CTImageFrameTypeSequence")),
        )


def _exclusion(header: Dataset) -> str:
    """Why no image of the file can be a CT slice, or an empty string."""
    sop_class = header.get("SOPClassUID")
    modality = as_text(header.get("Modality"))
    if modality and modality != "CT":
        return f"modality {modality}"
    if sop_class and sop_class not in CT_CLASSES:
        return UID(str(sop_class)).name
    photometric = as_text(header.get("PhotometricInterpretation"))
    checks = (
        (not header.get("Rows") or not header.get("Columns"), "no image"),
        (int(header.get("SamplesPerPixel") or 1) != 1, f"colour image ({photometric})"),
        (photometric not in {"MONOCHROME2", ""}, f"{photometric}, expected MONOCHROME2"),
        ("ModalityLUTSequence" in header, "a modality look-up table instead of a rescale slope"),
    )
    for found, reason in checks:
        if found:
            return reason
    return _type_exclusion(header.get("ImageType"))


def _type_exclusion(image_type: Any) -> str:
    values = {value.strip().upper() for value in as_text(image_type).split("\\")}
    words = values | {word for value in values for word in value.split()}
    return next((reason for mark, reason in NO_CROSS_SECTION.items() if mark in words), "")


def _find(groups: tuple[Dataset, Dataset, Dataset], keyword: str, sequence: str) -> Any:
    """A value from the frame's own group, else the shared one, else the top level."""
    for group in groups[:2]:
        items = group.get(sequence) if sequence else None
        if items and items[0].get(keyword) is not None:
            return items[0].get(keyword)
    return groups[2].get(keyword)


def _acquisition(header: Dataset, groups: tuple[Dataset, Dataset, Dataset]) -> Acquisition:
    thickness = as_numbers(_find(groups, "SliceThickness", "PixelMeasuresSequence"), 1, "SliceThickness")
    keywords = ("AcquisitionDate", "AcquisitionDateTime", "SeriesDate", "ContentDate", "StudyDate")
    dates = (as_iso_date(header.get(keyword)) for keyword in keywords)
    identity = [as_text(header.get(keyword)) for keyword in ("PatientID", "PatientName")]
    return Acquisition(
        date=next((date for date in dates if date), None),
        modality=as_text(header.get("Modality")) or None,
        kernel=as_text(_find(groups, "ConvolutionKernel", "CTReconstructionSequence")) or None,
        slice_thickness_mm=thickness[0] if thickness else None,
        contrast=contrast_agent(without_identity(as_text(header.get("ContrastBolusAgent")), identity)),
        manufacturer=as_text(header.get("Manufacturer")) or None,
        series_description=without_identity(as_text(header.get("SeriesDescription")), identity) or None,
        patient_key=patient_key(*identity),
    )
