"""The rules of a reading session, without any view: what is logged when, and what is not."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.evaluation.readers.load import read_log
from ChangeMapJointLib.evaluation.readers.log import SessionHeader
from ChangeMapJointLib.evaluation.readers.reading_session import ReadingSession, SessionRequest, open_session
from ChangeMapJointLib.evaluation.readers.worklist import ReaderCase
from ChangeMapJointLib.evaluation.readers.writer import ReadingLog

RUN = SimpleNamespace(model="sequential")


@pytest.fixture
def open_at(tmp_path):
    """Open the session of two cases, at a clock that stands still unless it is moved."""
    clock = SimpleNamespace(s=0.0)

    def begin(arm="sequential"):
        cases = [ReaderCase(name, arm, Path(name)) for name in ("p1", "p2")]
        described = SessionHeader("study", "R1", "1", "program", "module", 0, ("p1", "p2"))
        log = ReadingLog(tmp_path / "log.jsonl", described, clock=lambda: clock.s)
        return ReadingSession(log, cases, dict.fromkeys(("p1", "p2"), RUN)), clock

    return begin


def events(session):
    lines = [json.loads(line) for line in session.log.path.read_text("utf-8").splitlines()]
    return [line["event"] for line in lines]


def test_a_threshold_is_logged_once_it_is_settled_and_before_what_follows(open_at):
    session, clock = open_at()
    session.begin(0.68)
    assert session.watch(overlay=True, threshold=0.68) is False
    for threshold in (0.66, 0.64, 0.62):  # a drag
        assert session.watch(overlay=True, threshold=threshold) is True
    session.place((1.0, 2.0, 3.0))  # at 0.62
    clock.s = 10.0
    assert session.watch(overlay=True, threshold=0.62) is False
    session.settle()
    assert events(session) == ["session", "case", "overlay", "threshold", "mark"]
    session.submit()
    reading = read_log(session.log.path).readings[0]
    assert (reading.threshold_changes, reading.overlay_s, reading.active_s) == (1, 10.0, 10.0)


def test_nothing_is_logged_while_the_clock_stands_still_and_ratings_are_limited(open_at):
    session, clock = open_at()
    assert (session.state, session.order, session.place((0, 0, 0)), session.submit()) == ("waiting", 1, None, False)
    session.begin(0.68)
    number = session.place((1.0, 2.0, 3.0))
    session.rate(number, 1000)
    session.move(number, (4.0, 5.0, 6.0))
    assert session.pause("x" * 200) is True
    assert session.state == "paused"
    written = len(events(session))
    session.rate(number, 5)
    session.unmark(number)
    session.place((7.0, 8.0, 9.0))
    session.watch(overlay=True, threshold=0.1)
    session.settle()
    assert session.pause() is False
    assert len(events(session)) == written
    clock.s = 60.0
    session.resume()
    (mark,) = session.marks
    assert (mark.rating, mark.position_mm) == (100.0, (4.0, 5.0, 6.0))
    session.submit()
    session.begin(0.68)
    session.unmark(3)  # there is none
    session.submit()
    assert (session.state, session.case, session.order, session.aided) == ("done", None, 0, False)
    session.begin(0.68)
    first, second = read_log(session.log.path).readings
    assert (first.case, second.case, first.active_s) == ("p1", "p2", 0.0)


def test_an_unaided_case_logs_no_map_and_an_interrupted_one_goes_on(open_at):
    session, _ = open_at("unaided")
    session.begin(0.68)
    session.place((1.0, 2.0, 3.0))
    assert session.watch(overlay=True, threshold=0.3) is False
    session.log.close()
    again, _ = open_at("unaided")
    assert (again.state, again.case.name, [mark.number for mark in again.marks]) == ("paused", "p1", [1])
    again.resume()
    assert again.place((9.0, 9.0, 9.0)) == 2
    again.submit()
    reading = read_log(again.log.path).readings[0]
    assert (reading.arm, reading.model, reading.overlay_s, reading.threshold_changes) == ("unaided", "", 0.0, 0)


@pytest.mark.parametrize(
    ("reader", "study", "words"), [("", "s", "is missing"), ("a/b", "s", "found 'a/b'"), ("R1", "../s", "found '../s'")]
)
def test_names_that_cannot_stand_in_a_file_name_are_refused(tmp_path, reader, study, words):
    with pytest.raises(InputError, match=words):
        open_session(SessionRequest(tmp_path / "cases.csv", reader, study=study), "browser")
