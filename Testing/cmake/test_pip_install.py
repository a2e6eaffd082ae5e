"""A wheel holds the library and the resources; both are found once pip has installed it away from the source tree."""

import shutil
import subprocess
import sys

import pytest
from test_extension import run
from update_lists import ROOT, files_below

FILES = ("pyproject.toml", "README.md", "LICENSE")
FOLDERS = ("ChangeMapJointLib", "Resources")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Folder into which pip installed the wheel."""
    source, target = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("site")
    for name in FILES:
        shutil.copy(ROOT / name, source)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    step = run(sys.executable, "-m", "pip", "install", *options, "--target", target, source)
    assert step.returncode == 0, step.stdout + step.stderr
    return target


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
