"""The extension configures, builds, installs and passes its self-test with a stub of Slicer's CMake package.

A copy of the project's tree is used, its lists brought up to date; ``test_lists.py`` checks the lists themselves.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import update_lists

HERE = Path(__file__).parent
FOLDERS = ("ChangeMapJoint", "ChangeMapJointLib", "Resources")
MODULES = Path("lib/Slicer-5.10/qt-scripted-modules")


def tool(name):
    """``cmake`` or ``ctest`` of the environment, else of the system."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    assert found, f"{name} is needed: pip install cmake"
    return found


def run(*command, **options):
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "DISPLAY")}
    environment |= {"QT_QPA_PLATFORM": "offscreen", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(part) for part in command]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=1200, check=False, **options
    )


def configure(source, build, install):
    return run(
        tool("cmake"),
        f"-S{source}",
        f"-B{build}",
        f"-DSlicer_DIR={HERE / 'slicer_stub'}",
        f"-DSLICER_STUB_PYTHON={sys.executable}",
        f"-DSLICER_STUB_RUNNER={HERE / 'run_self_test.py'}",
        f"-DCMAKE_INSTALL_PREFIX={install}",
        cwd=source,
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The project's tree without what the extension does not need, its lists up to date."""
    tree = tmp_path_factory.mktemp("source")
    shutil.copy(update_lists.ROOT / "CMakeLists.txt", tree)
    for folder in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__", "Screenshots")
        shutil.copytree(update_lists.ROOT / folder, tree / folder, ignore=ignored)
    for path, text in update_lists.updated(tree).items():
        path.write_text(text)
    return tree


@pytest.fixture(scope="module")
def installed(source, tmp_path_factory):
    """Build and install trees."""
    build, install = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("install")
    for step in (
        configure(source, build, install),
        run(tool("cmake"), "--build", build),
        run(tool("cmake"), "--install", build),
    ):
        assert step.returncode == 0, step.stdout + step.stderr
    return build, install


def test_every_file_is_installed(source, installed):
    _, install = installed
    tree = install / MODULES
    expected = set(update_lists.files_below(source / "ChangeMapJoint"))
    expected |= {Path("ChangeMapJointLib") / path for path in update_lists.files_below(source / "ChangeMapJointLib")}
    assert expected <= set(update_lists.files_below(tree))
    assert (tree / "Resources" / "SamplePair" / "reference.nrrd").exists()


def test_the_build_tree_is_laid_out_the_same(installed):
    build, install = installed
    assert update_lists.files_below(build / MODULES) == update_lists.files_below(install / MODULES)


def test_resources_are_found_in_the_installed_tree(installed):
    _, install = installed
    program = (
        "from ChangeMapJointLib.core.resources import resource; "
        "print(resource('SamplePair', 'truth.json')); import ChangeMapJointLib; print(ChangeMapJointLib.__file__)"
    )
    result = run(sys.executable, "-c", program, cwd=install / MODULES)
    assert result.returncode == 0, result.stderr
    assert all(line.startswith(str(install / MODULES)) for line in result.stdout.splitlines())


def test_the_self_test_passes_from_the_installed_tree(installed):
    build, _ = installed
    for tree in installed:  # kernels that are compiled already; the sources are the same to the second
        for path in (update_lists.ROOT / "ChangeMapJointLib").rglob("__pycache__/kernels.*.nb?"):
            place = tree / MODULES / path.relative_to(update_lists.ROOT)
            place.parent.mkdir(exist_ok=True)
            shutil.copy2(path, place)
    result = run(tool("ctest"), "--test-dir", build, "--output-on-failure", "--no-tests=error")
    assert result.returncode == 0, result.stdout[-8000:]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("ChangeMapJointLib/forgotten.py", "forgotten.py"),
        ("ChangeMapJointLib/export/forgotten.css", "forgotten.css"),
        ("ChangeMapJoint/Resources/UI/Forgotten.ui", "Forgotten.ui"),
    ],
)
def test_a_file_missing_from_the_lists_is_noticed(source, tmp_path, file, message):
    (source / file).touch()
    try:
        result = configure(source, tmp_path / "build", tmp_path / "install")
    finally:
        (source / file).unlink()
    assert result.returncode != 0
    assert message in result.stderr
    assert "missing from the package" in " ".join(result.stderr.split())


def test_a_listed_file_that_is_gone_is_noticed(source, tmp_path):
    gone, kept = source / "ChangeMapJointLib" / "__main__.py", tmp_path / "kept.py"
    shutil.move(gone, kept)
    try:
        result = configure(source, tmp_path / "build", tmp_path / "install")
    finally:
        shutil.move(kept, gone)
    assert result.returncode != 0
    assert "nonexistent" in result.stderr
