"""Components and the list of findings at every threshold: the same as labelling the map anew."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from ChangeMapJointLib.change.threshold_list import ThresholdList
from ChangeMapJointLib.change.threshold_tree import StrongVoxels, ThresholdTree
from ChangeMapJointLib.core.grid import Grid

GRID = Grid((9, 11, 13), (0.8, 0.7, 2.0), (-10.0, 5.0, 100.0), ((0.0, -1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)))


def random_map(seed: int) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """Blobs of both signs with many ties among the values."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=GRID.shape), 0.8)
    signed = np.rint(smooth / np.abs(smooth).max() * 1050).astype(np.int16)
    return np.round(np.abs(signed) / 1050, 2).astype(np.float32), signed


def labelled(cm: NDArray[np.float32], signed: NDArray[np.int16], threshold: float, rank: int) -> set[frozenset[int]]:
    structure = ndimage.generate_binary_structure(3, rank)
    found = set()
    for direction in (signed >= 0, signed < 0):
        labels, count = ndimage.label((cm >= np.float32(threshold)) & direction, structure)
        found |= {frozenset(np.flatnonzero(labels == i + 1).tolist()) for i in range(count)}
    return found


@pytest.mark.parametrize(("connectivity", "rank"), [(6, 1), (18, 2), (26, 3)])
@pytest.mark.parametrize("seed", range(3))
def test_components_are_those_of_labelling_at_every_threshold(connectivity: int, rank: int, seed: int) -> None:
    cm, signed = random_map(seed)
    regions = ThresholdTree.of(cm, signed, GRID, floor=0.05, connectivity=connectivity)
    for threshold in (0.05, 0.1, 0.23, 0.4, 0.41, 0.68, 0.99, 1.0):
        label = regions.components(threshold)
        found = {frozenset(regions.voxels[: len(label)][label == i].tolist()) for i in np.unique(label)}
        assert found == labelled(cm, signed, threshold, rank)


def test_a_region_says_where_and_how_large_it_is() -> None:
    cm, signed = np.zeros(GRID.shape, np.float32), np.zeros(GRID.shape, np.int16)
    cm[4, 5, 6:9], signed[4, 5, 6:9] = (0.5, 0.9, 0.6), -600
    (region,) = ThresholdTree.of(cm, signed, GRID).at(0.5)
    assert (region.sign, region.voxels, region.peak) == (-1, 3, np.float32(0.9))
    assert region.volume_ml == pytest.approx(3 * 0.8 * 0.7 * 2.0 / 1000)
    np.testing.assert_allclose(region.peak_mm, GRID.to_physical([7, 5, 4]))
    np.testing.assert_allclose(region.centre_mm, GRID.to_physical([7, 5, 4]))
    assert region.key == np.ravel_multi_index((4, 5, 7), GRID.shape)
    assert ThresholdTree.of(cm, signed, GRID).at(0.5, min_voxels=4) == []


def test_nothing_above_the_floor_and_not_a_number_are_no_region() -> None:
    cm = np.full(GRID.shape, np.nan, np.float32)
    assert ThresholdTree.of(cm, np.zeros(GRID.shape, np.int16), GRID).at(0.1) == []
    assert ThresholdTree.of(np.zeros_like(cm), np.zeros(GRID.shape, np.int16), GRID).at(0.1) == []


def test_a_broken_map_raises_its_floor_and_stays_exact_above_it() -> None:
    cm, signed = random_map(7)
    regions = ThresholdTree.of(cm, signed, GRID, floor=0.01, most_voxels=100)
    assert regions.floor > 0.01
    assert 0 < len(regions.values) <= 100
    label = regions.components(0.01)
    found = {frozenset(regions.voxels[: len(label)][label == i].tolist()) for i in np.unique(label)}
    assert found == labelled(cm, signed, regions.floor, 3)


def test_arrays_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"ThresholdTree.of\(\) 'signed_hu' must have the grid's shape \(9, 11, 13\)"):
        ThresholdTree.of(np.zeros(GRID.shape, np.float32), np.zeros((2, 2, 2), np.int16), GRID)


def measured(number: int, kind: str, voxel: tuple[int, int, int]) -> dict[str, object]:
    point = GRID.to_physical(np.array(voxel[::-1], dtype=float))
    return {"id": number, "kind": kind, "peak_mm": point.tolist(), "trust": 0.9}


def two_humps() -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """Along x at (4, 5): a lesion of two humps that part above 0.5, and a weak one alone."""
    cm = np.zeros(GRID.shape, np.float32)
    cm[4, 5, 1:6] = (0.9, 0.8, 0.5, 0.7, 0.6)
    cm[4, 5, 9:11] = (0.45, 0.42)
    cm[1, 1, 1] = 0.95
    return cm, np.where(cm > 0, 700, 0).astype(np.int16)


def test_live_rows_take_over_what_was_measured() -> None:
    findings = [measured(1, "new", (4, 5, 1))]
    candidates = [measured(1, "grown", (4, 5, 1)), measured(2, "new", (4, 5, 9))]
    regions = ThresholdTree.of(*two_humps(), GRID)
    rows = ThresholdList(regions, findings, candidates, candidate_threshold=0.4, trust=lambda p: np.full(len(p), 0.3))
    low = rows.at(0.4, min_voxels=1)
    assert [(r.kind, r.trust) for r in low] == [("new", 0.9), ("increase", 0.3), ("new", 0.9)]
    assert [r.measured for r in low] == [findings[0], None, candidates[1]]

    split = rows.at(0.6, min_voxels=1)  # the humps part: the second one belongs to the candidate at the first's place
    assert [r.kind for r in split] == ["new", "increase"]
    assert split[0].key == low[0].key
    assert split[0].volume_ml == pytest.approx(4 * GRID.voxel_volume_ml)
    assert rows.at(0.6, min_voxels=3) == []
    assert [r.kind for r in rows.at(0.92, min_voxels=1)] == ["increase"]


def test_a_map_with_the_sign_of_the_change_gives_the_same_tree() -> None:
    rng = np.random.default_rng(8)
    grid = Grid((6, 20, 30), (1.0, 1.0, 2.0))
    change, hu = rng.random(grid.shape, np.float32), rng.normal(0, 100, grid.shape).astype(np.int16)
    change[0, 0, :5] = np.nan
    signed = np.where(hu < 0, -change, change)
    for most in (10_000, 500):
        one = ThresholdTree.of(change, hu, grid, most_voxels=most)
        other = ThresholdTree.over(StrongVoxels.of_signed(signed, grid, most_voxels=most))
        assert one.floor == other.floor
        for name in ("values", "signs", "voxels", "joins"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
