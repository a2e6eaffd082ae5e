"""Read the folder of a finished run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.change.finding import Finding
from ChangeMapJointLib.change.findings import Findings
from ChangeMapJointLib.change.not_seen import NotSeen, NotSeenKey
from ChangeMapJointLib.change.sections import OperatingPoint
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray
from ChangeMapJointLib.core.options import from_mapping
from ChangeMapJointLib.core.paths import as_path
from ChangeMapJointLib.gate.answer import ALL_FINE, GateAnswer
from ChangeMapJointLib.io import run_files
from ChangeMapJointLib.io.read import read_array
from ChangeMapJointLib.io.run_records import RUN_AGAIN, read_records
from ChangeMapJointLib.io.sources import reason_of
from ChangeMapJointLib.io.write import read_displacement, read_rigid
from ChangeMapJointLib.lesions.measure import LesionMeasure
from ChangeMapJointLib.registration.quality import Quality
from ChangeMapJointLib.scan.deformation import Deformation


@dataclass(frozen=True, eq=False)  # arrays have no one answer to ==
class SavedResult:
    """A result read from the folder of a run, which does not hold the scans themselves.

    Volumes are read on first access. What method ``rigid`` does not write is None.

    Attributes:
        folder: of the run.
        quality: the verdict on the registration, with reasons and figures.
        gate: whether the two scans may be compared at all.
        findings: what changed, without a label map.
        candidates: the changes of the other sections, as in ``findings.others``; in the folders of older runs, what
            the map shows from the method's lower threshold on.
        record: the content of ``run.json``: options, versions, stages, names and hashes of the scans.
        not_seen: what the comparison could not see; empty in the folders of older runs.
    """

    folder: Path
    quality: Quality
    gate: GateAnswer
    findings: Findings | None
    candidates: Findings | None
    record: Mapping[str, Any]
    not_seen: tuple[NotSeen, ...] = ()

    @cached_property
    def change_map(self) -> NDArray[np.float32] | None:
        """CM_seq or CM_comb, float32 [0, 1], ``[z, y, x]`` on the current scan's grid."""
        return self._array(run_files.CHANGE_MAP)

    @cached_property
    def signed_change(self) -> NDArray[np.int16] | None:
        """Current minus warped prior in HU, int16 ``[z, y, x]``."""
        return self._array(run_files.SIGNED_CHANGE)

    @cached_property
    def finding_labels(self) -> NDArray[np.int16]:
        """The id of the change that each voxel belongs to, 0 elsewhere, ``[z, y, x]`` on the current scan's grid.

        Raises:
            InputError: the run has none: method ``rigid``, or an older version.
        """
        path = self.folder / run_files.FINDING_LABELS
        if not path.exists():
            raise InputError(f"has no {path.name}", field=self.folder, remedy=RUN_AGAIN)
        return read_array(path)[0].astype(np.int16, copy=False)

    @cached_property
    def trust(self) -> NDArray[np.float32] | None:
        """How reliable the deformation is, float32 [0, 1], on ``deformation.field.grid``."""
        return self._array(run_files.TRUST)

    @cached_property
    def jacobian(self) -> NDArray[np.float32] | None:
        """Det grad y, float32, on ``deformation.field.grid``."""
        return self._array(run_files.JACOBIAN)

    @cached_property
    def warped_template(self) -> NDArray[np.int16]:
        """T(y) in HU, int16, on the current scan's grid."""
        array: NDArray[np.int16] = read_array(self.folder / run_files.WARPED_TEMPLATE)[0].astype(np.int16, copy=False)
        return array

    @cached_property
    def rigid(self) -> FloatArray:
        """The rigid part of the deformation: 4x4, maps points (x, y, z) of the current scan to the prior, mm, LPS."""
        return read_rigid(self.folder / run_files.RIGID)

    @cached_property
    def deformation(self) -> Deformation:
        """y, which maps points of the current scan to the prior; the rigid motion alone with method ``rigid``."""
        reference, template = (
            read_array(self.folder / file)[1] for file in (run_files.LUNGS_REFERENCE, run_files.LUNGS_TEMPLATE)
        )
        path = self.folder / run_files.DEFORMATION
        if path.exists():
            field = read_displacement(path)
        else:
            field = DisplacementField.from_affine(self.rigid, reference.corners())
        return Deformation(field, reference, template)

    def report(self, path: Path | str) -> Path:
        """Copy the report, one self-contained HTML page, to ``path``.

        Raises:
            InputError: the file cannot be written, or the run has no report.
        """
        file = as_path(path, "path")
        if not (self.folder / run_files.REPORT).is_file():
            raise InputError(f"has no {run_files.REPORT}", field=self.folder, remedy=RUN_AGAIN)
        try:
            return Path(shutil.copyfile(self.folder / run_files.REPORT, file))
        except (OSError, shutil.SameFileError) as error:
            raise InputError(
                f"cannot be written ({reason_of(error)})", field=file, remedy="give another file"
            ) from error

    def to_dicom(
        self,
        out: Path | str,
        *,
        reference: Path | str,
        template: Path | str,
        anonymous: bool = False,
        earlier: Path | str | None = None,
    ) -> list[Path]:
        """Write the result as DICOM objects, complete or not at all; needs the extra ``dicom``.

        They are a segmentation of the findings, a measurement report (TID 1500), a parametric map of the change map,
        the registrations, and the report as pages and as a PDF. They carry the patient and the study of the current
        scan and refer to the images of both scans.

        Args:
            out: the folder to make.
            reference: DICOM series of the current scan, checked to be the one that was compared. A run keeps
                neither names nor UIDs.
            template: DICOM series of the prior scan, likewise.
            anonymous: leave out patient, study, dates and real UIDs.
            earlier: folder of the export whose current scan is this result's prior scan: its lesions keep their
                tracking identifiers.

        Returns:
            The files; those that others refer to come first.

        Raises:
            InputError: highdicom is missing; a series is not DICOM, not that of the result, or of another patient; or
                ``out`` exists or cannot be written.
        """
        from ChangeMapJointLib.comparison.to_dicom import DicomRequest, export_dicom

        given = {"reference": reference, "template": template, "earlier": earlier}
        paths = [None if path is None else as_path(path, name) for name, path in given.items()]
        return export_dicom(self, DicomRequest(as_path(out, "out"), paths[0], paths[1], anonymous, paths[2]))

    def _array(self, name: str) -> NDArray[Any] | None:
        path = self.folder / name
        return read_array(path)[0] if path.exists() else None


def load_result(folder: Path | str) -> SavedResult:
    """Read the folder of a finished run.

    Args:
        folder: written by ``changemap run`` or :meth:`Result.save`.

    Returns:
        The result; its volumes are read on first access.

    Raises:
        InputError: the folder is not that of a run, or one of its files is damaged.

    Examples:
        >>> import ChangeMapJointLib as cmj
        >>> out = cmj.compare("current.nrrd", "prior.nrrd", method="rigid").save("out")
        >>> saved = cmj.load_result(out)
        >>> saved.quality.verdict, saved.record["reference"]["name"].split()[0]
        ('look closely', 'scan')
    """
    folder = as_path(folder, "folder")
    if not folder.exists():
        raise InputError("no such folder", field=folder, expected="the folder of a finished run")
    if folder.is_file():
        raise InputError("is a file", field=folder, expected="the folder of a finished run")
    records = read_records(folder)
    quality, run = records["quality"], records["run"]
    if run.get("schema") != run_files.SCHEMA:
        raise InputError(
            f"found schema {run.get('schema')!r}",
            field=folder / run_files.RUN,
            expected=run_files.SCHEMA,
            remedy=RUN_AGAIN,
        )
    if run.get("configuration", {}).get("method") != "rigid":
        for name in (run_files.FINDINGS, run_files.CHANGE_MAP):
            if not (folder / name).exists():
                raise InputError(f"has no {name}", field=folder, remedy=RUN_AGAIN)
    findings = _findings(records.get("findings"), folder / run_files.FINDINGS)
    candidates = _findings(records.get("candidates"), folder / run_files.CANDIDATES)
    return SavedResult(
        folder,
        _from_json(Quality, quality.get("quality"), folder / run_files.QUALITY),
        _from_json(GateAnswer, quality["gate"], folder / run_files.QUALITY) if "gate" in quality else ALL_FINE,
        _with_others(findings, candidates),
        candidates,
        run,
        _not_seen(quality.get("not_seen", []), folder / run_files.QUALITY),
    )


def findings_of_records(records: Mapping[str, Any], folder: Path) -> Findings | None:
    """Return the findings with the other sections, from the records of a run; None with method ``rigid``.

    Args:
        records: by name, see :func:`~ChangeMapJointLib.io.run_records.read_records`.
        folder: named in errors.

    Raises:
        InputError: a record is not as a run writes it.
    """
    findings = _findings(records.get("findings"), folder / run_files.FINDINGS)
    return _with_others(findings, _findings(records.get("candidates"), folder / run_files.CANDIDATES))


def quality_of_records(records: Mapping[str, Any], folder: Path) -> tuple[Quality, GateAnswer]:
    """Return quality and the gate's answer from the records of a run, as :func:`findings_of_records`."""
    path, quality = folder / run_files.QUALITY, records["quality"]
    gate = _from_json(GateAnswer, quality["gate"], path) if "gate" in quality else ALL_FINE
    return _from_json(Quality, quality.get("quality"), path), gate


@dataclass(frozen=True)
class _Head:
    """What ``findings.json`` says beside the findings."""

    threshold: float = 1.0
    dropped: int = 0
    withheld: int = 0
    why: tuple[str, ...] = ()
    operating_point: OperatingPoint | None = None


def _findings(content: Mapping[str, Any] | None, path: Path) -> Findings | None:
    if content is None:
        return None
    head = _from_json(_Head, content, path)
    items = []
    for entry in content["findings"]:
        for side in ("lesion_reference", "lesion_template"):
            if isinstance(entry.get(side), Mapping) and "centre_mm" not in entry[side]:
                raise InputError("was written by an older version", field=path, remedy=RUN_AGAIN)
        items.append(_from_json(Finding, _own_lesion_fields(entry), path))
    return Findings(
        tuple(items),
        None,
        head.dropped,
        head.threshold,
        head.withheld,
        head.why,
        operating_point=head.operating_point,
    )


def _own_lesion_fields(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry whose lesions have the fields of :class:`LesionMeasure` alone; the others follow from them."""
    known = {field.name for field in fields(LesionMeasure)}
    result = dict(entry)
    for side in ("lesion_reference", "lesion_template"):
        if isinstance(entry.get(side), Mapping):
            result[side] = {name: value for name, value in entry[side].items() if name in known}
    return result


def _not_seen(content: Any, path: Path) -> tuple[NotSeen, ...]:
    if not isinstance(content, list):
        raise InputError("'not_seen' is not a list", field=path, remedy=RUN_AGAIN)
    known = get_args(NotSeenKey)
    entries = [entry for entry in content if not isinstance(entry, dict) or entry.get("key") in known]
    return tuple(_from_json(NotSeen, entry, path) for entry in entries)


def _with_others(findings: Findings | None, candidates: Findings | None) -> Findings | None:
    """The findings with the other sections; older runs have none, and their candidates repeat the findings."""
    if findings is None or candidates is None:
        return findings
    return replace(findings, others=tuple(item for item in candidates.items if item.section != "finding"))


def _from_json(kind: type[Any], values: Any, path: Path) -> Any:
    """Make a dataclass from its JSON; skip fields that only a newer version knows."""
    if not isinstance(values, Mapping):
        raise InputError(f"found {type(values).__name__}", field=path, expected="an object", remedy=RUN_AGAIN)
    known = {field.name for field in fields(kind)}
    try:
        return from_mapping(kind, {name: value for name, value in values.items() if name in known}, path)
    except InputError as error:
        raise error.with_remedy(RUN_AGAIN) from error
