"""The known motion: profiles in closed form, inverse, volume, stiff places, files."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.synthesis.breathing import BreathingMotion, Bump, LungFrame, StiffBall
from ChangeMapJointLib.synthesis.motion import MotionOptions, draw_motion
from ChangeMapJointLib.synthesis.sliding import sliding_field, thorax_inside

FRAME = LungFrame(apex_z_mm=0, base_z_mm=-200, front_y_mm=-80, back_y_mm=80, right_x_mm=-140, left_x_mm=140)
GRID = Grid((48, 40, 64), (5.0, 5.0, 5.0), (-157.5, -97.5, -215.0))


def lung_mask() -> np.ndarray:
    """Two ellipsoids on GRID."""
    x, y, z = np.moveaxis(GRID.to_physical(np.indices(GRID.shape)[::-1].transpose(1, 2, 3, 0)), -1, 0)
    return np.logical_or.reduce(
        [((x - c) / 55) ** 2 + (y / 70) ** 2 + ((z + 100) / 95) ** 2 < 1 for c in (-75.0, 75.0)]
    )


def random_points(count: int = 500) -> np.ndarray:
    return np.random.default_rng(0).uniform(FRAME.low_mm, FRAME.high_mm, size=(count, 3))


def test_descent_fades_from_the_diaphragm_to_the_apex():
    motion = BreathingMotion(FRAME, diaphragm_mm=20)
    heights = np.array([10.0, 0.0, -90.0, -180.0, -260.0])  # above, apex, half of 0.9 height, its end, below
    u = motion(np.c_[np.full(5, 30.0), np.zeros(5), heights]) - np.c_[np.full(5, 30.0), np.zeros(5), heights]
    np.testing.assert_allclose(u[:, 2], [0, 0, -10, -20, -20], atol=1e-9)
    np.testing.assert_allclose(u[:, :2], 0, atol=1e-9)


def test_volume_change_of_a_pure_descent_is_its_slope():
    motion = BreathingMotion(FRAME, diaphragm_mm=20)
    det = motion.field(GRID).jacobian_determinant()
    middle = round(float(GRID.to_index((0.0, 0.0, -90.0))[2]))
    # the smooth step's slope is 1.5 in its middle
    assert det[middle, 20, 32] == pytest.approx(1 + 20 * 1.5 / 180, abs=2e-3)


def test_chest_expands_outwards_and_forwards_into_the_template():
    motion = BreathingMotion(FRAME, ventral_mm=6, lateral_mm=3)
    left, right, front, back = motion(np.array([[140.0, 0, -190], [-140, 0, -190], [0, -80, -190], [0, 80, -190]]))
    assert left[0] > 142
    assert right[0] < -142
    assert front[1] < -85
    assert back[1] == pytest.approx(80)


def test_rigid_part_keeps_distances_and_volume():
    rotation = Rotation.from_rotvec([0.02, -0.05, 0.03]).as_matrix()
    motion = BreathingMotion(
        FRAME, rotation=tuple(tuple(row) for row in rotation), pivot_mm=(1, 2, 3), translation_mm=(8, -5, 12)
    )
    points = random_points(40)
    moved = motion(points)
    np.testing.assert_allclose(
        np.linalg.norm(moved[:, None] - moved[None], axis=-1), np.linalg.norm(points[:, None] - points[None], axis=-1)
    )
    np.testing.assert_allclose(motion(np.array([1.0, 2, 3])), [9, -3, 15])
    np.testing.assert_allclose(motion.field(GRID).jacobian_determinant(), 1, atol=1e-4)


@pytest.mark.parametrize("diaphragm_mm", [-20.0, 20.0, 40.0])
def test_inverse_undoes_the_motion(diaphragm_mm):
    motion = draw_motion(lung_mask(), GRID, seed=3, options=MotionOptions(diaphragm_mm=diaphragm_mm))
    points = random_points()
    np.testing.assert_allclose(motion.inverse(motion(points)), points, atol=1e-4)
    assert np.linalg.norm(motion(points) - points, axis=-1).max() > 0.7 * abs(diaphragm_mm)


def test_folding_motion_is_made_smaller_until_it_does_not_fold():
    folding = BreathingMotion(FRAME, bumps=(Bump((0, 0, -100), (0, 0, 80), 30.0),))
    assert folding.field(GRID).jacobian_determinant().min() < 0
    limited = folding.limited(0.4)
    assert 0 < limited.scale < 1
    assert limited.field(GRID).jacobian_determinant().min() >= 0.4 - 0.02
    points = random_points()
    np.testing.assert_allclose(limited.inverse(limited(points)), points, atol=1e-4)


def test_harmless_motion_keeps_its_size():
    assert BreathingMotion(FRAME, diaphragm_mm=20).limited(0.4).scale == 1.0


def test_stiff_places_move_as_a_whole_even_side_by_side():
    motion = draw_motion(lung_mask(), GRID, seed=2, options=MotionOptions(diaphragm_mm=30))
    centres, radii = np.array([[70.0, 10, -120], [70, 10, -95], [-60, 0, -150]]), np.array([9.0, 8, 6])
    stiff = motion.stiffened(centres, radii, 0.4)
    rotation = np.asarray(stiff.rotation)
    rng = np.random.default_rng(5)
    for centre, radius in zip(stiff.inverse(centres), radii, strict=True):
        inside = rng.normal(size=(200, 3))
        inside *= radius * rng.uniform(0, 1, (200, 1)) / np.linalg.norm(inside, axis=-1, keepdims=True)
        np.testing.assert_allclose(stiff(centre + inside), stiff(centre) + inside @ rotation.T, atol=1e-6)
        loose = motion(centre + inside) - motion(centre) - inside @ rotation.T
        assert np.abs(loose).max() > 0.3  # the same places without the balls
    np.testing.assert_allclose(stiff(motion.inverse(centres)), centres, atol=1e-4)


def test_a_stiff_place_ends():
    ball = StiffBall((70.0, 0.0, -100.0), 8.0)
    free = BreathingMotion(FRAME, diaphragm_mm=25)
    held = replace(free, stiff=(ball,))
    far = np.array([[70.0 + ball.reach_mm, 0, -100], [70, 0, -100 - ball.reach_mm]])
    np.testing.assert_array_equal(held(far), free(far))


def test_seed_decides_everything():
    mask = lung_mask()
    assert draw_motion(mask, GRID, seed=5) == draw_motion(mask, GRID, seed=5)
    assert draw_motion(mask, GRID, seed=5) != draw_motion(mask, GRID, seed=6)


def test_drawn_motion_is_as_large_as_asked():
    options = MotionOptions(rotation_deg=3, translation_mm=7, bumps=0, frame_shift_mm=(100.0, 0, 0))
    motion = draw_motion(lung_mask(), GRID, seed=4, options=options)
    angle = np.rad2deg(np.linalg.norm(Rotation.from_matrix(np.array(motion.rotation)).as_rotvec()))
    assert angle == pytest.approx(3)
    assert np.linalg.norm(np.array(motion.translation_mm) - (100, 0, 0)) == pytest.approx(7)
    # the lungs' centre is the pivot of the aligned frame: it is moved by the translation alone
    centre = motion.lungs.centre_mm
    np.testing.assert_allclose(motion.align(centre - motion.translation_mm), centre)


def test_lung_frame_reads_the_directions_of_lps():
    mask = np.zeros(GRID.shape, bool)
    mask[10:41, 5:26, 7:58] = True  # z, y, x
    frame = LungFrame.of_mask(mask, GRID)
    assert (frame.right_x_mm, frame.left_x_mm) == (-122.5, 127.5)
    assert (frame.front_y_mm, frame.back_y_mm) == (-72.5, 27.5)
    assert (frame.base_z_mm, frame.apex_z_mm) == (-165.0, -15.0)


def test_motion_survives_a_file():
    motion = draw_motion(lung_mask(), GRID, seed=7).stiffened(np.array([[70.0, 0, -100]]), np.array([8.0]), 0.4)
    again = BreathingMotion.from_dict(json.loads(json.dumps(motion.to_dict())))
    assert again == motion
    np.testing.assert_array_equal(again(random_points()), motion(random_points()))


@pytest.mark.parametrize("damage", [{"bumps": None}, {"lungs": {}}, {"wheel": 1}, {"rotation": [[1, 0], [0, 1]]}])
def test_damaged_motion_is_refused(damage):
    values = {**BreathingMotion(FRAME).to_dict(), **damage}
    with pytest.raises(InputError, match="motion"):
        BreathingMotion.from_dict(values)


def test_empty_mask_is_refused():
    with pytest.raises(InputError, match="lungs mask"):
        draw_motion(np.zeros(GRID.shape, bool), GRID, seed=0)


# -- sliding ---------------------------------------------------------------------------


def test_inside_of_the_thorax_is_convex_and_reaches_down():
    inside = thorax_inside(lung_mask(), GRID)
    assert inside[lung_mask()].all()
    k, j, i = np.rint(GRID.to_index((0.0, 0.0, -100.0))[::-1]).astype(int)
    assert inside[k, j, i]  # between the lungs
    assert inside[0, j, i]  # below them
    assert not inside[-1].any()  # above them
    assert not inside[:, :, 0].any()  # the wall


def test_lungs_slide_along_a_wall_that_stays():
    mask = lung_mask()
    motion = BreathingMotion(FRAME, diaphragm_mm=20)
    sliding = sliding_field(motion, GRID, mask, GRID, fraction=1.0)
    smooth = motion.field(GRID)
    heart, lung, rib = np.array([[0.0, 0, -110]]), np.array([[110.0, 0, -105]]), np.array([[150.0, 0, -105]])
    for point in (heart, lung):
        np.testing.assert_allclose(sliding.at(point), smooth.at(point), atol=1e-3)
    assert smooth.at(rib)[0, 2] < -8
    assert sliding.at(rib)[0, 2] > -2.5
    half = sliding_field(motion, GRID, mask, GRID, fraction=0.5)
    assert -7 < half.at(rib)[0, 2] < -3


def test_sliding_leaves_the_lungs_where_they_are():
    mask = lung_mask()
    motion = BreathingMotion(FRAME, diaphragm_mm=20)
    index = GRID.to_physical(np.indices(GRID.shape)[::-1].transpose(1, 2, 3, 0))
    smooth, sliding = (f.vectors_mm + index for f in (motion.field(GRID), sliding_field(motion, GRID, mask, GRID)))
    nearest = np.rint(GRID.to_index(smooth)).astype(int)
    inside = (nearest >= 0).all(-1) & (nearest < GRID.size).all(-1)
    k, j, i = np.where(inside[..., None], nearest, 0)[..., ::-1].transpose(3, 0, 1, 2)
    deep = inside & mask[k, j, i]
    assert deep.sum() > 5000
    # all but voxels that the surface cuts
    assert (np.abs(smooth - sliding)[deep].max(-1) > 1e-3).mean() < 0.03


def test_no_sliding_is_the_motion_itself():
    motion = BreathingMotion(FRAME, diaphragm_mm=20)
    np.testing.assert_array_equal(
        sliding_field(motion, GRID, lung_mask(), GRID, fraction=0.0).vectors_mm, motion.field(GRID).vectors_mm
    )


def test_sliding_beyond_one_is_refused():
    with pytest.raises(InputError, match="sliding"):
        sliding_field(BreathingMotion(FRAME), GRID, lung_mask(), GRID, fraction=1.5)
