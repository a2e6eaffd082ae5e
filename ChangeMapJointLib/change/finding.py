"""One finding: what changed at one place, by how much, and whether it can be named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ChangeMapJointLib.change.kinds import Kind
from ChangeMapJointLib.core.grid import Vector3
from ChangeMapJointLib.lesions.measure import LesionMeasure

Lung = Literal["right", "left"]


@dataclass(frozen=True)
class Finding:
    """One change.

    Attributes:
        id: 1, 2, ...: the value in :attr:`Findings.labels`.
        kind: 'new', 'grown', 'shrunk', 'resolved', or plain 'increase' or 'decrease' where it cannot be told.
        centre_mm: centroid of the region of change, physical (x, y, z) LPS in the reference's space.
        centre_template_mm: the same place in the template's space, y(centre).
        peak_mm: centre of the voxel where the change map is highest.
        lung: 'right' or 'left', the patient's.
        voxels: size of the region on the map's grid.
        volume_ml: volume of the region of change (not of the lesion).
        peak: largest value of the change map in it, 0 to 1.
        peak_hu: R - T(y) in HU where it is farthest from 0.
        long_diameter_mm: longest axial diameter of the region.
        perpendicular_diameter_mm: longest one across it in the same slice.
        elongation: longest over shortest principal extent of the region; vessels and rims are long.
        lesion_reference: the lesion measured in the reference, None where none could be delimited.
        lesion_template: the same lesion measured in the template.
        volume_change_percent: from template to reference, where both are measured.
        volume_change_interval_percent: what the error of measurement leaves of it (about 95 %).
        diameter_change_mm: change of the long axial diameter, where both are measured.
        trust: how far the registration can be believed there, 0 to 1; None where unknown.
        partner: id of a finding of the opposite sign that is probably the same, displaced structure.
        remark: one or two sentences for the reader.
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

    @property
    def dipole(self) -> bool:
        """Is it one side of a displaced structure?"""
        return self.partner is not None
