"""Reads the header of a DICOM file, single-frame or multi-frame, into one entry per image."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ImplicitVRLittleEndian,
    LegacyConvertedEnhancedCTImageStorage,
)

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import Vector3
from ChangeMapJointLib.io.dicom import acquisition
from ChangeMapJointLib.io.dicom.acquisition import FrameGroups, FunctionalGroups, acquisition_of
from ChangeMapJointLib.io.dicom.positions import VECTOR_TAGS, positions_without_groups
from ChangeMapJointLib.io.dicom.recognise import HEADER_BYTES, looks_like_dicom
from ChangeMapJointLib.io.dicom.values import (
    as_finite,
    as_integer,
    as_number,
    as_numbers,
    as_text,
    parsing,
    without_identity,
)
from ChangeMapJointLib.io.sources import SourceFile
from ChangeMapJointLib.scan.volume import Acquisition

CT_CLASSES = frozenset({CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage})
NO_CROSS_SECTION = {  # words of ImageType that mark images other than CT slices in HU
    "LOCALIZER": "localizer",
    "SCOUT": "localizer",
    "SCREEN SAVE": "screen picture",
    "DOSE_INFO": "dose report",
    "PROTOCOL": "protocol page",
    "MIP": "projection",
    "MINIP": "projection",
    "PROJECTION IMAGE": "projection",
}
HU_TYPES = ("", "HU", "HU_MOD", "US")  # values of RescaleType; US means unspecified, as in old CTs
OTHER_TYPES = {"Z_EFF": "effective atomic number", "ED": "electron density", "EDW": "electron density", "MGML": "mg/ml"}
CHUNK_BYTES = 2**20
MAX_PIXELS = 2**26  # of one image, 8192 x 8192; no CT has that many
MAX_INFLATED = 100  # times the size of a deflated file
MIN_INFLATED_BYTES = 64 * 2**20  # always allowed
_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
# elements that may distinguish two stacks in one series: keyword, and its functional group
SPLIT_KEYS = (
    ("StudyDate", ""),
    ("SeriesNumber", ""),
    ("ConvolutionKernel", "CTReconstructionSequence"),
    ("TemporalPositionIdentifier", "FrameContentSequence"),
    ("TemporalPositionIndex", "FrameContentSequence"),
    ("NominalPercentageOfCardiacPhase", "CardiacSynchronizationSequence"),
    ("NominalPercentageOfRespiratoryPhase", "RespiratorySynchronizationSequence"),
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
    ("AcquisitionDateTime", ""),
    ("FrameAcquisitionDateTime", "FrameContentSequence"),
)
_TAGS = [
    *_GROUPS,
    *(keyword for keyword, _ in SPLIT_KEYS),
    *acquisition.TAGS,
    *VECTOR_TAGS,
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "InstanceNumber"),
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "FrameOfReferenceUID", "GantryDetectorTilt"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence"),
]


@dataclass(frozen=True)
class Frame:
    """One image (slice) of a DICOM file.

    Attributes:
        file: the file.
        index: number of the frame in the file, from 0.
        frames_in_file: number of frames in the file.
        series_uid: SeriesInstanceUID.
        sop_uid: SOPInstanceUID of the file.
        series_number: SeriesNumber, if given.
        shape: (rows, columns).
        position_mm: centre of the first pixel, LPS; None if missing.
        orientation: row direction, then column direction (six numbers); None if missing.
        spacing_mm: (between columns, between rows); None if missing.
        slope: HU per stored unit; 1 if missing.
        intercept: HU of a stored 0; 0 if missing.
        split: values of :data:`SPLIT_KEYS`, in the same order.
        acquisition: how the scan was made.
        exclusion: why it is not a CT slice, or an empty string.
        problem: why a CT slice cannot be read, or an empty string; the entry then stands for the whole file.
        instance: InstanceNumber, if given.
        image_bytes: size of its pixels without compression.
        compressed: whether the pixels are compressed in the file.
        frame_of_reference: FrameOfReferenceUID, or an empty string.
        tilt_degrees: GantryDetectorTilt; 0 if missing.
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
    problem: str = ""
    instance: int | None = None
    image_bytes: int = 0
    compressed: bool = False
    frame_of_reference: str = ""
    tilt_degrees: float = 0.0


def read_frames(file: SourceFile) -> tuple[Frame, ...]:
    """Read the images of a file from its header; none if it is not DICOM.

    Raises:
        InputError: the header of a DICOM file cannot be parsed.
    """
    start = file.read(HEADER_BYTES)
    if not looks_like_dicom(start):
        return ()
    check_inflated(file, start)
    header = read_dataset(file, _TAGS)
    with parsing(file.name):
        if "SOPClassUID" not in header and "Modality" not in header:
            return ()
        exclusion = exclusion_of(header)
        if exclusion:
            return (_no_frame(file, header, exclusion=exclusion),)
        problem = _problem(file, header)
        if not problem:
            try:
                with parsing(file.name):
                    return tuple(_frames(file, header))
            except InputError as error:  # other series in the folder can still be read
                problem = str(error)
        return (_no_frame(file, header, problem=problem),)


def read_dataset(file: SourceFile, keywords: list[str]) -> Dataset:
    """Read only the given elements of a file; the others are not parsed, since they may be damaged.

    Raises:
        InputError: the file cannot be parsed.
    """
    with parsing(file.name):
        pixels = "PixelData" in keywords
        if pixels:
            file.check_size()
        with BytesIO(file.read()) if pixels and file.packed else file.opener() as stream:
            return pydicom.dcmread(stream, force=True, specific_tags=list(keywords), stop_before_pixels=not pixels)


def check_inflated(file: SourceFile, start: bytes) -> None:
    """Check that a deflated data set does not unpack to an excessive size.

    Args:
        file: the file to be read next.
        start: its first :data:`HEADER_BYTES` bytes.

    Raises:
        InputError: the size is excessive, or the file is damaged.
    """
    if DeflatedExplicitVRLittleEndian.encode() not in start or start[128:132] != b"DICM":
        return
    length = int.from_bytes(start[140:144], "little")  # of the group before the deflated part
    inflate, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    limit = max(MIN_INFLATED_BYTES, MAX_INFLATED * file.size)
    with parsing(file.name), file.opener() as stream:
        stream.read(144 + length)
        while part := inflate.unconsumed_tail or stream.read(CHUNK_BYTES):
            size += len(inflate.decompress(part, CHUNK_BYTES))
            if size > limit:
                raise InputError(
                    f"{file.size} bytes unpack to more than {limit}",
                    field=Path(file.name),
                    remedy="export the series again",
                )
            if inflate.eof:
                return


def _no_frame(file: SourceFile, header: Dataset, *, exclusion: str = "", problem: str = "") -> Frame:
    """Make one entry for a whole file that holds no CT slices or cannot be read; further faults are ignored."""
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
        exclusion=exclusion,
        problem=problem,
    )


def _problem(file: SourceFile, header: Dataset) -> str:
    """Return why the images of a CT file cannot be read, or an empty string; checked before anything is allocated."""
    count, rows, columns = (int(header.get(keyword) or 1) for keyword in ("NumberOfFrames", "Rows", "Columns"))
    groups = len(header.get(_GROUPS[1]) or [])
    if count < 1:
        return f"{file.name}: NumberOfFrames is {count}, expected at least 1; export the series again"
    size = count * _image_bytes(header)
    if not _is_compressed(header) and size > file.size:
        return (
            f"{file.name}: pixel data cannot be decoded ({count} image(s) of {rows} x {columns} pixels are {size} "
            f"bytes, but the whole file has {file.size}); copy or export the series again"
        )
    if rows * columns > MAX_PIXELS:
        return f"{file.name}: images of {rows} x {columns} pixels, expected at most {MAX_PIXELS}; give a CT series"
    if count > 1 and groups and groups != count:
        return f"{file.name}: {count} frames, but {groups} per-frame functional groups; export the series again"
    if count > 1 and not groups and positions_without_groups(header, count) is None:
        return (
            f"{file.name}: {count} frames without a position for each (neither functional groups nor a vector of slice "
            "positions); export the series as single CT images or as Enhanced CT"
        )
    return ""


def _image_bytes(header: Dataset) -> int:
    bits = int(header.get("BitsAllocated") or 16)
    return int(header.get("Rows") or 0) * int(header.get("Columns") or 0) * bits // 8


def _is_compressed(header: Dataset) -> bool:
    syntax = UID(str(getattr(header.file_meta, "TransferSyntaxUID", ImplicitVRLittleEndian)))
    return not syntax.is_private and syntax.is_transfer_syntax and (syntax.is_compressed or syntax.is_deflated)


def _frames(file: SourceFile, header: Dataset) -> Iterator[Frame]:
    common = FunctionalGroups(header, (header.get(_GROUPS[0]) or [None])[0])
    per_frame = header.get(_GROUPS[1]) or []
    count = int(header.get("NumberOfFrames") or 1)
    rows, columns = int(header.get("Rows") or 0), int(header.get("Columns") or 0)
    positions = None if per_frame or count == 1 else positions_without_groups(header, count)
    acquisitions: dict[tuple[str, ...], Acquisition] = {}  # one for each stack in the file
    for index in range(count):
        groups = common.of_frame(per_frame[index] if per_frame else None)
        find = groups.find
        split = tuple(as_text(find(*key)) for key in SPLIT_KEYS)
        if split not in acquisitions:
            acquisitions[split] = acquisition_of(groups)
        spacing = as_numbers(find("PixelSpacing", "PixelMeasuresSequence"), 2, "PixelSpacing")
        value = find("ImagePositionPatient", "PlanePositionSequence") if positions is None else positions[index]
        position = as_numbers(value, 3, "ImagePositionPatient")
        slope, intercept = (
            find(keyword, "PixelValueTransformationSequence") for keyword in ("RescaleSlope", "RescaleIntercept")
        )
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
                find("ImageOrientationPatient", "PlaneOrientationSequence"), 6, "ImageOrientationPatient"
            ),
            spacing_mm=(spacing[1], spacing[0]) if spacing else None,
            slope=_slope(slope),
            intercept=as_number(intercept, 0.0, "RescaleIntercept"),
            split=split,
            acquisition=acquisitions[split],
            exclusion=_type_exclusion(find("FrameType", "CTImageFrameTypeSequence")) or _unit_exclusion(groups),
            instance=as_integer(header.get("InstanceNumber")),
            image_bytes=_image_bytes(header),
            compressed=_is_compressed(header),
            frame_of_reference=as_text(header.get("FrameOfReferenceUID")),
            tilt_degrees=as_finite(header.get("GantryDetectorTilt")) or 0.0,
        )


def _slope(value: Any) -> float:
    slope = as_number(value, 1.0, "RescaleSlope")
    if slope == 0.0:
        raise InputError("RescaleSlope is 0, which makes all pixels equal", remedy="export the series again")
    return slope


def exclusion_of(header: Dataset) -> str:
    """Return why no image of the file can be a CT slice, or an empty string."""
    sop_class = UID(as_text(header.get("SOPClassUID")))
    modality = as_text(header.get("Modality")).upper()
    if modality and modality != "CT":
        return f"modality {modality}"
    if sop_class and sop_class not in CT_CLASSES:
        kind = f"private SOP class {sop_class}" if sop_class.is_private else sop_class.name
        return f"{kind}, expected CT images from the scanner"
    photometric = as_text(header.get("PhotometricInterpretation"))
    checks = (
        (not header.get("Rows") or not header.get("Columns"), "no image"),
        (int(header.get("SamplesPerPixel") or 1) != 1, f"colour image ({photometric})"),
        (
            photometric == "MONOCHROME1",
            "MONOCHROME1, expected MONOCHROME2: such images are inverted for display, and their values may not be HU; "
            "export the original series",
        ),
        (photometric not in {"MONOCHROME2", ""}, f"{photometric}, expected MONOCHROME2"),
        ("ModalityLUTSequence" in header, "a modality look-up table instead of a rescale slope"),
    )
    for excluded, reason in checks:
        if excluded:
            return reason
    return _type_exclusion(header.get("ImageType")) or (
        ""
        if header.get(_GROUPS[0]) or header.get(_GROUPS[1])
        else _unit_exclusion(FunctionalGroups(header).of_frame(None))
    )


def _unit_exclusion(groups: FrameGroups) -> str:
    """Return why the values of an image are not HU by its header (maps of dual-energy CT), or an empty string."""
    kind = as_text(groups.find("RescaleType", "PixelValueTransformationSequence")).upper()
    if kind in HU_TYPES:
        return ""
    return f"RescaleType {kind}{f' ({OTHER_TYPES[kind]})' if kind in OTHER_TYPES else ''}, expected HU"


def _type_exclusion(image_type: Any) -> str:
    values = {value.strip().upper() for value in as_text(image_type).split("\\")}
    words = values | {word for value in values for word in value.split()}
    return next((reason for mark, reason in NO_CROSS_SECTION.items() if mark in words), "")
