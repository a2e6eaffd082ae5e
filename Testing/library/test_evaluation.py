"""The figures of an evaluation, worked out on paper for the cohort of ``evaluation_samples.py``."""

from __future__ import annotations

import csv
import json
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from evaluation_samples import GRID, bar, write_cohort, write_labels
from typer.testing import CliRunner

import ChangeMapJointLib as cmj
from ChangeMapJointLib.cli.main import app
from ChangeMapJointLib.core import extras
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.evaluation import evaluate as evaluate_module
from ChangeMapJointLib.evaluation import known as known_module
from ChangeMapJointLib.evaluation import outcome as outcome_module
from ChangeMapJointLib.evaluation.field_score import kept_volume, score_field
from ChangeMapJointLib.evaluation.known import KnownCase, KnownLesion
from ChangeMapJointLib.evaluation.lesion_table import TrueLesion
from ChangeMapJointLib.evaluation.map_score import ALL_THRESHOLDS, PAPER_THRESHOLDS
from ChangeMapJointLib.evaluation.outline import preimage, shape_outline
from ChangeMapJointLib.evaluation.output import style
from ChangeMapJointLib.evaluation.statistics import (
    Comparison,
    Figure,
    bootstrap_weights,
    compare_pair,
    corrected_by_holm,
    mean_of_cases,
    with_interval,
)
from ChangeMapJointLib.io.mappings import Dense, Linear
from ChangeMapJointLib.io.write import write_nrrd


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def scores(cohort: Path) -> cmj.Evaluation:
    return cmj.evaluate(cohort)


# -- maps: the paper's protocol -----------------------------------------------------------
def test_the_papers_thresholds_are_19_on_a_logarithmic_scale_and_hold_068() -> None:
    assert len(PAPER_THRESHOLDS) == 19
    assert PAPER_THRESHOLDS[[0, -1]] == pytest.approx([0.001, 1.0])
    assert PAPER_THRESHOLDS[17] == pytest.approx(0.6813, abs=5e-5)


def test_at_068_recall_false_regions_volume_and_precision(scores: cmj.Evaluation) -> None:
    figures = {name: entry["value"] for name, entry in scores.document["maps"]["ours"]["figures"].items()}
    # of three changes: a1 (0.9) and b1 (inside the giant region, 0.8) are found, a2 (0.5) is not
    assert figures["recall_at_0.68"] == figures["recall_at_0.68_xor"] == pytest.approx(2 / 3, abs=1e-6)
    # one to one: a1 has IoU 16 / 16; the giant has 16 / 4000 with b1, which is below 0.1
    assert figures["guarded_recall_at_0.68"] == figures["guarded_recall_at_0.68_xor"] == pytest.approx(1 / 3, abs=1e-6)
    # false: six voxels in a, none in b (the giant overlaps b1), five voxels in c; the four voxels are dropped
    assert figures["false_per_scan_at_0.68"] == pytest.approx(2 / 3, abs=1e-6)
    assert figures["false_ml_per_scan_at_0.68"] == pytest.approx((6 + 5) / 3 * 0.001, rel=1e-5)
    # regions: 2 in a, 1 in b, 1 in c, of which 2 found a change
    assert figures["region_precision_at_0.68"] == pytest.approx(2 / 4)
    assert figures["false_per_null_scan_at_0.68"] == 1.0  # c
    null = scores.document["maps"]["ours"]["null"]
    assert (null["cases"], null["regions_at_0.68"], null["highest_value"]) == (1, 1, pytest.approx(0.7))


def test_curves_and_what_the_giant_region_marks(scores: cmj.Evaluation) -> None:
    paper = scores.document["maps"]["ours"]["paper"]
    overlap, guarded = paper["overlap, union"], paper["guarded, XOR"]
    row = 15  # 10 ** -0.5 = 0.316: now a2 (0.5) is found, too
    assert overlap["recall"][row] == 1.0
    # a2: its region is exactly what it gained, IoU 16 / 16 with the XOR; 16 / 32 = 0.5 with the union
    assert guarded["recall"][row] == paper["guarded, union"]["recall"][row] == pytest.approx(2 / 3, abs=1e-6)
    # outside all changes: 6 of a, 4000 - 16 of b, 5 of c
    assert overlap["outside_ml_per_scan"][0] == pytest.approx((6 + 3984 + 5) / 3 * 0.001, rel=1e-5)
    assert overlap["recall"][-1] == 0.0  # nothing reaches 1
    assert overlap["region_precision"][-1] is None
    # one to one, the giant is false, too: in b none of 1 is right
    assert guarded["false_per_scan"][16] == pytest.approx((1 + 1 + 1) / 3)


def test_froc_cannot_be_won_by_one_region_that_fills_the_lung(scores: cmj.Evaluation) -> None:
    entry = scores.document["maps"]["ours"]
    # above 0.8: a1 without any false region, 1/3. From 0.7 down: 2/3 false per scan. From 0.5 down: a1 and a2, 2/3
    found = {limit: value["value"] for limit, value in entry["sensitivity"].items()}
    expected = {**dict.fromkeys(("0.125", "0.25", "0.5"), 1 / 3), **dict.fromkeys("1248", 2 / 3)}
    assert found == pytest.approx(expected, abs=1e-6)
    assert entry["figures"]["cpm"]["value"] == pytest.approx((3 * 1 / 3 + 4 * 2 / 3) / 7, abs=1e-6)
    assert entry["froc"]["guarded, XOR"]["recall"][-1] == pytest.approx(2 / 3, abs=1e-6)
    assert entry["froc"]["guarded, XOR"]["false_per_scan"][0] == 0.0


def test_groups_by_size_hold_the_same_number_of_changes(scores: cmj.Evaluation) -> None:
    d16, d32 = ((6 / np.pi * voxels) ** (1 / 3) for voxels in (16, 32))  # of the spheres of their volumes
    groups = scores.document["maps"]["ours"]["size_groups"]
    assert [(g["found"], g["missed"]) for g in groups] == [(0, 1), (1, 0), (1, 0)]  # a2, then a1 and b1
    assert [g["low_mm"] for g in groups] == pytest.approx([d32 - d16, d16, d16], rel=1e-5)


# -- lists, registration, cost ---------------------------------------------------------------
def test_lists_kinds_growth_and_doubling_times(scores: cmj.Evaluation) -> None:
    listed = scores.document["methods"]["ours"]["list"]
    figures = {name: entry["value"] for name, entry in listed["figures"].items()}
    # found: a1, and a2 by a centre 2 mm from its own; missed: b1; the third finding of a names nothing
    expected = {"recall": 2 / 3, "precision": 2 / 3, "false_per_scan": 1 / 3, "kinds_right": 1.0}
    assert figures == pytest.approx(expected, abs=1e-6)
    table = listed["confusion"]
    cells = (table["new"]["new"], table["grown"]["grown"], table["resolved"]["missed"], table["nothing"]["new"])
    assert cells == (1, 1, 1, 1)
    assert sum(sum(row.values()) for row in table.values()) == 4
    # a2 doubled (+100 %); 0.016 to 0.024 ml is +50 %: 50 points too few, log2(1.5) - 1 doublings
    growth = listed["growth"]
    assert (growth["n"], growth["error_percent_median"]) == (1, pytest.approx(-50.0))
    assert growth["doublings"]["bias"] == pytest.approx(np.log2(1.5) - 1, rel=1e-5)
    # over 100 days: 100 days for one doubling, measured 100 / log2(1.5)
    assert growth["doubling_days"]["bias"] == pytest.approx(100 / np.log2(1.5) - 100, rel=1e-5)


def test_registration_and_time(scores: cmj.Evaluation) -> None:
    entry = scores.document["methods"]["ours"]
    found = entry["registration"]
    assert found["tre_mm"]["value"] == pytest.approx((0 + 1) / 2)  # a is exact, b 1 mm off, c has no field
    assert found["tre_before_mm"]["value"] == 0.0
    assert entry["preservation"]["grown"]["median"] == pytest.approx(1.0)
    assert entry["cost"]["seconds_median"] == 20.0
    assert scores.document["methods"]["blind"]["registration"] == {}


def test_a_lesion_that_y_swells_is_told() -> None:
    lesion = TrueLesion(1, "grown", (0.0, 0.0, 0.0), (10.0, 0.0, 0.0), 12.0, 8.0, 0.9, 0.27)
    known = KnownLesion(lesion, None, shape_outline((10.0, 0.0, 0.0), 8.0), None)
    for scale, offset in ((1.0, 10.0), (1.25, 10.0), (0.8, 2.0)):  # y(x) = scale x + offset
        mapping = Linear(np.diag([scale] * 3 + [1.0]) + np.array([[0, 0, 0, offset], *[[0.0] * 4] * 3]))
        assert preimage(mapping, np.array([10.0, 0, 0])) == pytest.approx([(10 - offset) / scale, 0, 0], abs=0.05)
        assert kept_volume(known, mapping) == pytest.approx(scale**-3, rel=0.02)


def test_folding_is_counted_in_slabs_as_in_the_whole() -> None:
    grid = Grid((40, 4, 6), (2.0, 2.0, 2.0))
    u = np.zeros((*grid.shape, 3), np.float32)
    z = np.arange(40) * 2.0
    u[20:, ..., 2] = -2.0 * (z[20:] - z[20])[:, None, None]  # turned round above the middle
    score = score_field(Dense(DisplacementField(u, grid)), KnownCase((), lesions_known=True), None, None)
    det = DisplacementField(u, grid).jacobian_determinant()
    assert score.folding_percent == pytest.approx(100 * (det <= 0).mean())
    assert score.folding_percent == pytest.approx(50, abs=3)
    assert score.sd_log_jacobian == pytest.approx(np.log(det[det > 0]).std(), abs=1e-6)


# -- statistics ------------------------------------------------------------------------------
def test_cases_of_one_patient_are_drawn_together() -> None:
    weights = bootstrap_weights(["A", "A", "B", "C"])
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, [0, 2, 3]].sum(axis=1) == 3).all()
    # of three patients with 0, 0 and 1 the mean is 0 in 8 of 27 draws and 1 in 1 of 27: the 2.5th to 97.5th percentile
    assert with_interval(mean_of_cases([0.0, 0.0, 1.0]), ["A", "B", "C"]) == Figure(pytest.approx(1 / 3), 0.0, 1.0)
    assert with_interval(mean_of_cases([0.0, None, 1.0]), ["A", "B", "B"]) == Figure(0.5)  # two patients: no interval


def test_exchange_within_patients_and_holm(scores: cmj.Evaluation) -> None:
    # a better by 1, 2 and 3 in three patients: of 8 exchanges, all or none are as extreme
    a, b = [1.0, 2.0, 3.0], [0.0, 0.0, 0.0]
    statistics = mean_of_cases(a), mean_of_cases(b)
    found = compare_pair("x", ("a", "b"), statistics, mean_of_cases([*a, *b]), ["A", "B", "C"])
    assert (found.difference.value, found.p) == (pytest.approx(2.0), 2 / 8)
    family = [Comparison("x", "a", "b", Figure(0.0), p, None, 5) for p in (0.01, 0.04, 0.03)]
    assert [c.p_holm for c in corrected_by_holm(family)] == pytest.approx([0.03, 0.06, 0.06])
    # a map that shows nothing finds nothing: 2/3 less. Exchanging C changes nothing, A and B must both be exchanged
    # or neither: 4 of 8
    recall = next(c for c in scores.document["comparisons"] if c["figure"] == "recall_at_0.68")
    assert (recall["first"], recall["difference"]["value"]) == ("ours", pytest.approx(2 / 3, abs=1e-6))
    assert recall["p"] == recall["p_holm"] == 0.5


# -- grids, reading, bad input --------------------------------------------------------------
def test_a_map_on_a_finer_grid_is_scored_on_its_own_voxels(cohort: Path, tmp_path: Path) -> None:
    fine = GRID.with_spacing((0.5, 0.5, 0.5))
    coarse_map = np.zeros(GRID.shape, np.float32)
    coarse_map[bar(24, 27)] = 0.9
    write_nrrd(tmp_path / "fine.nrrd", np.kron(coarse_map, np.ones((2, 2, 2), np.float32)), fine)
    table = tmp_path / "cases.csv"
    where = cohort.parent
    table.write_text(
        "case,lesions_reference,lesions_template,method,map\n"
        f"a,{where / 'a_now.nrrd'},{where / 'a_before.nrrd'},fine,fine.nrrd\n"
    )
    (case,) = cmj.evaluate(table).cases
    score = case.maps["fine"]
    assert case.changes[1].volume_reference_ml == pytest.approx(0.032)
    row = int(np.searchsorted(ALL_THRESHOLDS, 0.68))
    assert score.hit[:, row, 1].all()  # a2 by every rule: IoU 1 with what it gained, 1/2 with the union
    assert not score.hit[:, row, 0].any()
    assert (score.regions[row], score.false[:, row].tolist()) == (1, [0, 0, 0, 0])
    assert score.voxel_mm == (0.5, 0.5, 0.5)


def test_every_volume_is_read_once(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    for module in (known_module, outcome_module):
        original = module.read_array
        monkeypatch.setattr(module, "read_array", lambda path, of=original: (read.append(path.name), of(path))[1])
    cmj.evaluate(cohort)
    assert sorted(name for name in read if name != "zero.nrrd") == sorted(
        ["a_now.nrrd", "a_before.nrrd", "a_map.nrrd", "b_now.nrrd", "b_before.nrrd", "b_map.nrrd", "c_map.nrrd"]
    )
    assert read.count("zero.nrrd") == 3  # one row each


def write_map(folder: Path, value: float = 0.0, origin_mm: tuple[float, float, float] = (0, 0, 0)) -> None:
    write_nrrd(folder / "a_map.nrrd", np.full(GRID.shape, value, np.float32), Grid(GRID.shape, (1, 1, 1), origin_mm))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: write_map(f, value=300.0), "values from 300 to 300"),
        (
            lambda f: write_map(f, origin_mm=(9, 0, 0)),
            r"a_map\.nrrd: lesion 1 at \(4, 2, 2\) mm lies outside its grid, expected .* LPS",
        ),
        (lambda f: write_labels(f / "a_now.nrrd", (1, 2, 5), (1, 20, 27)), "one label in 2 separate parts"),
        (lambda f: write_nrrd(f / "a_now.nrrd", np.full(GRID.shape, 0.5, np.float32), GRID), "expected a label map"),
        (lambda f: (f / "a_map.nrrd").write_bytes(b"NRRD0004\n"), r"a_map\.nrrd: "),
        (lambda f: (f / "a_list.csv").write_text("id,kind\n"), "found no column centre_x_mm"),
        (lambda f: (f / "points.csv").write_text("rx,ry,rz,tx,ty,tz\n1,2,3,4,5,none\n"), "line 2: tz: found 'none'"),
    ],
)
def test_a_case_that_cannot_be_scored_is_one_clear_line(tmp_path: Path, spoil, message: str) -> None:
    table = write_cohort(tmp_path)
    spoil(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        cmj.evaluate(table)
    assert "\n" not in str(caught.value)


def test_a_resolved_lesion_without_a_place_is_left_out_and_said_so(tmp_path: Path) -> None:
    table = write_cohort(tmp_path)
    table.write_text(table.read_text("utf-8").replace("points.csv", ""))
    scores = cmj.evaluate(table)
    assert scores.document["about"]["changes"] == 2
    assert any("b: Lesions 1: it is not known where they lay" in note for note in scores.document["notes"])


def test_names_of_methods_do_no_harm_and_what_is_not_scored_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(style, "DPI", 20)
    table = write_cohort(tmp_path)
    table.write_text(
        "case,lesions_reference,lesions_template,landmarks,method,map,deformation\n"
        'a,a_now.nrrd,a_before.nrrd,,"=<script>$^_ 50 %",a_map.nrrd,stays.txt\n'
        "d,,,points.csv,theirs,zero.nrrd,stays.txt\n"
    )
    out = tmp_path / "out"
    scores = cmj.evaluate(table, out)
    assert "d: It is not known what changed, so that neither maps nor lists are scored." in scores.document["notes"]
    assert "<script>" not in (out / "evaluation.html").read_text("utf-8")
    assert "\n'=<script>" in (out / "tables" / "figures.csv").read_text("utf-8")
    assert r"=\textless{}script\textgreater{}\$\textasciicircum{}\_ 50 \%" in (out / "tables" / "maps.tex").read_text(
        "utf-8"
    )
    assert "theirs" not in scores.document["maps"]


def test_without_the_extra_one_line_names_it(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "pandas" else find_spec(name))
    with pytest.raises(InputError, match=r"package pandas is missing; install it with: .*changemapjoint\[evaluate\]"):
        cmj.evaluate(cohort)
    extra = re.compile(r"^(?:import|from) (?:pandas|matplotlib|statsmodels)\b", re.MULTILINE)
    for file in Path(evaluate_module.__file__).parent.rglob("*.py"):  # Slicer and a plain import do without
        assert not extra.search(file.read_text("utf-8")), file.name


# -- the command and its folder --------------------------------------------------------------
def test_the_command_writes_page_tables_figures_and_json(
    cohort: Path, scores: cmj.Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(style, "DPI", 40)  # a tenth of the time
    (tmp_path / ".out.999999999.partial" / "tables").mkdir(parents=True)  # of a command that was killed
    out = tmp_path / "out"
    ended = CliRunner().invoke(app, ["evaluate", str(cohort), "--out", str(out), "--progress", "none"])
    assert ended.exit_code == 0, ended.output
    assert "ours: recall 0.667" in ended.output
    assert json.loads((out / "evaluation.json").read_text("utf-8")) == scores.document
    page = (out / "evaluation.html").read_text("utf-8")
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("data:image/png;base64,") == len(list((out / "figures").glob("*.png"))) >= 5
    assert {p.stem for p in (out / "figures").glob("*.svg")} == {p.stem for p in (out / "figures").glob("*.png")}
    with (out / "tables" / "lesions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(r["case"], r["kind"], r["ours: found at 0.68"]) for r in rows] == [
        ("a", "new", "True"),
        ("a", "grown", "False"),
        ("b", "resolved", "True"),
    ]
    assert r"\begin{tabular}" in (out / "tables" / "maps.tex").read_text("utf-8")
    assert not list(tmp_path.glob(".out*"))
    again = CliRunner().invoke(app, ["evaluate", str(cohort), "--out", str(out), "--progress", "none"])
    assert again.exit_code == 2
    assert "exists already" in again.stderr
    assert "--overwrite" in again.stderr


def test_a_folder_of_others_is_never_replaced(cohort: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(InputError, match="exists already; give a new folder"):
        cmj.evaluate(cohort, tmp_path, overwrite=True)
    (tmp_path / "evaluation.json").touch()
    with pytest.raises(InputError, match="holds other files, too"):
        cmj.evaluate(cohort, tmp_path, overwrite=True)
    assert (tmp_path / "mine.txt").exists()
