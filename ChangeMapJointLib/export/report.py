"""The report: one self-contained HTML page for a busy reader.

The page loads nothing from a network (its own content security policy forbids it), can be read without its script, and
prints on A4.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Template
from markupsafe import Markup

from ChangeMapJointLib.change.method_table import METHODS
from ChangeMapJointLib.core.grid import FloatArray
from ChangeMapJointLib.core.hu import FULL_SCALE_HU
from ChangeMapJointLib.export import wording
from ChangeMapJointLib.export.content import ReportContent
from ChangeMapJointLib.export.list_words import FOLDED, RIGID_ONLY
from ChangeMapJointLib.export.overview import overview_pictures
from ChangeMapJointLib.export.panels import (
    SIGNED_LIMIT_HU,
    field_mm,
    finding_boxes_mm,
    finding_rows,
    lung_rows,
    shown_from,
)
from ChangeMapJointLib.export.pictures import (
    DENSER,
    LESS_DENSE,
    RAMP_STOPS,
    WINDOW_LEVEL_HU,
    WINDOW_WIDTH_HU,
)
from ChangeMapJointLib.export.reading import render_reading, report_templates
from ChangeMapJointLib.export.unseen import UNSEEN_TITLE
from ChangeMapJointLib.io.write import atomic_path
from ChangeMapJointLib.scan.volume import Volume

if TYPE_CHECKING:
    from ChangeMapJointLib.change.findings import Finding

__all__ = ["PICTURED", "ReportContent", "render_report", "write_report"]

FOLDER = Path(__file__).parent
PICTURED = 30  # findings with pictures; more would make the page too large to send


def write_report(path: Path, content: ReportContent) -> None:
    """Write the report as an HTML file.

    Args:
        path: the HTML file; it appears whole or not at all.
        content: what the page shows.

    Raises:
        InputError: the file cannot be written; nothing is left behind.
    """
    text = render_report(content)
    with atomic_path(path) as temporary:
        # a file name may hold bytes that are not text: write "?" for them rather than fail
        temporary.write_text(text, encoding="utf-8", errors="replace")


def render_report(content: ReportContent) -> str:
    """Render the page; the same content gives the same text."""
    style, script = (FOLDER / "report.css").read_text("utf-8"), (FOLDER / "report_script.js.j2").read_text("utf-8")
    items, numbered = content.items, content.items[:PICTURED]
    boxes = finding_boxes_mm(content)
    return _template().render(
        style=Markup(style),  # not escaped: both are files of this package
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        content=content,
        reading=Markup(render_reading(content.reading)),
        rigid=content.method == "rigid",
        verdict=wording.verdict(content),
        gate=wording.gate(content),
        stopped=content.unusable,
        rigid_only=RIGID_ONLY,
        method=content.how or METHODS[content.method].description,
        counts=wording.counts(items),
        none_mark=wording.DASH,
        sections=[wording.section(content, name) for name in FOLDED],
        operating_point=wording.operating_point(content),
        unseen_title=UNSEEN_TITLE,
        finding_lines=[wording.finding_line(finding) for finding in items],
        numbered_ids={finding.id for finding in numbered},
        details=[_detail(content, finding, boxes) for finding in numbered],
        overview=() if content.method == "rigid" or content.unusable else overview_pictures(content, numbered),
        lung_rows=lung_rows(content),
        rigid_rows=lung_rows(as_rigid(content)) if shows_rigid(content) else (),
        interval=interval_words(content.reference, content.template),
        inputs=wording.inputs(content),
        quality_lines=wording.quality_lines(content.quality),
        provenance=wording.provenance_tables(content.provenance),
        legends=_legends(content.threshold),
        signed_limit_hu=SIGNED_LIMIT_HU,
        window=f"{wording.number(WINDOW_LEVEL_HU, 0)} / {WINDOW_WIDTH_HU:.0f} HU",
    )


def shows_rigid(content: ReportContent) -> bool:
    """Whether both scans are shown rigidly aligned instead of findings."""
    return content.method != "rigid" and content.unusable and content.rigid_template is not None


def as_rigid(content: ReportContent) -> ReportContent:
    """The content that method ``rigid`` would show for the same two scans."""
    assert content.rigid_template is not None
    return replace(content, method="rigid", warped_template=content.rigid_template, quality=None)


def interval_words(reference: Volume, template: Volume) -> str:
    """A sentence with the dates of both scans and the interval; it warns if the prior is the later scan."""
    dates = [volume.acquisition.date for volume in (template, reference)]
    try:
        before, now = (date.fromisoformat(text or "") for text in dates)
    except ValueError:
        return "The files do not state both dates: check that the current scan is the later one."
    days = (now - before).days
    if days < 0:
        return f"Check the order: the prior scan ({before}) is dated {-days} days after the current one ({now})."
    return f"Prior {before}, current {now}: {days} {'day' if days == 1 else 'days'} apart."


@cache
def _template() -> Template:
    return report_templates().get_template("report.html.j2")


def _detail(content: ReportContent, finding: Finding, boxes: dict[int, FloatArray]) -> dict[str, object]:
    box = boxes[finding.id]
    return {
        "line": wording.finding_line(finding),
        "rows": finding_rows(content, finding, box),
        "field_mm": field_mm(box),
        "shown_from": shown_from(content, finding),
        "centre": ", ".join(wording.signed(v, 1) for v in finding.centre_mm),
        "slice": wording.stored_slice(content, finding),
    }


def _legends(threshold: float) -> dict[str, object]:
    """Gradient stops of the legends, from less dense to denser, and the threshold at which they are cut."""
    stops = [(50 - 50 * at, _hex(colour)) for at, colour in zip(RAMP_STOPS, LESS_DENSE, strict=True)][::-1]
    stops += [(50 + 50 * at, _hex(colour)) for at, colour in zip(RAMP_STOPS, DENSER, strict=True)]
    return {"stops": stops, "threshold": threshold, "threshold_hu": threshold * FULL_SCALE_HU, "full_hu": FULL_SCALE_HU}


def _hex(colour: object) -> str:
    return "#" + "".join(f"{int(v):02x}" for v in colour)  # type: ignore[attr-defined]


def _hash(text: str) -> str:
    """The hash of an inline style or script in the form of a content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
