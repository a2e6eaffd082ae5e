"""The judge: its coefficients, what may be listed, and what explains a change."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from ChangeMapJointLib.change import judge
from ChangeMapJointLib.change.features import Features
from ChangeMapJointLib.change.judge import TERMS, JudgeModel, explain, judge_change, read_judge, terms
from ChangeMapJointLib.change.sections import OPERATING_POINT_HINTS, OPERATING_POINTS, REASONS
from ChangeMapJointLib.core.errors import InputError

CASES = json.loads((Path(__file__).parent / "judged_cases.json").read_text("utf-8"))
NOTHING = Features(**{field.name: 0.0 for field in fields(Features)})
NEW = replace(
    NOTHING, appeared=1.0, contrast=0.85, fullness=0.8, covered=1.0, filled=1.0, depth=1.5, prominence=2.5,
    significance=4.0, response=1.0, peak=0.8, size=0.3, distrust=0.05,
)  # fmt: skip


def test_the_terms_are_features_and_products_of_two() -> None:
    values = dict(zip(TERMS, terms(replace(NEW, rim=0.5, gap=2.0)), strict=True))
    assert values["contrast"] == 0.85
    assert values["rim*gap"] == 1.0
    assert values["appeared*rim"] == 0.5
    assert len(set(TERMS)) == len(TERMS)


def test_the_coefficients_that_ship_fit_and_have_a_card() -> None:
    model = read_judge()
    assert len(model.coefficients) == len(TERMS)
    points = [model.operating_points[name] for name in OPERATING_POINTS]
    assert 0 < points[0] < points[1] < points[2] < 1
    card = json.loads((Path(judge.resource("Models")) / "judge.json").read_text("utf-8"))
    assert card["fitted_on"]
    assert not any(name.startswith("LUNG1") for name in card["fitted_on"])


@pytest.mark.parametrize("name", ["rim", "gap", "distrust", "restless", "opposite", "attached", "region_length"])
def test_what_speaks_against_a_lesion_never_makes_it_more_probable(name: str) -> None:
    model = read_judge()
    values = [model.probability(replace(NEW, **{name: value})) for value in (0.0, 0.5, 1.0)]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_cases_that_were_seen_stay_as_they_are(case: dict[str, Any]) -> None:
    judgement = judge_change(Features(**case["features"]), "standard")
    assert (judgement.section == "finding") == (case["section"] == "finding")


def test_the_operating_point_decides_and_an_unchanged_lesion_is_never_listed() -> None:
    points = dict(zip(OPERATING_POINTS, (0.2, 0.5, 0.9), strict=True))
    model = JudgeModel(1.0, (0.0,) * len(TERMS), points)  # always 0.73
    assert [judge_change(NEW, name, model).section for name in OPERATING_POINTS] == ["finding", "finding", "possible"]
    same = replace(NEW, appeared=0.0, unproven=1.0, growth=0.1)
    assert judge_change(same, "sensitive", model).section == "stable"
    assert judge_change(replace(same, growth=0.0), "standard", model).section == "finding"  # measured in one scan only


def test_where_a_reason_holds_against_it_a_finding_must_be_nearly_certain() -> None:
    points = dict(zip(OPERATING_POINTS, (0.2, 0.5, 0.9), strict=True))
    restless = replace(NEW, restless=0.9)
    fair, certain = (JudgeModel(constant, (0.0,) * len(TERMS), points) for constant in (1.0, 4.0))  # 0.73 and 0.98
    assert judge_change(restless, "standard", fair).section == "explained"
    assert judge_change(restless, "standard", certain).section == "finding"
    assert judge_change(restless, "sensitive", fair).section == "finding"


def test_a_fairly_probable_change_is_explained_only_by_what_holds_against_it() -> None:
    points = dict(zip(OPERATING_POINTS, (0.2, 0.8, 0.9), strict=True))
    model = JudgeModel(1.0, (0.0,) * len(TERMS), points)
    assert judge_change(replace(NEW, attached=0.4), "standard", model).section == "possible"
    rim = judge_change(replace(NEW, rim=0.8, along_surface=0.5), "standard", model)
    assert (rim.section, rim.reason) == ("explained", "wall")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"displaced": 1.0}, "displaced"),
        ({"opposite": 1.2}, "displaced"),
        ({"rim": 0.9, "beyond": 0.5}, "wall"),
        ({"region_length": 1.4}, "vessel"),
        ({"distrust": 0.8}, "registration"),
        ({"gap": 2.0}, "registration"),
        ({"coarseness": 1.0, "contrast": 0.15}, "diffuse"),
        ({"nameless": 1.0, "appeared": 0.0, "significance": 1.8}, "acquisition"),
        ({}, None),
    ],
)
def test_reasons(changes: dict[str, float], reason: str | None) -> None:
    assert explain(replace(NEW, **changes)) == reason
    assert reason is None or reason in REASONS


@pytest.mark.parametrize("text", ["{}", "[", '{"constant": 0, "coefficients": {}, "operating_points": {}}'])
def test_damaged_coefficients_are_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "judge.json").write_text(text, "utf-8")
    monkeypatch.setattr(judge, "resource", lambda *parts: tmp_path / parts[-1])
    read_judge.cache_clear()
    with pytest.raises(InputError, match=r"judge\.json.*install the program again"):
        read_judge()
    read_judge.cache_clear()


def test_a_change_of_one_or_two_voxels_is_never_a_finding() -> None:
    """A chest of 5 mm voxels, moved by less than a voxel, has dozens of such places at its walls."""
    for point in OPERATING_POINTS:
        certain = JudgeModel(30.0, (0.0,) * len(TERMS), read_judge().operating_points)
        assert judge_change(NEW, point, certain).section == "finding"
        assert judge_change(NEW, point, certain, measurable=False).section != "finding"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_feature_that_is_no_number_gives_no_probability(value: float) -> None:
    broken = replace(NEW, gap=value)
    with pytest.raises(ValueError, match="finite features, got gap"):
        read_judge().probability(broken)
    judgement = judge_change(broken, "sensitive")
    assert judgement.section == "possible"
    assert judgement.probability < min(read_judge().operating_points.values())


def test_the_lists_name_the_false_findings_that_were_measured() -> None:
    results = Path(__file__).parents[1] / "benchmarks" / "results" / "findings.json"
    measured = json.loads(results.read_text("utf-8"))["synthetic pairs of patients left out"]
    for point, words in OPERATING_POINT_HINTS.items():
        assert f"{measured[point]['false_per_scan']:.1f} false" in words
        assert measured[point]["probability"] == read_judge().operating_points[point]
