"""The command ``changemap``, also ``python -m ChangeMapJointLib``.

Loading its packages takes a second or two. They are imported inside :func:`main`, so that Ctrl-C during
that time ends the program without a traceback.
"""

from __future__ import annotations

import importlib
import signal
import sys

COMPUTING = ("run", "demo", "series")  # they need PyTorch, which other commands load only where they compute


def main() -> None:
    """Entry point of ``changemap``."""
    # False where the caller has SIGINT ignored, as some shells do for background jobs
    default_handler = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if default_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # there is nothing to clean up yet
    try:
        if sys.argv[1:2] == ["view"]:  # the viewer needs little of the rest
            from ChangeMapJointLib.cli.view import main as command_line
        else:
            from ChangeMapJointLib.cli.main import main as command_line
        if sys.argv[1:2] and sys.argv[1] in COMPUTING and "--help" not in sys.argv:
            importlib.import_module("torch")
    finally:
        if default_handler:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    command_line()


if __name__ == "__main__":
    main()
