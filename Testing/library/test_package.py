"""The package's names, what importing it loads, and options that say what they do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ChangeMapJointLib as cmj
from ChangeMapJointLib.change.method_table import METHODS
from ChangeMapJointLib.comparison.compare import compare
from ChangeMapJointLib.comparison.config import config_for
from ChangeMapJointLib.core.process import SLEEPING_THREADS, sleeping_threads


def test_importing_the_package_loads_nothing_heavy() -> None:
    program = (
        "import sys, ChangeMapJointLib as cmj; cmj.InputError; cmj.Cancelled; "
        "print([name for name in ('torch', 'scipy', 'SimpleITK', 'pydicom', 'numba') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_command_line_loads_no_torch_before_it_computes() -> None:
    """Its import takes as long as everything else that ``changemap report`` does."""
    program = "import sys, ChangeMapJointLib.cli.main; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


@pytest.mark.parametrize(("command", "expected"), [("run", "PASSIVE 1 False"), ("report", "None None False")])
def test_threads_are_set_before_numpy_reads_it(command, expected) -> None:
    program = """
import os, sys
from ChangeMapJointLib.__main__ import main
class Told(BaseException): pass
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "ChangeMapJointLib.cli.main":
            print(os.environ.get("OMP_WAIT_POLICY"), os.environ.get("OPENBLAS_NUM_THREADS"), "numpy" in sys.modules)
            raise Told
sys.meta_path.insert(0, Finder())
try: main()
except Told: pass
"""
    environment = {name: value for name, value in os.environ.items() if name not in SLEEPING_THREADS}
    done = subprocess.run(
        [sys.executable, "-c", program, command], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected


def test_threads_sleep_unless_the_user_has_said_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    assert sleeping_threads() == {"OMP_WAIT_POLICY": "PASSIVE"}


def test_every_name_is_there_and_listed() -> None:
    for name in cmj._HOMES:
        assert getattr(cmj, name) is not None
        assert name in dir(cmj)
    assert cmj.compare is compare
    with pytest.raises(AttributeError, match="no attribute 'juxtapose'"):
        cmj.juxtapose  # noqa: B018


def test_names_for_type_checkers_are_those_at_run_time() -> None:
    text = Path(cmj.__file__).read_text("utf-8")
    typed = {
        line.rpartition(" as ")[2] for line in text.splitlines() if line.startswith("    from ") and " as " in line
    }
    assert typed == set(cmj._HOMES) == set(cmj.__all__)


def test_options_say_what_they_do() -> None:
    assert cmj.RunConfig(method="joint").findings.threshold == METHODS["joint"].threshold
    with pytest.raises(cmj.InputError, match="method"):
        cmj.RunConfig(method="nonsense")  # type: ignore[arg-type]
    own = cmj.RunConfig(findings=cmj.FindingOptions(threshold=0.5, min_voxels=50))
    assert config_for("joint", own).findings == own.findings
    assert config_for("joint", cmj.RunConfig()).findings.threshold == METHODS["joint"].threshold
    assert config_for(None, {"joint": {"shape": [64, 64, 64]}}, threshold=0.2).findings.threshold == 0.2


def test_a_folder_that_is_no_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(cmj.InputError, match="expected the folder of a finished run"):
        cmj.load_result(tmp_path)
