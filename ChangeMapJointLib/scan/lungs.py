"""The lungs of one scan as labels on its grid."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ChangeMapJointLib.core.filters import label_sizes
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.scan.volume import require_array

RIGHT, LEFT = 1, 2  # labels; the patient's sides


@dataclass(frozen=True)
class Lungs:
    """The lungs of one scan.

    Attributes:
        labels: uint8 ``[z, y, x]`` on the scan's own grid: 0 none, 1 right lung, 2 left lung (patient's sides).
        grid: the scan's grid.
        right_ml: volume of the right lung in ml.
        left_ml: volume of the left lung in ml.
        notes: remarks for the reader, one sentence each.
    """

    labels: NDArray[np.uint8]
    grid: Grid
    right_ml: float
    left_ml: float
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, labels: NDArray[np.generic], grid: Grid) -> Lungs:
        """Make lungs from the mask or labels of another program.

        Args:
            labels: ``[z, y, x]`` on ``grid``: bool, or 1 for the right and 2 for the left lung. A bool mask counts as
                right.
            grid: the scan's grid.

        Raises:
            InputError: ``labels`` is no array of the grid's shape.
        """
        require_array(labels, "lungs", grid.shape)
        sides = np.asarray(labels).astype(np.uint8)
        voxels = label_sizes(sides, minlength=3)
        right_ml, left_ml = (float(voxels[side] * grid.voxel_volume_ml) for side in (RIGHT, LEFT))
        return cls(sides, grid, right_ml, left_ml)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Both lungs, bool ``[z, y, x]``."""
        return self.labels > 0


def is_on_missing_lung(note: str) -> bool:
    """Return whether a note of the segmentation says that one lung is missing, small or outside the field of view.

    Examples:
        >>> is_on_missing_lung("No right lung was found."), is_on_missing_lung("The lungs touch; they were separated.")
        (True, False)
    """
    return re.match(r"The field of view ends|No (right|left) lung|The (right|left) lung is small", note) is not None
