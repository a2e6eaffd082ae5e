"""The command ``changemap``, also ``python -m ChangeMapJointLib``.

Its packages take a second or two to load. They are imported here, in :func:`main`, so that Ctrl-C in
that time ends the program without a traceback.
"""

from __future__ import annotations

import signal


def main() -> None:
    """Entry point of ``changemap``."""
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else it is ignored, as with nohup
    if ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # there is nothing to clean up yet
    try:
        from ChangeMapJointLib.cli.main import main as command_line
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    command_line()


if __name__ == "__main__":
    main()
