"""At which distances the slices of a series lie, and whether one is missing.

A series may be complete and yet lie at two distances, fine in one part and coarse in another: then each distance
occurs in a run of several slices. A slice that is missing shows as one gap, or two, among even ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray

SAME_POSITION_MM = 0.01
JITTER_MM = 0.1  # an even stack may be this uneven,
JITTER_FRACTION = 0.05  # and by this part of the slice distance more
GAP_FACTOR = 1.5  # neighbours farther apart than this times the usual distance miss a slice
MIN_RUN = 3  # distances in a row that are meant
SAME_STEP_MM = 0.05  # within a run
SAME_STEP_FRACTION = 0.02
MAX_RATIO = 5.0  # of the coarsest distance to the finest
MAX_STEP_MM = 10.0  # what is farther apart shows no chest
MAX_RUNS_TOLD = 6


@dataclass(frozen=True)
class _Run:
    """Slices at one distance: from slice ``start`` on, ``count`` distances."""

    start: int
    count: int
    step_mm: float


def find_slice_distances(along_mm: FloatArray, names: Sequence[str]) -> tuple[float, str] | None:
    """The finest distance of a complete series with several, and a sentence on where which is; None for others.

    Args:
        along_mm: sorted positions along the normal.
        names: of their files.

    Raises:
        InputError: several distances, and a slice missing besides, or distances too different for one grid.
    """
    runs = _runs(np.diff(along_mm))
    meant = [run for run in runs if run.count >= MIN_RUN]
    steps = [run.step_mm for run in meant]
    if len(meant) < 2 or max(steps) - min(steps) <= SAME_STEP_MM + SAME_STEP_FRACTION * min(steps):
        return None
    short = [(number, run) for number, run in enumerate(runs) if run.count < MIN_RUN]
    around = {n: [run.step_mm for run in (*runs[max(n - 1, 0) : n], *runs[n + 1 : n + 2])] for n, _ in short}
    for number, run in short:
        if run.step_mm > GAP_FACTOR * max(around[number]):
            part = slice(run.start, run.start + run.count + 1)
            check_missing_slices(along_mm[part], names[part], max(around[number]))
    for number, run in short:
        between = 0 < number < len(runs) - 1 and min(runs[number - 1].count, runs[number + 1].count) >= MIN_RUN
        if run.count > 1 or not between or run.step_mm > 1.05 * max(around[number]):
            return None  # neither one distance nor several
    if max(steps) > min(MAX_RATIO * min(steps), MAX_STEP_MM):
        raise InputError(
            f"the slices are unevenly spaced: {_told(along_mm, meant)}, too different for one volume (at most "
            f"{MAX_RATIO:g} times and {MAX_STEP_MM:g} mm)",
            remedy="export the parts as series of their own",
        )
    finest = min(steps)
    return round(finest, 6), (
        f"The slices lie at several distances: {_told(along_mm, meant)}. They were put on an even grid of "
        f"{finest:.4g} mm, linear between neighbouring slices."
    )


def check_missing_slices(along_mm: FloatArray, names: Sequence[str], usual_mm: float) -> None:
    """None of the positions may be far beyond the usual distance from the one before it.

    Args:
        along_mm: sorted positions along the normal.
        names: of their files.
        usual_mm: the distance where no slice is missing.

    Raises:
        InputError: some are, with the widest gap.
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


def _told(along_mm: FloatArray, runs: Sequence[_Run]) -> str:
    """Which distance holds from where to where."""
    parts = [
        f"{run.step_mm:.4g} mm from {along_mm[run.start]:.2f} to {along_mm[run.start + run.count]:.2f} mm"
        for run in runs[:MAX_RUNS_TOLD]
    ]
    return ", ".join(parts) + (f" and {len(runs) - MAX_RUNS_TOLD} more" if len(runs) > MAX_RUNS_TOLD else "")
