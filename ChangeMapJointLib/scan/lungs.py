"""The lungs of one scan as labels on its grid."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.filters import label_sizes
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.scan.volume import require_array

RIGHT, LEFT = 1, 2  # labels; the patient's sides
BETWEEN = 0.25  # the mask's largest sagittal section is four times that between two lungs
OUTER = 0.1  # share of the mask beside which no plane between two lungs lies
OVERHANG = 0.05  # share of a connected part that may reach over that plane, as the left lung does in front of the heart


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
    def of(cls, labels: NDArray[np.generic], grid: Grid, *, sides_known: bool = False) -> Lungs:
        """Make lungs from the mask or labels of another program.

        Args:
            labels: ``[z, y, x]`` on ``grid``: 1 for the right and 2 for the left lung, or a mask, bool or 0 and 1. Two
                lungs of a mask get their sides; a single one counts as the right lung.
            grid: the scan's grid.
            sides_known: 1 always is the right lung, as in the labels of a run.

        Raises:
            InputError: ``labels`` is no array of the grid's shape, or holds other values.

        Example:
            >>> mask = np.zeros((4, 4, 9), bool)
            >>> mask[:, :, :3] = mask[:, :, 6:] = True  # x grows to the patient's left
            >>> Lungs.of(mask, Grid((4, 4, 9))).labels[0, 0].tolist()
            [1, 1, 1, 0, 0, 0, 2, 2, 2]
        """
        require_array(labels, "lungs", grid.shape)
        with np.errstate(invalid="ignore"):  # compared below
            sides = labels.astype(np.uint8)
        if not np.array_equal(sides, labels) or sides.max(initial=0) > LEFT:
            found = np.unique(labels)
            shown = ", ".join(f"{value:g}" for value in found[:6]) + (", ..." if len(found) > 6 else "")
            raise InputError(
                f"found the values {shown}",
                field="lungs",
                expected=f"0, {RIGHT} for the right and {LEFT} for the left lung, or a mask",
                remedy="for labels of lobes, pass labels > 0",
            )
        if not sides_known and LEFT not in sides:
            sides = _with_sides(sides > 0, grid)
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


def _with_sides(mask: NDArray[np.bool_], grid: Grid) -> NDArray[np.uint8]:
    """Labels of a mask ``[z, y, x]`` of one or two lungs; a single lung is labelled as the right one.

    Between two lungs the mask's sagittal section is small. Each connected part belongs to the side on which it lies;
    only lungs that touch are cut at the plane between them.
    """
    labels = mask.astype(np.uint8)  # 1 is RIGHT
    axis = int(np.argmax(np.abs(np.asarray(grid.direction)[0])))  # of the array's x, y, z, the nearest to left-right
    along = 2 - axis
    section = np.count_nonzero(mask, axis=tuple(a for a in range(3) if a != along))
    inner = np.cumsum(section) / max(int(section.sum()), 1)
    between = np.flatnonzero((inner > OUTER) & (inner < 1 - OUTER))
    if not len(between) or section[between].min() >= BETWEEN * section.max():
        return labels
    lowest = between[section[between] == section[between].min()]
    plane = int(lowest[len(lowest) // 2])
    towards_left = grid.direction[0][axis] > 0
    beyond = np.arange(mask.shape[along]) > plane
    on_left = np.expand_dims(beyond if towards_left else ~beyond, tuple(a for a in range(3) if a != along))
    parts, count = ndimage.label(mask)
    sizes = label_sizes(parts, minlength=count + 1)
    left_sizes = label_sizes(np.where(on_left, parts, 0), minlength=count + 1)
    share = left_sizes / np.maximum(sizes, 1)
    whole = np.where(share > 0.5, LEFT, RIGHT).astype(np.uint8)
    touching = np.minimum(share, 1 - share) > OVERHANG
    sides = np.where(touching[parts], np.where(on_left, LEFT, RIGHT), whole[parts])
    return np.where(mask, sides, 0).astype(np.uint8)
