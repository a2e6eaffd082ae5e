"""Lesions as centres and diameters in a plain table, for example of NLST.

NLST collected no coordinates (cdas.cancer.gov/learn/nlst/images): its own table ``nlst_780_ctab`` says in which slice
and lobe an abnormality was seen and how large it was. Centres come from later annotations.
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

CENTRES = ("x_mm", "y_mm", "z_mm", "diameter_mm")
CTAB_HAS_NONE = "; NLST's own table has slices and lobes, but no coordinates: mark the centres in the scan"


@dataclass(frozen=True)
class Centre:
    """A lesion as a sphere: centre in mm LPS, and axial diameter."""

    centre_mm: Vector3
    diameter_mm: float


def read_centres(path: Path) -> list[Centre]:
    """A plain table with the columns x_mm, y_mm, z_mm (LPS) and diameter_mm.

    Raises:
        InputError: no such file, other columns, or a value that is no number or no size.
    """
    found = []
    for where, row in _rows(path):
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


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Every row with the place it stands at."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            missing = [name for name in CENTRES if name not in (reader.fieldnames or ())]
            if missing:
                told = CTAB_HAS_NONE if "sct_ab_num" in (reader.fieldnames or ()) else ""
                raise InputError(f"found no column {missing[0]}", field=path, expected=f"{', '.join(CENTRES)}{told}")
            for number, row in enumerate(reader, 2):
                yield f"{path}, line {number}", row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot be read ({error})", field=path, expected="a table (CSV)") from error
