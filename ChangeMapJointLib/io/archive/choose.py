"""Which of an archive's series are the two scans to compare: chest CT, by a lung kernel, thin, of one patient."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from pydicom.dataset import Dataset

from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.io.archive.entries import Archive, ArchiveSeries, Study
from ChangeMapJointLib.io.dicom.values import as_numbers, as_text

FEWEST = 20  # images of a scan of the chest; scouts and dose reports have one or two
MOST_LOOKED_AT = 8  # series of a study whose headers are fetched, the largest first
CHEST = ("chest", "thora", "lung", "pulm", "lunge", "poumon", "torax", "torace", "polmon", "brust")
ELSEWHERE = ("head", "brain", "neck", "abdomen", "pelvis", "spine", "knee", "kopf", "becken", "coronary", "cardiac")
NOT_AXIAL = ("cor", "sag", "coronal", "sagittal", "mip", "vrt", "mpr", "scout", "topogram", "localizer", "dose")
LUNG_WORDS = ("lung", "pulm", "lunge", "poumon", "parenchym", "sharp")
# names of the makers' sharp kernels: GE, Siemens (B50 and up, Br/Bl/I 50 and up), Philips (L, YB, YC), Canon (FC5x)
LUNG_KERNEL = re.compile(
    r"^(lung|bone(plus)?|chst|edge|detail|[bi]l?r?(5|6|7|8)\d\w*|b[lr](5|6|7)\d\w*|l|yb|yc|yd|fc(5\d|8[0-6]))\b", re.I
)
THIN_MM = 3.0


@dataclass(frozen=True)
class Candidate:
    """A series that may be a scan to compare.

    Attributes:
        series: where it lies.
        lung_kernel: reconstructed for the lung, by kernel or description.
        thickness_mm: of its slices; infinite where unknown.
        kernel: ConvolutionKernel.
        chest: -1 if its words name another part of the body, 1 if they name the chest, else 0.
    """

    series: ArchiveSeries
    lung_kernel: bool
    thickness_mm: float
    kernel: str = ""
    chest: int = 0

    @property
    def rank(self) -> tuple[int, bool, bool, float, int]:
        """What is better is larger."""
        thin = self.thickness_mm <= THIN_MM
        return self.chest, self.lung_kernel, thin, -self.thickness_mm, self.series.count


def candidates(archive: Archive, study: Study) -> list[Candidate]:
    """Return the series of a study that may be a scan of the chest, the best first."""
    images = [series for series in archive.series(study) if series.modality == "CT"]
    many = [series for series in images if series.count == 0 or series.count >= FEWEST]
    axial = [series for series in many if not set(re.findall(r"[a-z]+", series.words)) & set(NOT_AXIAL)]
    largest = sorted(axial, key=lambda series: (_body(series.words), series.count), reverse=True)[:MOST_LOOKED_AT]
    result = []
    with TemporaryDirectory(prefix="changemap-") as folder:
        for series in largest:
            instances = archive.instances(series)
            if len(instances) < FEWEST:
                continue
            whole = replace(series, count=len(instances))
            header = archive.header(whole, instances[len(instances) // 2], Path(folder))
            result.append(candidate(whole, header))
    return sorted((one for one in result if one.chest >= 0), key=lambda one: one.rank, reverse=True)


def candidate(series: ArchiveSeries, header: Dataset) -> Candidate:
    """Return a series with what one of its headers says."""
    kernel = header.get("ConvolutionKernel")
    name = as_text(kernel[0] if isinstance(kernel, (list, tuple)) and kernel else kernel)
    more = " ".join(as_text(header.get(key)) for key in ("SeriesDescription", "BodyPartExamined", "StudyDescription"))
    words = f"{series.words} {more}".lower()
    thickness = as_numbers(header.get("SliceThickness"), 1, "SliceThickness")
    lung = bool(LUNG_KERNEL.match(name)) or any(word in words for word in LUNG_WORDS)
    thickness_mm = float("inf") if thickness is None else thickness[0]
    return Candidate(series, lung, thickness_mm, name, _body(words))


def _body(words: str) -> int:
    if any(word in words for word in CHEST):
        return 1
    return -1 if any(word in words for word in ELSEWHERE) else 0


@dataclass(frozen=True)
class Pair:
    """The two scans to compare."""

    current: Candidate
    prior: Candidate


def choose_pair(archive: Archive, *, patient: str = "", study: str = "", prior_study: str = "") -> Pair:
    """Find the current scan and its prior: same patient, the latest earlier study with a scan of the chest.

    Args:
        archive: where to look.
        patient: PatientID; the current scan is then in the latest study.
        study: StudyInstanceUID of the current scan.
        prior_study: StudyInstanceUID of the prior; the latest earlier one by default.

    Raises:
        InputError: nothing is found, a study has no date, or the archive answers with another patient.
    """
    if study:
        found = archive.studies(study=study)
        if len(found) != 1:
            raise InputError(f"{len(found)} studies", field="study", value=study, expected="one")
        if patient and found[0].patient != patient:
            raise InputError("is of another patient", field="study", value=study, remedy="check UID and patient ID")
        patient, current = found[0].patient, _best(archive, found)
    else:
        found = _of_patient(archive, patient)
        current = _best(archive, found)
    if current is None:
        raise InputError(
            f"{len(found)} CT studies, none with an axial series of the chest of {FEWEST} images or more",
            field="study" if study else "patient",
            value=study or patient,
            remedy=("give the folder of the series as ", Argument("reference")),
        )
    at = current.series.study
    if prior_study:
        earlier = [one for one in _of_patient(archive, patient) if one.uid == prior_study]
    else:
        earlier = [one for one in _of_patient(archive, patient) if one.uid != at.uid and one.when < at.when]
    prior = _best(archive, earlier, like=current) if at.date or prior_study else None
    if prior is None:
        why = f"{len(earlier)} earlier CT studies, none with a series of the chest" if at.date else "no date"
        raise InputError(why, field="study", value=at.uid, expected="an earlier chest CT of the same patient")
    return Pair(current, prior)


def _of_patient(archive: Archive, patient: str) -> list[Study]:
    """The CT studies of a patient.

    Raises:
        InputError: there is none; or the number has characters by which an archive finds several patients.
    """
    if not patient or any(sign in patient for sign in "*?\\"):
        raise InputError(field="patient", value=patient, expected="the number of one patient, without * and ?")
    return [study for study in archive.studies(patient=patient) if study.patient == patient]


def _best(archive: Archive, studies: Sequence[Study], like: Candidate | None = None) -> Candidate | None:
    """The best series of the latest study that has one; for a prior, of the current scan's kernel if there is one."""
    for study in sorted(studies, key=lambda one: one.when, reverse=True):
        found = candidates(archive, study)
        if found and like is not None:
            same = [one for one in found if one.kernel == like.kernel and one.chest == found[0].chest]
            return (same or found)[0]
        if found:
            return found[0]
    return None
