"""Lungs made from another program's mask or labels: each lung gets its side, and nothing else passes as a lung."""

import numpy as np
import pytest
from numpy.typing import NDArray

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.scan.lungs import LEFT, RIGHT, Lungs

SHAPE = (24, 30, 48)
SPACING = (6.0, 6.0, 7.0)


def two_lungs(*, bridge: bool = False) -> NDArray[np.uint8]:
    """Labels of two ellipsoids; the left one reaches beyond the middle in front of the heart."""
    z, y, x = np.indices(SHAPE)
    labels = np.zeros(SHAPE, np.uint8)
    for side, middle in ((RIGHT, 13), (LEFT, 35)):
        labels[((z - 12) / 11) ** 2 + ((y - 15) / 13) ** 2 + ((x - middle) / 9) ** 2 < 1] = side
    labels[10:13, 6:8, 23:28] = LEFT
    if bridge:
        labels[12, 15, 22:25] = RIGHT
        labels[12, 15, 25:27] = LEFT
    return labels


@pytest.mark.parametrize(("axes", "direction"), [
    ((0, 1, 2), ((1, 0, 0), (0, 1, 0), (0, 0, 1))),
    ((2, 1, 0), ((0, 0, 1), (0, 1, 0), (1, 0, 0))),  # sagittal slices
    ((1, 0, 2), ((1, 0, 0), (0, 0, 1), (0, 1, 0))),  # coronal slices
])  # fmt: skip
@pytest.mark.parametrize("flipped", [False, True])
def test_both_lungs_of_a_mask_get_their_sides(axes, direction, flipped) -> None:
    labels = two_lungs().transpose(axes)
    columns = np.array(direction, dtype=float)
    if flipped:  # the same patient, stored from left to right
        along = 2 - int(np.argmax(np.abs(columns[0])))
        labels, columns = np.flip(labels, along), columns.copy()
        columns[:, 2 - along] *= -1
    grid = Grid(labels.shape, SPACING, direction=tuple(map(tuple, columns.tolist())))
    lungs = Lungs.of(labels > 0, grid)
    np.testing.assert_array_equal(lungs.labels, labels)
    for numbers in (np.uint8, np.float32):  # as other programs write a mask
        np.testing.assert_array_equal(Lungs.of((labels > 0).astype(numbers), grid).labels, labels)
    assert lungs.right_ml == pytest.approx((labels == RIGHT).sum() * grid.voxel_volume_ml)
    assert lungs.left_ml == pytest.approx((labels == LEFT).sum() * grid.voxel_volume_ml)


def test_lungs_that_touch_are_cut_between_them() -> None:
    labels = two_lungs(bridge=True)
    sides = Lungs.of(labels > 0, Grid(SHAPE, SPACING)).labels
    assert np.count_nonzero(sides != labels) <= 12  # of the bridge, and of the part beyond the middle
    np.testing.assert_array_equal(sides > 0, labels > 0)


@pytest.mark.parametrize("side", [RIGHT, LEFT])
def test_a_mask_of_one_lung_counts_as_right(side) -> None:
    """Also where it is in two parts, as beside a large tumour."""
    one = two_lungs() == side
    grid = Grid(SHAPE, SPACING)
    np.testing.assert_array_equal(Lungs.of(one, grid).labels, one * RIGHT)
    one[11:13] = False
    np.testing.assert_array_equal(Lungs.of(one, grid).labels, one * RIGHT)
    assert not Lungs.of(np.zeros(SHAPE, bool), grid).labels.any()


def test_labels_are_kept() -> None:
    labels = two_lungs()
    right = (labels > 0).astype(np.uint8)
    np.testing.assert_array_equal(Lungs.of(right, Grid(SHAPE, SPACING), sides_known=True).labels, right)
    for values in (labels, labels.astype(float), labels.astype(np.int16)):
        kept = Lungs.of(values, Grid(SHAPE, SPACING)).labels
        assert kept.dtype == np.uint8
        np.testing.assert_array_equal(kept, labels)


@pytest.mark.parametrize("values", [[0, 10, 14], [0, 256], [0, 257], [0, 0.5], [0, float("nan")], [-1, 0], [0, 255]])
def test_other_labels_are_refused(values) -> None:
    """256 became no lung, and the lobes of another program lungs of 0 ml."""
    labels = np.resize(np.array(values), SHAPE)
    with pytest.raises(InputError, match=r"lungs: found the values .*, expected 0, 1 for the right and 2 for the left"):
        Lungs.of(labels, Grid(SHAPE, SPACING))
