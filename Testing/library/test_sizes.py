"""No file is longer than 400 lines, no function's body longer than 60."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("ChangeMapJointLib", "ChangeMapJoint", "Testing", "docs", ".github")
MOST_OF_A_FILE, MOST_OF_A_FUNCTION = 400, 60


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Of the body: a docstring says more the longer it is, and a command's options stand in its signature."""
    told = ast.get_docstring(function, clean=False) is not None
    statements = function.body[1:] if told else function.body
    return statements[-1].end_lineno - statements[0].lineno + 1 if statements else 0


def too_long(path: Path) -> Iterator[str]:
    text = path.read_text("utf-8")
    name, lines = path.relative_to(ROOT).as_posix(), text.count("\n")
    if lines > MOST_OF_A_FILE:
        yield f"{name}: {lines} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and lines_of(node) > MOST_OF_A_FUNCTION:
            yield f"{name}: {node.name}() has {lines_of(node)} lines"


@pytest.mark.parametrize("folder", FOLDERS)
def test_files_and_functions_are_short(folder: str) -> None:
    paths = sorted((ROOT / folder).rglob("*.py"))
    assert paths
    assert [line for path in paths for line in too_long(path)] == []
