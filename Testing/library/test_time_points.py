"""The table of several time points: lesions followed from comparison to comparison, and their sums."""

from __future__ import annotations

import shutil

import pytest

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.export.document.content import read_document
from ChangeMapJointLib.export.document.time_points import DiameterTrack, TimePoints, time_points
from ChangeMapJointLib.io.reading_file import ReadingFile


def entry(number: int, kind: str, now: float | None, before: float | None, x: float, x_before: float) -> dict:
    def lesion(size: float | None, at: float) -> dict | None:
        return None if size is None else {"long_diameter_mm": size, "centre_mm": [at, 0.0, 0.0]}

    return {
        "id": number,
        "kind": kind,
        "centre_mm": [x, 0.0, 0.0],
        "centre_template_mm": [x_before, 0.0, 0.0],
        "lesion_reference": lesion(now, x),
        "lesion_template": lesion(before, x_before),
    }


def records(scan: int, entries: list[dict]) -> dict:
    """A comparison of scan ``scan`` with the next one."""
    sides = {
        side: {"voxels_sha256": f"hash{n}", "acquisition": {"date": f"202{n}-01-01"}}
        for side, n in (("template", scan), ("reference", scan + 1))
    }
    return {"run": sides, "quality": {"quality": {"verdict": "good"}}, "findings": {"findings": entries}}


def test_lesions_are_followed_and_summed_as_recist_has_it():
    first = records(1, [entry(1, "grown", 24.0, 20.0, 5.0, 0.0), entry(2, "new", 8.0, None, 60.0, 55.0)])
    second = records(2, [entry(1, "shrunk", 12.0, 24.0, 9.0, 6.0), entry(2, "resolved", None, 8.0, 64.0, 61.0)])
    points = time_points([first, second])
    assert points.dates == ("2021-01-01", "2022-01-01", "2023-01-01")
    assert [track.diameters_mm for track in points.tracks] == [(20.0, 24.0, 12.0), (0.0, 8.0, 0.0)]
    assert points.sums_mm == (20.0, 24.0, 12.0)
    assert [points.category(n) for n in (1, 2)] == ["PD", "PR"]  # a new lesion; then 40 % less than the first
    rows = points.rows()
    assert rows[1] == ["Lesion 1 (target)", "20.0", "24.0", "12.0"]
    assert rows[2] == ["Lesion 2", "absent", "8.0", "absent"]
    assert rows[-2:] == [["Change from the first", "-", "+20 %", "-40 %"], ["By measurements alone", "-", "PD", "PR"]]


@pytest.mark.parametrize(
    ("diameters", "category"),
    [
        ((20.0, 26.0), "PD"),  # +30 % and 6 mm
        ((10.0, 13.0), "SD"),  # +30 %, but 3 mm
        ((20.0, 14.0), "PR"),
        ((20.0, 14.1), "SD"),
        ((20.0, 0.0), "CR"),
        ((20.0, 10.0, 15.0), "PD"),  # over the smallest sum, not over the first
        ((20.0, None), "NE"),
        ((9.0, 30.0), "NE"),  # too small to be a target
    ],
)
def test_categories_at_the_limits_of_recist(diameters, category):
    points = TimePoints(tuple("abc"[: len(diameters)]), (DiameterTrack("1", diameters),))
    assert points.category(len(diameters) - 1) == category


def test_runs_that_do_not_follow_each_other_are_refused():
    one, two, three = (records(n, []) for n in (1, 2, 3))
    for runs, words in (([one], "one comparison"), ([one, three], "is not the current scan"), ([two, one], "is not")):
        with pytest.raises(InputError, match=words):
            time_points(runs)


def test_a_lesion_that_the_reader_rejected_is_in_no_table_of_time_points(dicom_run, tmp_path):
    folder = shutil.copytree(dicom_run, tmp_path / "run")
    before = read_document(folder)
    ReadingFile(folder, "R1").decide(11, decision="rejected", about={"id": 1})
    content = read_document(folder)
    first = {**records(1, []), "run": {"reference": before.records["run"]["template"]}}
    assert "PD" in time_points([first, before.kept_records]).rows()[-1]
    assert "PD" not in time_points([first, content.kept_records]).rows()[-1]
