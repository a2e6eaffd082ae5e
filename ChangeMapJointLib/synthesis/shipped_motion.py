"""The real motions that ship with the project: five pairs of inspiration and expiration of Learn2Reg LungCT.

Benchmarks keep five more for judging alone. ``Resources/Motion/ATTRIBUTION.txt`` names the source.
"""

from __future__ import annotations

from functools import cache
from zipfile import BadZipFile

import numpy as np

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.resources import resource
from ChangeMapJointLib.synthesis.real_motion import RealMotion, fit_motion

PATIENTS = ("001", "003", "005", "007", "009")
UNIT_MM = 0.02  # of the file's integers


@cache
def shipped_motion(patient: str, *, backward: bool = False) -> RealMotion:
    """The motion of one of :data:`PATIENTS`, from expiration to inspiration, or backward.

    Takes a second or two the first time in a process.

    Raises:
        InputError: there is no such patient, or the file is missing or damaged.
    """
    if patient not in PATIENTS:
        raise InputError(f"found {patient!r}", field="patient", expected=f"one of {', '.join(PATIENTS)}")
    path = resource("Motion", "correspondences.npz")
    try:
        with np.load(path, allow_pickle=False) as file:
            points = file[patient].astype(float) * UNIT_MM
        first, second = points[:, :3], points[:, 3:6]
    except (OSError, BadZipFile, ValueError, KeyError, IndexError, EOFError) as error:
        raise InputError(
            f"cannot be read ({error})", field=path, expected="correspondences", remedy="install the project again"
        ) from error
    name = f"Learn2Reg LungCT {patient}{', backward' if backward else ''}"
    return fit_motion(name, *((second, first) if backward else (first, second)))
