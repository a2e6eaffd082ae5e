"""The folder of an evaluated reader study: it appears when it is complete, and never replaces anything else."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ChangeMapJointLib.evaluation import result_folder
from ChangeMapJointLib.evaluation.readers.exports import IDS, IMRMC, RJAFROC, write_exports
from ChangeMapJointLib.evaluation.readers.figures import draw_study
from ChangeMapJointLib.evaluation.readers.tables import frames, study_tables

if TYPE_CHECKING:
    from ChangeMapJointLib.evaluation.output.figures import DrawnFigure
    from ChangeMapJointLib.evaluation.output.tables import Table
    from ChangeMapJointLib.evaluation.readers.study import ReaderStudy

DOCUMENT, PAGE, READINGS, MARKS = "readers.json", "readers.html", "readings.csv", "marks.csv"
TABLES, FIGURES = "tables", "figures"
CONTENT = {DOCUMENT, PAGE, READINGS, MARKS, TABLES, FIGURES, IDS, IMRMC, RJAFROC}


def check_study_folder(out: Path, *, overwrite: bool = False) -> None:
    """Check that ``out`` may be written.

    Raises:
        InputError: it exists, unless it is an earlier evaluation that may be replaced.
    """
    result_folder.check_result_folder(out, document=DOCUMENT, content=CONTENT, overwrite=overwrite)


def write_study(out: Path, study: ReaderStudy, *, overwrite: bool = False) -> Path:
    """Write everything; returns ``out``.

    Raises:
        InputError: the folder exists or cannot be written; nothing is left behind.
    """
    check_study_folder(out, overwrite=overwrite)
    with result_folder.whole_folder(out) as part:
        _write_files(part, study)
    return out


def _write_files(part: Path, study: ReaderStudy) -> None:
    import pandas as pd

    (part / TABLES).mkdir()
    (part / FIGURES).mkdir()
    document: dict[str, Any] = dict(study.document)
    document["notes"] = [*document["notes"], *write_exports(part, study)]
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    (part / DOCUMENT).write_text(text, encoding="utf-8")
    study.table.to_csv(part / READINGS, index=False, float_format="%.6g", lineterminator="\n")
    _marks(study).to_csv(part / MARKS, index=False, float_format="%.6g", lineterminator="\n")
    for name, rows in frames(document).items():
        table = pd.DataFrame(list(rows))
        table.to_csv(part / TABLES / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
    pictures = draw_study(part / FIGURES, study)
    page = render_study_page(document, study_tables(document), pictures, part / FIGURES)
    (part / PAGE).write_text(page, encoding="utf-8")


def _marks(study: ReaderStudy) -> Any:
    """A row for each mark."""
    import pandas as pd

    columns = (
        "reader",
        "arm",
        "case",
        "mark",
        "x_mm",
        "y_mm",
        "z_mm",
        "rating",
        "label",
        "active_s",
        "threshold",
        "overlay",
    )
    rows = [
        (
            r.session.reader,
            r.arm,
            r.case,
            m.number,
            *m.position_mm,
            m.rating,
            m.label,
            m.active_s,
            m.threshold,
            m.overlay,
        )
        for r in study.readings
        for m in r.marks
    ]
    return pd.DataFrame(rows, columns=list(columns))


def render_study_page(document: dict[str, Any], tables: list[Table], pictures: list[DrawnFigure], figures: Path) -> str:
    """Render the page; it holds everything and loads nothing."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    images = {p.name: (p, base64.b64encode((figures / f"{p.name}.png").read_bytes()).decode()) for p in pictures}
    return environment.get_template("page.html.j2").render(
        document=document, tables={table.name: table for table in tables}, images=images
    )
