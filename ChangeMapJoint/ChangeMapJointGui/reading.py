"""The reader's decisions as the report takes them, and the list as nodes of the scene; without Qt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ChangeMapJointGui.findings_csv import COLUMNS, rowValues, writeTable
from ChangeMapJointGui.findings_words import FindingRow
from ChangeMapJointGui.pair_facts import PairFacts
from ChangeMapJointLib.change.kinds import KIND_WORDS
from ChangeMapJointLib.export import finding_text
from ChangeMapJointLib.export.reader_decisions import ReaderDecisions, ReaderLine


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
