"""Tables of lesions and of corresponding points: the truth of a pair that is not a mask.

A table of lesions (CSV with a header) has one row for each lesion in both scans. ``lesions.csv`` of ``changemap
synthesize`` is one.

======================= ===============================================================================================
id                      number above 0, unique; by default the row's
kind                    new, grown, shrunk, resolved or stable; by default from the sizes, see :func:`kind_of_sizes`
rx, ry, rz              centre in the current scan, mm, LPS; empty for a resolved lesion whose place there is not known
tx, ty, tz              centre in the prior, likewise
diameter_reference_mm   in the current scan, of the sphere of its volume; 0 where it is absent
diameter_template_mm    in the prior; or ``radius_reference_mm`` and ``radius_template_mm``
volume_reference_ml     by default the sphere's
volume_template_ml      by default the sphere's
inserted                1: synthetic, 0: the patient's own; by default 0
======================= ===============================================================================================

Other columns are ignored. A table of points has the columns rx, ry, rz, tx, ty, tz; rows whose column ``good`` is 0 are
left out.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.core.grid import FloatArray, Vector3
from ChangeMapJointLib.io.sources import reason_of
from ChangeMapJointLib.lesions.growth import REPEAT_SCAN_LOWER, REPEAT_SCAN_UPPER
from ChangeMapJointLib.synthesis.truth import CHANGE_KINDS, ChangeKind

LARGEST_MM = 500.0
SAME = {"vanished": "resolved", "disappeared": "resolved"}  # other words for a kind
CENTRES = (("rx", "ry", "rz"), ("tx", "ty", "tz"))
TABLE = "a table (CSV, UTF-8) with a header"


@dataclass(frozen=True)
class TrueLesion:
    """One lesion of the truth.

    Unlike :class:`~ChangeMapJointLib.synthesis.truth.TrueChange` it may come from a reader: a stable lesion then has
    two slightly different sizes, and the place of an absent one need not be known.

    Attributes:
        id: number within the pair, above 0.
        kind: its change from the prior to the current scan.
        centre_reference_mm: LPS, in the current scan; None where unknown.
        centre_template_mm: LPS, in the prior; None where unknown.
        diameter_reference_mm: of the sphere of its volume; 0 where it is absent.
        diameter_template_mm: the same in the prior.
        volume_reference_ml: of the lesion in the current scan.
        volume_template_ml: the same in the prior.
        inserted: whether it is synthetic.
    """

    id: int
    kind: ChangeKind
    centre_reference_mm: Vector3 | None
    centre_template_mm: Vector3 | None
    diameter_reference_mm: float
    diameter_template_mm: float
    volume_reference_ml: float
    volume_template_ml: float
    inserted: bool = False

    @property
    def is_change(self) -> bool:
        """Whether its kind is anything but stable."""
        return self.kind != "stable"

    @property
    def diameter_change_mm(self) -> float:
        """Absolute difference of the two diameters."""
        return abs(self.diameter_reference_mm - self.diameter_template_mm)

    @property
    def growth_percent(self) -> float | None:
        """Change of volume in percent of the prior's; None unless it is in both scans."""
        if not (self.volume_reference_ml > 0 and self.volume_template_ml > 0):
            return None
        return 100.0 * (self.volume_reference_ml / self.volume_template_ml - 1.0)


def sphere_ml(diameter_mm: float) -> float:
    """Volume in ml of the sphere of a diameter in mm."""
    return math.pi / 6000 * diameter_mm**3


def kind_of_sizes(reference_ml: float, template_ml: float) -> ChangeKind:
    """The kind of a lesion by its two volumes, where nobody said it.

    A lesion in both scans counts as stable while the ratio of its volumes lies in the 95 % range of repeated scans of
    an unchanged nodule, 0.75 to 1.29.

    Examples:
        >>> [kind_of_sizes(*v) for v in ((1, 0), (0, 1), (1.3, 1), (0.74, 1), (1.2, 1))]
        ['new', 'resolved', 'grown', 'shrunk', 'stable']
    """
    if template_ml <= 0:
        return "new"
    if reference_ml <= 0:
        return "resolved"
    ratio = reference_ml / template_ml
    return "grown" if ratio > REPEAT_SCAN_UPPER else "shrunk" if ratio < REPEAT_SCAN_LOWER else "stable"


def read_lesion_table(path: Path) -> tuple[TrueLesion, ...]:
    """Read a table of lesions; it may be empty below its header.

    Raises:
        InputError: the file or a column is missing, a value is not a number or out of range, a number stands twice, or
            the kind contradicts the sizes.
    """
    lesions: dict[int, TrueLesion] = {}
    names, rows = _table(path)
    unit = next((u for u in ("diameter", "radius") if f"{u}_reference_mm" in names), "diameter")
    needed = [f"{unit}_reference_mm", f"{unit}_template_mm", *CENTRES[0]]
    missing = [name for name in needed if name not in names]
    if missing:
        raise InputError(f"found no column {missing[0]}", field=path, expected=", ".join(needed))
    for number, (line, row) in enumerate(rows, 1):
        try:
            lesion = _lesion(row, number, unit)
            if lesion.id in lesions:
                raise InputError(f"lesion {lesion.id} stands in a row above", remedy="give every lesion its own id")
        except InputError as error:
            raise error.at(path, Argument(f"line {line}")) from error
        lesions[lesion.id] = lesion
    return tuple(lesions.values())


def read_points(path: Path) -> tuple[FloatArray, FloatArray]:
    """Read a table of corresponding points.

    Returns:
        Points of the current scan and of the prior, each ``[n, 3]`` (x, y, z in mm, LPS), n at least 1.

    Raises:
        InputError: the file or a column is missing, a value is not a number, or there is no point.
    """
    names, rows = _table(path)
    columns = [name for side in CENTRES for name in side]
    missing = [name for name in columns if name not in names]
    if missing:
        raise InputError(f"found no column {missing[0]}", field=path, expected=", ".join(columns))
    points = []
    for line, row in rows:
        if row.get("good") in ("0", "false"):
            continue
        try:
            points.append([_number(row, name) for name in columns])
        except InputError as error:
            raise error.at(path, Argument(f"line {line}")) from error
    if not points:
        raise InputError("holds no point", field=path, expected="a row for each pair of corresponding points")
    array = np.array(points)
    return array[:, :3], array[:, 3:]


def _table(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Names of the columns, and the rows with their lines."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, restval="", strict=True)
            names = [name.strip() for name in reader.fieldnames or ()]
            rows = []
            for row in reader:
                if None in row:
                    raise InputError(
                        "has more cells than the header", field=(path, Argument(f"line {reader.line_num}"))
                    )
                rows.append((reader.line_num, {name.strip(): value.strip() for name, value in row.items()}))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot be read ({reason_of(error)})", field=path, expected=TABLE) from error
    return names, rows


def _lesion(row: Mapping[str, str], number: int, unit: str) -> TrueLesion:
    scale = 2.0 if unit == "radius" else 1.0
    diameters = [scale * _number(row, f"{unit}_{side}_mm", 0.0, LARGEST_MM) for side in ("reference", "template")]
    if max(diameters) == 0:
        raise InputError("the lesion is absent in both scans", expected=f"a {unit} above 0 in one")
    volumes = []
    for side, diameter in zip(("reference", "template"), diameters, strict=True):
        column = f"volume_{side}_ml"
        given = _number(row, column, 0.0) if row.get(column) else 0.0
        volumes.append(given if given and diameter else sphere_ml(diameter))
    centres = [_centre(row, names) for names in CENTRES]
    if diameters[0] and centres[0] is None:
        raise InputError("the lesion has no centre in the current scan", expected="rx, ry and rz in mm, LPS")
    identity = _number(row, "id", 1.0) if row.get("id") else float(number)
    if identity != int(identity):
        raise InputError(f"found {row['id']!r}", field="id", expected="a whole number above 0")
    return TrueLesion(
        int(identity),
        _kind(row.get("kind", ""), diameters, volumes),
        centres[0],
        centres[1],
        diameters[0],
        diameters[1],
        volumes[0],
        volumes[1],
        inserted=row.get("inserted", "").lower() in ("1", "true", "yes"),
    )


def _kind(text: str, diameters: list[float], volumes: list[float]) -> ChangeKind:
    """The kind that the row says, or that its sizes give."""
    if not text:
        return kind_of_sizes(volumes[0], volumes[1])
    now, before = diameters
    fits: dict[str, bool] = {
        "new": now > 0 and before == 0,
        "resolved": now == 0 and before > 0,
        "grown": now > before > 0,
        "shrunk": before > now > 0,
        "stable": now > 0 and before > 0,
    }
    word = SAME.get(text.lower(), text.lower())
    for kind in CHANGE_KINDS:
        if kind == word:
            if not fits[kind]:
                raise InputError(f"found {now:g} mm now and {before:g} mm before", field="kind", value=kind)
            return kind
    raise InputError(f"found {text!r}", field="kind", expected=f"one of {', '.join(CHANGE_KINDS)}")


def _centre(row: Mapping[str, str], names: tuple[str, str, str]) -> Vector3 | None:
    if not any(row.get(name) for name in names):
        return None
    x, y, z = (_number(row, name) for name in names)
    return x, y, z


def _number(row: Mapping[str, str], column: str, low: float = -math.inf, high: float = math.inf) -> float:
    text = row.get(column, "")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and low <= value <= high):
        limits = "" if low == -math.inf else f" of {low:g} or more" if high == math.inf else f" in {low:g} to {high:g}"
        raise InputError(f"found {text!r}", field=column, expected=f"a number{limits}")
    return value
