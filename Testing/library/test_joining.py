"""Acquisitions of one series at two positions of the table, which overlap in part."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from phantoms import chest_hu, chest_phantom, dicom_slices, input_error, save_slices, voxel_points
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.io.dicom.images import read_source_images
from ChangeMapJointLib.io.dicom.series import list_series
from ChangeMapJointLib.io.read import read_volume
from ChangeMapJointLib.scan.volume import Volume

STEP_MM, EDGE_MM = 5.0, 10.0
BOTTOM_MM = -110.0


def part(first_mm: float, slices: int, *, seed: int, breath_mm: float = 0.0) -> Volume:
    """Slices of the phantom from ``first_mm`` on, whose organs lie higher by ``breath_mm``."""
    grid = Grid((slices, 40, 60), (5.0, 5.0, STEP_MM), (-147.5, -97.5, first_mm))
    return chest_phantom(
        grid=grid, edge_mm=EDGE_MM, noise_hu=25.0, seed=seed, table=False, moved=lambda p: p - (0.0, 0.0, breath_mm)
    )


def series(
    *volumes: Volume, numbered: bool = True, uid: str | None = None, keyword: str = "AcquisitionNumber"
) -> list[Dataset]:
    """The slices of all volumes as one series, each as an acquisition of its own."""
    uid, result, frame = uid or generate_uid(), [], generate_uid()
    for number, volume in enumerate(volumes, 1):
        tags: dict[str, object] = {"SeriesInstanceUID": uid, "FrameOfReferenceUID": frame}
        if numbered:
            tags[keyword] = number if keyword == "AcquisitionNumber" else f"10000{number}"
        for ds in dicom_slices(volume, **tags):
            ds.InstanceNumber = len(result) + 1
            result.append(ds)
    return result


@pytest.mark.parametrize("keyword", ["AcquisitionNumber", "AcquisitionTime"])
@pytest.mark.parametrize("order", [1, -1], ids=["upwards", "downwards"])
def test_they_are_one_scan_where_they_agree(tmp_path: Path, keyword: str, order: int) -> None:
    lower, upper = part(BOTTOM_MM, 24, seed=1), part(-20.0, 26, seed=2)  # 30 mm shared
    found = read_volume(save_slices(tmp_path, series(*(lower, upper)[::order], keyword=keyword)))
    assert found.grid.shape == (44, 40, 60)
    assert found.grid.origin_mm == lower.grid.origin_mm
    np.testing.assert_array_equal(found.array[:21], lower.array[:21])
    np.testing.assert_array_equal(found.array[22:], upper.array[4:])
    (note,) = found.notes
    assert note == (
        "2 acquisitions of the series (-110 to 5 mm, -20 to 105 mm) overlap and agree there; they were joined in the "
        "middle of the overlap."
    )
    images = read_source_images(tmp_path)
    assert len(images.images) == 44


@pytest.mark.parametrize("numbered", [True, False], ids=["numbered", "in the order of the images"])
@pytest.mark.parametrize("off_mm", [1.2, 2.5, 4.0])
def test_acquisitions_out_of_step_come_onto_one_grid(tmp_path: Path, off_mm: float, numbered: bool) -> None:
    lower, upper = part(BOTTOM_MM, 24, seed=1), part(-20.0 + off_mm, 26, seed=2)
    found = read_volume(save_slices(tmp_path, series(lower, upper, numbered=numbered)))
    assert found.grid.spacing_mm[2] == STEP_MM
    assert found.grid.shape[0] in (44, 45)
    true = chest_hu(voxel_points(found.grid), edge_mm=EDGE_MM, table=False)
    inner = np.abs(true - np.roll(true, 1, 0)) < 1  # away from edges along z, where linear interpolation is exact
    off = (found.array - true)[inner]
    assert abs(off.mean()) < 3
    assert off.std() < 27  # of 25 in each
    assert "overlap and agree" in found.notes[0]


@pytest.mark.parametrize("numbered", [True, False])
def test_another_breath_is_not_joined_and_the_list_says_what_each_covers(tmp_path: Path, numbered: bool) -> None:
    lower, upper = part(BOTTOM_MM, 24, seed=1), part(-40.0, 30, seed=2, breath_mm=25.0)
    text = input_error(save_slices(tmp_path, series(lower, upper, numbered=numbered)))
    assert "2 CT series, expected one" in text
    assert "z -110 to 5 mm" in text
    assert "z -40 to 105 mm" in text
    assert text.count("overlap, but differ there: the patient moved or breathed") == 2
    a, b = list_series(tmp_path)
    assert read_volume(f"{tmp_path}#{b.label}").grid.shape[0] == 30
    assert (a.slices, b.slices) == (24, 30)


def test_thick_slices_in_step_show_a_small_breath(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a slice of motion: between slices of 12 mm, much more differs, and interpolation is no excuse here."""
    monkeypatch.setattr(sys.modules[__name__], "STEP_MM", 12.0)
    lower, upper = part(BOTTOM_MM, 11, seed=1), part(BOTTOM_MM + 72.0, 13, seed=2, breath_mm=6.0)
    text = input_error(save_slices(tmp_path / "breath", series(lower, upper)))
    assert text.count("overlap, but differ there: the patient moved or breathed") == 2
    for off_mm in (0.0, 3.0, 6.0):  # without a breath they are joined, although half a slice out of step
        upper = part(BOTTOM_MM + 72.0 + off_mm, 13, seed=2)
        found = read_volume(save_slices(tmp_path / f"{off_mm}", series(lower, upper)))
        assert "overlap and agree" in found.notes[0]


def test_every_other_slice_numbered_first_is_one_finer_scan(tmp_path: Path) -> None:
    whole = part(BOTTOM_MM, 40, seed=1)
    slices = dicom_slices(whole)
    for number, ds in enumerate([*slices[::2], *slices[1::2]], 1):
        ds.InstanceNumber = number
    found = read_volume(save_slices(tmp_path, slices))
    np.testing.assert_array_equal(found.array, whole.array)
    assert found.notes == ()


def test_three_positions(tmp_path: Path) -> None:
    volumes = part(BOTTOM_MM, 16, seed=1), part(-45.0, 16, seed=2), part(15.0, 16, seed=3)
    found = read_volume(save_slices(tmp_path, series(*volumes)))
    assert found.grid.shape[0] == 41
    assert found.notes[0].startswith("3 acquisitions of the series (-110 to -35 mm, -45 to 30 mm, 15 to 90 mm)")


def test_parts_with_a_gap_and_two_series_are_not_joined(tmp_path: Path) -> None:
    far = series(part(BOTTOM_MM, 16, seed=1), part(0.0, 16, seed=2))
    assert "missing" in input_error(save_slices(tmp_path / "gap", far)) or "2 CT series" in input_error(
        tmp_path / "gap"
    )
    for number, first_mm in ((1, BOTTOM_MM), (2, -20.0)):
        save_slices(tmp_path / "two", dicom_slices(part(first_mm, 20, seed=number), SeriesNumber=number))
    text = input_error(tmp_path / "two")
    assert "z -110 to -15 mm" in text
    assert "z -20 to 75 mm" in text


def test_acquisitions_that_are_shifted_sideways_stay_two_that_can_be_chosen(tmp_path: Path) -> None:
    lower, upper = part(BOTTOM_MM, 24, seed=1), part(-20.0, 26, seed=2)
    slices = series(lower, upper)
    for ds in slices[24:]:
        ds.ImagePositionPatient = [ds.ImagePositionPatient[0] + 15, *ds.ImagePositionPatient[1:]]
    text = input_error(save_slices(tmp_path, slices))
    assert text.count("overlap, but are shifted sideways") == 2
    assert [read_volume(f"{tmp_path}#{entry.label}").grid.shape[0] for entry in list_series(tmp_path)] == [24, 26]
