"""What a document says of a result, and whose scans it compared: a run keeps neither names nor UIDs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset

from ChangeMapJointLib.comparison.inputs import Input, check_inputs
from ChangeMapJointLib.comparison.load import SavedResult
from ChangeMapJointLib.comparison.to_dicom import check_same_scan
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.export.document.content import Decision, DocumentContent, Identity, read_document
from ChangeMapJointLib.io import run_files
from ChangeMapJointLib.io.dicom.images import read_source_images
from ChangeMapJointLib.io.dicom.values import as_iso_date, as_text, shown_name
from ChangeMapJointLib.io.read import is_dicom, split_selector

if TYPE_CHECKING:
    from ChangeMapJointLib.comparison.result import Result

_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_SCANS = {"reference": "current scan", "template": "prior scan"}


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
    return identity_in(read_source_images(file, selector).first)


def identity_in(header: Dataset) -> Identity:
    """Return whose image it is, as its header says."""
    return Identity(
        shown_name(as_text(header.get("PatientName"))),
        as_text(header.get("PatientID")),
        as_iso_date(header.get("PatientBirthDate")) or "",
        as_text(header.get("PatientSex")),
        as_text(header.get("AccessionNumber")),
        as_text(header.get("StudyInstanceUID")),
    )


def document_of(result: Result | SavedResult, identity: Identity) -> DocumentContent:
    """Collect what a document says of a result, in memory or read from its folder.

    Raises:
        InputError: a file of the run is damaged.
    """
    if isinstance(result, SavedResult):
        return read_document(result.folder, identity)
    from ChangeMapJointLib.comparison.save import provenance, shown_names, without_file_names, write_page, write_tables

    inputs = result.record.inputs or (Input(result.pair.reference.volume), Input(result.pair.template.volume))
    result = without_file_names(result)
    record = provenance(result, inputs, list(result.record.stages), shown_names(inputs))
    with TemporaryDirectory(prefix="changemap-") as name:
        folder = Path(name)
        write_tables(folder, result)
        write_page(result, folder / run_files.REPORT)
        (folder / run_files.RUN).write_text(json.dumps(record), "utf-8")
        return replace(read_document(folder, identity), sha256="")  # that of no file that anybody has


def anonymous_document(content: DocumentContent) -> DocumentContent:
    """Return a document without patient, dates, names of files, and what the reader wrote in words."""
    records = dict(content.records)
    run = dict(records["run"])
    for side, name in _SCANS.items():
        run[side] = {**(run.get(side) or {}), "name": name, "acquisition": {}}
    run["notes"] = _anonymous_notes(run)
    gate = records["quality"].get("gate") or {}
    reasons = [reason for reason in gate.get("reasons") or [] if not _DATE.search(json.dumps(reason))]
    records |= {"run": run, "quality": {**records["quality"], "gate": {**gate, "reasons": reasons}}}
    decisions: Mapping[int, Any] = {number: Decision(one.word) for number, one in content.decisions.items()}
    return replace(content, records=records, identity=Identity(), decisions=decisions)


def _anonymous_notes(run: Mapping[str, Any]) -> list[str]:
    """Return the notes of a run without dates, and without the names of a given deformation's files.

    The gate's reasons are among them, and a reason that is left out must not come back as a note.
    """
    sources = (run.get("deformation") or {}).get("sources") or ()
    names = ", ".join(str(source.get("name") or "") for source in sources)
    notes = [str(note) for note in run.get("notes") or ()]
    unnamed = [note.replace(names, "from a file") if names else note for note in notes]
    return [note for note in unnamed if not _DATE.search(note)]
