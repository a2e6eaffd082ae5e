"""Every default stands in one place: no number of the tables is written down anywhere else, and no text contradicts."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner

from ChangeMapJointLib.change.findings import FindingOptions
from ChangeMapJointLib.change.kinds import DENSER_KINDS, KIND_WORDS, Kind
from ChangeMapJointLib.change.method_table import (
    DEFAULT_METHOD,
    DEFAULT_THRESHOLD,
    METHOD_NAMES,
    METHODS,
    STAGE_TITLES,
    Method,
)
from ChangeMapJointLib.cli.main import app
from ChangeMapJointLib.comparison.config import RunConfig, config_from
from ChangeMapJointLib.core import hu
from ChangeMapJointLib.export.content import ReportContent
from ChangeMapJointLib.io import run_files

ROOT = Path(__file__).parents[2]
TABLE, HU = "ChangeMapJointLib/change/method_table.py", "ChangeMapJointLib/core/hu.py"
THRESHOLDS = {m.threshold for m in METHODS.values()} | {m.candidates for m in METHODS.values()}
# numbers that mean nothing else anywhere: the paper's threshold, the full scale, and the one in terms of the other
UNMISTAKABLE = {DEFAULT_THRESHOLD, hu.FULL_SCALE_HU, float(round(DEFAULT_THRESHOLD * hu.FULL_SCALE_HU))}
UNMISTAKABLE_TEXT = re.compile(rf"(?<![\d.])(?:{'|'.join(f'{n:g}' for n in UNMISTAKABLE)})(?![\d.]*\d)")
DIGITS = re.compile("|".join(f"{n:g}" for n in THRESHOLDS | UNMISTAKABLE))
# rooms that know nothing of methods and maps: there, 0.3 or 0.4 is something else unless it is called a threshold
BELOW = ("core", "scan", "io", "gate", "lungs", "registration", "lesions", "joint", "synthesis")
MEANS_SOMETHING_ELSE = {
    "ChangeMapJointLib/change/candidates.py:_SHARED": "a share of voxels",
    "ChangeMapJointLib/change/features.py:measure_features": "a trust, where none is known",
    "ChangeMapJointLib/change/lesion_pairs.py:_OWN_SHARE": "share of a region's voxels",
    "ChangeMapJointLib/change/lesion_pairs.py:_PALER_SHARE": "ratio of two densities",
    "ChangeMapJointLib/export/panels.py:lung_rows": "where a lung is cut, as a share of its extent",
    "ChangeMapJointLib/export/refusal.py:STRENGTH": "opacity",
    "ChangeMapJointLib/export/training_picture.py:SHOWN": "of an unfinished network's map, whatever the findings use",
    "ChangeMapJointLib/scene/keys.py:(_FINE_BELOW, _FINE_STEP, _STEP)": "where the threshold's steps get finer",
    "ChangeMapJointLib/scene/pane_labels.py:BAR_SHARE": "share of a pane's width",
    "ChangeMapJointLib/gate/checks.py:RESCALE_INTERCEPT_HU": "what scanners add, not what a CT holds",
}
DOCS = sorted([ROOT / "README.md", ROOT / "Resources/SamplePair/README.md", *ROOT.glob("docs/**/*.md")])


@cache
def sources() -> dict[str, str]:
    """The text of every module of library and extension, by its path in the repository."""
    paths = [*sorted(ROOT.glob("ChangeMapJointLib/**/*.py")), *sorted(ROOT.glob("ChangeMapJoint/**/*.py"))]
    return {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in paths}


@cache
def numbers_of(where: str) -> list[tuple[str, float | int]]:
    return list(named_numbers(ast.parse(sources()[where])))


def named_numbers(tree: ast.AST, name: str = "") -> Iterator[tuple[str, float | int]]:
    """Name of the constant, argument or function that a number belongs to, and the number with its sign."""
    for child in ast.iter_child_nodes(tree):
        inner = name
        if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
            inner = child.name
        elif isinstance(child, ast.keyword) and child.arg and "threshold" in child.arg:
            inner = child.arg
        elif isinstance(child, (ast.Assign, ast.AnnAssign)):
            target = child.targets[0] if isinstance(child, ast.Assign) else child.target
            of_module = isinstance(tree, (ast.Module, ast.ClassDef))
            inner = ast.unparse(target) if of_module or "threshold" in ast.unparse(target).lower() else name
        minus = isinstance(child, ast.UnaryOp) and isinstance(child.op, ast.USub)
        number = child.operand if minus else child
        if isinstance(number, ast.Constant) and type(number.value) in (int, float):
            yield inner, -number.value if minus else number.value
        else:
            yield from named_numbers(child, inner)


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Comments and strings, docstrings and parts of f-strings included, with their line."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


PROTOCOL = (
    "ChangeMapJointLib/evaluation/",
    "ChangeMapJointLib/cli/evaluate.py",
)  # the paper's threshold stays 0.68, whatever the method's default becomes


def repeated_thresholds(where: str, source: str) -> list[str]:
    """Places of a module that write down a number of the table of methods."""
    found = []
    if not DIGITS.search(source):  # most files; parsing takes longer
        return []
    for name, value in named_numbers(ast.parse(source)):
        place = f"{where}:{name}"
        strict = not where.removeprefix("ChangeMapJointLib/").startswith(BELOW) or "threshold" in name.lower()
        if value in UNMISTAKABLE or (strict and value in THRESHOLDS and isinstance(value, float)):
            found.append(place)
    for line, text in texts(source):
        if UNMISTAKABLE_TEXT.search(text):
            found.append(f"{where}:{line} says {text.strip()[:60]!r}")
    return found


def contradictions(text: str) -> list[str]:
    """Sentences about default thresholds, candidates or the full scale that are not as in the table."""
    wrong = []
    for sentence in re.split(r"(?<=[.?!])\s+|\n\n|\n(?=[|#-])", text):
        flat = " ".join(sentence.split())
        numbers = [float(n) for n in re.findall(r"(?<![\d.])(?:0\.\d+|1\.0)(?![\d.]*\d)", flat)]
        if re.search(r"default.{0,30}threshold|threshold.{0,30}default", flat) and not set(numbers) <= THRESHOLDS:
            wrong.append(flat)
        joint = re.findall(r"(?:joint|CM_comb)\W(?:[^.|;]{0,30}?\W)?(0\.\d+)", flat) if "threshold" in flat else []
        entry = METHODS["joint"]
        if any(float(n) not in (entry.threshold, entry.candidates) for n in joint):
            wrong.append(flat)
        candidates = re.search(r"candidates\.json.*?from (0\.\d+) on", flat)
        if candidates and float(candidates[1]) != METHODS[DEFAULT_METHOD].candidates:
            wrong.append(flat)
        for share, in_hu in re.findall(r"(0\.\d+)[^\d|]{1,12}?(\d{2,4}) HU", flat):
            if "threshold" in flat and round(float(share) * hu.FULL_SCALE_HU) != float(in_hu):
                wrong.append(flat)
        if any(float(n) != hu.FULL_SCALE_HU for n in re.findall(r"T\(y\)\|? */ *(\d+) HU", flat)):
            wrong.append(flat)
    return wrong


def test_no_number_of_the_table_of_methods_stands_elsewhere() -> None:
    found = set()
    for where, source in sources().items():
        if where not in (TABLE, HU) and not where.startswith(PROTOCOL):
            found |= set(repeated_thresholds(where, source))
    assert found - MEANS_SOMETHING_ELSE.keys() == set(), "read it from change/method_table.py or core/hu.py"


@pytest.mark.parametrize(
    ("where", "source"),
    [
        ("ChangeMapJointLib/export/x.py", "threshold: float = 0.68"),
        ("ChangeMapJointLib/lungs/x.py", "SCALE = 1050"),
        ("ChangeMapJointLib/lungs/x.py", "find(threshold=0.3)"),
        ("ChangeMapJointLib/cli/x.py", "JOINT = 0.3"),
        ("ChangeMapJoint/x.py", "def f():\n    return 0.15"),
        ("ChangeMapJointLib/core/x.py", "a = 1  # 0.68 by default"),
        ("ChangeMapJointLib/core/x.py", "a = f'from {1} or 714 HU'"),
        ("ChangeMapJointLib/core/x.py", '"""A change of 1050 HU."""'),
    ],
)
def test_a_number_that_is_written_down_again_is_found(where: str, source: str) -> None:
    assert repeated_thresholds(where, source)


@pytest.mark.parametrize("source", ["SHARE = 0.4", "low, high = 0.3, 10.5", "'0.681 and 10500, 1.0.68'", "N = 1050.5"])
def test_the_same_digits_of_something_else_are_not(source: str) -> None:
    assert repeated_thresholds("ChangeMapJointLib/lungs/x.py", source) == []


@pytest.mark.parametrize("name", ["Resources/UI/ChangeMapJoint.ui", "../ChangeMapJointLib/export/report.html.j2"])
def test_forms_and_templates_take_them_from_the_program(name: str) -> None:
    text = (ROOT / "ChangeMapJoint" / name).read_text("utf-8")
    assert not UNMISTAKABLE_TEXT.search(text)


def test_every_exception_is_still_needed() -> None:
    numbers = THRESHOLDS | {float(hu.LOWEST_HU)}
    files = {place.split(":")[0] for place in MEANS_SOMETHING_ELSE}
    used = {f"{where}:{name}" for where in files for name, value in numbers_of(where) if value in numbers}
    assert MEANS_SOMETHING_ELSE.keys() <= used


# -- texts ----------------------------------------------------------------------------------
@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_page_contradicts_the_table(path: Path) -> None:
    if "log" in path.relative_to(ROOT).parts:
        pytest.skip("a log says what held at its date")
    assert contradictions(path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    "text",
    [
        "The default threshold is 0.5.",
        "Findings start at a threshold of 0.68 by default, joint: 0.2.",
        "so the default threshold of 0.68 means 700 HU",
        "The threshold (for CM_comb, a product, it is 0.2) can be changed.",
        "| `candidates.json` | weaker change, from 0.5 on |",
        "CM_seq = min(|R - T(y)| / 1000 HU, 1)",
    ],
)
def test_a_statement_that_contradicts_is_found(text: str) -> None:
    assert contradictions(text)


def test_the_help_names_each_default() -> None:
    text = CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}).output
    flat = " ".join(re.sub(r"[│\s]+", " ", text).split())
    assert f"{DEFAULT_THRESHOLD:g}; joint: {METHODS['joint'].threshold:g}" in flat
    assert f"({DEFAULT_METHOD})" in flat
    assert "|".join(METHOD_NAMES) in flat


def test_the_help_of_the_training_names_every_configuration() -> None:
    text = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}).output
    named = re.search(r"((?:\w+, )+)or a JSON file", " ".join(re.sub(r"[│\s]+", " ", text).split()))
    assert named is not None
    files = (ROOT / "Resources" / "Configurations").glob("*.json")
    assert sorted(named[1].strip(", ").split(", ")) == sorted(path.stem for path in files)


# -- the tables themselves ------------------------------------------------------------------
def test_every_method_has_its_entry_and_every_stage_its_words() -> None:
    assert tuple(METHODS) == get_args(Method)
    assert all(0 < m.candidates <= m.threshold <= 1 for m in METHODS.values())
    for method in METHODS.values():
        assert [stage.title for stage in method.stages] == [STAGE_TITLES[name] for name in method.shares]
        assert all(stage.share > 0 for stage in method.stages)
    assert tuple(METHODS["rigid"].shares) == ("read", "lungs", "rigid", "gate", "warp", "write")
    assert set(METHODS["joint"].shares) - set(METHODS["sequential"].shares) == {"network"}
    assert set(STAGE_TITLES) == set(METHODS["joint"].shares)


def test_options_and_report_start_from_the_table() -> None:
    assert RunConfig().method == DEFAULT_METHOD
    assert FindingOptions().threshold == RunConfig().findings.threshold == DEFAULT_THRESHOLD == 0.68
    assert ReportContent.threshold == DEFAULT_THRESHOLD
    assert {name: config_from({}, method=name).findings.threshold for name in METHODS} == {
        name: method.threshold for name, method in METHODS.items()
    }
    assert METHODS["joint"].threshold == 0.3


def test_every_kind_of_change_has_its_word() -> None:
    assert tuple(KIND_WORDS) == get_args(Kind)
    assert set(DENSER_KINDS) < set(KIND_WORDS)


# -- the run's folder -----------------------------------------------------------------------
def test_the_names_of_a_runs_files_stay_as_other_programs_know_them() -> None:
    volumes = ("change_map", "signed_change", "warped_template", "deformation", "jacobian", "trust", "finding_labels")
    of_network = {f"change_{name}.nrrd" for name in ("difference", "learned", "combined")}
    records = {"run.json", "quality.json", "findings.json", "findings.csv", "candidates.json", "report.html"}
    lungs = {"lungs_reference.nrrd", "lungs_template.nrrd"}
    assert {f"{name}.nrrd" for name in volumes} | of_network | records | lungs | {"rigid.tfm"} == run_files.FILES
    assert of_network == run_files.WITH_NETWORK - run_files.WITH_MAP
    assert lungs | {"run.json", "quality.json", "report.html", "warped_template.nrrd", "rigid.tfm"} == run_files.ALWAYS


def test_the_docs_describe_every_file_of_a_run() -> None:
    text = "".join(path.read_text("utf-8") for path in DOCS)
    assert [name for name in sorted(run_files.FILES) if name not in text] == []


def test_no_module_writes_down_the_name_of_a_runs_file() -> None:
    """But what other folders, those of a synthetic pair, call alike."""
    rooms = ("comparison", "background", "export", "scene", "cli", "io")
    found = [
        f"{where}:{node.lineno} {node.value}"
        for where, source in sources().items()
        if where.split("/")[1] in (*rooms, "ChangeMapJointGui") and where != "ChangeMapJointLib/io/run_files.py"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and node.value in run_files.FILES
    ]
    assert found == []


# -- densities ------------------------------------------------------------------------------
def test_a_density_has_one_name_and_a_name_one_density() -> None:
    places: dict[str, set[str]] = defaultdict(set)
    for where, source in sources().items():
        if "_HU" not in source:
            continue
        for node in ast.parse(source).body:
            if isinstance(node, (ast.Assign, ast.AnnAssign)):
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                for name in target.elts if isinstance(target, ast.Tuple) else [target]:
                    text = ast.unparse(name).lstrip("_")
                    if text.endswith("_HU"):
                        places[text].add(where)
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_air_padding_and_windows_stand_in_one_file() -> None:
    windows = {hu.REGISTRATION_WINDOW_HU, hu.CHANGE_WINDOW_HU, hu.AIR_OR_LUNG_HU, *hu.WINDOWS_HU.values()}
    found = set()
    for where, source in sources().items():
        if where == HU or not re.search(r"-10(?:00|24)\b|\d0\.0, -?\d+0\.0", source):
            continue
        names = [name for name, value in numbers_of(where) if value in (hu.AIR_HU, hu.LOWEST_HU)]
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Tuple) and len(node.elts) == 2:
                values = [value for _, value in named_numbers(node)]
                names += [ast.unparse(node)] if tuple(values) in windows else []
        found |= {f"{where}:{name}" for name in names}
    assert found - MEANS_SOMETHING_ELSE.keys() == set(), "read it from core/hu.py"


def test_the_scale_of_a_change_map_follows_from_its_window() -> None:
    assert hu.FULL_SCALE_HU == 1050.0
    assert hu.REGISTRATION_WINDOW_HU == (-1000.0, 400.0)
    assert hu.NOT_SCANNED_HU == -1024
