"""One self-contained HTML page with all tables and figures of an evaluation."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ChangeMapJointLib.evaluation.output.figures import DrawnFigure
from ChangeMapJointLib.evaluation.output.tables import Table

FOLDER = Path(__file__).parent
AFTER = {  # the table that follows each figure
    "recall_curves": ("maps",),
    "size_groups": (),
    "froc": ("froc",),
    "landmarks": ("registration",),
    "preservation": ("preservation",),
    "growth": ("growth",),
    "trust": ("trust",),
}


def render_evaluation_page(
    document: Mapping[str, Any], tables: Sequence[Table], pictures: Sequence[DrawnFigure], figures: Path
) -> str:
    """Render the page; the same document gives the same text.

    Args:
        document: of the evaluation.
        tables: in the order of the page.
        pictures: the figures that were drawn.
        figures: folder that holds them.
    """
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    drawn = {p.name: (p, _data_uri(figures / f"{p.name}.png")) for p in pictures}
    before = {table: name for name, after in AFTER.items() for table in after}
    parts: list[tuple[str, Any]] = []
    shown: set[str] = set()
    for table in tables:
        name = before.get(table.name)
        if name in drawn and name not in shown:
            parts.append(("figure", drawn[name]))
            shown.add(name)
        parts.append(("table", table))
        if table.name == "maps" and "size_groups" in drawn:
            parts.append(("figure", drawn["size_groups"]))
            shown.add("size_groups")
    parts += [("figure", entry) for name, entry in drawn.items() if name not in shown]
    return environment.get_template("page.html.j2").render(about=document["about"], document=document, parts=parts)


def _data_uri(path: Path) -> Markup:
    return Markup("data:image/png;base64," + base64.b64encode(path.read_bytes()).decode())
