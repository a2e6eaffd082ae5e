"""Frames and grids: every conversion against a hand-made value."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ChangeMapJointLib.core.grid import Grid, bounding_box, lps_to_ras

# axes permuted and flipped: array x runs to the head, array y to the patient's right, array z to the back
ODD = ((0.0, -1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0))


@pytest.fixture
def odd_grid() -> Grid:
    return Grid((4, 5, 6), (0.5, 0.7, 2.0), (10.0, -20.0, 30.0), ODD)


def test_index_to_physical_by_hand(odd_grid: Grid) -> None:
    # (i, j, k) = (1, 2, 3): 0.5 mm to the head, 1.4 mm to the right (-x), 6 mm to the back
    assert odd_grid.to_physical((1, 2, 3)) == pytest.approx((10.0 - 1.4, -20.0 + 6.0, 30.0 + 0.5))


@given(st.tuples(*[st.floats(-50, 50)] * 3))
def test_physical_and_index_are_inverse(index: tuple[float, float, float]) -> None:
    grid = Grid((4, 5, 6), (0.5, 0.7, 2.0), (10.0, -20.0, 30.0), ODD)
    assert grid.to_index(grid.to_physical(index)) == pytest.approx(index, abs=1e-9)


def test_unit_frame_has_first_and_last_centre_at_the_ends(odd_grid: Grid) -> None:
    ends = np.array([[0, 0, 0, 1], [5, 4, 3, 1]], dtype=float) @ odd_grid.unit_from_index.T
    assert ends[:, :3] == pytest.approx(np.array([[-1, -1, -1], [1, 1, 1]]))


def test_crop_keeps_voxels_in_place(odd_grid: Grid) -> None:
    crop = odd_grid.crop((1, 0, 2), (4, 5, 6))
    assert crop.shape == (3, 5, 4)
    assert crop.to_physical((0, 0, 0)) == pytest.approx(odd_grid.to_physical((2, 0, 1)))


def test_with_spacing_keeps_the_box_and_its_middle(odd_grid: Grid) -> None:
    other = odd_grid.with_spacing((1.0, 0.7, 4.0))
    assert other.shape == (2, 5, 3)  # extents 3 x 3.5 x 8 mm
    assert other.centre_mm == pytest.approx(odd_grid.centre_mm)
    assert other.extent_mm == pytest.approx(odd_grid.extent_mm)


def test_contains_counts_half_voxels_at_the_border() -> None:
    grid = Grid((2, 2, 2), (2.0, 2.0, 2.0))
    assert grid.contains([[-0.99, 0, 0], [-1.01, 0, 0], [2.99, 2.99, 2.99]]).tolist() == [True, False, True]


def test_same_as_sees_a_shift_and_a_turn() -> None:
    grid = Grid((4, 5, 6))
    assert grid.same_as(Grid((4, 5, 6)))
    assert not grid.same_as(Grid((4, 5, 6), origin_mm=(0.01, 0, 0)))
    assert not grid.same_as(Grid((4, 5, 6), direction=((-1, 0, 0), (0, -1, 0), (0, 0, 1))))


def test_simpleitk_agrees_about_every_corner(odd_grid: Grid) -> None:
    image = odd_grid.to_image(np.zeros(odd_grid.shape, np.int16))
    for index in ((0, 0, 0), (5, 0, 3), (1, 4, 2)):
        assert image.TransformIndexToPhysicalPoint(index) == pytest.approx(odd_grid.to_physical(index))
    assert Grid.of_image(image).same_as(odd_grid, 1e-9)


def test_ras_flips_x_and_y() -> None:
    assert lps_to_ras((1.0, 2.0, 3.0)).tolist() == [-1.0, -2.0, 3.0]


def test_bounding_box_with_margin_is_clipped() -> None:
    mask = np.zeros((5, 6, 7), bool)
    mask[2, 3, 1:4] = True
    assert bounding_box(mask) == ((2, 3, 1), (3, 4, 4))
    assert bounding_box(mask, (1, 0, 2)) == ((1, 3, 0), (4, 4, 6))
    with pytest.raises(ValueError, match="at least one"):
        bounding_box(np.zeros((2, 2, 2), bool))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"shape": (0, 2, 2)}, "shape"),
        ({"spacing_mm": (1.0, 0.0, 1.0)}, "spacing_mm"),
        ({"spacing_mm": (1.0, float("nan"), 1.0)}, "spacing_mm"),
        ({"direction": ((1, 0, 0), (0, 2, 0), (0, 0, 1))}, "direction"),
    ],
)
def test_impossible_grids_are_refused(change: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Grid(**{"shape": (2, 2, 2), **change})
