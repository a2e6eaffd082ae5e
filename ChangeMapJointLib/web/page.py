"""The page: a Vue template with its style and script, all files of this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trame.widgets import client

from ChangeMapJointLib import __version__
from ChangeMapJointLib.scene.colors import BLUE, MARKS, ORANGE, SCALES, rgba_of

FOLDER = Path(__file__).parent / "assets"
BASE = f"__changemap_{__version__}"


def module() -> dict[str, Any]:
    """Return the trame module that serves style and script of the page."""
    return {"serve": {BASE: str(FOLDER)}, "scripts": [f"{BASE}/page.js"], "styles": [f"{BASE}/page.css"]}


def build(server: Any, layout: Any) -> None:
    """Make the page's template on a server.

    Args:
        server: the trame server.
        layout: trame's ``DivLayout``.
    """
    server.state.colors = _colors()
    text = (FOLDER / "page.html").read_text("utf-8")
    with layout(server) as made:
        made.root.classes = "changemap"
        made.root.add_child(text)
        client.ClientTriggers(mounted="trigger('ready')")


def _colors() -> dict[str, Any]:
    """Return the color scales of the views as CSS gradients, and their single colors."""
    gradients = {}
    for kind in SCALES:
        table = rgba_of(kind)[:: max(len(rgba_of(kind)) // 16, 1)]
        gradients[kind] = f"linear-gradient(to right, {', '.join(_css(entry[:3]) for entry in table)})"
    return {
        "gradients": gradients,
        "denser": _css(ORANGE),
        "lessDense": _css(BLUE),
        "edges": _css(MARKS["edges"]),
        "untrusted": _css(MARKS["untrusted"]),
    }


def _css(rgb: Any) -> str:
    red, green, blue = (round(255 * float(value)) for value in rgb)
    return f"rgb({red}, {green}, {blue})"
