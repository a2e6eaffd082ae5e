"""Registration against known correspondences, ours beside peers, in one run on the same two threads.

    python3 -m venv peers && peers/bin/pip install torch==2.13.0 && peers/bin/pip install -r Testing/benchmarks/registration_peers.txt
    python Testing/benchmarks/registration.py DATA [--peers peers/bin/python] [--cases hard38mm ...] [--methods ours greedy ...]

DATA holds ``ct15`` and ``pairs``. Wall time, CPU time and memory are medians over whole processes: start-up, reading,
lung masks, rigid or affine alignment, registration. Methods take turns, so that a busy machine is unfair to none. What is
measured is written at once to ``results/registration.json``; ``results/registration.png`` shows accuracy against time.
``--chart`` draws it again without measuring.
"""  # noqa: E501

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import registration_chart
from record import RESULTS, Measured, measure, median, metadata, write_results
from registration_cases import CASES, Case
from registration_measures import judge

HERE = Path(__file__).parent
OURS, LABEL = "ours", "ChangeMapJoint"
PEERS = {
    "greedy": "greedy NCC 2x2x2",
    "convexadam": "convexAdam",
    "elastix": "elastix B-spline NCC",
    "plastimatch": "plastimatch B-spline MSE",
    "demons": "SimpleITK demons",
    "ants": "ANTs SyNQuick",
}
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), "2")


def main() -> None:
    """Measure every method on every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--methods", nargs="+", default=[OURS, *PEERS], choices=[OURS, *PEERS])
    parser.add_argument("--peers", type=Path, help="Python of an environment with registration_peers.txt")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--chart", action="store_true", help="draw results/registration.json again, measure nothing")
    arguments = parser.parse_args()
    if not arguments.chart:
        if arguments.data is None:
            parser.error("DATA is missing: the folder that holds ct15 and pairs")
        methods = [name for name in arguments.methods if name == OURS or arguments.peers]
        os.environ.update(THREADS)
        started = metadata()
        for name in arguments.cases:
            with tempfile.TemporaryDirectory() as scratch:
                case = CASES[name](arguments.data, Path(scratch), name)
                found = run(case, methods, arguments, Path(scratch))
            what = {"what": case.what, "repeats": arguments.repeat}
            print(name, json.dumps(found), flush=True)
            found = {method: {**figures, "commit": started["commit"]} for method, figures in found.items()}
            write_results("registration", {name: {**what, "methods": {**earlier(name), **found}}}, started)
    registration_chart.draw(RESULTS / "registration.png", json.loads((RESULTS / "registration.json").read_text()))


def earlier(case: str) -> dict[str, Any]:
    """What other methods reached on this case in an earlier run."""
    path = RESULTS / "registration.json"
    document = json.loads(path.read_text("utf-8")) if path.exists() else {}
    methods = document.get(case, {}).get("methods", {})
    # times of different runs must not be compared
    return {name: {k: v for k, v in one.items() if k != "wall_ratio_to_greedy"} for name, one in methods.items()}


def run(case: Case, methods: list[str], arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Figures of every method on one case."""
    done: dict[str, list[Measured]] = {name: [] for name in methods}
    failed: dict[str, str] = {}
    for _ in range(arguments.repeat):
        for name in methods:
            if name in failed:
                continue
            out = scratch / name
            out.mkdir(exist_ok=True)
            try:
                done[name].append(measure(command("register", name, case, out, arguments.peers)))
            except RuntimeError as error:
                failed[name] = str(error).splitlines()[0]
    found: dict[str, Any] = {}
    for name in methods:
        label = PEERS.get(name, LABEL)
        if name in failed:
            found[label] = {"failed": failed[name].split(" from ")[0]}
            continue
        measure(command("dense", name, case, scratch / name, arguments.peers))
        found[label] = {
            "wall_s": median([one.wall_s for one in done[name]]),
            "cpu_s": median([one.cpu_s for one in done[name]]),
            "peak_memory_mb": median([one.peak_memory_mb for one in done[name]]),
            **judge(case, np.load(scratch / name / "dense.npy")),
        }
    reference = found.get(PEERS["greedy"], {}).get("wall_s")
    for figures in found.values():
        if reference and "wall_s" in figures:
            figures["wall_ratio_to_greedy"] = round(figures["wall_s"] / reference, 3)
    return found


def command(step: str, method: str, case: Case, out: Path, peers: Path | None) -> list[str]:
    """One child process: ``register``, which is timed, or ``dense``."""
    python, script = (
        (str(peers), "registration_peers.py") if method in PEERS else (sys.executable, "registration_ours.py")
    )
    return [python, str(HERE / script), step, method, str(case.reference), str(case.template), str(out)]


if __name__ == "__main__":
    main()
