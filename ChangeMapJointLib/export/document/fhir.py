"""The document as FHIR R5: a Bundle of a DiagnosticReport and an Observation for each finding."""

from __future__ import annotations

import uuid
from typing import Any

from ChangeMapJointLib.export.document.content import RESEARCH, DocumentContent
from ChangeMapJointLib.export.finding_text import Entry, lesions
from ChangeMapJointLib.export.wording import KINDS

SCT, LOINC, UCUM = "http://snomed.info/sct", "http://loinc.org", "http://unitsofmeasure.org"
CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
SERVICE = "http://terminology.hl7.org/CodeSystem/v2-0074"
OWN = "https://github.com/ChangeMapJoint/ChangeMapJoint/codes"
_NAMESPACE = uuid.UUID("6d2f0f5e-6f0a-5b1e-9a55-2b5f0c0ddc7e")


def fhir(content: DocumentContent) -> dict[str, Any]:
    """Return the Bundle; findings that the reader rejected are left out."""
    observations = [(_id(content, "finding", entry["id"]), _observation(content, entry)) for entry in content.kept]
    report = {
        "resourceType": "DiagnosticReport",
        **_common(content, "report"),
        "status": "preliminary",
        "category": [_concept(SERVICE, "CT", "CAT Scan")],
        "code": _concept(LOINC, "24627-2", "CT Chest"),
        "issued": _instant(str(content.records["run"]["started"])),
        "result": [{"reference": f"urn:uuid:{one}"} for one, _ in observations],
        "conclusion": content.text(),
    }
    if content.identity.study:
        study = {"identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{content.identity.study}"}}
        report["study"] = [study]
    if not observations:
        del report["result"]
    resources = [(_id(content, "report"), report), *observations]
    return {
        "resourceType": "Bundle",
        "type": "collection",
        "timestamp": report["issued"],
        "entry": [{"fullUrl": f"urn:uuid:{one}", "resource": resource} for one, resource in resources],
    }


def _observation(content: DocumentContent, entry: Entry) -> dict[str, Any]:
    """A finding, with a component for each figure."""
    kind = str(KINDS.get(entry["kind"], entry["kind"]))
    components = [_component(_concept(OWN, "kind", "Kind of change"), {"valueString": kind})]
    for when, lesion in zip(("current", "prior"), lesions(entry), strict=True):
        if lesion is None:
            continue
        figures = (
            ("103339001", "Long axis", lesion["long_diameter_mm"], "mm"),
            ("103340004", "Short axis", lesion["perpendicular_diameter_mm"], "mm"),
            ("118565006", "Volume", 1000 * lesion["volume_ml"], "mm3"),
        )
        for code, name, value, unit in figures:
            concept = _concept(SCT, code, name)
            concept["text"] = f"{name}, {when} scan"
            components.append(_component(concept, _quantity(value, unit)))
    if entry.get("volume_change_percent") is not None:
        concept = _concept(OWN, "volume-change", "Change of volume")
        components.append(_component(concept, _quantity(entry["volume_change_percent"], "%")))
    if entry.get("doubling_time_days") is not None:
        concept = _concept(OWN, "doubling-time", "Volume doubling time")
        components.append(_component(concept, _quantity(entry["doubling_time_days"], "d")))
    if entry.get("probability") is not None:
        concept = _concept(OWN, "probability", "Probability that a lesion changed")
        components.append(_component(concept, _quantity(entry["probability"], "1")))
    note = [{"text": content.sentence(entry)}]
    comment = content.decisions.get(int(entry["id"]))
    if comment is not None and comment.comment:
        note.append({"text": f"Reader: {comment.comment}"})
    side = {"right": ("3341006", "Right lung"), "left": ("44029006", "Left lung")}.get(str(entry.get("lung")))
    return {
        "resourceType": "Observation",
        **_common(content, "finding", entry["id"]),
        "status": "preliminary",
        "category": [_concept(CATEGORY, "imaging", "Imaging")],
        "code": _concept(OWN, "lesion-change", "Change of a lesion between two CTs"),
        **({} if side is None else {"bodySite": _concept(SCT, *side)}),
        "note": note,
        "component": components,
    }


def _common(content: DocumentContent, *name: object) -> dict[str, Any]:
    """Identifier, patient and time of a resource."""
    identity, date = content.identity, content.dates[0]
    subject: dict[str, Any] = {}
    if identity.number:
        subject["identifier"] = {"value": identity.number}
    if identity.name:
        subject["display"] = identity.name
    return {
        "id": str(_id(content, *name)),
        "meta": {"tag": [{"system": OWN, "code": "research", "display": RESEARCH}]},
        "identifier": [{"system": OWN, "value": f"{content.sha256}/{'/'.join(map(str, name))}"}],
        **({"subject": subject} if subject else {}),
        **({"effectiveDateTime": date} if date else {}),
    }


def _id(content: DocumentContent, *name: object) -> uuid.UUID:
    """The same result has the same identifiers."""
    return uuid.uuid5(_NAMESPACE, "/".join(map(str, (content.sha256, *name))))


def _concept(system: str, code: str, display: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code, "display": display}]}


def _component(code: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    return {"code": code, **value}


def _quantity(value: float, unit: str) -> dict[str, Any]:
    return {"valueQuantity": {"value": round(float(value), 3), "unit": unit, "system": UCUM, "code": unit}}


def _instant(text: str) -> str:
    """A time with its zone; runs without one are taken for UTC."""
    return text if text.endswith("Z") or "+" in text[10:] or "-" in text[10:] else f"{text}Z"
