"""Nodules of LIDC-IDRI from the XML file that comes with each DICOM series and holds the outlines of four readers.

An outline runs through the first pixels outside the nodule, so its own pixels are excluded. Nodules below 3 mm have one
point instead of an outline; they are ignored, as are marks of non-nodules.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import Grid

OFF_SLICE = 0.2  # largest distance of an outline from its slice, in slices, from rounding in the file
EXPECTED = "an XML file of LIDC-IDRI (LidcReadMessage)"


@dataclass(frozen=True)
class SliceOutline:
    """One reader's outline of one nodule in one slice.

    Attributes:
        z_mm: of the slice, in patient coordinates.
        inclusion: False for a hole.
        points: (column, row) of its pixels.
    """

    z_mm: float
    inclusion: bool
    points: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class LidcReading:
    """The marks of one reader: the outlines of each nodule of 3 mm or more."""

    nodules: tuple[tuple[SliceOutline, ...], ...]


@dataclass(frozen=True)
class LidcReadings:
    """All readings of one series.

    Attributes:
        series_uid: SeriesInstanceUID of the series; empty where the file does not state it.
        readings: one for each reader.
    """

    series_uid: str
    readings: tuple[LidcReading, ...]


def read_lidc(path: Path) -> LidcReadings:
    """Read an XML file of LIDC-IDRI.

    Raises:
        InputError: the file is missing, is not XML, or holds no readings of a CT.
    """
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", field=path, expected=EXPECTED) from error
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(f"not XML ({error})", field=path, expected=EXPECTED) from error
    for element in root.iter():  # drop the namespace
        element.tag = element.tag.rsplit("}", 1)[-1]
    sessions = root.findall("readingSession")
    if root.tag != "LidcReadMessage" or not sessions:
        raise InputError(f"found <{root.tag}> with {len(sessions)} reading sessions", field=path, expected=EXPECTED)
    try:
        readings = tuple(_reading(session) for session in sessions)
    except (TypeError, ValueError) as error:
        raise InputError(f"an outline cannot be read ({error})", field=path, expected=EXPECTED) from error
    return LidcReadings((root.findtext("ResponseHeader/SeriesInstanceUid") or "").strip(), readings)


def _reading(session: ElementTree.Element) -> LidcReading:
    nodules = []
    for nodule in session.findall("unblindedReadNodule"):
        outlines = tuple(_outline(roi) for roi in nodule.findall("roi"))
        if any(len(outline.points) > 2 for outline in outlines):
            nodules.append(outlines)
    return LidcReading(tuple(nodules))


def _outline(roi: ElementTree.Element) -> SliceOutline:
    points = tuple((int(_text(edge, "xCoord")), int(_text(edge, "yCoord"))) for edge in roi.findall("edgeMap"))
    z_mm = float(_text(roi, "imageZposition"))
    if not np.isfinite(z_mm):
        raise ValueError(f"imageZposition is {z_mm}")
    return SliceOutline(z_mm, _text(roi, "inclusion").upper() == "TRUE", points)


def _text(element: ElementTree.Element, name: str) -> str:
    text = element.findtext(name)
    if text is None:
        raise ValueError(f"<{element.tag}> without <{name}>")
    return text.strip()


def consensus_mask(readings: LidcReadings, grid: Grid, *, level: float = 0.5) -> NDArray[np.bool_]:
    """The voxels that at least a fraction ``level`` of the readers assign to a nodule, bool ``[z, y, x]``.

    Args:
        readings: of the series.
        grid: of the series; columns and rows of the outlines are its x and y.
        level: 0.5 is the usual consensus of two of four readers.

    Raises:
        InputError: the grid is not that of an axial series, or an outline lies outside it.
    """
    if np.asarray(grid.direction)[:2, :2].round(3).tolist() != [[1, 0], [0, 1]]:
        raise InputError(
            f"found axes {grid.direction}",
            field="series of LIDC outlines",
            expected="an axial series with its original orientation (rows from front to back)",
            remedy="give the DICOM series",
        )
    votes = np.zeros(grid.shape, np.uint8)
    for reading in readings.readings:
        marked = np.zeros(grid.shape, bool)
        for nodule in reading.nodules:
            _fill(marked, nodule, grid)
        votes += marked
    mask: NDArray[np.bool_] = votes >= max(np.ceil(level * len(readings.readings)), 1)
    return mask


def _fill(marked: NDArray[np.bool_], outlines: tuple[SliceOutline, ...], grid: Grid) -> None:
    """Fill one nodule of one reader, without its holes, in ``marked``."""
    x, y, _ = grid.origin_mm
    for outline in sorted(outlines, key=lambda outline: not outline.inclusion):
        if len(outline.points) < 3:
            continue
        slice_index = float(grid.to_index(np.array([x, y, outline.z_mm]))[2])
        k = round(slice_index)
        columns, rows = (max(values) for values in zip(*outline.points, strict=True))
        first = min(min(point) for point in outline.points)
        in_plane = first >= 0 and columns < grid.shape[2] and rows < grid.shape[1]
        if abs(slice_index - k) > OFF_SLICE or not 0 <= k < grid.shape[0] or not in_plane:
            raise InputError(
                f"LIDC outline at z = {outline.z_mm} mm, up to column {columns} and row {rows}: outside the series "
                f"of {grid.size} voxels from z = {grid.origin_mm[2]} mm",
                remedy="give the XML file of this series",
            )
        plane = Image.new("1", (grid.shape[2], grid.shape[1]))
        ImageDraw.Draw(plane).polygon(list(outline.points), fill=1, outline=0)
        inside = np.array(plane)
        for column, row in outline.points:
            inside[row, column] = False
        marked[k] = marked[k] | inside if outline.inclusion else marked[k] & ~inside
