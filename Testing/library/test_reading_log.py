"""The reading log: what a viewer writes is what the statistics read, whatever happens in between."""

import json
import os
import re
import signal
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.evaluation.readers.load import read_log
from ChangeMapJointLib.evaluation.readers.log import SessionHeader
from ChangeMapJointLib.evaluation.readers.writer import ReadingLog

SESSION = SessionHeader("lungs", "R2", "3", "viewer 1.0", seed=7, planned=("c4", "c1"))
DOCS = Path(__file__).parents[2] / "docs" / "reading-log.md"


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s

    def now(self) -> datetime:
        return datetime(2026, 3, 2, 8, tzinfo=timezone.utc) + timedelta(seconds=self.s)


def test_the_docs_example_has_the_figures_that_the_docs_state(tmp_path):
    example = re.search(r"```json\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL).group(1)
    path = tmp_path / "log.jsonl"
    path.write_text(example, "utf-8")
    (reading,) = read_log(path).readings
    assert (reading.active_s, reading.first_mark_s, reading.overlay_s) == (75.0, 46.5, 45.0)
    assert (reading.paused_s, reading.pauses, reading.threshold) == (120.0, 1, 0.3)
    assert reading.marks[0].threshold == 0.3
    assert reading.marks[0].overlay


def test_a_session_goes_on_after_a_crash_with_its_open_case_and_without_the_time_in_between(tmp_path):
    clock, path = Clock(), tmp_path / "log.jsonl"
    log = ReadingLog(path, SESSION, clock=clock, now=clock.now)
    log.begin("c4", order=1, arm="joint", model="m", threshold=0.68)
    clock.s += 10
    log.mark(1, (1, 2, 3), rating=50)
    log.mark(2, (4, 5, 6), rating=60)
    clock.s += 5
    log.mark(1, (1, 2, 4), rating=70)
    log.unmark(2)
    log.close()
    with path.open("ab") as stream:
        stream.write(b'{"event": "submit", "at": "20')  # what was being written when the power went
    loaded = read_log(path)
    assert loaded.torn
    assert loaded.open.marks[1].rating == 70
    assert any("cut off" in note for note in loaded.notes)

    clock.s += 3600
    with ReadingLog(path, SESSION, clock=clock, now=clock.now) as log:
        assert log.open.case == "c4"
        with pytest.raises(InputError, match="paused"):
            log.mark(3, (0, 0, 0), rating=1)
        clock.s += 7
        log.resume()
        clock.s += 4
        log.submit()
        assert log.remaining == ("c1",)
    loaded = read_log(path)
    (reading,) = loaded.readings
    assert not loaded.torn
    assert (reading.active_s, reading.paused_s, reading.pauses) == (19.0, 3607.0, 1)
    assert [(m.number, m.position_mm, m.rating, m.active_s) for m in reading.marks] == [
        (1, (1.0, 2.0, 4.0), 70.0, 10.0)
    ]
    assert (reading.removed, reading.first_mark_s) == (1, 10.0)


def test_a_case_that_is_given_up_counts_nowhere_and_may_be_shown_again(tmp_path):
    clock, path = Clock(), tmp_path / "log.jsonl"
    with ReadingLog(path, SESSION, clock=clock, now=clock.now) as log:
        log.begin("c4", order=1, arm="unaided")
        log.mark(1, (1, 2, 3), rating=50)
        log.withdraw("cannot be shown")
        assert log.remaining == ("c1",)
        log.begin("c4", order=2, arm="unaided")
        clock.s += 3
        log.submit()
    loaded = read_log(path)
    assert [(reading.case, reading.marks, reading.active_s) for reading in loaded.readings] == [("c4", (), 3.0)]
    assert loaded.withdrawn == ("c4",)
    assert any("withdrawn and left out: c4" in note for note in loaded.notes)


def test_a_log_cut_at_any_byte_is_read_and_can_be_gone_on_with(tmp_path):
    clock, path = Clock(), tmp_path / "log.jsonl"
    with ReadingLog(path, SESSION, clock=clock, now=clock.now) as log:
        log.begin("c4", order=1, arm="unaided")
        log.mark(1, (1, 2, 3), rating=50, label="größer")
        log.submit()
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for size in range(1, len(whole)):
        path.write_bytes(whole[:size])
        if size < first - 1:
            with pytest.raises(InputError, match="holds one unfinished line"):
                read_log(path)
        else:
            assert read_log(path).torn == (whole[size - 1 : size] != b"\n" and whole[size : size + 1] != b"\n")
        if size % 5 == 0:
            with ReadingLog(path, SESSION, clock=clock, now=clock.now) as log:
                if log.open is None and not log.readings:
                    log.begin("c4", order=1, arm="unaided")
                elif log.open:
                    log.resume()
                    log.submit()
            assert not read_log(path).torn


def test_every_event_is_in_the_file_when_the_writer_is_killed(tmp_path):
    path = tmp_path / "log.jsonl"
    code = (
        "import os, signal, sys\n"
        "from ChangeMapJointLib.evaluation.readers.log import SessionHeader\n"
        "from ChangeMapJointLib.evaluation.readers.writer import ReadingLog\n"
        f"log = ReadingLog({str(path)!r}, SessionHeader('s', 'r', '1', 'v'))\n"
        "log.begin('c', order=1, arm='unaided')\n"
        "log.mark(1, (1, 2, 3), rating=9)\n"
        "heavy = {'numpy', 'scipy', 'torch', 'pandas', 'psutil'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert read_log(path).open.marks[1].position_mm == (1.0, 2.0, 3.0)


def test_a_second_writer_and_a_strange_file_are_refused_and_left_as_they_are(tmp_path):
    path = tmp_path / "log.jsonl"
    with ReadingLog(path, SESSION):
        before = path.read_bytes()
        with pytest.raises(InputError, match="being written by another program"):
            ReadingLog(path, SESSION)
        assert path.read_bytes() == before
    with pytest.raises(InputError, match="reader: found 'R9', expected 'R2', as"):
        ReadingLog(path, SessionHeader("lungs", "R9", "3", "v", seed=7, planned=("c4", "c1")))
    path.write_text("Dear diary")
    with pytest.raises(InputError, match="line 1: is not an object of JSON"):
        ReadingLog(path, SESSION)
    assert path.read_text("utf-8") == "Dear diary"


def test_a_full_disk_is_told_and_leaves_whole_lines(tmp_path, monkeypatch):
    path = tmp_path / "log.jsonl"
    with ReadingLog(path, SESSION) as log:
        log.begin("c4", order=1, arm="unaided")
        before, write = path.read_bytes(), os.write

        def full(descriptor, data):
            if len(data) < 20:
                raise OSError(28, "No space left on device")
            return write(descriptor, data[: len(data) - 10])

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(InputError, match="No space left"):
            log.mark(1, (1, 2, 3), rating=5)
        monkeypatch.undo()
        assert path.read_bytes() == before
        assert not log.open.marks
        log.mark(1, (1, 2, 3), rating=5)
    assert read_log(path).open.marks


HEAD = {"event": "session", "format": "changemap-reading-log", "version": 1, "study": "s", "reader": "r"}
HEAD |= {"session": "1", "software": "v"}
CASE = {"event": "case", "case": "c", "order": 1, "arm": "unaided"}
MARK = {"event": "mark", "case": "c", "mark": 1, "position_mm": [1, 2, 3], "rating": 5}


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([CASE], "line 1: begins with 'case', expected a session event first"),
        ([HEAD | {"version": 2}], "line 1: version: session: found 2, expected 1, which this program reads"),
        ([HEAD | {"reader": " "}], "line 1: Session.reader: is empty"),
        ([HEAD, CASE | {"arm": "both"}], "line 2: arm: case: found 'both', expected one of unaided, sequential, joint"),
        ([HEAD, CASE | {"order": True}], "line 2: order: found True, expected a whole number"),
        ([HEAD, CASE | {"threshold": 0.5}], "line 2: case 'c' is read unaided, but has an overlay"),
        ([HEAD, CASE | {"colour": 1}], "line 2: case with an unknown field 'colour'"),
        ([HEAD, CASE, CASE | {"case": "d"}], "line 3: case 'd' begins before 'c' is submitted or withdrawn"),
        ([HEAD, CASE, MARK | {"case": "d"}], "line 3: mark in case 'd', expected case 'c'"),
        ([HEAD, CASE, MARK | {"rating": 101}], "line 3: rating: mark: found 101, expected from 1 to 100"),
        ([HEAD, CASE, MARK | {"position_mm": [1, float("nan"), 2]}], "line 3: position_mm: found"),
        ([HEAD, CASE, MARK | {"clock_s": -1}], "line 3: clock_s: mark: found -1"),
        ([HEAD, CASE, MARK | {"at": "yesterday"}], "line 3: at: found 'yesterday', expected a time such as"),
        ([HEAD, CASE, {"event": "unmark", "case": "c", "mark": 4}], "line 3: mark: case 'c' has no mark 4"),
        ([HEAD, CASE, {"event": "resume", "case": "c"}], "line 3: resume in case 'c', which runs"),
        ([HEAD, CASE, {"event": "submit", "case": "c"}, CASE], "line 4: case 'c' was submitted before"),
        ([HEAD, {"event": "scroll"}], "line 2: event: found 'scroll', expected one of session"),
        ([HEAD, CASE | {"case": "c\n"}, [1]], "line 3: is not an object of JSON"),
    ],
)
def test_a_wrong_line_is_one_clear_error(tmp_path, events, message):
    path = tmp_path / "log.jsonl"
    stamp = {"at": "2026-03-02T08:00:00.000Z", "clock_s": 0}
    lines = [json.dumps(stamp | event if isinstance(event, dict) else event) for event in events]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError) as caught:
        read_log(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)
