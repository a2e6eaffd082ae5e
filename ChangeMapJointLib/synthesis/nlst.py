"""Lesions from a plain table of centres and diameters, for example of NLST.

NLST did not record coordinates (cdas.cancer.gov/learn/nlst/images): its own table ``nlst_780_ctab`` holds slice, lobe
and size of every abnormality. Centres come from later annotations.
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
from ChangeMapJointLib.io.sources import reason_of
from ChangeMapJointLib.synthesis.truth import TrueChange

CENTRES = ("x_mm", "y_mm", "z_mm", "diameter_mm")
CTAB_HAS_NONE = "; NLST's own table holds slices and lobes but no coordinates: mark the centres in the scan"


@dataclass(frozen=True)
class Centre:
    """A lesion as a sphere.

    Attributes:
        centre_mm: LPS.
        diameter_mm: axial diameter.
    """

    centre_mm: Vector3
    diameter_mm: float


def read_centres(path: Path) -> list[Centre]:
    """Read a CSV table with the columns x_mm, y_mm, z_mm (LPS) and diameter_mm.

    Raises:
        InputError: the file or a column is missing, or a value is not a number or out of range.
    """
    centres = []
    for location, row in _rows(path):
        try:
            x, y, z, diameter = (float(row[name]) for name in CENTRES)
            if not (np.isfinite([x, y, z]).all() and 0 < diameter < 1000):
                raise ValueError(f"found {x}, {y}, {z} and {diameter} mm")
        except (TypeError, ValueError) as error:
            raise InputError(
                str(error), field=location, expected="a centre in mm (LPS) and a diameter above 0"
            ) from error
        centres.append(Centre((x, y, z), diameter))
    return centres


def sphere_mask(centres: list[Centre], grid: Grid) -> NDArray[np.bool_]:
    """Draw the spheres on ``grid``, bool ``[z, y, x]``.

    Raises:
        InputError: a centre lies outside the grid.
    """
    mask = np.zeros(grid.shape, bool)
    for lesion in centres:
        if not grid.contains(lesion.centre_mm):
            raise InputError(
                f"centre {lesion.centre_mm} mm (LPS) lies outside the scan",
                expected="LPS, where x increases towards the patient's left",
            )
        ball = TrueChange(1, "stable", lesion.centre_mm, lesion.centre_mm, lesion.diameter_mm, lesion.diameter_mm)
        now, _, box = ball.inside(grid)
        mask[box] |= now
        i, j, k = np.rint(grid.to_index(np.array(lesion.centre_mm))).astype(int)
        mask[k, j, i] = True  # even if the sphere is smaller than a voxel
    return mask


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Every row, with its file and line for messages."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            missing = [name for name in CENTRES if name not in (reader.fieldnames or ())]
            if missing:
                hint = CTAB_HAS_NONE if "sct_ab_num" in (reader.fieldnames or ()) else ""
                raise InputError(f"found no column {missing[0]}", field=path, expected=f"{', '.join(CENTRES)}{hint}")
            for number, row in enumerate(reader, 2):
                yield f"{path}, line {number}", row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot be read ({reason_of(error)})", field=path, expected="a table (CSV)") from error
