"""Date and acquisition of a volume node's scan, from the DICOM attributes that Slicer keeps."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Any

import slicer

from ChangeMapJointLib.io.dicom.contrast import contrast_agent
from ChangeMapJointLib.io.dicom.values import lossy_ratio, patient_key
from ChangeMapJointLib.scan.volume import Acquisition

DATE_TAGS = ("0008,0022", "0008,0021", "0008,0020")  # acquisition, series, study
KERNEL_TAG, THICKNESS_TAG, KV_TAG = "0018,1210", "0018,0050", "0018,0060"
LOSSY_TAGS = ("0028,2110", "0028,2112")  # whether, and the ratio
MODALITY_TAG, CONTRAST_TAG, PATIENT_TAGS = "0008,0060", "0018,0010", ("0010,0020", "0010,0010")
DATE_ATTRIBUTE = "ChangeMapJoint.date"  # for scans that were not loaded from DICOM


def acquisitionOf(node: Any) -> Acquisition:
    """Return the acquisition of the scan in ``node``, which the gate checks; unknown values are None."""
    first = firstInstance(node)
    date = next((d for d in (_isoDate(instanceValue(first, tag)) for tag in DATE_TAGS) if d), None)
    patient = [instanceValue(first, tag) for tag in PATIENT_TAGS]
    return Acquisition(
        date=date or _isoDate(node.GetAttribute(DATE_ATTRIBUTE) or "") or _studyDate(node),
        kernel=instanceValue(first, KERNEL_TAG) or None,
        slice_thickness_mm=_number(first, THICKNESS_TAG),
        modality=instanceValue(first, MODALITY_TAG) or None,
        contrast=contrast_agent(instanceValue(first, CONTRAST_TAG), patient),
        patient_key=patient_key(*patient),
        kvp=_number(first, KV_TAG),
        lossy_ratio=lossy_ratio(*(instanceValue(first, tag) for tag in LOSSY_TAGS)),
    )


def firstInstance(node: Any) -> str:
    """Return the UID of the first DICOM file of a volume node; empty if it was not loaded from DICOM."""
    instances = (node.GetAttribute("DICOM.instanceUIDs") or "").split()
    return instances[0] if instances else ""


def _number(instance: str, tag: str) -> float | None:
    """Return a DICOM value as a number; None if it is not one."""
    with suppress(ValueError):
        return float(instanceValue(instance, tag))
    return None


def instanceValue(instance: str, tag: str) -> str:
    """Return a DICOM value from Slicer's database; empty if there is none."""
    database = getattr(slicer, "dicomDatabase", None)
    if not instance or database is None:
        return ""
    return str(database.instanceValue(instance, tag) or "").strip()


def _studyDate(node: Any) -> str | None:
    """Return the date of the study that ``node`` belongs to in the subject hierarchy."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(node) if hierarchy is not None else 0
    name = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMStudyDateAttributeName() if item else ""
    while item and item != hierarchy.GetSceneItemID():
        if date := _isoDate(hierarchy.GetItemAttribute(item, name) or ""):
            return date
        item = hierarchy.GetItemParent(item)
    return None


def _isoDate(text: str) -> str | None:
    """Convert ``20240131`` or ``2024-01-31`` to an ISO date; None for anything else."""
    with suppress(ValueError):
        return datetime.strptime(text.replace("-", "")[:8], "%Y%m%d").date().isoformat()
    return None
