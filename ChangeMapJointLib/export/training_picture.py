"""Pictures of a validation pair during training: R, T, T(y) and CM_comb in two planes through the change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ChangeMapJointLib.core.grid import FloatArray, Grid
from ChangeMapJointLib.export.pictures import Pixels, annotate, lung_window, overlay
from ChangeMapJointLib.export.planes import box_plane, reslice
from ChangeMapJointLib.io.write import atomic_path

PIXEL_MM = 1.2
GAP = 6  # pixels between pictures
SHOWN = 0.3  # threshold of the map: early in training it stays far below the threshold of findings


def training_picture(
    reference: NDArray[np.float32],
    template: NDArray[np.float32],
    warped: NDArray[np.float32],
    change: NDArray[np.float32],
    grid: Grid,
    through_mm: FloatArray,
) -> Pixels:
    """Draw R, T, T(y) and R with the change map side by side; axial above, coronal below.

    Args:
        reference: R in HU, ``[z, y, x]``.
        template: T after rigid alignment, in HU.
        warped: T(y) in HU.
        change: the map in [0, 1].
        grid: of all volumes.
        through_mm: a point in both planes, LPS.

    Returns:
        RGB ``[rows, columns, 3]``.
    """
    corners = grid.corners().to_physical(np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]))
    low, high = corners.min(axis=0), corners.max(axis=0)
    rows = []
    for name in ("axial", "coronal"):
        plane = box_plane(name, low, high, pixel_mm=PIXEL_MM)
        depth = plane.depth_axis
        plane = plane.at_depth(float(through_mm[depth] - plane.centre_mm[depth]))
        index = plane.index_on(grid)
        r, t, t_warped = (reslice(v, index) for v in (reference, template, warped))
        with_change = overlay(lung_window(r), reslice(change, index), r - t_warped, threshold=SHOWN)
        panels = [lung_window(r), lung_window(t), lung_window(t_warped), with_change]
        rows.append(_side_by_side([annotate(pixels, plane) for pixels in panels]))
    return np.concatenate([rows[0], np.zeros((GAP, *rows[0].shape[1:]), np.uint8), rows[1]])


def write_picture(path: Path, pixels: Pixels) -> None:
    """Write a PNG file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part, part.open("wb") as stream:
        Image.fromarray(pixels).save(stream, "PNG", optimize=True)


def _side_by_side(pictures: list[Pixels]) -> Pixels:
    gap = np.zeros((pictures[0].shape[0], GAP, 3), np.uint8)
    parts = [part for picture in pictures for part in (picture, gap)][:-1]
    return np.concatenate(parts, axis=1)
