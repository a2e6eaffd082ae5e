"""The output folder appears whole or not at all, and nothing of the user's is ever lost."""

import os
import subprocess
import sys

import pytest

from ChangeMapJointLib.app.run_folder import MARKER, alive, check_output, run_folder
from ChangeMapJointLib.core.errors import InputError


def make(folder, **files) -> None:
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)


def test_folder_appears_at_the_end(tmp_path) -> None:
    out = tmp_path / "new" / "out"
    with run_folder(out) as working:
        (working / MARKER).write_text("{}")
        assert not out.exists()
    assert (out / MARKER).read_text() == "{}"
    assert [p.name for p in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_after_an_error_not_even_parents(tmp_path, error) -> None:
    def fail() -> None:
        with run_folder(tmp_path / "a" / "b" / "out") as working:
            (working / "half.nrrd").write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_run_stays_when_the_new_one_fails(tmp_path) -> None:
    out = tmp_path / "out"
    make(out, **{MARKER: "old"})
    with pytest.raises(RuntimeError), run_folder(out):
        raise RuntimeError
    assert (out / MARKER).read_text() == "old"


def test_an_earlier_run_is_replaced_as_a_whole(tmp_path) -> None:
    out = tmp_path / "out"
    make(out, **{MARKER: "old", "stale.nrrd": "x"})
    with run_folder(out) as working:
        (working / MARKER).write_text("new")
    assert [p.name for p in out.iterdir()] == [MARKER]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_run_left_is_removed_and_a_living_one_is_not(tmp_path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    dead, living = tmp_path / f".out.{child.pid}.partial", tmp_path / f".out.{os.getppid()}.partial"
    dead.mkdir()
    living.mkdir()
    assert not alive(child.pid)
    with run_folder(tmp_path / "out"):
        pass
    assert not dead.exists()
    assert living.exists()


def test_existing_folder_needs_overwrite_and_a_runs_marker(tmp_path) -> None:
    out = tmp_path / "out"
    make(out, **{"thesis.doc": "years of work"})
    with pytest.raises(InputError, match="--overwrite"):
        check_output(out, [], overwrite=False)
    with pytest.raises(InputError, match="other files"):
        check_output(out, [], overwrite=True)
    (out / MARKER).write_text("{}")
    check_output(out, [], overwrite=True)


def test_out_that_is_a_file(tmp_path) -> None:
    (tmp_path / "out").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        check_output(tmp_path / "out", [], overwrite=True)
    with pytest.raises(InputError, match="is a file"):
        check_output(tmp_path / "out" / "deeper", [], overwrite=False)


def test_out_inside_an_input_and_input_inside_out(tmp_path) -> None:
    series = tmp_path / "series"
    make(series)
    with pytest.raises(InputError, match="lies in the input"):
        check_output(series / "result", [series], overwrite=False)
    with pytest.raises(InputError, match="lies in the input"):
        check_output(series, [series], overwrite=True)
    with pytest.raises(InputError, match="contains the input"):
        check_output(tmp_path, [series], overwrite=True)
    check_output(tmp_path / "result", [series, tmp_path / "scan.nrrd"], overwrite=False)


def test_folder_that_cannot_be_written(tmp_path, monkeypatch) -> None:
    """Permission bits do not stop root, so the attempt itself is made to fail."""

    def refuse(**kwargs):
        raise PermissionError

    monkeypatch.setattr("ChangeMapJointLib.app.run_folder.tempfile.TemporaryFile", refuse)
    with pytest.raises(InputError, match="cannot write"):
        check_output(tmp_path / "out", [], overwrite=False)
