"""Options to JSON and back; every wrong value is named with its place."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pytest

from ChangeMapJointLib.comparison.config import RunConfig, config_from, read_config
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.options import from_mapping, to_mapping


@dataclass(frozen=True)
class Inner:
    size_mm: float = 1.0
    steps: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Outer:
    name: Literal["a", "b"] = "a"
    window: tuple[float, float] = (0.0, 1.0)
    limit: int | None = None
    sharp: bool = False
    inner: Inner = field(default_factory=Inner)


def test_each_method_has_its_own_threshold_unless_one_is_given() -> None:
    assert config_from({}).findings.threshold == 0.68
    assert config_from({"method": "joint"}).findings.threshold == 0.3
    assert config_from({}, method="joint").findings.threshold == 0.3
    assert config_from({"method": "joint", "findings": {"threshold": 0.5}}).findings.threshold == 0.5
    assert config_from({"method": "joint", "findings": {"min_voxels": 9}}).findings.threshold == 0.3
    assert read_config(None, method="rigid").method == "rigid"


def test_round_trip_through_json() -> None:
    options = Outer("b", (-1.5, 3.0), 7, sharp=True, inner=Inner(2.5, (3, 2, 1)))
    assert from_mapping(Outer, json.loads(json.dumps(to_mapping(options)))) == options


def test_what_is_not_named_keeps_its_default() -> None:
    assert from_mapping(Outer, {"inner": {"size_mm": 2}}) == Outer(inner=Inner(2.0))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"title": "a"}, ["title", "name, window"]),
        ({"name": "c"}, ["x.name", "'c'", "'a' or 'b'"]),
        ({"inner": {"size_mm": "2"}}, ["x.inner.size_mm", "a number"]),
        ({"inner": {"size_mm": True}}, ["x.inner.size_mm", "a number"]),
        ({"inner": {"steps": [1, 2.5]}}, ["x.inner.steps[1]", "a whole number"]),
        ({"window": [1.0]}, ["x.window", "2 values"]),
        ({"inner": 3}, ["x.inner", "an object"]),
        ({"sharp": 1}, ["x.sharp", "true or false"]),
        ({"limit": "none"}, ["x.limit", "a whole number"]),
        ({"inner": {"size_mm": float("nan")}}, ["x.inner.size_mm", "a number"]),
        ({"inner": {"size_mm": 10**400}}, ["x.inner.size_mm", "a number"]),
    ],
)
def test_wrong_values_are_named(values, words) -> None:
    with pytest.raises(InputError) as caught:
        from_mapping(Outer, values, "x")
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("registration", "iterations", []),
        ("registration", "iterations", [0]),
        ("registration", "working_mm", 0),
        ("registration", "working_mm", 1e9),
        ("registration", "control_mm", 0),
        ("registration", "window_hu", [400, -1000]),
        ("registration", "edge_factor", 0),
        ("registration", "margin_mm", -1e6),
        ("registration", "weights", {"curvature": -1}),
        ("trust", "jacobian_range", [4, 0.25]),
        ("trust", "half_error_mm", 0),
        ("trust", "smooth_mm", -1),
        ("findings", "threshold", 0),
        ("lungs", "spacing_mm", 0),
        ("lungs", "closing_mm", -1),
        ("rigid", "starts", 0),
        ("rigid", "margin_mm", 1e9),
    ],
)
def test_options_that_cannot_work_are_refused(section, name, value) -> None:
    with pytest.raises(InputError) as caught:
        from_mapping(RunConfig, {section: {name: value}}, "x")
    assert (next(iter(value)) if isinstance(value, dict) else name) in str(caught.value)


def test_the_default_configuration_survives_json() -> None:
    assert from_mapping(RunConfig, json.loads(json.dumps(to_mapping(RunConfig())))) == RunConfig()


def test_a_value_out_of_range_names_its_place_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "options.json"
    path.write_text('{"lungs": {"closing_mm": -1}}')
    with pytest.raises(InputError) as caught:
        read_config(path)
    text = str(caught.value)
    assert text == f"config='{path}': lungs.closing_mm: found -1.0, expected 0 to 60"
    assert caught.value.field == "config.lungs.closing_mm"
    assert "\n" not in text


def test_what_a_file_does_not_name_keeps_the_value_of_its_section(tmp_path: Path) -> None:
    found = from_mapping(RunConfig, {"backward": {"control_mm": 9.0}})
    assert found.backward == replace(RunConfig().backward, control_mm=9.0)  # not of the forward registration


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "options.json"
    path.write_text('{"registration": {"control_mm": 9.0}}')
    usual = RunConfig()
    assert read_config(path) == replace(usual, registration=replace(usual.registration, control_mm=9.0))
    assert read_config(None) == usual
    assert config_from(to_mapping(read_config(path))) == read_config(path)  # as run.json keeps it
    with pytest.raises(InputError, match="unknown option 'effort'"):
        config_from({"effort": "best"})
