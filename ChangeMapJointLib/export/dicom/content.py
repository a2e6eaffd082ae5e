"""What the DICOM objects of a result are made from."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ChangeMapJointLib import __version__
from ChangeMapJointLib.change.finding import Finding
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.grid import FloatArray, Grid
from ChangeMapJointLib.export.content import ReportContent
from ChangeMapJointLib.export.document.content import DocumentContent
from ChangeMapJointLib.gate.answer import GateAnswer
from ChangeMapJointLib.io.dicom.images import SourceImages
from ChangeMapJointLib.registration.quality import Quality

MANUFACTURER = MODEL = "ChangeMapJoint"
RESEARCH = "Research use, not a medical device"
SERIAL = "none"  # a program has no serial number, but the element must not be empty
_NAMESPACE = uuid.UUID("6c1c3f5e-3a53-5d4e-9a5f-0f0a6a2d7c11")  # of all UIDs that are made here
_FIRST_SERIES = 9701  # above the numbers that scanners give


@dataclass(frozen=True)
class DicomContent:
    """One result and the images that it was computed from.

    Attributes:
        reference: images of the current scan, with the patient and study that the objects carry.
        template: images of the prior scan.
        key: names the result; the same key gives the same UIDs.
        created: when the result was computed.
        versions: of this library and of what it is built on.
        quality: the verdict on the registration.
        gate: whether the scans may be compared.
        rigid: 4x4, maps points (x, y, z) of the current scan to the prior, mm, LPS.
        grid: grid of the maps, the current scan's.
        displacement: u of ``y(x) = x + u(x)``; None with method ``rigid``.
        change_map: float32 [0, 1], ``[z, y, x]`` on ``grid``; None with method ``rigid``.
        findings: what is listed.
        labels: id of the finding that a voxel belongs to, ``[z, y, x]`` on ``grid``; None with method ``rigid``.
        withheld: number of findings that are not given because the registration failed.
        not_seen: what the comparison could not see, one sentence each.
        report: what the pages show; None for pages without pictures.
        document: what the PDF says; None for no PDF.
        tracking: (identifier, UID) of lesions that an earlier export followed, by the id of the finding.
    """

    reference: SourceImages
    template: SourceImages
    key: str
    created: datetime
    versions: Mapping[str, str]
    quality: Quality
    gate: GateAnswer
    rigid: FloatArray
    grid: Grid
    displacement: DisplacementField | None = None
    change_map: NDArray[np.float32] | None = None
    findings: tuple[Finding, ...] = ()
    labels: NDArray[np.integer[Any]] | None = None
    withheld: int = 0
    not_seen: tuple[str, ...] = ()
    report: ReportContent | None = None
    document: DocumentContent | None = None
    tracking: Mapping[int, tuple[str, str]] = field(default_factory=dict)

    def uid(self, *names: object) -> str:
        """Return a UID that is the same whenever the same result is exported by the same version."""
        return make_uid(self.key, __version__, *names)

    def decision(self, finding: Finding) -> str:
        """Return the reader's decision on a finding, ``accepted`` or ``rejected``; empty without one."""
        known = {} if self.document is None else self.document.decisions
        return known[finding.id].word if finding.id in known else ""

    @property
    def decided(self) -> tuple[str, ...]:
        """All decisions, as part of the UIDs of the objects that hold them; empty without any."""
        decided = [(finding.id, self.decision(finding)) for finding in self.findings]
        return tuple(f"{number} {word}" for number, word in decided if word)

    def tracking_of(self, finding: Finding) -> tuple[str, str]:
        """Return identifier and UID under which a finding is followed through time points.

        Those of the earlier export, where it followed the lesion; else made of the series and the voxel of the peak,
        which repeated runs share.
        """
        if finding.id in self.tracking:
            return self.tracking[finding.id]
        voxel = np.rint(self.grid.to_index(finding.peak_mm)).astype(int).tolist()
        uid = make_uid("tracking", self.reference.series_uid, voxel)
        return f"Lesion {make_label(uid)}", uid

    def common(self, name: str, number: int) -> dict[str, Any]:
        """Return the arguments that all of highdicom's classes take, for the object ``name`` in series ``number``."""
        return {
            "series_instance_uid": self.uid(name, "series"),
            "series_number": _FIRST_SERIES + number,
            "sop_instance_uid": self.uid(name, "instance"),
            "instance_number": 1,
            "manufacturer": MANUFACTURER,
            "manufacturer_model_name": MODEL,
            "software_versions": __version__,
            "device_serial_number": SERIAL,
            "content_date": self.created.date(),
            "content_time": self.created.time().replace(microsecond=0),
            "series_date": self.created.date(),
            "series_time": self.created.time().replace(microsecond=0),
        }


def make_uid(*names: object) -> str:
    """Return the UID (in arc 2.25) that belongs to ``names``: the same names always give the same UID."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, chr(0).join(map(str, names))).int}"


def make_label(uid: str) -> str:
    """Return six letters and digits that stand for a UID where people read it."""
    return uuid.uuid5(_NAMESPACE, uid).hex[:6].upper()


def finish(content: DicomContent, dataset: Dataset, text: str) -> None:
    """Describe the series of an object, and take out of it what would differ from export to export.

    An archive that gets an object twice must get the same bytes under the same SOPInstanceUID.

    Args:
        content: what the object was made from.
        dataset: the object.
        text: description of its series, to which it is added that it is for research.
    """
    dataset.SeriesDescription = f"{text} ({RESEARCH})"[:64]
    if "SpecificCharacterSet" in content.reference.first:  # not all classes of highdicom copy it, and names were lost
        dataset.SpecificCharacterSet = content.reference.first.SpecificCharacterSet
    if dataset.Modality not in ("SR", "DOC"):  # their series have no such element
        dataset.BodyPartExamined = "CHEST"
    for keyword in ("InstanceCreationDate", "InstanceCreationTime"):
        dataset.pop(keyword, None)
    for equipment in dataset.get("ContributingEquipmentSequence") or []:
        equipment.ContributionDateTime = content.created.strftime("%Y%m%d%H%M%S")
    if "TimeOfSecondaryCapture" in dataset:
        dataset.DateOfSecondaryCapture, dataset.TimeOfSecondaryCapture = dataset.ContentDate, dataset.ContentTime
    for name in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
        for item in dataset.get(name) or []:
            item.DimensionOrganizationUID = make_uid(dataset.SOPInstanceUID, "dimensions")
