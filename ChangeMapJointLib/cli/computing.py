"""Which commands compute."""

from __future__ import annotations

COMPUTING = ("run", "demo", "series")  # they need PyTorch, which other commands load only where they compute


def is_computing(arguments: list[str]) -> bool:
    """Return whether the arguments of the command line start a command that compares scans.

    Examples:
        >>> is_computing(["run", "--method", "rigid"]), is_computing(["run", "--help"]), is_computing(["report", "run"])
        (True, False, False)
    """
    return bool(arguments) and arguments[0] in COMPUTING and "--help" not in arguments
