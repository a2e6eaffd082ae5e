"""Parts of the rigid alignment: its verdict, agreement of structures, working copies, starts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from rigid_samples import (
    moved_by,
    scan,
    unit_variance,
)
from scipy import ndimage

from ChangeMapJointLib.core.grid import Grid, Vector3, apply_affine
from ChangeMapJointLib.registration.rigid.same_chest import VESSEL_WINDOW_HU, block_matches, fine_structure
from ChangeMapJointLib.registration.rigid.starts import PoseScore, distinct_poses, rigid_matrix, start_poses
from ChangeMapJointLib.registration.rigid.verdict import (
    Overlap,
    RigidOptions,
    alignment_warnings,
    chest_problem,
    overlap_problem,
)
from ChangeMapJointLib.registration.rigid.working_scan import WorkingScan, working_scan
from ChangeMapJointLib.scan.volume import Volume


# -- verdict --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("vessels", "wall", "refused"),
    [
        (0.95, 0.95, False),
        (0.46, 0.30, False),  # posture changed the wall, the vessels are the patient's
        (0.44, 0.99, True),  # ribs are alike in many patients, also mirrored
        (0.44, None, True),
        (None, 0.64, True),
        (None, 0.66, False),
        (None, None, True),  # nothing to judge by: another patient might pass
    ],
)
def test_bars_of_the_agreement(vessels: float | None, wall: float | None, refused: bool) -> None:
    assert bool(chest_problem(vessels, wall, RigidOptions())) is refused


def test_one_scan_may_be_a_small_part_of_the_other() -> None:
    options = RigidOptions()
    assert overlap_problem(Overlap(0.1, 1.0), options) == ""
    assert "19%" in overlap_problem(Overlap(0.15, 0.19), options)


def test_doubts_are_said_one_by_one() -> None:
    options = RigidOptions()
    assert alignment_warnings(0.95, Overlap(1.0, 0.5), 3.0, options) == ()
    found = alignment_warnings(0.50, Overlap(0.5, 1.0), 16.0, options)
    assert len(found) == 3
    assert "0.50" in found[0]
    assert "50%" in found[1]
    assert "16 degrees" in found[2]
    assert "too few" in alignment_warnings(None, Overlap(1.0, 1.0), 0.0, options)[0]


# -- parts ----------------------------------------------------------------------------
def test_blocks_find_what_moved_and_nothing_in_a_stranger() -> None:
    rng = np.random.default_rng(5)
    shape = (42, 44, 46)
    hu = (150 * unit_variance(ndimage.gaussian_filter(rng.standard_normal(shape), 1.0))).astype(np.float32)
    everywhere = np.ones(shape, dtype=bool)
    inner = np.zeros_like(everywhere)
    inner[11:-11, 11:-11, 11:-11] = True  # blocks whose search stays inside
    moved = np.roll(hu, (3, -4, 2), axis=(0, 1, 2))
    same = block_matches(hu, moved, inner, everywhere)
    assert len(same.own) >= 20
    assert same.own.min() > 0.999
    assert same.agreement().min() > 0.99
    stranger = (150 * unit_variance(ndimage.gaussian_filter(rng.standard_normal(shape), 1.0))).astype(np.float32)
    other = block_matches(hu, stranger, inner, everywhere)
    assert len(other.own) == len(same.own)
    assert np.percentile(other.own, 75) < 0.5
    assert abs(np.median(other.agreement())) < 0.05


def test_blurred_strangers_match_better_but_do_not_agree_better() -> None:
    rng = np.random.default_rng(6)
    shape = (42, 44, 46)
    everywhere = np.ones(shape, dtype=bool)
    inner = np.zeros_like(everywhere)
    inner[11:-11, 11:-11, 11:-11] = True
    found = []
    for width in (1.0, 2.0):
        a, b = (150 * unit_variance(ndimage.gaussian_filter(rng.standard_normal(shape), width)) for _ in range(2))
        found.append(block_matches(a.astype(np.float32), b.astype(np.float32), inner, everywhere))
    sharp, blurred = found
    assert np.median(blurred.own) > np.median(sharp.own) + 0.15
    assert np.median(blurred.agreement()) < 0.15


def test_structure_takes_out_what_two_lungs_share() -> None:
    hu = np.full((20, 20, 30), -850.0, dtype=np.float32)
    hu += np.linspace(0, 60, 20, dtype=np.float32)[None, :, None]  # denser towards the back
    hu[10, 10, :] = -400  # a vessel
    hu[:, :, 20:] = 40  # chest wall
    lungs = hu < -100
    found = fine_structure(hu, lungs, VESSEL_WINDOW_HU)
    assert not found[:, :, 20:].any()
    assert found[10, 10, 5] > 350
    assert np.abs(found[3, 4:16, 15]).max() < 10  # the fall of density
    assert np.abs(found[3, 10, 15:20]).max() < 10  # beside the wall


def test_blocks_without_structure_or_partner_are_not_judged() -> None:
    flat = np.zeros((40, 40, 40), dtype=np.float32)
    everywhere = np.ones(flat.shape, dtype=bool)
    assert len(block_matches(flat, flat, everywhere, everywhere).own) == 0
    noise = np.random.default_rng(0).normal(0, 100, flat.shape).astype(np.float32)
    assert len(block_matches(noise, noise, everywhere, ~everywhere).own) == 0


def test_filled_in_voxels_are_not_looked_at_and_lone_air_is() -> None:
    array = np.full((20, 20, 20), -990, dtype=np.int16)
    array[:, :, 12:] = -1024  # a resampling's fill
    array[5, 5, 5] = -1024  # clipped air
    found = working_scan(Volume(array, Grid((20, 20, 20))), array < -900, 1.0)
    assert not found.valid[:, :, 12:].any()
    assert not found.valid[:, :, 11].any()  # beside it
    assert found.valid[:, :, :11].all()
    clipped = working_scan(Volume(np.maximum(array, -900), Grid((20, 20, 20))), array < -900, 1.0)
    assert clipped.valid.all()  # cut off, but measured
    points = np.array([[5.0, 5.0, 5.0], [15.0, 5.0, 5.0], [-3.0, 5.0, 5.0]])
    assert found.has_data_at(points).tolist() == [True, False, False]


def test_what_the_scan_did_not_see_is_not_looked_at() -> None:
    array = np.full((20, 20, 20), -900, dtype=np.int16)
    volume = Volume(array, Grid((20, 20, 20), (1.5, 1.5, 1.5)))
    unseen = np.zeros(array.shape, dtype=bool)
    unseen[:, :, 15] = True  # one plane, of whatever value: no plateau; its margin is in it already
    valid = working_scan(replace(volume, unseen=unseen), array < 0, 3.0).valid
    assert valid[:, :, :7].all()
    assert not valid[:, :, 7].any()  # the voxel that holds the plane
    assert valid[:, :, 8:].all()


@pytest.mark.parametrize("spacing_mm", [(0.7, 0.7, 0.7), (1.0, 1.0, 2.5), (1.75, 1.75, 1.75), (2.0, 2.0, 5.0)])
def test_working_copies_are_alike_whatever_the_voxels(spacing_mm: Vector3) -> None:
    """A soft ball in a soft background; the value in its middle and its volume stay."""
    extent = 48.0
    nx, ny, nz = (round(extent / h) for h in spacing_mm)
    grid = Grid((nz, ny, nx), spacing_mm, (10.0, 20.0, 30.0))
    middle = np.asarray(grid.centre_mm)
    k, j, i = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    distance = np.linalg.norm(grid.to_physical(np.stack((i, j, k), -1)) - middle, axis=-1)
    variance = 36.0 + np.square(spacing_mm).mean() / (8 * np.log(2))  # a Gaussian ball as such voxels show it
    peak = 800.0 * (36.0 / variance) ** 1.5
    hu = (-900.0 + peak * np.exp(-(distance**2) / 2 / variance)).astype(np.float32)
    found = working_scan(Volume(hu, grid), distance < 12.0, 3.0)
    assert found.grid.spacing_mm == (3.0, 3.0, 3.0)
    np.testing.assert_allclose(found.grid.centre_mm, middle, atol=0.5 * max(spacing_mm) + 1e-9)
    mass = float((found.array + 900.0).sum()) * found.grid.voxel_volume_ml
    assert mass == pytest.approx(800.0 * (2 * np.pi * 36.0) ** 1.5 / 1000.0, rel=0.03)
    wanted = 36.0 + np.maximum(9.0, np.square(spacing_mm)).mean() / (8 * np.log(2))
    nearest = np.unravel_index(int(found.array.argmax()), found.array.shape)
    off = float(np.linalg.norm(found.grid.to_physical(nearest[::-1]) - middle))
    expected = -900.0 + 800.0 * (36.0 / wanted) ** 1.5 * np.exp(-(off**2) / 2 / wanted)
    assert float(found.array.max()) == pytest.approx(expected, abs=15.0)
    assert float(found.lungs.sum()) * found.grid.voxel_volume_ml == pytest.approx(4 / 3 * np.pi * 12**3 / 1e3, rel=0.1)
    np.testing.assert_allclose(found.blur_mm2, np.maximum(9.0, np.square(spacing_mm)) / (8 * np.log(2)))


def test_metal_and_air_are_clipped() -> None:
    array = np.full((6, 6, 6), -3000, dtype=np.int16)
    array[:, :, 3:] = 3000
    found = working_scan(Volume(array, Grid((6, 6, 6), (3.0, 3.0, 3.0))), array > 0, 3.0)
    assert found.array.min() == -1000
    assert found.array.max() == 400


def test_region_reaches_as_far_as_asked() -> None:
    lungs = np.zeros((15, 15, 15), dtype=bool)
    lungs[7, 7, 7] = True
    chest = WorkingScan(
        np.zeros(lungs.shape, np.float32), Grid((15, 15, 15), (2.0, 2.0, 2.0)), lungs, np.ones_like(lungs)
    )
    region = chest.region(6.0)
    assert region[7, 7, 4]
    assert not region[7, 7, 3]
    assert not region[5, 5, 5 - 1]


def test_rigid_matrix_turns_about_the_centre() -> None:
    centre = np.array([10.0, -20.0, 30.0])
    matrix = rigid_matrix(centre, np.array([0.0, 0.0, 90.0]), np.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(apply_affine(matrix, centre), [11.0, -18.0, 33.0], atol=1e-12)
    np.testing.assert_allclose(
        apply_affine(matrix, centre + np.array([5.0, 0.0, 0.0])), [11.0, -13.0, 33.0], atol=1e-12
    )


def test_score_is_one_for_itself_and_falls_with_overlap() -> None:
    volume, lungs = scan()
    chest = working_scan(volume, lungs, 9.0)
    score = PoseScore.of(chest, chest, 20.0)
    assert score(np.eye(4)) == pytest.approx(1.0, abs=1e-6)
    assert score(moved_by(shift_mm=(30.0, 0.0, 0.0))) < 0.8
    assert score(moved_by(shift_mm=(5000.0, 0.0, 0.0))) == -1.0


def test_starts_are_distinct_and_begin_with_the_identity() -> None:
    volume, lungs = scan()
    chest = working_scan(volume, lungs, 9.0)
    found = start_poses(chest, chest, PoseScore.of(chest, chest, 20.0), 5, 0.25)
    assert len(found) == 5
    assert np.array_equal(found[0], np.eye(4))
    points = chest.lung_points_mm(200)
    places = [apply_affine(pose, points) for pose in found]
    gaps = [np.linalg.norm(a - b, axis=1).mean() for i, a in enumerate(places) for b in places[:i]]
    assert min(gaps) > 15.0


def test_distinct_poses_keep_the_first_of_each_place() -> None:
    poses = [moved_by(shift_mm=(x, 0.0, 0.0)) for x in (0.0, 10.0, 20.0, 31.0, 36.0)]
    found = distinct_poses(poses, np.zeros((4, 3)), 3)
    assert [pose[0, 3] for pose in found] == [0.0, 20.0, 36.0]
