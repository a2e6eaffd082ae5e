"""The reader's decisions as the report takes them, and the list as nodes of the scene; without Qt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ChangeMapJointGui.findings_csv import COLUMNS, rowValues, writeTable
from ChangeMapJointGui.findings_words import FindingRow
from ChangeMapJointGui.pair_facts import PairFacts
from ChangeMapJointLib.change.kinds import KIND_WORDS
from ChangeMapJointLib.export import finding_text
from ChangeMapJointLib.export.reader_decisions import ReaderDecisions, ReaderLine

if TYPE_CHECKING:  # the report's own packages may not be there
    from ChangeMapJointLib.export.document.content import Decision


def readingOf(session: Any, rows: Sequence[FindingRow]) -> ReaderDecisions:
    """Return the decisions on the rows of the list, in their order.

    Args:
        session: the run on screen.
        rows: of the list on screen, folded ones included.
    """
    facts = PairFacts(session.results)
    reviewed = [(row, session.review(row.change.key)) for row in rows]
    lines = tuple(
        ReaderLine(_name(row, facts), review["verdict"], review["comment"], row.number if _isFinding(row) else None)
        for row, review in reviewed
        if review["verdict"] or review["comment"]
    )
    threshold = session.decided["map_threshold"] if session.hasFindings else None
    return ReaderDecisions(lines, session.readerVerdict, threshold, sum(map(_isFinding, rows)))


def saveTable(path: Path, session: Any, rows: Sequence[FindingRow]) -> None:
    """Write rows of the list with the reader's decisions as CSV or JSON (UTF-8, LPS, mm)."""
    writeTable(path, rows, session.review, PairFacts(session.results), session.decided)


def saveReport(path: Path, session: Any, rows: Sequence[FindingRow]) -> None:
    """Make the report from the scene, with the reader's decisions on these rows."""
    from ChangeMapJointLib.scene.report import write_scene_report

    write_scene_report(path, session.results, readingOf(session, rows))


def savePdf(path: Path, session: Any, patient: Sequence[str] = ()) -> None:
    """Make the report as a PDF from the scene, with the reader's decisions on the findings of the run.

    Args:
        path: of the file.
        session: the run on screen.
        patient: name, ID, birth date as in DICOM, sex, accession number and study UID; empty to name nobody.
    """
    from ChangeMapJointLib.export.document.content import Identity
    from ChangeMapJointLib.io.dicom.values import as_iso_date
    from ChangeMapJointLib.scene.report import write_scene_pdf

    identity = Identity()
    if patient:
        name, number, born, *rest = patient
        identity = Identity(name, number, as_iso_date(born) or "", *rest)
    write_scene_pdf(
        path,
        session.results,
        decisions=decisionsOf(session),
        registration=session.readerVerdict,
        identity=identity,
    )


def decisionsOf(session: Any) -> dict[int, Decision]:
    """Return the decisions on the findings of the run by their numbers in ``findings.json``."""
    from ChangeMapJointLib.export.document.content import Decision

    own = session.lists.own
    if not session.hasFindings:
        return {}
    changes = session.findings(session.mapThreshold, 1, (1, -1)) if own is None else session.sections(own)["finding"]
    listed = {int(entry["id"]) for entry in session.results.rows}
    reviews = {
        int(one.measured["id"]): session.review(one.key)
        for one in changes
        if one.measured is not None and int(one.measured["id"]) in listed
    }
    return {number: Decision(review["verdict"], review["comment"]) for number, review in reviews.items()}


def segmentationOf(session: Any, rows: Sequence[FindingRow]) -> Any:
    """Return a segmentation node with one segment for each of the rows, cut at the threshold of the run."""
    from ChangeMapJointLib.scene.segments import Marked, make_segmentation

    facts = PairFacts(session.results)
    marked = [Marked(_name(row, facts), row.change.sign, row.change.peak_mm) for row in rows]
    return make_segmentation(session.results, session.mapNode, marked, session.mapThreshold)


def tableOf(session: Any, rows: Sequence[FindingRow]) -> Any:
    """Return a table node of the rows with the reader's decisions; the columns are those of the CSV file."""
    from ChangeMapJointLib.scene.segments import make_table

    facts = PairFacts(session.results)
    about = {**facts.asColumns, **session.decided}
    values = [{**rowValues(row, facts), **session.review(row.change.key), **about} for row in rows]
    return make_table(session.results, COLUMNS, values)


def _isFinding(row: FindingRow) -> bool:
    return row.section in ("finding", "")  # by the map, nothing judged it


def _name(row: FindingRow, facts: PairFacts) -> str:
    measured = row.change.measured or {}
    kind = KIND_WORDS.get(row.change.kind, row.change.kind)
    place = finding_text.side_and_slice(measured, facts.sliceOf(row.change.centre_mm))
    return ", ".join(filter(None, [str(measured.get("id") or row.number), kind, place]))
