"""Fetch series from an archive into a folder, complete or saying what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.progress import Progress, silent
from ChangeMapJointLib.io.archive.choose import Candidate, Pair, choose_pair
from ChangeMapJointLib.io.archive.entries import Archive, missing_files
from ChangeMapJointLib.io.archive.peer import Peer
from ChangeMapJointLib.io.archive.tries import RETRIES, archive_of, with_tries
from ChangeMapJointLib.io.dicom.values import as_text
from ChangeMapJointLib.io.sources import reason_of

CURRENT, PRIOR = "current", "prior"  # folders of the two series


@dataclass(frozen=True)
class Wanted:
    """What to fetch; see :func:`~ChangeMapJointLib.io.archive.choose.choose_pair`."""

    patient: str = ""
    study: str = ""
    prior_study: str = ""


@dataclass(frozen=True)
class Fetched:
    """Two series on the disk, and which they are."""

    reference: Path
    template: Path
    pair: Pair


def fetch_pair(
    peer: Peer, wanted: Wanted, folder: Path, *, retries: int = RETRIES, progress: Progress = silent
) -> Fetched:
    """Find the current scan and its prior in an archive, and fetch both.

    Args:
        peer: the archive.
        wanted: patient or study.
        folder: gets the folders ``current`` and ``prior``, and in each a folder for its series; images of an earlier,
            broken fetch are kept.
        retries: tries after the first, where the connection fails.
        progress: called with the fraction fetched.

    Raises:
        InputError: no pair is found, the connection failed for good, images are missing or of another patient, or the
            disk is full.
    """
    if not wanted.patient and not wanted.study:
        raise InputError("not given", field="patient", expected="the patient's number, or a study")
    archive = archive_of(peer)
    pair = with_tries(
        peer,
        lambda: choose_pair(archive, patient=wanted.patient, study=wanted.study, prior_study=wanted.prior_study),
        retries=retries,
    )
    paths = []
    for number, (name, one) in enumerate(((CURRENT, pair.current), (PRIOR, pair.prior))):
        path, start = folder / name / one.series.uid, 0.5 * number
        try:
            path.mkdir(parents=True, exist_ok=True)
            _fetch(archive, peer, one, path, retries, lambda f, m="", start=start: progress(start + 0.5 * f, m))
        except OSError as error:
            raise InputError(
                f"the images cannot be written ({reason_of(error)})",
                field=path,
                remedy="free space or give another folder; what was fetched is kept",
            ) from error
        path.touch()  # the newest of several is the one that was compared
        paths.append(path)
    return Fetched(paths[0], paths[1], pair)


def _fetch(archive: Archive, peer: Peer, one: Candidate, folder: Path, retries: int, progress: Progress) -> None:
    series = one.series
    instances = with_tries(peer, lambda: archive.instances(series), retries=retries)

    def left() -> list[str]:
        return missing_files(folder, instances)

    def got() -> None:
        progress(1 - len(left()) / len(instances), f"{len(instances) - len(left())} of {len(instances)} images")

    def outcome() -> str:
        return f"{len(instances) - len(left())} of {len(instances)} images of {folder.parent.name} scan were fetched"

    for _ in range(2):  # the second time where the archive said that it was done, and it was not
        if left():
            with_tries(peer, lambda: archive.fetch(series, left(), folder, got), retries=retries, outcome=outcome)
    if left():
        raise peer.error(
            f"{len(left())} of the {len(instances)} images that it lists of series {series.uid} did not come",
            remedy="give the same command again, or have the archive checked",
        )
    _check_patient(folder, instances, series.study.patient)


def _check_patient(folder: Path, instances: list[str], patient: str) -> None:
    """Refuse images of another patient than the archive said.

    Raises:
        InputError: there is one.
    """
    for uid in instances:
        path = folder / f"{uid}.dcm"
        found = as_text(dcmread(path, stop_before_pixels=True, specific_tags=["PatientID"]).get("PatientID"))
        if found != patient:
            raise InputError(
                "is of another patient than its study", field=path, remedy="have the series checked in the archive"
            )
