"""Colors of texts that a reader can tell from the panel's background in the light and in the dark theme (4.5 : 1)."""

from __future__ import annotations

import qt

# name: in the light theme, in the dark one
COLORS = {
    "good": ("#166534", "#7ddc9a"),
    "look": ("#8a4200", "#ffb870"),
    "bad": ("#a31b10", "#ff9c8f"),
    "denser": ("#943f00", "#ffb870"),
    "less dense": ("#1a4fa3", "#9cc4ff"),
}
DARK_BELOW = 128  # lightness of the background


def textColor(name: str) -> str:
    """Return a color of :data:`COLORS` for the theme in use, as ``#rrggbb``."""
    return COLORS[name][isDark()]


def isDark() -> bool:
    """Return whether the theme in use has a dark background."""
    return bool(qt.QApplication.palette().color(qt.QPalette.Window).lightness() < DARK_BELOW)
