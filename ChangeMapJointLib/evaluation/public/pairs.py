"""Pairs of a public data set, and the tables that are written from them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray, Grid, Vector3
from ChangeMapJointLib.core.hu import LOWEST_HU
from ChangeMapJointLib.evaluation.known import read_labels
from ChangeMapJointLib.evaluation.result_folder import whole_folder
from ChangeMapJointLib.io.write import write_nrrd

CASES, PAIRS, NODULES = "cases.csv", "pairs.csv", "nodules.csv"


@dataclass(frozen=True)
class PointLesion:
    """A lesion that is known by its centre alone: it is drawn as a sphere.

    Attributes:
        id: number within the pair.
        centre_mm: LPS, in the current scan.
        diameter_mm: of the sphere; the data set gives no size.
    """

    id: int
    centre_mm: Vector3
    diameter_mm: float


@dataclass(frozen=True)
class AnnotatedNodule:
    """A nodule in one or both scans; None where it is not annotated."""

    name: str
    reference_mm: Vector3 | None
    template_mm: Vector3 | None


@dataclass(frozen=True, eq=False)
class RawScan:
    """A scan that must be written first: voxels without a header.

    Attributes:
        path: raw little-endian int16, x fastest.
        grid: of ``array``, in LPS.
        offset_hu: what is added to the stored numbers.
        flipped: whether the file's first slice is the one at the head.
    """

    path: Path
    grid: Grid
    offset_hu: int
    flipped: bool

    def read(self) -> NDArray[np.int16]:
        """Its voxels in HU, int16 ``[z, y, x]`` from the feet to the head.

        Raises:
            InputError: the file has another size.
        """
        expected = 2 * int(np.prod(self.grid.shape))
        try:
            if self.path.stat().st_size != expected:
                raise InputError(
                    f"has {self.path.stat().st_size} bytes",
                    field=self.path,
                    expected=f"{expected} for {self.grid.size} voxels of int16",
                )
            array = np.fromfile(self.path, "<i2").reshape(self.grid.shape)
        except OSError as error:
            raise InputError(f"cannot be read ({error.strerror})", field=self.path) from error
        hu = np.clip(array.astype(np.int32) + self.offset_hu, LOWEST_HU, None).astype(np.int16)
        return hu[::-1] if self.flipped else hu


@dataclass(frozen=True, eq=False)
class Relabelled:
    """A label map whose labels are to be changed before use: lesions that merged get one number in both scans."""

    path: Path
    numbers: Mapping[int, int]


@dataclass(frozen=True, eq=False)
class PublicPair:
    """One pair of a data set and what is known of it.

    Attributes:
        name: unique; names its files and its run.
        patient: of both scans.
        reference: the current scan.
        template: the prior.
        days: between them; None where unknown.
        lesions: known by their centres; None where lesions are not known so.
        labels: label maps of the lesions in the current scan and the prior.
        points: corresponding points of both, each ``[n, 3]`` in mm, LPS.
        lungs: masks of the lungs in both.
        nodules: over time.
        notes: what was left out, one sentence each.
    """

    name: str
    patient: str
    reference: Path | RawScan
    template: Path | RawScan
    days: float | None = None
    lesions: tuple[PointLesion, ...] | None = None
    labels: tuple[Path | Relabelled, Path | Relabelled] | None = None
    points: tuple[FloatArray, FloatArray] | None = None
    lungs: tuple[Path, Path] | None = None
    nodules: tuple[AnnotatedNodule, ...] = ()
    notes: tuple[str, ...] = ()


def write_pair_tables(pairs: Sequence[PublicPair], out: Path) -> Path:
    """Write ``pairs.csv`` for ``changemap cohort`` and ``cases.csv`` for ``changemap evaluate`` into a new folder.

    Raises:
        InputError: the folder exists or cannot be written, or a scan cannot be read.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError("exists already", field="out", value=out, remedy="give a new folder")
    with whole_folder(out) as part:
        cases, scans = [], []
        for pair in pairs:
            cases.append(_case(pair, part))
            scans.append(
                {
                    "id": pair.name,
                    "reference": _scan(pair.reference, part, pair.name, "reference"),
                    "template": _scan(pair.template, part, pair.name, "template"),
                }
            )
        _write(part / PAIRS, scans)
        _write(part / CASES, cases)
        nodules = [_nodule(pair, nodule) for pair in pairs for nodule in pair.nodules]
        if nodules:
            _write(part / NODULES, nodules)
    return out


def _case(pair: PublicPair, folder: Path) -> dict[str, str]:
    """The row of ``cases.csv``."""
    row = dict.fromkeys(
        (
            *("case", "patient", "days", "lesions", "lesions_reference", "lesions_template", "landmarks"),
            *("lungs_reference", "lungs_template", "note"),
        ),
        "",
    )
    row |= {"case": pair.name, "patient": pair.patient, "note": " ".join(pair.notes)}
    row["days"] = "" if not pair.days or pair.days <= 0 else f"{pair.days:g}"
    if pair.lesions is not None:
        row["lesions"] = _table(folder, "lesions", pair.name, (_lesion(lesion) for lesion in pair.lesions))
    if pair.labels is not None:
        for side, labels in zip(("reference", "template"), pair.labels, strict=True):
            row[f"lesions_{side}"] = _labels(labels, folder, f"{pair.name}_{side}")
    if pair.points is not None and len(pair.points[0]):
        names = ("rx", "ry", "rz", "tx", "ty", "tz")
        rows = ({n: f"{v:.4f}" for n, v in zip(names, row, strict=True)} for row in np.hstack(pair.points))
        row["landmarks"] = _table(folder, "landmarks", pair.name, rows)
    if pair.lungs is not None:
        row["lungs_reference"], row["lungs_template"] = (str(path.resolve()) for path in pair.lungs)
    return row


def _lesion(lesion: PointLesion) -> dict[str, str]:
    x, y, z = lesion.centre_mm
    return {
        "id": str(lesion.id),
        "kind": "new",
        "rx": f"{x:.4f}",
        "ry": f"{y:.4f}",
        "rz": f"{z:.4f}",
        "diameter_reference_mm": f"{lesion.diameter_mm:g}",
        "diameter_template_mm": "0",
    }


def _nodule(pair: PublicPair, nodule: AnnotatedNodule) -> dict[str, str]:
    row = {"case": pair.name, "patient": pair.patient, "nodule": nodule.name}
    for names, place in ((("rx", "ry", "rz"), nodule.reference_mm), (("tx", "ty", "tz"), nodule.template_mm)):
        row |= {name: "" if place is None else f"{place[k]:.4f}" for k, name in enumerate(names)}
    return row


def _scan(scan: Path | RawScan, folder: Path, name: str, side: str) -> str:
    """The path of a scan in the table; one without a header is written as NRRD first."""
    if isinstance(scan, Path):
        return str(scan.resolve())
    path = Path("scans") / f"{name}_{side}.nrrd"
    (folder / path).parent.mkdir(exist_ok=True)
    write_nrrd(folder / path, scan.read(), scan.grid)
    return path.as_posix()


def _labels(labels: Path | Relabelled, folder: Path, name: str) -> str:
    if isinstance(labels, Path):
        return str(labels.resolve())
    array, grid = read_labels(labels.path)
    table: NDArray[np.int32] = np.arange(
        max(int(array.max()), *labels.numbers, *labels.numbers.values()) + 1, dtype=np.int32
    )
    for old, new in labels.numbers.items():
        table[old] = new
    path = Path("labels") / f"{name}.nrrd"
    (folder / path).parent.mkdir(exist_ok=True)
    write_nrrd(folder / path, table[array].astype(np.int16), grid)
    return path.as_posix()


def _table(folder: Path, kind: str, name: str, rows: Iterable[Mapping[str, str]]) -> str:
    path = Path(kind) / f"{name}.csv"
    (folder / path).parent.mkdir(exist_ok=True)
    _write(folder / path, list(rows))
    return path.as_posix()


def _write(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]) if rows else ["id"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
