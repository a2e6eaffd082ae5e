"""Write a result as the folder of a run: volumes, transforms, tables, report and provenance."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.change.judge import read_judge
from ChangeMapJointLib.comparison.assess import round_to_hu, warp_rigidly
from ChangeMapJointLib.comparison.given import GivenReport, how_computed
from ChangeMapJointLib.comparison.inputs import Input
from ChangeMapJointLib.comparison.methods import JointReport
from ChangeMapJointLib.comparison.output import check_no_input, check_output, run_folder
from ChangeMapJointLib.comparison.result import Result
from ChangeMapJointLib.comparison.stages import StageReport, Stages
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.options import to_mapping
from ChangeMapJointLib.core.parallel import run_parallel
from ChangeMapJointLib.core.resample import resample
from ChangeMapJointLib.core.sample_pair import NOTICE, is_sample
from ChangeMapJointLib.export.content import ReportContent
from ChangeMapJointLib.export.report import write_report
from ChangeMapJointLib.export.tables import json_value, write_findings_csv, write_findings_json, write_quality_json
from ChangeMapJointLib.gate.answer import SCANS
from ChangeMapJointLib.io import run_files, write
from ChangeMapJointLib.io.provenance import describe_device, versions, voxels_sha256
from ChangeMapJointLib.io.read import split_selector
from ChangeMapJointLib.io.run_seal import seal_of
from ChangeMapJointLib.registration.rigid.align import RigidAlignment
from ChangeMapJointLib.scan.lungs import is_on_missing_lung
from ChangeMapJointLib.scan.volume import Volume


def save_result(
    result: Result,
    out: Path,
    *,
    overwrite: bool,
    compress: bool,
    notices: tuple[str, ...],
    attribution: tuple[str, ...],
    stages: Stages | None,
    keep_names: bool = False,
    full_field: bool = False,
) -> Path:
    """See :meth:`~ChangeMapJointLib.comparison.result.Result.save`."""
    inputs = result.record.inputs or (Input(result.pair.reference.volume), Input(result.pair.template.volume))
    if stages is None:  # else the run has checked it before it began
        paths = [split_selector(scan.path)[0] for scan in inputs if scan.path is not None]
        check_output(out, paths, overwrite=overwrite)
        stages = Stages({"write": 1.0})
        stages.reports = list(result.record.stages)
    result = result if keep_names else without_file_names(result)
    with run_folder(out, overwrite=overwrite) as folder:
        with stages.stage("write") as progress:
            names = shown_names(inputs, keep_names=keep_names)
            record = provenance(result, inputs, stages.reports, names, notices, keep_names=keep_names)
            page = content_of_result(result, inputs, record, names, notices=notices, attribution=attribution)
            progress(0.1)
            _write_together(
                partial(write_maps, folder, result, compress=compress, full_field=full_field),
                partial(write_report, folder / run_files.REPORT, page),
            )
        record["stages"] = [asdict(stage) for stage in stages.reports]  # with the one that wrote the report
        record["files"] = seal_of(folder)
        (folder / run_files.RUN).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return out


def _write_together(*writers: Callable[[], None]) -> None:
    """Run the writers in parallel: compression and drawing leave the interpreter free for each other.

    All have ended when an error of one is raised, so that nothing is written into a folder that is being removed.
    """

    def caught(writer: Callable[[], None]) -> BaseException | None:
        try:
            writer()
        except BaseException as error:  # raised again below
            return error
        return None

    errors = run_parallel([partial(caught, writer) for writer in writers], lambda: None)
    for error in errors:
        if error is not None:
            raise error


def write_page(result: Result, path: Path) -> Path:
    """See :meth:`~ChangeMapJointLib.comparison.result.Result.report`."""
    if not path.name:
        raise InputError("has no name", field="path", value=path, remedy="give the name of an HTML file")
    inputs = result.record.inputs or (Input(result.pair.reference.volume), Input(result.pair.template.volume))
    for scan in inputs:
        if scan.path is not None:
            check_no_input(path, split_selector(scan.path)[0])
    names, result = shown_names(inputs), without_file_names(result)
    record = provenance(result, inputs, list(result.record.stages), names)
    write_report(path, content_of_result(result, inputs, record, names))
    return path


def write_maps(folder: Path, result: Result, *, compress: bool = True, full_field: bool = False) -> None:
    """Write the volumes, transforms and tables of a result into ``folder``.

    Args:
        folder: of the run.
        result: what to write.
        compress: compress the volumes.
        full_field: write every vector of the deformation.
    """
    pair, maps = result.pair, result.maps
    grid, write_nrrd = pair.reference.grid, partial(write.write_nrrd, compress=compress)
    write_nrrd(folder / run_files.WARPED_TEMPLATE, result.warped_template, grid)
    write.write_rigid(folder / run_files.RIGID, result.rigid.matrix)
    write_nrrd(folder / run_files.LUNGS_REFERENCE, pair.reference.lungs.labels, grid)
    write_nrrd(folder / run_files.LUNGS_TEMPLATE, pair.template.lungs.labels, pair.template.grid)
    write_tables(folder, result)
    if maps is None or result.findings is None:
        return
    write_map = partial(write_nrrd, step=run_files.MAP_STEP)
    write_map(folder / run_files.CHANGE_MAP, maps.change_map, grid)
    if maps.difference is not None and maps.learned is not None:
        write_map(folder / run_files.CHANGE_COMBINED, maps.change_map, grid)
        write_map(folder / run_files.CHANGE_DIFFERENCE, maps.difference, grid)
        write_map(folder / run_files.CHANGE_LEARNED, maps.learned, grid)
    field = result.deformation.field
    write_nrrd(folder / run_files.SIGNED_CHANGE, maps.signed_hu, grid)
    lungs = None if full_field else resample(pair.reference.mask.astype(np.float32), grid, field.grid) > 0
    write.write_displacement(folder / run_files.DEFORMATION, field, compress=compress, lungs=lungs)
    write_nrrd(folder / run_files.JACOBIAN, maps.jacobian, field.grid, step=run_files.JACOBIAN_STEP)
    write_nrrd(folder / run_files.TRUST, maps.trust, field.grid, step=run_files.TRUST_STEP)
    labels = result.findings.labels if result.findings.labels is not None else np.zeros(grid.shape)
    write_nrrd(folder / run_files.FINDING_LABELS, labels.astype(np.int16), grid)


def write_tables(folder: Path, result: Result) -> None:
    """Write the verdict and, where changes were looked for, the lists of findings into ``folder``."""
    write_quality_json(folder / run_files.QUALITY, result.quality, result.gate, result.not_seen)
    if result.maps is None or result.findings is None:
        return
    write_findings_csv(folder / run_files.FINDINGS_CSV, result.findings)
    write_findings_json(folder / run_files.FINDINGS, result.findings, listed_from=read_judge().operating_points)
    if result.candidates is not None:
        write_findings_json(folder / run_files.CANDIDATES, result.candidates)


MISSING_LUNG = ("one_sided", "one_lung")  # rules of the gate


def all_notes(result: Result) -> tuple[str, ...]:
    """Collect the notes of lung segmentation, network and pipeline, one sentence each.

    That a lung is missing is left out where the gate says so already, with what it means.
    """
    sides = (("Reference", result.pair.reference.lungs), ("Template", result.pair.template.lungs))  # as in the gate
    told = {reason.scan for reason in result.gate.reasons if reason.rule in MISSING_LUNG}
    lung_notes = [
        f"{SCANS[side]}: {note}"
        for side, lungs in sides
        for note in lungs.notes
        if not (side in told and is_on_missing_lung(note))
    ]
    return (*lung_notes, *given_notes(result), *(() if result.joint is None else result.joint.notes), *result.notes)


def synthetic_notice(result: Result) -> tuple[str, ...]:
    """Return the notice that a scan is of the sample pair, whose change is synthetic; empty for all others."""
    pair = result.pair
    return (NOTICE,) if is_sample(pair.reference.volume.array) or is_sample(pair.template.volume.array) else ()


def given_notes(result: Result) -> tuple[str, ...]:
    """Return the sentences on a given deformation: where it comes from, how it was read, and what speaks against it."""
    if result.given is None:
        return ()
    given = result.given
    return (given.sentence, *given.notes, *given.doubts)


def shown_names(inputs: tuple[Input, Input], *, keep_names: bool = False) -> tuple[str, str]:
    """Return the names of both scans for the outputs; a file or a folder may be named after the patient.

    Args:
        inputs: the current and the prior scan.
        keep_names: return their own names, without the folders they lie in; else a part of their hash, or their side
            where they were no files.
    """
    sides = ("current scan", "prior scan")
    hashed = [f"scan {scan.sha256[:12]}" if scan.sha256 else side for scan, side in zip(inputs, sides, strict=True)]
    reference, template = [scan.name for scan in inputs] if keep_names else hashed
    return reference, template


def without_file_names(result: Result) -> Result:
    """Return the result without the names of a given deformation's files, which may be a patient's."""
    if result.given is None:
        return result
    given, registration = result.given.without_names(), result.registration
    if registration is not None:  # its status begins with where the deformation comes from
        status = registration.status.replace(result.given.sentence, given.sentence)
        registration = replace(registration, status=status)
    return replace(result, given=given, registration=registration)


def provenance(
    result: Result,
    inputs: tuple[Input, Input],
    stages: list[StageReport],
    names: tuple[str, str],
    notices: tuple[str, ...] = (),
    *,
    keep_names: bool = False,
) -> dict[str, Any]:
    """Return the content of ``run.json``; ``names`` are those of the scans, see :func:`shown_names`.

    Descriptions of the series, which are free text, are kept only with ``keep_names``.
    """
    registration, record, pair = result.registration, result.record, result.pair
    return {
        "schema": run_files.SCHEMA,
        "research_use_only": "Research use, not a medical device.",
        "started": record.started.isoformat(timespec="seconds"),
        "reference": _input(names[0], inputs[0], pair.reference.volume, keep_names),
        "template": _input(names[1], inputs[1], pair.template.volume, keep_names),
        "gate": json_value(result.gate),
        "notices": list(dict.fromkeys((*notices, *synthetic_notice(result)))),
        "notes": [*result.gate.sentences, *all_notes(result)],
        "configuration": without_folders(to_mapping(record.config)),
        "device": None if record.device is None else describe_device(record.device),
        "versions": versions(),
        "stages": [asdict(report) for report in stages],
        "rigid": _rigid(result.rigid),
        "registration": None
        if registration is None
        else {"status": registration.status, "levels": [asdict(level) for level in registration.levels]},
        "deformation": None if result.given is None else json_value(result.given),
        "model_sha256": None if result.joint is None else result.joint.sha256,
        "joint": None if result.joint is None else asdict(result.joint),
    }


def without_folders(configuration: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration as ``run.json`` holds it: the network's weights without their folder, which is private."""
    joint = configuration["joint"]
    return {**configuration, "joint": {**joint, "model": Path(joint["model"]).name}}


def _rigid(rigid: RigidAlignment) -> dict[str, Any]:
    values = {**asdict(rigid), "matrix": rigid.matrix.tolist(), "overlap": rigid.overlap._asdict()}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def _input(name: str, scan: Input, volume: Volume, keep_names: bool) -> dict[str, Any]:
    acquisition = replace(volume.acquisition, patient_key=None)
    return {
        "name": name,
        "sha256": scan.sha256,
        "bytes": scan.file_bytes,
        "voxels_sha256": voxels_sha256(volume.array),
        "size": list(volume.grid.size),
        "spacing_mm": list(volume.grid.spacing_mm),
        "acquisition": asdict(acquisition if keep_names else replace(acquisition, series_description=None)),
        "notes": list(volume.notes),
    }


def joint_rows(joint: JointReport) -> dict[str, Any]:
    """Return the report's rows on the network: weights, grid, and figures before and after instance optimisation."""
    rows: dict[str, Any] = {"weights": joint.model, "SHA-256 of weights": joint.sha256}
    rows["grid (x, y, z)"] = " x ".join(map(str, joint.shape[::-1]))
    steps = {"network alone": joint.network, "after instance optimisation": joint.optimised}
    for step, figures in steps.items():
        if figures is not None:
            rows[f"distance of keypoints (mm), {step}"] = figures["keypoint_error_mm"]
            rows[f"folding (% of the lung), {step}"] = figures["folding_percent"]
    return rows


def given_rows(given: GivenReport, result: Result) -> dict[str, Any]:
    """Return the report's rows on a given deformation: files, and figures of it and of what was made of it."""
    rows: dict[str, Any] = {"refined": "yes" if given.refined else "no"}
    for source in given.sources:
        rows[source.name] = f"SHA-256 {source.sha256}" if source.sha256 else "not a file"
    rows["distance of keypoints (mm), as given"] = given.keypoint_error_mm
    rows["folding (% of the lung), as given"] = given.folding_percent
    if given.refined:
        rows["distance of keypoints (mm), refined"] = result.quality.keypoint_error_mm
        rows["folding (% of the lung), refined"] = result.quality.folding_percent
    return rows


def content_of_result(
    result: Result,
    inputs: tuple[Input, Input],
    record: dict[str, Any],
    names: tuple[str, str],
    *,
    notices: tuple[str, ...] = (),
    attribution: tuple[str, ...] = (),
) -> ReportContent:
    """Collect what the report shows."""
    maps, config, reference = result.maps, result.record.config, result.pair.reference
    rows = {name: record[name] for name in ("started", "device", "versions", "stages")}
    if result.joint is not None:
        rows["joint network"] = joint_rows(result.joint)
    if result.given is not None:
        rows["given deformation"] = given_rows(result.given, result)
    unusable = result.quality.verdict == "do not use"
    return ReportContent(
        reference=replace(reference.volume, source=Path(names[0])),
        template=replace(result.pair.template.volume, source=Path(names[1])),
        warped_template=result.warped_template,
        method=config.method,
        how="" if result.given is None else how_computed(result.given),
        threshold=config.findings.threshold,
        change_map=result.change_map,
        signed_hu=result.signed_change,
        displacement=result.deformation.field,
        findings=result.findings,
        quality=result.quality,
        gate=result.gate,
        rigid_template=round_to_hu(warp_rigidly(result.pair)) if unusable else None,  # still shows both scans
        lungs=reference.mask if maps is None else maps.lungs,
        trust=_trust_on_reference(result),
        not_seen=tuple(one.sentence for one in result.not_seen),
        notices=tuple(dict.fromkeys((*notices, *synthetic_notice(result), *all_notes(result)))),
        reference_sha256=inputs[0].sha256 or "",
        template_sha256=inputs[1].sha256 or "",
        attribution=attribution,
        provenance=rows,
    )


def _trust_on_reference(result: Result) -> NDArray[np.float32] | None:
    trust, grid, field_grid = result.trust, result.pair.reference.grid, result.deformation.field.grid
    return trust if trust is None or field_grid.same_as(grid) else resample(trust, field_grid, grid)
