"""Pictures of the browser viewer in every state: ``python Testing/web/make_screenshots.py RUN FOLDER``.

RUN is a run of the sample pair, as ``changemap demo`` makes it. What the pictures show is Chromium's page.
"""

from __future__ import annotations

import csv
import io
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conftest import CHROMIUM, Viewer
from PIL import Image
from playwright.sync_api import sync_playwright

DESKTOP, TABLET, LARGE = (1280, 800), (820, 1180), (3840, 2160)
REST_MS = 2500  # until all pictures are there in their best quality


class Camera:
    """Takes pictures of pages into a folder."""

    def __init__(self, browser: Any, folder: Path) -> None:
        self._browser, self._folder = browser, folder

    @contextmanager
    def page(self, url: str, size: tuple[int, int] = DESKTOP) -> Iterator[Any]:
        """A page of that size that is closed afterwards."""
        page = self._browser.new_page(viewport={"width": size[0], "height": size[1]})
        page.goto(url)
        page.wait_for_selector("main")
        yield page
        page.close()

    def take(self, page: Any, name: str, shrink: int = 1) -> None:
        """Write ``viewer-NAME.png`` in 256 colors: a page of grey scans has few others."""
        page.wait_for_timeout(REST_MS)
        image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        image = image.resize((image.width // shrink, image.height // shrink), Image.Resampling.LANCZOS)
        image.quantize(256, kmeans=3, dither=Image.Dither.NONE).save(self._folder / f"viewer-{name}.png", optimize=True)


def reading(camera: Camera, viewer: Viewer) -> None:
    """The run from its originals to findings, checks and the help box, on three sizes of screen."""
    with camera.page(viewer.url) as page:
        page.wait_for_selector(".pane-Red .slice")
        camera.take(page, "start")
        page.keyboard.press("n")
        page.keyboard.press("o")
        page.wait_for_selector("tr.chosen")
        page.keyboard.press("a")
        camera.take(page, "finding")
        page.get_by_role("button", name="Three planes").click()
        page.select_option("section[aria-label='Registration check'] select >> nth=1", "jacobian")
        page.keyboard.press("e")
        page.locator("#comment").scroll_into_view_if_needed()
        page.get_by_text("Your verdict on the registration").scroll_into_view_if_needed()
        camera.take(page, "check")
        page.keyboard.press("?")
        camera.take(page, "help")
        page.keyboard.press("Escape")
        page.select_option("section[aria-label='Registration check'] select >> nth=1", "none")
        page.locator(".glass").first.focus()
        page.keyboard.press("e")
        page.wait_for_function("!window.trame.state.get('settings').edges")
    for name, size, shrink in (("tablet", TABLET, 1), ("4k", LARGE, 2)):
        with camera.page(viewer.url, size) as page:
            page.wait_for_selector(".pane-Red .slice")
            page.keyboard.press("n")
            camera.take(page, name, shrink)


def session(camera: Camera, run: Path, folder: Path) -> None:
    """A reading session: before a case, with marks, paused, at the end."""
    cases = folder / "cases.csv"
    with cases.open("w", newline="") as stream:
        csv.writer(stream).writerows([("case", "run"), ("p1", str(run))])
    viewer = Viewer("--worklist", cases, "--arm", "sequential", "--reader", "R1", "--study", "lungs", folder=folder)
    try:
        with camera.page(viewer.url) as page:
            page.wait_for_selector("text=Show case 1 of 1")
            camera.take(page, "study-waiting")
            page.get_by_role("button", name="Show case 1 of 1").click()
            page.wait_for_selector(".pane-Red .slice")
            page.wait_for_timeout(REST_MS)
            for x, y in ((150, 170), (280, 150)):
                page.locator(".pane-Red .glass").click(position={"x": x, "y": y})
            page.wait_for_selector(".marks li >> nth=1")
            page.keyboard.press("o")
            camera.take(page, "study")
            page.get_by_role("button", name="Pause").click()
            camera.take(page, "study-paused")
            page.get_by_role("button", name="Resume").click()
            page.get_by_role("button", name="Submit case").click()
            page.wait_for_selector("text=All cases are submitted")
            camera.take(page, "study-done")
    finally:
        viewer.stop()


def damaged_run(camera: Camera, run: Path, folder: Path) -> None:
    """A damaged run."""
    damaged = shutil.copytree(run, folder / "damaged")
    (damaged / "trust.nrrd").write_bytes(b"NRRD")
    viewer = Viewer(damaged, folder=folder)
    try:
        with camera.page(viewer.url) as page:
            page.wait_for_selector("h1:has-text('This run cannot be shown')")
            camera.take(page, "damaged")
    finally:
        viewer.stop()


def main(run: Path, out: Path) -> None:
    """Make every picture."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        folder = Path(scratch)
        own = shutil.copytree(run, folder / "sample")  # decisions are stored beside it
        camera = Camera(playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]), out)
        viewer = Viewer(own, "--reader", "R1", folder=folder)
        try:
            reading(camera, viewer)
        finally:
            viewer.stop()
        session(camera, own, folder)
        damaged_run(camera, own, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
