"""Packages of the extras: whatever is missing, one line names it and says how to install it."""

from __future__ import annotations

import re
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ChangeMapJointLib.cli.main import app
from ChangeMapJointLib.core import extras
from ChangeMapJointLib.core.errors import InputError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def _nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_spec(name: str) -> ModuleSpec | None:
        return None

    monkeypatch.setattr(extras, "find_spec", find_spec)


def test_what_is_there_is_no_error_and_what_is_not_is_named() -> None:
    extras.require_packages("train", "numpy")
    with pytest.raises(InputError) as raised:
        extras.require_packages("view", "numpy", "no_such_package")
    text = 'the Python package no-such-package is missing; install it with: pip install "changemapjoint[view]"'
    assert str(raised.value) == text


@pytest.mark.usefixtures("_nothing_installed")
@pytest.mark.parametrize(
    "command",
    [
        "train --pairs . --out trained",
        "readers . --out readers",
        "evaluate cases.csv --out evaluation",
    ],
)
def test_a_command_without_its_extra_says_so(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cases.csv").write_text("case,run\n", "utf-8")
    result = CliRunner().invoke(app, [*command.split(), "--progress", "none"])
    assert result.exit_code == 2
    said = re.search(
        r'changemap: the Python package \S+ is missing; install it with: pip install "(\S+)"', result.output
    )
    assert said is not None, result.output
    assert [path.name for path in tmp_path.iterdir()] == ["cases.csv"]


def test_every_extra_that_is_named_exists() -> None:
    declared = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE))
    texts = [path.read_text("utf-8") for path in (ROOT / "ChangeMapJointLib").rglob("*.py")]
    named = {name for text in texts for name in re.findall(r"changemapjoint\[(\w+)\]", text)}
    assert {"view", "dicom", "cohort"} <= named <= declared
    for text in texts:  # one wording
        assert not re.search(r"(?<!with )(?<!with: )pip install ['\"]changemapjoint\[", text)
