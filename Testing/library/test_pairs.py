"""Pairs with known truth: what is made is what the truth says."""

from dataclasses import replace

import numpy as np
import pytest
from pair_samples import GRID, INDEX, OWN_MM, phantom
from scipy.ndimage import distance_transform_edt

from ChangeMapJointLib.core.displacement import warp
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.resample import sample_array
from ChangeMapJointLib.scan.volume import Volume
from ChangeMapJointLib.synthesis.motion import MotionOptions
from ChangeMapJointLib.synthesis.pairs import KnownPair, LesionPlan, PairOptions, make_pair
from ChangeMapJointLib.synthesis.truth import Truth, read_truth, write_truth

PLANS = (
    LesionPlan("new", 14.0, 0.0),
    LesionPlan("resolved", 0.0, 14.0, place="vessel"),
    LesionPlan("grown", 20.0, 10.0, side="left", eroded=True),
    LesionPlan("shrunk", 10.0, 20.0, place="pleura", side="right"),
    LesionPlan("stable", 16.0, 16.0, side="right"),
    LesionPlan("new", 18.0, 0.0, texture="ground-glass"),
)
OPTIONS = PairOptions(
    motion=MotionOptions(diaphragm_mm=18, frame_shift_mm=(40.0, -25.0, 310.0)),
    lesions=PLANS,
    reference_spacing_mm=(2.4, 2.4, 3.0),
    reference_noise_hu=12.0,
    points=300,
)
FAST = replace(OPTIONS, lesions=(), reference_spacing_mm=(5.0, 5.0, 5.0), denoise=False, points=120)


@pytest.fixture(scope="module")
def pair() -> KnownPair:
    volume, lungs, own = phantom()
    return make_pair(volume, lungs, seed=11, options=OPTIONS, own_lesions=own)


@pytest.fixture(scope="module")
def moved_template(pair: KnownPair) -> np.ndarray:
    """T(y) on the reference's grid."""
    return warp(pair.template.array, pair.template.grid, pair.reference.grid, pair.field(), outside=-1000)


def mean_hu(volume: Volume, centre_mm, radius_mm: float) -> float:
    grid = volume.grid
    points = grid.to_physical(np.indices(grid.shape)[::-1].transpose(1, 2, 3, 0))
    return float(volume.array[np.linalg.norm(points - centre_mm, axis=-1) < radius_mm].mean())


# -- the pair ----------------------------------------------------------------------------


def test_lesions_are_where_and_when_the_truth_says(pair):
    present = {"new": (1, 0), "resolved": (0, 1), "grown": (1, 1), "shrunk": (1, 1), "stable": (1, 1)}
    assert [c.kind for c in pair.changes] == ["stable", *(plan.kind for plan in PLANS)]
    for change in pair.changes:
        if not change.solid:
            continue
        now, before = present[change.kind]
        for volume, centre, there in (
            (pair.reference, change.centre_reference_mm, now),
            (pair.template, change.centre_template_mm, before),
        ):
            assert mean_hu(volume, centre, 3.5) > -100 if there else mean_hu(volume, centre, 3.5) < -600, change


def test_ground_glass_is_faint_and_new(pair):
    (glass,) = (c for c in pair.changes if not c.solid)
    now = mean_hu(pair.reference, glass.centre_reference_mm, 5)
    before = mean_hu(pair.template, glass.centre_template_mm, 5)
    assert 150 < now - before < 550


def test_ground_glass_is_as_pale_as_asked():
    volume, lungs, own = phantom()
    plan = LesionPlan("new", 20.0, 0.0, texture="ground-glass")
    seen = []
    for hu in (100.0, 250.0):
        options = replace(FAST, lesions=(plan,), ground_glass_hu=(hu, hu))
        made = make_pair(volume, lungs, seed=3, options=options, own_lesions=own)
        seen.append(mean_hu(made.reference, made.changes[-1].centre_reference_mm, 5))
    assert seen[1] - seen[0] == pytest.approx(150.0, abs=30.0)  # the same place, shape and noise


def test_centres_and_points_correspond_by_the_motion(pair):
    for change in pair.changes:
        np.testing.assert_allclose(pair.motion(change.centre_reference_mm), change.centre_template_mm, atol=2e-3)
    np.testing.assert_allclose(pair.motion(pair.points.reference_mm), pair.points.template_mm, atol=2e-3)
    assert len(pair.points.reference_mm) == 300
    assert pair.points.on_vessel.sum() == 100
    hu = sample_array(pair.template.array, pair.template.grid, pair.points.template_mm)
    assert np.median(hu[pair.points.on_vessel]) > np.median(hu[~pair.points.on_vessel]) + 400


def test_lesions_move_as_a_whole(pair):
    warped = warp(pair.lesions_template > 0, pair.template.grid, pair.reference.grid, pair.field()) >= 0.5
    for change in pair.changes:
        if change.kind != "stable":
            continue
        now = pair.lesions_reference == change.id
        nearby = distance_transform_edt(~now, sampling=pair.reference.grid.spacing_mm[::-1]) < 6
        before = warped & nearby
        assert 2 * (now & before).sum() / (now.sum() + before.sum()) > 0.9
        assert change.volume_reference_ml == pytest.approx(change.volume_template_ml, rel=0.1)


def test_volumes_are_those_of_the_diameters_away_from_the_pleura(pair):
    for change, plan in zip(pair.changes[1:], PLANS, strict=True):
        for volume_ml, diameter in (
            (change.volume_reference_ml, change.diameter_reference_mm),
            (change.volume_template_ml, change.diameter_template_mm),
        ):
            sphere_ml = np.pi / 6 * diameter**3 / 1000
            if plan.place == "pleura":
                assert 0.4 * sphere_ml < volume_ml < sphere_ml
            else:
                assert volume_ml == pytest.approx(sphere_ml, rel=0.08)


def test_own_lesion_is_stable_and_kept(pair):
    own = pair.changes[0]
    assert not own.inserted
    assert own.kind == "stable"
    np.testing.assert_allclose(own.centre_template_mm, OWN_MM, atol=1)
    assert own.diameter_template_mm == pytest.approx(16, abs=1)
    assert own.side == "left"


def test_places_are_as_planned(pair):
    depth = distance_transform_edt(pair.lungs_template, sampling=GRID.spacing_mm[::-1])
    for change, plan in zip(pair.changes[1:], PLANS, strict=True):
        centre = np.array(change.centre_template_mm)
        if plan.side is not None:
            assert (centre[0] > 0) == (plan.side == "left")
        here = float(sample_array(depth, pair.template.grid, centre[None])[0])
        assert here < plan.largest_mm / 2 if plan.place == "pleura" else here > plan.largest_mm / 2
    centres = np.array([c.centre_template_mm for c in pair.changes])
    radii = np.array([max(c.diameter_template_mm, c.diameter_reference_mm) / 2 for c in pair.changes])
    gaps = np.linalg.norm(centres[:, None] - centres[None], axis=-1) - radii[:, None] - radii[None]
    assert gaps[~np.eye(len(gaps), dtype=bool)].min() >= 14 - 1


def test_nothing_else_changes_at_the_true_motion(pair, moved_template):
    difference = np.abs(pair.reference.array - moved_template)
    lesions = np.zeros(difference.shape, bool)
    for change in pair.changes:
        now, before, box = change.inside(pair.reference.grid)
        lesions[box] |= now | before
    far = distance_transform_edt(~lesions, sampling=pair.reference.grid.spacing_mm[::-1]) > 5
    deep = distance_transform_edt(pair.lungs_reference, sampling=pair.reference.grid.spacing_mm[::-1]) > 4
    assert np.percentile(difference[far & deep], 99) < 250  # vessels' borders on two grids
    assert np.median(difference[far & deep]) < 40
    solid = [c for c in pair.changes if c.solid and c.is_change]
    for change in solid:
        now, before, box = change.inside(pair.reference.grid)
        assert (difference[box][now ^ before] > 500).mean() > 0.35


def test_lungs_correspond(pair):
    warped = warp(pair.lungs_template, pair.template.grid, pair.reference.grid, pair.field()) >= 0.5
    dice = 2 * (warped & pair.lungs_reference).sum() / (warped.sum() + pair.lungs_reference.sum())
    assert dice > 0.99


def test_reference_is_denser_by_its_volume(pair):
    volume_now = pair.lungs_reference.sum() * pair.reference.grid.voxel_volume_ml
    volume_before = pair.lungs_template.sum() * pair.template.grid.voxel_volume_ml
    assert volume_now < 0.95 * volume_before

    def mass(volume: Volume, lungs: np.ndarray) -> float:
        # aerated lung two voxels below the surface stands for all of it
        inner = (distance_transform_edt(lungs) > 2) & (volume.array < -600)
        return float((volume.array[inner] + 1000).mean()) * float(lungs.sum()) * volume.grid.voxel_volume_ml

    ratio = mass(pair.reference, pair.lungs_reference) / mass(pair.template, pair.lungs_template)
    assert ratio == pytest.approx(1.0, abs=0.03)


def test_frames_differ_as_asked(pair):
    shift = np.array(pair.reference.grid.centre_mm) - np.array(pair.template.grid.centre_mm)
    np.testing.assert_allclose(shift, [-40, 25, -310], atol=25)
    assert pair.reference.grid.spacing_mm == (2.4, 2.4, 3.0)


def test_template_is_the_scan_itself_where_no_lesion_is(pair):
    volume, _, _ = phantom()
    difference = pair.template.array != volume.array
    lesions = np.zeros(GRID.shape, bool)
    for change in pair.changes:
        lesions |= np.linalg.norm(INDEX - change.centre_template_mm, axis=-1) < change.diameter_template_mm
    assert not difference[~lesions].any()
    assert difference[lesions].any()


def test_seed_decides_everything(pair):
    volume, lungs, own = phantom()
    again = make_pair(volume, lungs, seed=11, options=OPTIONS, own_lesions=own)
    np.testing.assert_array_equal(again.reference.array, pair.reference.array)
    np.testing.assert_array_equal(again.template.array, pair.template.array)
    assert again.changes == pair.changes
    assert make_pair(volume, lungs, seed=12, options=FAST).motion != pair.motion


def test_sliding_pair_keeps_its_points(pair):
    volume, lungs, _ = phantom()
    options = replace(FAST, sliding=1.0, template_spacing_mm=(3.0, 3.0, 5.0))
    slid = make_pair(volume, lungs, seed=11, options=options)
    np.testing.assert_allclose(slid.motion(slid.points.reference_mm), slid.points.template_mm, atol=2e-3)
    at_points = slid.field().apply(slid.points.reference_mm)
    error = np.linalg.norm(at_points - slid.points.template_mm, axis=-1)
    assert np.median(error) < 0.05
    assert slid.template.grid.spacing_mm == (3.0, 3.0, 5.0)
    assert slid.changes == ()


def test_masks_of_another_shape_are_refused():
    volume, lungs, _ = phantom()
    with pytest.raises(InputError, match="lungs_mask"):
        make_pair(volume, lungs[1:], seed=0)
    with pytest.raises(InputError, match="own_lesions"):
        make_pair(volume, lungs, seed=0, own_lesions=lungs[:, 1:])


def test_lesion_that_does_not_fit_is_refused():
    volume, lungs, _ = phantom()
    with pytest.raises(InputError, match="fits nowhere"):
        make_pair(volume, lungs, seed=0, options=PairOptions(lesions=(LesionPlan("new", 130.0, 0.0),)))


@pytest.mark.parametrize(
    ("kind", "now", "before"),
    [("new", 5, 3), ("grown", 5, 5), ("shrunk", 5, 0), ("resolved", 3, 5), ("stable", 5, 6), ("odd", 5, 5)],
)
def test_kind_must_fit_the_diameters(kind, now, before):
    with pytest.raises(InputError, match=kind):
        LesionPlan(kind, now, before)


def test_truth_survives_a_file(pair, tmp_path):
    write_truth(tmp_path / "truth.json", Truth(pair.changes, pair.motion, pair.points, {"about": "a phantom"}))
    again = read_truth(tmp_path / "truth.json")
    assert again.changes == pair.changes
    assert again.motion == pair.motion
    assert again.about == {"about": "a phantom"}
    np.testing.assert_allclose(again.points.reference_mm, pair.points.reference_mm, atol=1e-3)
    np.testing.assert_array_equal(again.points.on_vessel, pair.points.on_vessel)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "other", "changes": []}', '{"format": 1'])
def test_other_files_are_no_truth(text, tmp_path):
    path = tmp_path / "truth.json"
    path.write_text(text)
    with pytest.raises(InputError, match="truth"):
        read_truth(path)
    with pytest.raises(InputError, match="missing"):
        read_truth(tmp_path / "missing.json")
