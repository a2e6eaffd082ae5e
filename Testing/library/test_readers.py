"""Reader studies: the paper's Table 1 and its p, and a small study whose figures are worked out by hand."""

import csv
import json

import openpyxl
import pytest
from reader_study_samples import CASES, HAND_TRUTH, TABLE_1, write_hand_study, write_log, write_paper_study

import ChangeMapJointLib as cmj
from ChangeMapJointLib.cli.main import app
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.evaluation.readers.rank_tests import rank_sum, signed_rank
from ChangeMapJointLib.evaluation.readers.truth import read_study_truth


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    return cmj.evaluate_readers(write_paper_study(tmp_path_factory.mktemp("paper"))).document


@pytest.fixture(scope="module")
def hand(tmp_path_factory):
    """The study of known figures, evaluated by the command line, and its folder."""
    folder = tmp_path_factory.mktemp("hand")
    logs, truth = write_hand_study(folder)
    with pytest.raises(SystemExit) as end:
        app(["readers", str(logs), "--truth", str(truth), "--out", str(folder / "out"), "--progress", "none"])
    assert end.value.code == 0
    return folder


def test_table_1_of_the_paper_and_its_p_come_from_five_complete_separations(paper):
    for group in paper["by_reader"]:
        mean, least, most = TABLE_1[group["arm"]][int(group["reader"][-1]) - 1]
        found = (group["mean_s"], group["least_s"], group["most_s"])
        assert found == pytest.approx((mean, least, most), abs=0.002)  # the log has milliseconds
    p = {(t["reader"], t["second"]): t["rank_sum"]["p"] for t in paper["time_tests"] if t["first"] == "unaided"}
    assert p["Reader 2", "joint"] == p["Reader 3", "joint"] == pytest.approx(2 / 252)
    assert round(2 / 252, 4) == 0.0079
    assert p["Reader 1", "joint"] > 0.05
    percent = {(d["first"], d["second"]): d["seconds_percent"]["value"] for d in paper["differences"]}
    assert percent["unaided", "sequential"] == pytest.approx(-23.1, abs=0.05)
    assert percent["unaided", "joint"] == pytest.approx(-24.4, abs=0.05)


def test_the_signed_rank_test_of_five_cases_cannot_reach_significance_and_the_page_says_so(paper):
    tests = [t["signed_rank"] for t in paper["time_tests"]]
    assert min(t["p"] for t in tests) == 0.0625 == tests[0]["smallest_p"]
    assert any("cannot give a p below 0.0625" in note for note in paper["notes"])
    assert any("practice cannot be told from the arm" in note for note in paper["notes"])
    assert not paper["mixed_model"]["period"]


def test_rank_tests_are_exact_with_ties():
    assert rank_sum([1, 1, 2], [2, 3, 3]).p == pytest.approx(4 / 20)  # mid-ranks: sums of 7.5 or less in 2 of 20
    assert signed_rank([1, 2, 5, 5], [3, 4, 5, 4]).p == pytest.approx(0.5)  # -2, -2, +1; the 0 is left out
    assert rank_sum([], [1.0]).p is None


def test_the_mixed_model_recovers_effects_of_readers_cases_and_arms(tmp_path):
    reader_s, case_s = {"A": 1.0, "B": 1.4, "C": 0.8}, {c: 60.0 * (1 + k / 3) for k, c in enumerate(CASES)}
    for k, reader in enumerate(reader_s):
        for session, arm in enumerate(("unaided", "joint") if k != 1 else ("joint", "unaided"), 1):
            practice = 0.9 ** (session - 1)
            wobble = [1.02, 0.97, 1.01, 0.99, 1.01] if session == 1 else [0.98, 1.01, 1.0, 1.02, 0.99]
            times = [
                (c, case_s[c] * reader_s[reader] * practice * w * (0.7 if arm == "joint" else 1.0), ())
                for c, w in zip(CASES, wobble, strict=True)
            ]
            write_log(tmp_path, reader, session, arm, times, week=session)
    model = cmj.evaluate_readers(tmp_path).document["mixed_model"]
    (effect,) = model["effects"]
    assert model["period"]
    assert effect["ratio"] == pytest.approx(0.7, rel=0.01)
    assert effect["low"] < 0.7 < effect["high"]
    assert model["reader_sd"] == pytest.approx(0.28, abs=0.03)  # SD of log 1, 1.4, 0.8
    assert model["case_sd"] == pytest.approx(0.33, abs=0.02)


def test_recall_precision_and_figure_of_merit_are_those_worked_out_by_hand(hand):
    document = json.loads((hand / "out" / "readers.json").read_text("utf-8"))
    groups = {(g["reader"], g["arm"]): g for g in document["by_reader"]}
    found = {key: (g["hit"], g["false"], g["repeated"], g["merit"]) for key, g in groups.items()}
    assert found == {
        ("R1", "unaided"): (1, 2, 0, 0.25),
        ("R1", "joint"): (3, 0, 1, 1.0),
        ("R2", "unaided"): (1, 0, 0, 0.75),
        ("R2", "joint"): (2, 2, 0, 0.25),
    }
    joint = {name: figure["value"] for name, figure in document["by_arm"]["joint"].items()}
    assert joint == pytest.approx(
        {"seconds": 30, "recall": 5 / 6, "precision": 5 / 7, "false_per_case": 2 / 6, "merit": 0.625}, abs=1e-3
    )
    (difference,) = document["differences"]
    assert difference["seconds_percent"]["value"] == pytest.approx(-50, abs=0.01)
    assert difference["recall"]["value"] == pytest.approx(0.5)
    assert document["figure_of_merit"] == "wAFROC"


def test_the_folder_holds_page_figures_and_tables(hand):
    out = hand / "out"
    page = (out / "readers.html").read_text("utf-8")
    assert page.count("data:image/png;base64,") == 3
    assert "http:" not in page.replace("https:", "http:")
    assert {path.name for path in (out / "figures").iterdir()} == {
        f"{name}.{kind}" for name in ("times", "differences", "recall") for kind in ("png", "svg")
    }
    rows = list(csv.DictReader((out / "readings.csv").open(encoding="utf-8")))
    assert len(rows) == 12
    assert {r["overlay_s"] for r in rows if r["arm"] == "unaided"} == {"0"}
    with pytest.raises(SystemExit) as end:
        app(["readers", str(hand / "logs"), "--out", str(out), "--progress", "none"])
    assert end.value.code == 2


def test_imrmc_reads_the_highest_rating_of_every_case(hand):
    lines = (hand / "out" / "study.imrmc").read_text("ascii").splitlines()
    start = lines.index("BEGIN DATA:")
    assert {"NR: 2", "N0: 1", "N1: 2", "NM: 2"} <= set(lines[:start])
    rows = [line.split(",") for line in lines[start + 1 :] if line]
    assert [row for row in rows if row[0] == "-1"] == [
        ["-1", "1", "0", "1"],
        ["-1", "2", "0", "1"],
        ["-1", "3", "0", "0"],
    ]
    assert ["R1", "1", "joint", "90"] in rows
    assert ["R2", "1", "unaided", "0"] in rows
    assert len(rows) == 3 + 12


def test_rjafroc_gets_marks_by_lesion_and_the_truth(hand):
    book = openpyxl.load_workbook(hand / "out" / "rjafroc.xlsx")
    sheets = {sheet.title: [list(row) for row in sheet.iter_rows(values_only=True)] for sheet in book}
    assert list(sheets) == ["TP", "FP", "TRUTH"]
    assert ["R1", "joint", 1, 1, 90] in sheets["TP"]
    assert sheets["TP"].count(["R1", "joint", 1, 2, 40]) == 1
    assert ["R2", "joint", 3, 55] in sheets["FP"]
    everyone = ["R1, R2", "unaided, joint"]
    assert sheets["TRUTH"][1:] == [
        [1, 1, 0, *everyone, "FROC"],
        [1, 2, 0, *everyone, "FCTRL"],
        [2, 1, 0, *everyone, None],
        [3, 0, 0, *everyone, None],
    ]


def test_the_table_of_cases_is_a_truth_as_well(tmp_path):
    (tmp_path / "a.csv").write_text(
        "id,kind,rx,ry,rz,diameter_reference_mm,diameter_template_mm\n4,new,1,2,3,8,0\n5,stable,9,9,9,6,6\n"
    )
    (tmp_path / "cases.csv").write_text("case,null,lesions\na,,a.csv\nn,yes,\n")
    cases, notes = read_study_truth(tmp_path / "cases.csv")
    assert {name: [(lesion.number, lesion.centre_mm) for lesion in lesions] for name, lesions in cases.items()} == {
        "a": [(4, (1.0, 2.0, 3.0)), (5, (9.0, 9.0, 9.0))],
        "n": [],
    }
    assert not notes
    new = cases["a"][0]
    assert new.distance_mm((5.5, 2.0, 3.0), 3.0) == pytest.approx(0.5, abs=0.51)
    assert new.distance_mm((1.0, 2.0, 10.5), 3.0) > 3.0


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ("case,lesion\na,1\n", "cases.csv: has an unknown column 'lesion'"),
        ("case,x_mm\na,1\n", "truth.csv: found no column y_mm"),
        (HAND_TRUTH.replace("n,,,,,", ""), "truth.csv: has no case 'n', which reader R1 read"),
        (HAND_TRUTH.replace("40,0,0,6", "40,0,0,0"), "truth.csv: line 3: found 40.0, 0.0, 0.0 and 0.0 mm"),
        (HAND_TRUTH.replace("a,2", "a,1"), "truth.csv: line 3: lesion 1 stands in a row above"),
        ("case,x_mm,y_mm,z_mm,diameter_mm\n", "truth.csv: holds no case"),
    ],
)
def test_a_wrong_truth_is_one_clear_line(hand, tmp_path, truth, message):
    path = tmp_path / message.split(":")[0]
    path.write_text(truth)
    with pytest.raises(InputError) as caught:
        cmj.evaluate_readers(hand / "logs", path)
    assert f"{tmp_path}/{message}" in str(caught.value)


def test_logs_that_do_not_belong_together_are_refused(tmp_path):
    write_log(tmp_path, "R1", 1, "unaided", [("a", 10.0, ())])
    (tmp_path / "copy.jsonl").write_bytes((tmp_path / "lungs_R1_1.jsonl").read_bytes())
    with pytest.raises(InputError, match="is of reader R1 and session 1, as"):
        cmj.evaluate_readers(tmp_path)
    (tmp_path / "copy.jsonl").unlink()
    write_log(tmp_path, "R1", 2, "unaided", [("a", 12.0, ())])
    with pytest.raises(InputError, match="read case 'a' unaided again"):
        cmj.evaluate_readers(tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match=r"holds no \.jsonl file"):
        cmj.evaluate_readers(tmp_path / "none")


def test_one_reading_alone_gives_its_time_and_no_test(tmp_path):
    path = write_log(tmp_path, "R1", 1, "unaided", [("a", 10.0, ())])
    study = cmj.evaluate_readers(path)
    assert study.document["by_arm"]["unaided"]["seconds"] == {"value": 10.0, "low": None, "high": None}
    assert study.document["time_tests"] == [] == study.document["differences"]
    assert study.document["mixed_model"] is None
    study.save(tmp_path / "out")
    assert (tmp_path / "out" / "readers.html").exists()
