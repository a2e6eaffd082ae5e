"""Cohorts of closed-form chests, and comparisons that take no time, for the tests and the benchmark of cohorts."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
from phantoms import Sphere, chest_phantom

from ChangeMapJointLib import __version__
from ChangeMapJointLib.cohort.pairs import CohortPair
from ChangeMapJointLib.comparison.output import check_output, run_folder
from ChangeMapJointLib.comparison.run import Request
from ChangeMapJointLib.comparison.save import without_folders
from ChangeMapJointLib.comparison.stages import Listener, ProgressEvent
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.options import to_mapping
from ChangeMapJointLib.io import run_files
from ChangeMapJointLib.io.provenance import sha256_of
from ChangeMapJointLib.io.write import write_nrrd

QUALITY = {
    "residual_hu": 12.0, "residual_rigid_hu": 60.0, "folding_percent": 0.0, "jacobian_min": 0.7, "jacobian_max": 1.4,
    "sd_log_jacobian": 0.1, "lung_dice": 0.98, "lung_dice_rigid": 0.9, "inverse_consistency_mm": 0.5,
    "inverse_consistency_p95_mm": 1.0, "keypoint_error_mm": 0.8, "keypoints_found": 900, "keypoints_dropped": 20,
    "overlap": 1.0, "trusted_percent": 97.0, "verdict": "good", "reasons": [],
}  # fmt: skip
PICTURE = (  # a PNG of one pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def write_scans(folder: Path, count: int, *, size_mm: float = 6.0) -> list[CohortPair]:
    """Write pairs of small chests: the prior is moved, and every second pair has a new nodule."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = tuple(round(n * 5.0 / size_mm) for n in (40, 52, 72))
    rng = np.random.default_rng(5)
    pairs = []
    for number in range(count):
        shift = rng.uniform(-4, 4, 3)
        lesions = [Sphere((60.0, float(rng.uniform(-10, 10)), 20.0), 12.0)] if number % 2 else []
        now = chest_phantom(shape, (size_mm,) * 3, edge_mm=size_mm, lesions=lesions)
        before = chest_phantom(shape, (size_mm,) * 3, edge_mm=size_mm, moved=lambda points, s=shift: points + s)
        paths = [folder / f"{number:04d}_{name}.nrrd" for name in ("now", "before")]
        for path, scan in zip(paths, (now, before), strict=True):
            write_nrrd(path, scan.array, scan.grid)
        pairs.append(CohortPair(f"pair{number:04d}", *paths))
    return pairs


def write_list(path: Path, pairs: list[CohortPair]) -> Path:
    """Write the list of a cohort."""
    rows = [f"{pair.id},{pair.reference},{pair.template}" for pair in pairs]
    path.write_text("\n".join(["id,reference,template", *rows]) + "\n", "utf-8")
    return path


def write_stub_scans(folder: Path, count: int) -> list[CohortPair]:
    """Write files of a few bytes that :func:`stub` takes for scans."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = []
    for number in range(count):
        paths = [folder / f"{number}_{name}.txt" for name in ("now", "before")]
        for path in paths:
            path.write_text(f"{path.name}\n")
        pairs.append(CohortPair(f"p{number}", *paths))
    return pairs


def stub(request: Request, listener: Listener) -> None:
    """Write the folder of a run without comparing anything; the text of the current scan says what goes wrong.

    ``refuse``, ``fault``, ``full``: raise; ``kill``: kill the worker, half-way through the folder, the first time;
    ``deadly``: every time; ``slow``: report progress for a minute; ``verdict V``: end with that verdict.
    """
    words = request.reference.read_text("utf-8").split()
    if "refuse" in words:
        raise InputError("is not a chest CT", field=request.reference)
    if "fault" in words:
        raise ZeroDivisionError("a fault")
    check_output(request.out, [request.reference, request.template], overwrite=request.overwrite)
    quality = {**QUALITY, "verdict": " ".join(words[words.index("verdict") + 1 :]) if "verdict" in words else "good"}
    with run_folder(request.out, overwrite=request.overwrite) as folder:
        (folder / run_files.CHANGE_MAP).write_bytes(b"half")
        if "full" in words:
            raise OSError(28, "No space left on device")
        struck = request.reference.with_suffix(".struck")
        if "deadly" in words or ("kill" in words and not struck.exists()):
            struck.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if "slow" in words:
            struck.touch()
            for step in range(6000):
                listener(ProgressEvent("register", step / 6000, 0.0, None))
                time.sleep(0.01)
        write_stub_run(folder, request, quality)


def write_stub_run(folder: Path, request: Request, quality: dict[str, Any]) -> None:
    """Write the records of a run."""
    scans = {side: getattr(request, side) for side in ("reference", "template")}
    run = {
        "schema": run_files.SCHEMA,
        "started": "2026-01-02T03:04:05+00:00",
        **{side: {"name": path.name, "sha256": sha256_of(path), "acquisition": {}} for side, path in scans.items()},
        "configuration": without_folders(to_mapping(request.config)),
        "versions": {"changemapjoint": __version__},
        "device": {"type": "cpu"},
        "model_sha256": None,
    }
    (folder / run_files.RUN).write_text(json.dumps(run))
    (folder / run_files.QUALITY).write_text(json.dumps({"quality": quality}))
    finding = {"findings": [], "threshold": 0.5, "operating_point": "standard"}
    (folder / run_files.FINDINGS).write_text(json.dumps(finding))
    (folder / run_files.REPORT).write_text(f'<img src="data:image/png;base64,{PICTURE}">')
