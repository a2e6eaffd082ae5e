"""The command ``changemap``, also ``python -m ChangeMapJointLib``.

Loading its packages takes a second or two. They are imported inside :func:`main`, so that Ctrl-C during
that time ends the program without a traceback.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys


def main() -> None:
    """Entry point of ``changemap``."""
    # False where the caller has SIGINT ignored, as some shells do for background jobs
    default_handler = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if default_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # there is nothing to clean up yet
    try:
        from ChangeMapJointLib.cli.computing import is_computing
        from ChangeMapJointLib.core.process import sleeping_threads

        computes = is_computing(sys.argv[1:])
        if computes:
            os.environ.update(sleeping_threads())
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
