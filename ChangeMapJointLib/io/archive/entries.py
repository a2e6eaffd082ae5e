"""What an archive answers: studies and series, and what every kind of archive can do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

from ChangeMapJointLib.io.dicom.values import as_integer, as_text

MULTI_FRAME = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
WHOLE = 1000  # images
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


@dataclass(frozen=True)
class Study:
    """A study: its UID, the patient's ID, and date and time as in DICOM, YYYYMMDD and HHMMSS; empty where unknown."""

    uid: str
    patient: str
    date: str
    time: str

    @property
    def when(self) -> str:
        """What sorts studies by time."""
        return self.date + self.time[:6].ljust(6, "0")


@dataclass(frozen=True)
class ArchiveSeries:
    """A series of a study.

    Attributes:
        study: its study.
        uid: SeriesInstanceUID.
        modality: ``CT``, ...
        count: number of images, 0 where the archive does not say.
        description: SeriesDescription, in small letters.
        part: BodyPartExamined, likewise.
        protocol: ProtocolName and StudyDescription, likewise; they often are of the whole study.
    """

    study: Study
    uid: str
    modality: str
    count: int
    description: str
    part: str = ""
    protocol: str = ""


Sent = Callable[[Path, str], None]  # called for each file with "" or with why it was refused


class Archive(Protocol):
    """What an archive can do. All methods raise :class:`ConnectionLost` where another try may help."""

    def studies(self, *, patient: str = "", study: str = "") -> list[Study]:
        """Find studies with CT of a patient, or one study."""

    def series(self, study: Study) -> list[ArchiveSeries]:
        """List the series of a study."""

    def instances(self, series: ArchiveSeries) -> list[str]:
        """List the SOPInstanceUIDs of a series."""

    def frames(self, series: ArchiveSeries) -> int:
        """Count the images of a series' multi-frame CT files; 0 where it has none, or the archive does not say."""

    def header(self, series: ArchiveSeries, instance: str, folder: Path) -> Dataset:
        """Read the header of one image; ``folder`` may be used for a file."""

    def fetch(self, series: ArchiveSeries, instances: Sequence[str], folder: Path, got: Callable[[], None]) -> None:
        """Write images as ``UID.dcm`` into ``folder``, each at once; ``got`` is called after each."""

    def store(self, files: Sequence[Path], sent: Sent) -> None:
        """Send files, and yield what became of each as soon as that is known."""


def checked_uid(uid: object) -> str:
    """Return a UID that can be a file name.

    Raises:
        ValueError: it holds anything but numbers and points.
    """
    text = str(uid).strip()
    if not _UID.fullmatch(text) or len(text) > 64:
        raise ValueError(f"the archive answered with the UID {text[:70]!r}, which is not a UID")
    return text


def study_of(answer: Dataset) -> Study:
    """The study of an answer to a query."""
    patient, date, time = (as_text(answer.get(name)) for name in ("PatientID", "StudyDate", "StudyTime"))
    return Study(checked_uid(answer.StudyInstanceUID), patient, date.replace(".", ""), time)


def series_of(answer: Dataset, study: Study) -> ArchiveSeries:
    """The series of an answer to a query."""
    description, part, protocol, whole = (
        as_text(answer.get(key)).lower()
        for key in ("SeriesDescription", "BodyPartExamined", "ProtocolName", "StudyDescription")
    )
    count = as_text(answer.get("NumberOfSeriesRelatedInstances"))
    number = int(count) if count.isdecimal() else 0
    uid, modality = checked_uid(answer.SeriesInstanceUID), as_text(answer.get("Modality"))
    return ArchiveSeries(study, uid, modality, number, description, part, f"{protocol} {whole}".strip())


def count_frames(answers: Iterable[Dataset]) -> int:
    """Return the number of images in the multi-frame CT files among answers to a query for instances.

    Where an archive does not count the images of such a file, it is taken for a whole scan: its header will tell.
    """
    found = [answer for answer in answers if as_text(answer.get("SOPClassUID")) in MULTI_FRAME]
    return sum(as_integer(answer.get("NumberOfFrames")) or WHOLE for answer in found)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file at once: a fetch that ends half-way leaves no half images."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def missing_files(folder: Path, instances: Iterable[str]) -> list[str]:
    """The images that are not yet in ``folder``."""
    return [uid for uid in instances if not (folder / f"{uid}.dcm").is_file()]
