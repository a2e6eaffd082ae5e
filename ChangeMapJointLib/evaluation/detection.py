"""Which true changes were found, and which findings are false.

A finding hits a true change when they share a voxel of the change's region, which is the symmetric
difference of the lesion's supports at the two times. Overlap alone would let one component that
fills the lung find everything; so at least a tenth of the finding must also lie within 3 mm of the
lesion, or the two must have an intersection over union above 0.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import Grid, Vector3
from ChangeMapJointLib.synthesis.truth import Correspondences, TrueChange, Truth, read_truth

__all__ = [
    "ChangeRegion",
    "Correspondences",
    "Detection",
    "FindingLike",
    "HitRule",
    "TrueChange",
    "Truth",
    "change_region",
    "match_findings",
    "match_labels",
    "paint_findings",
    "read_truth",
    "region_of_masks",
]


class FindingLike(Protocol):
    """What is used of a finding."""

    @property
    def id(self) -> int:
        """Number of the finding, above 0."""

    @property
    def kind(self) -> str:
        """New, grown, shrunk, resolved, or less."""

    @property
    def centre_mm(self) -> Vector3:
        """LPS, in the reference."""

    @property
    def long_diameter_mm(self) -> float:
        """Its axial long diameter."""


@dataclass(frozen=True)
class HitRule:
    """When a finding that touches a change's region counts as having found it.

    Attributes:
        within_mm: the lesion is widened by this much;
        inside: and this part of the finding must lie in it;
        overlap: or the intersection over union with the lesion must exceed this.
    """

    within_mm: float = 3.0
    inside: float = 0.1
    overlap: float = 0.1


@dataclass(frozen=True)
class ChangeRegion:
    """Where one true change is, on the reference's grid.

    Attributes:
        id: of the change.
        box: the part of the grid that the two masks fill.
        changed: lesion at one time only, bool ``[z, y, x]``.
        lesion: lesion at any time.
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
        hits: ids of the findings that hit each change; every true change has an entry.
        false_volumes_ml: volume of each finding that hits none, by its id.
        findings: number of findings.
        kinds: for each change that was hit and each finding that says its kind: (true, said).
    """

    truth: tuple[TrueChange, ...]
    hits: Mapping[int, tuple[int, ...]]
    false_volumes_ml: Mapping[int, float]
    findings: int
    kinds: Mapping[int, tuple[str, str]] = field(default_factory=dict)

    def changes(self, *, least_change_mm: float = 0.0, solid_only: bool = False) -> tuple[TrueChange, ...]:
        """True changes, without stable lesions, whose diameter changed by at least ``least_change_mm``."""
        return tuple(
            c
            for c in self.truth
            if c.is_change and c.diameter_change_mm >= least_change_mm and (c.solid or not solid_only)
        )

    def found(self, *, least_change_mm: float = 0.0, solid_only: bool = False) -> tuple[TrueChange, ...]:
        """Those of :meth:`changes` that were hit."""
        return tuple(c for c in self.changes(least_change_mm=least_change_mm, solid_only=solid_only) if self.hits[c.id])

    def missed(self, *, least_change_mm: float = 0.0, solid_only: bool = False) -> tuple[TrueChange, ...]:
        """Those of :meth:`changes` that were not hit."""
        return tuple(
            c for c in self.changes(least_change_mm=least_change_mm, solid_only=solid_only) if not self.hits[c.id]
        )

    def recall(self, *, least_change_mm: float = 0.0, solid_only: bool = False) -> float:
        """Part of the true changes that was found; NaN when there is none to find."""
        wanted = self.changes(least_change_mm=least_change_mm, solid_only=solid_only)
        found = self.found(least_change_mm=least_change_mm, solid_only=solid_only)
        return len(found) / len(wanted) if wanted else float("nan")

    @property
    def precision(self) -> float:
        """Part of the findings that hit a true change; NaN when there is no finding."""
        return 1 - len(self.false_volumes_ml) / self.findings if self.findings else float("nan")

    @property
    def largest_false_ml(self) -> float:
        """Volume of the largest false finding, 0 when there is none."""
        return max(self.false_volumes_ml.values(), default=0.0)


def change_region(change: TrueChange, grid: Grid, *, inside: NDArray[np.bool_] | None = None) -> ChangeRegion:
    """The region of a change whose outline is known, or else that of spheres of its diameters.

    Args:
        change: a lesion of the truth.
        grid: in the reference's space.
        inside: where changes are looked for (the lungs), bool ``[z, y, x]``; everywhere by default.
    """
    now, before, box = change.inside(grid)
    allowed = True if inside is None else inside[box]
    return ChangeRegion(change.id, box, (now ^ before) & allowed, (now | before) & allowed)


def region_of_masks(number: int, reference: NDArray[np.bool_], template: NDArray[np.bool_]) -> ChangeRegion:
    """The region of change ``number`` where L^R and L^T(y) are at hand, bool ``[z, y, x]`` on one grid."""
    everything = (slice(0, reference.shape[0]), slice(0, reference.shape[1]), slice(0, reference.shape[2]))
    return ChangeRegion(number, everything, reference ^ template, reference | template)


def match_findings(
    findings: Sequence[FindingLike],
    truth: Sequence[TrueChange],
    grid: Grid,
    *,
    labels: NDArray[np.integer] | None = None,
    inside: NDArray[np.bool_] | None = None,
    rule: HitRule | None = None,
) -> Detection:
    """Compare findings with the truth.

    Args:
        findings: of one pair.
        truth: its lesions, stable ones included.
        grid: the reference's grid.
        labels: each finding's id in its voxels, ``[z, y, x]``; without them a sphere of the long
            diameter stands for a finding.
        inside: where changes are looked for; see :func:`change_region`.
        rule: when a touch is a hit.

    Returns:
        Hits, false findings, recall and precision.

    Raises:
        InputError: when ``labels`` does not fit ``grid`` or holds other ids than ``findings``.
    """
    if labels is None:
        labels = paint_findings(findings, grid)
    elif not set(np.unique(labels).tolist()) <= {0, *(f.id for f in findings)}:
        raise InputError(
            "found ids that no finding has", field="labels", remedy="pass the findings that belong to them"
        )
    result = match_labels(labels, truth, grid, inside=inside, rule=rule)
    said = {f.id: f.kind for f in findings}
    sizes = np.bincount(labels.ravel())
    kinds = {
        c.id: (c.kind, said[max(result.hits[c.id], key=lambda number: sizes[number])])
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
    """Compare labelled components, whatever made them, with the truth.

    Args:
        labels: ids above 0 in the components' voxels, ``[z, y, x]``.
        truth: the lesions, stable ones included.
        grid: the reference's grid.
        regions: of the changes where masks are at hand; else :func:`change_region` makes them.
        inside: see :func:`change_region`.
        rule: when a touch is a hit.
        sizes: voxels of every id from 0, where they are known; counting them in a whole scan takes longer than the
            rest.

    Raises:
        InputError: when ``labels`` does not fit ``grid``.
    """
    if labels.shape != grid.shape:
        raise InputError(f"found shape {labels.shape}", field="labels", expected=f"the reference's {grid.shape}")
    rule = rule or HitRule()
    sizes = np.bincount(labels.ravel()) if sizes is None else sizes
    changed = [c for c in truth if c.is_change]
    regions = regions if regions is not None else [change_region(c, grid, inside=inside) for c in changed]
    by_id = {region.id: _hits(labels, sizes, region, grid, rule) for region in regions}
    hits = {c.id: by_id.get(c.id, ()) for c in changed}
    true_findings = {number for numbers in hits.values() for number in numbers}
    present = [int(number) for number in np.flatnonzero(sizes) if number > 0]
    false = {n: float(sizes[n]) * grid.voxel_volume_ml for n in present if n not in true_findings}
    return Detection(tuple(truth), hits, false, len(present))


def paint_findings(findings: Sequence[FindingLike], grid: Grid) -> NDArray[np.int32]:
    """Each finding as a sphere of its long diameter (at least its centre's voxel), ``[z, y, x]``."""
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
        both = int((component & lesion).sum())
        overlap = both / (int(sizes[number]) + int(lesion.sum()) - both)
        if (component & near).sum() >= rule.inside * sizes[number] or overlap > rule.overlap:
            hits.append(int(number))
    return tuple(hits)
