"""From change maps to findings: what changed, where, and by how much.

An increase is denser now than before, a decrease is less dense. A finding is called *new*, *grown*, *shrunk* or
*resolved* only where a lesion is measured, in each scan on its own grid, and differs by more than the measurement
error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.change.build_finding import TrustFunction, build_finding
from ChangeMapJointLib.change.finding import Finding, Lung
from ChangeMapJointLib.change.kinds import Kind
from ChangeMapJointLib.change.lesion_pairs import Change, LocalMotion, find_lesion_pair, local_motions
from ChangeMapJointLib.change.method_table import DEFAULT_THRESHOLD, MOST_FINDINGS, SMALLEST_REGION_VOX
from ChangeMapJointLib.change.naming import classify_change, dipole_partners
from ChangeMapJointLib.change.regions import CONNECTIVITY_RANK, Region, SignedArray, change_regions
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.lesions.measure import Lesion, LesionMeasure, MeasureOptions
from ChangeMapJointLib.scan.pair import ScanPair
from ChangeMapJointLib.scan.scan import Scan

__all__ = ["Finding", "FindingOptions", "Findings", "Kind", "LesionMeasure", "Lung", "list_findings"]


@dataclass(frozen=True)
class FindingOptions:
    """What counts as a finding.

    Attributes:
        threshold: lowest value of the change map, in (0, 1]; by default that of the sequential
            method in :data:`~ChangeMapJointLib.change.method_table.METHODS`.
        proven_threshold: if given, in (0, threshold]: weaker change down to this value is listed as well, but only
            where a lesion proves to be new, grown, shrunk or resolved. The map stays below ``threshold`` on shells
            thinner than a voxel, such as that of a nodule that grew.
        min_voxels: smallest number of voxels of a region, >= 1.
        connectivity: 6, 18 or 26 neighbours.
        merge_mm: widest gap between fragments that is bridged by weaker change, >= 0.
        bridge: how strong that weaker change must be, as a fraction of the threshold, in (0, 1].
        dipole_mm: largest distance at which a new and a resolved lesion of equal size count as one lesion that the
            registration left displaced.
        max_findings: maximum number of findings, >= 1; only the largest are kept and measured.
        measure: options of the measurement of lesions.
    """

    threshold: float = DEFAULT_THRESHOLD
    proven_threshold: float | None = None
    min_voxels: int = SMALLEST_REGION_VOX
    connectivity: int = 26
    merge_mm: float = 4.0
    bridge: float = 0.6
    dipole_mm: float = 10.0
    max_findings: int = MOST_FINDINGS
    measure: MeasureOptions = dataclass_field(default_factory=MeasureOptions)

    def __post_init__(self) -> None:
        checks = {
            "threshold": (0 < self.threshold <= 1, "in (0, 1]"),
            "proven_threshold": (
                self.proven_threshold is None or 0 < self.proven_threshold <= self.threshold,
                "above 0 and at most the threshold",
            ),
            "min_voxels": (self.min_voxels >= 1, "1 or more"),
            "connectivity": (self.connectivity in CONNECTIVITY_RANK, "6, 18 or 26"),
            "merge_mm": (self.merge_mm >= 0, "0 or more"),
            "bridge": (0 < self.bridge <= 1, "in (0, 1]"),
            "dipole_mm": (self.dipole_mm >= 0, "0 or more"),
            "max_findings": (self.max_findings >= 1, "1 or more"),
        }
        for name, (valid, expected) in checks.items():
            if not valid:
                raise InputError(f"found {getattr(self, name)}", field=f"FindingOptions.{name}", expected=expected)


@dataclass(frozen=True)
class Findings:
    """All findings of a pair, sorted by volume times peak, the largest first.

    Attributes:
        items: the findings; ``items[i].id == i + 1``.
        labels: int32 ``[z, y, x]`` on the map's grid with the findings' ids, 0 elsewhere; None where the findings were
            read from a table.
        dropped: number of smaller regions that ``max_findings`` left out.
        threshold: threshold of the change map.
        withheld: number of findings that are not shown because the registration failed; then ``items`` is empty.
        why: the reasons for that, one sentence each.
    """

    items: tuple[Finding, ...]
    labels: NDArray[np.int32] | None
    dropped: int = 0
    threshold: float = DEFAULT_THRESHOLD
    withheld: int = 0
    why: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def withhold(self, why: tuple[str, ...]) -> Findings:
        """Withhold all findings for the reasons ``why``: after a failed registration they show no real change."""
        labels = None if self.labels is None else np.zeros_like(self.labels)
        return replace(self, items=(), labels=labels, dropped=0, withheld=len(self.items) + self.dropped, why=why)


def list_findings(
    change_map: NDArray[np.float32],
    signed_hu: SignedArray,
    pair: ScanPair,
    field: DisplacementField,
    *,
    trust: NDArray[np.floating] | TrustFunction | None = None,
    options: FindingOptions | None = None,
) -> Findings:
    """List what changed, with the lesions measured in both scans.

    Args:
        change_map: float32 ``[z, y, x]`` in [0, 1] on the reference's grid.
        signed_hu: R - T(y) in HU on the same grid.
        pair: the current scan R and the prior T, not warped, with their lungs.
        field: y from R to T.
        trust: trust in [0, 1], as float32 ``[z, y, x]`` on the reference's grid or as a function of points ``[n, 3]``
            in mm; None where unknown.
        options: what counts as a finding.

    Returns:
        The findings; none for equal scans.

    Raises:
        ValueError: an array does not have the shape of the reference.
    """
    options = options or FindingOptions()
    grid, scans = pair.reference.grid, (pair.reference, pair.template)
    _check_shapes(change_map, signed_hu, grid)
    regions = _regions(change_map, signed_hu, grid, options.threshold, options)
    changes = _measure_lesions(regions[: options.max_findings], grid, field, *scans, options=options.measure)
    if options.proven_threshold is not None:
        weak = _regions(change_map, signed_hu, grid, options.proven_threshold, options)
        weak = _not_listed(weak, regions, changes, grid)[: options.max_findings]
        candidates = _measure_lesions(weak, grid, field, *scans, options=options.measure)
        changes += [c for c in candidates if classify_change(c.region.sign, c.pair) not in ("increase", "decrease")]
    changes.sort(key=lambda change: -change.region.weight)
    partners = dipole_partners(changes, grid, farthest_mm=options.dipole_mm)
    labels = np.zeros(grid.shape, dtype=np.int32)
    items = []
    for number, change in enumerate(changes, start=1):
        labels[tuple(change.region.voxels.T)] = number
        items.append(
            build_finding(
                number,
                change,
                partner=partners[number - 1] + 1 if number - 1 in partners else None,
                signed_hu=signed_hu,
                grid=grid,
                field=field,
                reference=scans[0],
                template=scans[1],
                trust=trust,
            )
        )
    return Findings(tuple(items), labels, max(len(regions) - options.max_findings, 0), options.threshold)


def _regions(
    change_map: NDArray[np.float32],
    signed_hu: SignedArray,
    grid: Grid,
    threshold: float,
    options: FindingOptions,
) -> list[Region]:
    return change_regions(
        change_map,
        signed_hu,
        grid,
        threshold=threshold,
        min_voxels=options.min_voxels,
        connectivity=options.connectivity,
        merge_mm=options.merge_mm,
        bridge=options.bridge,
    )


def _check_shapes(
    change_map: NDArray[np.float32],
    signed_hu: SignedArray,
    grid: Grid,
) -> None:
    for name, array in (("change_map", change_map), ("signed_hu", signed_hu)):
        if array.shape != grid.shape:
            raise ValueError(
                f"list_findings() '{name}' must have the reference's shape {grid.shape}, got {array.shape}"
            )


def _measure_lesions(
    regions: list[Region],
    grid: Grid,
    field: DisplacementField,
    reference: Scan,
    template: Scan,
    *,
    options: MeasureOptions,
) -> list[Change]:
    """Find the lesion behind each region; regions of the same sign in one lesion are merged."""
    motions = local_motions(regions, grid, field)
    remaining = list(range(len(regions)))
    changes = []
    while remaining:
        first = remaining.pop(0)
        region, motion = regions[first], motions[first]
        pair = find_lesion_pair(region, grid, motion, reference=reference, template=template, options=options)
        lesion = pair.primary(region.sign)
        if lesion is not None:
            same = [i for i in remaining if _lies_in_lesion(regions[i], region.sign, lesion, motion, grid)]
            remaining = [i for i in remaining if i not in same]
            region = region.merged_with([regions[i] for i in same])
        changes.append(Change(region, motion, pair))
    return changes


def _lies_in_lesion(region: Region, sign: int, lesion: Lesion, motion: LocalMotion, grid: Grid) -> bool:
    """Whether most of ``region`` lies in a lesion that was found from another region, of sign ``sign``."""
    if region.sign != sign:
        return False
    points = region.points_mm(grid)
    points = points if sign > 0 else motion.to_template(points)
    return lesion.may_contain(points) and lesion.contains(points, margin_mm=max(grid.spacing_mm)).mean() > 0.5


def _not_listed(weak: list[Region], strong: list[Region], changes: list[Change], grid: Grid) -> list[Region]:
    """The weak regions that neither contain a strong one nor lie in a lesion that is listed already."""
    listed = np.zeros(grid.shape, dtype=bool)
    for region in strong:
        listed[tuple(region.voxels.T)] = True
    lesions = [(c, c.pair.primary(c.region.sign)) for c in changes]
    return [
        region
        for region in weak
        if not listed[tuple(region.voxels.T)].any()
        and not any(
            lesion is not None and _lies_in_lesion(region, c.region.sign, lesion, c.motion, grid)
            for c, lesion in lesions
        )
    ]
