"""Several scans of a patient: each follow-up against its prior and the baseline, and every lesion through all of them.

The comparisons are a cohort of their own, in the folder ``comparisons``; what :func:`~.run.run_cohort` promises of one
holds for them: they are resumed, repeated where a worker died, and one that fails stops no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ChangeMapJointLib.change.tracks import SeriesLink, Track, track_lesions
from ChangeMapJointLib.cohort.place import PairPlace
from ChangeMapJointLib.cohort.run import CohortListener, CohortRequest, CohortResult, run_cohort
from ChangeMapJointLib.cohort.series_list import Series, SeriesScan, comparisons_of, name_of, pairs_of
from ChangeMapJointLib.comparison.load import SavedResult, load_result
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.io import run_files
from ChangeMapJointLib.io.read import read_array, read_volume
from ChangeMapJointLib.lesions.course import CoursePoint
from ChangeMapJointLib.scan.lungs import Lungs
from ChangeMapJointLib.scan.scan import Scan

COMPARISONS = "comparisons"
LESIONS, SUMS, DOCUMENT, PAGE = OUTPUTS = ("lesions.csv", "sums.csv", "series.json", "series.html")


@dataclass(frozen=True)
class SeriesComparison:
    """One comparison of a series, as its run says.

    Attributes:
        name: ``LATER-EARLIER``, numbers of the scans from 1.
        verdict: on the registration; empty where there is no result.
        findings: number of them; None where none can be listed.
        reasons: of the gate and of the verdict, a sentence each.
        report: the report, from the folder of the series on; empty where there is none.
    """

    name: str
    verdict: str = ""
    findings: int | None = None
    reasons: tuple[str, ...] = ()
    report: str = ""


@dataclass(frozen=True)
class PatientSeries:
    """What was found in the scans of one patient.

    Attributes:
        patient: name.
        scans: in the order of time.
        tracks: the lesions, the largest first.
        notes: what is missing, one sentence each.
        comparisons: in the order in which they were made.
    """

    patient: str
    scans: tuple[SeriesScan, ...]
    tracks: tuple[Track, ...]
    notes: tuple[str, ...] = ()
    comparisons: tuple[SeriesComparison, ...] = ()

    @property
    def days(self) -> tuple[int, ...]:
        """Of each scan since the first."""
        return tuple((scan.day - self.scans[0].day).days for scan in self.scans)


@dataclass(frozen=True)
class SeriesResult:
    """How it ended.

    Attributes:
        patients: in the order of the list.
        cohort: the comparisons.
    """

    patients: tuple[PatientSeries, ...]
    cohort: CohortResult


def run_series(request: CohortRequest, series: Series, listener: CohortListener | None = None) -> SeriesResult:
    """Compare and follow the scans of all patients.

    Args:
        request: folder and options of the series; its pairs are made here.
        series: from :func:`~.series_list.read_series`.
        listener: called whenever a comparison ends, and twice a second.

    Raises:
        InputError: the folder cannot be used, or the method has no deformation.
        Cancelled: the listener or a signal asked to stop; the same command goes on.
    """
    if request.config.method == "rigid":
        raise InputError("has no deformation to follow a lesion by", field="method", value="rigid")
    _check_folder(request.out)
    pairs, folder = pairs_of(series), request.out / COMPARISONS
    cohort = run_cohort(replace(request, pairs=pairs, out=folder), listener)
    done = {record.id for record in cohort.records if record.status == "done"}
    patients = [_followed(patient, scans, folder, done) for patient, scans in series.items()]
    return SeriesResult(tuple(patients), cohort)


def _check_folder(out: Path) -> None:
    """Raise an InputError if a folder holds anything else than a series."""
    if out.exists() and not out.is_dir():
        raise InputError("is a file", field="out", value=out, expected="a folder", remedy="give another one")
    if out.is_dir() and run_files.names_in(out) - {COMPARISONS, *OUTPUTS}:
        raise InputError("holds other files, too", field="out", value=out, remedy="give another folder")


def _followed(patient: str, scans: Sequence[SeriesScan], folder: Path, done: set[str]) -> PatientSeries:
    """Follow the lesions of one patient through those scans that a usable comparison joins."""
    links: list[SeriesLink] = []
    lungs: dict[int, Path] = {}
    notes, comparisons = [], []
    for later, earlier in comparisons_of(len(scans)):
        name, short = name_of(patient, later, earlier), f"{later + 1}-{earlier + 1}"
        which = f"Scan {later + 1} against scan {earlier + 1}"
        if name not in done:
            notes.append(f"{which} could not be compared.")
            comparisons.append(SeriesComparison(short))
            continue
        result_folder = PairPlace(folder, name).result
        result = load_result(result_folder)
        comparisons.append(_comparison(short, result, folder.parent))
        if result.quality.verdict == "do not use":
            notes.append(f"{which}: the registration failed.")
            continue
        links.append(SeriesLink(later, earlier, result.deformation, result.findings, short))
        lungs.setdefault(later, result_folder / run_files.LUNGS_REFERENCE)
        lungs.setdefault(earlier, result_folder / run_files.LUNGS_TEMPLATE)
    times = sorted(lungs)  # the others are joined to nothing
    loaded = [_with_lungs(scans[time].path, lungs[time]) for time in times]
    own = [replace(link, later=times.index(link.later), earlier=times.index(link.earlier)) for link in links]
    tracks = [_at_all_times(track, times, len(scans)) for track in track_lesions(loaded, own)]
    return PatientSeries(patient, tuple(scans), tuple(tracks), tuple(notes), tuple(comparisons))


def _with_lungs(path: Path, lungs: Path) -> Scan:
    """A scan with the lungs that a run has saved."""
    volume = read_volume(path)
    return Scan(volume, Lungs.of(read_array(lungs)[0], volume.grid, sides_known=True))


def _comparison(name: str, result: SavedResult, out: Path) -> SeriesComparison:
    """What the run of a comparison says of itself."""
    usable = result.quality.verdict != "do not use" and result.findings is not None
    count = len(result.findings.items) if usable and result.findings is not None else None
    report = result.folder / run_files.REPORT
    link = report.relative_to(out).as_posix() if report.exists() else ""
    reasons = (*result.gate.sentences, *result.quality.reasons)
    return SeriesComparison(name, result.quality.verdict, count, reasons, link)


def _at_all_times(track: Track, times: Sequence[int], count: int) -> Track:
    """Put a track through some of the scans into the order of all of them."""
    known = dict(zip(times, track.points, strict=True))
    points = tuple(known.get(time, CoursePoint("unknown")) for time in range(count))
    return replace(track, anchor=times[track.anchor], points=points)
