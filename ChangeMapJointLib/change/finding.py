"""One finding: where something changed, by how much, and what kind of change it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ChangeMapJointLib.change.kinds import Kind
from ChangeMapJointLib.change.location import Third
from ChangeMapJointLib.change.sections import Section
from ChangeMapJointLib.core.grid import Vector3
from ChangeMapJointLib.lesions.measure import LesionMeasure

Lung = Literal["right", "left"]


@dataclass(frozen=True)
class Finding:
    """One change.

    Attributes:
        id: 1, 2, ...: the value in :attr:`Findings.labels`.
        kind: 'new', 'grown', 'shrunk', 'resolved', or just 'increase' or 'decrease' where none of these is certain.
        centre_mm: centroid of the region of change, physical (x, y, z) LPS in the reference's space.
        centre_template_mm: the corresponding point in the template's space, y(centre).
        peak_mm: centre of the voxel where the change map is highest.
        lung: 'right' or 'left' (the patient's side).
        voxels: size of the region on the map's grid.
        volume_ml: volume of the region of change (not of the lesion).
        peak: largest value of the change map in the region, 0 to 1.
        peak_hu: R - T(y) in HU at the voxel of the region where it is farthest from 0.
        long_diameter_mm: longest axial diameter of the region.
        perpendicular_diameter_mm: longest diameter perpendicular to it in the same slice.
        elongation: longest over shortest principal extent of the region; vessels and rims are elongated.
        lesion_reference: the lesion measured in the reference; None where none could be segmented.
        lesion_template: the lesion measured in the template; None where none could be segmented.
        volume_change_percent: change of volume from template to reference; None unless both are measured.
        volume_change_interval_percent: its confidence interval (about 95 %).
        diameter_change_mm: change of the long axial diameter; None unless both are measured.
        trust: trust in the registration there, 0 to 1; None where unknown.
        partner: id of a finding of the opposite sign that is probably the same structure, displaced by an error of the
            registration; None where there is none.
        remark: a few sentences for the reader.
        probability: that a lesion really changed, 0 to 1; None where nothing judged it: after :func:`list_findings
            <ChangeMapJointLib.change.findings.list_findings>` and in the folders of older runs.
        section: where it is listed, see :data:`~ChangeMapJointLib.change.sections.Section`.
        third: 'upper', 'middle' or 'lower' third of the lung's height, where the denser scan shows the lung whole; else
            None.
        interval_days: days from the prior scan to the current one; None where a date is unknown.
        doubling_time_days: volume doubling time of a lesion that is larger than before; else None.
        doubling_time_interval_days: its confidence interval (about 95 %), from the shortest to the longest; the longest
            is None where the measurement error allows no growth at all.
        reason: key of :data:`~ChangeMapJointLib.change.sections.REASONS` that explains it; None where none does.
    """

    id: int
    kind: Kind
    centre_mm: Vector3
    centre_template_mm: Vector3
    peak_mm: Vector3
    lung: Lung
    voxels: int
    volume_ml: float
    peak: float
    peak_hu: float
    long_diameter_mm: float
    perpendicular_diameter_mm: float
    elongation: float
    lesion_reference: LesionMeasure | None
    lesion_template: LesionMeasure | None
    volume_change_percent: float | None
    volume_change_interval_percent: tuple[float, float] | None
    diameter_change_mm: float | None
    trust: float | None
    partner: int | None
    remark: str
    probability: float | None = None
    section: Section = "finding"
    reason: str | None = None
    third: Third | None = None
    interval_days: int | None = None
    doubling_time_days: float | None = None
    doubling_time_interval_days: tuple[float, float | None] | None = None
