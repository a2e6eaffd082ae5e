"""The browser viewer in Chromium: what is painted, listed, stored and refused."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("trame_slicer", reason="the packages of the extra 'view' are not installed")

from PIL import Image
from web_samples import GRID, SHIFT_MM, write_run, write_worklist

from ChangeMapJointLib.evaluation.readers.load import read_log
from ChangeMapJointLib.scene.keys import KEY_HELP
from ChangeMapJointLib.scene.nodes import CURRENT, PRIOR

AXE = "axe_playwright_python"  # the package carries axe-core


def open_page(page: Any, viewer: Any) -> None:
    page.goto(viewer.url)
    page.wait_for_selector(".glass")
    settled(page)


def settled(page: Any, view: str = "Red") -> np.ndarray:
    """The picture of a view once it no longer changes, ``[row, column, RGB]``."""
    before = picture(page, view)
    for _ in range(60):
        page.wait_for_timeout(200)
        after = picture(page, view)
        if np.array_equal(before, after) and after.any():
            return after
        before = after
    raise AssertionError("the picture does not come to rest")


def picture(page: Any, view: str) -> np.ndarray:
    pane = page.locator(f".pane-{view} .picture")
    return np.asarray(Image.open(io.BytesIO(pane.screenshot())).convert("RGB")).astype(int)


def difference(page: Any, view: str) -> float:
    """Mean difference of a current view's picture and its prior's, below what is written at their upper edges."""
    now, prior = (settled(page, name) for name in (view, PRIOR[CURRENT.index(view)]))
    rows, columns = (min(sizes) for sizes in zip(now.shape[:2], prior.shape[:2], strict=True))
    return float(np.abs(now[60:rows, :columns] - prior[60:rows, :columns]).mean())


def orange(pixels: np.ndarray) -> int:
    """How many pixels the overlay paints denser."""
    return int(((pixels[..., 0] - pixels[..., 2] > 90) & (pixels[..., 1] < 0.8 * pixels[..., 0])).sum())


def test_the_overlay_follows_the_threshold_and_findings_are_stepped_through_accepted_and_kept(
    start: Callable[..., Any], page: Any, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "Poisonfolder" / "run")
    open_page(page, start(run, "--reader", "R1"))
    assert page.locator(".label").nth(0).inner_text().split("\n") == ["CURRENT", "2026-03-02"]
    assert page.locator(".pane-ChangeMapPriorRed .label").inner_text().split("\n") == [
        "PRIOR, as acquired",
        "2025-01-15",
    ]
    sides = {side: page.locator(f".pane-Red .side.{side}").inner_text() for side in ("left", "right", "top", "bottom")}
    assert sides == {"left": "R", "right": "L", "top": "A", "bottom": "P"}
    assert orange(settled(page)) == 0  # the originals first
    assert page.title() == "ChangeMapJoint viewer"
    assert "Poisonfolder" not in page.content()

    page.keyboard.press("n")
    page.wait_for_selector("tr.chosen")
    assert "finding 1" in (page.locator("tr.chosen .jump").get_attribute("aria-label") or "")
    settled(page)
    page.keyboard.press("o")
    page.wait_for_function("window.trame.state.get('settings').overlay")
    high = orange(settled(page))
    slider = page.locator("#threshold")
    slider.focus()
    for _ in range(45):  # from 0.68 to below the outer shell's 0.5
        page.keyboard.press("ArrowLeft")
    page.wait_for_function("window.trame.state.get('settings').threshold < 0.48")
    low = orange(settled(page))
    assert 0 < 2 * high < low  # the shell is (12 / 7)^2 times as large
    box = slider.bounding_box()
    page.mouse.click(box["x"] + 0.95 * box["width"], box["y"] + box["height"] / 2)
    page.wait_for_function("window.trame.state.get('settings').threshold > 0.91")
    assert orange(settled(page)) == 0

    page.keyboard.press("Escape")
    page.locator(".glass").first.focus()
    page.keyboard.press("a")
    page.wait_for_selector("tr.chosen td:has-text('accepted')")
    page.fill("#comment", "two <b>of</b> them")
    page.keyboard.press("Enter")
    page.check("fieldset input[value=doubtful]")
    page.wait_for_function("window.trame.state.get('reader_verdict') === 'doubtful'")
    page.reload()
    page.wait_for_selector("td:has-text('accepted')")
    stored = json.loads((run / "reading.json").read_text("utf-8"))
    (entry,) = stored["findings"].values()
    assert (entry["id"], entry["decision"], entry["comment"]) == (1, "accepted", "two <b>of</b> them")
    assert entry["stamps"]["decision"]["reader"] == "R1"
    report = (run / "report.html").read_text("utf-8")
    assert "two &lt;b&gt;of&lt;/b&gt; them" in report
    assert "doubtful" in report


def test_the_prior_follows_through_the_deformation_and_the_keys_are_the_modules(viewer: Any, page: Any) -> None:
    open_page(page, viewer)
    assert difference(page, "Red") < 12  # the same place, although the prior was acquired 6 mm away
    page.keyboard.press("n")
    page.wait_for_selector("tr.chosen")
    page.get_by_role("button", name="Three planes").click()  # views that had no size yet follow, too
    print([difference(page, view) for view in CURRENT])
    assert max(difference(page, view) for view in CURRENT) < 25
    shown = [number(page, view) for view in ("Yellow", "ChangeMapPriorYellow")]
    assert abs(shown[0] - shown[1]) == round(SHIFT_MM / GRID.spacing_mm[0])  # as the scan itself counts
    page.get_by_role("button", name="Beside prior").click()
    page.get_by_role("button", name="Fit").click()
    settled(page)
    first = page.locator(".pane-Red .slice").inner_text()
    page.mouse.move(200, 200)
    page.mouse.wheel(0, -100)
    page.wait_for_function(f"document.querySelector('.pane-Red .slice').textContent.trim() !== {first!r}")
    assert page.locator(".pane-ChangeMapPriorRed .slice").inner_text() == page.locator(".pane-Red .slice").inner_text()

    page.mouse.click(300, 200)
    page.wait_for_selector(".values:has-text('now')")
    page.locator(".pane-ChangeMapPriorRed .glass").click(position={"x": 100, "y": 150})
    page.wait_for_timeout(200)
    page.keyboard.down("w")
    page.wait_for_selector(".pane-Red .label:has-text('PRIOR, warped')")
    page.keyboard.up("w")
    page.wait_for_selector(".pane-Red .label:has-text('CURRENT')")
    for choice in ("jacobian", "displacement", "trust", "none"):
        page.select_option("section[aria-label='Registration check'] select >> nth=1", choice)
        page.wait_for_function(f"window.trame.state.get('settings').check === '{choice}'")
        settled(page)
    page.keyboard.press("e")
    page.wait_for_function("window.trame.state.get('settings').edges")
    page.keyboard.press("m")
    page.wait_for_selector("td:has-text('new') >> nth=1")
    page.select_option("section[aria-label=Findings] select", "map")
    page.wait_for_selector("h3:has-text('Regions of the map (2)')")
    for name in ("Three planes", "Large axial", "Beside prior"):
        page.get_by_role("button", name=name).click()
        settled(page)
    page.keyboard.press("?")
    keys = [text for _, text in KEY_HELP]
    assert page.locator("#help td").all_inner_texts()[: len(keys)] == keys
    assert serious_faults(page) == []  # with the help box
    page.keyboard.press("Escape")
    assert serious_faults(page) == []


def number(page: Any, view: str) -> int:
    """The number of the slice that stands on a view."""
    return int(page.locator(f".pane-{view} .slice").inner_text().split()[1])


def serious_faults(page: Any) -> list[tuple[str, str]]:
    """What axe-core calls serious or critical on a page: rule and the first place."""
    pytest.importorskip(AXE, reason=f"the package {AXE.replace('_', '-')} is not installed")
    page.evaluate((resources.files(AXE) / "axe.min.js").read_text("utf-8"))
    found = page.evaluate(
        "axe.run().then((r) => r.violations.filter((v) => ['serious', 'critical'].includes(v.impact)))"
    )
    return [(fault["id"], fault["nodes"][0]["html"]) for fault in found]


def test_two_viewers_on_one_run_keep_each_others_decisions(
    start: Callable[..., Any], page: Any, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run")
    one, other = start(run, "--reader", "R1"), start(run, "--reader", "R2")
    second = page.context.new_page()
    open_page(page, one)
    open_page(second, other)
    page.locator(".jump").nth(0).click()
    page.wait_for_selector("tr.chosen")
    page.keyboard.press("a")
    second.locator(".jump").nth(1).click()
    second.wait_for_selector("tr.chosen")
    second.keyboard.press("x")
    for opened in (page, second):
        opened.wait_for_selector("td:has-text('accepted')")
        opened.wait_for_selector("td:has-text('rejected')")


def test_the_viewer_loads_no_torch_which_takes_a_third_of_a_gigabyte_and_seconds() -> None:
    code = (
        "import sys, ChangeMapJointLib.cli.view, ChangeMapJointLib.web.viewer, ChangeMapJointLib.web.study\n"
        "print([name for name in ('torch', 'SimpleITK', 'numba') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def ask(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_without_the_token_from_another_site_or_by_another_name_everything_is_refused(viewer: Any) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    upgrade["Sec-WebSocket-Key"] = "AAAAAAAAAAAAAAAAAAAAAA=="
    paths = ("/", "/index.html", "/report.html", "/vue.global.js", "/nothing")
    assert [ask(viewer.base + path) for path in paths] == [403] * len(paths)
    assert ask(f"{viewer.base}/ws", **upgrade) == 403
    assert ask(f"{viewer.base}/ws?token={viewer.token[:-1]}x", **upgrade) == 403
    assert ask(f"{viewer.base}/ws?token={viewer.token}", Origin="http://evil.example", **upgrade) == 403
    assert ask(f"{viewer.base}/ws?token={viewer.token}", Origin="null", **upgrade) == 403
    assert ask(viewer.url, Origin="http://evil.example") == 403
    assert ask(viewer.url, Host="evil.example") == 403  # a name that was pointed to 127.0.0.1
    assert ask(f"{viewer.base}/report.html?token={viewer.token}") == 200
    assert ask(f"{viewer.base}/../../etc/passwd?token={viewer.token}") == 404


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda run: (run / "trust.nrrd").unlink(), "is missing"),
        (lambda run: (run / "trust.nrrd").write_bytes(b"NRRD"), "has 4 bytes"),
        (lambda run: flip(run / "trust.nrrd"), "its hash differs"),
        (lambda run: edit(run, files={"../prior.nrrd": {"bytes": 1, "sha256": ""}}), "leaves the folder"),
        (lambda run: link(run / "jacobian.nrrd"), "is a link that leaves the folder"),
        (lambda run: edit(run, schema="changemap.run/2"), "a newer version"),
    ],
)
def test_a_damaged_run_is_refused_in_one_line(damage: Callable[[Path], None], words: str, tmp_path: Path) -> None:
    from ChangeMapJointLib.core.errors import InputError
    from ChangeMapJointLib.io.opened_run import open_run

    run = write_run(tmp_path / "run")
    assert open_run(run).notes == ()
    damage(run)
    with pytest.raises(InputError, match=words):
        open_run(run)


@pytest.mark.parametrize("name", ["scan 0123456789ab", "../current.nrrd"])
def test_scans_without_their_names_are_found_by_their_hash(name: str, tmp_path: Path) -> None:
    from ChangeMapJointLib.core.errors import InputError
    from ChangeMapJointLib.io.opened_run import open_run

    run = write_run(tmp_path / "run", seal=False)
    record = json.loads((run / "run.json").read_text("utf-8"))
    for side in ("reference", "template"):
        record[side]["name"] = name
    (run / "run.json").write_text(json.dumps(record))
    opened = open_run(run)
    found = [path.name for path in (opened.reference, opened.template) if path is not None]
    assert found == ["current.nrrd", "prior.nrrd"]
    flip(tmp_path / "current.nrrd")  # another scan now
    with pytest.raises(InputError, match=r"the current scan .* is not beside it"):
        open_run(run)


def test_files_of_another_size_are_not_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ChangeMapJointLib.io import opened_run
    from ChangeMapJointLib.io.run_seal import file_sha256

    run = write_run(tmp_path / "run", seal=False)
    record = json.loads((run / "run.json").read_text("utf-8"))
    for side, name in (("reference", "current.nrrd"), ("template", "prior.nrrd")):
        record[side] |= {"name": "scan", "bytes": (tmp_path / name).stat().st_size}
    (run / "run.json").write_text(json.dumps(record))
    (tmp_path / "another.nrrd").write_bytes((tmp_path / "current.nrrd").read_bytes() + b"0")
    (tmp_path / "a series").mkdir()
    (tmp_path / "a series" / "1.dcm").write_bytes(b"0")
    hashed: list[str] = []
    monkeypatch.setattr(opened_run, "file_sha256", lambda path: (hashed.append(path.name), file_sha256(path))[1])
    opened = opened_run.open_run(run)
    assert opened.reference.name == "current.nrrd"
    assert opened.template is not None
    assert opened.template.name == "prior.nrrd"
    assert set(hashed) <= {"current.nrrd", "prior.nrrd"}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def edit(run: Path, **values: Any) -> None:
    record = json.loads((run / "run.json").read_text("utf-8"))
    (run / "run.json").write_text(json.dumps({**record, **values}))


def link(path: Path) -> None:
    shutil.move(path, path.parent.parent / path.name)
    path.symlink_to(path.parent.parent / path.name)


def test_a_damaged_run_gives_a_page_that_says_what_is_wrong(
    start: Callable[..., Any], page: Any, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run")
    flip(run / "change_map.nrrd")
    viewer = start(run)
    page.goto(viewer.url)
    page.wait_for_selector("h1:has-text('This run cannot be shown')")
    assert "was changed after the run: its hash differs" in page.locator("main").inner_text()
    assert serious_faults(page) == []
    assert "its hash differs" in viewer.said()
    assert "Traceback" not in viewer.said()


def test_a_worklist_is_read_in_three_arms_and_evaluated(start: Callable[..., Any], page: Any, tmp_path: Path) -> None:
    worklist = write_worklist(tmp_path)
    for arm in ("unaided", "sequential", "joint"):
        read_worklist(arm, worklist, start, page)
        check_log(arm, tmp_path)
    command = [sys.executable, "-m", "ChangeMapJointLib", "readers", tmp_path, "--out", tmp_path / "study"]
    done = subprocess.run([*command, "--progress", "none"], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    readings = json.loads((tmp_path / "study" / "readers.json").read_text("utf-8"))
    assert readings["arms"] == ["unaided", "sequential", "joint"]


def read_worklist(arm: str, worklist: Path, start: Callable[..., Any], page: Any) -> None:
    """Read two cases; after the first mark the machine fails."""
    arguments = ("--worklist", worklist, "--arm", arm, "--reader", "R1", "--study", "lungs")
    viewer = start(*arguments)
    page.goto(viewer.url)
    page.get_by_role("button", name="Show case 1 of 2").click()
    page.wait_for_selector(".pane-Red .slice")
    settled(page)
    assert page.locator("#threshold").count() == (0 if arm == "unaided" else 1)
    page.locator(".pane-Red .glass").click(position={"x": 150, "y": 170})
    page.wait_for_selector(".marks li")
    values = page.locator(".values").inner_text()
    assert " prior " in values  # as acquired: what was warped, and what is not to be trusted, was found
    assert "warped" not in values
    assert page.evaluate("window.trame.state.get('settings').untrusted") is False
    page.keyboard.press("?")
    keys = page.locator("#help th").all_inner_texts()
    assert keys[: keys.index("Wheel, arrow keys, Page Up / Down")] == [
        *(() if arm == "unaided" else ("+ / -", "O")),
        "1 / 2 / 3",
    ]
    page.keyboard.press("Escape")
    page.locator("#rating-1").focus()
    page.keyboard.press("End")
    page.wait_for_function("window.trame.state.get('study').marks[0].rating === 100")
    assert serious_faults(page) == []
    page.locator(".glass").first.focus()
    page.keyboard.press("o")
    page.keyboard.press("+")
    page.wait_for_timeout(1000)
    page.goto("about:blank")
    viewer.process.kill()  # the machine fails here
    viewer.process.wait()

    again = start(*arguments)
    page.goto(again.url)
    page.get_by_role("button", name="Resume").click()
    page.wait_for_selector(".marks li")
    page.get_by_role("button", name="Submit case").click()
    page.get_by_role("button", name="Show case 2 of 2").click()
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("button", name="Submit case").click()
    page.wait_for_selector("text=All cases are submitted")
    page.goto("about:blank")
    again.stop()


def check_log(arm: str, folder: Path) -> None:
    log = read_log(folder / f"lungs-R1-{arm}.jsonl")
    first, second = log.readings
    assert (log.open, log.torn) == (None, False)
    assert {first.case, second.case} == {"p1", "p2"}
    assert [reading.arm for reading in log.readings] == [arm, arm]
    assert [len(reading.marks) for reading in log.readings] == [1, 0]
    assert first.marks[0].rating == 100
    assert first.model == {"unaided": "", "sequential": "sequential", "joint": f"sha256:{'ab' * 32}"}[arm]
    assert first.threshold_changes == (0 if arm == "unaided" else 1)
    assert first.overlay_s == 0 if arm == "unaided" else 0 < first.overlay_s < first.active_s
    assert first.first_mark_s < first.active_s
    assert (first.pauses, second.pauses) == (1, 1)
