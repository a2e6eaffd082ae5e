"""Wheel and sdist hold the library and the resources; all is found once pip has installed it away from the sources."""

import ast
import re
import shutil
import subprocess
import sys

import pytest

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib
from test_extension import run
from update_lists import ROOT, files_below

FILES = ("pyproject.toml", "README.md", "LICENSE")
FOLDERS = ("ChangeMapJointLib", "Resources")
IMPORTED_AS = {"pillow": "PIL", "python_bidi": "bidi"}  # where it is not the distribution's name
BROUGHT = {"markupsafe"}  # jinja2 needs it, and takes its Markup
OPTIONAL = {"triton", "lightning"}  # of a CUDA build; another name of Fabric
FOR_US = {"dev", "docs"}  # extras that the library itself must not import
SLICERS = {"slicer", "vtk", "qt", "ctk", "vtkmodules"}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A copy of what is packed."""
    source = tmp_path_factory.mktemp("sources")
    for name in FILES:
        shutil.copy(ROOT / name, source)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    return source


@pytest.fixture(scope="module", params=["wheel", "sdist"])
def installed(request, sources, tmp_path_factory):
    """Folder into which pip installed the wheel, made from the sources or from their sdist."""
    packed, target = sources, tmp_path_factory.mktemp("site")
    if request.param == "sdist":
        made = tmp_path_factory.mktemp("sdist")
        program = f"from setuptools.build_meta import build_sdist; build_sdist({str(made)!r})"
        step = subprocess.run([sys.executable, "-c", program], cwd=sources, capture_output=True, text=True, check=False)
        assert step.returncode == 0, step.stderr
        (packed,) = made.glob("*.tar.gz")
    options = [
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--no-compile",
        "--disable-pip-version-check",
    ]
    step = run(sys.executable, "-m", "pip", "install", *options, "--target", target, packed)
    assert step.returncode == 0, step.stdout + step.stderr
    return target


def test_the_command_runs_from_what_was_installed(installed, tmp_path):
    program = "import sys; sys.argv[0] = 'changemap'; from ChangeMapJointLib.__main__ import main; main()"
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(installed)!r}); {program}", "--help"]
    result = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stderr
    for command in ("run", "demo", "synthesize", "train", "evaluate", "readers", "cohort", "view", "export"):
        assert re.search(rf"^\W*{command}\b", result.stdout, re.MULTILINE), command


def test_what_the_library_imports_is_installed_with_it():
    """Without extras: ``pip install changemapjoint`` must be enough to run a comparison."""
    with (ROOT / "pyproject.toml").open("rb") as stream:
        project = tomllib.load(stream)["project"]
    declared = project["dependencies"]
    extras = [line for name, lines in project["optional-dependencies"].items() if name not in FOR_US for line in lines]
    offered = {re.split(r"[<>=!~ \[]", line)[0].replace("-", "_") for line in extras}
    optional = OPTIONAL | {IMPORTED_AS.get(name, name) for name in offered}
    names = [re.split(r"[<>=!~ \[]", line)[0] for line in declared]
    known = {IMPORTED_AS.get(name, name) for name in names} | set(sys.stdlib_module_names) | {"ChangeMapJointLib"}
    missing = {}
    for path in (ROOT / "ChangeMapJointLib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            else:
                found = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in {one.partition(".")[0] for one in found} - known - BROUGHT - optional - SLICERS:
                missing.setdefault(name, path.name)
    assert not missing


def test_the_wheel_holds_the_library_and_its_data(installed):
    library = {path for path in files_below(ROOT / "ChangeMapJointLib") if path.name != "CMakeLists.txt"}
    assert library <= set(files_below(installed / "ChangeMapJointLib"))


def test_resources_are_found_after_pip_install(installed, tmp_path):
    program = "from ChangeMapJointLib.core.resources import resource as r; print(r('SamplePair', 'reference.nrrd'))"
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(installed)!r}); {program}"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(str(installed))


def test_resources_are_found_in_the_source_tree():
    from ChangeMapJointLib.core.resources import resource

    assert resource("SamplePair", "truth.json") == ROOT / "Resources" / "SamplePair" / "truth.json"


def test_a_missing_resource_says_what_to_do():
    from ChangeMapJointLib.core.errors import InputError
    from ChangeMapJointLib.core.resources import resource

    with pytest.raises(InputError, match="missing from this installation"):
        resource("SamplePair", "nothing.nrrd")
