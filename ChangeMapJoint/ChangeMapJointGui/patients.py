"""Whether both scans are of one patient, from the DICOM attributes that Slicer keeps; no value is shown or stored."""

from __future__ import annotations

from typing import Any

import slicer
from slicer.i18n import tr as _

from ChangeMapJointGui.dates import firstInstance, instanceValue

# by name: tag, and attribute of the patient's item in the subject hierarchy
FIELDS = {
    "id": ("0010,0020", "DICOM.PatientID"),
    "name": ("0010,0010", "DICOM.PatientName"),
    "birth date": ("0010,0030", "DICOM.PatientBirthDate"),
    "sex": ("0010,0040", "DICOM.PatientSex"),
}
BODY_PART_TAG = "0018,0015"
CHEST_PARTS = ("CHEST", "THORAX", "LUNG", "TORSO", "CAP", "TAP", "CHESTABDOMEN", "CHESTABDPELVIS", "WHOLEBODY", "BODY")


def patientWarning(reference: Any, template: Any) -> str:
    """Return what says that the two scans are of two patients; empty if nothing does.

    Spelling does not count: case, spaces and the separators of names are ignored.
    """
    if reference is None or template is None:
        return ""
    first, second = _patient(reference), _patient(template)
    known = [name for name in FIELDS if first[name] and second[name]]
    different = [name for name in known if first[name] != second[name]]
    if not different:
        return ""
    names = {"id": _("patient ID"), "name": _("name"), "birth date": _("birth date"), "sex": _("sex")}
    fields = ", ".join(names[name] for name in different)
    if "id" in different:
        return _("TWO PATIENTS? The scans differ in {fields}. Do not compare them before this is cleared up.").format(
            fields=fields
        )
    return _("Check the patient: the scans have one patient ID or none, but differ in {fields}.").format(fields=fields)


def bodyPartWarning(*nodes: Any) -> str:
    """Return a sentence on scans whose header names a body part other than the chest; empty without any."""
    parts = [instanceValue(firstInstance(node), BODY_PART_TAG) for node in nodes if node is not None]
    others = [part for part in parts if part and not _isChest(part)]
    return _("The header names another body part: {parts}.").format(parts=", ".join(others)) if others else ""


def _isChest(part: str) -> bool:
    letters = "".join(filter(str.isalpha, part.upper()))
    return any(chest in letters for chest in CHEST_PARTS)


def _patient(node: Any) -> dict[str, str]:
    instance, item = firstInstance(node), _patientItem(node)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    values = {}
    for name, (tag, attribute) in FIELDS.items():
        value = instanceValue(instance, tag)
        if not value and item:
            value = str(hierarchy.GetItemAttribute(item, attribute) or "")
        values[name] = "".join(filter(str.isalnum, value.casefold()))
    return values


def _patientItem(node: Any) -> int:
    """Return the item of the node's patient in the subject hierarchy; 0 without one."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(node) if hierarchy is not None else 0
    while item and item != hierarchy.GetSceneItemID():
        if any(hierarchy.GetItemAttribute(item, attribute) for _tag, attribute in FIELDS.values()):
            return int(item)
        item = hierarchy.GetItemParent(item)
    return 0
