"""The report of a run, made again from the scene, with what the reader decided."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import slicer.util
from numpy.typing import NDArray

from ChangeMapJointLib.comparison.load import findings_of_records, quality_of_records
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.options import from_mapping
from ChangeMapJointLib.core.sample_pair import NOTICE, is_sample
from ChangeMapJointLib.export.content import ReportContent
from ChangeMapJointLib.export.document.content import Decision, DocumentContent, Identity, pictures_of
from ChangeMapJointLib.export.document.pdf import write_pdf
from ChangeMapJointLib.export.reader_decisions import ReaderDecisions
from ChangeMapJointLib.export.report import write_report
from ChangeMapJointLib.export.unseen import unseen_of_records
from ChangeMapJointLib.io import run_files
from ChangeMapJointLib.scan.volume import Acquisition, Volume
from ChangeMapJointLib.scene.check import on_grid
from ChangeMapJointLib.scene.nodes import Node
from ChangeMapJointLib.scene.results import SEAL, Results
from ChangeMapJointLib.scene.volumes import grid_of, volume_of

SIDES = ("reference", "template")
PROVENANCE = ("started", "device", "versions", "stages")  # of run.json, as in the report of the run


def write_scene_report(path: Path, results: Results, reading: ReaderDecisions | None = None) -> None:
    """Write the report of a run that is in the scene.

    Args:
        path: the HTML file; it appears whole or not at all.
        results: the run.
        reading: what the reader decided.

    Raises:
        InputError: a scan is no longer in the scene, a record is damaged, or the file cannot be written.
    """
    write_report(path, content_of_scene(results, reading))


def write_scene_pdf(
    path: Path,
    results: Results,
    *,
    decisions: Mapping[int, Decision],
    registration: str = "",
    identity: Identity | None = None,
) -> None:
    """Write the report of a run that is in the scene as a PDF of two to four pages.

    Args:
        path: of the PDF; it appears whole or not at all.
        results: the run.
        decisions: of the reader, by number of the finding in ``findings.json``.
        registration: the reader's verdict on the registration; empty without one.
        identity: of the patient; None to name nobody.

    Raises:
        InputError: a scan is no longer in the scene, a record is damaged, reportlab is missing, or the file cannot be
            written.
    """
    with tempfile.TemporaryDirectory(prefix="ChangeMapJoint") as folder:
        page = Path(folder) / run_files.REPORT
        write_scene_report(page, results)
        overview, pictures = pictures_of(page)
    records = {"run": {}, "quality": {}, **results.content}
    seal = results.record.GetAttribute(SEAL) or hashlib.sha256(results.record.GetText().encode()).hexdigest()
    write_pdf(path, DocumentContent(records, seal, identity or Identity(), decisions, registration, overview, pictures))


def content_of_scene(results: Results, reading: ReaderDecisions | None = None) -> ReportContent:
    """Collect what the report shows from the nodes of a run.

    Raises:
        InputError: a scan is no longer in the scene, or a record is damaged.
    """
    records, where = results.content, Path(results.record.GetName())
    run = records.get("run", {})
    scans = [_scan(getattr(results, side), run.get(side) or {}, side) for side in SIDES]
    quality, gate = quality_of_records(records, where)
    findings = findings_of_records(records, where)
    change_map = _array(results.change_map)
    notes = [*run.get("notes", [])] if isinstance(run.get("notes", []), list) else []
    notes = [note for note in map(str, notes) if note not in gate.sentences]  # they stand in the report by themselves
    synthetic = [NOTICE] if any(is_sample(scan.array) for scan in scans) else []
    return ReportContent(
        reference=scans[0],
        template=scans[1],
        warped_template=slicer.util.arrayFromVolume(results.warped),
        method=run.get("configuration", {}).get("method", "sequential"),
        threshold=1.0 if findings is None else findings.threshold,
        change_map=change_map,
        signed_hu=_array(results.signed),
        findings=findings,
        quality=quality,
        gate=gate,
        lungs=None if results.lungs is None else slicer.util.arrayFromVolume(results.lungs) > 0,
        trust=_trust(results),
        not_seen=unseen_of_records(records),
        reading=reading,
        notices=tuple(dict.fromkeys([*synthetic, *notes])),
        reference_sha256=str((run.get("reference") or {}).get("sha256") or ""),
        template_sha256=str((run.get("template") or {}).get("sha256") or ""),
        provenance={name: run[name] for name in PROVENANCE if name in run},
    )


def _scan(node: Node | None, record: dict[str, Any], side: str) -> Volume:
    if node is None or node.GetScene() is None:
        raise InputError("is no longer in the scene", field=side, remedy="load the scene again")
    known = record.get("acquisition")
    acquisition = from_mapping(Acquisition, known, "acquisition") if isinstance(known, dict) else Acquisition()
    volume = volume_of(node)
    return replace(volume, source=Path(str(record.get("name") or node.GetName())), acquisition=acquisition)


def _array(node: Node | None) -> NDArray[Any] | None:
    return None if node is None else slicer.util.arrayFromVolume(node)


def _trust(results: Results) -> NDArray[np.float32] | None:
    if results.trust is None:
        return None
    array, grid = slicer.util.arrayFromVolume(results.trust), grid_of(results.trust)
    return on_grid(array, grid, grid_of(results.warped)).astype(np.float32, copy=False)
