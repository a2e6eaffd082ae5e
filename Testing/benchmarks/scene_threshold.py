"""From a move of the threshold slider to three painted slice views, headless, on a scan of 512x512x300 voxels.

Run with: python Testing/benchmarks/scene_threshold.py
"""

from __future__ import annotations

import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from record import median, write_results

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scene"))

from headless import VIEWS, SliceView, make_application

from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.scene import layouts
from ChangeMapJointLib.scene.nodes import CURRENT
from ChangeMapJointLib.scene.overlay import Overlay
from ChangeMapJointLib.scene.volumes import node_of

SHAPE = (300, 512, 512)
PIXELS = (512, 512)
BAR_MS = 30.0


def main() -> None:
    """Measure 40 moves of the slider and write ``results/scene_threshold.json``."""
    views, overlay = scene()
    for threshold in np.linspace(0.1, 0.9, 5):  # warm
        move(overlay, views, float(threshold))
    times = [move(overlay, views, float(threshold)) for threshold in np.linspace(0.9, 0.1, 40)]
    figures = {
        "voxels": list(SHAPE[::-1]),
        "pixels": list(PIXELS),
        "views": len(views),
        "median_ms": median([1000 * one[0] for one in times]),
        "longest_ms": round(1000 * max(one[0] for one in times), 3),
        "median_scene_ms": median([1000 * one[1] for one in times]),
        "bar_ms": BAR_MS,
    }
    path = write_results("scene_threshold", {f"slicer-core {version('slicer-core')}": figures})
    print(
        f"median {figures['median_ms']} ms, of it without painting {figures['median_scene_ms']} ms; written to {path}"
    )


def scene() -> tuple[list[SliceView], Overlay]:
    """Three views of a noisy scan with the overlay of a blurred random map."""
    application = make_application()
    views = [SliceView(application, name, orientation, PIXELS) for name, orientation in VIEWS]
    rng, grid = np.random.default_rng(0), Grid(SHAPE, (0.7, 0.7, 1.0))
    scan = node_of(rng.integers(-1000, 300, SHAPE, dtype=np.int16), grid, "current", kind="scan")
    coarse = rng.random([n // 10 + 1 for n in SHAPE], dtype=np.float32)
    change = np.repeat(np.repeat(np.repeat(coarse, 10, 0), 10, 1), 10, 2)[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    signed = np.where(np.arange(SHAPE[2]) % 60 < 30, 1000, -1000).astype(np.int16) * np.ones(SHAPE, np.int16)
    layouts.set_layers(CURRENT, background=scan)
    layouts.fit(CURRENT, scan)
    overlay = Overlay()
    overlay.show(node_of(change, grid, "map"), node_of(signed, grid, "signed"), CURRENT)
    return views, overlay


def move(overlay: Overlay, views: list[SliceView], threshold: float) -> tuple[float, float]:
    """Seconds from the slider's move to all views painted, and of the pipelines without painting."""
    start = time.perf_counter()
    overlay.set_threshold(threshold)
    for view in views:
        view.logic.GetImageDataConnection().GetProducer().Update()
    ready = time.perf_counter()
    for view in views:
        view.render()
    return time.perf_counter() - start, ready - start


if __name__ == "__main__":
    main()
