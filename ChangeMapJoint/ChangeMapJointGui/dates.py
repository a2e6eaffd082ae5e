"""When a volume node's scan was made, from the DICOM attributes that Slicer keeps."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Any

import slicer

from ChangeMapJointLib.volumes.volume import Acquisition

DATE_TAGS = ("0008,0022", "0008,0021", "0008,0020")  # acquisition, series, study
KERNEL_TAG, THICKNESS_TAG = "0018,1210", "0018,0050"
DATE_ATTRIBUTE = "ChangeMapJoint.date"  # for scans that were not loaded from DICOM


def acquisitionOf(node: Any) -> Acquisition:
    """Date, kernel and slice thickness of the scan in ``node``; None where nothing is known."""
    instances = (node.GetAttribute("DICOM.instanceUIDs") or "").split()
    first = instances[0] if instances else ""
    date = next((d for d in (_isoDate(_value(first, tag)) for tag in DATE_TAGS) if d), None)
    thickness = None
    with suppress(ValueError):
        thickness = float(_value(first, THICKNESS_TAG))
    return Acquisition(
        date=date or _isoDate(node.GetAttribute(DATE_ATTRIBUTE) or "") or _studyDate(node),
        kernel=_value(first, KERNEL_TAG) or None,
        slice_thickness_mm=thickness,
    )


def _value(instance: str, tag: str) -> str:
    """A DICOM value from Slicer's database; empty where there is none."""
    database = getattr(slicer, "dicomDatabase", None)
    if not instance or database is None:
        return ""
    return str(database.instanceValue(instance, tag) or "").strip()


def _studyDate(node: Any) -> str | None:
    """The date of the study that the subject hierarchy files ``node`` under."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(node) if hierarchy is not None else 0
    name = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMStudyDateAttributeName() if item else ""
    while item and item != hierarchy.GetSceneItemID():
        if date := _isoDate(hierarchy.GetItemAttribute(item, name) or ""):
            return date
        item = hierarchy.GetItemParent(item)
    return None


def _isoDate(text: str) -> str | None:
    """``20240131`` or ``2024-01-31`` as ISO; None for anything else."""
    with suppress(ValueError):
        return datetime.strptime(text.replace("-", "")[:8], "%Y%m%d").date().isoformat()
    return None
