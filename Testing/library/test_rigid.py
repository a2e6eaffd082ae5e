"""Rigid pre-alignment on a phantom chest with vessels and ribs that only one patient has."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from phantoms import rotation
from scipy import ndimage

from ChangeMapJointLib.core.errors import Cancelled, InputError
from ChangeMapJointLib.core.grid import FloatArray, Grid, Matrix3, Vector3, apply_affine
from ChangeMapJointLib.registration.rigid.align import RigidAlignment, align_rigid
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
from ChangeMapJointLib.scan.scan import Scan
from ChangeMapJointLib.scan.volume import Volume

MASTER = Grid((84, 76, 104), (3.0, 3.0, 3.0), (-154.5, -112.5, -124.5))  # the patient, sampled by every scan
FIELD_OF_VIEW = Grid((63, 57, 78), (4.0, 4.0, 4.0), (-154.0, -113.5, -123.5))
FILL_HU = -1024.0  # as a resampling leaves it outside of the scan
OTHER_FRAME_MM = (500.0, -300.0, 700.0)


# -- the phantom ----------------------------------------------------------------------
@cache
def patient(seed: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """HU and lungs of a chest on MASTER: outline alike in all patients, vessels and ribs as the seed has it."""
    rng = np.random.default_rng(seed)
    k, j, i = np.meshgrid(*(np.arange(n) for n in MASTER.shape), indexing="ij")
    x, y, z = np.moveaxis(MASTER.to_physical(np.stack((i, j, k), -1)), -1, 0)
    body = (x / 140) ** 2 + (y / 95) ** 2 < 1
    right = ((x + 62) / 48) ** 2 + ((y + 2) / 66) ** 2 + ((z - 3) / 98) ** 2 < 1
    left = ((x - 66) / 42) ** 2 + ((y - 4) / 62) ** 2 + ((z + 3) / 94) ** 2 < 1
    heart = ((x - 22) / 50) ** 2 + ((y + 25) / 42) ** 2 + ((z + 40) / 45) ** 2 < 1
    lungs = (right | left) & ~heart
    ribs = (np.abs((x / 126) ** 2 + (y / 83) ** 2 - 1) < 0.1) & _bands(z + 0.45 * y, np.sign(x), rng)
    vertebra = ((x / 18) ** 2 + ((y - 66) / 16) ** 2 < 1) & _bands(z, np.ones_like(z), rng, gap_mm=5.0)
    hu = np.where(body, 40.0, -1000.0)
    hu[ribs | vertebra] = 400.0
    texture = sum(_unit(ndimage.gaussian_filter(rng.standard_normal(MASTER.shape), s)) for s in (0.7, 1.0))
    vessels = np.clip(350 * (texture - 0.6), 0, 850)
    hu[lungs] = (-850 + vessels)[lungs]
    return ndimage.gaussian_filter(hu, 0.5).astype(np.float32), lungs


def _bands(height: FloatArray, side: FloatArray, rng: np.random.Generator, gap_mm: float = 16.0) -> NDArray[np.bool_]:
    """Bones along z of irregular thickness and distance, on either side their own."""
    found = np.zeros(height.shape, dtype=bool)
    for one in (-1, 1):
        bottom = -160.0
        while bottom < 160.0:
            top = bottom + rng.uniform(7, 13)
            found |= (side == one) & (height > bottom) & (height < top)
            bottom = top + gap_mm * rng.uniform(0.5, 1.5)
    return found


def _unit(values: FloatArray) -> FloatArray:
    return values / values.std()


def scan(
    seed: int = 1,
    *,
    grid: Grid = FIELD_OF_VIEW,
    pose: FloatArray | None = None,
    noise_hu: float = 0.0,
) -> tuple[Volume, NDArray[np.bool_]]:
    """A scan of the patient after moving to ``pose @ x``, and its lungs; what the master lacks is filled in."""
    k, j, i = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    points = grid.to_physical(np.stack((i, j, k), -1))
    index = np.moveaxis(
        MASTER.to_index(apply_affine(np.linalg.inv(np.eye(4) if pose is None else pose), points)), -1, 0
    )
    hu, lungs = patient(seed)
    values = ndimage.map_coordinates(hu, index[::-1], order=1, mode="constant", cval=FILL_HU)
    if noise_hu:
        noise = np.random.default_rng(99).normal(0, noise_hu, values.shape)
        values = np.where(values > FILL_HU, values + noise, values)
    mask = ndimage.map_coordinates(lungs.astype(np.float32), index[::-1], order=1) > 0.5
    return Volume(np.clip(np.rint(values), -1024, 3071).astype(np.int16), grid), mask


def aligned(
    reference: tuple[Volume, NDArray[np.bool_]],
    template: tuple[Volume, NDArray[np.bool_]],
    options: RigidOptions | None = None,
) -> RigidAlignment:
    return align_rigid(Scan.of(reference[0], reference[1]), Scan.of(template[0], template[1]), options=options)


def refusal(reference: tuple[Volume, NDArray[np.bool_]], template: tuple[Volume, NDArray[np.bool_]]) -> str:
    with pytest.raises(InputError) as raised:
        aligned(reference, template)
    message = str(raised.value)
    assert "\n" not in message
    return message


def largest_error_mm(found: RigidAlignment, truth: FloatArray) -> float:
    """Over the points of the lungs."""
    points = MASTER.to_physical(np.argwhere(patient(1)[1])[::50, ::-1])
    return float(np.linalg.norm(apply_affine(found.matrix, points) - apply_affine(truth, points), axis=1).max())


def moved_by(turns_deg: Vector3 = (0, 0, 0), shift_mm: Vector3 = (0, 0, 0)) -> FloatArray:
    """4x4: the patient turned about the middle of the chest, then shifted."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(*turns_deg)
    matrix[:3, 3] = shift_mm
    return matrix


def grid_at(shift_mm: Vector3, *, spacing_mm: Vector3 = (4.0, 4.0, 4.0), pad_mm: float = 0.0) -> Grid:
    """The field of view in a frame whose origin is elsewhere, with other voxels."""
    extent = np.array(FIELD_OF_VIEW.extent_mm) + 2 * pad_mm
    nx, ny, nz = (int(n) for n in np.ceil(extent / spacing_mm))
    x, y, z = (float(v) for v in np.array(FIELD_OF_VIEW.origin_mm) - pad_mm + shift_mm)
    return Grid((nz, ny, nx), spacing_mm, (x, y, z))


def slices(whole: tuple[Volume, NDArray[np.bool_]], first: int, last: int) -> tuple[Volume, NDArray[np.bool_]]:
    volume, lungs = whole
    grid = volume.grid.crop((first, 0, 0), (last, *volume.array.shape[1:]))
    return Volume(volume.array[first:last], grid), lungs[first:last]


def mirrored(whole: tuple[Volume, NDArray[np.bool_]], *axes: int) -> tuple[Volume, NDArray[np.bool_]]:
    volume, lungs = whole
    return Volume(np.flip(volume.array, axes).copy(), volume.grid), np.flip(lungs, axes).copy()


# -- what must come out ---------------------------------------------------------------
def test_a_scan_against_itself_is_exactly_the_identity() -> None:
    found = aligned(scan(noise_hu=20), scan(noise_hu=20))
    assert np.array_equal(found.matrix, np.eye(4))
    assert found.matrix.dtype == np.float64
    assert found.rotation_deg == 0.0
    assert found.translation_mm == (0.0, 0.0, 0.0)
    assert found.overlap == Overlap(1.0, 1.0)
    assert found.lung_dice == 1.0
    assert found.similarity == pytest.approx(1.0, abs=0.01)
    assert found.warnings == ()
    assert "Aligned" in found.status


def test_a_small_motion_is_recovered_although_the_scan_lost_its_borders() -> None:
    truth = moved_by((3.0, -2.0, 3.4), (8.0, -5.0, 12.0))
    found = aligned(scan(), scan(pose=truth))
    assert largest_error_mm(found, truth) < 0.1
    assert found.rotation_deg == pytest.approx(np.degrees(np.arccos((np.trace(truth[:3, :3]) - 1) / 2)), abs=0.05)
    assert found.lung_dice > 0.97


@pytest.mark.parametrize("turns_deg", [(20.0, 0.0, 0.0), (0.0, -20.0, 0.0), (-9.0, 11.0, 10.0)])
def test_large_turns_in_another_frame_are_recovered(turns_deg: Vector3) -> None:
    truth = moved_by(turns_deg, OTHER_FRAME_MM)
    found = aligned(scan(), scan(pose=truth, grid=grid_at(OTHER_FRAME_MM, pad_mm=45), noise_hu=15))
    assert largest_error_mm(found, truth) < 0.15


@pytest.mark.parametrize("swapped", [False, True])
def test_thick_slices_against_thin_ones(swapped: bool) -> None:
    truth = moved_by((1.0, 2.0, -3.0), (15.0, 40.0, -20.0))
    thin = scan(noise_hu=30)
    thick = scan(pose=truth, grid=grid_at((15.0, 40.0, -20.0), spacing_mm=(2.2, 2.2, 5.0)))
    found = aligned(thick, thin) if swapped else aligned(thin, thick)
    matrix = np.linalg.inv(found.matrix) if swapped else found.matrix
    assert largest_error_mm(replace(found, matrix=matrix), truth) < 0.3


@pytest.mark.parametrize("part", [(0, 31), (31, 63)])
def test_half_a_scan_finds_its_place_and_says_what_is_missing(part: tuple[int, int]) -> None:
    truth = moved_by((2.0, 1.0, -2.0), OTHER_FRAME_MM)
    half = slices(scan(pose=truth, grid=grid_at(OTHER_FRAME_MM)), *part)
    found = aligned(scan(), half)
    assert largest_error_mm(found, truth) < 0.3  # over both halves
    assert found.overlap.reference_in_template == pytest.approx(0.5, abs=0.06)
    assert found.overlap.template_in_reference > 0.97
    assert found.lung_dice > 0.95
    assert any("cannot be assessed" in warning for warning in found.warnings)


def test_scans_that_share_a_third() -> None:
    truth = moved_by((0.0, 0.0, 0.0), OTHER_FRAME_MM)
    upper = slices(scan(), 21, 63)
    lower = slices(scan(pose=truth, grid=grid_at(OTHER_FRAME_MM)), 0, 42)
    assert largest_error_mm(aligned(upper, lower), truth) < 0.2


def test_an_oblique_scan_is_aligned_by_its_geometry() -> None:
    axes: Matrix3 = rotation(12.0, -8.0, 15.0)
    middle = np.asarray(FIELD_OF_VIEW.centre_mm)
    size = np.array([90, 75, 75])
    x, y, z = (float(v) for v in middle - np.asarray(axes) @ (2.0 * (size - 1)))
    tilted = Grid((75, 75, 90), (4.0, 4.0, 4.0), (x, y, z), axes)
    assert largest_error_mm(aligned(scan(), scan(grid=tilted)), np.eye(4)) < 0.1


def test_a_lung_that_filled_up_does_not_pull_the_other_away() -> None:
    truth = moved_by((2.0, -3.0, 1.0), (10.0, 20.0, 15.0))
    volume, lungs = scan(pose=truth, grid=grid_at((10.0, 20.0, 15.0)))
    left = lungs.copy()
    left[:, :, : lungs.shape[2] // 2] = False
    filled = Volume(np.where(left, 30, volume.array).astype(np.int16), volume.grid)
    found = aligned(scan(), (filled, lungs & ~left))
    assert largest_error_mm(found, truth) < 0.3
    assert found.similarity is not None
    assert found.similarity > 0.9


def test_the_table_may_move_and_is_not_followed() -> None:
    def on_table(whole: tuple[Volume, NDArray[np.bool_]], row: int) -> tuple[Volume, NDArray[np.bool_]]:
        array = whole[0].array.copy()
        array[:, row : row + 2] = 300
        return Volume(array, whole[0].grid), whole[1]

    truth = moved_by(shift_mm=(6.0, -4.0, 9.0))
    found = aligned(on_table(scan(), 53), on_table(scan(pose=truth), 54))
    assert largest_error_mm(found, truth) < 0.2


def test_same_input_same_bytes_on_any_number_of_cores() -> None:
    pair = scan(), scan(pose=moved_by((3.0, -2.0, 3.4), (8.0, -5.0, 12.0)), noise_hu=25)
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    found = []
    try:
        for threads in (1, 3):
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
            found.append(aligned(*pair))
            assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == threads
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    assert found[0].matrix.tobytes() == found[1].matrix.tobytes()
    assert found[0].similarity == found[1].similarity


# -- what must be refused -------------------------------------------------------------
@pytest.mark.parametrize(
    ("axes", "words"), [((2,), "flipped left-right"), ((0, 2), "flipped head-feet and left-right")]
)
def test_a_flipped_scan_is_refused_with_the_remedy(axes: tuple[int, ...], words: str) -> None:
    message = refusal(scan(), mirrored(scan(noise_hu=10), *axes))
    assert "the agreement of lung vessels is 0." in message
    assert "at least 0.45" in message
    assert words in message


@pytest.mark.parametrize("axes", [(), (2,)])
def test_another_patient_is_refused(axes: tuple[int, ...]) -> None:
    message = refusal(scan(1), mirrored(scan(2), *axes))
    assert "they do not show the same chest" in message
    assert "check that both are of the same patient" in message


def test_scans_of_different_parts_are_refused() -> None:
    message = refusal(slices(scan(), 38, 63), slices(scan(), 0, 25))
    assert "cannot be aligned" in message


def test_a_scan_with_hardly_any_lung_is_refused_with_both_figures() -> None:
    volume, lungs = scan()
    speck = np.zeros_like(lungs)
    speck[30:40, 20:30, 20:30] = True  # 1000 voxels of 0.064 ml
    message = refusal((volume, lungs), (volume, speck))
    assert "template" in message
    assert "64 ml" in message
    assert "100 ml" in message


def test_a_mask_of_another_scan_is_a_programming_error() -> None:
    volume, lungs = scan()
    with pytest.raises(ValueError, match="labels"):
        align_rigid(Scan.of(volume, lungs[1:]), Scan.of(volume, lungs))


def test_it_can_be_cancelled_and_reports_upwards() -> None:
    volume, lungs = scan()
    seen: list[float] = []

    def stop_at_half(fraction: float, message: str = "") -> None:
        seen.append(fraction)
        if fraction >= 0.4:
            raise Cancelled

    with pytest.raises(Cancelled):
        align_rigid(Scan.of(volume, lungs), Scan.of(volume, lungs), progress=stop_at_half)
    assert seen == sorted(seen)
    assert seen[0] == 0.0


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
    hu = (150 * _unit(ndimage.gaussian_filter(rng.standard_normal(shape), 1.0))).astype(np.float32)
    everywhere = np.ones(shape, dtype=bool)
    inner = np.zeros_like(everywhere)
    inner[11:-11, 11:-11, 11:-11] = True  # blocks whose search stays inside
    moved = np.roll(hu, (3, -4, 2), axis=(0, 1, 2))
    same = block_matches(hu, moved, inner, everywhere)
    assert len(same.own) >= 20
    assert same.own.min() > 0.999
    assert same.agreement().min() > 0.99
    stranger = (150 * _unit(ndimage.gaussian_filter(rng.standard_normal(shape), 1.0))).astype(np.float32)
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
        a, b = (150 * _unit(ndimage.gaussian_filter(rng.standard_normal(shape), width)) for _ in range(2))
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
