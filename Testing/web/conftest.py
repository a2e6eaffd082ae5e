"""A browser and viewers for the tests; without the packages or the browser, the tests skip and say why."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = os.environ.get("CHANGEMAP_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
START_S = 120


class Viewer:
    """A viewer in a process of its own.

    Attributes:
        url: its address, with the token.
        token: of the address.
        base: the address without path and token.
    """

    def __init__(self, *arguments: object, folder: Path) -> None:
        command = [sys.executable, "-m", "ChangeMapJointLib", "view", *map(str, arguments), "--no-browser"]
        self.errors = (folder / "viewer.err").open("w+")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.errors, text=True, cwd=folder)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"(http://\S+)/\?token=(\S+)", line)
        assert found, f"{line}{self.said()}"
        self.base, self.token = found.groups()
        self.url = f"{self.base}/?token={self.token}"

    def said(self) -> str:
        """What it wrote to standard error."""
        self.errors.seek(0)
        return self.errors.read()

    def stop(self) -> None:
        """End it as Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(20)
        self.errors.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Viewer]]:
    """Start viewers; they end with the test."""
    running: list[Viewer] = []

    def begin(*arguments: object) -> Viewer:
        running.append(Viewer(*arguments, folder=tmp_path))
        return running[-1]

    yield begin
    for viewer in running:
        if viewer.process.poll() is None:
            viewer.stop()


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    """A viewer of a run for the tests that decide nothing: its start takes as long as what they do."""
    from web_samples import write_run

    folder = tmp_path_factory.mktemp("viewer")
    started = Viewer(write_run(folder / "run"), folder=folder)
    yield started
    started.stop()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The system's Chromium, driven by Playwright."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium here: install it or set CHANGEMAP_CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """A page of 1280 x 800; at the end nothing may have gone wrong in it or to another host."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    opened = context.new_page()
    faults: list[str] = []
    opened.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on(
        "request",
        lambda request: (
            faults.append(request.url)
            if not request.url.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "blob:", "data:"))
            else None
        ),
    )
    opened.set_default_timeout(30_000)
    yield opened
    context.close()
    assert faults == []
