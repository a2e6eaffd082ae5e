"""Pictures of planes: lung window, colours of change, marks, and encoding for a page.

Orange means denser now than before, blue less dense now: readers who cannot tell red from green can tell them apart.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ChangeMapJointLib.core.hu import FULL_SCALE_HU, WINDOWS_HU
from ChangeMapJointLib.export.planes import Plane

Pixels = NDArray[np.uint8]  # [rows, columns, 3], RGB

WINDOW_LEVEL_HU, WINDOW_WIDTH_HU = WINDOWS_HU["lung"]
OPACITY = 0.8
OUTSIDE = (58, 58, 72)  # outside the scan: bluish, so that it is not mistaken for air
WARNING = (176, 0, 64)
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
# RGB at the strengths of change in RAMP_STOPS; lightness rises with strength
DENSER = np.array([[24, 24, 24], [214, 92, 0], [255, 168, 40]], dtype=float)
LESS_DENSE = np.array([[24, 24, 24], [0, 98, 204], [90, 188, 255]], dtype=float)
RAMP_STOPS = (0.0, 0.5, 1.0)


@dataclass(frozen=True)
class Marks:
    """What is drawn on a picture besides its orientation letters and its scale bar.

    Attributes:
        box_mm: lowest and highest corner (LPS) of the box that the corner marks surround, ``[2, 3]``; None: no marks.
        warning: text of a band at the top of the picture; empty: no band.
        letters_at: height of the orientation letters on the left and right, from 0 (top) to 1 (bottom).
    """

    box_mm: NDArray[np.float64] | None = None
    warning: str = ""
    letters_at: float = 0.5


def lung_window(hu: NDArray[np.generic], *, level: float = WINDOW_LEVEL_HU, width: float = WINDOW_WIDTH_HU) -> Pixels:
    """Convert HU to grey RGB ``[..., 3]``: black at ``level - width / 2``, white at ``level + width / 2``.

    NaN, outside the scan, becomes :data:`OUTSIDE`.
    """
    grey = np.clip((np.asarray(hu, dtype=np.float32) - (level - width / 2)) / width, 0.0, 1.0) * 255
    known = np.isfinite(grey)
    pixels = np.repeat(np.rint(np.where(known, grey, 0)).astype(np.uint8)[..., None], 3, axis=-1)
    pixels[~known] = OUTSIDE
    return pixels


def change_colour(strength: NDArray[np.generic]) -> NDArray[np.float64]:
    """Convert a signed strength in [-1, 1] to RGB 0..255 ``[..., 3]``: orange above 0, blue below, near black at 0."""
    signed = np.clip(np.nan_to_num(np.asarray(strength, dtype=float)), -1.0, 1.0)
    denser, less_dense = (
        np.stack([np.interp(np.abs(signed), RAMP_STOPS, channel) for channel in table.T], axis=-1)
        for table in (DENSER, LESS_DENSE)
    )
    return np.where(signed[..., None] >= 0, denser, less_dense)


def overlay(
    grey: Pixels, change_map: NDArray[np.float32], signed_hu: NDArray[np.float32], *, threshold: float
) -> Pixels:
    """Overlay colour on ``grey`` where the change map reaches the threshold.

    Args:
        grey: RGB ``[..., 3]``.
        change_map: [0, 1] at the same pixels; NaN counts as below the threshold.
        signed_hu: R - T(y) at the same pixels; decides hue and strength.
        threshold: of the change map.
    """
    shown = (np.nan_to_num(change_map) >= threshold) & (np.nan_to_num(signed_hu) != 0)
    colour = change_colour(signed_hu / FULL_SCALE_HU)
    mixed = np.rint((1 - OPACITY) * grey + OPACITY * colour).astype(np.uint8)
    return np.where(shown[..., None], mixed, grey)


def annotate(pixels: Pixels, plane: Plane, marks: Marks | None = None) -> Pixels:
    """Draw orientation letters, a scale bar (10 mm, on wide pictures 50 mm) and ``marks`` on ``pixels``."""
    marks = marks or Marks()
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    top = _draw_warning(draw, image.size, marks.warning) if marks.warning else 0
    if (pixels == np.array(OUTSIDE)).all(axis=-1).mean() > 0.98:
        _text(draw, (image.width / 2, image.height / 2), "outside this scan", 15)
        return np.array(image)
    if marks.box_mm is not None:
        _draw_corners(draw, plane, marks.box_mm)
    _draw_letters(draw, image.size, plane.letters, top, marks.letters_at)
    _draw_scale(draw, image.size, plane.pixel_mm)
    return np.array(image)


def jpeg_uri(pixels: Pixels, *, quality: int = 88) -> str:
    """Encode ``pixels`` as a JPEG in a ``data:`` URI, without chroma subsampling because colours carry meaning."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=0, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's built-in typeface at ``size`` pixels, so that every machine draws the same."""
    return ImageFont.load_default(size)


def _text(draw: ImageDraw.ImageDraw, xy: tuple[float, float], text: str, size: float, anchor: str = "mm") -> None:
    draw.text(xy, text, fill=WHITE, font=font(size), anchor=anchor, stroke_width=2, stroke_fill=BLACK)


def _line(draw: ImageDraw.ImageDraw, points: list[tuple[float, float]]) -> None:
    """Draw a white line with a black outline, visible on lung and on soft tissue."""
    draw.line(points, fill=BLACK, width=4)
    draw.line(points, fill=WHITE, width=2)


def _draw_letters(
    draw: ImageDraw.ImageDraw, size: tuple[int, int], letters: tuple[str, str, str, str], top: int, side_at: float
) -> None:
    width, height = size
    left, right, upper, lower = letters
    _text(draw, (5, height * side_at), left, 16, "lm")
    _text(draw, (width - 5, height * side_at), right, 16, "rm")
    _text(draw, (width / 2, top + 4), upper, 16, "mt")
    _text(draw, (width / 2, height - 4), lower, 16, "mb")


def _draw_scale(draw: ImageDraw.ImageDraw, size: tuple[int, int], pixel_mm: float) -> None:
    width, height = size
    length_mm = 10 if width * pixel_mm < 150 else 50
    x1, y = width - 8, height - 8
    x0 = x1 - length_mm / pixel_mm
    _line(draw, [(x0, y - 4), (x0, y), (x1, y), (x1, y - 4)])
    _text(draw, (x1, y - 8), f"{length_mm} mm", 13, "rb")


def _draw_corners(draw: ImageDraw.ImageDraw, plane: Plane, box_mm: NDArray[np.float64]) -> None:
    corners = plane.to_pixel(box_mm)
    (x0, y0), (x1, y1) = corners.min(axis=0), corners.max(axis=0)
    arm = min(10.0, (x1 - x0) / 4, (y1 - y0) / 4)
    for x, dx in ((x0, arm), (x1, -arm)):
        for y, dy in ((y0, arm), (y1, -arm)):
            _line(draw, [(x + dx, y), (x, y), (x, y + dy)])


def _draw_warning(draw: ImageDraw.ImageDraw, size: tuple[int, int], text: str) -> int:
    """Draw a band at the top and a frame; return the band's height in pixels."""
    width, height = size
    band = 22
    draw.rectangle((0, 0, width - 1, height - 1), outline=WARNING, width=4)
    draw.rectangle((0, 0, width - 1, band), fill=WARNING)
    draw.text((width / 2, band / 2), text, fill=WHITE, font=font(14), anchor="mm")
    return band
