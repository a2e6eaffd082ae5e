"""Rigid pre-alignment on a phantom chest with vessels and ribs that only one patient has."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from phantoms import rotation
from rigid_samples import (
    FIELD_OF_VIEW,
    OTHER_FRAME_MM,
    aligned,
    grid_at,
    largest_error_mm,
    mirrored,
    moved_by,
    refusal,
    scan,
    slices,
)

from ChangeMapJointLib.core.errors import Cancelled
from ChangeMapJointLib.core.grid import Grid, Matrix3, Vector3
from ChangeMapJointLib.registration.rigid.align import RigidAlignment, align_rigid
from ChangeMapJointLib.registration.rigid.verdict import (
    Overlap,
)
from ChangeMapJointLib.scan.scan import Scan
from ChangeMapJointLib.scan.volume import Volume


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


SMALL_MOTION = moved_by((3.0, -2.0, 3.4), (8.0, -5.0, 12.0))


@cache
def moved_little() -> RigidAlignment:
    return aligned(scan(), scan(pose=SMALL_MOTION))


def test_a_small_motion_is_recovered_although_the_scan_lost_its_borders() -> None:
    truth, found = SMALL_MOTION, moved_little()
    assert largest_error_mm(found, truth) < 0.1
    assert found.rotation_deg == pytest.approx(np.degrees(np.arccos((np.trace(truth[:3, :3]) - 1) / 2)), abs=0.05)
    fine = FIELD_OF_VIEW.with_spacing((3.2, 3.2, 3.2))  # the share of voxels at the border that an adult has at 4 mm
    assert aligned(scan(grid=fine), scan(pose=truth, grid=fine)).lung_dice > 0.97


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


@pytest.mark.parametrize("part", [(0, 25), (25, 51)])
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
    upper = slices(scan(), 17, 51)
    lower = slices(scan(pose=truth, grid=grid_at(OTHER_FRAME_MM)), 0, 34)
    assert largest_error_mm(aligned(upper, lower), truth) < 0.2


def test_an_oblique_scan_is_aligned_by_its_geometry() -> None:
    axes: Matrix3 = rotation(12.0, -8.0, 15.0)
    middle = np.asarray(FIELD_OF_VIEW.centre_mm)
    size = np.array([72, 60, 60])
    x, y, z = (float(v) for v in middle - np.asarray(axes) @ (2.0 * (size - 1)))
    tilted = Grid((60, 60, 72), (4.0, 4.0, 4.0), (x, y, z), axes)
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
    found = aligned(on_table(scan(), 43), on_table(scan(pose=truth), 44))
    assert largest_error_mm(found, truth) < 0.2


def test_same_input_same_bytes_on_any_number_of_cores() -> None:
    found, before = moved_little(), sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    try:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(3)
        again = aligned(scan(), scan(pose=SMALL_MOTION))
        assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == 3
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    assert found.matrix.tobytes() == again.matrix.tobytes()
    assert found.similarity == again.similarity


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
    message = refusal(slices(scan(), 31, 51), slices(scan(), 0, 20))
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
    with pytest.raises(ValueError, match="lungs: found shape"):
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
