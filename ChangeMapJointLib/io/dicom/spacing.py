"""Slice distances of a series, and missing slices.

A complete series may have two slice distances, fine in one part and coarse in another. Each distance then occurs
several times in a row. A missing slice shows as one or two single gaps in an otherwise even series.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray

SAME_POSITION_MM = 0.01
JITTER_MM = 0.1  # allowed deviation from an even stack, plus
JITTER_FRACTION = 0.05  # this fraction of the slice distance
GAP_FACTOR = 1.5  # between neighbours farther apart than this times the usual distance, a slice is missing
MIN_RUN = 3  # equal distances in a row that are intended
SAME_STEP_MM = 0.05  # distances are equal within this, plus
SAME_STEP_FRACTION = 0.02  # this fraction
MAX_RATIO = 5.0  # of the largest distance to the smallest
MAX_STEP_MM = 10.0  # larger distances do not show a chest
MAX_RUNS_LISTED = 6


@dataclass(frozen=True)
class _Run:
    """Consecutive slices at one distance: ``count`` distances, from slice ``start`` on."""

    start: int
    count: int
    step_mm: float


def find_slice_distances(along_mm: FloatArray, names: Sequence[str]) -> tuple[float, str] | None:
    """Find the slice distances of a complete series with more than one distance.

    Args:
        along_mm: sorted positions along the normal.
        names: names of the files, in the same order.

    Returns:
        The smallest distance and a note on all distances; None if the series does not have several.

    Raises:
        InputError: a slice is missing as well, or the distances are too different for one grid.
    """
    runs = _runs(np.diff(along_mm))
    intended = [run for run in runs if run.count >= MIN_RUN]
    steps = [run.step_mm for run in intended]
    if len(intended) < 2 or max(steps) - min(steps) <= SAME_STEP_MM + SAME_STEP_FRACTION * min(steps):
        return None
    short = [(number, run) for number, run in enumerate(runs) if run.count < MIN_RUN]
    neighbours = {n: [run.step_mm for run in (*runs[max(n - 1, 0) : n], *runs[n + 1 : n + 2])] for n, _ in short}
    for number, run in short:
        if run.step_mm > GAP_FACTOR * max(neighbours[number]):
            part = slice(run.start, run.start + run.count + 1)
            check_missing_slices(along_mm[part], names[part], max(neighbours[number]))
    for number, run in short:
        between = 0 < number < len(runs) - 1 and min(runs[number - 1].count, runs[number + 1].count) >= MIN_RUN
        if run.count > 1 or not between or run.step_mm > 1.05 * max(neighbours[number]):
            return None  # neither one distance nor several
    if max(steps) > min(MAX_RATIO * min(steps), MAX_STEP_MM):
        raise InputError(
            f"the slices are unevenly spaced: {_describe(along_mm, intended)}, too different for one volume (at most "
            f"{MAX_RATIO:g} times and {MAX_STEP_MM:g} mm)",
            remedy="export the parts as series of their own",
        )
    finest = min(steps)
    return round(finest, 6), (
        f"The slices have several distances: {_describe(along_mm, intended)}. They were interpolated linearly to an "
        f"even grid of {finest:.4g} mm."
    )


def check_missing_slices(along_mm: FloatArray, names: Sequence[str], usual_mm: float) -> None:
    """Check that no slice is missing.

    Args:
        along_mm: sorted positions along the normal.
        names: names of the files, in the same order.
        usual_mm: the distance where no slice is missing.

    Raises:
        InputError: slices are missing; names the widest gap.
    """
    steps = np.diff(along_mm)
    i = int(np.argmax(steps))
    if steps[i] <= GAP_FACTOR * usual_mm:
        return
    missing = max(round(steps[i] / usual_mm) - 1, 1)
    others = int((steps > GAP_FACTOR * usual_mm).sum()) - 1
    more = f" and at {others} other place(s)" if others else ""
    raise InputError(
        f"{missing} slice(s) missing between {along_mm[i]:.2f} mm ({names[i]}) and {along_mm[i + 1]:.2f} mm "
        f"({names[i + 1]}){more}, where slices are {usual_mm:.2f} mm apart",
        remedy="export the whole series again",
    )


def _runs(steps: FloatArray) -> list[_Run]:
    runs, start = [], 0
    for i in range(1, len(steps) + 1):
        tolerance = SAME_STEP_MM + SAME_STEP_FRACTION * steps[start]
        if i == len(steps) or abs(steps[i] - steps[start]) > tolerance:
            runs.append(_Run(start, i - start, float(np.mean(steps[start:i]))))
            start = i
    return runs


def _describe(along_mm: FloatArray, runs: Sequence[_Run]) -> str:
    """Describe the distances and where they apply."""
    parts = [
        f"{run.step_mm:.4g} mm from {along_mm[run.start]:.2f} to {along_mm[run.start + run.count]:.2f} mm"
        for run in runs[:MAX_RUNS_LISTED]
    ]
    return ", ".join(parts) + (f" and {len(runs) - MAX_RUNS_LISTED} more" if len(runs) > MAX_RUNS_LISTED else "")
