"""Findings and quality as CSV and JSON: columns, values, and what a spreadsheet must not run."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from export_samples import finding, findings, grown, quality

from ChangeMapJointLib.change.findings import Findings
from ChangeMapJointLib.change.judged import other_changes
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.export.tables import write_findings_csv, write_findings_json, write_quality_json
from ChangeMapJointLib.gate.answer import GateAnswer, GateReason

HEADER = (
    "id,kind,lung,centre_x_mm,centre_y_mm,centre_z_mm,"
    "centre_template_x_mm,centre_template_y_mm,centre_template_z_mm,peak_x_mm,peak_y_mm,peak_z_mm,"
    "voxels,volume_ml,peak,peak_hu,long_diameter_mm,perpendicular_diameter_mm,elongation,"
    "reference_volume_ml,reference_long_diameter_mm,reference_perpendicular_diameter_mm,"
    "reference_mean_hu,reference_peak_hu,"
    "template_volume_ml,template_long_diameter_mm,template_perpendicular_diameter_mm,"
    "template_mean_hu,template_peak_hu,"
    "volume_change_percent,volume_change_low_percent,volume_change_high_percent,"
    "diameter_change_mm,trust,partner,remark,section,probability,reason,reason_text,"
    "third,interval_days,doubling_time_days,doubling_time_low_days,doubling_time_high_days,"
    "reference_volume_low_ml,reference_volume_high_ml,"
    "reference_mean_diameter_mm,reference_mean_diameter_low_mm,reference_mean_diameter_high_mm,"
    "reference_mass_mg,reference_texture,reference_extent,reference_calcified,reference_juxtapleural,"
    "template_volume_low_ml,template_volume_high_ml,"
    "template_mean_diameter_mm,template_mean_diameter_low_mm,template_mean_diameter_high_mm,"
    "template_mass_mg,template_texture,template_extent,template_calcified,template_juxtapleural"
)


def rows_of(path):
    return list(csv.DictReader(io.StringIO(path.read_text("utf-8"))))


def test_the_columns_are_these_in_this_order_even_without_findings(tmp_path):
    write_findings_csv(tmp_path / "findings.csv", findings())
    assert (tmp_path / "findings.csv").read_bytes() == HEADER.encode() + b"\n"


def test_csv_gives_back_what_went_in(tmp_path):
    write_findings_csv(tmp_path / "findings.csv", findings(finding(), grown()))
    new, larger = rows_of(tmp_path / "findings.csv")
    assert [float(new[f"centre_{axis}_mm"]) for axis in "xyz"] == [-30.0, 12.0, 20.0]
    assert [float(new[f"centre_template_{axis}_mm"]) for axis in "xyz"] == [-20.0, 6.0, 28.0]
    assert [float(new[f"peak_{axis}_mm"]) for axis in "xyz"] == [-19.0, 7.0, 29.0]
    assert (new["id"], new["kind"], new["lung"], new["voxels"]) == ("1", "new", "right", "123")
    assert [float(new[name]) for name in ("volume_ml", "peak", "peak_hu", "trust")] == [3.321, 0.8476, 889.6, 0.93]
    assert (new["reference_volume_ml"], new["reference_mean_hu"]) == ("3.05", "-12.0")
    assert float(larger["template_long_diameter_mm"]) == 11.7
    change = [larger[f"volume_change_{name}percent"] for name in ("", "low_", "high_")]
    assert change == ["150.6", "81.2", "257.9"]
    assert new["remark"] == "A nodule that the prior scan does not show."


def test_what_is_not_known_is_an_empty_cell(tmp_path):
    unknown = finding(trust=None, peak_hu=float("nan"), elongation=float("inf"))
    write_findings_csv(tmp_path / "findings.csv", findings(unknown))
    (row,) = rows_of(tmp_path / "findings.csv")
    empty = {name for name, value in row.items() if value == ""}
    assert empty == {
        "peak_hu",
        "elongation",
        *(name for name in row if name.startswith("template_")),
        *(name for name in row if name.startswith("volume_change_")),
        "diameter_change_mm",
        "trust",
        "partner",
        "probability",
        "reason",
        "reason_text",
        "third",
        "interval_days",
        *(name for name in row if name.startswith("doubling_time_")),
        "reference_texture",
    }


def test_a_judged_change_says_how_probable_it_is_and_what_explains_it(tmp_path):
    rim = replace(grown(), id=2, section="explained", probability=0.04, reason="wall")
    judged = replace(findings(replace(finding(), probability=0.97)), others=(rim,), operating_point="standard")
    write_findings_csv(tmp_path / "findings.csv", judged)
    (row,) = rows_of(tmp_path / "findings.csv")  # what is explained is no finding
    assert (row["section"], row["probability"], row["reason"]) == ("finding", "0.97", "")
    write_findings_json(tmp_path / "findings.json", judged)
    document = json.loads((tmp_path / "findings.json").read_text("utf-8"))
    assert document["operating_point"] == "standard"
    assert [item["probability"] for item in document["findings"]] == [0.97]
    write_findings_json(tmp_path / "candidates.json", other_changes(judged, 0.5))
    document = json.loads((tmp_path / "candidates.json").read_text("utf-8"))
    (item,) = document["findings"]
    assert (item["id"], item["section"], item["probability"], item["reason"]) == (2, "explained", 0.04, "wall")
    assert item["reason_text"].startswith("It lies along the surface of the lung")
    assert document["threshold"] == 0.5


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1+2", "@SUM(A1)", "\t=1", "\r=1", "  =1"])
def test_a_spreadsheet_does_not_run_a_remark(tmp_path, text):
    write_findings_csv(tmp_path / "findings.csv", findings(finding(remark=text)))
    # as csv alone reads it: quoting does not protect
    with (tmp_path / "findings.csv").open(encoding="utf-8", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["remark"] == "'" + text.replace("\r", "\n")


def test_negative_numbers_stay_numbers(tmp_path):
    write_findings_csv(tmp_path / "findings.csv", findings(finding(peak_hu=-900.0)))
    (row,) = rows_of(tmp_path / "findings.csv")
    assert float(row["peak_hu"]) == -900.0
    assert float(row["centre_x_mm"]) == -30.0


def test_commas_quotes_line_breaks_and_umlauts_stay_in_their_cell(tmp_path):
    remark = 'größer, "rund"\nund scharf'
    write_findings_csv(tmp_path / "findings.csv", findings(finding(remark=remark), grown()))
    first, second = rows_of(tmp_path / "findings.csv")
    assert first["remark"] == remark
    assert second["id"] == "2"
    assert not (tmp_path / "findings.csv").read_bytes().startswith(b"\xef\xbb\xbf")


def test_json_says_the_same_nested(tmp_path):
    write_findings_json(tmp_path / "findings.json", findings(finding(), grown()))
    document = json.loads((tmp_path / "findings.json").read_text("utf-8"))
    assert (document["schema"], document["schema_version"]) == ("changemap.findings", 1)
    assert document["coordinates"] == "LPS, mm"
    new, larger = document["findings"]
    assert new["centre_mm"] == [-30.0, 12.0, 20.0]
    assert new["lesion_template"] is None
    assert new["volume_change_interval_percent"] is None
    assert new["lesion_reference"]["long_diameter_mm"] == 17.25
    assert larger["volume_change_interval_percent"] == [81.2, 257.9]
    assert larger["lesion_template"]["volume_ml"] == 0.72
    assert (larger["trust"], larger["partner"]) == (0.41, None)


def test_json_has_null_for_nan_and_no_python_spelling(tmp_path):
    strange = finding(trust=float("nan"), peak_hu=float("-inf"), volume_ml=np.float32(0.1), voxels=np.int64(7))
    write_findings_json(tmp_path / "findings.json", Findings((strange,), np.zeros((1, 1, 1), np.int32), dropped=4))
    text = (tmp_path / "findings.json").read_text("utf-8")
    document = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    (item,) = document["findings"]
    assert (item["trust"], item["peak_hu"], item["volume_ml"], item["voxels"]) == (None, None, 0.1, 7)
    assert document["dropped"] == 4


def test_quality_is_written_with_verdict_and_reasons(tmp_path):
    write_quality_json(tmp_path / "quality.json", quality("look closely", ("Größe: 3 % fold.",)))
    document = json.loads((tmp_path / "quality.json").read_text("utf-8"))
    assert (document["schema"], document["schema_version"]) == ("changemap.quality", 1)
    figures = document["quality"]
    assert figures["verdict"] == "look closely"
    assert figures["reasons"] == ["Größe: 3 % fold."]
    assert (figures["lung_dice"], figures["keypoint_error_mm"], figures["keypoints_dropped"]) == (0.9921, 0.83, 212)


@pytest.mark.parametrize(
    ("write", "value"),
    [(write_findings_csv, findings(finding())), (write_findings_json, findings()), (write_quality_json, quality())],
)
def test_a_folder_that_cannot_be_written_is_one_clear_line_and_nothing_is_left(tmp_path, write, value):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match=r"table\.x") as caught:
        write(tmp_path / "file" / "table.x", value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_older_table_stays_when_the_new_one_cannot_be_finished(tmp_path, monkeypatch):
    path = tmp_path / "findings.csv"
    path.write_text("older")
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(InputError, match="No space left"):
        write_findings_csv(path, findings(finding()))
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


def test_withheld_findings_are_counted_and_not_listed(tmp_path):
    held = findings(finding(), grown()).withhold(("The deformation folds.",))
    assert held.labels.max() == 0
    write_findings_csv(tmp_path / "findings.csv", held)
    write_findings_json(tmp_path / "findings.json", held)
    assert rows_of(tmp_path / "findings.csv") == []
    found = json.loads((tmp_path / "findings.json").read_text("utf-8"))
    assert (found["findings"], found["withheld"], found["why"]) == ([], 2, ["The deformation folds."])
    write_findings_json(tmp_path / "findings.json", findings(finding()))
    assert "withheld" not in json.loads((tmp_path / "findings.json").read_text("utf-8"))


def test_quality_carries_what_the_gate_says(tmp_path):
    doubt = GateReason("breathing", "look", "The lungs differ.", "Look.", 1.7)
    write_quality_json(tmp_path / "quality.json", quality(), GateAnswer.of([doubt]))
    found = json.loads((tmp_path / "quality.json").read_text("utf-8"))["gate"]
    assert found["answer"] == "look"
    assert found["reasons"][0]["rule"] == "breathing"
    assert found["reasons"][0]["value"] == 1.7
