"""The list of changes at any threshold, for a slider.

Measuring a lesion takes too long for a slider. A run therefore measures its findings, and candidates at a lower
threshold. A region at another threshold takes over the figures of the finding or candidate that it belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.change.method_table import MOST_FINDINGS
from ChangeMapJointLib.change.threshold_tree import ThresholdTree, TreeRegion
from ChangeMapJointLib.core.grid import FloatArray, Vector3

Measured = Mapping[str, Any]  # one entry of ``findings.json`` or ``candidates.json``


@dataclass(frozen=True)
class ListedChange:
    """One row of the list at a threshold.

    Attributes:
        key: identifies the row at all thresholds and in all sessions: the voxel where its change is strongest.
        kind: 'new', 'grown', 'shrunk', 'resolved', 'increase' or 'decrease'; see
            :class:`~ChangeMapJointLib.change.finding.Finding`.
        sign: +1 denser now, -1 less dense now.
        volume_ml: volume of the region of change at this threshold.
        peak: largest value of the change map in the region.
        peak_mm: position of that value, physical (x, y, z) LPS.
        centre_mm: centroid of the region, or of its largest part, LPS.
        trust: trust in the registration there, in [0, 1]; None where unknown.
        measured: its entry in ``findings.json`` or ``candidates.json``; None where it was not measured.
    """

    key: int
    kind: str
    sign: int
    volume_ml: float
    peak: float
    peak_mm: Vector3
    centre_mm: Vector3
    trust: float | None
    measured: Measured | None


class ThresholdList:
    """Lists the changes at any threshold.

    Args:
        regions: the components of the change map.
        findings: entries of ``findings.json``, the largest first.
        candidates: entries of ``candidates.json``.
        candidate_threshold: threshold of the candidates.
        trust: trust at points ``[n, 3]`` (x, y, z in mm, LPS), for regions that were not measured.
    """

    def __init__(
        self,
        regions: ThresholdTree,
        findings: Sequence[Measured],
        candidates: Sequence[Measured] = (),
        *,
        candidate_threshold: float = 1.0,
        trust: Callable[[FloatArray], NDArray[np.floating]] | None = None,
    ) -> None:
        self.regions = regions
        self._measured = [*findings, *candidates]
        self._trust = trust
        self._peaks = regions.positions_of(np.array([m["peak_mm"] for m in self._measured]).reshape(-1, 3))
        self._candidate_regions = regions.components(candidate_threshold)
        self._candidate_of: dict[int, int] = {}
        for i in range(len(findings), len(self._measured)):
            if 0 <= self._peaks[i] < len(self._candidate_regions):
                self._candidate_of.setdefault(int(self._candidate_regions[self._peaks[i]]), i)

    def at(self, threshold: float, *, min_voxels: int = 5) -> list[ListedChange]:
        """List the changes at ``threshold``, by volume times peak, the largest first; at most :data:`MOST_FINDINGS`.

        Several regions of one measured lesion share a row.

        Args:
            threshold: threshold of the change map, in (0, 1].
            min_voxels: regions with fewer voxels are left out.
        """
        label = self.regions.components(threshold)
        owner: dict[int, int] = {}
        for i, position in enumerate(self._peaks):
            if 0 <= position < len(label):
                owner.setdefault(int(label[position]), i)
        rows: dict[int, ListedChange] = {}
        for region in self.regions.at(threshold, min_voxels=min_voxels)[:MOST_FINDINGS]:
            number = owner.get(region.component, self._candidate(region))
            key = region.key if number is None else self._key(number, region)
            row = rows.get(key)
            rows[key] = self._row(region, number, key) if row is None else _add_part(row, region)
        return sorted(rows.values(), key=lambda row: -row.volume_ml * row.peak)

    def _candidate(self, region: TreeRegion) -> int | None:
        """Index of the candidate that contains a region without a measured peak; None where there is none."""
        if region.position >= len(self._candidate_regions):
            return None
        return self._candidate_of.get(int(self._candidate_regions[region.position]))

    def _key(self, number: int, region: TreeRegion) -> int:
        """The voxel of the peak of measured entry ``number``, or of ``region`` where that is below the floor."""
        position = int(self._peaks[number])
        return region.key if position < 0 else int(self.regions.voxels[position])

    def _row(self, region: TreeRegion, number: int | None, key: int) -> ListedChange:
        measured = None if number is None else self._measured[number]
        trust = None if measured is None else measured["trust"]
        if measured is None and self._trust is not None:
            trust = float(self._trust(np.array([region.centre_mm]))[0])
        return ListedChange(
            key=key,
            kind=("increase" if region.sign > 0 else "decrease") if measured is None else str(measured["kind"]),
            sign=region.sign,
            volume_ml=region.volume_ml,
            peak=region.peak,
            peak_mm=region.peak_mm,
            centre_mm=region.centre_mm,
            trust=trust,
            measured=measured,
        )


def _add_part(row: ListedChange, part: TreeRegion) -> ListedChange:
    """Add another, smaller part of the same lesion to a row."""
    return replace(row, volume_ml=row.volume_ml + part.volume_ml, peak=max(row.peak, part.peak))
