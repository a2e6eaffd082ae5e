"""``changemap report``: the result of a run as a document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ChangeMapJointLib.cli.console import exit_codes
from ChangeMapJointLib.comparison.document import identity_of
from ChangeMapJointLib.comparison.load import load_result
from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.export.document.content import Identity, read_document
from ChangeMapJointLib.export.document.fhir import fhir as fhir_of
from ChangeMapJointLib.export.document.pdf import write_pdf
from ChangeMapJointLib.export.document.time_points import time_points


def report_command(
    run_dir: Annotated[Path, typer.Argument(readable=False, help="Folder of a finished run.")],
    pdf: Annotated[Path | None, typer.Option(help="Write a PDF of two to four pages to this file.")] = None,
    letter: Annotated[bool, typer.Option("--letter", help="On US Letter instead of A4.")] = False,
    text: Annotated[bool, typer.Option("--text", help="Print plain text for a dictation.")] = False,
    fhir: Annotated[bool, typer.Option("--fhir", help="Print FHIR JSON: DiagnosticReport and Observations.")] = False,
    reference: Annotated[
        Path | None,
        typer.Option(
            readable=False, help="DICOM series of the current scan, to name the patient; else nobody is named."
        ),
    ] = None,
    earlier: Annotated[
        list[Path] | None,
        typer.Option(
            readable=False,
            help="Earlier run of the patient, whose current scan is the next one's prior; the earliest first.",
        ),
    ] = None,
) -> None:
    """Make a document of a run: PDF, text or FHIR, with the reader's decisions; text and FHIR go to standard output."""
    with exit_codes("none"):
        if pdf is None and not text and not fhir:
            raise InputError(
                "not given", field="pdf", remedy=("give a file, or ", Argument("text"), ", or ", Argument("fhir"))
            )
        if text and fhir:
            raise InputError("given twice", field="text", remedy=("leave out this or ", Argument("fhir")))
        if earlier and fhir and pdf is None:
            raise InputError("is not in FHIR", field="earlier", remedy=("leave it out, or give ", Argument("pdf")))
        if letter and pdf is None:
            raise InputError("is a size of the PDF", field="letter", remedy=("give ", Argument("pdf"), " as well"))
        if pdf is not None and pdf.suffix.lower() != ".pdf":  # it would replace a scan whose name was given by mistake
            raise InputError(f"ends in '{pdf.suffix}'", field=pdf, expected=".pdf")
        if pdf is not None and pdf.resolve().parent == run_dir.resolve():
            raise InputError("lies in the folder of the run", field=pdf, remedy="give another folder")
        result = load_result(run_dir)
        identity = Identity() if reference is None else identity_of(result, reference)
        content = read_document(run_dir, identity)
        points = None
        if earlier:
            points = time_points([*(read_document(folder).kept_records for folder in earlier), content.kept_records])
        if pdf is not None:
            write_pdf(pdf, content, letter=letter, time_points=points)
    if text:
        typer.echo(content.text(), nl=False)
        for line in () if points is None else ["\t".join(row) for row in points.rows()] + points.sentences():
            typer.echo(line)
    if fhir:
        typer.echo(json.dumps(fhir_of(content), indent=1, ensure_ascii=False))
