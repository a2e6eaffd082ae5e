"""What goes wrong while a run is viewed: it is replaced, the disk is full, a value is none, somebody else asks."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("trame_slicer", reason="the packages of the extra 'view' are not installed")

from aiohttp.test_utils import make_mocked_request
from web_samples import write_run, write_worklist

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.evaluation.readers.reading_session import SessionRequest, open_session
from ChangeMapJointLib.io import reading_file
from ChangeMapJointLib.web import decisions
from ChangeMapJointLib.web.guard import Guard

HOST = "127.0.0.1:4000"


def refused(guard: Guard, path: str = "/", method: str = "GET", **headers: str) -> bool:
    return bool(guard.refusal(make_mocked_request(method, path, headers={"Host": HOST, **headers})))


def test_a_ticket_stands_in_for_the_token_once() -> None:
    guard = Guard("127.0.0.1")
    one, other = guard.ticket(), guard.ticket()
    assert len({one, other, guard.token}) == 3
    for ticket in (other, one):
        address = f"/?token={ticket}"
        assert refused(guard, address, "HEAD")  # looking ahead spends no ticket, and gets no cookie either
        assert refused(guard, address, **{"Sec-Purpose": "prefetch;prerender"})
        assert refused(guard, address, Purpose="prefetch")
        assert not refused(guard, address)
        assert refused(guard, f"/?token={ticket}")
    assert [refused(guard, f"/?token={guard.token}") for _ in range(2)] == [False, False]


def test_an_origin_is_this_one_to_the_letter() -> None:
    guard = Guard("127.0.0.1")
    own = f"/ws?token={guard.token}"
    assert not refused(guard, own, Origin=f"http://{HOST}")
    for origin in (f"https://{HOST}", "http://127.0.0.1:4001", f"http://{HOST}.evil.example", "null", ""):
        assert refused(guard, own, Origin=origin)


def test_a_run_that_is_replaced_while_it_is_viewed_gets_neither_decisions_nor_its_maps_shown(
    start: Callable[..., Any], page: Any, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run")
    viewer = start(run)
    host, port = viewer.base.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as asked:  # no HTTP: answered, and not worth a traceback
        asked.sendall(f"GET /?token={viewer.token}\xe9 HTTP/1.1\r\n\r\n".encode("latin-1"))
        assert asked.recv(12) == b"HTTP/1.0 400"
    page.goto(viewer.url)
    page.wait_for_selector(".jump")
    page.keyboard.press("n")
    page.wait_for_selector("tr.chosen")
    shutil.rmtree(run)
    for scan in ("current.nrrd", "prior.nrrd"):
        (tmp_path / scan).unlink()
    write_run(tmp_path / "run", method="joint")
    for key in ("a", "o"):
        page.keyboard.press(key)
        page.wait_for_selector(".message:has-text('was replaced or removed since the viewer opened it')")
    assert not (run / "reading.json").exists()
    assert not page.evaluate("window.trame.state.get('settings').overlay")
    page.keyboard.press("Escape")
    assert viewer.said() == ""


def test_the_report_is_written_while_no_other_viewer_can_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "run")
    state = SimpleNamespace(reviews={}, reader_verdict="", message="")
    mine = decisions.PageDecisions(state)
    mine.open(run, "R1")
    other = reading_file.ReadingFile(run, "R2")
    monkeypatch.setattr(reading_file, "PATIENCE_S", 0.0)
    written: list[str] = []

    def write(folder: Path, content: Any) -> None:
        with pytest.raises(InputError, match="is being written by another viewer"):
            other.judge("wrong")
        written.append(content["registration"]["verdict"])

    monkeypatch.setattr(decisions, "write_reading", write)
    mine.judge("fine")
    assert written == ["fine"]
    other.judge("wrong")


def test_a_decision_that_the_disk_cannot_take_is_said_in_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "run")
    before = sorted(run.iterdir())
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"reading\.json: cannot be written \(No space.*nothing was stored"):
        reading_file.ReadingFile(run).judge("fine")
    assert sorted(run.iterdir()) == before


def full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_report_that_is_no_text_is_named(tmp_path: Path) -> None:
    from ChangeMapJointLib.export.reading import write_reading

    (tmp_path / "report.html").write_bytes(b"\xff\xfe<main>")
    with pytest.raises(InputError, match=r"report\.html: not readable"):
        write_reading(tmp_path, {"findings": {}, "registration": {}})


class State(SimpleNamespace):
    """Trame's shared state, as far as it is needed."""

    def __enter__(self) -> State:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_what_a_session_logs_of_its_own_accord_says_on_the_page_that_it_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ChangeMapJointLib.web.study import StudyPage

    request = SessionRequest(write_worklist(tmp_path), "R1", "joint", folder=tmp_path)
    session = open_session(request, "browser")
    viewer = SimpleNamespace(state=State(message=""), shown=None)
    page = StudyPage(viewer, session)
    with session.log:
        session.begin(0.3)
        monkeypatch.setattr(os, "fsync", full)
        page._on_exit()
        assert "cannot be written (No space left on device)" in viewer.state.message
        assert session.state == "reading"  # as the file says
        monkeypatch.undo()
        page._on_exit()
        assert session.state == "paused"


def test_a_value_that_no_check_knows_is_one_line_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ChangeMapJointLib.web import viewer

    made = viewer.Viewer.__new__(viewer.Viewer)
    made.shown = None
    monkeypatch.setattr(viewer, "ShownRun", lambda *_, **__: {}["lesion_reference"])
    with pytest.raises(InputError, match=r"cannot be shown .*lesion_reference"):
        made.open(SimpleNamespace(folder=tmp_path))  # type: ignore[arg-type]


def test_a_page_that_is_closed_and_a_request_that_is_no_http_are_no_faults() -> None:
    from aiohttp.client_exceptions import ClientConnectionResetError
    from aiohttp.http_exceptions import BadStatusLine

    from ChangeMapJointLib.web.serve import _is_fault

    def told(error: Exception) -> bool:
        try:
            raise error
        except Exception:  # as wslink does, whose records hold the text alone
            return _is_fault(logging.LogRecord("wslink.protocol", logging.ERROR, "", 1, "Exception raised", (), None))

    assert [told(error) for error in (ClientConnectionResetError("closing"), BadStatusLine(), KeyError("x"))] == [
        False,
        False,
        True,
    ]
    assert _is_fault(logging.LogRecord("aiohttp.server", logging.ERROR, "", 1, "broken", (), None))
