"""PixelPaddingValue counts where it forms the outside of a slice, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
from phantoms import dicom_slices, random_scan, save_slices, set_pixels

from ChangeMapJointLib.io.read import read_volume

SIZE = 40
Y, X = np.mgrid[:SIZE, :SIZE]
RADIUS = np.hypot(Y - 19.5, X - 19.5)


def read(tmp_path, stored: np.ndarray, *, intercept: int = 0, **tags: object) -> np.ndarray:
    """HU of a scan whose slices all hold ``stored``; the tags' values are written as ``(VR, value)``."""
    slices = dicom_slices(random_scan(shape=(3, SIZE, SIZE)))
    for ds in slices:
        set_pixels(ds, stored)
        ds.RescaleIntercept = intercept
        for keyword, value in tags.items():
            if isinstance(value, tuple):
                ds.add_new(keyword, *value)
            else:
                setattr(ds, keyword, value)
    return read_volume(save_slices(tmp_path, slices)).array


def body(dtype: type = np.int16) -> np.ndarray:
    """Tissue of 1 to 60 in a round field of view, with water of exactly 0 in the middle."""
    stored = np.random.default_rng(0).integers(1, 60, (SIZE, SIZE))
    stored[RADIUS < 6] = 0
    return stored.astype(dtype)


def test_water_of_0_hu_stays_water_when_padding_is_0(tmp_path):
    stored = body()
    stored[RADIUS > 19.5] = 0
    found = read(tmp_path, stored, PixelPaddingValue=("SS", 0))
    outside = RADIUS > 19.5
    assert (found[:, outside] == -1024).all()
    np.testing.assert_array_equal(found[:, ~outside], np.broadcast_to(stored[~outside], (3, (~outside).sum())))


def test_single_pixels_of_the_value_at_the_edge_of_a_body_that_is_cut_stay_tissue(tmp_path):
    stored = body()
    stored[20:24, 0] = stored[0, 10] = stored[12:15, -1] = 0
    np.testing.assert_array_equal(read(tmp_path, stored, PixelPaddingValue=("SS", 0))[1], stored)


@pytest.mark.parametrize("patch", [np.s_[0, 0], np.s_[10:20, 0], np.s_[-3:, :], np.s_[:, -1]])
def test_corners_strips_and_rings_are_padding(tmp_path, patch):
    stored = body()
    stored[patch] = 0
    found = read(tmp_path, stored, PixelPaddingValue=("SS", 0))
    assert (found[1][patch] == -1024).all()
    assert (found[1][RADIUS < 6] == 0).all()


@pytest.mark.parametrize(
    ("dtype", "intercept", "padding", "value", "limit"),
    [
        (np.int16, 0, (-2000, -2000), ("SS", -2000), None),
        (np.int16, 0, (-2000, -2000), ("US", 63536), None),  # signed, written as unsigned
        (np.uint16, -1024, (63536, 63536), ("SS", -2000), None),  # and the reverse
        (np.int16, 0, (-2000, -1500), ("SS", -2000), ("SS", -1500)),
        (np.int16, 0, (-2000, -1500), ("SS", -1500), ("SS", -2000)),  # the ends exchanged
        (np.int16, 0, (-2000, -1500), ("US", 63536), ("US", 64036)),
        (np.uint16, -1024, (60000, 65535), ("US", 60000), ("US", 65535)),
        (np.uint16, -1024, (0, 0), ("US", 0), None),
        (np.int16, 0, (3071, 3071), ("SS", 3071), None),  # white outside
    ],
)
def test_values_and_ranges_however_they_are_written(tmp_path, dtype, intercept, padding, value, limit):
    stored = (body().astype(int) - intercept).astype(dtype)
    outside = RADIUS > 19.5
    stored[outside] = np.random.default_rng(1).integers(padding[0], padding[1] + 1, outside.sum()).astype(dtype)
    inside = RADIUS > 12
    inside &= RADIUS < 14
    stored[inside] = padding[0]
    tags = {"PixelPaddingValue": value} | ({"PixelPaddingRangeLimit": limit} if limit else {})
    found = read(tmp_path, stored, intercept=intercept, **tags)
    assert (found[:, outside] == -1024).all()
    np.testing.assert_array_equal(found[1][inside], max(padding[0] + intercept, -1024))


def test_a_range_that_holds_tissue_counts_as_its_value_alone(tmp_path):
    stored = body()
    stored[RADIUS > 19.5] = -2000
    found = read(tmp_path, stored, PixelPaddingValue=("SS", -2000), PixelPaddingRangeLimit=("SS", 3000))
    np.testing.assert_array_equal(found[1], np.maximum(stored, -1024))


def test_padding_counts_with_and_without_unused_bits(tmp_path):
    outside = RADIUS > 19.5
    stored = (body().astype(int) + 1024).astype(np.uint16)
    stored[outside] = 63536  # beyond the 12 bits that are stored
    found = read(tmp_path, stored, intercept=-1024, BitsStored=12, HighBit=11, PixelPaddingValue=("US", 63536))
    assert (found[:, outside] == -1024).all()
    stored[outside] = 4095 | 0x8000  # an overlay in the highest bit
    found = read(tmp_path / "b", stored, intercept=-1024, BitsStored=12, HighBit=11, PixelPaddingValue=("US", 4095))
    assert (found[:, outside] == -1024).all()
    np.testing.assert_array_equal(found[1][~outside], body()[~outside])
