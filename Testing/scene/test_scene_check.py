"""Edges, hatching and displacement in closed form; flicker and reveal."""

from __future__ import annotations

import numpy as np
import pytest
import slicer.util
from scene_samples import AFFINE, GRID, TEMPLATE_GRID, rotation

from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.grid import Grid, lps_to_ras
from ChangeMapJointLib.scene import check, layouts
from ChangeMapJointLib.scene.nodes import CURRENT, composite_node, tag
from ChangeMapJointLib.scene.transforms import grid_transform
from ChangeMapJointLib.scene.volumes import grid_of, node_of


def array_of(node):
    return slicer.util.arrayFromVolume(node)


def box(shape, start, stop):
    result = np.zeros(shape, bool)
    result[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    return result


def test_edges_of_a_box_are_its_shell(scene):
    solid = box(GRID.shape, (2, 3, 4), (9, 12, 13))
    shell = solid & ~box(GRID.shape, (3, 4, 5), (8, 11, 12))
    node = node_of(np.where(solid, 40, -900).astype(np.int16), GRID, "warped", kind="scan")
    edges = check.edges_of(node)
    np.testing.assert_array_equal(array_of(edges) > 0, shell)
    assert grid_of(edges).same_as(GRID)
    assert edges.IsA("vtkMRMLLabelMapVolumeNode")
    assert not edges.GetSaveWithScene()


def test_edges_at_two_levels():
    array = np.full((3, 3, 12), -900)
    array[..., 4:] = 40
    array[..., 8:] = 700
    found = np.flatnonzero(check.outlines(array)[1, 1])
    np.testing.assert_array_equal(found, [4, 8])


def test_the_border_of_the_scan_is_no_edge():
    assert not check.outlines(np.full((4, 4, 4), 40)).any()


def test_edges_are_made_once_a_run(scene):
    node = tag(node_of(np.zeros(GRID.shape, np.int16), GRID, "warped", kind="scan"), "warped", "a-run")
    assert check.edges_of(node) is check.edges_of(node)


def test_hatching_in_closed_form():
    grid = Grid((1, 30, 40))
    region = box(grid.shape, (0, 5, 5), (1, 25, 35))
    found = check.hatched(region, grid)
    y, x = np.mgrid[:30, :40]
    border = region[0] & ~box((30, 40), (6, 6), (24, 34))
    np.testing.assert_array_equal(found[0], region[0] & (((x + y) % 9 < 3) | border))


@pytest.mark.parametrize("spacing", [(0.7, 0.7, 1.0), (1.0, 1.0, 1.0), (2.5, 2.5, 2.5)])
def test_about_a_third_is_hatched_whatever_the_spacing(spacing):
    grid = Grid((80, 80, 80), spacing)
    found = check.hatched(np.ones(grid.shape, bool), grid)
    assert 0.28 < found.mean() < 0.40


def test_hatching_is_where_lungs_are_not_trusted(scene):
    trust = np.broadcast_to(np.linspace(0, 1, 16, dtype=np.float32), GRID.shape)
    lungs = box(GRID.shape, (2, 2, 2), (10, 18, 14))
    node = check.hatch_of(node_of(trust, GRID, "trust"), node_of(lungs, GRID, "lungs", kind="label"))
    doubtful = lungs & (trust < 0.5)
    np.testing.assert_array_equal(array_of(node) > 0, check.hatched(doubtful, GRID))
    assert (array_of(node) > 0).any()


@pytest.mark.parametrize("direction", [np.eye(3), rotation((5, 10, -15))])
def test_trust_on_a_coarser_grid_is_read_where_it_is(scene, direction):
    a, b, c = direction.tolist()
    fine = Grid((12, 20, 16), (1.0, 1.0, 1.0), (5.0, 6.0, 7.0), (tuple(a), tuple(b), tuple(c)))
    coarse = fine.with_spacing((2.5, 3.0, 2.0))
    values = coarse.to_physical(np.stack(np.meshgrid(*map(np.arange, coarse.shape), indexing="ij")[::-1], axis=-1))
    middle = fine.centre_mm[0]
    trust = (0.5 + 0.02 * (values[..., 0] - middle)).astype(np.float32)  # linear in x: trilinear is exact
    lungs = np.ones(fine.shape, bool)
    node = check.hatch_of(node_of(trust, coarse, "trust"), node_of(lungs, fine, "lungs", kind="label"))
    x = fine.to_physical(np.stack(np.meshgrid(*map(np.arange, fine.shape), indexing="ij")[::-1], axis=-1))[..., 0]
    clear = np.abs(x - middle) > 1.5  # away from the border, where it is repeated and where rounding decides
    inner = box(fine.shape, (2, 2, 2), (10, 18, 14)) & clear
    expected = check.hatched(x < middle, fine)
    np.testing.assert_array_equal((array_of(node) > 0)[inner], expected[inner])


def test_displacement_map(scene):
    matrix = np.eye(4)
    matrix[:3, 3] = (2, -3, 6)
    node = check.displacement_of(grid_transform(DisplacementField.from_affine(matrix, GRID), "u"))
    np.testing.assert_allclose(array_of(node), 7.0, rtol=1e-6)
    assert node.GetDisplayNode().GetWindowLevelMax() == 7
    field = DisplacementField.from_affine(AFFINE, GRID)
    node = check.displacement_of(grid_transform(field, "u"))
    np.testing.assert_allclose(array_of(node), np.linalg.norm(field.vectors_mm, axis=-1), rtol=1e-5)


@pytest.fixture
def two(views, scene):
    """A dark scan in the background of the current views, and a bright one."""
    dark = node_of(np.full(GRID.shape, -1350, np.int16), GRID, "dark", kind="scan")
    bright = node_of(np.full(GRID.shape, 150, np.int16), GRID, "bright", kind="scan")
    layouts.set_layers(CURRENT, background=dark)
    layouts.fit(CURRENT, dark)
    return dark, bright


@pytest.mark.parametrize("flip", [(1, 1, 1), (-1, 1, 1)])
def test_swipe_shows_the_patients_left(views, scene, flip):
    a, b, c = np.diag(np.array(flip, float)).tolist()
    grid = Grid((9, 40, 40), (2.0, 2.0, 2.0), (-39.0 * flip[0], -39.0, 0.0), (tuple(a), tuple(b), tuple(c)))
    dark, bright = (node_of(np.full(grid.shape, hu, np.int16), grid, str(hu), kind="scan") for hu in (-1350, 150))
    layouts.set_layers(("Red",), background=dark)
    layouts.fit(("Red",), dark)
    reveal = check.Reveal(("Red",), bright)
    for fraction in (0.25, 0.5, 0.75):
        reveal.swipe(fraction)
        line = views["Red"].picture()[60, :, 0] > 127
        assert abs((~line).mean() - fraction) < 0.03
        assert line[-3:].all()
        assert not line[:3].any()
    reveal.swipe(1.0)
    assert not views["Red"].picture().any()
    reveal.swipe(0.0)
    assert (views["Red"].picture()[60, 3:-3] == 255).all()


def test_reveal_shows_a_box_round_a_point_and_leaves_nothing(two, views, scene):
    _, bright = two
    composite_node("Red").SetForegroundOpacity(0.3)
    count = scene.GetNumberOfNodes()
    reveal = check.Reveal(("Red",), bright)
    point = lps_to_ras(GRID.to_physical((8, 10, 6)))
    layouts.jump(point, ("Red",))
    reveal.around(point, 10.0)
    picture = views["Red"].picture()[..., 0] > 127
    millimetres = views["Red"].node.GetFieldOfView()[0] / 120
    assert picture[60, 60]
    assert picture.sum() * millimetres**2 == pytest.approx(100, rel=0.35)  # whole voxels
    for other in ((1e3, 0, 0), (0, 0, -1e3)):
        reveal.around(other, 10.0)
        assert not views["Red"].picture().any()
    reveal.remove()
    assert scene.GetNumberOfNodes() == count
    assert composite_node("Red").GetForegroundVolumeID() is None
    assert composite_node("Red").GetForegroundOpacity() == pytest.approx(0.3)


def test_reveal_of_a_prior_on_its_own_grid(two, views):
    prior = node_of(np.full(TEMPLATE_GRID.shape, 150, np.int16), TEMPLATE_GRID, "prior", kind="scan")
    reveal = check.Reveal(("Red",), prior)
    reveal.swipe(0.5)
    assert views["Red"].picture().max() == 255
    reveal.remove()


@pytest.mark.parametrize("degrees", [0.0, 8.0])
def test_a_linear_map_is_resampled_exactly_and_its_border_repeated(degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    coarse = Grid((5, 6, 7), (1.5, 1.7, 2.0), (1.0, 2.0, 3.0))
    fine = Grid((9, 11, 13), (0.7, 0.6, 0.5), (0.0, 2.5, 4.0), ((c, -s, 0.0), (s, c, 0.0), (0.0, 0.0, 1.0)))
    z, y, x = np.indices(coarse.shape)
    moved = check.on_grid((100 + x + 10 * y - 3 * z).astype(np.float32), coarse, fine)
    i, j, k = np.clip(coarse.to_index(points_mm(fine)), 0, np.array(coarse.size) - 1).T
    np.testing.assert_allclose(moved.ravel(), 100 + i + 10 * j - 3 * k, atol=1e-4)


def points_mm(grid):
    """Of all voxels, ``[n, 3]``."""
    index = np.stack(np.indices(grid.shape)[::-1], axis=-1).reshape(-1, 3)
    return grid.to_physical(index)
