"""The examples in docstrings do what they say.

Each runs in an empty folder with two scans of the phantom chest, ``current.nrrd`` and ``prior.nrrd``.
"""

from __future__ import annotations

import doctest
import importlib
import shutil
from pathlib import Path
from types import ModuleType

import pytest
from phantoms import Sphere, chest_phantom

import ChangeMapJointLib
from ChangeMapJointLib.io.write import write_nrrd

pytestmark = pytest.mark.usefixtures("aligned_once")
LIBRARY = Path(ChangeMapJointLib.__file__).parent


def module_name(file: Path) -> str:
    parts = file.relative_to(LIBRARY.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


# a module without an example is not imported: some need Slicer, most are heavy
WITH_EXAMPLES = sorted(module_name(file) for file in LIBRARY.rglob("*.py") if ">>> " in file.read_text("utf-8"))


def examples_of(module: ModuleType) -> list[doctest.DocTest]:
    return [test for test in doctest.DocTestFinder().find(module) if test.examples]


@pytest.fixture(scope="session")
def scans(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    for name, lesions in (("current", [Sphere((60.0, 0.0, 20.0), 12.0)]), ("prior", [])):
        scan = chest_phantom(edge_mm=5.0, lesions=lesions)
        write_nrrd(folder / f"{name}.nrrd", scan.array, scan.grid)
    return folder


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of_a_module_are_true(name, scans, tmp_path, monkeypatch) -> None:
    for scan in scans.iterdir():
        shutil.copy(scan, tmp_path)
    monkeypatch.chdir(tmp_path)
    examples = examples_of(importlib.import_module(name))
    assert examples, f"{name}: '>>> ' stands where doctest does not look; write it into a docstring"
    report: list[str] = []
    for example in examples:
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
        runner.run(example, out=report.append)
    assert not report, "".join(report)


def test_a_false_example_is_found() -> None:
    wrong = ModuleType("wrong")
    wrong.__doc__ = "A sum.\n\n>>> 1 + 1\n3\n"
    [example] = examples_of(wrong)
    report: list[str] = []
    assert doctest.DocTestRunner().run(example, out=report.append).failed == 1
    assert "Expected:\n    3\nGot:\n    2" in "".join(report)
