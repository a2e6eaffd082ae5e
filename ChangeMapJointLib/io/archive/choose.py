"""Which of an archive's series are the two scans to compare: chest CT, by a lung kernel, thin, of one patient."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from pydicom.dataset import Dataset

from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.io.archive.entries import Archive, ArchiveSeries, Study
from ChangeMapJointLib.io.dicom.acquisition import FunctionalGroups, acquisition_of
from ChangeMapJointLib.io.dicom.headers import exclusion_of
from ChangeMapJointLib.io.dicom.values import as_integer, as_numbers, as_text

FEWEST = 20  # images of a scan of the chest; scouts and dose reports have one or two
MOST_LOOKED_AT = 8  # series of a study whose headers are fetched, the largest first
CHEST = ("chest", "thora", "lung", "pulm", "poumon", "torax", "torace", "polmon", "brust")
ELSEWHERE = (
    *("head", "brain", "skull", "neck", "abdom", "liver", "pelvis", "spine", "knee", "coronary", "cardiac"),
    *("kopf", "hals", "leber", "becken"),
)
# words of a series' own description; "dose" is not among them: a low dose is what most scans of lungs have
NOT_AXIAL = ("cor", "sag", "coronal", "sagittal", "mip", "minip", "vrt", "mpr", "scout", "topogram", "localizer")
LUNG_WORDS = ("lung", "pulm", "poumon", "parenchym", "sharp")
# names of the makers' sharp kernels: GE, Siemens (B50 and up, Br/Bl/I 50 and up), Philips (L, YB, YC), Canon (FC5x)
LUNG_KERNEL = re.compile(
    r"^(lung|bone(plus)?|chst|edge|detail|[biq]l?r?(5|6|7|8)\d\w*|b[lr](5|6|7)\d\w*|l|yb|yc|yd|fc(5\d|8[0-6]))\b", re.I
)
# and of their soft ones, which a description of the whole examination ("lung screening") does not make sharp
SOFT_KERNEL = re.compile(
    r"^(standard|std|soft|smooth|[bi][a-z]{0,2}[1-4]\d\w*|[qu][a-z][1-4]\d\w*|[abc]|fc[01]\d)\b", re.I
)
THIN_MM = 3.0
AXIAL = 0.8  # of the slices' normal along the body; a gantry is tilted by 30 degrees at most


@dataclass(frozen=True)
class Candidate:
    """A series that may be a scan to compare.

    Attributes:
        series: where it lies.
        lung_kernel: reconstructed for the lung, by kernel or description.
        thickness_mm: of its slices; infinite where unknown.
        kernel: ConvolutionKernel.
        chest: -1 if its words name another part of the body, 1 if they name the chest, else 0.
        contrast: with a contrast agent, as far as the header is clear.
    """

    series: ArchiveSeries
    lung_kernel: bool
    thickness_mm: float
    kernel: str = ""
    chest: int = 0
    contrast: bool = False

    @property
    def rank(self) -> tuple[int, bool, bool, bool, float, int]:
        """What is better is larger."""
        thin = self.thickness_mm <= THIN_MM
        return self.chest, self.lung_kernel, thin, not self.contrast, -self.thickness_mm, self.series.count


def candidates(archive: Archive, study: Study) -> list[Candidate]:
    """Return the series of a study that may be a scan of the chest, the best first."""
    images = [series for series in archive.series(study) if series.modality == "CT"]
    axial = [one for one in images if not set(re.findall(r"[a-z]+", one.description)) & set(NOT_AXIAL)]
    here = [_counted(archive, one) for one in axial if _body(one) >= 0]
    largest = sorted(here, key=lambda one: (_body(one), one.count), reverse=True)
    many = [one for one in largest if one.count >= FEWEST][:MOST_LOOKED_AT]
    packed = [one for one in largest if 0 < one.count < FEWEST and archive.frames(one) >= FEWEST][:MOST_LOOKED_AT]
    result = []
    with TemporaryDirectory(prefix="changemap-") as folder:
        for series in (*many, *packed):
            instances = archive.instances(series)
            if len(instances) < (1 if series in packed else FEWEST):
                continue
            whole = replace(series, count=len(instances))
            header = archive.header(whole, instances[len(instances) // 2], Path(folder))
            with suppress(InputError):  # another series may have a header that can be read
                found = candidate(whole, header)
                if found is not None and found.chest >= 0:
                    result.append(found)
    return sorted(result, key=lambda one: one.rank, reverse=True)


def _counted(archive: Archive, series: ArchiveSeries) -> ArchiveSeries:
    """The series with the number of its images; an archive need not tell it in its list of series."""
    return series if series.count else replace(series, count=len(archive.instances(series)))


def candidate(series: ArchiveSeries, header: Dataset) -> Candidate | None:
    """Return a series with what one of its headers says; None if its images are no axial CT slices in HU.

    Args:
        series: as the archive lists it, with the number of its files.
        header: of one of its files.
    """
    shared = header.get("SharedFunctionalGroupsSequence")
    own = header.get("PerFrameFunctionalGroupsSequence")
    groups = FunctionalGroups(header, shared[0] if shared else None).of_frame(own[0] if own else None)
    orientation = as_numbers(
        groups.find("ImageOrientationPatient", "PlaneOrientationSequence"), 6, "ImageOrientationPatient"
    )
    frames = (as_integer(header.get("NumberOfFrames")) or 1) * series.count
    if exclusion_of(header) or frames < FEWEST:
        return None
    if orientation is not None and abs(np.cross(orientation[:3], orientation[3:])[2]) < AXIAL:
        return None
    acquisition = acquisition_of(groups)
    description, part = (as_text(header.get(key)).lower() for key in ("SeriesDescription", "BodyPartExamined"))
    named = replace(series, description=description or series.description, part=part or series.part)
    if not named.protocol:
        named = replace(named, protocol=as_text(header.get("StudyDescription")).lower())
    kernel, thickness_mm = (acquisition.kernel or "").partition("\\")[0], acquisition.slice_thickness_mm
    lung = any(word in f"{named.description} {named.protocol}" for word in LUNG_WORDS)
    return Candidate(
        named,
        bool(LUNG_KERNEL.match(kernel)) or (lung and not SOFT_KERNEL.match(kernel)),
        float("inf") if thickness_mm is None else thickness_mm,
        kernel,
        _body(named),
        bool(acquisition.contrast),
    )


def _body(series: ArchiveSeries) -> int:
    """1 where a series is said to be of the chest, -1 where of another part alone; its own description counts first."""
    part, protocol = _part(series.part), _part(series.protocol)
    if part == -1 and protocol == 1:  # a scan of several parts, of which scanners state one
        part = 0
    return _part(series.description) or part or protocol


def _part(words: str) -> int:
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
        earlier = [one for one in _of_patient(archive, patient) if one.date and one.when < at.when]
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
    """The best series of the latest study that has one; for a prior, of the current scan's kernel if there is one.

    Studies without a date come last.
    """
    for study in sorted(studies, key=lambda one: (bool(one.date), one.when), reverse=True):
        found = candidates(archive, study)
        if found and like is not None:
            same = [one for one in found if one.kernel == like.kernel and one.chest == found[0].chest]
            return max(same, key=lambda one: one.contrast == like.contrast, default=found[0])  # the first of equals
        if found:
            return found[0]
    return None
