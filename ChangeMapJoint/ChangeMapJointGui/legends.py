"""Legends of the panel, drawn from the color tables that the views use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import qt
from slicer.i18n import tr as _

from ChangeMapJointLib.core.hu import FULL_SCALE_HU
from ChangeMapJointLib.scene.colors import rgba_of

WIDTH, HEIGHT, MARGIN, BASELINE = 300, 34, 6, 27
HIDDEN = (0.27, 0.27, 0.27, 1.0)  # what the overlay does not show
TEXT_POINTS = 8
RGBA = Sequence[float]


class Legends:
    """Small pictures of color scales."""

    def changeMap(self, threshold: float, width: int) -> Any:
        """Less dense to denser; gray where the threshold hides the overlay."""
        width = max(width, WIDTH)
        colors = {1: rgba_of("increase"), -1: rgba_of("decrease")}  # from 0 to 1, and from -1 to 0

        def color(place: float) -> RGBA:
            value = 2 * place - 1
            if abs(value) < threshold:
                return HIDDEN
            return _entry(colors[1], value) if value >= 0 else _entry(colors[-1], 1 + value)

        less = _("-{hu} HU: less dense").format(hu=round(FULL_SCALE_HU))
        return _scale(width, color, less, "0", _("denser: +{hu} HU").format(hu=round(FULL_SCALE_HU)))

    def checkOverlay(self, overlay: str, low: float, high: float) -> Any:
        """Scale of a check overlay, ``low`` and ``high`` at its ends.

        A Jacobian above 1 means that the prior was larger there.
        """
        kind, left, right = {
            "jacobian": ("Jacobian", _("{low}: expanded since"), _("contracted since: {high}")),
            "displacement": ("displacement", _("{low} mm"), _("{high} mm")),
            "trust": ("trust", _("{low}: not trusted"), _("trusted: {high}")),
        }[overlay]
        table = rgba_of(kind)

        def color(place: float) -> RGBA:
            found = _entry(table, place)
            return found if found[3] else HIDDEN

        return _scale(WIDTH, color, left.format(low=f"{low:.3g}"), "", right.format(high=f"{high:.3g}"))


def _entry(table: Any, place: float) -> RGBA:
    """The color of a table at ``place`` in [0, 1]."""
    entry: RGBA = table[round(min(max(place, 0.0), 1.0) * (len(table) - 1))]
    return entry


def _scale(width: int, color: Any, left: str, middle: str, right: str) -> Any:
    """A bar of colors with a text at each end and in the middle."""
    picture = qt.QPixmap(width, HEIGHT)
    picture.fill(qt.QColor(0, 0, 0, 0))
    painter = qt.QPainter(picture)
    for x in range(MARGIN, width - MARGIN):
        red, green, blue = (round(255 * c) for c in color((x - MARGIN) / (width - 2 * MARGIN - 1))[:3])
        painter.setPen(qt.QColor(red, green, blue))
        painter.drawLine(x, 2, x, 12)
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
