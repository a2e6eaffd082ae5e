"""A name means one thing: no two public classes or functions of the library and the module are called alike."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENTRY_POINTS = {"main"}  # of a program; nobody imports them


def test_no_two_classes_or_functions_share_a_name() -> None:
    homes: dict[str, list[str]] = defaultdict(list)
    for path in sorted([*ROOT.glob("ChangeMapJointLib/**/*.py"), *ROOT.glob("ChangeMapJoint/**/*.py")]):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                homes[node.name].append(path.relative_to(ROOT).as_posix())
    public = {name: places for name, places in homes.items() if not name.startswith("_") and name not in ENTRY_POINTS}
    assert {name: places for name, places in public.items() if len(places) > 1} == {}
    assert len(public) > 1000  # they were found
