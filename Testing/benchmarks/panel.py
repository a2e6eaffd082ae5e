"""The module's panel in the stand-in host: opening, slider, table, stalls while a worker runs, twenty runs in a row.

    python Testing/benchmarks/panel.py
    python Testing/benchmarks/panel.py --runs 0  # without the twenty runs, whose figures stay as they are

A 512 x 512 x 300 pair of closed-form chests for slider and table, with the files of a judged run on the grids that a
run would write; the sample pair for the runs. Times are those of the host (Qt 6, software rendering), see
``Testing/module/README.md``: it also copies each picture from VTK to Qt, which Slicer does not.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ChangeMapJointLib.change.sections import BY_MAP
from ChangeMapJointLib.core.grid import Grid

ROOT = Path(__file__).resolve().parents[2]
for folder in ("Testing/module/host", "Testing/module"):
    sys.path.insert(0, str(ROOT / folder))
MODULE = ROOT / "ChangeMapJoint" / "ChangeMapJoint.py"
SMALL = ROOT / "Testing" / "module" / "data" / "MiniChange" / "MiniChange.py"
SHAPE = (300, 512, 512)
WORKING_MM = 1.5  # of deformation, Jacobian and trust of a run
LISTS = {"judged": "standard", "by_map": BY_MAP}
VIEWS = {"three_views": 3, "compare": 6, "read": 3}
OPEN = """
import sys, time
sys.path.insert(0, {host!r})
import slicerhost
slicerhost.boot()
small, module = slicerhost.load_module({small!r}), slicerhost.load_module({module!r})
slicerhost.open_module(small)
start, cpu = time.perf_counter(), time.process_time()
slicerhost.open_module(module)
print(time.perf_counter() - start, time.process_time() - cpu, "torch" in sys.modules)
"""


def opening(repeats: int) -> dict[str, Any]:
    """Seconds from selecting the module to its panel, each in a new process.

    Another module was open before, as in Slicer, so that the host's own start does not count. Python has compiled the
    files before, which it does at the first opening after an update.
    """
    code = OPEN.format(host=str(ROOT / "Testing" / "module" / "host"), module=str(MODULE), small=str(SMALL))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    seconds, cpu, torch = [], [], set()
    for repeat in range(repeats + 1):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        taken, used, imported = done.stdout.split()[-3:]
        if repeat:
            seconds.append(float(taken))
            cpu.append(float(used))
        torch.add(imported == "True")
    medians = {"median_s": round(statistics.median(seconds), 3), "median_cpu_s": round(statistics.median(cpu), 3)}
    return {**medians, "torch_imported": torch == {True}, "repeats": repeats}


def in_host(runs: int) -> dict[str, Any]:
    """Everything that needs an open panel."""
    import slicerhost

    app = slicerhost.boot()
    import slicer
    from slicerhost import load_module, open_module, user

    module = load_module(MODULE)
    from ChangeMapJointGui.runs import Runs

    app.mainWindow().resize(1900, 1100)
    with tempfile.TemporaryDirectory() as jobs:
        Runs.root = Path(jobs)
        widget = open_module(module)
        results = {"slider_and_table": slider(widget, app, user)}
        slicer.mrmlScene.Clear(0)
        if runs:
            results["stalls"], results["runs_in_a_row"] = in_a_row(widget, app, user, runs)
        slicerhost.close_module("ChangeMapJoint")
    if slicerhost.errors.entries:
        raise RuntimeError(str(slicerhost.errors))
    return results


def slider(widget: Any, app: Any, user: Any) -> dict[str, Any]:
    """From a new threshold to all views painted, in three layouts and with both lists; and the lists alone."""
    import numpy as np
    import panel_samples
    import slicer

    from ChangeMapJointLib.scene import layouts

    panel_samples.GRID = Grid(SHAPE, (0.6, 0.5, 0.7), (-150.0, -130.0, -320.0))
    current, prior = panel_samples.nodes()
    job = panel_samples.finished_job(widget.logic.runs.root, current, prior, is_judged=True)
    write_coarse(job.result, panel_samples)
    seconds = {}
    start = time.perf_counter()
    user.choose(widget.ui.referenceSelector, current)
    user.choose(widget.ui.templateSelector, prior)
    seconds["choose_pair_s"] = round(time.perf_counter() - start, 2)
    start = time.perf_counter()
    widget.panel.loadJob(job)
    app.processEvents()
    seconds["load_result_s"] = round(time.perf_counter() - start, 2)
    thresholds = np.linspace(0.3, 0.8, 26)
    manager, slid = slicer.app.layoutManager(), {}
    three = slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView
    for name, layout in (("three_views", three), ("compare", layouts.COMPARE), ("read", layouts.READ)):
        manager.setLayout(layout)
        for listed, key in LISTS.items():
            widget.panel.parameters.listBy = key
            settled(app)
            for threshold in thresholds[::4]:  # warm
                move(widget, app, threshold)
            settled(app)
            begin = time.process_time()
            slid[f"{name}_{listed}_ms"] = timed(lambda t: move(widget, app, t), thresholds)
            used = 1000 * (time.process_time() - begin) / len(thresholds)
            slid[f"{name}_{listed}_mean_cpu_ms"] = round(used, 1)  # tells whether the machine was busy
            if (widget.panel.findings.byProbability, len(shown(manager))) != (listed == "judged", VIEWS[name]):
                raise RuntimeError(f"{name}: {shown(manager)}, judged: {widget.panel.findings.byProbability}")
    widget.panel.parameters.listBy = BY_MAP
    lists = timed(lambda t: widget.panel.session.findings(float(t), 5, (1, -1)), thresholds)

    def fill(_threshold: float) -> None:
        widget.panel.findings._shown = ()
        widget.panel.findings.update()

    tables = timed(fill, thresholds)
    settled(app)
    return {
        "voxels": list(SHAPE),
        **seconds,
        "slider": slid,
        "table_update_ms": tables,
        "list_of_findings_ms": lists,
        "rows": len(widget.panel.findings.rows),
    }


def write_coarse(folder: Path, samples: Any) -> None:
    """Write deformation, Jacobian and trust as coarse as a run writes them; the deformation has every second vector."""
    import numpy as np

    from ChangeMapJointLib.core.displacement import DisplacementField
    from ChangeMapJointLib.io.write import write_displacement, write_nrrd

    def grid(spacing_mm: float) -> Grid:
        sides = [round(n * h / spacing_mm) for n, h in zip(SHAPE, samples.GRID.spacing_mm[::-1], strict=True)]
        return Grid((sides[0], sides[1], sides[2]), (spacing_mm,) * 3, samples.GRID.origin_mm)

    coarse, matrix = grid(WORKING_MM), np.eye(4)
    matrix[:3, 3] = samples.SHIFT_MM
    field = DisplacementField.from_affine(matrix, grid(2 * WORKING_MM))
    write_displacement(folder / "deformation.nrrd", field, compress=False)
    write_nrrd(folder / "jacobian.nrrd", np.full(coarse.shape, 1.3, np.float32), coarse, compress=False)
    z, y, x = np.ogrid[tuple(slice(n) for n in coarse.shape)]
    at = coarse.to_index(samples.GONE_MM)
    near = (x - at[0]) ** 2 + (y - at[1]) ** 2 + (z - at[2]) ** 2 < (30 / WORKING_MM) ** 2
    write_nrrd(folder / "trust.nrrd", np.where(near, 0.2, 0.9).astype(np.float32), coarse, compress=False)


def move(widget: Any, app: Any, threshold: float) -> None:
    """Move the slider, and paint."""
    widget.ui.thresholdSlider.value = float(threshold)
    app.processEvents()


def settled(app: Any) -> None:
    """Let timers run that wait for the slider to rest."""
    until = time.perf_counter() + 0.5
    while time.perf_counter() < until:
        app.processEvents()


def shown(manager: Any) -> list[str]:
    """Names of the slice views on screen."""
    return [view for view in manager.sliceViewNames() if manager.sliceWidget(view).isVisible()]


def timed(act: Callable[[float], Any], values: Any) -> float:
    """Median milliseconds of ``act`` over ``values``."""
    taken = []
    for value in values:
        start = time.perf_counter()
        act(value)
        taken.append(1000 * (time.perf_counter() - start))
    return round(statistics.median(taken), 1)


def in_a_row(widget: Any, app: Any, user: Any, runs: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Apply again and again on one scene: the longest stall of the main thread, and what grows."""
    import psutil
    from ChangeMapJointGui.sample_data import loadSamplePair
    from headless import node_count, observation_count

    reference, template = loadSamplePair()
    user.choose(widget.ui.referenceSelector, reference)
    user.choose(widget.ui.templateSelector, template)
    stalls, seconds, counts, loads = [], [], [], []
    load = widget.panel.loadJob

    def loading(job: Any) -> bool:
        stalls.append(stall.longest_s)  # the worker has ended: what follows is loading
        begin = time.perf_counter()
        done = load(job)
        loads.append(time.perf_counter() - begin)
        return done

    widget.panel.loadJob = loading
    for _ in range(runs):
        start = time.monotonic()
        user.click(widget.ui.applyButton)
        with user.StallTimer() as stall:
            while widget.logic.runs.running:
                app.processEvents()
                time.sleep(0.001)
        app.processEvents()
        seconds.append(time.monotonic() - start)
        gc.collect()
        counts.append((node_count(), observation_count(), len(psutil.Process().children(recursive=True))))
    longest = {"longest_ms": round(1000 * max(stalls), 1), "median_ms": round(1000 * statistics.median(stalls), 1)}
    longest["loading_the_result_s"] = round(statistics.median(loads), 2)
    names = ("nodes", "observations", "processes")
    growth = {name: counts[-1][i] - counts[1][i] for i, name in enumerate(names)}
    return longest, {
        "runs": runs,
        "median_s": round(statistics.median(seconds), 1),
        "growth_from_second_to_last": growth,
    }


def main() -> None:
    """Measure and write ``results/panel.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--runs", type=int, default=20, help="in a row; 0 leaves out runs and stalls")
    arguments = parser.parse_args()
    from record import write_results

    results = {"opening": opening(arguments.repeats), **in_host(arguments.runs)}
    print(results)
    print(write_results("panel", results))


if __name__ == "__main__":
    main()
