"""Write the DICOM objects of a result into a folder, complete or not at all.

A run keeps neither names nor UIDs of its scans. They are read again from the series, after a check that these are the
scans that were compared, voxel by voxel.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.comparison.inputs import Input, check_inputs
from ChangeMapJointLib.comparison.load import SavedResult
from ChangeMapJointLib.comparison.output import check_output, run_folder
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.core.extras import require_packages
from ChangeMapJointLib.core.progress import Progress, silent
from ChangeMapJointLib.core.resample import resample
from ChangeMapJointLib.export.content import ReportContent
from ChangeMapJointLib.gate.answer import GateAnswer
from ChangeMapJointLib.io import run_files
from ChangeMapJointLib.io.compact_field import as_stored, is_compact
from ChangeMapJointLib.io.provenance import sha256_of, voxels_sha256
from ChangeMapJointLib.io.read import is_dicom, read_array, split_selector
from ChangeMapJointLib.io.write import rounded
from ChangeMapJointLib.scan.volume import Volume

if TYPE_CHECKING:
    from ChangeMapJointLib.comparison.result import Result
    from ChangeMapJointLib.export.dicom.content import DicomContent
    from ChangeMapJointLib.export.document.content import DocumentReading
    from ChangeMapJointLib.io.dicom.images import SourceImages

PACKAGES = ("highdicom", "pydicom", "reportlab")
ANEW = "delete it, then give the same command: it makes them anew"
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


@dataclass(frozen=True)
class DicomRequest:
    """What to export, and for whom.

    Attributes:
        out: the folder to make.
        reference: DICOM series of the current scan, as in :func:`~ChangeMapJointLib.comparison.compare.compare`; None
            for the one that a result in memory was computed from.
        template: DICOM series of the prior scan, likewise.
        anonymous: leave out patient, study, dates and real UIDs.
        earlier: folder of the export whose current scan is this result's prior scan; its lesions keep their tracking
            identifiers.
        reading: the decisions of a reader that a run's folder does not hold; None for those that it holds.
    """

    out: Path
    reference: Path | None = None
    template: Path | None = None
    anonymous: bool = False
    earlier: Path | None = None
    reading: DocumentReading | None = None


def export_dicom(result: Result | SavedResult, request: DicomRequest, *, progress: Progress = silent) -> list[Path]:
    """Write the objects of ``result``; see :meth:`~ChangeMapJointLib.comparison.load.SavedResult.to_dicom`.

    Returns:
        The files; those that others refer to come first.

    Raises:
        InputError: highdicom is missing, a series is not DICOM or not that of the result, the patients differ,
            or the folder exists or cannot be written.
    """
    check_dicom_packages()
    paths = _paths(result, request)
    read_only = [split_selector(path)[0] for path in paths]
    check_inputs(read_only)
    if request.out.exists():  # also an earlier export: a file more or less in it would be sent along
        raise InputError("exists already", field="out", value=request.out, remedy="give another folder")
    inputs = [*read_only, *([result.folder] if isinstance(result, SavedResult) else [])]
    check_output(request.out, inputs, overwrite=False)
    from ChangeMapJointLib.export.dicom.objects import write_objects

    content = _content(result, request, paths, lambda f, m="": progress(0.8 * f, m))
    with run_folder(request.out) as folder:
        files = write_objects(folder, content, progress=lambda f, m="": progress(0.8 + 0.2 * f, m))
    return [request.out / file.name for file in files]


def check_objects(result: SavedResult, folder: Path) -> None:
    """Check that a folder's objects are those of a result: a run may have been replaced since they were written.

    Raises:
        InputError: one was made from another run, or the report before the reader's last decision.
    """
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    started = datetime.fromisoformat(result.record["started"])
    for path in sorted(folder.glob("*.dcm")):
        try:
            header = dcmread(path, specific_tags=["SeriesDate", "SeriesTime"], stop_before_pixels=True)
        except (InvalidDicomError, OSError, EOFError):
            continue  # sending names it
        made = str(header.get("SeriesDate", "")), str(header.get("SeriesTime", ""))[:6]
        if all(made) and made != (started.strftime("%Y%m%d"), started.strftime("%H%M%S")):
            raise InputError(
                "holds objects of another run, which had this run's name before",
                field=folder,
                expected=f"those of the run of {started:%Y-%m-%d %H:%M:%S}",
                remedy=ANEW,
            )
    reading, report = result.folder / run_files.READING, folder / "report.dcm"
    if reading.exists() and report.exists() and reading.stat().st_mtime_ns > report.stat().st_mtime_ns:
        raise InputError("does not hold what the reader has decided since", field=folder, remedy=ANEW)


def check_dicom_packages() -> None:
    """Check that the packages of the extra ``dicom`` are installed.

    Raises:
        InputError: one is missing.
    """
    require_packages("dicom", *PACKAGES)


def _paths(result: Result | SavedResult, request: DicomRequest) -> tuple[Path, Path]:
    """Return the two series, and refuse anything that cannot be one."""
    given: list[Path | None] = [request.reference, request.template]
    if not isinstance(result, SavedResult) and result.record.inputs is not None:
        given = [path or scan.path for path, scan in zip(given, result.record.inputs, strict=True)]
    paths = []
    for name, path in zip(("reference", "template"), given, strict=True):
        if path is None:
            raise InputError(
                "not given",
                field=name,
                expected="the DICOM series that was compared: a run keeps no names and no UIDs",
                remedy="give its folder or zip",
            )
        file = split_selector(path)[0]
        check_inputs([file])
        if not is_dicom(file):
            raise InputError(
                "is not DICOM",
                field=(name, file),
                expected="the DICOM series that was compared, whose patient and study the objects carry",
                remedy="give the series that the file was made from",
            )
        paths.append(path)
    return paths[0], paths[1]


def _content(
    result: Result | SavedResult, request: DicomRequest, paths: tuple[Path, Path], progress: Progress
) -> DicomContent:
    """Read both series, check them, and collect what the objects are made from."""
    from ChangeMapJointLib.comparison.document import anonymous_document, document_of, identity_in
    from ChangeMapJointLib.export.dicom.content import DicomContent, make_uid
    from ChangeMapJointLib.export.dicom.identity import anonymous, same_patient
    from ChangeMapJointLib.export.dicom.tracking import earlier_tracking
    from ChangeMapJointLib.io.dicom.images import read_source_images

    record = _record(result)
    scans: list[SourceImages] = []
    volumes: list[Volume] = []
    for number, (name, path) in enumerate(zip(("reference", "template"), paths, strict=True)):
        part = 0.5 * number
        volume, _ = Input(path).read(lambda f, m="", part=part: progress(part + 0.45 * f, m))
        check_same_scan(volume, record[name], name, path)
        volumes.append(volume)
        scans.append(read_source_images(*split_selector(path)))
    document = document_of(result, identity_in(scans[0].first))
    if request.reading is not None:
        document = replace(document, decisions=request.reading.decisions, registration=request.reading.registration)
    if request.anonymous:
        scans, document = [anonymous(scan) for scan in scans], anonymous_document(document)
    elif not same_patient(*scans):
        raise InputError(
            "names another patient than the current scan",
            field=("template", paths[1]),
            remedy=("check the series, or use ", Argument("anonymous", True), " if they were de-identified apart"),
        )
    gate = _without_dates(result.gate) if request.anonymous else result.gate
    findings = result.findings
    items = () if findings is None else findings.items
    tracking = {} if request.earlier is None else earlier_tracking(request.earlier, items, scans[1])
    key = make_uid(
        *(record[name].get("voxels_sha256") or record[name]["sha256"] for name in ("reference", "template")),
        *(record["started"], json.dumps(record["configuration"], sort_keys=True)),
        *(scans[0].series_uid, sorted(tracking.items())),
    )
    maps = result.change_map is not None
    return DicomContent(
        scans[0],
        scans[1],
        key.removeprefix("2.25."),
        datetime.fromisoformat(record["started"]),
        record["versions"],
        result.quality,
        gate,
        result.rigid if isinstance(result, SavedResult) else result.rigid.matrix,
        volumes[0].grid,
        _field(result) if maps else None,
        None if result.change_map is None else rounded(result.change_map, run_files.MAP_STEP),
        items,
        finding_labels(result) if maps else None,
        0 if findings is None else findings.withheld,
        tuple(entry.sentence for entry in result.not_seen),
        _report(result, record, volumes[0], volumes[1]),
        document,
        tracking,
    )


def _record(result: Result | SavedResult) -> Mapping[str, Any]:
    """Return the content of ``run.json``."""
    if isinstance(result, SavedResult):
        return result.record
    from ChangeMapJointLib.comparison.save import provenance, shown_names

    inputs = result.record.inputs or (Input(result.pair.reference.volume), Input(result.pair.template.volume))
    return provenance(result, inputs, list(result.record.stages), shown_names(inputs))


def check_same_scan(volume: Volume, record: Mapping[str, Any], name: str, path: Path) -> None:
    """Check that a scan is the one that was compared.

    Args:
        volume: the scan.
        record: what ``run.json`` says of the input.
        name: ``reference`` or ``template``.
        path: where the scan was read from.

    Raises:
        InputError: it is another one.
    """
    size, known = list(volume.grid.size), record.get("size")
    expected = f"the {'current' if name == 'reference' else 'prior'} scan of the run"
    if size != known:
        shapes = [" x ".join(map(str, shape or [])) for shape in (size, known)]
        raise InputError(f"found {shapes[0]} voxels", field=(name, path), expected=f"{expected}, {shapes[1]} voxels")
    voxels = record.get("voxels_sha256")
    same = voxels_sha256(volume.array) == voxels if voxels else sha256_of(split_selector(path)[0]) == record["sha256"]
    if not same:
        raise InputError(
            "is another scan than the run's, of the same size",
            field=(name, path),
            expected=expected,
            remedy="give the series that was compared",
        )


def finding_labels(result: Result | SavedResult) -> NDArray[np.integer[Any]]:
    """Return the id of the change that each voxel belongs to, ``[z, y, x]`` on the current scan's grid.

    Raises:
        InputError: the folder is that of an older run, which did not keep it.
    """
    if isinstance(result, SavedResult):
        return result.finding_labels
    if result.findings is None or result.findings.labels is None:
        raise InputError("the findings have no label map", remedy="run the comparison again")
    return result.findings.labels


def _field(result: Result | SavedResult) -> DisplacementField:
    """Return the deformation as it is stored, so that a result in memory and a saved one give the same bytes."""
    field = result.deformation.field
    if isinstance(result, SavedResult) and is_compact(result.folder / run_files.DEFORMATION):
        return field
    lungs = resample(_lungs(result).astype(np.float32), result.deformation.reference, field.grid) > 0
    return DisplacementField(as_stored(field.vectors_mm, field.grid, lungs), field.grid)


def _report(result: Result | SavedResult, record: Mapping[str, Any], now: Volume, before: Volume) -> ReportContent:
    """Return what the pages show; without the file names, hashes and provenance of the HTML page."""
    findings = result.findings
    if findings is not None and findings.labels is None and result.change_map is not None:
        findings = replace(findings, labels=finding_labels(result).astype(np.int32))
    options = record["configuration"]
    return ReportContent(
        reference=now,
        template=before,
        warped_template=result.warped_template,
        method=options["method"],
        threshold=options["findings"]["threshold"],
        change_map=result.change_map,
        signed_hu=result.signed_change,
        displacement=result.deformation.field,
        findings=findings,
        quality=result.quality,
        lungs=_lungs(result),
    )


def _lungs(result: Result | SavedResult) -> NDArray[np.bool_]:
    """Return the current scan's lungs, to which the overviews are cropped."""
    if isinstance(result, SavedResult):
        return np.asarray(read_array(result.folder / run_files.LUNGS_REFERENCE)[0].astype(np.int16) > 0)
    return result.pair.reference.mask


def _without_dates(gate: GateAnswer) -> GateAnswer:
    """Return the gate's answer without the reasons that state a date."""
    return replace(gate, reasons=tuple(reason for reason in gate.reasons if not _DATE.search(reason.text)))
