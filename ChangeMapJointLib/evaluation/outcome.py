"""What a method made of a case: its maps, its deformation, its list of findings, and what they took."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.core.grid import Grid, Vector3
from ChangeMapJointLib.evaluation.cases import MethodFiles
from ChangeMapJointLib.io import run_files
from ChangeMapJointLib.io.deformation_files import read_deformation
from ChangeMapJointLib.io.mappings import Mapping
from ChangeMapJointLib.io.read import read_array
from ChangeMapJointLib.io.run_records import read_records
from ChangeMapJointLib.io.sources import reason_of

MAP_NAMES = {  # of the paper, by the file of a run
    run_files.CHANGE_DIFFERENCE: "CM_diff",
    run_files.CHANGE_COMBINED: "CM_comb",
    run_files.CHANGE_LEARNED: "CM_learn",
}
CM_SEQ = "CM_seq"
PAPER_MAPS = (CM_SEQ, *MAP_NAMES.values())
ABOVE_ONE = 1e-3  # rounding that a map may exceed 1 by
CSV_NEEDED = ("id", "kind", "centre_x_mm", "centre_y_mm", "centre_z_mm")


@dataclass(frozen=True)
class Listed:
    """One finding of a method's list.

    Attributes:
        id: of the finding.
        kind: new, grown, shrunk, resolved, or anything else that the method says.
        centre_mm: LPS, in the current scan.
        reference_ml: volume of the lesion in the current scan; None where the method did not measure it.
        template_ml: the same in the prior.
    """

    id: int
    kind: str
    centre_mm: Vector3
    reference_ml: float | None = None
    template_ml: float | None = None


@dataclass(frozen=True)
class MethodOutcome:
    """What one method made of one case; volumes are read when they are asked for.

    Attributes:
        method: its name.
        maps: file of every map, by the name under which it is scored.
        deformation: files of y.
        trust: file of its trust.
        findings: its list; None where it has none.
        threshold: of its list; None where unknown.
        seconds: time that it took.
        peak_mb: largest memory that it took.
        verdict: what it said of its own registration; empty where it said nothing.
        lungs: its lung masks, current scan and prior; None where it wrote none.
    """

    method: str
    maps: dict[str, Path]
    deformation: tuple[Path, ...]
    trust: Path | None
    findings: tuple[Listed, ...] | None
    threshold: float | None
    seconds: float | None
    peak_mb: float | None
    verdict: str = ""
    lungs: tuple[Path, Path] | None = None

    def read_mapping(self) -> Mapping | None:
        """Read y; None where the method gives none."""
        return read_deformation(self.deformation) if self.deformation else None


def open_outcome(files: MethodFiles) -> MethodOutcome:
    """Look at what a method made of a case; the records are read, the volumes are not.

    Raises:
        InputError: a run or a list of findings is damaged.
    """
    run = _run(files.run, files.method) if files.run is not None else None
    method = files.method or (run.method if run else "")
    maps = {method: files.map} if files.map else run.maps if run else {}
    return MethodOutcome(
        method,
        maps,
        files.deformation or (run.deformation if run else ()),
        files.trust or (run.trust if run else None),
        read_list(files.findings) if files.findings else run.findings if run else None,
        run.threshold if run else None,
        files.seconds or (run.seconds if run else None),
        files.peak_mb or (run.peak_mb if run else None),
        run.verdict if run else "",
        run.lungs if run else None,
    )


def read_map(path: Path) -> tuple[NDArray[np.float32], Grid]:
    """Read a change map, float32 ``[z, y, x]`` in [0, 1], and its grid; NaN, where a method says nothing, becomes 0.

    Raises:
        InputError: the file cannot be read, has several components, or values outside [0, 1].
    """
    array, grid = read_array(path)
    if array.ndim != 3:
        raise InputError(f"{array.shape[-1]} components per voxel", field=path, expected="a change map in [0, 1]")
    values = array.astype(np.float32)
    for plane in values:
        np.nan_to_num(plane, copy=False, nan=0.0)
    low, high = float(values.min()), float(values.max())
    if low < -ABOVE_ONE or high > 1 + ABOVE_ONE:
        raise InputError(
            f"holds values from {low:g} to {high:g}",
            field=path,
            expected="a change map in [0, 1]",
            remedy="divide it by its full scale, or give the map instead of a scan",
        )
    return values, grid


def read_list(path: Path) -> tuple[Listed, ...]:
    """Read a list of findings from ``findings.json`` or a CSV.

    The CSV has the columns id, kind, centre_x_mm, centre_y_mm, centre_z_mm and, where lesions were measured,
    reference_volume_ml and template_volume_ml, as ``findings.csv`` of a run.

    Raises:
        InputError: the file cannot be read, or holds no such list.
    """
    if path.suffix.lower() == ".csv":
        return tuple(_csv_findings(path))
    try:
        return _json_findings(json.loads(path.read_text("utf-8"))["findings"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"cannot be read as a list of findings ({reason_of(error)})",
            field=path,
            expected="findings.json of a run, or a CSV",
        ) from error


def _run(folder: Path, name: str) -> MethodOutcome:
    """The folder of a finished run."""
    records = read_records(folder)
    run = records["run"]
    configuration = run.get("configuration", {})
    method = name or str(configuration.get("method", "run"))
    prefix = f"{name}: " if name else ""
    maps = {f"{prefix}{title}": folder / file for file, title in MAP_NAMES.items() if (folder / file).exists()}
    if not maps and (folder / run_files.CHANGE_MAP).exists():
        maps = {f"{prefix}{CM_SEQ}": folder / run_files.CHANGE_MAP}
    field, rigid, trust = (folder / file for file in (run_files.DEFORMATION, run_files.RIGID, run_files.TRUST))
    deformation = next(((path,) for path in (field, rigid) if path.exists()), ())
    lungs = (folder / run_files.LUNGS_REFERENCE, folder / run_files.LUNGS_TEMPLATE)
    stages = [stage for stage in run.get("stages", []) if isinstance(stage, dict)]
    seconds = [float(stage["time_s"]) for stage in stages if _is_number(stage.get("time_s"))]
    peaks = [float(stage["peak_memory_mb"]) for stage in stages if _is_number(stage.get("peak_memory_mb"))]
    threshold = configuration.get("findings", {}).get("threshold")
    findings = records.get("findings")
    return MethodOutcome(
        method,
        maps,
        deformation,
        trust if trust.exists() else None,
        None if findings is None else _json_findings(findings["findings"]),
        float(threshold) if _is_number(threshold) else None,
        sum(seconds) if seconds else None,
        max(peaks) if peaks else None,
        str(records["quality"].get("quality", {}).get("verdict", "")),
        lungs if all(path.exists() for path in lungs) else None,
    )


def _json_findings(entries: list[dict[str, Any]]) -> tuple[Listed, ...]:
    listed = []
    for entry in entries:
        x, y, z = (float(v) for v in entry["centre_mm"])
        volumes = [(entry.get(f"lesion_{side}") or {}).get("volume_ml") for side in ("reference", "template")]
        listed.append(Listed(int(entry["id"]), str(entry["kind"]), (x, y, z), *volumes))
    return tuple(listed)


def _csv_findings(path: Path) -> Iterator[Listed]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, restval="")
            missing = [name for name in CSV_NEEDED if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f"found no column {missing[0]}", field=path, expected=", ".join(CSV_NEEDED))
            for row in reader:
                try:
                    x, y, z = (float(row[name]) for name in CSV_NEEDED[2:])
                    volumes = [float(row.get(f"{side}_volume_ml") or "nan") for side in ("reference", "template")]
                    if not np.isfinite((x, y, z)).all():
                        raise ValueError("a centre that is not finite")
                    number = int(row["id"])
                except (TypeError, ValueError) as error:
                    line = Argument(f"line {reader.line_num}")
                    raise InputError(str(error), field=(path, line), expected="numbers") from error
                yield Listed(number, row["kind"], (x, y, z), *(v if np.isfinite(v) else None for v in volumes))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"cannot be read ({reason_of(error)})", field=path, expected="a list of findings (CSV)"
        ) from error


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and bool(np.isfinite(value))
