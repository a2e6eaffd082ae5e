"""What a command that computes needs before anything else is imported."""

from __future__ import annotations

import os

COMPUTING = ("run", "demo", "series")  # they need PyTorch, which other commands load only where they compute
# between two short loops, threads of GNU's OpenMP (PyTorch's) and of OpenBLAS (NumPy's) wait by spinning, which takes
# the cores from everything else; results do not depend on it
WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_NUM_THREADS": "1"}


def is_computing(arguments: list[str]) -> bool:
    """Return whether the arguments of the command line start a command that compares scans.

    Examples:
        >>> is_computing(["run", "--method", "rigid"]), is_computing(["run", "--help"]), is_computing(["report", "run"])
        (True, False, False)
    """
    return bool(arguments) and arguments[0] in COMPUTING and "--help" not in arguments


def let_threads_sleep() -> None:
    """Set :data:`WAITING` in the environment where the user has not; NumPy and PyTorch read it when imported."""
    for name, value in WAITING.items():
        os.environ.setdefault(name, value)
