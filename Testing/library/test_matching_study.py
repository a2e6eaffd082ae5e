"""``changemap matching`` on two made-up runs whose every figure can be counted by hand."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from ChangeMapJointLib.cli.main import app
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.io.write import write_displacement

SHIFT_MM = np.array([4.0, 0.0, 0.0])  # y(x) = x + SHIFT_MM
GRID = Grid((4, 4, 4), (40.0, 40.0, 40.0), (-60.0, -60.0, -60.0))
NODULES = """case,patient,nodule,rx,ry,rz,tx,ty,tz
a,P1,1,10,0,0,14,0,0
a,P1,2,-30,5,0,-26,5,0
a,P1,3,0,40,0,,,
b,P2,1,0,0,20,4,0,20
"""


def write_run(folder, *lesions):
    """A run that measured lesions: centres in the current scan and in the prior, or None."""
    folder.mkdir(parents=True)
    affine = np.eye(4)
    affine[:3, 3] = SHIFT_MM
    write_displacement(folder / "deformation.nrrd", DisplacementField.from_affine(affine, GRID))
    entries = [
        {
            "id": number,
            "kind": "stable",
            "centre_mm": [0.0, 0.0, 0.0],
            "lesion_reference": None if now is None else {"centre_mm": now},
            "lesion_template": None if before is None else {"centre_mm": before},
        }
        for number, (now, before) in enumerate(lesions, 1)
    ]
    (folder / "run.json").write_text(json.dumps({"configuration": {"method": "sequential"}}))
    (folder / "quality.json").write_text(json.dumps({"quality": {"verdict": "good"}}))
    (folder / "findings.json").write_text(json.dumps({"findings": entries[:1]}))
    (folder / "candidates.json").write_text(json.dumps({"findings": entries[1:]}))


@pytest.fixture
def study(tmp_path):
    (tmp_path / "nodules.csv").write_text(NODULES, "utf-8")
    # nodule 1 is found twice and linked; nodule 2 in both, but each linked to nothing; nodule 3 is linked wrongly
    write_run(
        tmp_path / "runs" / "pairs" / "a" / "result",
        ([11.0, 0, 0], [14.0, 1, 0]),
        ([-30.0, 5, 1], None),
        (None, [-26.0, 5, 0]),
    )
    write_run(tmp_path / "runs" / "pairs" / "b" / "result", ([0.0, 0, 26], [4.0, 0, 20]))  # 6 mm from the nodule
    return tmp_path


def run(folder, *arguments):
    command = ["matching", folder / "nodules.csv", "--runs", folder / "runs", "--out", folder / "out", *arguments]
    with pytest.raises(SystemExit) as end:
        app(list(map(str, command)))
    return end.value.code


def test_lesions_of_runs_are_counted_as_detected_and_matched(study, capsys):
    assert run(study) == 0
    rows = list(csv.DictReader((study / "out" / "matching.csv").open()))
    assert [tuple(row.values()) for row in rows] == [("a", "2", "2", "1", "0"), ("b", "1", "0", "0", "0")]
    document = json.loads((study / "out" / "matching.json").read_text("utf-8"))
    assert document["total"] == {"nodules": 3, "detected": 2, "matched": 1, "wrong_links": 0}
    assert document["rate"]["value"] == pytest.approx(1 / 3)
    assert "3 nodules of both scans in 2 pairs: 2 detected in both, 1 matched" in capsys.readouterr().out
    assert run(study) == 2  # it is there already
    assert run(study, "--overwrite", "--hit", "7") == 0
    assert json.loads((study / "out" / "matching.json").read_text("utf-8"))["total"]["matched"] == 2


def test_marks_of_a_detector_are_linked_under_the_deformation(study):
    marks = ["case,scan,x,y,z", "a,current,10,0,0", "a,current,-30,5,0", "a,prior,-26,4,0", "a,prior,15,0,0"]
    marks += ["b,current,0,0,20", "b,prior,40,0,20"]  # 36 mm away: no link
    (study / "marks.csv").write_text("\n".join(marks), "utf-8")
    assert run(study, "--detections", study / "marks.csv") == 0
    total = json.loads((study / "out" / "matching.json").read_text("utf-8"))["total"]
    assert total == {"nodules": 3, "detected": 2, "matched": 2, "wrong_links": 0}


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("nodules.csv", "case,nodule\na,1\n", "has no column 'rx'"),
        ("nodules.csv", NODULES + "a,P1,1,1,1,1,1,1,1\n", "case 'a' has '1' twice"),
        ("nodules.csv", NODULES.replace("14,0,0", "x,0,0"), "found 'x'"),
        ("nodules.csv", NODULES + "a,P1,9,,,,,,\n", "has no place in either scan"),
        ("nodules.csv", NODULES + ",P1,9,1,1,1,1,1,1\n", "line 6: case: is empty"),
        ("nodules.csv", NODULES + "a,P1,9,1,5,1,5,1,1,1\n", "has more than 9 values"),
        ("nodules.csv", NODULES + "c,P3,1,1,1,1,1,1,1\n", "no run of this case"),
        ("nodules.csv", "case,nodule,rx,ry,rz,tx,ty,tz\n", "holds no row"),
        ("marks.csv", "case,scan,x,y,z\nz,current,1,1,1\n", "found 'z'"),
        ("marks.csv", "case,scan,x,y,z\na,now,1,1,1\n", "found 'now'"),
        ("marks.csv", "case,scan,x,y,z\na,prior,,,\n", "is empty"),
        (
            "runs/pairs/a/result/findings.json",
            '{"findings": [{"id": 1, "kind": "new", "centre_mm": [0, 0, 0], "lesion_reference": {"centre_mm": [1]}}]}',
            "a lesion has no centre",
        ),
    ],
)
def test_wrong_tables_are_refused_in_one_line(study, capsys, file, content, words):
    (study / file).write_text(content, "utf-8")
    assert run(study, *(("--detections", study / file) if file == "marks.csv" else ())) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
    assert not (study / "out").exists()
