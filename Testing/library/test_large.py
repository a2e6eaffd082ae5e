"""Scans of more voxels than maps can use are averaged when they are read; where they lie is exact."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from phantoms import Sphere, chest_phantom, voxel_points, write_dicom

from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.core.reduce import block_any, block_grid, block_means
from ChangeMapJointLib.io import large
from ChangeMapJointLib.io.large import block_factors, limit_voxels
from ChangeMapJointLib.io.read import read_volume
from ChangeMapJointLib.io.write import write_nrrd
from ChangeMapJointLib.scan.volume import Volume

OBLIQUE = ((0.8, -0.6, 0.0), (0.6, 0.8, 0.0), (0.0, 0.0, -1.0))


def test_means_over_blocks_and_what_fills_none_is_left_out() -> None:
    array = np.random.default_rng(0).integers(-1024, 3000, (5, 7, 6)).astype(np.int16)
    means = block_means(array, (2, 3, 2))
    wanted = array[:4, :6].reshape(2, 2, 2, 3, 3, 2).mean(axis=(1, 3, 5))
    assert means.dtype == np.int16
    assert_array_equal(means, np.rint(wanted).astype(np.int16))
    assert_allclose(block_means(array.astype(np.float32), (2, 3, 2)), wanted, rtol=1e-6)
    assert_array_equal(block_any(array > 2500, (2, 3, 2)), wanted_any(array > 2500))


def wanted_any(mask: np.ndarray) -> np.ndarray:
    return mask[:4, :6].reshape(2, 2, 2, 3, 3, 2).any(axis=(1, 3, 5))


def test_a_ramp_keeps_its_place_to_a_hundredth_of_a_mm() -> None:
    """A linear function has at every block's centre the mean of the block."""
    grid = Grid((9, 11, 10), (0.4, 0.5, 0.7), (-12.0, 30.5, -700.25), OBLIQUE)
    coarse = block_grid(grid, (2, 2, 2))
    for axis in range(3):
        values = voxel_points(grid)[..., axis]
        assert_allclose(block_means(values, (2, 2, 2)), voxel_points(coarse)[..., axis], atol=1e-9)


@pytest.mark.parametrize("factors", [(1, 1, 6), (0, 1, 1)])
def test_blocks_that_cannot_be(factors) -> None:
    with pytest.raises(ValueError, match="factors"):
        block_means(np.zeros((2, 3, 4)), factors)


@pytest.mark.parametrize(
    ("shape", "spacing_mm", "factors"),
    [
        ((762, 512, 512), (0.7, 0.7, 0.45), (1, 1, 1)),
        ((1000, 512, 512), (0.7, 0.7, 0.35), (2, 1, 1)),
        ((320, 1024, 1024), (0.35, 0.35, 1.0), (1, 2, 2)),
        ((1000, 1024, 1024), (0.35, 0.35, 0.35), (2, 2, 2)),
        ((1000, 1024, 1024), (0.4, 0.4, 0.5), (2, 2, 2)),
        ((3, 20000, 20000), (0.02, 0.02, 5.0), (1, 4, 4)),
        ((2**31 - 1, 1, 1), (1.0, 1.0, 1.0), (16, 1, 1)),
    ],
)
def test_what_is_averaged(shape, spacing_mm, factors) -> None:
    assert block_factors(Grid(shape, spacing_mm), large.MOST_VOXELS) == factors


def test_a_scan_within_the_limit_is_the_very_same() -> None:
    volume = chest_phantom()
    assert limit_voxels(volume) is volume


def test_what_was_not_seen_in_a_part_of_a_block_is_not_seen() -> None:
    scan = chest_phantom()
    unseen = np.zeros(scan.array.shape, dtype=bool)
    unseen[:, :3] = True
    small = limit_voxels(replace(scan, unseen=unseen), scan.array.size // 2)
    assert small.unseen is not None
    assert_array_equal(small.unseen, np.arange(small.array.shape[1])[None, :, None] * np.ones(small.array.shape) < 2)


@pytest.mark.parametrize("kind", ["nrrd", "dicom"])
def test_a_large_scan_is_read_smaller_and_says_so(kind, tmp_path, monkeypatch) -> None:
    """A ball keeps its place and volume; half an edge voxel would be 1.25 mm."""
    centre = np.array((60.0, 5.0, 20.0))
    scan = chest_phantom((40, 104, 144), (2.5, 2.5, 5.0), lesions=[Sphere(tuple(centre), 20.0)], edge_mm=5.0)
    path = tmp_path / "scan"
    if kind == "nrrd":
        path = tmp_path / "scan.nrrd"
        write_nrrd(path, scan.array, scan.grid)
    else:
        write_dicom(path, scan)
    monkeypatch.setattr(large, "MOST_VOXELS", scan.array.size // 4)
    read = read_volume(path)
    assert read.array.shape == (40, 52, 72)
    assert read.array.dtype == np.int16
    assert_allclose(read.grid.spacing_mm, (5.0, 5.0, 5.0))
    assert_allclose(read.grid.origin_mm, scan.grid.to_physical((0.5, 0.5, 0.0)), atol=1e-6)
    assert_array_equal(read.array, block_means(scan.array, (1, 2, 2)))
    assert_allclose(centre_of_mass(read, centre), centre_of_mass(scan, centre), atol=0.01)
    assert "144 x 104 x 40 voxels were averaged to 72 x 52 x 40 of 5 x 5 x 5 mm" in read.notes[-1]


def centre_of_mass(volume: Volume, near_mm: np.ndarray) -> np.ndarray:
    """Of what is denser than lung within 30 mm of a point."""
    points = voxel_points(volume.grid)
    weight = (volume.array + 850.0).clip(0.0) * (np.linalg.norm(points - near_mm, axis=-1) < 30.0)
    return (points * weight[..., None]).sum(axis=(0, 1, 2)) / weight.sum()
