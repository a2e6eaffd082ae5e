"""Color legends of the panel, drawn from the color tables of the views."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import groupby
from typing import Any

import qt
from slicer.i18n import tr as _

from ChangeMapJointLib.core.hu import FULL_SCALE_HU
from ChangeMapJointLib.scene.colors import MARKS, rgba_of

WIDTH, HEIGHT, MARGIN, BASELINE = 300, 34, 6, 27
BAR_PX, MARK_PX = 11, 16
HIDDEN = (69, 69, 69)  # color of values that the overlay hides
TEXT_POINTS = 8
RGB = tuple[int, ...]


class Legends:
    """Draws color scales as small pictures."""

    def changeMap(self, threshold: float, width: int) -> Any:
        """Draw the scale of the change map, from less dense to denser; gray below the threshold.

        Args:
            threshold: in (0, 1].
            width: of the picture in pixels; at least ``WIDTH`` is used.
        """
        width = max(width, WIDTH)
        denser, lessDense = _colors("increase"), _colors("decrease")  # from 0 to 1, and from -1 to 0

        def color(place: float) -> RGB:
            value = 2 * place - 1
            if abs(value) < threshold:
                return HIDDEN
            return _entry(denser, value) if value >= 0 else _entry(lessDense, 1 + value)

        less = _("-{hu} HU: less dense").format(hu=round(FULL_SCALE_HU))
        return _scale(width, color, less, "0", _("denser: +{hu} HU").format(hu=round(FULL_SCALE_HU)))

    def checkOverlay(self, overlay: str, low: float, high: float) -> Any:
        """Draw the scale of a check overlay.

        A Jacobian above 1 means that the tissue was larger in the prior.

        Args:
            overlay: ``jacobian``, ``displacement`` or ``trust``.
            low: value at the left end.
            high: value at the right end.
        """
        kind, left, right = {
            "jacobian": ("Jacobian", _("{low}: expanded since"), _("contracted since: {high}")),
            "displacement": ("displacement", _("{low} mm"), _("{high} mm")),
            "trust": ("trust", _("{low}: not trusted"), _("trusted: {high}")),
        }[overlay]
        table = _colors(kind)

        def color(place: float) -> RGB:
            return _entry(table, place)

        return _scale(WIDTH, color, left.format(low=f"{low:.3g}"), "", right.format(high=f"{high:.3g}"))


def markPicture(kind: str, *, hatched: bool) -> Any:
    """Draw how edges or hatching look in the views, on the gray of soft tissue."""
    picture = qt.QPixmap(MARK_PX, MARK_PX)
    picture.fill(qt.QColor(90, 90, 90))
    red, green, blue = (round(255 * share) for share in MARKS[kind])
    painter = qt.QPainter(picture)
    pen = qt.QPen(qt.QColor(red, green, blue))
    pen.setWidth(2)
    painter.setPen(pen)
    if hatched:
        for start in range(-MARK_PX, MARK_PX, 6):
            painter.drawLine(start, MARK_PX, start + MARK_PX, 0)
    else:
        painter.drawEllipse(3, 3, MARK_PX - 6, MARK_PX - 6)
    painter.end()
    return picture


@cache
def _colors(kind: str) -> list[RGB]:
    """Return the colors of a table, 0 to 255, transparent ones as they look where nothing is shown."""
    return [tuple(round(255 * part) for part in rgb) if alpha else HIDDEN for *rgb, alpha in rgba_of(kind)]


def _entry(table: Sequence[RGB], place: float) -> RGB:
    """Return the color of a table at ``place`` in [0, 1]."""
    return table[round(min(max(place, 0.0), 1.0) * (len(table) - 1))]


def _scale(width: int, color: Any, left: str, middle: str, right: str) -> Any:
    """Draw a color bar with a text at each end and in the middle."""
    picture = qt.QPixmap(width, HEIGHT)
    picture.fill(qt.QColor(0, 0, 0, 0))
    painter = qt.QPainter(picture)
    x = MARGIN
    for shade, columns in groupby(color(i / (width - 2 * MARGIN - 1)) for i in range(width - 2 * MARGIN)):
        alike = len(list(columns))
        painter.fillRect(x, 2, alike, BAR_PX, qt.QColor(*shade))
        x += alike
    painter.setPen(qt.QApplication.palette().color(qt.QPalette.WindowText))
    font = painter.font()
    font.setPointSize(TEXT_POINTS)
    painter.setFont(font)
    measure = painter.fontMetrics()
    painter.drawText(MARGIN, BASELINE, left)
    painter.drawText((width - measure.horizontalAdvance(middle)) // 2, BASELINE, middle)
    painter.drawText(width - MARGIN - measure.horizontalAdvance(right), BASELINE, right)
    painter.end()
    return picture
