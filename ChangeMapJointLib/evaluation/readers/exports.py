"""Files that other programs for reader studies read: iMRMC (FDA) and RJafroc.

iMRMC's ``.imrmc`` is text: a free part with the numbers of readers (NR), cases without (N0) and with a lesion (N1) and
modalities (NM), the line ``BEGIN DATA:``, and rows ``reader, case, modality, score``. Rows of reader ``-1`` and
modality ``0`` hold the truth, 0 or 1 (github.com/DIDSR/iMRMC, ``InputFile.java`` and ``doIMRMC.R``). The score of a
case is its highest rating, 0 without a mark. RJafroc reads the file as well (``DfReadDataFile(..., format =
"iMRMC")``); it wants whole numbers as case ids, so cases have numbers, which ``ids.csv`` explains.

RJafroc's workbook (``newExcelFileFormat = TRUE``) has the sheets ``TP``, ``FP`` and ``TRUTH``. TRUTH has the columns
CaseID, LesionID (0 in a case without), Weight (0 throughout: equal weights), ReaderID and ModalityID (lists of all),
and Paradigm, whose first two cells say ``FROC`` and ``FCTRL`` (cran.r-project.org/package=RJafroc, ``DfReadDataFile.R``
and vignette "FROC data format").
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ChangeMapJointLib.evaluation.readers.study import ReaderStudy

IDS = "ids.csv"
IMRMC = "study.imrmc"
RJAFROC = "rjafroc.xlsx"


def write_exports(folder: Path, study: ReaderStudy) -> list[str]:
    """Write the files into ``folder``, which exists.

    Returns:
        What was not written and why, one sentence each.
    """
    if study.hits is None or study.lesions is None:
        return ["No files for iMRMC and RJafroc: they need the true lesions."]
    notes = []
    readers, arms = _names(study.document["readers"]), _names(study.document["arms"])
    cases = {case: number for number, case in enumerate(study.document["cases"], 1)}
    _write_ids(folder / IDS, cases, readers, arms)
    normal = sum(not lesions for lesions in study.lesions.values())
    if normal and normal < len(cases):
        _write_imrmc(folder / IMRMC, study, cases, readers, arms)
    else:
        what = "every case has a lesion" if not normal else "no case has a lesion"
        notes.append(f"No file for iMRMC: {what}, and it compares cases with and without.")
    complete = len(study.readings) == len(cases) * len(readers) * len(arms)
    if not complete:
        notes.append("No file for RJafroc: it needs every reader to have read every case in every arm.")
    elif normal == len(cases):
        notes.append("No file for RJafroc: no case has a lesion.")
    else:
        _write_rjafroc(folder / RJAFROC, study, cases, readers, arms)
    return notes


def _names(names: Sequence[str]) -> dict[str, str]:
    """Names without commas, spaces and the like, unique."""
    found: dict[str, str] = {}
    for number, name in enumerate(names, 1):
        plain = re.sub(r"[^A-Za-z0-9_.]+", "_", name).strip("_") or "x"
        found[name] = plain if plain not in found.values() else f"{plain}_{number}"
    return found


def _write_ids(path: Path, cases: dict[str, int], readers: dict[str, str], arms: dict[str, str]) -> None:
    import csv

    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("kind", "id", "name"))
        for kind, names in (("case", cases), ("reader", readers), ("modality", arms)):
            writer.writerows((kind, number, name) for name, number in names.items())


def _write_imrmc(
    path: Path, study: ReaderStudy, cases: dict[str, int], readers: dict[str, str], arms: dict[str, str]
) -> None:
    assert study.lesions is not None
    assert study.hits is not None
    truth = {case: int(bool(lesions)) for case, lesions in study.lesions.items()}
    lines = [
        "Reader study of ChangeMapJoint; ids.csv says what the ids are",
        f"NR: {len(readers)}",
        f"N0: {sum(t == 0 for t in truth.values())}",
        f"N1: {sum(truth.values())}",
        f"NM: {len(arms)}",
        "",
        "BEGIN DATA:",
        *(f"-1,{number},0,{truth[case]}" for case, number in cases.items()),
    ]
    for reading in study.readings:
        score = max((mark.rating for mark in reading.marks), default=0.0)
        lines.append(f"{readers[reading.session.reader]},{cases[reading.case]},{arms[reading.arm]},{score:g}")
    path.write_text("\n".join(lines) + "\n\n", encoding="ascii")  # RJafroc looks for a line without four parts


def _write_rjafroc(
    path: Path, study: ReaderStudy, cases: dict[str, int], readers: dict[str, str], arms: dict[str, str]
) -> None:
    from openpyxl import Workbook

    assert study.lesions is not None
    assert study.hits is not None
    numbers = {
        case: {lesion.number: n for n, lesion in enumerate(lesions, 1)} for case, lesions in study.lesions.items()
    }
    book = Workbook()
    true_marks, false_marks, truth = book.active, book.create_sheet("FP"), book.create_sheet("TRUTH")
    assert true_marks is not None
    true_marks.title = "TP"
    true_marks.append(["ReaderID", "ModalityID", "CaseID", "LesionID", "TP_Rating"])
    false_marks.append(["ReaderID", "ModalityID", "CaseID", "FP_Rating"])
    for reading, hits in zip(study.readings, study.hits, strict=True):
        where = [readers[reading.session.reader], arms[reading.arm], cases[reading.case]]
        for lesion, rating in sorted(hits.ratings.items()):
            true_marks.append([*where, numbers[reading.case][lesion], rating])
        for rating in hits.false:
            false_marks.append([*where, rating])
    truth.append(["CaseID", "LesionID", "Weight", "ReaderID", "ModalityID", "Paradigm"])
    everyone = [", ".join(readers.values()), ", ".join(arms.values())]
    rows = [(cases[case], n) for case in cases for n in (numbers[case].values() or (0,))]
    for i, (case, lesion) in enumerate(rows):
        truth.append([case, lesion, 0, *everyone, ("FROC", "FCTRL")[i] if i < 2 else None])
    book.save(path)
