"""Series as hospitals export them: stray images, several volumes, uneven slices, and lists to choose from."""

from __future__ import annotations

import numpy as np
import pytest
from phantoms import (
    ORIGIN_MM,
    assert_same_scan,
    dicom_slices,
    input_error,
    random_scan,
    save_slices,
    set_pixels,
    voxel_points,
    write_dicom,
)
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.gate.checks import check_ct
from ChangeMapJointLib.io.dicom.series import list_series
from ChangeMapJointLib.io.read import read_volume
from ChangeMapJointLib.scan.volume import Volume

RAMP_HU = np.array([3.0, -4.0, 5.0])  # a millimetre
UNEVEN = [0.0, 4.0, 8.0, 12.0, 14.0, 16.0, 18.0, 20.0, 24.0, 28.0, 32.0]


def ramp_slices(along_mm: list[float], drift: float = 0.0, **tags: object) -> list[Dataset]:
    """Axial slices of a linear ramp, which linear interpolation keeps; ``drift`` mm along y for each mm of z."""
    slices = dicom_slices(random_scan(shape=(len(along_mm), 9, 8)), SliceThickness="2", **tags)
    j, i = np.meshgrid(np.arange(9) * 0.8, np.arange(8) * 0.7, indexing="ij")
    for z, ds in zip(along_mm, slices, strict=True):
        ds.ImagePositionPatient = [0.0, round(drift * z, 8), z]
        points = np.stack((i, j + drift * z, np.full_like(i, z)), -1)
        set_pixels(ds, np.rint(points @ RAMP_HU + 1024).astype(np.uint16))
    return slices


def scout(series: list[Dataset], name: str = "coronal", **tags: object) -> Dataset:
    """A coronal picture in the series of ``series`` that nothing marks as one."""
    ds = dicom_slices(random_scan(shape=(1, 7, 5), seed=9), **tags)[0]
    ds.SeriesInstanceUID = series[0].SeriesInstanceUID
    ds.ImageOrientationPatient = [1, 0, 0, 0, 0, -1] if name == "coronal" else [0, 1, 0, 0, 0, -1]
    return ds


# -- uneven slices --------------------------------------------------------------------------
@pytest.mark.parametrize("drift", [0.0, 0.25], ids=["straight", "tilted"])
@pytest.mark.parametrize("order", [1, -1], ids=["ascending", "descending"])
def test_a_complete_series_with_two_distances_comes_onto_the_finer_one(tmp_path, drift, order):
    found = read_volume(save_slices(tmp_path, ramp_slices(UNEVEN, drift)[::order], seed=None))
    assert found.grid.spacing_mm == pytest.approx((0.7, 0.8, 2.0))
    assert found.array.shape[0] == 17
    assert found.array.dtype == np.int16
    points = voxel_points(found.grid)
    row = points[..., 1] - drift * points[..., 2]
    margin = 2.0 * drift - 1e-6  # of the slice above or below, which may not reach as far
    covered = (row > margin) & (row < 8 * 0.8 - margin)
    np.testing.assert_allclose(found.array[covered], (points @ RAMP_HU)[covered], atol=1.51)
    assert covered.sum() >= 17 * 6 * 8
    note = next(note for note in found.notes if "several distances" in note)
    for part in ("4 mm from 0.00 to 12.00 mm", "2 mm from 12.00 to 20.00 mm", "4 mm from 20.00", "even grid of 2 mm"):
        assert part in note
    assert any("tilted by" in note for note in found.notes) == bool(drift)


def test_slices_of_the_file_stay_as_they_are_on_the_even_grid(tmp_path):
    kept = random_scan(shape=(17, 6, 5))
    slices = [ds for k, ds in enumerate(dicom_slices(kept)) if 6 <= k <= 10 or k % 2 == 0]
    found = read_volume(save_slices(tmp_path, slices))
    there = [k for k in range(17) if 6 <= k <= 10 or k % 2 == 0]
    np.testing.assert_array_equal(found.array[there], kept.array[there])
    middle = (kept.array[[0]].astype(float) + kept.array[[2]]) / 2
    np.testing.assert_allclose(found.array[[1]], middle, atol=0.51)
    assert found.grid.same_as(kept.grid, tolerance_mm=1e-4)


def test_distances_that_are_no_multiples_of_each_other_are_linear_too(tmp_path):
    along = [0.0, 2.5, 5.0, 7.5, 8.5, 9.5, 10.5, 11.5]
    found = read_volume(save_slices(tmp_path, ramp_slices(along)))
    assert found.grid.shape[0] == 12
    np.testing.assert_allclose(found.array, voxel_points(found.grid) @ RAMP_HU, atol=1.01)


def test_two_blocks_with_one_odd_distance_between_them_are_one_scan(tmp_path):
    found = read_volume(save_slices(tmp_path, ramp_slices([0, 4, 8, 12, 15, 17, 19, 21])))
    assert found.grid.spacing_mm[2] == 2.0
    np.testing.assert_allclose(found.array, voxel_points(found.grid) @ RAMP_HU, atol=1.01)


@pytest.mark.parametrize(
    ("along", "expected"),
    [
        ([0, 4, 8, 12, 14, 16, 20, 22, 24, 26], "1 slice(s) missing between 16.00 mm"),
        ([0, 4, 8, 12, 20, 24, 28, 30, 32, 34], "1 slice(s) missing between 12.00 mm"),
        ([0, 1, 2, 3, 5, 6, 7, 8, 10, 11, 12], "1 slice(s) missing between 3.00 mm"),
        ([0, 1, 2, 3, 5, 7, 8, 9, 10, 11, 12], "1 slice(s) missing between 3.00 mm"),
        ([0, 1, 2, 3, 11, 19, 27, 35], "unevenly spaced: 1 mm from 0.00 to 3.00 mm, 8 mm from 3.00"),
    ],
)
def test_a_missing_slice_stays_an_error_among_two_distances(tmp_path, along, expected):
    assert expected in input_error(save_slices(tmp_path, ramp_slices([float(z) for z in along])))


def test_several_gaps_are_counted(tmp_path):
    text = input_error(save_slices(tmp_path, ramp_slices([0.0, 1.0, 2.0, 3.0, 5.0, 6.0, 7.0, 8.0, 10.0, 11.0, 12.0])))
    assert "at 1 other place(s)" in text


@pytest.mark.parametrize("along", [UNEVEN, [2.0 * k for k in range(9)]], ids=["uneven", "even"])
def test_more_than_a_gantry_tilts_is_refused(tmp_path, along):
    text = input_error(save_slices(tmp_path, ramp_slices(along, drift=4.0)))
    assert "move sideways by 76 degrees" in text
    assert "do not fit together" in text


# -- stray images ---------------------------------------------------------------------------
@pytest.mark.parametrize("where", ["coronal", "sagittal", "nowhere"])
def test_an_unmarked_scout_is_left_out_with_a_note(tmp_path, where):
    expected = random_scan()
    slices = dicom_slices(expected)
    stray = scout(slices, where)
    if where == "nowhere":
        del stray.ImagePositionPatient
    found = read_volume(save_slices(tmp_path, [*slices, stray]))
    assert_same_scan(found, expected)
    assert "1 image(s) of the series were left out: 1 " in found.notes[0]
    assert ("without position" if where == "nowhere" else where) in found.notes[0]
    assert "the volume is axial, 5 x 6 pixels" in found.notes[0]


def test_a_scout_beside_a_missing_slice_does_not_hide_it(tmp_path):
    slices = dicom_slices(random_scan())
    text = input_error(save_slices(tmp_path, [*slices[:3], *slices[4:], scout(slices)]))
    assert "1 slice(s) missing between -697.75 mm" in text


def test_a_reformat_of_many_images_can_be_chosen_beside_the_axial_volume(tmp_path):
    axial = random_scan()
    slices = dicom_slices(axial)
    coronal = Volume(
        random_scan(shape=(6, 7, 5), seed=4).array,
        Grid((6, 7, 5), (0.7, 1.25, 0.8), ORIGIN_MM, ((1, 0, 0), (0, 0, 1), (0, -1, 0))),
    )
    others = dicom_slices(coronal, SeriesInstanceUID=slices[0].SeriesInstanceUID)
    save_slices(tmp_path, [*slices, *others])
    text = input_error(tmp_path)
    assert "2 CT series" in text
    assert "axial, 5 x 6 pixels of 0.7 mm" in text
    assert "coronal, 5 x 7 pixels of 0.7 mm" in text
    assert_same_scan(read_volume(f"{tmp_path}#3a"), axial)
    assert_same_scan(read_volume(f"{tmp_path}#3b"), coronal)


def test_many_images_without_position_do_not_outweigh_the_volume(tmp_path):
    expected = random_scan()
    slices = dicom_slices(expected)
    strays = dicom_slices(random_scan(shape=(40, 6, 5)), SeriesInstanceUID=slices[0].SeriesInstanceUID)
    for ds in strays:
        del ds.ImagePositionPatient
    found = read_volume(save_slices(tmp_path, [*slices, *strays]))
    assert_same_scan(found, expected)
    assert "40 image(s) of the series were left out" in found.notes[0]


def test_images_of_far_too_many_kinds_are_refused(tmp_path):
    slices = dicom_slices(random_scan(shape=(70, 3, 3)))
    for k, ds in enumerate(slices):
        ds.PixelSpacing = [0.5 + 0.01 * k, 0.5]
    same = dicom_slices(random_scan(shape=(4, 3, 3)), SeriesInstanceUID=slices[0].SeriesInstanceUID)
    assert "PixelSpacing changes within the series" in input_error(save_slices(tmp_path, [*slices, *same]))


def test_images_of_which_no_two_are_alike_are_refused_with_what_differs(tmp_path):
    slices = dicom_slices(random_scan())
    for k, ds in enumerate(slices):
        angle = np.radians(10 * k)
        ds.ImageOrientationPatient = [*np.round([np.cos(angle), np.sin(angle)], 8), 0, 0, 0, -1]
    assert "ImageOrientationPatient changes within the series" in input_error(save_slices(tmp_path, slices))


# -- several volumes under one UID ----------------------------------------------------------
@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("SliceThickness", ("1.25", "5")),
        ("KVP", ("80", "140")),
        ("AcquisitionNumber", (1, 2)),
        ("StudyDate", ("20200101", "20240101")),
        ("PatientID", ("1", "2")),
    ],
)
def test_interleaved_reconstructions_are_not_one_finer_scan(tmp_path, keyword, values):
    expected = random_scan(shape=(12, 6, 5))
    slices = dicom_slices(expected)
    for k, ds in enumerate(slices):
        setattr(ds, keyword, values[k % 2])
    save_slices(tmp_path, slices, seed=None)
    assert "2 CT series" in input_error(tmp_path)
    for label, start in (("3a", 0), ("3b", 1)):
        np.testing.assert_array_equal(read_volume(f"{tmp_path}#{label}").array, expected.array[start::2])


def test_a_scan_in_parts_of_two_thicknesses_is_still_one(tmp_path):
    slices = ramp_slices([0.0, 4.0, 8.0, 12.0, 14.0, 16.0, 18.0])
    for ds in slices[:3]:
        ds.SliceThickness = "4"
    found = read_volume(save_slices(tmp_path, slices))
    assert found.array.shape[0] == 10
    assert found.acquisition.slice_thickness_mm == 4.0
    assert any("2 to 4 mm thick" in note for note in found.notes)


def test_of_two_kernels_the_whole_one_can_be_chosen_beside_the_broken_one(tmp_path):
    soft, lung = random_scan(seed=1), random_scan(seed=2)
    uid = generate_uid()
    save_slices(tmp_path, dicom_slices(soft, SeriesInstanceUID=uid, ConvolutionKernel="B30f"))
    broken = dicom_slices(lung, SeriesInstanceUID=uid, ConvolutionKernel="I70f")
    save_slices(tmp_path, [*broken[:2], *broken[3:]])
    assert "1 slice(s) missing" in input_error(f"{tmp_path}#3b")
    assert_same_scan(read_volume(f"{tmp_path}#3a"), soft)


def test_two_series_under_one_uid_keep_their_numbers(tmp_path):
    volumes = [random_scan(seed=seed) for seed in (1, 2)]
    uid = generate_uid()
    for number, volume in zip((4, 11), volumes, strict=True):
        # the same names of single images too, as some anonymisers write them
        slices = dicom_slices(volume, SeriesInstanceUID=uid, SeriesNumber=number, SOPInstanceUID="1.2.3")
        save_slices(tmp_path, slices)
    for number, volume in zip((4, 11), volumes, strict=True):
        assert_same_scan(read_volume(f"{tmp_path}#{number}"), volume)


def test_one_damaged_header_spoils_its_own_series_only(tmp_path):
    good = random_scan(seed=2)
    save_slices(tmp_path, dicom_slices(good, SeriesNumber=5))
    bad = dicom_slices(random_scan(), SeriesNumber=6)
    bad[2].ImagePositionPatient = [1, 2]
    save_slices(tmp_path / "bad", bad)
    assert_same_scan(read_volume(f"{tmp_path}#5"), good)
    assert r"ImagePositionPatient is '1.0\2.0', expected 3 finite" in input_error(f"{tmp_path}#6")


@pytest.mark.parametrize("by", ["folder", "InstanceNumber"])
def test_volumes_that_no_key_of_the_header_tells_apart_are_split_by_folder_or_by_pass(tmp_path, by):
    volumes = [random_scan(seed=seed) for seed in (1, 2)]
    uid = generate_uid()
    for number, volume in enumerate(volumes):
        slices = dicom_slices(volume, SeriesInstanceUID=uid)
        for k, ds in enumerate(slices):
            ds.InstanceNumber = k + 1 + (0 if by == "folder" else 7 * number)
        save_slices(tmp_path / str(number if by == "folder" else 0), slices)
    text = input_error(tmp_path)
    assert ("folder 0" if by == "folder" else "pass 1") in text
    for label, volume in zip(("3a", "3b"), volumes, strict=True):
        assert_same_scan(read_volume(f"{tmp_path}#{label}"), volume)


def test_a_pass_that_lacks_a_slice_is_not_filled_from_the_other(tmp_path):
    uid = generate_uid()
    for number in range(2):
        slices = dicom_slices(random_scan(seed=number), SeriesInstanceUID=uid)
        for k, ds in enumerate(slices):
            ds.InstanceNumber = 7 * number + k + 1
        save_slices(tmp_path, slices[: 7 - number] if number else slices)
    assert "6 slice positions occur more than once" in input_error(tmp_path)


# -- lists ----------------------------------------------------------------------------------
def test_the_list_tells_current_and_prior_apart(tmp_path):
    for seed, date in ((1, "20200101"), (2, "20240101"), (3, "20180101")):
        write_dicom(tmp_path, random_scan(seed=seed), AcquisitionDate=date, AcquisitionTime="101112.5", KVP="120")
    text = input_error(tmp_path)
    for date, role in (("2020", "likely the prior"), ("2024", "likely the current scan"), ("2018", "older")):
        assert f"{date}-01-01 10:11:12, 120 kV, z -700 to -693 mm: {role}" in text
    assert "'#3' matches 3 series" in input_error(f"{tmp_path}#3")
    dates = {one.label: one.acquisition.date for one in list_series(tmp_path)}
    for label in ("3a", "3b", "3c"):
        assert read_volume(f"{tmp_path}#{label}").acquisition.date == dates[label]


@pytest.mark.parametrize(
    ("keyword", "values", "texts"),
    [
        ("StudyTime", ("090000", "100530"), ("2024-01-31 09:00:00", "2024-01-31 10:05:30")),
        ("KVP", ("80", "140"), ("80 kV", "140 kV")),
        ("TemporalPositionIdentifier", (1, 2), ("time point 1", "time point 2")),
        ("NominalPercentageOfCardiacPhase", (30.0, 75.0), ("30.0 % of the heart cycle", "75.0 % of the heart cycle")),
        ("NominalPercentageOfRespiratoryPhase", (0.0, 50.0), ("0.0 % of the breathing", "50.0 % of the breathing")),
        ("ConvolutionKernel", ("B30f", "I70f"), ("kernel B30f", "kernel I70f")),
        ("SliceThickness", ("1", "5"), ("1 mm", "5 mm")),
    ],
)
def test_the_list_says_what_tells_two_volumes_apart(tmp_path, keyword, values, texts):
    uid = generate_uid()
    for seed, value in enumerate(values):
        tags = {"AcquisitionDate": "", "StudyDate": "20240131", keyword: value}
        if keyword != "StudyTime":
            tags["SeriesInstanceUID"] = uid
        write_dicom(tmp_path, random_scan(seed=seed), **tags)
    text = input_error(tmp_path)
    assert "likely" not in text  # of one day
    for part in texts:
        assert part in text


def test_two_patients_in_one_folder_are_said_and_not_called_current_and_prior(tmp_path):
    for patient, date in (("A1", "20200101"), ("B2", "20240101")):
        write_dicom(tmp_path, random_scan(), PatientID=patient, PatientName=patient, AcquisitionDate=date)
    text = input_error(tmp_path)
    assert "they are of 2 patients" in text
    assert "likely" not in text
    for patient in ("A1", "B2"):
        assert patient not in text.replace(str(tmp_path), "")


@pytest.mark.filterwarnings("ignore:Invalid value for VR TM")
def test_the_acquisition_says_how_much_dose_there_was(tmp_path):
    write_dicom(tmp_path, random_scan(), KVP="100", ExposureInuAs="45500", CTDIvol=3.25, AcquisitionTime="2359")
    about = read_volume(tmp_path).acquisition
    assert (about.kvp, about.exposure_mas, about.ctdi_vol_mgy, about.time) == (100.0, 45.5, 3.25, "23:59:00")
    write_dicom(tmp_path / "odd", random_scan(), KVP="0", Exposure="", AcquisitionTime="99")
    about = read_volume(tmp_path / "odd").acquisition
    assert (about.kvp, about.exposure_mas, about.ctdi_vol_mgy, about.time) == (None, None, None, None)


# -- odd but fine ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    "tags",
    [
        {"SpacingBetweenSlices": "-1.25"},
        {"SliceThickness": None},
        {"SliceThickness": "2.5"},  # slices that overlap
        {"RescaleType": "HU"},
        {"RescaleType": "US"},
        {"SeriesNumber": None},
    ],
)
def test_odd_headers_of_good_series_are_read(tmp_path, tags):
    expected = random_scan()
    assert_same_scan(read_volume(write_dicom(tmp_path, expected, **tags)), expected)


def test_numbers_with_spaces_are_read(tmp_path):
    expected = random_scan()
    write_dicom(tmp_path, expected)
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        assert b"0.8000000000\\0.7000000000" in content
        content = content.replace(b"0.8000000000\\0.7000000000", b"  0.8       \\ 0.700000   ")
        path.write_bytes(content.replace(b"1.2500000000", b" 1.25       "))
    assert_same_scan(read_volume(tmp_path), expected)


def test_files_without_suffix_deep_in_folders_are_found(tmp_path):
    expected = random_scan()
    for k, ds in enumerate(dicom_slices(expected)):
        save_slices(tmp_path / "DICOM" / f"ST{k}" / "SE000" / f"{k}", [ds], suffix="")
    assert_same_scan(read_volume(tmp_path), expected)


def test_thin_slices_of_coarse_pixels_leave_no_gap(tmp_path):
    hu = np.where(np.arange(64) < 30, -950, 40) + np.random.default_rng(0).normal(0.0, 20.0, (90, 64, 64))
    volume = Volume(hu.astype(np.int16), Grid(hu.shape, (0.977, 0.977, 0.625)))
    scan = check_ct(read_volume(write_dicom(tmp_path / "thin", volume)))
    assert not any("not seen" in note for note in scan.notes)
    apart = Volume(volume.array, Grid(hu.shape, (0.977, 0.977, 2.5)))
    scan = check_ct(read_volume(write_dicom(tmp_path / "apart", apart, SliceThickness="0.625")))
    assert any("Slices of 0.625 mm every 2.5 mm" in note for note in scan.notes)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"RescaleType": "Z_EFF"}, "RescaleType Z_EFF (effective atomic number), expected HU"),
        ({"SOPClassUID": "1.3.12.2.1107.5.9.1"}, "private SOP class 1.3.12.2.1107.5.9.1, expected CT images"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "inverted for display"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "(localizer)"),
        ({"RescaleSlope": "0"}, "RescaleSlope is 0"),
    ],
)
def test_the_reason_is_the_true_one(tmp_path, tags, expected):
    assert expected in input_error(write_dicom(tmp_path, random_scan(), **tags))
