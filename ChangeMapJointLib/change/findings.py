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
from ChangeMapJointLib.change.measured import measure_lesions
from ChangeMapJointLib.change.method_table import DEFAULT_THRESHOLD, MOST_FINDINGS, SMALLEST_REGION_VOX
from ChangeMapJointLib.change.naming import dipole_partners
from ChangeMapJointLib.change.regions import CONNECTIVITY_RANK, Region, SignedArray, change_regions
from ChangeMapJointLib.change.sections import (
    DEFAULT_OPERATING_POINT,
    OPERATING_POINTS,
    OperatingPoint,
    Section,
)
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.lesions.measure import LesionMeasure, MeasureOptions
from ChangeMapJointLib.scan.pair import ScanPair

__all__ = ["Finding", "FindingOptions", "Findings", "Kind", "LesionMeasure", "Lung", "list_findings"]


@dataclass(frozen=True)
class FindingOptions:
    """What counts as a finding.

    Attributes:
        threshold: value from which the change map shows a region and :func:`list_findings` lists it, in (0, 1]; by
            default that of the sequential method in :data:`~ChangeMapJointLib.change.method_table.METHODS`. A run
            measures weaker change as well, and lists what is probable.
        operating_point: how probable a finding must be, ``sensitive``, ``standard`` or ``specific``; see
            :data:`~ChangeMapJointLib.change.sections.OPERATING_POINT_HINTS`.
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
    operating_point: OperatingPoint = DEFAULT_OPERATING_POINT
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
            "operating_point": (self.operating_point in OPERATING_POINTS, f"one of {', '.join(OPERATING_POINTS)}"),
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
    """The changes of a pair: what is listed, and what else was measured.

    :func:`list_findings` sorts by volume times peak, a run as :func:`~ChangeMapJointLib.change.judged.judge_changes`
    says.

    Attributes:
        items: the findings; ``items[i].id == i + 1``.
        labels: int32 ``[z, y, x]`` on the map's grid with the ids of findings and others, 0 elsewhere; None where they
            were read from a table.
        dropped: number of smaller regions that ``max_findings`` left out.
        threshold: threshold of the change map.
        withheld: number of findings that are not shown because the registration failed; then ``items`` is empty.
        why: the reasons for that, one sentence each.
        others: the changes of the other sections, ``possible``, ``explained`` and ``stable``; their ids go on after
            those of the findings.
        operating_point: how probable a finding must be; None where nothing judged the changes.
    """

    items: tuple[Finding, ...]
    labels: NDArray[np.int32] | None
    dropped: int = 0
    threshold: float = DEFAULT_THRESHOLD
    withheld: int = 0
    why: tuple[str, ...] = ()
    others: tuple[Finding, ...] = ()
    operating_point: OperatingPoint | None = None

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def section(self, name: Section) -> tuple[Finding, ...]:
        """The changes of one section, in order."""
        return tuple(item for item in (*self.items, *self.others) if item.section == name)

    def withhold(self, why: tuple[str, ...]) -> Findings:
        """Withhold all changes for the reasons ``why``: after a failed registration they show no real change."""
        labels = None if self.labels is None else np.zeros_like(self.labels)
        withheld = len(self.items) + len(self.others) + self.dropped
        return replace(self, items=(), others=(), labels=labels, dropped=0, withheld=withheld, why=why)


def list_findings(
    change_map: NDArray[np.float32],
    signed_hu: SignedArray,
    pair: ScanPair,
    field: DisplacementField,
    *,
    trust: NDArray[np.floating] | TrustFunction | None = None,
    options: FindingOptions | None = None,
) -> Findings:
    """List the regions where the change map reaches the threshold, with the lesions measured in both scans.

    Nothing judges them: :func:`~ChangeMapJointLib.change.judged.judge_changes` does.

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
    changes = measure_lesions(regions[: options.max_findings], grid, field, *scans, options=options.measure)
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
