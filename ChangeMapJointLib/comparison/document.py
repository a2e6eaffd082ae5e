"""Whose scans a run compared, for a document: read from the series, since a run keeps neither names nor UIDs."""

from __future__ import annotations

from pathlib import Path

from ChangeMapJointLib.comparison.inputs import Input, check_inputs
from ChangeMapJointLib.comparison.load import SavedResult
from ChangeMapJointLib.comparison.to_dicom import check_same_scan
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.export.document.content import Identity
from ChangeMapJointLib.io.dicom.images import read_source_images
from ChangeMapJointLib.io.dicom.values import as_iso_date, as_text
from ChangeMapJointLib.io.read import is_dicom, split_selector


def identity_of(result: SavedResult, reference: Path) -> Identity:
    """Return whose scans these are.

    Args:
        result: read from the folder of a run.
        reference: DICOM series of the current scan, checked to be the one that was compared.

    Raises:
        InputError: the series is not DICOM, or is another one.
    """
    file, selector = split_selector(reference)
    check_inputs([file])
    if not is_dicom(file):
        raise InputError("is not DICOM", field=("reference", file), expected="the DICOM series that was compared")
    volume, _ = Input(reference).read(lambda *_: None)
    check_same_scan(volume, result.record["reference"], "reference", reference)
    first = read_source_images(file, selector).first
    return Identity(
        as_text(first.get("PatientName")).replace("^", " ").strip(),
        as_text(first.get("PatientID")),
        as_iso_date(first.get("PatientBirthDate")) or "",
        as_text(first.get("PatientSex")),
        as_text(first.get("AccessionNumber")),
        as_text(first.get("StudyInstanceUID")),
    )
