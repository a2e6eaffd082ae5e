"""What a series writes: tables of lesions and of sums, everything as JSON, and a page with a curve for each lesion."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ChangeMapJointLib import __version__
from ChangeMapJointLib.change.tracks import Track
from ChangeMapJointLib.cohort.page import render
from ChangeMapJointLib.cohort.series import DOCUMENT, LESIONS, PAGE, SUMS, PatientSeries, SeriesComparison
from ChangeMapJointLib.export.tables import csv_cell
from ChangeMapJointLib.export.wording import DASH
from ChangeMapJointLib.io.write import atomic_path
from ChangeMapJointLib.lesions.course import CoursePoint, doubling_time_days, nadir, sums_of_diameters, target_lesions

SCHEMA = "changemap.series/1"
# colors that colour-blind readers can tell apart (Okabe and Ito), and dashes for further lesions
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 880, 300, 64, 36, 14, 24
TICKS = 4
MOST_CURVES = 12
VERDICT_CSS = {"good": "good", "look closely": "look"}


def write_series(out: Path, patients: Sequence[PatientSeries]) -> Path:
    """Write all files, each whole or not at all, and return the page.

    Raises:
        InputError: a file cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    _write_table(out / LESIONS, (row for patient in patients for row in lesion_rows(patient)))
    _write_table(out / SUMS, (row for patient in patients for row in sum_rows(patient)))
    document = {"schema": SCHEMA, "version": __version__, "patients": [_document(patient) for patient in patients]}
    with atomic_path(out / DOCUMENT) as temporary:
        temporary.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", "utf-8")
    text = render(
        "series.html.j2",
        title="Lesions through time",
        version=__version__,
        patients=[_shown(patient) for patient in patients],
    )
    with atomic_path(out / PAGE) as temporary:
        temporary.write_text(text, "utf-8")
    return out / PAGE


def lesion_rows(patient: PatientSeries) -> list[dict[str, Any]]:
    """Return a row for each lesion in each scan: sizes in ml and mm, centres in mm (LPS) in that scan."""
    rows = []
    for track in patient.tracks:
        about = _about(patient, track)
        for number, (scan, point) in enumerate(zip(patient.scans, track.points, strict=True), 1):
            centre = ("", "", "") if point.measure is None else point.measure.centre_mm
            rows.append(
                {
                    "patient": patient.patient,
                    "lesion": track.id,
                    "lung": track.lung,
                    "scan": number,
                    "date": scan.day.isoformat(),
                    "state": point.state,
                    "volume_ml": _number(point.volume_ml),
                    "long_diameter_mm": _number(point.diameter_mm),
                    **dict(zip(("x_mm", "y_mm", "z_mm"), map(_number, centre), strict=True)),
                    "doubling_time_days": _number(about["doubling_time_days"]),
                    "nadir_scan": _number(about["nadir_scan"]),
                }
            )
    return rows


def sum_rows(patient: PatientSeries) -> list[dict[str, Any]]:
    """Return a row for each scan: the sum of diameters of the target lesions in mm, and the response."""
    courses = [track.points for track in patient.tracks]
    targets = " ".join(str(patient.tracks[number].id) for number in target_lesions(courses))
    return [
        {
            "patient": patient.patient,
            "scan": number,
            "date": scan.day.isoformat(),
            "targets": targets,
            "sum_mm": _number(point.sum_mm),
            "baseline_percent": _number(point.baseline_percent),
            "nadir_percent": _number(point.nadir_percent),
            "new_lesions": point.new_lesions,
            "response": point.response,
        }
        for number, (scan, point) in enumerate(zip(patient.scans, sums_of_diameters(courses), strict=False), 1)
    ]


def _about(patient: PatientSeries, track: Track) -> dict[str, Any]:
    volumes = [point.volume_ml for point in track.points]
    lowest = nadir(volumes)
    return {
        "doubling_time_days": doubling_time_days(patient.days, volumes),
        "nadir_scan": None if lowest is None else lowest + 1,
    }


def _document(patient: PatientSeries) -> dict[str, Any]:
    courses = [track.points for track in patient.tracks]
    return {
        "patient": patient.patient,
        "scans": [
            {"date": scan.day.isoformat(), "days": d} for scan, d in zip(patient.scans, patient.days, strict=True)
        ],
        "lesions": [
            {
                "id": track.id,
                "lung": track.lung,
                **_about(patient, track),
                "points": [asdict(point) for point in track.points],
                "findings": [asdict(mention) for mention in track.mentions],
            }
            for track in patient.tracks
        ],
        "targets": [patient.tracks[number].id for number in target_lesions(courses)],
        "sums": [asdict(point) for point in sums_of_diameters(courses)],
        "notes": list(patient.notes),
        "comparisons": [asdict(comparison) for comparison in patient.comparisons],
    }


def _number(value: Any) -> Any:
    return "" if value is None else round(value, 4) if isinstance(value, float) else value


def _write_table(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    listed = list(rows)
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(listed[0]) if listed else ["patient"], lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: csv_cell(v) if isinstance(v, str) else v for name, v in row.items()} for row in listed)


# -- the page -------------------------------------------------------------------------------
def _shown(patient: PatientSeries) -> dict[str, Any]:
    sums = sum_rows(patient)
    return {
        "name": patient.patient,
        "dates": [scan.day.isoformat() for scan in patient.scans],
        "notes": patient.notes,
        "comparisons": [_run_row(patient, comparison) for comparison in patient.comparisons],
        "chart": chart_of(patient) if patient.tracks else None,
        "lesions": [
            {
                "id": track.id,
                "lung": track.lung,
                "color": COLORS[i % len(COLORS)] if i < MOST_CURVES else "",
                "volumes": [_words(point) for point in track.points],
                "doubling": _doubling(_about(patient, track)["doubling_time_days"]),
                "nadir": _about(patient, track)["nadir_scan"] or "",
                "findings": ", ".join(f"{m.kind} ({m.link})" for m in track.mentions),
            }
            for i, track in enumerate(patient.tracks)
        ],
        "targets": sums[0]["targets"] if sums else "",
        "sums": [{"sum": "-" if row["sum_mm"] == "" else f"{row['sum_mm']:.1f} mm", **row} for row in sums],
    }


def _run_row(patient: PatientSeries, comparison: SeriesComparison) -> dict[str, Any]:
    """The row of a comparison: dates, verdict with its reasons, findings, and a link to the report."""
    later, earlier = (patient.scans[int(number) - 1].day.isoformat() for number in comparison.name.split("-"))
    return {
        "name": comparison.name,
        "dates": f"{later} against {earlier}",
        "report": quote(comparison.report),
        "verdict": comparison.verdict or "not compared",
        "css": VERDICT_CSS.get(comparison.verdict, "stop"),
        "findings": DASH if comparison.findings is None else comparison.findings,
        "reasons": " ".join(comparison.reasons),
    }


def _words(point: CoursePoint) -> str:
    if point.measure is None:
        return point.state
    return f"{point.measure.volume_ml:.2f} ml, {point.measure.long_diameter_mm:.1f} mm"


def _doubling(days: float | None) -> str:
    if days is None:
        return ""
    return f"doubles in {days:.0f} days" if days > 0 else f"halves in {-days:.0f} days"


def chart_of(patient: PatientSeries) -> dict[str, Any]:
    """Return the curves of a patient's lesions as points of an SVG picture, with axes.

    Where a lesion is unknown in a scan, the line between its neighbours is dashed.
    """
    tracks = patient.tracks[:MOST_CURVES]
    top = _nice(max(point.volume_ml or 0.0 for track in tracks for point in track.points))
    last = max(patient.days[-1], 1)
    across = [LEFT + (WIDTH - LEFT - RIGHT) * day / last for day in patient.days]

    def up(volume_ml: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * volume_ml / top

    curves = []
    for i, track in enumerate(tracks):
        places = [(x, up(p.volume_ml)) for x, p in zip(across, track.points, strict=True) if p.volume_ml is not None]
        known = [number for number, p in enumerate(track.points) if p.volume_ml is not None]
        lines = [
            {"x1": a[0], "y1": a[1], "x2": b[0], "y2": b[1], "gap": second - first > 1}
            for (a, b), (first, second) in zip(pairwise(places), pairwise(known), strict=True)
        ]
        curves.append({"id": track.id, "color": COLORS[i % len(COLORS)], "lines": lines, "places": places})
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "bottom": HEIGHT - BOTTOM,
        "curves": curves,
        "dates": list(zip(across, (scan.day.isoformat() for scan in patient.scans), strict=True)),
        "ticks": [(up(top * k / TICKS), f"{top * k / TICKS:.3g}") for k in range(TICKS + 1)],
    }


def _nice(value: float) -> float:
    """Return a round number that is not smaller.

    Examples:
        >>> _nice(0.37), _nice(1.0), _nice(0.0)
        (0.4, 1.0, 1.0)
    """
    if value <= 0:
        return 1.0
    step: float = 10.0 ** math.floor(math.log10(value))
    return next(round(step * k, 12) for k in (1, 2, 4, 5, 8, 10) if step * k >= value * (1 - 1e-9))
