"""Voxels without a number are padding where they form the outside, and refused inside."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from image_samples import nifti, save
from lung_samples import chest, dice, lungs_of_chest
from phantoms import input_error, random_scan
from scipy import ndimage

from ChangeMapJointLib.change.maps import change_map, match_voxel_blur
from ChangeMapJointLib.comparison.inputs import read, volume_of_image
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.gate.checks import check_ct
from ChangeMapJointLib.io.read import read_volume
from ChangeMapJointLib.lungs.segment import segment_lungs
from ChangeMapJointLib.scan.missing import _enclosed, hu_and_unseen
from ChangeMapJointLib.scan.volume import Volume

NO_NUMBERS = [np.nan, np.inf, -np.inf, float(np.finfo(np.float32).max)]  # the last is what ITK calls its largest


def turned_field(volume: Volume, outside: float) -> tuple[np.ndarray, np.ndarray]:
    """The scan as resampling to another grid leaves it: a slanted field of view, with ``outside`` beyond it."""
    z, y, x = np.indices(volume.array.shape)
    _, ny, nx = volume.array.shape
    beyond = (np.abs(0.97 * (x - nx / 2) + 0.26 * (y - ny / 2)) > 0.45 * nx) | (y + 0.1 * z < 12)
    return np.where(beyond, outside, volume.array).astype(np.float32), beyond


def test_the_lungs_are_those_of_the_plain_scan(tmp_path):
    volume = chest()
    array, beyond = turned_field(volume, np.nan)
    plain = lungs_of_chest()
    assert 0.1 < beyond.mean() < 0.4
    scan = read(volume_of_image(volume.grid.to_image(array)))
    found = segment_lungs(scan)
    assert found.right_ml == pytest.approx(plain.right_ml, rel=0.01)
    assert found.left_ml == pytest.approx(plain.left_ml, rel=0.01)
    assert dice(found.labels > 0, plain.labels > 0) > 0.98
    assert scan.unseen is not None
    assert scan.unseen[beyond].all()
    assert scan.array.dtype == np.int16
    assert (scan.array[beyond] == -1024).all()
    assert not any("NaN" in note for note in scan.notes)  # padding like any other


def test_a_volume_made_in_python_gives_the_same():
    volume = chest()
    array, _ = turned_field(volume, np.nan)
    direct, as_image = check_ct(replace(volume, array=array)), read(volume_of_image(volume.grid.to_image(array)))
    np.testing.assert_array_equal(direct.unseen, as_image.unseen)
    np.testing.assert_array_equal(direct.array, as_image.array)


def test_nothing_has_changed_where_one_scan_has_no_numbers():
    plain = chest(noise_hu=20.0)
    array, beyond = turned_field(plain, np.nan)
    other = check_ct(replace(plain, array=array))
    r, t = match_voxel_blur(plain.array, plain.grid, other.array, plain.grid, template_unseen=other.unseen)
    assert not change_map(r, t, np.ones(beyond.shape, bool)).any()


@pytest.mark.parametrize("suffix", ["nrrd", "nii.gz", "mha"])
@pytest.mark.parametrize("outside", NO_NUMBERS)
def test_every_format_and_every_such_value(tmp_path, suffix, outside):
    values = random_scan(shape=(9, 8, 7)).array.astype(np.float32)
    values[:, 0] = values[-1] = values[:5, 4:6, 3] = outside  # also a shaft that opens at the bottom only
    found = read_volume(save(tmp_path / f"a.{suffix}", values))
    there = np.abs(values) < 1e30
    np.testing.assert_array_equal(found.unseen, ~there)
    np.testing.assert_array_equal(found.array, np.where(there, values, -1024))


@pytest.mark.parametrize("inside", NO_NUMBERS)
def test_holes_inside_are_refused_by_number_and_place(tmp_path, inside):
    values = random_scan(shape=(9, 8, 7)).array.astype(np.float32)
    values[0, 0, 0] = values[4, 3, 2] = values[5, 3, 2] = inside
    text = input_error(save(tmp_path / "a.nrrd", values))
    assert "2 voxel(s) inside the volume are NaN or infinite, the first at index (2, 3, 4), expected" in text
    assert text.endswith("repair it or resample it again")


def test_no_number_at_all(tmp_path):
    with pytest.raises(InputError, match="all voxels are NaN or infinite"):
        hu_and_unseen(np.full((3, 3, 3), np.nan))


def test_what_is_enclosed_is_found_slice_by_slice_as_in_the_whole_volume():
    """Against labels of the whole volume: spirals, corners that touch, and patches that join two slices further up."""
    rng = np.random.default_rng(0)
    for share in (0.05, 0.15, 0.3, 0.6):
        for _ in range(15):
            mask = rng.random(rng.integers(1, 9, 3)) < share
            labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
            outer = np.zeros(count + 1, bool)
            for axis in range(3):
                outer[np.take(labels, [0, -1], axis)] = True
            outer[0] = True
            inner = np.flatnonzero(~outer[labels])
            assert _enclosed(mask) == (inner.size, inner[0] if inner.size else mask.size)


@pytest.mark.parametrize("whole", [True, False], ids=["int16", "float32"])
def test_memory_for_a_volume_without_numbers_outside_is_bounded(whole):
    """Beside the array: a byte per voxel for the mask, the result where it is int16, and a few slices."""
    array = np.full((120, 256, 256), 40.0 if whole else 40.5, dtype=np.float32)
    array[:, :60], array[:20] = np.nan, np.nan
    tracemalloc.start()
    hu, unseen = hu_and_unseen(array, overwrite=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < ((3 if whole else 1) * array.size + 30 * array[0].nbytes)
    assert hu.dtype == (np.int16 if whole else np.float32)
    assert np.shares_memory(hu, array) is not whole
    assert unseen is not None
    assert (hu[unseen] == -1024).all()
    assert (hu[~unseen] >= 40).all()


def test_the_array_of_the_caller_is_kept():
    array = np.full((3, 4, 5), 0.5, dtype=np.float32)
    array[0] = np.nan
    before = array.copy()
    hu_and_unseen(array)
    np.testing.assert_array_equal(array, before)


def test_too_large_for_float32_is_no_number():
    values = np.zeros((4, 4, 4))
    values[0] = 1e300
    hu, unseen = hu_and_unseen(values)
    assert unseen is not None
    assert unseen[0].all()
    assert not unseen[1:].any()
    assert (hu[0] == -1024).all()


def test_voxels_without_numbers_move_with_a_tilt(tmp_path):
    values = np.zeros((6, 20, 5), np.float32)
    values[:, 8:12, 2:] = np.nan
    sheared = np.diag([1.0, 1.0, 3.0, 1.0])
    sheared[1, 2] = 1.0
    found = read_volume(nifti(tmp_path / "a.nii", values, pixdim=(1.0, 1.0, 3.0), sform=sheared))
    assert found.unseen is not None
    rows = [np.flatnonzero(plane[:, 4]).min() for plane in found.unseen]
    assert np.abs(np.diff(rows)).tolist() == [1] * 5
    assert (found.array[found.unseen] < 0).all()
