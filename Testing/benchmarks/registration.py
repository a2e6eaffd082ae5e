"""Registration against known correspondences, ours beside peers, in one run on the same cores.

    python Testing/benchmarks/registration.py DATA [--cases hard38mm ...] [--peers PYTHON] [--repeat 3]

DATA holds ``ct15`` and ``pairs``. ``--peers`` is the Python of an environment with ``picsl-greedy`` and ``SimpleITK``.
Wall time, CPU time and memory are of the whole process: start-up, reading, lung masks, rigid alignment, registration.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from record import measure, median, write_results
from registration_cases import CASES, Case

HERE = Path(__file__).parent


def main() -> None:
    """Measure every method on every case and write ``results/registration.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--peers", type=Path, help="Python of an environment with picsl-greedy")
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    methods = {"changemap default": [sys.executable, str(HERE / "registration_ours.py")]}
    if arguments.peers:
        methods["greedy NCC 2x2x2"] = [str(arguments.peers), str(HERE / "registration_greedy.py")]
    with tempfile.TemporaryDirectory() as scratch:
        for name in arguments.cases:
            case = CASES[name](arguments.data, Path(scratch), name)
            figures = {
                method: run(command, case, Path(scratch), arguments.repeat) for method, command in methods.items()
            }
            ours, *peers = figures.values()
            for peer in peers:
                peer["wall_ratio_ours_to_it"] = round(ours["wall_s"] / peer["wall_s"], 3)
            print(name, json.dumps(figures), flush=True)
            write_results("registration", {name: {"what": case.what, "repeats": arguments.repeat, **figures}})


def run(command: list[str], case: Case, scratch: Path, repeats: int) -> dict[str, Any]:
    """Figures of one method on one case; of times, the median."""
    given, out = scratch / "points.npy", scratch / "moved.npy"
    np.save(given, case.points.reference_mm)
    done = [measure([*command, str(case.reference), str(case.template), str(given), str(out)]) for _ in range(repeats)]
    error = np.linalg.norm(np.load(out) - case.points.template_mm, axis=1)
    group = case.points.group
    lung = error[group == "lung"]
    figures: dict[str, Any] = {
        "wall_s": median([one.wall_s for one in done]),
        "cpu_s": median([one.cpu_s for one in done]),
        "peak_memory_mb": median([one.peak_memory_mb for one in done]),
        "before_mm": round(float(np.linalg.norm(case.points.reference_mm - case.points.template_mm, axis=1).mean()), 3),
        "tre_mean_mm": round(float(lung.mean()), 3),
        "tre_p95_mm": round(float(np.percentile(lung, 95)), 3),
    }
    if (group == "vessel").any():
        figures["tre_vessels_mm"] = round(float(error[group == "vessel"].mean()), 3)
    lesions = [(str(g), round(float(e), 2)) for g, e in zip(group, error, strict=True) if g not in ("lung", "vessel")]
    if lesions:
        figures["lesion_centres_mm"] = lesions
    said = json.loads(done[-1].output.strip().splitlines()[-1])
    return {**figures, **{k: v for k, v in said.items() if k == "folding_percent"}}


if __name__ == "__main__":
    main()
