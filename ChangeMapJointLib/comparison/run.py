"""Two files in, one folder out: the main job as the command line and the Slicer module start it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ChangeMapJointLib.change.method_table import METHODS
from ChangeMapJointLib.comparison.compare import PairResult, as_hu, compare
from ChangeMapJointLib.comparison.config import RunConfig, choose_device
from ChangeMapJointLib.comparison.methods import Aligned, JointReport, read_model
from ChangeMapJointLib.comparison.output import check_output, run_folder
from ChangeMapJointLib.comparison.stages import Listener, Stages, nobody
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.options import to_mapping
from ChangeMapJointLib.core.resample import resample
from ChangeMapJointLib.export.content import ReportContent
from ChangeMapJointLib.export.refusal import write_refusal
from ChangeMapJointLib.export.report import write_report
from ChangeMapJointLib.export.tables import plain, write_findings_csv, write_findings_json, write_quality_json
from ChangeMapJointLib.gate.checks import check_ct
from ChangeMapJointLib.io import run_files, write
from ChangeMapJointLib.io.provenance import describe_device, sha256_of, versions
from ChangeMapJointLib.io.read import read_volume, split_selector
from ChangeMapJointLib.io.sources import reason_of
from ChangeMapJointLib.lungs.check import UnlikelyLungs
from ChangeMapJointLib.registration.rigid.align import RigidAlignment
from ChangeMapJointLib.scan.volume import Acquisition, Volume

REFUSED = ".refused.png"  # behind the name of the folder that was asked for


@dataclass(frozen=True)
class Label:
    """What a scan is called and how it was acquired, where its file does not say.

    Attributes:
        name: instead of the file's name, in messages, in the report and in ``run.json``.
        acquisition: what is known; what is None stays as the file has it.
    """

    name: str
    acquisition: Acquisition = field(default_factory=Acquisition)


@dataclass(frozen=True)
class Request:
    """What to compare and where to put it.

    Attributes:
        reference: R (current): a file, a DICOM folder or zip; ``PATH#SERIES`` picks one of several.
        template: T (prior), likewise.
        out: the folder that the run makes.
        config: all options.
        device: ``auto``, ``cpu`` or ``cuda``.
        overwrite: replace an earlier run's folder of that name.
        notices: sentences for the top of the report.
        attribution: where the scans come from and under which licence.
        reference_label: for a reference whose file says nothing of it.
        template_label: likewise.
        compress: the volumes; without, they are written and loaded faster.
    """

    reference: Path
    template: Path
    out: Path
    config: RunConfig = field(default_factory=RunConfig)
    device: str = "auto"
    overwrite: bool = False
    notices: tuple[str, ...] = ()
    attribution: tuple[str, ...] = ()
    reference_label: Label | None = None
    template_label: Label | None = None
    compress: bool = True


def run(request: Request, listener: Listener = nobody) -> PairResult:
    """Compare the scans of ``request`` and write the run's folder, whole or not at all.

    Raises:
        InputError: an input, an option or the output folder cannot be used; nothing is written, but a picture beside
            ``out`` where lungs could not be found reliably.
        Cancelled: the listener asked to stop; nothing is left.
    """
    inputs = [split_selector(p)[0] for p in (request.reference, request.template)]
    check_inputs(inputs)
    check_output(request.out, inputs, overwrite=request.overwrite)
    device = choose_device(request.device)
    model = read_model(request.config.joint) if request.config.method == "joint" else None
    stages = Stages(METHODS[request.config.method].shares, listener)
    started = datetime.now(timezone.utc)
    with stages.stage("read") as progress:
        reference = read_volume(request.reference, progress=lambda f, m="": progress(0.5 * f, m))
        reference = check_ct(labelled(reference, request.reference_label))
        template = read_volume(request.template, progress=lambda f, m="": progress(0.5 + 0.5 * f, m))
        template = check_ct(labelled(template, request.template_label))
        hashes = {name: sha256_of(p) for name, p in zip(("reference", "template"), inputs, strict=True)}
    try:
        result = compare(reference, template, config=request.config, device=device, stages=stages, model=model)
    except UnlikelyLungs as error:
        raise InputError(f"{error}{_pictured(request.out, error)}") from error
    notes = (*_lung_notes(result), *(() if result.joint is None else result.joint.notes), *result.notes)
    with run_folder(request.out, overwrite=request.overwrite) as folder:
        with stages.stage("write") as progress:
            write_maps(folder, result, compress=request.compress)
            progress(0.5)
            record = provenance(request, result, stages, device, hashes, started, notes)
            report = report_content(request, result, record, hashes, notes)
            progress(0.6)
            write_report(folder / run_files.REPORT, report)
        record["stages"] = [asdict(stage) for stage in stages.reports]  # with the one that wrote the report
        (folder / run_files.RUN).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return result


def _pictured(out: Path, error: UnlikelyLungs) -> str:
    """Keep a picture of what was found beside ``out``; the words that say where it is."""
    path = out.with_name(f"{out.name}{REFUSED}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_refusal(path, error.hu, error.labels)
    except (InputError, OSError):
        return " (no picture of it could be written)"
    return f" (picture: {path})"


def _lung_notes(result: PairResult) -> list[str]:
    """What the lung masks remark on, and of which scan."""
    sides = (("Reference", result.reference_lungs), ("Template", result.template_lungs))
    return [f"{side}: {note}" for side, lungs in sides for note in lungs.notes]


def check_inputs(paths: list[Path]) -> None:
    """Refuse inputs that are not there or cannot be reached, before anything else is said of them.

    Raises:
        InputError: missing, no permission, a loop of links, or a name that is not UTF-8.
    """
    for path in paths:
        try:
            str(path).encode()
            found = path.exists() and str(path) not in ("", ".")
        except UnicodeEncodeError as error:
            name = str(path).encode("utf-8", "backslashreplace").decode()
            raise InputError(f"{name}: the name is not UTF-8 text; rename the file") from error
        except (OSError, RuntimeError) as error:
            raise InputError(f"{path}: cannot be reached ({reason_of(error)}); check its permissions") from error
        if not found:
            raise InputError(f"{path}: no such file or folder; give a scan, or a folder or zip of a DICOM series")


def labelled(volume: Volume, label: Label | None) -> Volume:
    """``volume`` under the name and with the acquisition of ``label``."""
    if label is None:
        return volume
    known = {name: value for name, value in asdict(label.acquisition).items() if value is not None}
    name = Path(label.name.replace("/", "_"))  # a name, not a path with folders
    return replace(volume, source=name, acquisition=replace(volume.acquisition, **known))


def write_maps(folder: Path, result: PairResult, *, compress: bool = True) -> None:
    """Volumes, transforms and tables of the output contract."""
    grid, write_nrrd = result.reference.grid, partial(write.write_nrrd, compress=compress)
    write_nrrd(folder / run_files.WARPED_TEMPLATE, result.warped_template, grid)
    write.write_rigid(folder / run_files.RIGID, result.rigid.matrix)
    write_nrrd(folder / run_files.LUNGS_REFERENCE, result.reference_lungs.labels, result.reference_lungs.grid)
    write_nrrd(folder / run_files.LUNGS_TEMPLATE, result.template_lungs.labels, result.template_lungs.grid)
    write_quality_json(folder / run_files.QUALITY, result.quality, result.gate)
    if result.maps is None or result.findings is None:
        return
    write_nrrd(folder / run_files.CHANGE_MAP, result.maps.change_map, grid)
    if result.maps.difference is not None and result.maps.learned is not None:
        write_nrrd(folder / run_files.CHANGE_COMBINED, result.maps.change_map, grid)
        write_nrrd(folder / run_files.CHANGE_DIFFERENCE, result.maps.difference, grid)
        write_nrrd(folder / run_files.CHANGE_LEARNED, result.maps.learned, grid)
    write_nrrd(folder / run_files.SIGNED_CHANGE, result.maps.signed_hu, grid)
    write.write_displacement(folder / run_files.DEFORMATION, result.field, compress=compress)
    write_nrrd(folder / run_files.JACOBIAN, result.maps.jacobian, result.field.grid)
    write_nrrd(folder / run_files.TRUST, result.maps.trust, result.field.grid)
    write_findings_csv(folder / run_files.FINDINGS_CSV, result.findings)
    write_findings_json(folder / run_files.FINDINGS, result.findings)
    if result.candidates is not None:
        write_findings_json(folder / run_files.CANDIDATES, result.candidates)


def provenance(
    request: Request,
    result: PairResult,
    stages: Stages,
    device: torch.device,
    hashes: dict[str, str],
    started: datetime,
    notes: tuple[str, ...],
) -> dict[str, Any]:
    """The content of ``run.json``; names of files, never their folders."""
    registration = result.registration
    return {
        "schema": run_files.SCHEMA,
        "research_use_only": "Research use, not a medical device.",
        "started": started.isoformat(timespec="seconds"),
        "reference": _input(request.reference, request.reference_label, result.reference, hashes["reference"]),
        "template": _input(request.template, request.template_label, result.template, hashes["template"]),
        "gate": plain(result.gate),
        "notes": [*result.gate.sentences, *notes],
        "configuration": _without_folders(to_mapping(request.config)),
        "device": describe_device(device),
        "versions": versions(),
        "stages": [asdict(report) for report in stages.reports],
        "rigid": _rigid(result.rigid),
        "registration": None
        if registration is None
        else {"status": registration.status, "levels": [asdict(level) for level in registration.levels]},
        "model_sha256": None if result.joint is None else result.joint.sha256,
        "joint": None if result.joint is None else asdict(result.joint),
    }


def _without_folders(configuration: dict[str, Any]) -> dict[str, Any]:
    joint = configuration["joint"]
    return {**configuration, "joint": {**joint, "model": Path(joint["model"]).name}}


def _rigid(rigid: RigidAlignment) -> dict[str, Any]:
    values = {**asdict(rigid), "matrix": rigid.matrix.tolist(), "overlap": rigid.overlap._asdict()}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def _input(path: Path, label: Label | None, volume: Volume, digest: str) -> dict[str, Any]:
    grid = volume.grid
    return {
        "name": path.name if label is None else label.name,
        "sha256": digest,
        "size": list(grid.size),
        "spacing_mm": list(grid.spacing_mm),
        "acquisition": asdict(replace(volume.acquisition, patient_key=None)),
        "notes": list(volume.notes),
    }


def _aligned_rigidly(result: PairResult) -> NDArray[np.int16]:
    """T(A x) on the reference's grid: what can still be looked at where the deformation cannot be used."""
    lungs = (result.reference_lungs, result.template_lungs)
    return as_hu(Aligned(result.reference, result.template, *lungs, result.rigid).warped_rigidly())


def joint_rows(joint: JointReport) -> dict[str, Any]:
    """What the page says of the network: which, on which grid, and how far its y was improved."""
    rows: dict[str, Any] = {"weights": joint.model, "SHA-256 of weights": joint.sha256}
    rows["grid (x, y, z)"] = " x ".join(map(str, joint.shape[::-1]))
    steps = {"network alone": joint.network, "after instance optimisation": joint.optimised}
    for step, figures in steps.items():
        if figures is not None:
            rows[f"distance of keypoints (mm), {step}"] = figures["keypoint_error_mm"]
            rows[f"folding (% of the lung), {step}"] = figures["folding_percent"]
    return rows


def report_content(
    request: Request, result: PairResult, record: dict[str, Any], hashes: dict[str, str], notes: tuple[str, ...]
) -> ReportContent:
    """What the page shows."""
    maps, grid, displacement = result.maps, result.reference.grid, result.field
    unusable = result.quality.verdict == "do not use"
    trust = None
    if maps is not None:
        same = displacement.grid.same_as(grid)
        trust = maps.trust if same else resample(maps.trust, displacement.grid, grid)
    shown = {name: record[name] for name in ("started", "device", "versions", "stages")}
    if result.joint is not None:
        shown["joint network"] = joint_rows(result.joint)
    return ReportContent(
        reference=result.reference,
        template=result.template,
        warped_template=result.warped_template,
        method=request.config.method,
        threshold=request.config.findings.threshold,
        change_map=None if maps is None else maps.change_map,
        signed_hu=None if maps is None else maps.signed_hu,
        displacement=displacement,
        findings=result.findings,
        quality=result.quality,
        gate=result.gate,
        rigid_template=_aligned_rigidly(result) if unusable else None,
        lungs=result.reference_lungs.mask if maps is None else maps.lungs,
        trust=trust,
        notices=(*request.notices, *notes),
        reference_sha256=hashes["reference"],
        template_sha256=hashes["template"],
        attribution=request.attribution,
        provenance=shown,
    )
