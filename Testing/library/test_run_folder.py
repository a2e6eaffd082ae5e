"""The output folder appears whole or not at all, and nothing of the user's is ever lost."""

import errno
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ChangeMapJointLib.comparison.output import alive, check_output, clean_up_run, is_run, run_folder
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.io.run_files import RUN as MARKER
from ChangeMapJointLib.io.run_records import read_records
from ChangeMapJointLib.io.write import atomic_path

RECORD = '{"schema": "changemap.run/1"}'


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
    make(out, **{MARKER: RECORD})
    with pytest.raises(RuntimeError), run_folder(out, overwrite=True):
        raise RuntimeError
    assert (out / MARKER).read_text() == RECORD


def test_an_earlier_run_is_replaced_as_a_whole(tmp_path) -> None:
    out = tmp_path / "out"
    make(out, **{MARKER: RECORD, "trust.nrrd": "x"})
    with run_folder(out, overwrite=True) as working:
        (working / MARKER).write_text("new")
    assert [p.name for p in out.iterdir()] == [MARKER]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_run_left_is_removed_and_a_living_one_is_not(tmp_path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    name = f".out.{socket.gethostname()[:40]}"
    dead, living = tmp_path / f"{name}.{child.pid}.x.partial", tmp_path / f"{name}.{os.getppid()}.x.partial"
    namesake = tmp_path / f"{name}.{os.getpid()}.x.partial"
    for folder in (dead, living, namesake):
        folder.mkdir()
    assert not alive(child.pid)
    with run_folder(tmp_path / "out"):
        pass
    assert not dead.exists()
    assert not namesake.exists()
    assert living.exists()


def test_two_threads_that_write_one_folder_do_not_clean_up_each_other(tmp_path) -> None:
    out = tmp_path / "out"
    with run_folder(out, overwrite=True) as first:
        (first / MARKER).write_text(RECORD)
        with run_folder(out, overwrite=True) as second:
            (second / MARKER).write_text(RECORD)
        assert (first / MARKER).exists()
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["out", MARKER]


def test_what_a_run_killed_while_replacing_set_aside_comes_back(tmp_path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    make(tmp_path / f".out.{socket.gethostname()[:40]}.{child.pid}.x.old", **{MARKER: RECORD})
    clean_up_run(tmp_path / "out")
    assert (tmp_path / "out" / MARKER).read_text() == RECORD


def test_what_appears_under_the_name_meanwhile_is_kept(tmp_path) -> None:
    out = tmp_path / "out"

    def collide() -> None:
        with run_folder(out):
            make(out, **{"precious.txt": "x"})

    with pytest.raises(InputError, match="exists already"):
        collide()
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "precious.txt"]


def test_an_earlier_run_comes_back_when_the_swap_fails(tmp_path, monkeypatch) -> None:
    out = tmp_path / "out"
    make(out, **{MARKER: RECORD})
    rename = Path.rename

    def fail_second(self, target):
        if self.suffix == ".partial":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_second)
    with pytest.raises(KeyboardInterrupt), run_folder(out, overwrite=True):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert (out / MARKER).read_text() == RECORD


def test_a_full_disk_is_bad_luck_not_a_fault(tmp_path) -> None:
    with pytest.raises(InputError, match="No space left"), run_folder(tmp_path / "out"):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "what_to_do"),
    [(errno.ENOSPC, "free space there"), (errno.EROFS, "that you may write to"), (errno.EIO, "give another folder")],
)
def test_a_folder_in_which_none_can_be_made(tmp_path, monkeypatch, number, what_to_do) -> None:
    def refuse(**kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("ChangeMapJointLib.comparison.output.tempfile.mkdtemp", refuse)
    with pytest.raises(InputError, match=what_to_do) as caught, run_folder(tmp_path / "new" / "out"):
        pass
    assert str(caught.value).startswith(f"out='{tmp_path / 'new' / 'out'}': cannot be written ({os.strerror(number)});")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_told_by_the_name_that_was_asked_for(tmp_path) -> None:
    with (
        pytest.raises(InputError) as caught,
        run_folder(tmp_path / "out") as working,
        atomic_path(working / "map.nrrd"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    said = "cannot be written (No space left on device); free space there or give another folder"
    assert str(caught.value) == f"out='{tmp_path / 'out'}': {said}"


def test_an_input_that_is_wrong_keeps_its_words(tmp_path) -> None:
    with pytest.raises(InputError, match=r"scan\.nrrd: truncated"), run_folder(tmp_path / "out"):
        raise InputError("scan.nrrd: truncated") from OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("overwrite", [True, False])
def test_another_run_that_is_faster_stays(tmp_path, monkeypatch, overwrite) -> None:
    """Between the last look at the name and its taking."""
    out = tmp_path / "out"
    if overwrite:
        make(out, **{MARKER: RECORD})
    rename = Path.rename

    def meanwhile(self, target):
        if self.suffix == ".partial":
            make(out, **{MARKER: "theirs"})
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", meanwhile)
    with pytest.raises(InputError, match="another run has written it meanwhile"), run_folder(out, overwrite=overwrite):
        pass
    assert (out / MARKER).read_text() == "theirs"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_earlier_run_that_another_one_takes_away_meanwhile(tmp_path, monkeypatch) -> None:
    out = tmp_path / "out"
    make(out, **{MARKER: RECORD})
    rename = Path.rename

    def meanwhile(self, target):
        if self == out:
            (out / MARKER).unlink()
            out.rmdir()
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", meanwhile)
    with run_folder(out, overwrite=True) as working:
        (working / MARKER).write_text("ours")
    assert (out / MARKER).read_text() == "ours"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["/", "x" * 250, "loop/out"])
def test_names_that_cannot_be(tmp_path, name) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError):
        check_output(tmp_path / name, [], overwrite=True)


def test_existing_folder_needs_overwrite_and_a_runs_marker(tmp_path) -> None:
    out = tmp_path / "out"
    make(out, **{"thesis.doc": "years of work"})
    with pytest.raises(InputError, match="overwrite=True to replace it"):
        check_output(out, [], overwrite=False)
    with pytest.raises(InputError, match="other files"):
        check_output(out, [], overwrite=True)
    (out / MARKER).write_text(RECORD)
    with pytest.raises(InputError, match="other files"):
        check_output(out, [], overwrite=True)
    (out / "thesis.doc").unlink()
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

    monkeypatch.setattr("ChangeMapJointLib.comparison.output.tempfile.TemporaryFile", refuse)
    with pytest.raises(InputError, match="cannot write"):
        check_output(tmp_path / "out", [], overwrite=False)


# -- the records of a run -------------------------------------------------------------------
RECORDS = {
    "run": {"schema": "changemap.run/1", "configuration": {"method": "sequential"}},
    "quality": {"quality": {"verdict": "good", "reasons": []}},
    "findings": {"findings": [{"id": 1, "kind": "new", "centre_mm": [1.0, -2.0, 3.5]}]},
}


def write_records(folder: Path, **changes: object) -> Path:
    for name, values in {**RECORDS, **changes}.items():
        (folder / f"{name}.json").write_text(values if isinstance(values, str) else json.dumps(values))
    return folder


def test_records_are_read_back(tmp_path) -> None:
    assert read_records(write_records(tmp_path)) == RECORDS
    (tmp_path / "findings.json").unlink()  # as after the rigid method
    assert set(read_records(tmp_path)) == {"run", "quality"}
    (tmp_path / "quality.json").unlink()
    with pytest.raises(InputError, match=r"has no quality\.json, expected the folder of a finished run"):
        read_records(tmp_path)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"run": "{"}, r"run\.json: not readable"),
        ({"run": "[" * 100_000}, r"run\.json: not readable"),
        ({"run": []}, "found list, expected an object"),
        ({"run": {"configuration": 3}}, "'configuration' is int"),
        ({"quality": {"quality": "good"}}, "'quality' is str"),
        ({"findings": {}}, "'findings' is not a list"),
        ({"findings": {"findings": [{"id": 1, "kind": "new", "centre_mm": [1, 2]}]}}, "'findings' is not a list"),
        ({"findings": {"findings": [{"id": 1, "kind": "new", "centre_mm": [1, 2, "x"]}]}}, "'findings' is not a list"),
        ({"run": {"reference": "scan"}}, "'reference' or 'template' is not"),
        ({"run": {"template": {"acquisition": 5}}}, "'reference' or 'template' is not"),
        *(
            (
                {"findings": {"findings": [{"id": 1, "kind": "new", "centre_mm": [1, 2, 3], name: value}]}},
                "is no number",
            )
            for name, value in (
                ("peak_mm", [1, None, 3]),
                ("volume_ml", "x"),
                ("trust", {}),
                ("probability", float("nan")),
                ("section", ["finding"]),
            )
        ),
        ({"candidates": {"findings": [], "threshold": None}}, "'threshold' is not a number"),
    ],
)
def test_records_that_no_run_wrote(tmp_path, changes, expected) -> None:
    with pytest.raises(InputError, match=expected):
        read_records(write_records(tmp_path, **changes))


def test_a_marker_that_nests_without_end_is_none(tmp_path) -> None:
    (tmp_path / MARKER).write_text("[" * 100_000)
    assert not is_run(tmp_path)
