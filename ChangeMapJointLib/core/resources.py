"""Where the files that ship with the project are."""

from __future__ import annotations

import site
import sysconfig
from pathlib import Path

from ChangeMapJointLib.core.errors import InputError

SHARED = Path("share", "changemapjoint")


def places() -> list[Path]:
    """Folders that may hold the resources, the nearest first.

    ``Resources`` lies beside the library in the source tree and in the installed Slicer extension; pip puts the files
    below the environment's, the user's or the target's ``share``.
    """
    beside = Path(__file__).resolve().parents[2]
    environments = [sysconfig.get_path("data"), site.getuserbase()]
    return [beside / "Resources", beside / SHARED, *(Path(one) / SHARED for one in environments)]


def resource(*parts: str) -> Path:
    """A file or folder that ships with the project, for example ``resource("SamplePair", "truth.json")``.

    Raises:
        InputError: it is not there, for example in an installation without the sample data.
    """
    found = [place.joinpath(*parts) for place in places()]
    for path in found:
        if path.exists():
            return path
    raise InputError("missing from this installation", field=found[0], remedy="get the project's source tree")
