"""Matching of findings to true changes: which changes were detected, and which findings are false.

A finding hits a true change when they share a voxel of the change's region, the symmetric difference of the lesion's
masks in the two scans. By overlap alone, one component that fills the lung would hit everything. Therefore at least a
tenth of the finding must also lie within 3 mm of the lesion, or their intersection over union must exceed 0.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.filters import label_sizes
from ChangeMapJointLib.core.grid import Grid, Vector3
from ChangeMapJointLib.synthesis.truth import TrueChange


class FindingLike(Protocol):
    """The properties of a finding that matching uses."""

    @property
    def id(self) -> int:
        """Number of the finding, above 0."""

    @property
    def kind(self) -> str:
        """New, grown, shrunk, resolved, increase or decrease."""

    @property
    def centre_mm(self) -> Vector3:
        """LPS, in the reference."""

    @property
    def long_diameter_mm(self) -> float:
        """Its long axial diameter in mm."""


@dataclass(frozen=True)
class HitRule:
    """When a finding that touches a change's region counts as having found it.

    Attributes:
        within_mm: the lesion is dilated by this distance, and
        inside: at least this fraction of the finding must lie in the dilated lesion;
        overlap: or the intersection over union with the lesion itself must exceed this.
    """

    within_mm: float = 3.0
    inside: float = 0.1
    overlap: float = 0.1


@dataclass(frozen=True)
class ChangeRegion:
    """The region of one true change on the reference's grid.

    Attributes:
        id: of the change.
        box: the part of the grid that the two masks cover.
        changed: lesion in exactly one of the scans, bool ``[z, y, x]`` in the box.
        lesion: lesion in at least one of the scans, the same.
    """

    id: int
    box: tuple[slice, slice, slice]
    changed: NDArray[np.bool_]
    lesion: NDArray[np.bool_]


@dataclass(frozen=True)
class Detection:
    """The result of a comparison with the truth.

    Attributes:
        truth: all lesions, stable ones included.
        hits: ids of the findings that hit each change, by the change's id; every true change has an entry.
        false_volumes_ml: volume of each finding that hits no change, by its id.
        findings: number of findings.
        kinds: for each change that was hit: its true kind, and the kind of the largest finding that hit it.
    """

    truth: tuple[TrueChange, ...]
    hits: Mapping[int, tuple[int, ...]]
    false_volumes_ml: Mapping[int, float]
    findings: int
    kinds: Mapping[int, tuple[str, str]] = field(default_factory=dict)

    def changes(self, *, least_change_mm: float = 0.0, solid_only: bool = False) -> tuple[TrueChange, ...]:
        """The true changes (no stable lesions) whose diameter changed by at least ``least_change_mm``."""
        return tuple(
            c
            for c in self.truth
            if c.is_change and c.diameter_change_mm >= least_change_mm and (c.solid or not solid_only)
        )

    def found(self, *, least_change_mm: float = 0.0, solid_only: bool = False) -> tuple[TrueChange, ...]:
        """The changes that were hit; arguments as :meth:`changes`."""
        return tuple(c for c in self.changes(least_change_mm=least_change_mm, solid_only=solid_only) if self.hits[c.id])

    def missed(self, *, least_change_mm: float = 0.0, solid_only: bool = False) -> tuple[TrueChange, ...]:
        """The changes that were not hit; arguments as :meth:`changes`."""
        return tuple(
            c for c in self.changes(least_change_mm=least_change_mm, solid_only=solid_only) if not self.hits[c.id]
        )

    def recall(self, *, least_change_mm: float = 0.0, solid_only: bool = False) -> float:
        """The fraction of the true changes that were hit, NaN without any; arguments as :meth:`changes`."""
        changes = self.changes(least_change_mm=least_change_mm, solid_only=solid_only)
        found = self.found(least_change_mm=least_change_mm, solid_only=solid_only)
        return len(found) / len(changes) if changes else float("nan")

    @property
    def precision(self) -> float:
        """The fraction of the findings that hit a true change; NaN without findings."""
        return 1 - len(self.false_volumes_ml) / self.findings if self.findings else float("nan")

    @property
    def largest_false_ml(self) -> float:
        """Volume of the largest false finding in ml; 0 without any."""
        return max(self.false_volumes_ml.values(), default=0.0)


def change_region(change: TrueChange, grid: Grid, *, inside: NDArray[np.bool_] | None = None) -> ChangeRegion:
    """The region of a change, from its outline or, without one, from spheres of its diameters.

    Args:
        change: a lesion of the truth.
        grid: in the reference's space.
        inside: limits the region, usually to the lungs, bool ``[z, y, x]``; by default nothing does.
    """
    now, before, box = change.inside(grid)
    allowed = True if inside is None else inside[box]
    return ChangeRegion(change.id, box, (now ^ before) & allowed, (now | before) & allowed)


def match_findings(
    findings: Sequence[FindingLike],
    truth: Sequence[TrueChange],
    grid: Grid,
    *,
    labels: NDArray[np.integer] | None = None,
    inside: NDArray[np.bool_] | None = None,
    rule: HitRule | None = None,
) -> Detection:
    """Match findings to the true changes.

    Args:
        findings: of one pair.
        truth: its lesions, stable ones included.
        grid: the reference's grid.
        labels: each finding's id in its voxels, ``[z, y, x]``; without labels every finding is a sphere of its long
            diameter.
        inside: limits the changes; see :func:`change_region`.
        rule: when a finding that touches a change hits it.

    Returns:
        Hits, false findings, recall and precision.

    Raises:
        InputError: ``labels`` does not fit ``grid``, or holds ids that are not in ``findings``.
    """
    if labels is None:
        labels = paint_findings(findings, grid)
    elif not set(np.unique(labels).tolist()) <= {0, *(f.id for f in findings)}:
        raise InputError(
            "found ids that are not in the findings", field="labels", remedy="pass the findings of these labels"
        )
    result = match_labels(labels, truth, grid, inside=inside, rule=rule)
    kind_of = {f.id: f.kind for f in findings}
    sizes = label_sizes(labels)
    kinds = {
        c.id: (c.kind, kind_of[max(result.hits[c.id], key=lambda number: sizes[number])])
        for c in truth
        if c.is_change and result.hits[c.id]
    }
    return Detection(result.truth, result.hits, result.false_volumes_ml, len(findings), kinds)


def match_labels(
    labels: NDArray[np.integer],
    truth: Sequence[TrueChange],
    grid: Grid,
    *,
    regions: Sequence[ChangeRegion] | None = None,
    inside: NDArray[np.bool_] | None = None,
    rule: HitRule | None = None,
    sizes: NDArray[np.integer] | None = None,
) -> Detection:
    """Match labelled components of any origin to the true changes.

    Args:
        labels: ids above 0 in the components' voxels, ``[z, y, x]``.
        truth: the lesions, stable ones included.
        grid: the reference's grid.
        regions: regions of the changes, where known; otherwise :func:`change_region` makes them.
        inside: limits the changes; see :func:`change_region`.
        rule: when a component that touches a change hits it.
        sizes: number of voxels of every id from 0, where known; counting them in a whole scan takes longer than all
            else.

    Raises:
        InputError: ``labels`` does not fit ``grid``.
    """
    if labels.shape != grid.shape:
        raise InputError(f"found shape {labels.shape}", field="labels", expected=f"the reference's {grid.shape}")
    rule = rule or HitRule()
    sizes = label_sizes(labels) if sizes is None else sizes
    changed = [c for c in truth if c.is_change]
    regions = regions if regions is not None else [change_region(c, grid, inside=inside) for c in changed]
    by_id = {region.id: _hits(labels, sizes, region, grid, rule) for region in regions}
    hits = {c.id: by_id.get(c.id, ()) for c in changed}
    true_findings = {number for numbers in hits.values() for number in numbers}
    present = [int(number) for number in np.flatnonzero(sizes) if number > 0]
    false = {n: float(sizes[n]) * grid.voxel_volume_ml for n in present if n not in true_findings}
    return Detection(tuple(truth), hits, false, len(present))


def paint_findings(findings: Sequence[FindingLike], grid: Grid) -> NDArray[np.int32]:
    """Draw each finding as a sphere of its long diameter (at least one voxel) with its id, int32 ``[z, y, x]``."""
    labels = np.zeros(grid.shape, dtype=np.int32)
    for finding in findings:
        ball = TrueChange(1, "new", finding.centre_mm, finding.centre_mm, max(finding.long_diameter_mm, 1e-3), 0.0)
        now, _, box = ball.inside(grid)
        labels[box][now] = finding.id
        k, j, i = np.rint(grid.to_index(finding.centre_mm)[::-1]).astype(int)
        if grid.contains(finding.centre_mm):
            labels[k, j, i] = finding.id
    return labels


def _hits(
    labels: NDArray[np.integer], sizes: NDArray[np.integer], region: ChangeRegion, grid: Grid, rule: HitRule
) -> tuple[int, ...]:
    """Ids of the components that hit ``region``."""
    touching = np.unique(labels[region.box][region.changed])
    touching = touching[touching > 0]
    if touching.size == 0:
        return ()
    margin = [int(np.ceil(rule.within_mm / h)) + 1 for h in grid.spacing_mm[::-1]]
    wide = tuple(
        slice(max(s.start - m, 0), min(s.stop + m, n)) for s, m, n in zip(region.box, margin, labels.shape, strict=True)
    )
    inner = tuple(slice(s.start - w.start, s.stop - w.start) for s, w in zip(region.box, wide, strict=True))
    lesion = np.zeros(labels[wide].shape, dtype=bool)
    lesion[inner] = region.lesion
    near = distance_transform_edt(~lesion, sampling=grid.spacing_mm[::-1]) <= rule.within_mm
    hits = []
    for number in touching:
        component = labels[wide] == number
        intersection = int((component & lesion).sum())
        overlap = intersection / (int(sizes[number]) + int(lesion.sum()) - intersection)
        if (component & near).sum() >= rule.inside * sizes[number] or overlap > rule.overlap:
            hits.append(int(number))
    return tuple(hits)
