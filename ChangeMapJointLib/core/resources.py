"""Locations of the files that ship with the project."""

from __future__ import annotations

import site
import sysconfig
from pathlib import Path

from ChangeMapJointLib.core.errors import InputError

SHARED = Path("share", "changemapjoint")


def resource_folders() -> list[Path]:
    """Return the folders that may hold the resources, in order of preference.

    ``Resources`` is beside the library in the source tree and in the installed Slicer extension. pip installs the files
    below ``share`` of the environment, the user or the target folder.
    """
    root = Path(__file__).resolve().parents[2]
    environments = [sysconfig.get_path("data"), site.getuserbase()]
    return [root / "Resources", root / SHARED, *(Path(folder) / SHARED for folder in environments)]


def resource(*parts: str) -> Path:
    """Return the path of a file or folder that ships with the project: ``resource("SamplePair", "truth.json")``.

    Raises:
        InputError: it is missing, for example in an installation without the sample data.
    """
    candidates = [folder.joinpath(*parts) for folder in resource_folders()]
    for path in candidates:
        if path.exists():
            return path
    raise InputError("missing from this installation", field=candidates[0], remedy="get the project's source tree")
