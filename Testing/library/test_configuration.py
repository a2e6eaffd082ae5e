"""Options to JSON and back; every wrong value is named with its place."""

import json
from dataclasses import dataclass, field
from typing import Literal

import pytest

from ChangeMapJointLib.core.configuration import from_mapping, to_mapping
from ChangeMapJointLib.core.errors import InputError


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
        ({"inner": {"steps": [1, 2.5]}}, ["x.inner.steps[1]", "int"]),
        ({"window": [1.0]}, ["x.window", "2 values"]),
        ({"inner": 3}, ["x.inner", "an object"]),
        ({"sharp": 1}, ["x.sharp", "bool"]),
        ({"limit": "none"}, ["x.limit", "int"]),
    ],
)
def test_wrong_values_are_named(values, words) -> None:
    with pytest.raises(InputError) as caught:
        from_mapping(Outer, values, "x")
    for word in words:
        assert word in str(caught.value)
