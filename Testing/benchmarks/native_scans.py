"""Scans with their whole field of view: lungs of a plausible size, no outside air, no finding where only motion is.

    python Testing/benchmarks/native_scans.py DATA [NAME ...]

DATA holds ``native``. Every scan is compared with a copy moved by a known smooth motion (breathing of 20 mm at the
diaphragm, 2 degrees, 5 mm, density follows), by the sequential method. Results: ``results/native_scans.json``.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from record import metadata, write_results

from ChangeMapJointLib.change.method_table import METHODS
from ChangeMapJointLib.comparison.compare import compare_scans
from ChangeMapJointLib.comparison.config import RunConfig
from ChangeMapJointLib.comparison.stages import Stages
from ChangeMapJointLib.gate.checks import check_ct
from ChangeMapJointLib.io.read import read_volume
from ChangeMapJointLib.lungs.check import _outside_ml
from ChangeMapJointLib.lungs.segment import segment_lungs
from ChangeMapJointLib.scan.volume import Volume
from ChangeMapJointLib.synthesis.acquisition import SimulatedScan, move_scan
from ChangeMapJointLib.synthesis.motion import MotionOptions, draw_motion

MOTION = MotionOptions(diaphragm_mm=20.0)
SEED = 19


def measure(path: Path) -> dict[str, Any]:
    template = check_ct(read_volume(path))
    lungs = segment_lungs(template)
    motion = draw_motion(lungs.mask, template.grid, seed=SEED, options=MOTION)
    none = np.zeros(lungs.labels.shape, dtype=np.int32)
    source = SimulatedScan(hu_of(template), lungs.mask, none, template.grid)
    hu = np.maximum(np.rint(move_scan(source, motion, template.grid).hu), -1024).astype(np.int16)
    reference = check_ct(Volume(hu, template.grid, Path(f"moved {path.name}")))
    stages, began = Stages(METHODS["sequential"].shares), time.process_time()
    result = compare_scans(reference, template, config=RunConfig(), device=torch.device("cpu"), stages=stages)
    index = np.argwhere(result.pair.reference.mask)[::97, ::-1]
    points = reference.grid.to_physical(index)
    error = np.linalg.norm(result.deformation.apply(points) - motion(points), axis=1)
    assert result.maps is not None
    assert result.findings is not None
    return {
        "right_l": round(lungs.right_ml / 1000, 3),
        "left_l": round(lungs.left_ml / 1000, 3),
        "outside_air_ml": round(_outside_ml(hu_of(template), lungs.mask, template.grid.spacing_mm[0]), 1),
        "gate": result.gate.answer,
        "verdict": result.quality.verdict,
        "findings": len(result.findings.items) + result.findings.withheld,
        "highest": round(float(result.maps.change_map.max()), 3),
        "tre_mm": round(float(error.mean()), 3),
        "tre_p95_mm": round(float(np.percentile(error, 95)), 3),
        "cpu_s": round(time.process_time() - began, 1),
    }


def hu_of(volume: Volume) -> NDArray[np.float32]:
    return volume.array.astype(np.float32)


def main() -> None:
    data, names = Path(sys.argv[1]), sys.argv[2:]
    paths = sorted((data / "native").glob("*_full_ct.nii.gz"))
    started = metadata()
    for path in paths:
        name = path.name.split("_full")[0]
        if names and name not in names:
            continue
        figures = measure(path)
        print(name, figures, flush=True)
        write_results("native_scans", {name: figures}, started)


if __name__ == "__main__":
    main()
