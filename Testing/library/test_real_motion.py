"""Motion of real patients: fitted, carried to other lungs, drawn, kept in files."""

import json
from dataclasses import replace

import numpy as np
import pytest
from test_motion import GRID, lung_mask

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.synthesis.breathing import BreathingMotion, LungFrame
from ChangeMapJointLib.synthesis.draw import DrawOptions, draw_pair
from ChangeMapJointLib.synthesis.draw_real import draw_real
from ChangeMapJointLib.synthesis.motion import MotionOptions, draw_motion
from ChangeMapJointLib.synthesis.real_motion import (
    FIT_MIN_DET,
    CarriedMotion,
    LungBoxes,
    RealMotion,
    fit_motion,
    relative_shift_mm,
)
from ChangeMapJointLib.synthesis.shipped_motion import PATIENTS, ShippedMotion

STILL = MotionOptions(diaphragm_mm=0, ventral_mm=0, lateral_mm=0, bumps=0, rotation_deg=0, translation_mm=0)


def lung_points(count: int = 600, seed: int = 0) -> np.ndarray:
    """Points in two lungs of 90 x 130 x 180 mm, 60 mm apart."""
    points = np.random.default_rng(seed).uniform((0, -65, -90), (90, 65, 90), (count, 3))
    points[:, 0] += 30
    points[::2, 0] *= -1
    return points


def breathed(points: np.ndarray) -> np.ndarray:
    """Up to 12 mm downwards, other in the left lung than in the right, 5 mm forwards."""
    x, y, z = points.T
    down = -6 * (1 - z / 90) * np.where(x > 0, 0.6, 1.0)
    return np.stack([0 * x, -5 * np.cos(y / 60), down], axis=-1)


@pytest.fixture(scope="module")
def motion() -> RealMotion:
    points = lung_points()
    return fit_motion("somebody", points, points + breathed(points))


def test_fit_predicts_points_that_it_has_not_seen(motion: RealMotion) -> None:
    new = lung_points(500, seed=1)
    found, wanted = motion.displacement(new), breathed(new)
    error = np.linalg.norm((found - found.mean(0)) - (wanted - wanted.mean(0)), axis=1)
    assert error.mean() < 0.15
    assert np.percentile(error, 95) < 0.5


def test_mean_is_removed_and_motion_levels_off_beyond_the_lungs(motion: RealMotion) -> None:
    points = lung_points()
    np.testing.assert_allclose(motion.displacement(points).mean(0), 0, atol=0.1)
    largest = np.linalg.norm(motion.displacement(points), axis=1).max()
    around = np.random.default_rng(2).uniform(-400, 400, (2000, 3))
    assert np.linalg.norm(motion.displacement(around), axis=1).max() < 1.3 * largest


def test_wrong_correspondences_are_left_out(motion: RealMotion) -> None:
    points = lung_points()
    moved = points + breathed(points)
    wrong = [7, 100, 311]
    moved[wrong] += (0, 25, -25)
    found = fit_motion("somebody", points, moved).displacement(points[wrong])
    # what is left differs by the mean displacement of three points of 600
    np.testing.assert_allclose(found, motion.displacement(points[wrong]), atol=0.5)


def test_points_that_pass_each_other_do_not_fold_the_fit() -> None:
    points = lung_points(1500)
    shift = np.zeros_like(points)
    shift[:, 2] = 14 * np.tanh(-points[:, 2] / 5)  # towards a plane, from both sides: the slope is -2.8
    found = fit_motion("folded", points, points + shift)
    assert found.smallest_det() >= FIT_MIN_DET
    far = np.abs(points[:, 2]) > 50
    assert np.abs(found.displacement(points)[far, 2] - shift[far, 2]).mean() < 2.0


def test_carried_to_the_same_lungs_nothing_changes(motion: RealMotion) -> None:
    points = lung_points(50, seed=3)
    np.testing.assert_allclose(CarriedMotion(motion, motion.lungs)(points), motion.displacement(points), atol=1e-6)


def test_carried_to_lungs_twice_as_high_the_descent_doubles(motion: RealMotion) -> None:
    points, stretch = lung_points(200, seed=3), np.array([1.0, 1.0, 2.0])
    offset = np.array([20.0, -300.0, 1000.0])
    lungs = LungBoxes.of_points(lung_points() * stretch + offset)
    there = CarriedMotion(motion, lungs, gain=0.5)(points * stretch + offset)
    np.testing.assert_allclose(there, 0.5 * motion.displacement(points) * stretch, atol=0.05)


def test_each_lung_is_carried_by_its_own_box_without_a_jump(motion: RealMotion) -> None:
    boxes = motion.lungs
    x, y, z = boxes.left_low_mm
    raised = replace(boxes, left_low_mm=(x, y, z + 60), left_high_mm=boxes.left_high_mm)
    carried = CarriedMotion(motion, raised)
    base = carried(np.array([[75.0, 0, z + 60], [-75.0, 0, z]]))
    whole = motion.displacement(np.array([[75.0, 0, z], [-75.0, 0, z]]))
    # the left lung is 120 of 180 mm high: its base moves two thirds as far
    np.testing.assert_allclose(base[:, 2], whole[:, 2] * (120 / 180, 1), rtol=0.03)
    across = np.linspace(-60, 60, 241)
    line = carried(np.stack([across, 0 * across, 0 * across - 60], axis=-1))
    assert np.abs(np.diff(line, axis=0)).max() < 0.5 * 0.6  # mm in half a millimetre


def test_lung_boxes_follow_the_directions_of_lps() -> None:
    boxes = LungBoxes.of_points(lung_points(4000))
    np.testing.assert_allclose(boxes.right_low_mm, (-120, -65, -90), atol=2)
    np.testing.assert_allclose(boxes.left_high_mm, (120, 65, 90), atol=2)
    assert abs(boxes.middle_mm) < 2


@pytest.mark.parametrize("points", [lung_points(40), np.abs(lung_points())])
def test_less_than_two_lungs_are_refused(points: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"lungs"):
        fit_motion("somebody", points, points)


def test_lists_of_other_lengths_are_refused() -> None:
    with pytest.raises(InputError, match="equally many points"):
        fit_motion("somebody", lung_points(300), lung_points(200))


def test_drawn_motion_is_as_large_as_asked_does_not_fold_and_can_be_inverted(motion: RealMotion) -> None:
    mask = lung_mask()
    inside = GRID.to_physical(np.argwhere(mask)[::5, ::-1].astype(float))
    for size in (3.0, 9.0):
        drawn = draw_motion(mask, GRID, seed=0, options=replace(STILL, real=motion, real_mm=size, minimum_det=0.2))
        assert drawn.scale == 1.0
        assert relative_shift_mm(drawn(inside) - inside) == pytest.approx(size, rel=0.05)
        assert drawn.field(GRID).jacobian_determinant().min() > 0.2 - 0.05
        np.testing.assert_allclose(drawn.inverse(drawn(inside)), inside, atol=1e-3)


def test_motion_too_steep_for_a_fixed_point_is_inverted() -> None:
    points = lung_points(1500)
    squeezed = fit_motion("steep", points, points + np.c_[0 * points[:, :2], 20 * np.tanh(points[:, 2] / 12)])
    carried = BreathingMotion(LungFrame(90, -90, -65, 65, -120, 120), carried=CarriedMotion(squeezed, squeezed.lungs))
    up = np.array([0, 0, 0.5])
    slope = (carried(points + up) - carried(points - up))[:, 2]
    assert slope.max() > 2.0  # z -> y - b(z) does not converge there
    np.testing.assert_allclose(carried(carried.inverse(points)), points, atol=1e-4)


def test_real_motion_survives_a_file(motion: RealMotion) -> None:
    drawn = draw_motion(lung_mask(), GRID, seed=1, options=replace(STILL, real=motion))
    again = BreathingMotion.from_dict(json.loads(json.dumps(drawn.to_dict())))
    assert again == drawn
    points = lung_points(20)
    np.testing.assert_array_equal(again(points), drawn(points))
    assert "carried" not in draw_motion(lung_mask(), GRID, seed=1, options=STILL).to_dict()


@pytest.mark.parametrize("damage", [{"gain": "much"}, {"motion": {}}, {"lungs": {"right_low_mm": [1, 2]}}])
def test_damaged_real_motion_is_refused(motion: RealMotion, damage: dict[str, object]) -> None:
    drawn = draw_motion(lung_mask(), GRID, seed=1, options=replace(STILL, real=motion)).to_dict()
    with pytest.raises(InputError, match="motion"):
        BreathingMotion.from_dict({**drawn, "carried": {**drawn["carried"], **damage}})


# -- what ships ------------------------------------------------------------------------
def test_a_shipped_motion_is_that_of_a_breath() -> None:
    motion = ShippedMotion("003").fitted()
    assert motion is ShippedMotion("003").fitted()  # once in a process
    assert motion.smallest_det() >= FIT_MIN_DET
    low, high = (np.array(getattr(motion.lungs, f"right_{end}_mm")) for end in ("low", "high"))
    assert (high - low > (80, 120, 150)).all()
    inside = np.random.default_rng(0).uniform(low, high, (500, 3))
    assert 5 < relative_shift_mm(motion.displacement(inside)) < 15


def test_another_patient_is_refused() -> None:
    assert "002" not in PATIENTS  # kept for judging
    with pytest.raises(InputError, match="one of 001, 003"):
        ShippedMotion("002")


def test_relative_shifts_are_drawn_as_in_follow_up_exams() -> None:
    drawn = [draw_real(np.random.default_rng(seed), (8.3, 29.0), 4.0) for seed in range(600)]
    whole = np.array([np.hypot(1.75 * one.rotation_deg, one.real_mm) for one in drawn])
    assert np.median(whole) == pytest.approx(8.3, rel=0.1)
    assert 18 < np.percentile(whole, 95) < 30  # places of one pair differ: over all places it is 29
    assert {one.real for one in drawn} == {ShippedMotion(p, b) for p in PATIENTS for b in (False, True)}
    assert max(one.rotation_deg for one in drawn) <= 12


# -- pairs -----------------------------------------------------------------------------
def test_half_of_the_pairs_move_as_real_patients_and_the_others_as_before() -> None:
    pairs = [draw_pair(seed) for seed in range(300)]
    assert np.mean([pair.motion.real is not None for pair in pairs]) == pytest.approx(0.5, abs=0.08)
    before = DrawOptions(real_share=0.0)
    for seed, pair in enumerate(pairs[:40]):
        smooth = draw_pair(seed, before)
        assert smooth.motion.real is None
        assert replace(pair, motion=smooth.motion) == smooth  # lesions, voxels and noise are the same


def test_slices_are_as_in_follow_up_exams() -> None:
    options = DrawOptions(in_plane_mm=(0.7, 0.8))
    ratio = []
    for seed in range(1500):
        pair = draw_pair(seed, options)
        assert pair.reference_spacing_mm is not None
        assert pair.template_spacing_mm is not None
        ratio.append(pair.template_spacing_mm[2] / pair.reference_spacing_mm[2])
    thicker = np.maximum(ratio, 1 / np.array(ratio))
    assert np.mean(thicker <= 1.05 + 1e-9) == pytest.approx(0.9, abs=0.03)
    assert np.mean(thicker >= 2) == pytest.approx(0.02, abs=0.012)
    assert 0.4 < np.mean(np.array(ratio) > 1) < 0.6


@pytest.mark.parametrize(
    "wrong", [{"real_share": 1.5}, {"shift_mm": (9.0, 8.0)}, {"equal_slices_share": 0.9, "double_slices_share": 0.2}]
)
def test_shares_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match=list(wrong)[-1]):
        DrawOptions(**wrong)  # type: ignore[arg-type]
