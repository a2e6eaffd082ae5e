"""What the pages of cohorts and series share: the report's style, and a policy that lets nothing in from a network."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ChangeMapJointLib.export.report import FOLDER as REPORT_FOLDER

FOLDER = Path(__file__).parent


def render(template: str, **content: Any) -> str:
    """Render a self-contained page.

    Args:
        template: a file of this package, which extends ``page.html.j2``.
        content: what it shows; all texts are escaped.
    """
    style = (REPORT_FOLDER / "report.css").read_text("utf-8") + (FOLDER / "cohort.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    page = _environment().get_template(template)
    return page.render(style=Markup(style), style_hash=f"sha256-{digest}", **content)  # both are files of the library


def png_uri(path: Path) -> str:
    """Return a PNG file as a data URI; empty where there is none."""
    try:
        return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
    except OSError:
        return ""


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
