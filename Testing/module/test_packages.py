"""Missing packages: found without importing them, asked for once, declined or failed in a clear sentence."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import types
from pathlib import Path

import pytest
import qt
import slicer
from slicerhost import dialogs

sys.path.append(str(Path(__file__).resolve().parents[2] / "ChangeMapJoint"))

from ChangeMapJointGui import packages
from ChangeMapJointGui.packages import PackagesDeclined, ensure, installed, missing, requirements

COMPLETE = {
    "jinja2": "3.1.4",
    "nibabel": "5.3.2",
    "numpy": "2.4.0",
    "pillow": "11.0",
    "psutil": "7.0.0",
    "pydicom": "3.0.1",
    "safetensors": "0.8.0",
    "scipy": "1.17.0",
    "SimpleITK": "2.5.0.dev7+g1",  # as Slicer builds it
    "torch": "2.9.0+cpu",
    "numba": "0.64.0",
    "highdicom": "0.27.0",
    "reportlab": "4.4.0",
}


class Computer:
    """What is installed, and what pip was asked for."""

    def __init__(self) -> None:
        self.versions = dict(COMPLETE)
        self.asked: list[list[str]] = []
        self.constraints = ""
        self.refuses: set[str] = set()

    def version(self, name: str) -> str:
        if name not in self.versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return self.versions[name]

    def pip(self, arguments: list[str]) -> None:
        self.asked.append(arguments)
        if "-c" in arguments:
            self.constraints = Path(arguments[arguments.index("-c") + 1]).read_text("utf-8")
        names = [one.split(">=")[0] for one in arguments if ">=" in one]
        if self.refuses & set(names):
            raise subprocess.CalledProcessError(1, ["pip"])
        self.versions |= {name: COMPLETE[name] for name in names}

    def install_torch(self, askConfirmation, torchVersionRequirement):
        assert askConfirmation
        self.asked.append([f"torch{torchVersionRequirement}"])
        if "torch" in self.refuses:
            return None
        self.versions["torch"] = COMPLETE["torch"]
        return object()


@pytest.fixture
def computer(monkeypatch) -> Computer:
    """A Slicer 5.10 with the extension PyTorch."""
    made = Computer()
    monkeypatch.setattr(importlib.metadata, "version", made.version)
    monkeypatch.setattr(slicer.util, "pip_install", made.pip)
    logic = types.SimpleNamespace(installTorch=made.install_torch)
    monkeypatch.setitem(sys.modules, "PyTorchUtils", types.SimpleNamespace(PyTorchUtilsLogic=lambda: logic))
    monkeypatch.setitem(sys.modules, "slicer.packaging", None)
    monkeypatch.delattr(slicer, "packaging", raising=False)
    return made


def without(computer: Computer, *names: str) -> None:
    for name in names:
        del computer.versions[name]


def test_the_worker_needs_what_the_library_needs() -> None:
    """The list follows the one in pyproject.toml; the command line's own packages are not the worker's."""
    text = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text("utf-8")
    listed = text.split("dependencies = [", 1)[1].split("]", 1)[0]
    needed = [one.strip(' ",') for one in listed.split("\n") if one.strip()]
    of_the_command = [one for one in needed if one.startswith(("rich", "typer"))]
    assert len(of_the_command) == 2
    files_of_dicom = [one for one in needed if one.startswith("pydicom")]  # Slicer reads those itself
    assert sorted(map(str, requirements())) == sorted(set(needed) - set(of_the_command) - set(files_of_dicom))
    assert [one.name for one in requirements(extra="fast")] == ["numba"]


def test_what_is_there_is_not_asked_for(computer) -> None:
    assert missing() == []
    ensure()
    assert computer.asked == []
    assert dialogs.shown == []


def test_nothing_is_imported_to_find_out(computer) -> None:
    heavy = {"torch", "numba", "jinja2"} - set(sys.modules)
    assert installed("torch") == COMPLETE["torch"]
    without(computer, "torch")
    assert installed("torch") is None
    assert [one.name for one in missing()] == ["torch"]
    assert not heavy & set(sys.modules)


def test_too_old_is_missing(computer) -> None:
    computer.versions["psutil"] = "5.9"
    assert [str(one) for one in missing()] == ["psutil>=6.0"]


def test_what_slicer_ships_is_neither_needed_anew_nor_touched(computer) -> None:
    """Slicer 5.10 has pydicom 2.4.4, which it has imported when this is asked."""
    computer.versions |= {"pydicom": "2.4.4", "requests": "2.32.3"}
    assert missing() == []
    without(computer, "jinja2")
    dialogs.answer("confirmOkCancel", True)
    ensure()
    assert {"pydicom==2.4.4", "requests==2.32.3", "scipy==1.17.0", "pillow==11.0"} <= set(computer.constraints.split())
    computer.versions["scipy"] = "1.8.0"
    with pytest.raises(PackagesDeclined, match=r"scipy>=1\.11.*part of Slicer"):
        ensure()
    assert len(computer.asked) == 1


def test_missing_packages_are_installed_after_a_yes_and_nothing_else_changes(computer) -> None:
    without(computer, "torch", "psutil", "jinja2", "numba")
    dialogs.answer("confirmOkCancel", True)
    ensure()
    torch, needed, extra = computer.asked
    assert torch == ["torch>=2.2"]
    assert needed[2:] == ["jinja2>=3.1", "psutil>=6.0"]
    assert extra[2:] == ["numba>=0.61"]
    assert "numpy==2.4.0\n" in computer.constraints
    assert "SimpleITK==2.5.0.dev7+g1\n" in computer.constraints
    assert "psutil" not in computer.constraints
    asked = dialogs.texts("confirmOkCancel")[0]
    assert all(name in asked for name in ("psutil>=6.0", "numba>=0.61", "llvmlite"))
    assert missing() == []


def test_what_is_only_for_speed_is_neither_asked_for_nor_needed(computer) -> None:
    without(computer, "numba")
    ensure()
    assert computer.asked == []
    without(computer, "psutil")
    computer.refuses = {"numba"}
    dialogs.answer("confirmOkCancel", True)
    ensure()
    assert computer.versions["psutil"]
    assert installed("numba") is None


def test_declined(computer) -> None:
    without(computer, "psutil")
    dialogs.answer("confirmOkCancel", False)
    with pytest.raises(PackagesDeclined, match=r"Python packages.*psutil>=6\.0.*declined.*Apply.*wheels"):
        ensure()
    assert computer.asked == []


def test_torch_declined_asks_for_nothing_more(computer) -> None:
    without(computer, "torch", "psutil")
    computer.refuses = {"torch"}
    with pytest.raises(PackagesDeclined, match=r"torch>=2\.2.*declined"):
        ensure()
    assert len(computer.asked) == 1


def test_torch_without_its_extension(computer, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    without(computer, "torch")
    with pytest.raises(PackagesDeclined, match="extension PyTorch"):
        ensure()


def test_an_installation_that_fails(computer) -> None:
    without(computer, "psutil")
    computer.refuses = {"psutil"}
    dialogs.answer("confirmOkCancel", True)
    with pytest.raises(PackagesDeclined, match="failed"):
        ensure()


def test_wheels_from_a_folder(computer, tmp_path) -> None:
    """All of it, PyTorch included, and no network."""
    without(computer, "torch", "psutil", "numba")
    folder = tmp_path / "Räder 1"
    folder.mkdir()
    dialogs.answer("confirmOkCancel", True)
    ensure(folder)
    needed, extra = computer.asked
    assert needed[:3] == extra[:3] == ["--no-index", "--find-links", str(folder)]
    assert needed[5:] == ["psutil>=6.0", "torch>=2.2"]
    assert str(folder) in dialogs.texts()[0]


def test_a_folder_of_wheels_that_is_not_there(computer, tmp_path) -> None:
    without(computer, "psutil")
    with pytest.raises(PackagesDeclined, match="nowhere"):
        ensure(str(tmp_path / "nowhere"))
    assert dialogs.shown == []


def test_what_slicer_is_built_with_is_never_replaced(computer, monkeypatch) -> None:
    computer.versions["SimpleITK"] = "2.2.0"
    with pytest.raises(PackagesDeclined, match=r"SimpleITK>=2\.4.*Slicer 5\.10"):
        ensure()
    del computer.versions["SimpleITK"]  # there, but it does not say its version
    assert missing() == []
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    assert [one.name for one in missing()] == ["SimpleITK"]


def test_nothing_is_installed_while_slicer_runs_tests(computer) -> None:
    without(computer, "psutil")
    slicer.app.setTestingEnabled(True)
    try:
        with pytest.raises(PackagesDeclined, match="runs tests"):
            ensure()
    finally:
        slicer.app.setTestingEnabled(False)
    assert computer.asked == []


def test_slicer_512_installs_with_a_progress_bar_and_without_an_error_box_for_what_is_only_for_speed(
    computer, monkeypatch
) -> None:
    quiet = []

    def pip_install(names, constraints, requester=None, show_progress=True):
        quiet.append(not show_progress)
        computer.pip(["-c", str(constraints), *names])

    ours = types.SimpleNamespace(pip_install=pip_install)
    monkeypatch.setattr(slicer, "packaging", ours, raising=False)
    monkeypatch.setitem(sys.modules, "slicer.packaging", ours)
    without(computer, "psutil", "numba")
    computer.refuses = {"numba"}
    slicer.app.setOverrideCursor(qt.Qt.WaitCursor)
    seen = []
    ask = slicer.util.confirmOkCancelDisplay
    watch = lambda *a, **k: (seen.append(slicer.app.overrideCursor()), ask(*a, **k))[1]  # noqa: E731
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", watch)
    dialogs.answer("confirmOkCancel", True)
    try:
        ensure()
        assert slicer.app.overrideCursor() is not None
    finally:
        slicer.app.restoreOverrideCursor()
    assert seen == [None]  # no hourglass over a question
    assert quiet == [False, True]
    assert "numpy==2.4.0\n" in computer.constraints
    assert dialogs.texts("error") == []


def test_requirements_of_ones_own(tmp_path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text("# words\n\n-r other.txt\nnowhere>=1\nnumpy>=1; python_version < '3'\nfast; extra == 'fast'\n")
    assert [one.name for one in requirements(path)] == ["nowhere"]
    assert [one.name for one in requirements(path, extra="fast")] == ["fast"]
    assert [one.name for one in missing(path)] == ["nowhere"]


def test_what_an_export_needs_is_asked_for_when_it_is_wanted(computer) -> None:
    without(computer, "highdicom", "reportlab")
    assert missing() == []
    dialogs.answer("confirmOkCancel", True)
    ensure(export="pdf")
    assert [one[2:] for one in computer.asked] == [["reportlab>=4.2"]]
    assert "pydicom==3.0.1\n" in computer.constraints
    ensure(export="pdf")
    assert len(dialogs.texts("confirmOkCancel")) == 1
    computer.versions["pydicom"] = "2.4.4"  # Slicer 5.10: its own, which must stay
    with pytest.raises(PackagesDeclined, match=r"pydicom>=3\.0.*part of Slicer.*5\.12"):
        ensure(export="dicom")
    assert len(computer.asked) == 1
