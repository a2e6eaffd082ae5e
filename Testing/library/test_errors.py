"""Errors: what they are about, their words for each who shows them, and that library code knows no command line."""

from __future__ import annotations

import ast
import copy
import doctest
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from error_samples import SAMPLES, Sample
from typer.main import get_command

import ChangeMapJointLib
from ChangeMapJointLib.change.findings import FindingOptions
from ChangeMapJointLib.cli.console import exit_codes
from ChangeMapJointLib.cli.main import app
from ChangeMapJointLib.cli.wording import COMMAND_LINE, OPTIONS
from ChangeMapJointLib.core import errors
from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.core.options import from_mapping
from ChangeMapJointLib.lungs.check import UnlikelyLungs

LIBRARY = Path(ChangeMapJointLib.__file__).parent
OPTION = re.compile(r"(?:^|[\s`'\"(\[{])--[a-z][a-z-]*")
# programs that these start or are, not the command line ``changemap``
OWN_OPTIONS = {"background/worker.py": {"--owner"}, "io/provenance.py": {"--short", "--porcelain", "--untracked-files"}}


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
def test_each_has_its_own_words(sample: Sample) -> None:
    assert str(sample.error) == sample.python
    assert sample.error.render(COMMAND_LINE) == sample.command_line


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
def test_the_parts_survive_json_pickles_and_copies(sample: Sample) -> None:
    error = sample.error
    others = [InputError.from_json(json.loads(json.dumps(error.to_json()))), pickle.loads(pickle.dumps(error))]
    for other in [*others, copy.copy(error), copy.deepcopy(error)]:
        assert type(other) is InputError
        assert (other.subjects, other.found, other.expected, other.remedy) == (
            error.subjects, error.found, error.expected, error.remedy,
        )  # fmt: skip
        assert (str(other), other.args) == (sample.python, error.args)


@pytest.mark.parametrize("values", [None, "text", [], {}, {"where": 3}, {"where": [{}]}, {"where": [], "remedy": [3]}])
def test_json_that_is_no_error_is_none(values) -> None:
    assert InputError.from_json(values) is None


def test_an_error_of_another_class_stays_what_it_is() -> None:
    labels = np.ones((2, 2, 2), np.uint8)
    error = UnlikelyLungs("not found", np.zeros((2, 2, 2), np.float32), labels, field=Path("a"), remedy=("see ",))
    for other in (error.at(Path("b")), error.with_remedy("it"), pickle.loads(pickle.dumps(error))):
        assert type(other) is UnlikelyLungs
        assert (other.labels == labels).all()
    assert str(error.at(Path("b")).with_remedy("it")) == "b: a: not found; see it"
    assert str(error) == "a: not found; see "


def test_the_place_of_a_fault_is_named_once() -> None:
    error = InputError("truncated", field=Path("b.raw"))
    outer = error.at(Path("a.nhdr"))
    assert str(outer) == "a.nhdr: b.raw: truncated"
    assert outer.at(Path("a.nhdr")) is not outer
    assert str(outer.at(Path("a.nhdr"))) == str(outer)
    assert (outer.field, InputError("text").field) == ("b.raw", "")
    renamed = outer.with_subjects({Path("a.nhdr"): Argument("reference", "Thorax")})
    assert renamed.subjects == (Argument("reference", "Thorax"), Path("b.raw"))


def test_what_a_file_is_called_cannot_break_the_line() -> None:
    error = InputError("found 'a\n  b\x1b[2J'", field=Path("x\ny\u2028.nrrd"), remedy="try\tagain\r\n")
    for text in (str(error), error.render(COMMAND_LINE)):
        assert text.isprintable()
        assert text == "x y .nrrd: found 'a b?[2J'; try again"


def test_an_option_out_of_range_is_found_where_it_was_given() -> None:
    with pytest.raises(InputError) as caught:
        FindingOptions(threshold=2.0)
    assert caught.value.subjects == (Argument("FindingOptions.threshold"),)
    with pytest.raises(InputError) as caught:
        from_mapping(FindingOptions, {"threshold": 2}, (Path("card.json"), "findings"))
    assert caught.value.subjects == (Path("card.json"), Argument("findings.threshold"))
    assert str(caught.value) == "card.json: findings.threshold: found 2.0, expected in (0, 1]"


def test_the_example_runs() -> None:
    assert doctest.testmod(errors) == (0, 3)


def test_every_option_in_the_table_exists() -> None:
    commands = get_command(app).commands.values()
    known = {name for command in commands for parameter in command.params for name in parameter.opts}
    assert set(OPTIONS.values()) <= known


def test_the_library_knows_no_command_line() -> None:
    """No text outside of ``cli`` names one of its options, neither a message nor a docstring."""
    seen = []
    for path in sorted(LIBRARY.rglob("*.py")):
        name = path.relative_to(LIBRARY).as_posix()
        if name.startswith("cli/"):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                options = {match.group().strip(" \n`'\"([{") for match in OPTION.finditer(node.value)}
                seen += [f"{name}:{node.lineno}: {one}" for one in sorted(options - OWN_OPTIONS.get(name, set()))]
    assert seen == []


@pytest.mark.parametrize("style", ["json", "none"])
def test_the_command_line_ends_with_one_line_and_its_events_carry_the_parts(style, capsys) -> None:
    error = SAMPLES["a choice, and another to take"].error
    with pytest.raises(SystemExit) as end, exit_codes(style):
        raise error
    shown, line = capsys.readouterr(), SAMPLES["a choice, and another to take"].command_line
    assert (end.value.code, shown.err) == (2, f"changemap: {line}\n")
    event = {"event": "error", "message": line, "exit_code": 2, "error": error.to_json()}
    assert (json.loads(shown.out) if style == "json" else shown.out) == (event if style == "json" else "")


def test_no_message_repeats_the_number_and_the_path_of_a_system_error() -> None:
    """``[Errno 2] No such file or directory: 'a.csv'`` after ``a.csv:``; ``reason_of`` leaves both out."""
    seen = []
    for path in sorted(LIBRARY.rglob("*.py")):
        source = path.read_text("utf-8")
        if "OSError" not in source:
            continue
        for handler in ast.walk(ast.parse(source)):
            if not isinstance(handler, ast.ExceptHandler) or handler.type is None or handler.name is None:
                continue
            if "OSError" not in ast.unparse(handler.type):
                continue
            for call in ast.walk(handler):
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "InputError":
                    raw = [value for value in ast.walk(call) if isinstance(value, ast.FormattedValue)]
                    if handler.name in {ast.unparse(value.value) for value in raw}:
                        seen.append(f"{path.relative_to(LIBRARY).as_posix()}:{call.lineno}")
    assert seen == []
