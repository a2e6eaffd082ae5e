"""``changemap series`` on runs that are written from a known motion: tables, page, and what is missing."""

from __future__ import annotations

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
from cohort_samples import QUALITY
from finding_samples import compare, labels_of
from lung_shapes import cube, scan
from phantoms import Sphere

from ChangeMapJointLib.cli.main import app
from ChangeMapJointLib.cohort import series
from ChangeMapJointLib.cohort.place import PairPlace
from ChangeMapJointLib.cohort.series_list import read_series
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.export.tables import write_findings_json
from ChangeMapJointLib.io import run_files
from ChangeMapJointLib.io.read import read_volume
from ChangeMapJointLib.io.write import write_displacement, write_nrrd, write_rigid

GRID = cube(edge_mm=60.0)
LIST = "patient,date,scan\nP1,2026-01-10,2.nrrd\nP1,20250101,0.nrrd\nP1,2025-04-11,1.nrrd\n"
RADII_MM = (4.0, 5.0, 6.3)  # it doubles in 100 days: 2 = (5 / 4)^3
NEW_MM = (14.0, 10.0, -8.0)


@pytest.fixture
def scans(tmp_path):
    """Three scans of one patient, the list out of order; what a comparison of two of them writes."""
    for time, radius in enumerate(RADII_MM):
        shapes = [Sphere((-12.0, -8.0, 4.0), radius, 40.0)] + [Sphere(NEW_MM, 5.5, 40.0)] * (time == 2)
        volume = scan(GRID, *shapes, noise_hu=15.0, seed=time)
        write_nrrd(tmp_path / f"{time}.nrrd", volume.array, GRID)
    (tmp_path / "scans.csv").write_text(LIST, "utf-8")
    return tmp_path / "scans.csv"


def write_run(folder, reference, template, verdict="good"):
    folder.mkdir(parents=True)
    volumes = [read_volume(path) for path in (reference, template)]
    field = DisplacementField.from_affine(np.eye(4), GRID)
    write_displacement(folder / run_files.DEFORMATION, field)
    write_rigid(folder / run_files.RIGID, np.eye(4))
    write_nrrd(folder / run_files.CHANGE_MAP, np.zeros((1, 1, 1), np.float32), GRID.crop((0, 0, 0), (1, 1, 1)))
    for name, volume in zip((run_files.LUNGS_REFERENCE, run_files.LUNGS_TEMPLATE), volumes, strict=True):
        write_nrrd(folder / name, labels_of(volume), GRID)
    write_findings_json(folder / run_files.FINDINGS, compare(*volumes, field=field))
    (folder / "run.json").write_text(
        json.dumps({"schema": run_files.SCHEMA, "configuration": {"method": "sequential"}})
    )
    quality = {**QUALITY, "verdict": verdict, "reasons": [f"It is {verdict}."]}
    (folder / "quality.json").write_text(json.dumps({"quality": quality}))
    (folder / run_files.REPORT).write_text("<p>")


@pytest.fixture
def comparisons(monkeypatch):
    """Comparisons without workers; a test says which of them fail, and which registrations do."""
    says = SimpleNamespace(failing=set(), bad=set(), asked=[])

    def run_cohort(request, _listener=None):
        records = []
        for pair in request.pairs:
            says.asked.append(pair.id)
            done = pair.id not in says.failing
            if done:
                verdict = "do not use" if pair.id in says.bad else "good"
                write_run(PairPlace(request.out, pair.id).result, pair.reference, pair.template, verdict)
            records.append(SimpleNamespace(id=pair.id, status="done" if done else "fault"))
        failed = [record for record in records if record.status != "done"]
        return SimpleNamespace(records=records, total=len(records), failed=failed)

    monkeypatch.setattr(series, "run_cohort", run_cohort)
    return says


def run(path, out, *arguments):
    with pytest.raises(SystemExit) as end:
        app(["series", str(path), "--out", str(out), "--progress", "none", *arguments])
    return end.value.code


def rows(path):
    return list(csv.DictReader(path.open(encoding="utf-8")))


def test_lesions_are_followed_through_three_scans(scans, comparisons, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    assert run(scans, out) == 0
    assert comparisons.asked == ["P1 2-1", "P1 3-2", "P1 3-1"]
    grown = [row for row in rows(out / "lesions.csv") if row["lesion"] == "1"]
    assert [row["date"] for row in grown] == ["2025-01-01", "2025-04-11", "2026-01-10"]
    expected = [4 / 3 * np.pi * radius**3 / 1000 for radius in RADII_MM]
    np.testing.assert_allclose([float(row["volume_ml"]) for row in grown], expected, rtol=0.15)
    new = [row for row in rows(out / "lesions.csv") if row["lesion"] == "2"]
    assert [(row["state"], row["lung"]) for row in new] == [("absent", "left")] * 2 + [("measured", "left")]
    np.testing.assert_allclose([float(new[2][f"{axis}_mm"]) for axis in "xyz"], NEW_MM, atol=0.7)
    assert [row["response"] for row in rows(out / "sums.csv")] == ["baseline", "unknown", "progression"]
    (patient,) = json.loads((out / "series.json").read_text("utf-8"))["patients"]
    assert [entry["days"] for entry in patient["scans"]] == [0, 100, 374]
    assert patient["lesions"][0]["nadir_scan"] == 1
    page = (out / "series.html").read_text("utf-8")
    assert page.count("<circle") == 6 + 2  # points, and the colors of the lines
    assert "doubles in" in page
    assert page.count('<a href="comparisons/pairs/P1%20') == 3
    assert (out / "comparisons/pairs/P1 3-1/result/report.html").exists()
    assert '<a href="comparisons/pairs/P1%203-1/result/report.html">3-1</a>' in page
    assert "It is good." in page
    assert "2026-01-10 against 2025-01-01" in page
    assert "1 patients, 3 comparisons, 2 lesions." in capsys.readouterr().out


def test_a_comparison_that_failed_is_said_and_leaves_the_rest(scans, comparisons, tmp_path) -> None:
    comparisons.failing, comparisons.bad = {"P1 2-1"}, {"P1 3-1"}
    assert run(scans, tmp_path / "out") == 2
    (patient,) = json.loads((tmp_path / "out" / "series.json").read_text("utf-8"))["patients"]
    assert patient["notes"] == [
        "Scan 2 against scan 1 could not be compared.",
        "Scan 3 against scan 1: the registration failed.",
    ]
    assert [one["verdict"] for one in patient["comparisons"]] == ["", "good", "do not use"]
    assert [one["findings"] for one in patient["comparisons"]] == [None, 2, None]
    page = (tmp_path / "out" / "series.html").read_text("utf-8")
    assert page.count("<a href=") == 2
    assert "It is do not use." in page
    states = [[point["state"] for point in lesion["points"]] for lesion in patient["lesions"]]
    assert ["unknown", "absent", "measured"] in states  # the new one; nothing joins the first scan


def test_without_any_finding_the_page_says_so_and_other_folders_are_left_alone(
    scans, comparisons, tmp_path, capsys
) -> None:
    comparisons.failing = {"P1 2-1", "P1 3-2", "P1 3-1"}
    out = tmp_path / "out"
    assert run(scans, out) == 2
    assert "No lesion was followed" in (out / "series.html").read_text("utf-8")
    for name in (".DS_Store", "Thumbs.db", "Desktop.ini", "._series.html"):
        (out / name).write_text("of a file manager")
    assert run(scans, out) == 2
    assert "holds other files" not in capsys.readouterr().err
    (out / "thesis.doc").write_text("years")
    assert run(scans, out) == 2
    assert "holds other files" in capsys.readouterr().err
    assert run(scans, tmp_path / "other", "--method", "rigid") == 2
    assert "has no deformation" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("patient,date\nP,2026-01-01\n", "found the columns patient, date"),
        ("patient,date,scan\nP,2026-01-01,a\n", "patient P has one scan"),
        ("patient,date,scan\nP,2026-01-01,a\nP,20260101,b\n", "line 3 has a second scan of P on 2026-01-01"),
        ("patient,date,scan\nP,1.1.2026,a\n", "line 2 has the date '1.1.2026'"),
        ("patient,date,scan\nP,2026111,a\n", "line 2 has the date '2026111'"),
        ("patient,date,scan\nü,2026-01-01,a\nu\u0308,20260101,b\n", "line 3 has a second scan of ü"),
        ("patient,date,scan\n../P,2026-01-01,a\n", "line 2 has the patient '../P'"),
        ("patient,date,scan\nP,2026-01-01,a\np,2026-02-01,b\n", "line 3 has 'p', another line 'P'"),
    ],
)
def test_wrong_lists_are_refused_in_one_line(tmp_path, text, words) -> None:
    (tmp_path / "scans.csv").write_text(text, "utf-8")
    with pytest.raises(InputError) as caught:
        read_series(tmp_path / "scans.csv")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
