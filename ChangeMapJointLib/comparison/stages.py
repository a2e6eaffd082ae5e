"""The stages of a run: their time and memory, and the progress of the whole run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.memory import peak_memory_mb
from ChangeMapJointLib.core.progress import Progress


@dataclass(frozen=True)
class StageReport:
    """Time and memory of one stage.

    Attributes:
        name: of the stage.
        time_s: wall time in seconds.
        peak_memory_mb: the process's peak so far; None if unknown.
    """

    name: str
    time_s: float
    peak_memory_mb: float | None


@dataclass(frozen=True)
class ProgressEvent:
    """Progress of a run.

    Attributes:
        stage: name of the current stage.
        fraction: of the whole run, in [0, 1]; never decreases.
        elapsed_s: seconds since the start.
        remaining_s: estimated seconds; None at the very start.
        message: a short phrase; may be empty.
    """

    stage: str
    fraction: float
    elapsed_s: float
    remaining_s: float | None
    message: str = ""


class Listener(Protocol):
    """Called with the progress of a run; may raise :class:`~ChangeMapJointLib.core.errors.Cancelled` to stop it."""

    def __call__(self, event: ProgressEvent) -> None:
        """Handle ``event``."""


def ignore_progress(event: ProgressEvent) -> None:
    """Do nothing: the default listener."""


class Stages:
    """Runs stages one after another and keeps their reports."""

    def __init__(self, shares: Mapping[str, float], listener: Listener = ignore_progress) -> None:
        """Start the clock.

        Args:
            shares: expected share of the time by stage name, in order; they need not add up to 1.
            listener: called with progress events.
        """
        if not callable(listener):
            found = f"found {type(listener).__name__}"
            raise InputError(found, field="progress", expected="a function that takes a ProgressEvent")
        self.shares, self.listener = dict(shares), listener
        self.reports: list[StageReport] = []
        self.started = time.monotonic()
        self._highest = self._elapsed = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[Progress]:
        """Measure the block as stage ``name``; yields the callable that takes its progress."""
        names, total = list(self.shares), sum(self.shares.values())
        begin = sum(self.shares[n] for n in names[: names.index(name)]) / total
        share = self.shares[name] / total

        def report(fraction: float, message: str = "") -> None:
            self._notify(name, begin + share * min(max(fraction, 0.0), 1.0), message)

        start = time.monotonic()
        report(0.0)
        yield report
        self.reports.append(StageReport(name, round(_since(start), 3), peak_memory_mb()))
        report(1.0)

    def _notify(self, stage: str, fraction: float, message: str) -> None:
        self._highest = max(self._highest, fraction)
        elapsed = self._elapsed = max(self._elapsed, _since(self.started))
        # below 2 % the estimate is a guess from start-up alone
        remaining = elapsed * (1 / self._highest - 1) if self._highest > 0.02 else None
        self.listener(ProgressEvent(stage, self._highest, elapsed, remaining, message))


def _since(start: float) -> float:
    """Return the seconds since ``start``, never below 0: some virtual machines set even this clock back."""
    return max(time.monotonic() - start, 0.0)
