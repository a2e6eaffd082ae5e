"""LUNA25: nodules of NLST with their centres, and a number that stays the same through a participant's exams.

As downloaded (luna25.grand-challenge.org, CC BY 4.0): ``LUNA25_Public_Training_Development_Data.csv`` with the columns
PatientID, SeriesInstanceUID, StudyDate (YYYYMMDD), CoordX, CoordY, CoordZ (mm, LPS), LesionID, AnnotationID, NoduleID,
label, Age_at_StudyDate and Gender, and ``luna25_images/SERIES.mha``.

A pair is two exams of one participant that follow each other. Nodules with the same NoduleID are corresponding points.
The table has no diameters, and a nodule that is annotated in one exam alone need not be new: there is no truth of
change here, but one for the registration at nodules and for nodule matching over time (``nodules.csv``).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from datetime import date
from itertools import pairwise
from pathlib import Path

import numpy as np

from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.core.grid import Vector3
from ChangeMapJointLib.evaluation.public.pairs import AnnotatedNodule, PublicPair
from ChangeMapJointLib.io.sources import reason_of

TABLE = "LUNA25_Public_Training_Development_Data.csv"
COLUMNS = ("PatientID", "SeriesInstanceUID", "StudyDate", "CoordX", "CoordY", "CoordZ", "NoduleID")
Exam = dict[str, Vector3]  # centre of every nodule


def read_luna25(folder: Path) -> list[PublicPair]:
    """The pairs of consecutive exams.

    Raises:
        InputError: the table or an image is missing, a column is missing, a value is wrong, or there is no pair.
    """
    exams = _read_exams(folder / TABLE)
    pairs = []
    for patient, by_date in exams.items():
        days = sorted(by_date)
        for before, after in pairwise(days):
            series = [min(by_date[day]) for day in (after, before)]  # several series of one exam show the same
            notes = tuple(
                f"{len(by_date[d])} series on {d}: the first is used." for d in (before, after) if len(by_date[d]) > 1
            )
            now, prior = by_date[after][series[0]], by_date[before][series[1]]
            nodules = tuple(AnnotatedNodule(n, now.get(n), prior.get(n)) for n in sorted(set(now) | set(prior)))
            both = [n for n in nodules if n.reference_mm is not None and n.template_mm is not None]
            points = (np.array([n.reference_mm for n in both]), np.array([n.template_mm for n in both]))
            scans = [folder / "luna25_images" / f"{uid}.mha" for uid in series]
            if not both:  # nothing is known of this pair
                continue
            for scan in scans:
                if not scan.exists():
                    raise InputError("no such file", field=scan, expected="the image of a series of the table")
            name = f"{patient}_{before:%Y%m%d}_{after:%Y%m%d}"
            pairs.append(
                PublicPair(
                    name,
                    patient,
                    scans[0],
                    scans[1],
                    float((after - before).days),
                    points=points,
                    nodules=nodules,
                    notes=notes,
                )
            )
    if not pairs:
        raise InputError("holds no two exams with the same nodule", field=folder / TABLE)
    return pairs


def _read_exams(path: Path) -> Mapping[str, Mapping[date, Mapping[str, Exam]]]:
    """Nodules by patient, date and series."""
    exams: dict[str, dict[date, dict[str, Exam]]] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, restval="")
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f"found no column {missing[0]}", field=path, expected=", ".join(COLUMNS))
            for row in reader:
                where = (path, Argument(f"line {reader.line_num}"))
                try:
                    day = row["StudyDate"].strip().replace("-", "").split(".")[0]
                    when = date(int(day[:4]), int(day[4:6]), int(day[6:8]))
                    x, y, z = (float(row[f"Coord{axis}"]) for axis in "XYZ")
                    if not all(map(math.isfinite, (x, y, z))):
                        raise ValueError("a centre is not finite")
                except ValueError as error:
                    raise InputError(
                        str(error), field=where, expected="StudyDate as YYYYMMDD and centres in mm"
                    ) from error
                exam = exams.setdefault(row["PatientID"], {}).setdefault(when, {})
                nodules = exam.setdefault(row["SeriesInstanceUID"], {})
                if row["NoduleID"] in nodules:
                    raise InputError(f"nodule {row['NoduleID']} stands in a row above for this series", field=where)
                nodules[row["NoduleID"]] = (x, y, z)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot be read ({reason_of(error)})", field=path, expected="the table of LUNA25") from error
    return exams
