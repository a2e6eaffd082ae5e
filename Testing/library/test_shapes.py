"""Outlines of nodules: known sizes, turning, files, and what erosion by distance leaves."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt
from scipy.spatial.transform import Rotation

from ChangeMapJointLib.synthesis.shapes import LesionShape, draw_shape, shape_of_body

SPHERE = LesionShape()
INDEX = np.stack(np.meshgrid(*[np.arange(-20.0, 21.0)] * 3, indexing="ij"), axis=-1)
FINE_MM = 0.4
FINE = np.stack(np.meshgrid(*[np.arange(-14, 14, FINE_MM)] * 3, indexing="ij"), axis=-1)
DISTANCE = np.linalg.norm(INDEX, axis=-1)


def drawn(seed: int, *, spiculated: bool = False) -> LesionShape:
    return draw_shape(np.random.default_rng(seed), spiculated=spiculated)


def test_distance_to_a_sphere_is_exact():
    points = np.array([[0.0, 0, 0], [3, 0, 0], [0, 4, 3], [0, 0, -12]])
    np.testing.assert_allclose(SPHERE.signed_distance(points, 10.0), [-5, -2, 0, 7], atol=1e-6)


def test_ellipsoid_has_its_axes():
    shape = LesionShape(axes=(2.0, 1.0, 0.5))  # product 1: the sphere's volume at the same diameter
    ends = np.array([[10.0, 0, 0], [0, 5, 0], [0, 0, 2.5]])
    np.testing.assert_allclose(shape.signed_distance(ends, 10.0), 0, atol=0.01)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spiculated", [False, True])
def test_irregular_shapes_have_the_volume_of_the_sphere(seed, spiculated):
    shape = drawn(seed, spiculated=spiculated)
    reach_mm = 6 * shape.reach + 1.0
    fine = np.stack(np.meshgrid(*[np.arange(-reach_mm, reach_mm, FINE_MM)] * 3, indexing="ij"), axis=-1)
    volume = (shape.signed_distance(fine, 12.0) <= 0).sum() * FINE_MM**3
    assert volume == pytest.approx(np.pi / 6 * 12**3, rel=0.02)


def test_irregular_shapes_are_irregular_and_differ():
    outlines = [drawn(seed).signed_distance(INDEX, 12.0) <= 0 for seed in range(6)]
    sphere = DISTANCE <= 6
    for outline in outlines:
        dice = 2 * (outline & sphere).sum() / (outline.sum() + sphere.sum())
        assert 0.6 < dice < 0.97
    assert len({outline.tobytes() for outline in outlines}) == 6


def test_diameter_scales_the_outline():
    shape = drawn(1)
    points = np.random.default_rng(0).normal(size=(50, 3)) * 5
    np.testing.assert_allclose(shape.signed_distance(2 * points, 20.0), 2 * shape.signed_distance(points, 10.0))


def test_turning_a_shape_turns_its_outline():
    shape = drawn(2, spiculated=True)
    rotation = Rotation.from_rotvec([0.3, -0.8, 1.2]).as_matrix()
    points = np.random.default_rng(0).normal(size=(80, 3)) * 6
    before = shape.signed_distance(points, 11.0)
    np.testing.assert_allclose(shape.turned(rotation).signed_distance(points @ rotation.T, 11.0), before, atol=0.02)
    assert np.abs(shape.signed_distance(points @ rotation.T, 11.0) - before).max() > 0.3


def test_reach_bounds_the_outline():
    for seed in range(5):
        shape = drawn(seed, spiculated=True)
        inside = shape.signed_distance(INDEX, 14.0) <= 0
        assert DISTANCE[inside].max() <= shape.reach * 7 * 1.03


def test_shape_survives_a_file():
    shape = drawn(3, spiculated=True)
    assert LesionShape.from_dict(json.loads(json.dumps(shape.to_dict()))) == shape


# -- erosion -----------------------------------------------------------------------------


def test_a_sphere_erodes_to_a_sphere():
    shape = LesionShape(full_mm=20.0)
    points = np.array([[0.0, 0, 0], [3, 0, 0], [0, 4, 3], [0, 0, -12]])
    np.testing.assert_allclose(shape.signed_distance(points, 12.0), [-6, -3, -1, 6], atol=0.25)
    np.testing.assert_array_equal(shape.signed_distance(points, 20.0), SPHERE.signed_distance(points, 20.0))
    assert shape.radius_mm(12.0) == pytest.approx(6.0, abs=0.8)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spiculated", [False, True])
def test_what_is_left_lies_as_deep_everywhere(seed, spiculated):
    whole = replace(drawn(seed, spiculated=spiculated), full_mm=18.0)
    full, left = (whole.signed_distance(FINE, d) <= 0 for d in (18.0, 12.0))
    depth = distance_transform_edt(full, sampling=FINE_MM)
    assert left.sum() * FINE_MM**3 == pytest.approx(np.pi / 6 * 12**3, rel=0.04)
    by_depth = depth >= np.partition(depth, -left.sum(), axis=None)[-left.sum()]
    assert 2 * (left & by_depth).sum() / (left.sum() + by_depth.sum()) > 0.97
    assert np.linalg.norm(FINE[left], axis=1).max() <= whole.radius_mm(12.0)


@cache
def body(axes):
    """An ellipsoid, whose distances are measured once."""
    return LesionShape(tuple(np.array(axes) / np.prod(axes) ** (1 / 3)), full_mm=15.0)


@pytest.mark.parametrize("axes", [(5.0, 1.0, 1.0), (1.0, 3.0, 3.0)])
@pytest.mark.parametrize("ratio", [1.15, 1.8, 3.0])
def test_long_and_flat_bodies_erode_to_the_volume_that_is_wanted(axes, ratio):
    whole = body(axes)
    step = 0.35 if ratio > 2 else 0.5  # mm; what is left of a flat body is thin
    reach_mm = np.array(whole.axes) * 7.5 + 2.0  # along each axis, with a margin
    points = np.stack(np.meshgrid(*(np.arange(-r, r, step) for r in reach_mm), indexing="ij"), axis=-1)
    volume = (whole.signed_distance(points, 15.0 / ratio) <= 0).sum() * step**3
    assert volume == pytest.approx(np.pi / 6 * (15.0 / ratio) ** 3, rel=0.12)


def test_distance_grows_far_away():
    """Wide borders of coarse scans fade there; a distance that stopped growing would paint a box."""
    shape = LesionShape(full_mm=8.0)
    far = np.array([[40.0, 0.0, 0.0], [0.0, 30.0, 40.0]])
    assert shape.signed_distance(far, 6.0) == pytest.approx([37.0, 47.0], abs=3.0)


def test_spicules_erode_first():
    thorny = drawn(1, spiculated=True)
    scaled, eroded = (np.linalg.norm(FINE[s.signed_distance(FINE, 12.0) <= 0], axis=1).max() for s in (
        thorny, replace(thorny, full_mm=18.0),
    ))  # fmt: skip
    assert eroded < 0.9 * scaled


def test_an_eroding_shape_turns_and_survives_a_file():
    shape = replace(drawn(2), full_mm=18.0)
    assert LesionShape.from_dict(json.loads(json.dumps(shape.to_dict()))) == shape
    rotation = Rotation.from_rotvec([0.3, -0.8, 1.2]).as_matrix()
    points = FINE[::5, ::5, ::5]
    points = points[np.linalg.norm(points, axis=-1) < 12]
    before = shape.signed_distance(points, 11.0)
    turned = shape.turned(rotation).signed_distance(points @ rotation.T, 11.0)
    np.testing.assert_allclose(turned, before, atol=0.45)
    assert np.abs(turned - before).mean() < 0.1


# -- outlines of bodies ------------------------------------------------------------------


def test_thick_slices_leave_no_facets():
    """A ball in slices of 3 mm is a ball again, where the stack of its slices has flat ends and steps."""
    z, y, x = np.meshgrid(np.arange(-12, 13, 3.0), np.arange(-12, 12.1, 0.5), np.arange(-12, 12.1, 0.5), indexing="ij")
    shape = shape_of_body(z**2 + y**2 + x**2 <= 100, (3.0, 0.5, 0.5))
    assert shape is not None
    assert np.std(shape.radii) < 0.03
    assert np.mean(shape.radii) == pytest.approx(1.0, abs=0.02)


def test_bodies_that_are_no_outline_of_radii_are_left_out():
    ring = (np.abs(np.linalg.norm(INDEX[..., :2], axis=-1) - 12) < 3) & (np.abs(INDEX[..., 2]) < 3)
    assert shape_of_body(ring, (1.0, 1.0, 1.0)) is None
    assert shape_of_body(DISTANCE <= 2, (1.0, 1.0, 1.0)) is None  # below 5 mm
    assert shape_of_body(np.ones((50, 50, 50), bool), (1.0, 1.0, 1.0)) is None  # above 40 mm
    assert shape_of_body(DISTANCE < 0, (1.0, 1.0, 1.0)) is None
    vessel = np.zeros((200, 200, 200), bool)
    vessel[np.arange(200), np.arange(200), 100] = True
    assert shape_of_body(vessel, (1.5, 1.5, 1.5)) is None
