"""The command ``changemap``, also ``python -m ChangeMapJointLib``.

Loading its packages takes a second or two. They are imported inside :func:`main`, so that Ctrl-C during
that time ends the program without a traceback.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys

COMPUTING = ("run", "demo", "series")  # they need PyTorch, which other commands load only where they compute
# between two short loops, threads of GNU's OpenMP (PyTorch's) and of OpenBLAS (NumPy's) wait by spinning, which takes
# the cores from everything else; results do not depend on it
WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_NUM_THREADS": "1"}


def main() -> None:
    """Entry point of ``changemap``."""
    # False where the caller has SIGINT ignored, as some shells do for background jobs
    default_handler = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if default_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # there is nothing to clean up yet
    computes = bool(sys.argv[1:2]) and sys.argv[1] in COMPUTING and "--help" not in sys.argv
    if computes:
        for name, value in WAITING.items():
            os.environ.setdefault(name, value)  # before NumPy and PyTorch are imported, which read them once
    try:
        if sys.argv[1:2] == ["view"]:  # the viewer needs little of the rest
            from ChangeMapJointLib.cli.view import main as command_line
        else:
            from ChangeMapJointLib.cli.main import main as command_line
        if computes:
            importlib.import_module("torch")
    finally:
        if default_handler:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    command_line()


if __name__ == "__main__":
    main()
