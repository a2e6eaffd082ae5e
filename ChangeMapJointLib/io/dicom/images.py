"""The images that a scan was read from, as objects that refer to them need them: UIDs, geometry, patient and study.

Only the elements listed here are ever read from the headers. Free text, institutions, physicians and private elements
are not among them, so that nothing made from these datasets can hold any.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray, Grid, Vector3
from ChangeMapJointLib.core.progress import Progress, silent
from ChangeMapJointLib.io.dicom.headers import Frame, read_dataset
from ChangeMapJointLib.io.dicom.series import open_stack
from ChangeMapJointLib.io.dicom.values import as_numbers, as_text, parsing

PATIENT = ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex")
STUDY = ("StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "AccessionNumber")
OPTIONAL = ("IssuerOfPatientID",)
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
IMAGE = (
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality", "InstanceNumber"),
    *("ImageType", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
)
GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
GEOMETRY = ("PixelMeasuresSequence", "PlanePositionSequence", "PlaneOrientationSequence")
MEASURES = ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices", "ImagePositionPatient", "ImageOrientationPatient")


@dataclass(frozen=True)
class SourceImages:
    """The images of one scan.

    Attributes:
        images: one dataset per file, in the order of the slices, with no element but those of :data:`PATIENT`,
            :data:`STUDY`, :data:`IMAGE` and the geometry of frames.
        slices: (number in ``images``, frame number from 1) of each slice, in the order of z.
        positions_vox: slice number on ``grid`` of each slice, not always whole where slices are uneven.
        grid: the grid of the stack, wider than a slice if a gantry tilt was corrected.
    """

    images: tuple[Dataset, ...]
    slices: tuple[tuple[int, int], ...]
    positions_vox: tuple[float, ...]
    grid: Grid

    @property
    def first(self) -> Dataset:
        """The first image: patient, study and series of all."""
        return self.images[0]

    @property
    def series_uid(self) -> str:
        """SeriesInstanceUID of the first image; :meth:`by_series` has all, where several were taken for one."""
        return str(self.first.SeriesInstanceUID)

    @property
    def frame_of_reference(self) -> str:
        """FrameOfReferenceUID."""
        return str(self.first.FrameOfReferenceUID)

    def by_series(self) -> dict[tuple[str, str], list[Dataset]]:
        """Return the images by StudyInstanceUID and SeriesInstanceUID, in the order of the slices."""
        result: dict[tuple[str, str], list[Dataset]] = {}
        for image in self.images:
            result.setdefault((str(image.StudyInstanceUID), str(image.SeriesInstanceUID)), []).append(image)
        return result

    def nearest(self, point_mm: tuple[float, float, float]) -> tuple[Dataset, int]:
        """Return the image whose slice is nearest to a point (x, y, z in mm, LPS), and the frame number from 1."""
        z = float(self.grid.to_index(point_mm)[2])
        index = min(range(len(self.slices)), key=lambda i: abs(self.positions_vox[i] - z))
        number, frame = self.slices[index]
        return self.images[number], frame


@dataclass(frozen=True)
class SlicePlane:
    """Where a slice lies.

    Attributes:
        origin_mm: centre of the first pixel, (x, y, z), LPS.
        axes: unit vectors along a row and down a column, ``[2, 3]``.
        spacing_mm: from column to column, and from row to row.
    """

    origin_mm: FloatArray
    axes: FloatArray
    spacing_mm: tuple[float, float]

    def to_pixel(self, point_mm: Vector3) -> tuple[float, float]:
        """Return column and row, from 0 at the centre of the first pixel, of a point's nearest place on the slice."""
        column, row = self.axes @ (np.asarray(point_mm) - self.origin_mm) / np.asarray(self.spacing_mm)
        return float(column), float(row)


def plane_of(image: Dataset, frame: int) -> SlicePlane | None:
    """Return where a slice lies: an image, or a frame (from 1) of one; None where its header does not say."""
    sources = [image]
    for groups, number in ((image.get(GROUPS[0]), 0), (image.get(GROUPS[1]), frame - 1)):
        if groups and number < len(groups):
            sources += [groups[number][name].value[0] for name in GEOMETRY if name in groups[number]]
    values = []
    for keyword, count in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2)):
        known = [source.get(keyword) for source in sources if source.get(keyword)]
        numbers = as_numbers(known[-1], count, keyword) if known else None
        if numbers is None:
            return None
        values.append(np.array(numbers))
    origin, axes, spacing = values
    return SlicePlane(origin, axes.reshape(2, 3), (float(spacing[1]), float(spacing[0])))


def read_source_images(path: Path, selector: str | None = None, *, progress: Progress = silent) -> SourceImages:
    """Read the headers of the series that :func:`~ChangeMapJointLib.io.dicom.series.read_dicom` reads.

    Args:
        path: the source.
        selector: label or SeriesInstanceUID; needed if there are several CT series.
        progress: called with the fraction done.

    Raises:
        InputError: there is no CT series, several and no selector, or a header without the UIDs that references need.
    """
    with open_stack(path, selector, progress=lambda f, m="": progress(0.5 * f, m)) as (_, stack, _):
        files: dict[str, int] = {}
        images: list[Dataset] = []
        slices = []
        for count, frame in enumerate(stack.frames, 1):
            if frame.file.name not in files:
                files[frame.file.name] = len(images)
                images.append(_image(frame))
            slices.append((files[frame.file.name], frame.index + 1))
            progress(0.5 + 0.5 * count / len(stack.frames), "reading headers")
    positions = stack.grid_positions or tuple(float(z) for z in range(len(slices)))
    return SourceImages(tuple(images), tuple(slices), positions, stack.grid)


def _image(frame: Frame) -> Dataset:
    header = read_dataset(frame.file, [*PATIENT, *STUDY, *IMAGE, *GROUPS, "SpecificCharacterSet"])
    with parsing(frame.file.name):
        image = Dataset()
        for keyword in (*PATIENT, *STUDY, *IMAGE):
            if keyword in header:
                image[keyword] = header[keyword]
        _recode(image)
        for keyword in (*PATIENT, *STUDY):
            if keyword not in image and keyword not in (*UIDS, *OPTIONAL):
                setattr(image, keyword, "")  # must be there, if only empty; some archives leave them out
        for keyword in GROUPS:
            if keyword in header:
                setattr(image, keyword, [_geometry(item) for item in header[keyword].value])
        for keyword in UIDS:
            value = as_text(image.get(keyword))
            if not value or not UID(value).is_valid:
                found = f"{keyword} is '{value[:64]}'" if value else f"has no {keyword}"
                raise InputError(
                    found, expected="a UID, since DICOM objects refer to it", remedy="export the series again"
                )
    return image


def _recode(image: Dataset) -> None:
    """Let whatever letters there are be written as UTF-8.

    Headers state many other ways of coding, several at once in Japan and Korea, wrongly or not at all elsewhere, and
    writers of objects do not know them all.
    """
    texts = {keyword: str(image[keyword].value or "") for keyword in (*PATIENT, *STUDY) if keyword in image}
    if all(text.isascii() for text in texts.values()):
        return
    for keyword, text in texts.items():
        if not text.isascii():
            setattr(image, keyword, text)  # else a name keeps its bytes as they were
    image.SpecificCharacterSet = "ISO_IR 192"


def _geometry(groups: Dataset) -> Dataset:
    """Keep the geometry of functional groups."""
    result = Dataset()
    for keyword in GEOMETRY:
        if groups.get(keyword):
            item, kept = groups[keyword].value[0], Dataset()
            for name in MEASURES:
                if name in item:
                    kept[name] = item[name]
            setattr(result, keyword, [kept])
    return result
