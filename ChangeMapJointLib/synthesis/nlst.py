"""Lesions of NLST: the table of abnormalities as it is distributed, and centres from elsewhere.

The trial collected no coordinates (cdas.cancer.gov/learn/nlst/images): ``nlst_780_ctab`` says in which slice and lobe
an abnormality was seen and how large it was. Centres come from later annotations, as a plain table.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import Grid, Vector3
from ChangeMapJointLib.synthesis.truth import TrueChange

NODULE = 51  # sct_ab_desc: non-calcified nodule or mass of 4 mm or more
LOBES = {
    1: "right upper", 2: "right middle", 3: "right lower", 4: "left upper", 5: "lingula", 6: "left lower", 8: "other",
}  # fmt: skip
TEXTURES = {1: "soft tissue", 2: "ground glass", 3: "mixed", 4: "fluid or water", 6: "fat", 7: "other"}
NO_SLICE = 999
CENTRES = ("x_mm", "y_mm", "z_mm", "diameter_mm")
CTAB_HAS_NONE = "; NLST's own table has slices and lobes, but no coordinates: mark the centres in the scan"


@dataclass(frozen=True)
class Abnormality:
    """A row of ``nlst_780_ctab``.

    Attributes:
        participant: pid.
        year: of the screening, 0 to 2.
        number: of the abnormality within that screening.
        description: code of ``sct_ab_desc``; 51 is a non-calcified nodule.
        long_mm: longest diameter; None where it was not measured.
        perpendicular_mm: across it.
        slice_number: in which it is largest, counted from 1 in the series that was read; None where unknown.
        lobe: where it starts; empty where unknown.
        attenuation: predominant; empty where unknown.
    """

    participant: str
    year: int
    number: int
    description: int
    long_mm: float | None
    perpendicular_mm: float | None
    slice_number: int | None
    lobe: str
    attenuation: str

    @property
    def is_nodule(self) -> bool:
        """A non-calcified nodule of 4 mm or more."""
        return self.description == NODULE


@dataclass(frozen=True)
class Centre:
    """A lesion as a sphere: centre in mm LPS, and axial diameter."""

    centre_mm: Vector3
    diameter_mm: float


def read_ctab(path: Path, *, participant: str | None = None, year: int | None = None) -> list[Abnormality]:
    """The table ``nlst_780_ctab``, of all or of one participant and year.

    Raises:
        InputError: no such file, other columns, or a value that cannot be understood.
    """
    found = []
    for where, row in _rows(path, ("pid", "study_yr", "sct_ab_num", "sct_ab_desc")):
        if participant is not None and (row["pid"] or "").strip() != participant:
            continue
        try:
            one = _abnormality(row)
        except ValueError as error:
            raise InputError(
                str(error), field=where, expected="the table nlst_780_ctab as it is distributed"
            ) from error
        if year is None or one.year == year:
            found.append(one)
    return found


def _abnormality(row: dict[str, str]) -> Abnormality:
    def number(name: str) -> float | None:
        value = (row.get(name) or "").strip()
        if value in ("", ".", ".N", ".M"):  # SAS writes what is missing with a point
            return None
        found = float(value)
        if not np.isfinite(found):
            raise ValueError(f"found {name} = {value}")
        return found

    def code(name: str) -> int | None:
        value = number(name)
        return None if value is None else int(value)

    needed = {name: code(name) for name in ("study_yr", "sct_ab_num", "sct_ab_desc")}
    missing = [name for name, value in needed.items() if value is None]
    if missing:
        raise ValueError(f"found no {missing[0]}")
    return Abnormality(
        (row["pid"] or "").strip(),
        int(needed["study_yr"] or 0),
        int(needed["sct_ab_num"] or 0),
        int(needed["sct_ab_desc"] or 0),
        number("sct_long_dia"),
        number("sct_perp_dia"),
        None if (number_of := code("sct_slice_num")) == NO_SLICE else number_of,
        LOBES.get(code("sct_epi_loc") or 0, ""),
        TEXTURES.get(code("sct_pre_att") or 0, ""),
    )


def read_centres(path: Path) -> list[Centre]:
    """A plain table with the columns x_mm, y_mm, z_mm (LPS) and diameter_mm.

    Raises:
        InputError: no such file, other columns, or a value that is no number or no size.
    """
    found = []
    for where, row in _rows(path, CENTRES):
        try:
            x, y, z, diameter = (float(row[name]) for name in CENTRES)
            if not (np.isfinite([x, y, z]).all() and 0 < diameter < 1000):
                raise ValueError(f"found {x}, {y}, {z} and {diameter} mm")
        except (TypeError, ValueError) as error:
            raise InputError(str(error), field=where, expected="a centre in mm (LPS) and a diameter above 0") from error
        found.append(Centre((x, y, z), diameter))
    return found


def sphere_mask(centres: list[Centre], grid: Grid) -> NDArray[np.bool_]:
    """The spheres on ``grid``, bool ``[z, y, x]``.

    Raises:
        InputError: a centre outside of the grid.
    """
    mask = np.zeros(grid.shape, bool)
    for one in centres:
        if not grid.contains(one.centre_mm):
            raise InputError(
                f"centre {one.centre_mm} mm (LPS): outside of the scan",
                expected="LPS, where x grows to the patient's left",
            )
        ball = TrueChange(1, "stable", one.centre_mm, one.centre_mm, one.diameter_mm, one.diameter_mm)
        now, _, box = ball.inside(grid)
        mask[box] |= now
        i, j, k = np.rint(grid.to_index(np.array(one.centre_mm))).astype(int)
        mask[k, j, i] = True  # however small it is
    return mask


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """Every row with the place it stands at."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                told = CTAB_HAS_NONE if "sct_ab_num" in (reader.fieldnames or ()) and columns == CENTRES else ""
                raise InputError(f"found no column {missing[0]}", field=path, expected=f"{', '.join(columns)}{told}")
            for number, row in enumerate(reader, 2):
                yield f"{path}, line {number}", row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot be read ({error})", field=path, expected="a table (CSV)") from error
