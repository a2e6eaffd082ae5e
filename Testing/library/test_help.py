"""The help of every command shows its defaults: Rich takes ``[...]`` in a text for its own markup and drops it."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from ChangeMapJointLib.cli.main import app
from ChangeMapJointLib.comparison.config import RunConfig, config_from

WIDE = {"COLUMNS": "250", "NO_COLOR": "1", "TERM": "dumb"}


def shown_defaults(command: str) -> dict[str, str | None]:
    """The default that the help shows for each option that may be left out; None where it shows none."""
    result = CliRunner().invoke(app, [command, "--help"], env=WIDE)
    assert result.exit_code == 0, result.output
    lines = [line.strip("│ ") for line in result.output.splitlines()]
    options = [re.match(r"--([a-z-]+)", line) for line in lines]
    defaults = [re.search(r"\[default: \(?(.*?)\)?\]$", line) for line in lines]
    return {
        option[1]: default[1] if default else None
        for option, default in zip(options, defaults, strict=True)
        if option is not None
    }


def test_run_shows_the_defaults_that_it_uses():
    shown = shown_defaults("run")
    assert shown["method"] == RunConfig().method
    assert shown["device"] == "auto"
    assert shown["progress"] == "bar"
    sequential, joint = (config_from({}, method=one).findings.threshold for one in ("sequential", "joint"))
    assert shown["threshold"] == f"{sequential:g}; joint: {joint:g}"
    assert shown["config"] is None
    assert shown["overwrite"] is None


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("demo", {"out": "demo-output", "device": "auto", "progress": "bar"}),
        ("synthesize", {"pairs": "10", "seed": "0", "progress": "bar"}),
        ("train", {"config": "default", "cache": "OUT/samples", "device": "auto", "progress": "bar"}),
    ],
)
def test_the_other_commands_show_theirs(command, expected):
    shown = shown_defaults(command)
    assert {option: value for option, value in shown.items() if value is not None} == expected


@pytest.mark.parametrize("command", ["run", "demo", "synthesize", "train"])
def test_no_text_has_brackets_that_rich_would_drop(command):
    import typer

    options = typer.main.get_command(app).commands[command].params
    assert options
    assert not [one.name for one in options if "[" in (getattr(one, "help", None) or "")]
