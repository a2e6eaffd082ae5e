"""Draws pages of text and pictures: white A4 sheets with a header and a footer, the same on every machine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ChangeMapJointLib.export.pictures import WARNING, Pixels, font

WIDTH, HEIGHT = 1000, 1414  # A4 at 121 dpi
MARGIN = 50
BOTTOM = HEIGHT - 70  # end of the part between header and footer
GREY, BLACK = (96, 96, 96), (0, 0, 0)
_PLAIN = str.maketrans({"\u2212": "-", "\u00a0": " ", "\u00d7": "x", "\u2013": "-", "\u2014": "-", "\u2009": " "})


class Sheet:
    """One page, filled from top to bottom.

    Attributes:
        image: the page.
        y: where the next line begins, in pixels from the top.
    """

    def __init__(self, title: str) -> None:
        self.image = Image.new("RGB", (WIDTH, HEIGHT), "white")
        self._draw = ImageDraw.Draw(self.image)
        self.y = 40
        self.text(title, size=26)
        self._draw.line([(MARGIN, self.y + 4), (WIDTH - MARGIN, self.y + 4)], fill=GREY, width=2)
        self.y += 16

    def text(self, text: str, *, size: int = 16, colour: tuple[int, int, int] = BLACK) -> None:
        """Write a paragraph, broken into lines; what does not fit the page is left out."""
        for line in wrapped(text, size):
            if self.y + size * 1.35 > BOTTOM:
                return
            self._draw.text((MARGIN, self.y), line, fill=colour, font=font(size))
            self.y += round(size * 1.35)

    def heading(self, text: str) -> None:
        """Write a heading."""
        self.y += 10
        self.text(text, size=20)

    def warning(self, text: str) -> None:
        """Write a paragraph in the colour of warnings."""
        self.text(text, colour=WARNING)

    def pictures(self, row: Sequence[tuple[str, Pixels]], *, most_high: int = 420) -> None:
        """Put pictures side by side, each with its caption below."""
        if not row:
            return
        wide = (WIDTH - 2 * MARGIN - 10 * (len(row) - 1)) // len(row)
        scales = [min(wide / pixels.shape[1], most_high / pixels.shape[0]) for _, pixels in row]
        high = max(round(pixels.shape[0] * scale) for (_, pixels), scale in zip(row, scales, strict=True))
        if self.y + high + 24 > BOTTOM:
            return
        for number, ((caption, pixels), scale) in enumerate(zip(row, scales, strict=True)):
            x = MARGIN + number * (wide + 10)
            size = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
            self.image.paste(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS), (x, self.y))
            self._draw.text((x, self.y + high + 3), drawable(caption), fill=GREY, font=font(13))
        self.y += high + 26

    def signature(self, text: str) -> None:
        """Draw a line to sign on at the bottom of the page."""
        y = BOTTOM - 30
        self._draw.line([(MARGIN, y), (WIDTH - MARGIN, y)], fill=BLACK, width=1)
        self._draw.text((MARGIN, y + 4), drawable(text), fill=GREY, font=font(13))

    def footer(self, text: str) -> None:
        """Write the line at the foot of the page."""
        self._draw.text((MARGIN, HEIGHT - 46), drawable(text), fill=GREY, font=font(13))

    @property
    def pixels(self) -> Pixels:
        """The page, ``[rows, columns, 3]``, RGB."""
        return np.asarray(self.image)


def drawable(text: str) -> str:
    """Return ``text`` with the signs that the typeface lacks replaced."""
    return text.translate(_PLAIN)


def wrapped(text: str, size: int) -> list[str]:
    """Break a paragraph into lines that fit the page."""
    lines, line = [], ""
    for word in drawable(text).split():
        longer = f"{line} {word}" if line else word
        if line and font(size).getlength(longer) > WIDTH - 2 * MARGIN:
            lines.append(line)
            longer = word
        line = longer
    return [*lines, line] if line else lines
