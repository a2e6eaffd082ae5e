"""What is known of the two scans of a run: dates, interval, slices; without Qt."""

from __future__ import annotations

from typing import Any

from ChangeMapJointGui.patients import patientWarning
from ChangeMapJointGui.sample_data import isSynthetic
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.export.finding_text import interval_days, scan_dates
from ChangeMapJointLib.scene.results import Results
from ChangeMapJointLib.scene.volumes import grid_of


class PairFacts:
    """Dates and slices of the two scans.

    Attributes:
        current: date of the current scan, ISO; None if unknown.
        prior: date of the prior scan.
        days: between them; None where a date is unknown.
        synthetic: whether a scan is not a patient's.
        twoPatients: what says that the scans are of two patients; empty if nothing does.
    """

    def __init__(self, results: Results) -> None:
        self.current, self.prior = scan_dates(results.content)
        self.days = interval_days(self.current, self.prior)
        nodes = [node for node in (results.reference, results.template) if node is not None and node.GetScene()]
        self.synthetic = any(isSynthetic(node) for node in nodes)
        self.twoPatients = patientWarning(*nodes) if len(nodes) == 2 else ""
        try:
            self._grid = grid_of(results.reference) if results.reference in nodes else None
        except InputError:  # moved since by a transform that is not linear
            self._grid = None

    @property
    def asColumns(self) -> dict[str, Any]:
        """Dates and interval, by the column of a table."""
        return {"current_date": self.current, "prior_date": self.prior, "interval_days": self.days}

    def sliceOf(self, pointMm: Any) -> int | None:
        """Return the stored slice of the current scan that holds a point (LPS, mm), counted from 1 as in the report."""
        return None if self._grid is None else round(float(self._grid.to_index(pointMm)[2])) + 1
