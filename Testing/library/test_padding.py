"""Padding round the field of view is found, and is neither air nor change."""

from __future__ import annotations

import numpy as np
import pytest

from ChangeMapJointLib.change.maps import change_map, match_voxel_blur, signed_change
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.scan.padding import find_padding, find_unseen, mark_unseen, unseen_mask
from ChangeMapJointLib.scan.volume import Volume

GRID = Grid((6, 60, 80), (1.5, 1.5, 1.5))
Y, X = np.mgrid[:60, :80]
ROUND = np.hypot(Y - 29.5, X - 39.5) < 25.0


def lung_with_vessels(seed: int = 0) -> np.ndarray:
    hu = np.random.default_rng(seed).normal(-850.0, 30.0, GRID.shape)
    hu[:, :, ::8] += 890.0
    return np.maximum(np.rint(hu), -1024).astype(np.int16)


def test_what_lies_outside_a_round_field_of_view_is_padding() -> None:
    hu = lung_with_vessels()
    hu[:, ~ROUND] = -1024
    found = find_unseen(hu)
    assert found is not None
    assert found[:, ~ROUND].all()
    assert not found[:, np.hypot(Y - 29.5, X - 39.5) < 21.0].any()


def test_a_scan_without_padding_has_none() -> None:
    assert find_unseen(lung_with_vessels()) is None
    noise = np.random.default_rng(1).normal(-1000.0, 12.0, GRID.shape)
    assert find_unseen((np.rint(noise / 4) * 4).astype(np.int16)) is None  # air, with HU rounded to 4


FILLS = (-3024, -2000, -1024, -1000, -500, 0, 40, 3071)


@pytest.mark.parametrize("value", FILLS)
def test_a_fill_is_found_whatever_its_value(value: int) -> None:
    hu = lung_with_vessels()
    hu[:, ~ROUND] = value
    volume = mark_unseen(Volume(hu, GRID))
    assert volume.unseen is not None
    assert volume.unseen[:, ~ROUND].all()
    assert not volume.unseen[:, np.hypot(Y - 29.5, X - 39.5) < 21.0].any()
    assert (volume.array[:, ~ROUND] == -1024).all()
    assert (volume.array[:, ROUND] == hu[:, ROUND]).mean() > 0.999  # tissue beside it may have its value by chance
    assert (hu[:, ~ROUND] == value).all()  # the input stays as it is


@pytest.mark.parametrize("value", FILLS)
@pytest.mark.parametrize("width", [1, 2, 7])
def test_a_ring_and_whole_slices_are_found(value: int, width: int) -> None:
    fill = find_padding(np.pad(lung_with_vessels(), width, constant_values=value))
    assert fill is not None
    expected = np.ones(fill.shape, dtype=bool)
    expected[width:-width, width:-width, width:-width] = False
    assert fill[expected].all()
    assert fill[~expected].mean() < 0.002  # tissue beside it may have its value by chance


@pytest.mark.parametrize("value", [-1000.0, 0.0, 12.5])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_wedges_of_a_turned_scan_are_found(value: float, axis: int) -> None:
    """As ``scipy.ndimage.rotate`` or any resampling leaves them: six degrees about each axis."""
    hu = np.random.default_rng(2).normal(-850.0, 30.0, (60, 60, 60))
    plane = tuple(k for k in range(3) if k != axis)
    a, b = np.deg2rad(6) * np.array([1, -1])
    u, v = np.meshgrid(*(np.arange(60) - 29.5 for _ in plane), indexing="ij")
    outside = np.maximum(np.abs(np.cos(a) * u + np.sin(a) * v), np.abs(np.cos(b) * v + np.sin(b) * u)) > 29.5
    hu = np.where(np.expand_dims(outside, axis), value, hu)
    unseen = find_unseen(hu)
    assert unseen is not None
    missed = np.broadcast_to(np.expand_dims(outside, axis), hu.shape) & ~unseen
    assert missed.mean() < 0.002  # the very tips of the wedges
    far = np.hypot(u, v) < 25.0
    assert not unseen[np.broadcast_to(np.expand_dims(far, axis), hu.shape)].any()


def test_a_volume_says_itself_what_it_does_not_show() -> None:
    unseen = np.zeros(GRID.shape, dtype=bool)
    unseen[0] = True
    with pytest.raises(ValueError, match=r"Volume\.unseen: found shape .*, the grid's"):
        Volume(lung_with_vessels(), GRID, unseen=unseen[1:])
    assert unseen_mask(Volume(lung_with_vessels(), GRID, unseen=unseen)) is unseen
    assert unseen_mask(Volume(lung_with_vessels(), GRID)) is None


def test_the_darkest_air_inside_is_no_padding() -> None:
    hu = lung_with_vessels()
    hu[2:4, 20:30, 30:44] = -1024  # a bulla in a scan without noise
    assert find_unseen(hu) is None
    hu[:, ~ROUND] = -1024
    found = find_unseen(hu)
    assert found is not None
    assert not found[2:4, 20:30, 30:44].any()


@pytest.mark.parametrize("side", ["reference", "template"])
@pytest.mark.parametrize("template_mm", [1.5, 3.0])
@pytest.mark.parametrize("fill", [-1024, -1000, 0])
def test_nothing_has_changed_where_one_scan_is_padded(side: str, template_mm: float, fill: int) -> None:
    whole, cut = lung_with_vessels(), lung_with_vessels()
    cut[:, ~ROUND] = fill
    pair = (cut, whole) if side == "reference" else (whole, cut)
    template_grid = Grid(GRID.shape, (1.5, 1.5, template_mm))  # only its voxel size matters here
    scans = [mark_unseen(Volume(hu, GRID)) for hu in pair]
    unseen = {"reference_unseen": scans[0].unseen, "template_unseen": scans[1].unseen}
    r, t = match_voxel_blur(scans[0].array, GRID, scans[1].array, template_grid, **unseen)
    everywhere = np.ones(GRID.shape, dtype=bool)
    cm, signed = change_map(r, t, everywhere), signed_change(r, t)
    assert not cm[:, ~ROUND].any()
    assert not signed[:, ~ROUND].any()
    assert np.isfinite(r[:, np.hypot(Y - 29.5, X - 39.5) < 21.0]).all()
    if template_mm == 1.5:
        assert not cm.any()


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("count", [2, 9])
def test_planes_that_repeat_the_outermost_are_padding(axis: int, count: int) -> None:
    """As programs leave them that extrapolate by the nearest voxel."""
    hu = lung_with_vessels()
    widths = [(0, 0)] * 3
    widths[axis] = (count, count + 3)
    found = find_padding(np.pad(hu, widths, mode="edge"))
    assert found is not None
    expected = np.ones(found.shape, dtype=bool)
    expected[tuple(slice(a, a + n) for (a, _), n in zip(widths, hu.shape, strict=True))] = False
    assert found[expected].all()
    assert found[~expected].mean() < 0.002  # beside it may be the value of a corner by chance
    one = np.pad(hu, [(1, 0) if k == axis else (0, 0) for k in range(3)], mode="edge")
    assert find_padding(one) is None  # a slice may be there twice


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("times", [3, 10])
def test_thick_slices_enlarged_by_the_nearest_voxel_have_no_padding(axis: int, times: int) -> None:
    """The outermost slice is repeated, but so are all others: all of them were measured."""
    assert find_padding(np.repeat(lung_with_vessels(), times, axis=axis)) is None
