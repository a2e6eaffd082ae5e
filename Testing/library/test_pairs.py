"""Pairs with known truth: what is made is what the truth says; and the sample pair that ships."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import distance_transform_edt, gaussian_filter

from ChangeMapJointLib.core.displacement import DisplacementField, warp
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.core.resample import sample_array
from ChangeMapJointLib.training.acquisition import (
    breathe_density,
    measured_noise_hu,
    sample_cubic,
    scan_noise,
    without_noise,
)
from ChangeMapJointLib.training.motion import MotionOptions
from ChangeMapJointLib.training.pairs import KnownPair, LesionPlan, PairOptions, make_pair
from ChangeMapJointLib.training.sites import Site, closed_lungs, find_sites, lung_maps
from ChangeMapJointLib.training.truth import Truth, read_truth, write_truth
from ChangeMapJointLib.volumes.volume import Volume

GRID = Grid((96, 72, 112), (2.5, 2.5, 2.5), (-138.75, -88.75, -238.75))
INDEX = GRID.to_physical(np.indices(GRID.shape)[::-1].transpose(1, 2, 3, 0))
SAMPLE = Path(__file__).resolve().parents[2] / "Resources" / "SamplePair"
OWN_MM = np.array([70.0, -30.0, -90.0])
PLANS = (
    LesionPlan("new", 14.0, 0.0),
    LesionPlan("resolved", 0.0, 14.0, place="vessel"),
    LesionPlan("grown", 20.0, 10.0, side="left"),
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


def phantom() -> tuple[Volume, np.ndarray, np.ndarray]:
    """Two lungs with vessels and a texture, in a body; the lungs' threshold mask; one own lesion."""
    rng = np.random.default_rng(0)
    x, y, z = np.moveaxis(INDEX, -1, 0)
    hu = np.where((x / 132) ** 2 + (y / 84) ** 2 < 1, 40.0, -1000.0)
    lungs = np.zeros(GRID.shape, bool)
    for side in (-1, 1):
        inside = ((x - 66 * side) / 56) ** 2 + (y / 70) ** 2 + ((z + 118) / 105) ** 2 < 1
        hu[inside] = -860
        lungs |= inside
        for number in range(5):  # vessels that fan out from the hilum
            start, angle = np.array([16.0 * side, 0, -118]), np.deg2rad(-65 + 32 * number)
            way = np.array([side * np.cos(angle), 0.25 * (number - 2), np.sin(angle)])
            way /= np.linalg.norm(way)
            along = (INDEX - start) @ way
            away = np.linalg.norm(INDEX - start - along[..., None] * way, axis=-1)
            hu[inside & (along > 0) & (along < 75) & (away < 3.2)] = 50
    own = np.linalg.norm(INDEX - OWN_MM, axis=-1) < 8
    hu[own] = 45
    hu = gaussian_filter(hu, 0.5) + scan_noise(rng, GRID, sigma_hu=12.0, width_mm=1.5)
    return Volume(np.rint(np.maximum(hu, -1024)).astype(np.int16), GRID), lungs & (hu < -400), own


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
    with pytest.raises(InputError, match="no place"):
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


# -- parts -------------------------------------------------------------------------------


def test_density_keeps_mass_in_lung_and_leaves_blood():
    hu = np.array([[[-1000.0, -850, -600, 0, 60]]], dtype=np.float32)
    result = breathe_density(hu, np.full(hu.shape, 1.2, np.float32), np.ones(hu.shape))
    np.testing.assert_allclose(result.ravel(), [-1000, -1000 + 150 * 1.2, -1000 + 400 * 1.2, 0, 60], atol=1e-3)
    np.testing.assert_array_equal(breathe_density(hu, np.full(hu.shape, 1.2, np.float32), np.zeros(hu.shape)), hu)


def test_cubic_sampling_of_a_smooth_image_beats_its_grid():
    source, target = Grid((24, 24, 24)), Grid((12, 12, 12), (1.0, 1.0, 1.0), (5.3, 5.6, 5.8))

    def wave(grid: Grid) -> np.ndarray:
        x, y, z = np.moveaxis(grid.to_physical(np.indices(grid.shape)[::-1].transpose(1, 2, 3, 0)), -1, 0)
        return 100 * np.sin(x / 2.5) * np.cos(y / 3) * np.sin(z / 3.5)

    shift = DisplacementField(np.full((12, 12, 12, 3), 0.25, np.float32), target)
    moved = Grid(target.shape, target.spacing_mm, tuple(o + 0.25 for o in target.origin_mm))
    np.testing.assert_allclose(sample_cubic(wave(source), source, target, shift), wave(moved), atol=0.6)


def test_coarser_sampling_does_not_alias():
    fine, coarse = Grid((32, 32, 32)), Grid((8, 8, 8), (4.0, 4.0, 4.0))
    stripes = np.broadcast_to(np.where(np.arange(32) % 2, 100.0, -100.0), fine.shape)
    assert np.abs(sample_cubic(stripes, fine, coarse)[2:-2, 2:-2, 2:-2]).max() < 5
    assert sample_cubic(np.full(fine.shape, 7.0), fine, coarse) == pytest.approx(7.0, abs=1e-4)


def test_noise_is_measured_and_removed():
    grid = Grid((40, 40, 40), (1.5, 1.5, 1.5))
    clean = np.where(np.arange(40) < 20, 40.0, -850.0) + np.zeros(grid.shape)
    noisy = clean + scan_noise(np.random.default_rng(0), grid, sigma_hu=18.0, width_mm=0.9)
    assert measured_noise_hu(noisy) == pytest.approx(18, rel=0.15)
    smooth = without_noise(noisy, grid)
    assert (smooth - clean)[..., :16].std() < 0.6 * 18
    np.testing.assert_allclose(smooth[..., 18:22].mean((0, 1)), clean[0, 0, 18:22], atol=15)  # the step stays


def test_noise_without_soft_tissue_is_assumed():
    assert measured_noise_hu(np.full((10, 10, 10), -900.0), fallback_hu=9.0) == 9.0


def test_closing_fills_vessels_but_not_the_gap_between_the_lungs():
    _, mask, _ = phantom()
    closed = closed_lungs(mask, GRID)
    assert (closed & ~mask).sum() > 300
    assert closed[mask].all()
    assert not closed[:, :, np.abs(INDEX[0, 0, :, 0]) < 5].any()


def test_vessel_site_is_beside_a_vessel():
    volume, mask, _ = phantom()
    maps = lung_maps(volume.array, closed_lungs(mask, GRID), GRID)
    (centre,) = find_sites(maps, [Site(6.0, "vessel")], rng=np.random.default_rng(0))
    away = float(sample_array(maps.vessel_mm, maps.grid, centre[None])[0])
    assert 0.4 * 6 < away < 0.8 * 6


# -- the sample pair that ships ------------------------------------------------------------


@pytest.fixture(scope="module")
def sample() -> tuple[Volume, Volume, Truth]:
    volumes = []
    for name in ("reference", "template"):
        image = sitk.ReadImage(str(SAMPLE / f"{name}.nrrd"))
        volumes.append(Volume(sitk.GetArrayFromImage(image), Grid.of_image(image)))
    return volumes[0], volumes[1], read_truth(SAMPLE / "truth.json")


def test_sample_pair_is_light_and_the_one_the_truth_describes(sample):
    reference, template, truth = sample
    total = 0
    for name, volume in (("reference", reference), ("template", template)):
        path = SAMPLE / f"{name}.nrrd"
        total += path.stat().st_size
        assert hashlib.sha256(path.read_bytes()).hexdigest() == truth.about[name]["sha256"]
        assert list(volume.grid.shape) == truth.about[name]["shape"]
        np.testing.assert_allclose(volume.grid.spacing_mm, truth.about[name]["spacing_mm"])
        assert volume.array.dtype == np.int16
    assert total < 12e6


def test_sample_pair_says_what_it_is():
    truth = json.loads((SAMPLE / "truth.json").read_text())
    assert "synthetic change" in truth["about"]
    assert truth["source"]["licence"] == "CC BY 3.0"
    attribution, readme = (SAMPLE / "ATTRIBUTION.txt").read_text(), (SAMPLE / "README.md").read_text()
    assert truth["source"]["doi"] in attribution
    assert "creativecommons.org/licenses/by/3.0" in attribution
    assert "synthetic" in readme


def test_sample_pair_has_the_changes_that_the_demo_promises(sample):
    changes = sample[2].changes
    count = {kind: sum(c.kind == kind and c.solid for c in changes) for kind in ("new", "grown", "shrunk", "resolved")}
    assert min(count.values()) >= 2
    assert sum(c.kind == "stable" for c in changes) >= 2
    assert all(c.diameter_change_mm >= 6 for c in changes if c.is_change)
    assert {c.side for c in changes if c.is_change} == {"left", "right"}
    assert {c.place for c in changes if c.is_change} == {"free", "vessel", "pleura"}
    assert len({c.id for c in changes}) == len(changes)


def test_sample_pairs_points_follow_its_motion(sample):
    reference, template, truth = sample
    np.testing.assert_allclose(truth.motion(truth.points.reference_mm), truth.points.template_mm, atol=3e-3)
    assert len(truth.points.reference_mm) >= 300
    assert reference.grid.contains(truth.points.reference_mm).all()
    assert template.grid.contains(truth.points.template_mm).all()


def test_every_solid_change_of_the_sample_pair_can_be_seen_at_the_true_motion(sample):
    reference, template, truth = sample
    for change in truth.changes:
        now, before, box = change.inside(reference.grid)
        crop = reference.grid.crop([s.start for s in box], [s.stop for s in box])
        field = truth.motion.field(crop)
        moved = warp(template.array, template.grid, crop, field, outside=-1024)
        difference = np.abs(np.clip(reference.array[box], -1000, 50) - np.clip(moved, -1000, 50)) / 1050
        above = int(((difference >= 0.68) & (now ^ before)).sum())
        if change.is_change and change.solid:
            assert above >= 15, change
        if not change.is_change:
            assert difference[now].max() < 0.68, change
