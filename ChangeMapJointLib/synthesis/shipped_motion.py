"""The real motions that ship with the project: five pairs of inspiration and expiration of Learn2Reg LungCT.

Benchmarks keep five more for judging alone. ``Resources/Motion/ATTRIBUTION.txt`` names the source.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from zipfile import BadZipFile

import numpy as np

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.resources import resource
from ChangeMapJointLib.io.sources import reason_of
from ChangeMapJointLib.synthesis.real_motion import RealMotion, fit_motion

PATIENTS = ("001", "003", "005", "007", "009")
UNIT_MM = 0.02  # of the file's integers


@dataclass(frozen=True)
class ShippedMotion:
    """One of the motions; it is fitted when it is first used in a process, which takes a second or two.

    Attributes:
        patient: one of :data:`PATIENTS`.
        backward: from inspiration to expiration instead of from expiration to inspiration.
    """

    patient: str
    backward: bool = False

    def __post_init__(self) -> None:
        if self.patient not in PATIENTS:
            raise InputError(f"found {self.patient!r}", field="patient", expected=f"one of {', '.join(PATIENTS)}")

    def fitted(self) -> RealMotion:
        """The motion.

        Raises:
            InputError: the file is missing or damaged.
        """
        return _fitted(self)


@cache
def _fitted(shipped: ShippedMotion) -> RealMotion:
    path = resource("Motion", "correspondences.npz")
    try:
        with np.load(path, allow_pickle=False) as file:
            points = file[shipped.patient].astype(float) * UNIT_MM
        first, second = points[:, :3], points[:, 3:6]
    except (OSError, BadZipFile, ValueError, KeyError, IndexError, EOFError) as error:
        raise InputError(
            f"cannot be read ({reason_of(error)})",
            field=path,
            expected="correspondences",
            remedy="install the project again",
        ) from error
    name = f"Learn2Reg LungCT {shipped.patient}{', backward' if shipped.backward else ''}"
    return fit_motion(name, *((second, first) if shipped.backward else (first, second)))
