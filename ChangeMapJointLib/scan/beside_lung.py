"""How much of the chest a scan shows beside the larger lung: none where it was cropped to one lung."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.grid import Grid, bounding_box
from ChangeMapJointLib.scan.lungs import LEFT, RIGHT

SMALL_SHARE = 0.35  # of the larger lung: less is a lung that is missing, or outside the scan
LEAST_BESIDE = 0.5  # of the larger lung's width: less does not hold another lung, however small the patient


@dataclass(frozen=True)
class BesideLung:
    """The measured part of a scan beside the larger lung, towards the other side of the body.

    Attributes:
        side: label of the other, smaller lung.
        width_mm: from the larger lung to the edge of what was measured.
        share: the same, relative to the width of the larger lung; a normal chest has about 1.
    """

    side: int
    width_mm: float
    share: float

    @property
    def holds_a_lung(self) -> bool:
        """Whether another lung would fit in."""
        return self.share >= LEAST_BESIDE

    @property
    def ends(self) -> str:
        """Where the scan ends, seen from the larger lung, in words."""
        return "at" if self.width_mm < 1 else f"{self.width_mm:.0f} mm beyond"


def beside_larger_lung(
    labels: NDArray[np.uint8], grid: Grid, unseen: NDArray[np.bool_] | None = None
) -> BesideLung | None:
    """Measure how far a scan reaches beside its larger lung.

    Args:
        labels: ``[z, y, x]``, 1 right and 2 left lung, +x to the patient's left, such as ``grid.lps_view()`` gives.
        grid: of ``labels``.
        unseen: where nothing was measured, likewise; None where all was.

    Returns:
        The part beside the larger lung; None without lungs, or where both have similar volumes.
    """
    voxels = {label: int(np.count_nonzero(labels == label)) for label in (RIGHT, LEFT)}
    large = RIGHT if voxels[RIGHT] >= voxels[LEFT] else LEFT
    side = RIGHT + LEFT - large
    if not voxels[large] or voxels[side] >= SMALL_SHARE * voxels[large]:
        return None
    (z0, y0, x0), (z1, y1, x1) = bounding_box(labels == large)
    beside = slice(x1, None) if large == RIGHT else slice(0, x0)
    columns = labels.shape[2] - x1 if large == RIGHT else x0
    if unseen is not None and columns:
        columns = int((~unseen[z0:z1, y0:y1, beside].all(axis=(0, 1))).sum())
    return BesideLung(side, columns * grid.spacing_mm[0], columns / (x1 - x0))
