"""The course of lesions over several scans: doubling time, nadir, and a sum of diameters in the style of RECIST 1.1.

The rules are those of Eisenhauer et al., Eur J Cancer 45(2):228, 2009: at most two target lesions in an organ, of at
least 10 mm; partial response from -30 % of the first sum; progression from +20 % and 5 mm over the smallest sum so far,
or a new lesion. It is an aid for orientation: target lesions are chosen by a reader, and lymph nodes and everything
outside the lungs are not seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ChangeMapJointLib.lesions.measure import LesionMeasure

TARGET_MM, MOST_TARGETS = 10.0, 2
RESPONSE, PROGRESSION, PROGRESSION_MM = 0.7, 1.2, 5.0

State = Literal["measured", "absent", "unknown"]
Response = Literal["baseline", "complete response", "partial response", "stable", "progression", "unknown"]


@dataclass(frozen=True)
class CoursePoint:
    """A lesion in one scan.

    Attributes:
        state: ``measured``; ``absent``, where the scan shows only lung at its place; or ``unknown``.
        measure: its figures; None unless measured.
    """

    state: State
    measure: LesionMeasure | None = None

    @property
    def volume_ml(self) -> float | None:
        """Its volume, 0 where it is absent, None where unknown."""
        return self.measure.volume_ml if self.measure is not None else 0.0 if self.state == "absent" else None

    @property
    def diameter_mm(self) -> float | None:
        """Its long axial diameter, 0 where it is absent, None where unknown."""
        return self.measure.long_diameter_mm if self.measure is not None else 0.0 if self.state == "absent" else None


@dataclass(frozen=True)
class SumPoint:
    """The sum of diameters in one scan.

    Attributes:
        sum_mm: of the target lesions; None where one of them is unknown.
        baseline_percent: change from the first scan.
        nadir_percent: change from the smallest sum before; None in the first scan.
        new_lesions: number of lesions that were absent in all scans before.
        response: in the words of RECIST; a lesion that the first scan lacks is progression as long as it is seen.
    """

    sum_mm: float | None
    baseline_percent: float | None
    nadir_percent: float | None
    new_lesions: int
    response: Response


def doubling_time_days(days: Sequence[float], volumes_ml: Sequence[float | None]) -> float | None:
    """Return the time in which a volume doubles, by a straight line through the logarithms of all known volumes.

    Args:
        days: of the scans.
        volumes_ml: in the scans; None and 0 are left out.

    Returns:
        Days; negative where it halves in that time, None with fewer than two volumes or without any change.

    Examples:
        >>> round(doubling_time_days([0, 100, 200], [0.1, 0.2, 0.4]))
        100
        >>> round(doubling_time_days([0, 100], [0.4, 0.1]))
        -50
    """
    known = [(day, math.log(volume)) for day, volume in zip(days, volumes_ml, strict=True) if volume]
    if len(known) < 2:
        return None
    time, logarithm = np.array(known, dtype=float).T
    time = time - time.mean()
    variance = float(time @ time)
    slope = float(time @ (logarithm - logarithm.mean())) / variance if variance else 0.0
    return math.log(2.0) / slope if abs(slope) > 1e-9 else None


def nadir(values: Sequence[float | None]) -> int | None:
    """Return where the smallest known value is, the earliest of equal ones; None where none is known.

    Examples:
        >>> nadir([3.0, None, 1.0, 1.0])
        2
    """
    known = [(value, number) for number, value in enumerate(values) if value is not None]
    return min(known)[1] if known else None


def target_lesions(courses: Sequence[Sequence[CoursePoint]]) -> tuple[int, ...]:
    """Return the numbers of the target lesions: the largest of at least 10 mm in the first scan, at most two."""
    sizes = [(course[0].diameter_mm or 0.0, -number) for number, course in enumerate(courses)]
    return tuple(sorted(-number for size, number in sorted(sizes, reverse=True)[:MOST_TARGETS] if size >= TARGET_MM))


def sums_of_diameters(courses: Sequence[Sequence[CoursePoint]]) -> tuple[SumPoint, ...]:
    """Return the sum of diameters of the target lesions in each scan, and the response.

    Args:
        courses: of each lesion, one point per scan.
    """
    targets = target_lesions(courses)
    points: list[SumPoint] = []
    sums: list[float] = []  # known ones
    for time in range(len(courses[0]) if courses else 0):
        sizes = [courses[number][time].diameter_mm for number in targets]
        known = [size for size in sizes if size is not None]
        total = sum(known) if targets and len(known) == len(sizes) else None
        new = sum(_appeared_in(course) == time for course in courses)
        later = any(course[time].state == "measured" and _appeared_in(course) is not None for course in courses)
        smallest, baseline = (min(sums), sums[0]) if sums else (None, None)
        points.append(
            SumPoint(
                total,
                _percent(total, baseline) if time else 0.0 if total is not None else None,
                _percent(total, smallest),
                new,
                _response(time, total, baseline, smallest, later_than_first=later),
            )
        )
        if total is not None:
            sums.append(total)
    return tuple(points)


def _percent(value: float | None, before: float | None) -> float | None:
    return None if value is None or not before else 100.0 * (value / before - 1.0)


def _appeared_in(course: Sequence[CoursePoint]) -> int | None:
    """Return the first scan that shows a lesion which all scans before lack; None where there is no such scan."""
    first = next((time for time, point in enumerate(course) if point.state != "absent"), 0)
    return first if first > 0 and course[first].state == "measured" else None


def _response(
    time: int, total: float | None, baseline: float | None, smallest: float | None, *, later_than_first: bool
) -> Response:
    """Return the response; ``later_than_first``: a lesion is seen that was absent in the first scan."""
    if time == 0:
        return "baseline"
    if later_than_first:
        return "progression"
    if total is None or baseline is None or smallest is None:
        return "unknown"
    if total >= PROGRESSION * smallest and total - smallest >= PROGRESSION_MM:
        return "progression"
    if total == 0:
        return "complete response"
    return "partial response" if total <= RESPONSE * baseline else "stable"
