"""The browser viewer on a run of 512 x 512 x 300 voxels: reaction to keys and wheel, memory, start.

    python Testing/benchmarks/viewer.py SCRATCH [--tree ../before --case before]
    python Testing/benchmarks/viewer.py SCRATCH --start demo-output

Viewer and Chromium share the machine. The run is made once in SCRATCH, from the closed-form run of the viewer's tests.
A picture counts when the page shows it: ``src`` of the axial view's picture has another value. Beside the times stands
the CPU time that viewer and browser take for one picture, which hardly depends on what else the machine does. ``load``
is the load average before and after. ``--tree`` measures the library of another checkout. ``--start`` measures how long
the viewer takes to open another run, such as the sample pair's: until its address is printed, and until a page that is
opened then shows the axial picture.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "Testing" / "web"))
SHAPE, FIELD_SHAPE = (300, 512, 512), (100, 160, 160)
KEYS, SCROLL_S, REST_MS, STARTS = 30, 6.0, 500, 5
WATCH = """() => {
  window.shots = [];
  const pane = document.querySelector('.pane-Red .picture');
  new MutationObserver(() => window.shots.push(performance.now()))
    .observe(pane, {attributes: true, subtree: true, attributeFilter: ['src']});
  document.addEventListener('keydown', () => { window.pressed = performance.now(); }, true);
}"""
# the wheel turns one notch each time the page is about to be painted, as fast as a hand can ask
SCROLL = """(seconds) => new Promise((done) => {
  const glass = document.querySelector('.pane-Red .glass'), start = performance.now();
  window.shots = [];
  const turn = () => {
    const passed = (performance.now() - start) / 1000;
    if (passed > seconds) { done(window.shots.filter((at) => at > start).length / passed); return; }
    const back = Math.floor(passed / (seconds / 4)) % 2;
    glass.dispatchEvent(new WheelEvent('wheel', {deltaY: back ? 100 : -100, bubbles: true, cancelable: true}));
    requestAnimationFrame(turn);
  };
  turn();
})"""


def write_big_run(folder: Path) -> Path:
    """Write a run of the size of a clinical scan and its two scans into a folder; one that is there is kept."""
    import json

    import numpy as np
    import web_samples

    from ChangeMapJointLib.core.displacement import DisplacementField
    from ChangeMapJointLib.core.grid import Grid
    from ChangeMapJointLib.io.read import read_array
    from ChangeMapJointLib.io.run_seal import file_sha256, seal_of
    from ChangeMapJointLib.io.write import write_displacement, write_nrrd

    run, done = folder / "run", folder / "done"
    if done.exists():
        return run
    shutil.rmtree(folder, ignore_errors=True)
    small, rng = web_samples.write_run(folder / "small" / "run"), np.random.default_rng(0)
    extent = [n * h for n, h in zip(web_samples.GRID.shape, web_samples.GRID.spacing_mm[::-1], strict=True)]
    grids = [
        Grid(shape, tuple(a / n for a, n in zip(extent[::-1], shape[::-1], strict=True)), web_samples.GRID.origin_mm)
        for shape in (SHAPE, FIELD_SHAPE)
    ]
    z, y, x = (np.arange(n) * m // n for n, m in zip(SHAPE, web_samples.GRID.shape, strict=True))
    run.mkdir(parents=True)

    def enlarge(source: Path, target: Path, noise_hu: float = 0.0) -> None:
        array = read_array(source)[0][z][:, y][:, :, x]
        for i in range(len(array) if noise_hu else 0):
            array[i] += np.rint(rng.normal(0, noise_hu, array[i].shape)).astype(array.dtype)
        write_nrrd(target, array, grids[0])

    for name in ("current", "prior"):
        enlarge(folder / "small" / f"{name}.nrrd", folder / f"{name}.nrrd", 15)
    for name in ("warped_template", "signed_change"):
        enlarge(small / f"{name}.nrrd", run / f"{name}.nrrd", 15)
    for name in ("lungs_reference", "lungs_template", "change_map"):
        enlarge(small / f"{name}.nrrd", run / f"{name}.nrrd")
    for name, value in (("trust", 0.95), ("jacobian", 1.0)):
        write_nrrd(run / f"{name}.nrrd", np.full(FIELD_SHAPE, value, np.float32), grids[1])
    write_displacement(run / "deformation.nrrd", DisplacementField.from_affine(web_samples.AFFINE, grids[1]))
    for name in ("rigid.tfm", "quality.json", "findings.json", "candidates.json", "findings.csv", "report.html"):
        shutil.copy(small / name, run / name)
    record = json.loads((small / "run.json").read_text("utf-8"))
    for side, name in (("reference", "current.nrrd"), ("template", "prior.nrrd")):
        record[side]["sha256"] = file_sha256(folder / name)
    record["files"] = seal_of(run)
    (run / "run.json").write_text(json.dumps(record), encoding="utf-8")
    done.touch()
    return run


class Account:
    """CPU seconds of a viewer and of a browser since this was made."""

    def __init__(self, viewer: psutil.Process, browser: list[psutil.Process]) -> None:
        self._viewer, self._browser = viewer, browser
        self._start = self._now()

    def per(self, pictures: float) -> dict[str, float]:
        """Milliseconds for one picture."""
        taken = [1000 * (now - before) / max(pictures, 1) for now, before in zip(self._now(), self._start, strict=True)]
        return {"viewer": round(taken[0], 1), "browser": round(taken[1], 1)}

    def _now(self) -> tuple[float, float]:
        return _cpu_s([self._viewer]), _cpu_s(self._browser)


def _cpu_s(processes: list[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def memory_mb(pid: int) -> dict[str, int]:
    """Resident memory of a process now and at its peak, in units of 10^6 bytes."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines())
    return {name: round(int(lines[key].split()[0]) * 1024 / 1e6) for name, key in (("now", "VmRSS"), ("peak", "VmHWM"))}


def measure(run: Path, tree: Path) -> dict[str, Any]:
    """Open the run in a browser, press keys, turn the wheel."""
    from playwright.sync_api import sync_playwright

    load, start = os.getloadavg()[0], time.monotonic()
    command = [sys.executable, "-m", "ChangeMapJointLib", "view", str(run), "--no-browser"]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    viewer = subprocess.Popen(command, cwd=tree, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert viewer.stdout is not None
        found = re.search(r"http://\S+", viewer.stdout.readline())
        assert found, "the viewer does not start"
        started_s = time.monotonic() - start
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium") or shutil.which("chromium-browser"), args=["--no-sandbox"]
            )
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto(found[0])
            page.wait_for_selector(".pane-Red .slice")
            page.wait_for_timeout(3000)
            page.keyboard.press("n")
            page.keyboard.press("o")
            page.wait_for_function("window.trame.state.get('settings').overlay")
            page.wait_for_timeout(3000)
            page.evaluate(WATCH)
            chromium = [p for p in psutil.Process().children(recursive=True) if p.pid != viewer.pid]
            own = psutil.Process(viewer.pid)
            figures = {**keys(page, own, chromium), **scrolling(page, own, chromium)}
            memory = memory_mb(viewer.pid)
            everything(page)
            browser.close()
        return {
            "voxels": list(SHAPE),
            "start_s": round(started_s, 1),
            **figures,
            "memory_mb": memory,
            "memory_with_everything_shown_mb": memory_mb(viewer.pid),
            "load": [round(load, 2), round(os.getloadavg()[0], 2)],
        }
    finally:
        viewer.send_signal(signal.SIGINT)
        viewer.wait(20)


def measure_start(run: Path) -> dict[str, Any]:
    """Start the viewer on a run several times; medians."""
    from playwright.sync_api import sync_playwright

    load, addresses, pictures, cpu = os.getloadavg()[0], [], [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("chromium-browser"), args=["--no-sandbox"]
        )
        for _ in range(STARTS):
            start = time.monotonic()
            command = [sys.executable, "-m", "ChangeMapJointLib", "view", str(run), "--no-browser"]
            viewer = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
            try:
                assert viewer.stdout is not None
                found = re.search(r"http://\S+", viewer.stdout.readline())
                assert found, "the viewer does not start"
                addresses.append(time.monotonic() - start)
                page = browser.new_page(viewport={"width": 1280, "height": 800})
                page.goto(found[0])
                page.wait_for_selector(".pane-Red .picture img[src^='blob:']")
                pictures.append(time.monotonic() - start)
                cpu.append(_cpu_s([psutil.Process(viewer.pid)]))
                page.close()
            finally:
                viewer.send_signal(signal.SIGINT)
                viewer.wait(20)
    return {
        "starts": STARTS,
        "address_s": round(statistics.median(addresses), 2),
        "first_picture_s": round(statistics.median(pictures), 2),
        "longest_s": round(max(pictures), 2),
        "viewer_cpu_s": round(statistics.median(cpu), 2),
        "load": [round(load, 2), round(os.getloadavg()[0], 2)],
    }


def keys(page: Any, viewer: psutil.Process, browser: list[psutil.Process]) -> dict[str, Any]:
    """From a key of the threshold to the new picture of the axial view."""
    account, taken = Account(viewer, browser), []
    for i in range(KEYS):
        page.evaluate("window.shots = []")
        page.keyboard.press("-" if i < KEYS / 2 else "+")
        page.wait_for_function("window.shots.length > 0")
        taken.append(page.evaluate("window.shots[0] - window.pressed"))
        page.wait_for_timeout(REST_MS)
    ordered = sorted(taken)
    return {
        "key_to_picture_ms": round(statistics.median(taken), 1),
        "key_to_picture_ms_90th": round(ordered[int(0.9 * len(ordered))], 1),
        "keys": KEYS,
        "cpu_ms_per_key": account.per(KEYS),
    }


def everything(page: Any) -> None:
    """Show all that takes memory, one after the other: checks, edges, the warped prior, the list by the map."""
    page.get_by_role("button", name="Three planes").click()
    check = page.locator("section[aria-label='Registration check'] select")
    for choice in ("jacobian", "displacement", "trust", "none"):
        check.nth(1).select_option(choice)
        page.wait_for_function(f"window.trame.state.get('settings').check === '{choice}'")
    page.locator(".glass").first.focus()
    page.keyboard.press("e")
    page.wait_for_function("window.trame.state.get('settings').edges")
    check.nth(0).select_option("warped")
    page.wait_for_function("window.trame.state.get('settings').prior === 'warped'")
    page.select_option("section[aria-label=Findings] select", "map")
    page.wait_for_selector("h3:has-text('Regions of the map')", timeout=120_000)
    page.wait_for_timeout(1000)


def scrolling(page: Any, viewer: psutil.Process, browser: list[psutil.Process]) -> dict[str, Any]:
    """How many pictures of the axial view a second of scrolling shows."""
    account = Account(viewer, browser)
    rate = float(page.evaluate(SCROLL, SCROLL_S))
    return {"pictures_per_s": round(rate, 1), "cpu_ms_per_picture": account.per(rate * SCROLL_S)}


def main() -> None:
    """Measure and write ``results/viewer.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scratch", type=Path, help="folder for the run")
    parser.add_argument("--tree", type=Path, default=ROOT, help="checkout whose library is measured")
    parser.add_argument("--case", default="512x512x300", help="name of the result")
    parser.add_argument("--start", type=Path, help="measure the start on this run alone")
    parser.add_argument("--dry", action="store_true", help="print only")
    arguments = parser.parse_args()
    from record import write_results

    if arguments.start is not None:
        results = {"start on the sample run": measure_start(arguments.start.resolve())}
    else:
        run = write_big_run(arguments.scratch / "viewer")
        results = {arguments.case: measure(run, arguments.tree.resolve())}
    print(results)
    if not arguments.dry:
        print(write_results("viewer", results))


if __name__ == "__main__":
    main()
