"""What every benchmark shares: a measured child process, and JSON with its provenance."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ChangeMapJointLib.io.provenance import git_commit, versions

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Measured:
    """One finished process: wall and CPU seconds, peak resident memory, exit code, standard output."""

    wall_s: float
    cpu_s: float
    peak_memory_mb: float
    exit_code: int
    output: str


def measure(arguments: list[str]) -> Measured:
    """Run a command to its end and account for it as the operating system does.

    Raises:
        RuntimeError: it did not end well; there is nothing to measure then.
    """
    start = time.monotonic()
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        output = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"exit code {child.returncode} from {' '.join(arguments)}")
    scale = 1e6 if sys.platform == "darwin" else 1e6 / 1024
    return Measured(
        round(time.monotonic() - start, 2),
        round(usage.ru_utime + usage.ru_stime, 2),
        round(usage.ru_maxrss / scale, 1),
        child.returncode,
        output,
    )


def median(values: list[float]) -> float:
    """The median, to three digits after the point."""
    return round(statistics.median(values), 3)


def write_results(name: str, results: dict[str, Any], measured: dict[str, Any] | None = None) -> Path:
    """Write the cases of ``results`` into ``results/NAME.json``, each with its commit, versions and machine.

    Cases that are already there and were not measured this time stay as they are. A long run gives ``measured``, the
    :func:`metadata` of its start.
    """
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    document = json.loads(path.read_text("utf-8")) if path.exists() else {}
    measured = measured or metadata()
    document.update({case: {**figures, "metadata": measured} for case, figures in results.items()})
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return path


def metadata() -> dict[str, Any]:
    """Commit (with + where the tree differs from it), versions, processor and cores."""
    return {"commit": commit(), "versions": versions(), "machine": platform.machine(), "cores": os.cpu_count()}


def commit() -> str:
    """Short hash of HEAD, with + where the library or its resources differ from it; 'unknown' outside of git."""
    return git_commit() or "unknown"
