"""Lesions through several time points, as a table in the manner of RECIST 1.1.

The sum is that of the longest axial diameters of at most two target lesions, as RECIST 1.1 has it for one organ;
targets are those of 10 mm or more in the first scan, the largest first. It is a table of measurements: which lesions
are targets, and what the response is, a reader decides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.export.finding_text import Entry, lesions, scan_dates

TARGET_MM, MOST_TARGETS = 10.0, 2
SAME_MM = 5.0  # within which two comparisons mean the same lesion
PROGRESS, PROGRESS_MM, RESPONSE = 1.2, 5.0, 0.7  # +20 % and 5 mm over the smallest sum; -30 % of the first
UNMEASURED = "not measured"


@dataclass(frozen=True)
class DiameterTrack:
    """One lesion: its longest axial diameter in mm at each time point; None if not measured, 0 where absent."""

    name: str
    diameters_mm: tuple[float | None, ...]


@dataclass(frozen=True)
class TimePoints:
    """Several scans of one patient in the order of time.

    Attributes:
        dates: ISO, or ``scan 1``, ... where unknown.
        tracks: of all lesions that a comparison lists.
    """

    dates: tuple[str, ...]
    tracks: tuple[DiameterTrack, ...]

    @property
    def targets(self) -> tuple[DiameterTrack, ...]:
        """The largest lesions of the first scan, at most two."""
        large = [track for track in self.tracks if (track.diameters_mm[0] or 0.0) >= TARGET_MM]
        return tuple(sorted(large, key=lambda track: -(track.diameters_mm[0] or 0.0))[:MOST_TARGETS])

    @property
    def sums_mm(self) -> tuple[float | None, ...]:
        """Sum of the targets at each time point; None without targets, or where one was not measured."""
        sums: list[float | None] = []
        for number in range(len(self.dates)):
            values = [track.diameters_mm[number] for track in self.targets]
            known = [value for value in values if value is not None]
            sums.append(math.fsum(known) if known and len(known) == len(values) else None)
        return tuple(sums)

    def new_at(self, number: int) -> tuple[str, ...]:
        """Names of the lesions that are absent in all earlier scans and present in this one."""
        return tuple(
            track.name
            for track in self.tracks
            if (track.diameters_mm[number] or 0) > 0 and all(value == 0 for value in track.diameters_mm[:number])
        )

    def category(self, number: int) -> str:
        """What the measurements alone say of a time point after the first: ``PD``, ``PR``, ``CR``, ``SD`` or ``NE``.

        Examples:
            >>> points = TimePoints(("a", "b"), (DiameterTrack("1", (20.0, 13.0)),))
            >>> points.category(1)
            'PR'
        """
        if self.new_at(number):
            return "PD"
        sums = self.sums_mm
        now, first = sums[number], sums[0]
        if now is None or first is None:
            return "NE"
        smallest = min(value for value in sums[:number] if value is not None)
        if now >= PROGRESS * smallest and now - smallest >= PROGRESS_MM:
            return "PD"
        if now == 0:
            return "CR"
        return "PR" if now <= RESPONSE * first else "SD"

    def rows(self) -> list[list[str]]:
        """The table: head, one row per lesion, the sum, its change, and the category."""
        targets = {id(track) for track in self.targets}
        rows = [["Longest axial diameter (mm)", *self.dates]]
        for track in self.tracks:
            mark = " (target)" if id(track) in targets else ""
            rows.append([f"{track.name}{mark}", *map(_mm, track.diameters_mm)])
        sums = self.sums_mm
        rows.append(["Sum of targets", *("-" if value is None else f"{value:.1f}" for value in sums)])
        change = ["-"] * len(sums)
        for number, value in enumerate(sums):
            if number and value is not None and sums[0]:
                change[number] = f"{100 * (value / sums[0] - 1):+.0f} %"
        rows.append(["Change from the first", *change])
        rows.append(["By measurements alone", "-", *(self.category(n) for n in range(1, len(self.dates)))])
        return rows

    def sentences(self) -> list[str]:
        """What a reader should know about the table."""
        return [
            "In the manner of RECIST 1.1 for the lung alone: at most two targets of 10 mm or more in the first scan; "
            "PD also with a new lesion. Lesions that no comparison lists as changed are not in the table. "
            "A reader decides."
        ]


def _mm(value: float | None) -> str:
    return UNMEASURED if value is None else "absent" if value == 0 else f"{value:.1f}"


def time_points(runs: Sequence[Mapping[str, Any]]) -> TimePoints:
    """Follow lesions through comparisons of which each one's prior is the current scan of the one before.

    Args:
        runs: records of each run, the earliest comparison first.

    Raises:
        InputError: there is one run only, the scans do not follow each other, or their dates do not.
    """
    if len(runs) < 2:
        raise InputError(
            "one comparison", field="earlier", expected="two or more", remedy="give the earlier run as well"
        )
    for before, after in pairwise(runs):
        if _scan(before, "reference") != _scan(after, "template"):
            raise InputError(
                "the prior scan is not the current scan of the run before",
                field="earlier",
                expected="comparisons of scan 1 with 2, 2 with 3, ... in this order",
            )
    dates = [scan_dates(runs[0])[1], *(scan_dates(run)[0] for run in runs)]
    known = [date for date in dates if date]
    if known != sorted(known):
        raise InputError(f"dates {', '.join(known)}", field="earlier", expected="the earliest run first")
    tracks: list[list[float | None]] = []
    ends: list[tuple[float, float, float] | None] = []  # where each lesion lies in the newest scan
    for number, run in enumerate(runs):
        _follow(run, number, tracks, ends)
    for track in tracks:
        track.extend([None] * (len(runs) + 1 - len(track)))
    names = tuple(date or f"scan {number}" for number, date in enumerate(dates, 1))
    return TimePoints(names, tuple(DiameterTrack(f"Lesion {n}", tuple(track)) for n, track in enumerate(tracks, 1)))


def _scan(run: Mapping[str, Any], side: str) -> Any:
    scan = (run.get("run", {}).get(side)) or {}
    return scan.get("voxels_sha256") or scan.get("sha256")


def _follow(
    run: Mapping[str, Any], number: int, tracks: list[list[float | None]], ends: list[tuple[float, float, float] | None]
) -> None:
    """Continue the lesions of earlier comparisons with one more, and begin those that are first listed in it."""
    free = set(range(len(tracks)))
    quality = run.get("quality", {}).get("quality", {})
    entries = [] if quality.get("verdict") == "do not use" else run.get("findings", {}).get("findings", [])
    pairs = []
    for which, entry in enumerate(entries):
        start = _place(entry, 1)
        for index in free:
            end = ends[index]
            if start is not None and end is not None and math.dist(start, end) <= SAME_MM:
                pairs.append((math.dist(start, end), which, index))
    taken: dict[int, int] = {}
    for _, which, index in sorted(pairs):
        if which not in taken and index in free:
            taken[which] = index
            free.remove(index)
    for which, entry in enumerate(entries):
        now, before = (_diameter(entry, side) for side in (0, 1))
        if which in taken:
            index = taken[which]
        else:
            index = len(tracks)
            missing: list[float | None] = [None] * number
            tracks.append([*missing, before])
            ends.append(None)
        tracks[index].extend([None] * (number + 1 - len(tracks[index])))
        if tracks[index][number] is None:
            tracks[index][number] = before
        if before == 0 and which not in taken:
            tracks[index][:number] = [0.0] * number
        tracks[index].append(now)
        ends[index] = _place(entry, 0)


def _diameter(entry: Entry, side: int) -> float | None:
    """The longest axial diameter in the current (0) or the prior scan (1); 0 where the lesion is absent."""
    lesion = lesions(entry)[side]
    if lesion is not None:
        return float(lesion["long_diameter_mm"])
    absent = entry["kind"] == ("resolved" if side == 0 else "new")
    return 0.0 if absent else None


def _place(entry: Entry, side: int) -> tuple[float, float, float] | None:
    """Where the lesion lies in that scan (mm, LPS)."""
    lesion = lesions(entry)[side]
    place = lesion["centre_mm"] if lesion is not None else entry.get("centre_mm" if side == 0 else "centre_template_mm")
    if place is None:
        return None
    x, y, z = (float(value) for value in place)
    return x, y, z
