"""Matching: exact where it can be checked by trying everything, and known motion recovered in mm."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from scipy import ndimage

from ChangeMapJointLib.core.displacement import DisplacementField, warp
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.core.resample import index_points
from ChangeMapJointLib.registration.keypoints.match import MatchingOptions, Search, match_keypoints, unit_gradients
from ChangeMapJointLib.registration.keypoints.spanning_tree import SpanningTree, min_convolve
from ChangeMapJointLib.registration.pyramid import ScanView

GRID = Grid((44, 46, 48), (2.0, 2.0, 2.0), (-30.0, 20.0, 500.0))


def volumes(count: int, side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(size=(count, side, side, side)).astype(np.float32)


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "numpy"])
def test_min_convolution_against_trying_everything(compiled: bool) -> None:
    costs, weights = volumes(2, 4), np.array([0.02, 0.3], np.float32)
    shifts, spacing = np.array([[0.5, -1.0, 2.0], [0, 0, 0]], np.float32), np.array([1.0, 2.0, 1.5], np.float32)
    found = min_convolve(costs, weights, shifts, spacing, compiled=compiled)
    places = np.array(list(product(range(4), repeat=3)), float)
    for n in range(2):
        for d in ((0, 0, 0), (1, 3, 2), (3, 0, 1)):
            apart = (places - d) * spacing + shifts[n]
            expected = (costs[n].ravel() + weights[n] * (apart**2).sum(1)).min()
            assert found[(n, *d)] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "numpy"])
def test_belief_propagation_is_exact_on_the_tree(compiled: bool) -> None:
    """Three points in a chain with a side branch: the min-marginals of all 27^4 assignments."""
    points = np.array([[0.0, 0, 0], [5, 0, 0], [10, 1, 0], [5, 4, 0]])
    tree = SpanningTree.over(points)
    costs = volumes(4, 3, seed=4)
    base = np.random.default_rng(5).normal(size=(4, 3)).astype(np.float32)
    spacing = np.array([2.0, 1.0, 1.5], np.float32)
    found = tree.propagate(costs, base, spacing, stiffness=0.4, compiled=compiled)
    places = np.array(list(product(range(3), repeat=3)), float) * spacing
    total = 0.0
    shape = [27] * 4
    for n in range(4):
        total = total + costs[n].reshape([27 if k == n else 1 for k in range(4)])
    for n in range(4):
        up = int(tree.parent[n])
        if up == n:
            continue
        a, b = places + base[n], places + base[up]
        pair = 0.4 / tree.length_mm[n] * ((a[:, None] - b[None]) ** 2).sum(-1)
        index = [27 if k in (n, up) else 1 for k in range(4)]
        total = total + (pair if n < up else pair.T).reshape(index)
    total = np.broadcast_to(total, shape)
    for n in range(4):
        expected = total.min(axis=tuple(k for k in range(4) if k != n))
        assert found[n].ravel() - found[n].min() == pytest.approx(
            expected - expected.min(), abs=1e-4
        )  # up to a constant


def test_a_tree_of_many_nodes_loses_no_precision() -> None:
    """On a chain of 5,000 the energy of the whole is thousands of times what tells one displacement from another."""
    count = 5000
    points = np.stack([np.arange(count) * 3.0, np.zeros(count), np.zeros(count)], axis=1)
    costs, base = volumes(count, 3, seed=6), np.zeros((count, 3), np.float32)
    found = SpanningTree.over(points).propagate(costs, base, np.ones(3, np.float32), stiffness=0.1)
    places = np.array(list(product(range(3), repeat=3)), float)
    penalty = 0.1 / 3 * ((places[:, None] - places[None]) ** 2).sum(-1)
    flat = costs.reshape(count, 27).astype(float)
    ahead, behind = np.zeros((count, 27)), np.zeros((count, 27))
    for n in range(1, count):
        ahead[n] = (flat[n - 1] + ahead[n - 1] + penalty).min(axis=1)
        behind[-1 - n] = (flat[-n] + behind[-n] + penalty).min(axis=1)
    exact = flat + ahead + behind
    exact -= exact.min(axis=1, keepdims=True)
    flat_found = found.reshape(count, 27)
    assert np.abs(flat_found - flat_found.min(axis=1, keepdims=True) - exact).max() < 1e-4


def test_the_tree_joins_what_the_neighbours_leave_apart() -> None:
    rng = np.random.default_rng(3)
    points = np.concatenate([rng.normal(size=(30, 3)), rng.normal(size=(30, 3)) + 100.0, rng.normal(size=(5, 3)) - 90])
    tree = SpanningTree.over(points, neighbours=4)
    assert sorted(np.concatenate(tree.levels).tolist()) == list(range(65))
    assert (tree.length_mm > 50).sum() == 2  # two bridges between three heaps


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "numpy"])
def test_unit_gradients_give_the_ngf_distance(compiled: bool) -> None:
    """One minus the squared inner product is 0 for equal ramps, 0.75 for orthogonal ones at slope = edge."""
    x, y = np.meshgrid(np.arange(12.0), np.arange(12.0), indexing="xy")
    grid, lungs = Grid((12, 12, 12)), np.ones((12, 12, 12), bool)
    a, b = (np.broadcast_to(10 * v, (12, 12, 12)).astype(np.float32) for v in (x, y))
    ua, ub = (unit_gradients(v, grid, lungs, compiled=compiled)[6, 6, 6] for v in (a, b))
    assert float(ua @ ua) == pytest.approx(1.0)
    edge = 0.5 * 10 / np.sqrt(3)  # half the 80 % rule: one of three axes changes
    assert 1 - float(ua @ ub) ** 2 == pytest.approx(1 - (edge**2 / (100 + edge**2)) ** 2, rel=1e-4)


def lung(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in GRID.shape], indexing="ij")
    inside = (x / 0.8) ** 2 + (y / 0.8) ** 2 + (z / 0.8) ** 2 < 1
    blobs = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=GRID.shape), 1.5)
    hu = np.where(inside, np.where(blobs > 1.3 * blobs.std(), 0.0, -850.0), 40.0)
    return ndimage.gaussian_filter(hu, 0.8).astype(np.float32), inside


def picture(image: np.ndarray, lungs: np.ndarray, grid: Grid = GRID) -> ScanView:
    return ScanView(torch.as_tensor(image), torch.as_tensor(lungs.astype(np.float32)), grid)


def inner_points(lungs: np.ndarray, every: int = 60) -> np.ndarray:
    inner = ndimage.binary_erosion(lungs, iterations=4)
    return GRID.to_physical(np.argwhere(inner)[::every, ::-1].astype(float))


def test_a_large_motion_is_found_in_millimetres() -> None:
    """Up to 20 mm, and a rigid start that lies 200 mm away: partners are within two thirds of a voxel in the mean."""
    image, lungs = lung()
    points = index_points(GRID, GRID.affine).numpy() - np.asarray(GRID.centre_mm)
    size = np.exp(-((points / 40.0) ** 2).sum(-1))[..., None]
    y = DisplacementField((size * np.array([6.0, -8.0, 17.0])).astype(np.float32), GRID)
    reference, lungs_r = warp(image, GRID, GRID, y, outside=40.0), warp(lungs, GRID, GRID, y) > 0.5
    rigid = np.eye(4)
    rigid[0, 3] = 200.0
    x, yy, z = GRID.origin_mm
    there = Grid(GRID.shape, GRID.spacing_mm, (x + 200.0, yy, z))
    keys = inner_points(lungs_r)
    found = match_keypoints(picture(reference, lungs_r), picture(image, lungs, there), keys, rigid=rigid)
    truth = y.apply(found.keypoints.reference_mm) + np.array([200.0, 0.0, 0.0])
    error = np.linalg.norm(found.keypoints.template_mm - truth, axis=1)
    assert np.linalg.norm(y.at(keys), axis=1).mean() > 6.0
    assert error.mean() < 1.3
    assert np.mean(error > 3) < 0.03
    assert found.found == len(keys)
    assert found.dropped + len(found.keypoints.reference_mm) == found.found
    assert found.dropped < 0.2 * found.found
    assert (found.keypoints.weight > 0).all()
    assert str(found.dropped) in found.status


def test_compiled_and_numpy_agree() -> None:
    image, lungs = lung()
    moved, moved_lungs = np.roll(image, 2, 0), np.roll(lungs, 2, 0)
    small = MatchingOptions(searches=(Search(4.0, 2, 2),))
    both = [
        match_keypoints(
            picture(moved, moved_lungs),
            picture(image, lungs),
            inner_points(moved_lungs, 300),
            rigid=np.eye(4),
            options=replace(small, compiled=compiled),
        ).keypoints.template_mm
        for compiled in (True, False)
    ]
    assert both[0] == pytest.approx(both[1], abs=1e-3)


def test_what_the_template_does_not_show_is_dropped() -> None:
    """The lower half of T is missing: keypoints there have no partner, the others keep theirs."""
    image, lungs = lung()
    upper = GRID.crop((22, 0, 0), GRID.shape)
    keys = inner_points(lungs)
    found = match_keypoints(picture(image, lungs), picture(image[22:], lungs[22:], upper), keys, rigid=np.eye(4))
    height = GRID.to_index(found.keypoints.reference_mm)[:, 2]
    error = np.linalg.norm(found.keypoints.template_mm - found.keypoints.reference_mm, axis=1)
    assert np.mean(height < 18) < 0.05
    assert np.mean(GRID.to_index(keys)[:, 2] < 18) > 0.2
    assert np.median(error[height > 24]) < 0.3


def test_other_scans_are_not_confirmed_like_the_same() -> None:
    image, lungs = lung()
    other, _ = lung(seed=9)
    keys = inner_points(lungs)
    soft = MatchingOptions(stiffness=0.0)
    same, wrong = (
        match_keypoints(picture(image, lungs), picture(t, lungs), keys, rigid=np.eye(4), options=soft).dropped
        for t in (image, other)
    )
    assert same == 0
    assert wrong > 0.5 * len(keys)


def test_none_one_and_flat() -> None:
    image, lungs = lung()
    p = picture(image, lungs)
    none = match_keypoints(p, p, np.zeros((0, 3)), rigid=np.eye(4))
    assert (none.found, none.dropped, len(none.keypoints.weight)) == (0, 0, 0)
    assert "no keypoints" in none.status
    one = match_keypoints(p, p, np.asarray([GRID.centre_mm]), rigid=np.eye(4))
    assert one.keypoints.template_mm == pytest.approx(one.keypoints.reference_mm, abs=0.3)
    flat = picture(np.full(GRID.shape, -850.0, np.float32), lungs)
    found = match_keypoints(flat, flat, inner_points(lungs, 500), rigid=np.eye(4))
    assert np.isfinite(found.keypoints.template_mm).all()


def test_options_out_of_range_are_refused() -> None:
    for wrong in ({"agree_mm": 0.0}, {"searches": ()}, {"searches": (Search(0.0, 3, 3),)}, {"stiffness": -1.0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            MatchingOptions(**wrong)  # type: ignore[arg-type]
