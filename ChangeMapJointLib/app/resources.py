"""Where the files that ship with the project are."""

from __future__ import annotations

from pathlib import Path

from ChangeMapJointLib.core.errors import InputError


def resource(*parts: str) -> Path:
    """A file or folder below ``Resources`` of the source tree.

    Raises:
        InputError: it is not there, for example in an installation without the sample data.
    """
    path = Path(__file__).resolve().parents[2].joinpath("Resources", *parts)
    if not path.exists():
        raise InputError(f"{path}: missing from this installation; get the project's source tree")
    return path
