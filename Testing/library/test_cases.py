"""The table of cases, the table of lesions, and every way in which they can be wrong."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.evaluation.cases import COLUMNS, Case, MethodFiles, read_cases
from ChangeMapJointLib.evaluation.lesion_table import read_lesion_table, read_points


@pytest.fixture
def table(tmp_path: Path):
    """Writes a table beside a few files that its rows may name."""
    for name in ("a.nrrd", "b.nrrd", "truth.csv", "other.csv"):
        (tmp_path / name).touch()
    for name in ("run1", "run2", "outs/p1", "cohort/pairs/p1/result"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("outs/p1", "cohort/pairs/p1/result"):
        (tmp_path / name / "run.json").touch()

    def write(text: str) -> Path:
        path = tmp_path / "cases.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_rows_of_one_case_are_one_pair_with_one_truth_and_several_methods(table) -> None:
    path = table(
        "\ufeffcase,patient,method,run,map,lesions,days,note_reader\n"
        "p1,A,,run1,,truth.csv,90,looked at twice\n"
        "\n"
        "p1,,theirs,,a.nrrd,,,\n"
        "p2,A,theirs,,b.nrrd,other.csv,,\n"
    )
    first, second = read_cases(path)
    assert (first.name, first.patient, first.days) == ("p1", "A", 90)
    assert [(m.method, m.run and m.run.name, m.map and m.map.name) for m in first.methods] == [
        ("", "run1", None),
        ("theirs", None, "a.nrrd"),
    ]
    assert first.lesions == path.parent / "truth.csv"
    assert second.patient == "A"


def test_a_cohort_of_runs_stands_for_the_rows_of_a_method(table) -> None:
    path = table("case,null\np1,yes\n")
    (case,) = read_cases(path, runs={"fast": path.parent / "outs"})
    assert case.methods == (MethodFiles("fast", path.parent / "outs/p1"),)
    (case,) = read_cases(path, runs=[path.parent / "cohort"])
    assert case.methods == (MethodFiles("", path.parent / "cohort/pairs/p1/result"),)
    with pytest.raises(InputError, match=r"case 'p1' has no run, expected a folder with run\.json"):
        read_cases(path, runs=[path.parent])


def test_every_column_has_its_field() -> None:
    known = {field.name for kind in (Case, MethodFiles) for field in fields(kind)} - {"name", "methods"}
    assert known == set(COLUMNS) - {"case"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty, expected a header with the column case"),
        ("case;map\np1;a.nrrd\n", "found the columns case;map, expected a header with the column case"),
        ("case,map\n", "holds no case"),
        ("case,lesion_reference\np1,a.nrrd\n", "unknown column 'lesion_reference'; rename it to lesions_reference"),
        ("case,colour\np1,red\n", "unknown column 'colour'; begin its name with 'note'"),
        ("case,case\np1,p1\n", "the column 'case' twice"),
        ("case,method,map\np1,ours,a.nrrd\n", "line 2: case 'p1' has no truth"),
        ("case,lesions\np1,truth.csv\n", "line 2: case 'p1' has no result"),
        ("case,lesions,trust,method\np1,truth.csv,a.nrrd,x\n", "line 2: case 'p1' has no result"),
        ("case,lesions,map\np1,truth.csv,a.nrrd\n", "case 'p1' has a result without a name"),
        ("case,lesions,map,method\np1,gone.csv,a.nrrd,x\n", r"line 2: lesions: .*gone\.csv: no such file"),
        ("case,lesions,run\np1,truth.csv,a.nrrd\n", r"run: .*a\.nrrd: is a file, expected a folder"),
        ("case,map,method\np1,run1,x\n", "is a folder, expected a file"),
        ("case,lesions,map,method\np1,truth.csv,a.nrrd;b.nrrd,x\n", "map: found 2 paths, expected one"),
        (
            "case,lesions,map,method\np1,truth.csv,a.nrrd,x\np1,truth.csv,b.nrrd,x\n",
            "line 3: case 'p1' with method 'x' stands in a row above",
        ),
        (
            "case,lesions,map,method\np1,truth.csv,a.nrrd,x\np1,other.csv,b.nrrd,y\n",
            "line 3: case 'p1' has another lesions in a row above",
        ),
        ("case,null,lesions,map,method\np1,yes,truth.csv,a.nrrd,x\n", "is null, but has lesions"),
        ("case,null,map,method\np1,maybe,a.nrrd,x\n", "line 2: null: found 'maybe', expected yes or no"),
        ("case,null,days,map,method\np1,yes,-3,a.nrrd,x\n", "days: found '-3', expected a number above 0"),
        ("case,null,map,method\n,yes,a.nrrd,x\n", "line 2: has no case"),
        ("case,null,map,method\np1,yes,a.nrrd,x,y\n", "line 2: has more or fewer cells than the header"),
        ("case,null,map,method\np1,yes,a.nrrd\n", "line 2: has more or fewer cells than the header"),
    ],
)
def test_a_wrong_table_is_one_clear_line(table, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_cases(table(text))
    assert "cases.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_table_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file, expected a table of cases"):
        read_cases(tmp_path / "none.csv")
    with pytest.raises(InputError, match="is a folder, expected a table of cases"):
        read_cases(tmp_path)
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00case")
    with pytest.raises(InputError, match=r"cannot be read .* expected a table of cases \(CSV, UTF-8\)"):
        read_cases(tmp_path / "x.csv")


def test_lesions_by_radius_and_kinds_from_sizes(tmp_path: Path) -> None:
    path = tmp_path / "lesions.csv"
    path.write_text(
        "kind,rx,ry,rz,tx,ty,tz,radius_reference_mm,radius_template_mm,inserted\n"
        "grown,1,2,3,4,5,6,6,4,1\n"
        ",1,2,3,,,,5,0,\n"
        ",1,2,3,4,5,6,5,4.9,0\n"
        "vanished,,,,4,5,6,0,3,0\n"
        "stable,1,2,3,4,5,6,5,4.5,0\n"
    )
    grown, new, stable, resolved, read_as_stable = read_lesion_table(path)
    assert (grown.diameter_reference_mm, grown.diameter_template_mm, grown.inserted) == (12, 8, True)
    assert grown.growth_percent == pytest.approx(100 * (12**3 / 8**3 - 1))
    assert (new.kind, new.id, new.centre_template_mm, new.growth_percent) == ("new", 2, None, None)
    assert (stable.kind, stable.diameter_change_mm) == ("stable", pytest.approx(0.2))
    assert (resolved.kind, resolved.centre_reference_mm) == ("resolved", None)
    assert not read_as_stable.is_change


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,new,1,2,3,5,5", "line 2: kind='new': found 5 mm now and 5 mm before"),
        ("1,odd,1,2,3,5,0", "kind: found 'odd', expected one of new"),
        ("1,new,1,2,3,-5,0", "diameter_reference_mm: found '-5', expected a number in 0 to 500"),
        ("1,,1,2,3,0,0", "absent in both scans"),
        ("1,,,,,4,0", "no centre in the current scan"),
        ("1.5,,1,2,3,4,0", "id: found '1.5'"),
        ("1,,1,2,3,4,0\n1,,1,2,3,4,0", "line 3: lesion 1 stands in a row above"),
        ("1,,1,2,x,4,0", "rz: found 'x', expected a number"),
    ],
)
def test_a_wrong_lesion_is_one_clear_line(tmp_path: Path, row: str, message: str) -> None:
    path = tmp_path / "lesions.csv"
    path.write_text(f"id,kind,rx,ry,rz,diameter_reference_mm,diameter_template_mm\n{row}\n")
    with pytest.raises(InputError, match=message):
        read_lesion_table(path)


def test_points_that_a_reader_rejected_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text("rx,ry,rz,tx,ty,tz,good\n1,2,3,4,5,6,1\n0,0,0,9,9,9,0\n")
    reference, template = read_points(path)
    assert (reference.tolist(), template.tolist()) == ([[1, 2, 3]], [[4, 5, 6]])
    path.write_text("rx,ry,rz,tx,ty,tz\n")
    with pytest.raises(InputError, match="holds no point"):
        read_points(path)
    path.write_text("rx,ry,rz,tx,ty\n")
    with pytest.raises(InputError, match="found no column tz"):
        read_points(path)
