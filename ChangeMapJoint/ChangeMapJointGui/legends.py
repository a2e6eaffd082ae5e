"""Legends of the panel, drawn from the color tables that the views use."""

from __future__ import annotations

from typing import Any

import qt
from slicer.i18n import tr as _

from ChangeMapJointLib.scene.colors import rgba_of

HEIGHT, MARGIN, BASELINE = 34, 6, 27
FULL_SCALE_HU = 1050


class Legends:
    """Small pictures of color scales."""

    def changeMap(self, threshold: float, width: int) -> Any:
        """Less dense to denser, with what the threshold hides left out."""
        width = max(width, 240)
        picture = qt.QPixmap(width, HEIGHT)
        picture.fill(qt.QColor(0, 0, 0, 0))
        painter = qt.QPainter(picture)
        middle, length = width // 2, width // 2 - MARGIN
        colors = {sign: rgba_of(kind) for sign, kind in ((1, "increase"), (-1, "decrease"))}
        for x in range(MARGIN, width - MARGIN):
            value = (x - middle) / length
            shown = abs(value) >= threshold
            red, green, blue = _byte(colors, value) if shown else (70, 70, 70)
            painter.setPen(qt.QColor(red, green, blue))
            painter.drawLine(x, 2, x, 12)
        self._texts(painter, width)
        painter.end()
        return picture

    def _texts(self, painter: Any, width: int) -> None:
        painter.setPen(self._textColor())
        font = painter.font()
        font.setPointSize(8)
        painter.setFont(font)
        right = _("denser: +{hu} HU").format(hu=FULL_SCALE_HU)
        length = painter.fontMetrics().horizontalAdvance(right)
        painter.drawText(MARGIN, BASELINE, _("-{hu} HU: less dense").format(hu=FULL_SCALE_HU))
        painter.drawText(width // 2 - 3, BASELINE, "0")
        painter.drawText(width - MARGIN - length, BASELINE, right)

    def _textColor(self) -> Any:
        return qt.QApplication.palette().color(qt.QPalette.WindowText)


def _byte(colors: dict[int, Any], value: float) -> tuple[int, int, int]:
    """Color of a signed change in [-1, 1], 0 to 255 each."""
    table = colors[1 if value >= 0 else -1]
    place = value if value >= 0 else 1 + value  # the tables run from 0 to 1 and from -1 to 0
    red, green, blue, _alpha = (round(255 * c) for c in table[round(min(max(place, 0.0), 1.0) * (len(table) - 1))])
    return red, green, blue
