"""The lungs of one scan, as labels on its own grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.grid import Grid

RIGHT, LEFT = 1, 2  # labels; the patient's sides


@dataclass(frozen=True)
class Lungs:
    """The lungs of one scan.

    Attributes:
        labels: uint8 ``[z, y, x]`` on the scan's own grid: 0 none, 1 right lung, 2 left lung (patient's sides).
        grid: the scan's grid.
        right_ml: volume of the right lung.
        left_ml: volume of the left lung.
        notes: what a reader should know, one sentence each.
    """

    labels: NDArray[np.uint8]
    grid: Grid
    right_ml: float
    left_ml: float
    notes: tuple[str, ...] = ()

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Either lung, bool ``[z, y, x]``."""
        return self.labels > 0
