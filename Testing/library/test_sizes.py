"""No file is longer than 400 lines, no function longer than 60 beside its docstring."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("ChangeMapJointLib", "ChangeMapJoint", "Testing", "docs", ".github")
MOST_OF_A_FILE, MOST_OF_A_FUNCTION = 400, 60


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Without decorators and docstring, which says more the better it is."""
    first = function.body[0]
    told = first.end_lineno - first.lineno + 1 if ast.get_docstring(function, clean=False) is not None else 0
    return function.end_lineno - function.lineno + 1 - told


def too_long(path: Path) -> Iterator[str]:
    text = path.read_text("utf-8")
    if text.count("\n") > MOST_OF_A_FILE:
        yield f"{path.relative_to(ROOT)}: {text.count(chr(10))} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and lines_of(node) > MOST_OF_A_FUNCTION:
            yield f"{path.relative_to(ROOT)}: {node.name}() has {lines_of(node)} lines"


@pytest.mark.parametrize("folder", FOLDERS)
def test_files_and_functions_are_short(folder: str) -> None:
    paths = sorted((ROOT / folder).rglob("*.py"))
    assert paths
    assert [line for path in paths for line in too_long(path)] == []
