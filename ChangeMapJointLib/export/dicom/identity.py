"""The patient that the objects name: that of the current scan, or none."""

from __future__ import annotations

import copy
from dataclasses import replace

from pydicom.dataset import Dataset

from ChangeMapJointLib.export.dicom.content import make_uid
from ChangeMapJointLib.io.dicom.images import PATIENT, STUDY, UIDS, SourceImages
from ChangeMapJointLib.io.dicom.values import as_text, patient_key

ANONYMOUS = "Anonymous"


def anonymous(scan: SourceImages) -> SourceImages:
    """Return the images without patient, study, dates and real UIDs.

    Each UID is replaced by one computed from it, always the same, so that the objects of several exports still refer to
    each other. Who knows a real UID can recognise it; nobody can compute it back.
    """
    return replace(scan, images=tuple(_anonymous(image) for image in scan.images))


def _anonymous(image: Dataset) -> Dataset:
    result = copy.deepcopy(image)
    for keyword in (*PATIENT, *STUDY):
        if keyword not in UIDS and keyword in result:
            setattr(result, keyword, "")
    result.PatientName = ANONYMOUS
    for keyword in UIDS:
        setattr(result, keyword, make_uid("anonymous", result[keyword].value))
    if "SpecificCharacterSet" in result:
        del result.SpecificCharacterSet
    return result


def same_patient(first: SourceImages, second: SourceImages) -> bool:
    """Whether both series name the same patient, or one of them none."""
    keys = [
        patient_key(*(as_text(scan.first.get(keyword)) for keyword in ("PatientID", "PatientName")))
        for scan in (first, second)
    ]
    return None in keys or keys[0] == keys[1]
