"""The overview: both lungs projected as on a radiograph, change in colour, findings numbered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ChangeMapJointLib.core.grid import FloatArray, Grid
from ChangeMapJointLib.core.hu import FULL_SCALE_HU
from ChangeMapJointLib.core.resample import resample
from ChangeMapJointLib.export.content import ReportContent
from ChangeMapJointLib.export.panels import Picture, picture
from ChangeMapJointLib.export.pictures import (
    Marks,
    Pixels,
    annotate,
    change_colour,
    font,
    lung_window,
)
from ChangeMapJointLib.export.planes import SCREEN_AXES, Plane, box_plane, physical_box

if TYPE_CHECKING:
    from ChangeMapJointLib.change.findings import Finding

GUTTER = 46  # pixels on either side of the chest, for the numbers
WIDTH = 520  # of the chest, in pixels
COARSE_MM = 2.0
PALE = 0.35  # opacity of changes that registration or acquisition explains


def overview_pictures(content: ReportContent, numbered: Sequence[Finding]) -> tuple[Picture, ...]:
    """Draw the coronal and the axial projection.

    Args:
        content: the scans and the map.
        numbered: the findings to number.
    """
    low, high = physical_box(content.reference.grid, content.lungs, margin_mm=10.0)
    coarse = _coarse_grid(low, high)
    hu = resample(content.reference.array, content.reference.grid, coarse, outside=float("nan"))
    points, signed_hu, explained = change_points(content)
    pictures, count = [], len(numbered)
    for name, axis in (("coronal", 1), ("axial", 0)):
        plane = box_plane(name, low, high, pixel_mm=float(high[0] - low[0]) / WIDTH)
        pixels = _radiograph(hu, axis, plane)
        for shown, opacity in ((explained, PALE), (~explained, 1.0)):
            layer = project_change(plane, points[shown], signed_hu[shown], content.reference.grid)
            pixels = _overlay_change(pixels, layer, opacity)
        pixels = _number_findings(
            annotate(pixels, plane, Marks(warning=content.warning, letters_at=0.12)), plane, numbered
        )
        alt = f"{name} projection of the lungs, {count or 'no'} {'finding' if count == 1 else 'findings'} numbered"
        pictures.append(picture("overlay", pixels, alt))
    return tuple(pictures)


def project_change(
    plane: Plane, points_mm: FloatArray, signed_hu: NDArray[np.float32], grid: Grid
) -> NDArray[np.float32]:
    """Project the change: the strongest signed value along each line of sight.

    Args:
        plane: to project onto.
        points_mm: centres of the changed voxels, ``[n, 3]``, LPS.
        signed_hu: their change in HU, ``[n]``.
        grid: the voxels' grid; each voxel is drawn at its size.

    Returns:
        HU, float32 ``[rows, columns]``; 0 where nothing changed.
    """
    result: NDArray[np.float32] = np.zeros(plane.shape, dtype=np.float32)
    if not len(points_mm):
        return result
    rows, columns = plane.shape
    cells = np.rint(plane.to_pixel(points_mm)).astype(int)
    voxel_px = np.abs(plane.axes @ grid.affine[:3, :3]).sum(axis=1) / plane.pixel_mm  # width and height in pixels
    reach_x, reach_y = np.maximum(np.ceil((voxel_px - 1) / 2), 1).astype(int)
    order = np.argsort(np.abs(signed_hu), kind="stable")  # the strongest is written last
    steps = [(dx, dy) for dx in range(-reach_x, reach_x + 1) for dy in range(-reach_y, reach_y + 1)]
    for dx, dy in steps:
        x, y = cells[order, 0] + dx, cells[order, 1] + dy
        visible = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
        layer = np.zeros_like(result)
        layer[y[visible], x[visible]] = signed_hu[order][visible]
        stronger = np.abs(layer) > np.abs(result)
        result[stronger] = layer[stronger]
    return result


def change_points(content: ReportContent) -> tuple[FloatArray, NDArray[np.float32], NDArray[np.bool_]]:
    """The voxels where the map reaches the threshold.

    Returns:
        LPS points in mm ``[n, 3]``, signed change in HU ``[n]``, and whether the list explains the change ``[n]``.
    """
    if content.change_map is None or content.signed_hu is None:
        return np.zeros((0, 3)), np.zeros(0, dtype=np.float32), np.zeros(0, dtype=bool)
    voxels = np.nonzero(content.change_map >= content.threshold)
    points = content.reference.grid.to_physical(np.stack(voxels[::-1], axis=-1))
    labels = None if content.findings is None else content.findings.labels
    ids = [item.id for item in content.section("explained")]
    explained = np.isin(labels[voxels], ids) if labels is not None else np.zeros(len(points), dtype=bool)
    return points, content.signed_hu[voxels].astype(np.float32), explained


def _coarse_grid(low: FloatArray, high: FloatArray) -> Grid:
    nx, ny, nz = (max(int(n), 1) for n in np.ceil((high - low) / COARSE_MM))
    x, y, z = (float(v) for v in low + COARSE_MM / 2)
    return Grid((nz, ny, nx), (COARSE_MM, COARSE_MM, COARSE_MM), (x, y, z))


def _radiograph(hu: NDArray[np.float32], axis: int, plane: Plane) -> Pixels:
    """Average ``hu`` (on an LPS-aligned grid) along ``axis`` and resize it to the pixels of ``plane``."""
    known = np.isfinite(hu)
    mean = np.where(known, hu, 0).sum(axis=axis) / np.maximum(known.sum(axis=axis), 1)
    if SCREEN_AXES[plane.name][1][2] < 0:  # the array's rows grow towards the head, the screen's towards the feet
        mean = mean[::-1]
    dark, light = np.percentile(mean, (1, 99))
    rows, columns = plane.shape
    smooth = np.array(Image.fromarray(mean.astype(np.float32)).resize((columns, rows), Image.Resampling.BICUBIC))
    return lung_window(smooth, level=float(dark + light) / 2, width=max(float(light - dark), 1.0) * 1.15)


def _overlay_change(grey: Pixels, signed_hu: NDArray[np.float32], opacity: float) -> Pixels:
    colour = change_colour(signed_hu / FULL_SCALE_HU)
    mixed = np.rint((1 - opacity) * grey + opacity * colour).astype(np.uint8)
    return np.where((signed_hu != 0)[..., None], mixed, grey)


def _number_findings(pixels: Pixels, plane: Plane, findings: Sequence[Finding]) -> Pixels:
    """Write the numbers into black gutters on both sides, each joined to its finding by a line."""
    height, width, _ = pixels.shape
    canvas = Image.new("RGB", (width + 2 * GUTTER, height))
    canvas.paste(Image.fromarray(pixels), (GUTTER, 0))
    draw = ImageDraw.Draw(canvas)
    spots = [(finding, plane.to_pixel(np.asarray(finding.centre_mm))) for finding in findings]
    for left in (True, False):
        in_gutter = sorted((s for s in spots if (s[1][0] < width / 2) == left), key=lambda spot: float(spot[1][1]))
        spacing = min(22.0, height / max(len(in_gutter), 1))
        heights = spread([float(spot[1]) for _, spot in in_gutter], spacing, float(height))
        for (finding, (x, y)), label_y in zip(in_gutter, heights, strict=True):
            _label(draw, finding, (GUTTER + float(x), float(y)), label_y, canvas.width, min(17.0, spacing - 1))
    return np.array(canvas)


def _label(
    draw: ImageDraw.ImageDraw, finding: Finding, spot: tuple[float, float], label_y: float, width: int, size: float
) -> None:
    left = spot[0] < width / 2
    start = (GUTTER - 8, label_y) if left else (width - GUTTER + 8, label_y)
    radius = 7.0
    gap = radius / max(np.hypot(spot[0] - start[0], spot[1] - start[1]), radius)
    end = (spot[0] + (start[0] - spot[0]) * gap, spot[1] + (start[1] - spot[1]) * gap)
    red, green, blue = (int(v) for v in change_colour(np.sign([finding.peak_hu]))[0])
    draw.line([start, end], fill=(235, 235, 235), width=1)
    draw.ellipse((spot[0] - radius, spot[1] - radius, spot[0] + radius, spot[1] + radius), outline=(235, 235, 235))
    text_x = GUTTER - 12 if left else width - GUTTER + 12
    draw.text(
        (text_x, label_y), str(finding.id), fill=(red, green, blue), font=font(size), anchor="rm" if left else "lm"
    )


def spread(positions: list[float], spacing: float, length: float) -> list[float]:
    """Move ascending positions as little as needed so that they are ``spacing`` apart, within 0 to ``length``."""
    placed: list[float] = []
    for position in positions:
        lowest = placed[-1] + spacing if placed else spacing / 2
        placed.append(max(position, lowest))
    limit = length - spacing / 2
    for i in range(len(placed) - 1, -1, -1):
        placed[i] = min(placed[i], limit)
        limit = placed[i] - spacing
    return placed
