"""DICOM series as a whole: order, geometry, splitting and choosing. Every series is made in the test."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from phantoms import (
    ORIGIN_MM,
    SHAPE,
    assert_same_scan,
    dicom_slices,
    input_error,
    random_scan,
    rotation,
    save_slices,
    set_pixels,
    voxel_points,
    write_dicom,
)
from pydicom.dataset import Dataset
from pydicom.uid import RTStructureSetStorage, SecondaryCaptureImageStorage, generate_uid

from ChangeMapJointLib.core.grid import IDENTITY3
from ChangeMapJointLib.core.resample import sample_array
from ChangeMapJointLib.io.dicom.series import list_series
from ChangeMapJointLib.io.read import read_volume


# -- order and geometry ---------------------------------------------------------------------
@pytest.mark.parametrize("direction", [IDENTITY3, rotation(10, -20, 30), rotation(180, 0, 0), rotation(0, 180, 0)])
def test_slices_are_sorted_by_position_whatever_their_names_and_numbers(tmp_path, direction):
    expected = random_scan(direction)
    slices = dicom_slices(expected)
    for ds, number in zip(slices, (5, 1, 1, 9, 2, 7, 3), strict=True):
        ds.InstanceNumber = number
    assert_same_scan(read_volume(save_slices(tmp_path / "series", slices, seed=3)), expected)


def test_a_left_handed_stack_keeps_every_voxel_at_its_place(tmp_path):
    mirrored = random_scan(((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, -1.0)))
    found = read_volume(write_dicom(tmp_path / "series", mirrored))
    points = voxel_points(mirrored.grid).reshape(-1, 3)
    np.testing.assert_allclose(sample_array(found.array, found.grid, points), mirrored.array.ravel(), atol=0.05)
    assert np.linalg.det(np.asarray(found.grid.direction)) == pytest.approx(1.0)


@pytest.mark.parametrize("tilt_deg", [-12.0, 20.0])
@pytest.mark.parametrize("drift", ["positions", "orientation"])
def test_gantry_tilt_is_sheared_straight(tmp_path, tilt_deg, drift):
    """A linear ramp survives linear interpolation exactly, so it must come back as the same ramp."""
    tangent, cosine, sine = (f(np.radians(tilt_deg)) for f in (np.tan, np.cos, np.sin))
    slices = dicom_slices(random_scan(shape=(9, 20, 16)))
    ramp = np.array([3.0, -4.0, 5.0])  # HU per mm
    if drift == "positions":  # axial slices that shift towards the back as they rise
        step, column = np.array([0.0, tangent * 1.25, 1.25]), np.array([0.0, 1.0, 0.0])
    else:  # tilted slices whose table moved along z
        step, column = np.array([0.0, 0.0, 1.25]), np.array([0.0, cosine, sine])
    j, i = np.meshgrid(np.arange(20), np.arange(16), indexing="ij")
    for k, ds in enumerate(slices):
        ds.ImagePositionPatient = [f"{v:.8f}" for v in k * step]
        ds.ImageOrientationPatient = [f"{v:.8f}" for v in (1.0, 0.0, 0.0, *column)]
        points = k * step + i[..., None] * np.array([0.7, 0, 0]) + j[..., None] * 0.8 * column
        set_pixels(ds, np.rint(points @ ramp + 1024).astype(np.uint16))
    found = read_volume(save_slices(tmp_path / "series", slices))
    points = voxel_points(found.grid)
    row = (points - np.arange(9)[:, None, None, None] * step) @ column / 0.8  # within the slice as it was stored
    covered, beyond = (row > -1e-6) & (row < 19 + 1e-6), (row < -1) | (row > 20)
    np.testing.assert_allclose(found.array[covered], (points @ ramp)[covered], atol=1.01)
    assert (found.array[beyond] == -1024).all()
    assert covered.sum() >= 9 * 19 * 16
    assert any(f"{abs(tilt_deg):.1f} degrees" in note for note in found.notes)


def test_a_missing_slice_is_named_by_its_position(tmp_path):
    slices = dicom_slices(random_scan())
    del slices[3]  # at -700.25 + 3 * 1.25 = -696.5
    text = input_error(save_slices(tmp_path / "series", slices))
    assert "1 slice(s) missing between -697.75 mm" in text
    assert "-695.25 mm" in text


def test_small_jitter_gets_a_note_and_large_jitter_an_error(tmp_path):
    expected = random_scan()
    for name, jitter_mm in (("small", 0.05), ("large", 0.25)):
        slices = dicom_slices(expected)
        for k, ds in enumerate(slices):
            z = ORIGIN_MM[2] + 1.25 * k + jitter_mm * (-1) ** k
            ds.ImagePositionPatient = [ORIGIN_MM[0], ORIGIN_MM[1], f"{z:.4f}"]
        save_slices(tmp_path / name, slices)
    found = read_volume(tmp_path / "small")
    np.testing.assert_array_equal(found.array, expected.array)
    assert found.grid.same_as(expected.grid, tolerance_mm=0.05)
    assert "0.05 mm" in found.notes[0] or "0.06 mm" in found.notes[0]
    assert "unevenly spaced" in input_error(tmp_path / "large")


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PixelSpacing", [0.8, 0.9]),
        ("ImageOrientationPatient", [0, 1, 0, 1, 0, 0]),
        ("Rows", 5),
        ("ImageOrientationPatient", [1, 0, 0, 0.5, 0.5, 0]),
    ],
)
def test_geometry_that_changes_within_a_series_is_an_error(tmp_path, keyword, value):
    slices = dicom_slices(random_scan())
    if keyword == "Rows":
        set_pixels(slices[2], np.zeros((5, 5), np.uint16))
    else:
        setattr(slices[2], keyword, value)
    text = input_error(save_slices(tmp_path / "series", slices))
    assert ("size" if keyword == "Rows" else keyword) in text
    assert "changes within the series" in text


@pytest.mark.parametrize("orientation", [[1, 0, 0, 0.5, 0.8, 0], [2, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0]])
def test_an_orientation_that_is_none_is_an_error(tmp_path, orientation):
    text = input_error(write_dicom(tmp_path, random_scan(), ImageOrientationPatient=orientation))
    assert "not made of two perpendicular unit vectors" in text


def test_a_slice_that_jumps_sideways_is_an_error(tmp_path):
    slices = dicom_slices(random_scan())
    slices[3].ImagePositionPatient[0] += 1.0
    text = input_error(save_slices(tmp_path, slices))
    assert "shifted sideways unevenly" in text


def test_slices_without_position_are_an_error(tmp_path):
    slices = dicom_slices(random_scan())
    del slices[4].ImagePositionPatient
    assert "has no ImagePositionPatient" in input_error(save_slices(tmp_path / "series", slices))


# -- several images at a position -----------------------------------------------------------
def test_copies_are_dropped_with_a_note_and_differing_images_are_an_error(tmp_path):
    expected = random_scan()
    slices = dicom_slices(expected)
    save_slices(tmp_path / "copies", slices)
    save_slices(tmp_path / "copies" / "again", slices[:3])
    renamed = dicom_slices(expected)
    for ds in renamed:
        ds.SeriesInstanceUID = slices[0].SeriesInstanceUID  # other SOPInstanceUIDs, the same pixels
    save_slices(save_slices(tmp_path / "renamed", slices), renamed[2:4])
    for name, count in (("copies", 3), ("renamed", 2)):
        found = read_volume(tmp_path / name)
        assert_same_scan(found, expected)
        assert found.notes[0].startswith(f"{count} slice(s) occurred twice")
    set_pixels(renamed[2], np.zeros(SHAPE[1:], np.uint16))
    assert "more than once" in input_error(save_slices(save_slices(tmp_path / "differ", slices), renamed[2:4]))
    renamed[2].SOPInstanceUID = renamed[2].file_meta.MediaStorageSOPInstanceUID = slices[2].SOPInstanceUID
    assert "one SOPInstanceUID but differ" in input_error(
        save_slices(save_slices(tmp_path / "uid", slices), renamed[2:3])
    )


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("ConvolutionKernel", ("B30f", "I70f")),
        ("TemporalPositionIdentifier", (1, 2)),
        ("ImageType", (["ORIGINAL", "PRIMARY", "AXIAL"], ["DERIVED", "SECONDARY", "AXIAL"])),
        ("AcquisitionNumber", (1, 2)),
    ],
)
def test_two_stacks_in_one_series_are_told_apart(tmp_path, keyword, values):
    first, second = random_scan(seed=1), random_scan(seed=2)
    uid = generate_uid()
    for volume, value in zip((first, second), values, strict=True):
        save_slices(tmp_path, dicom_slices(volume, SeriesInstanceUID=uid, **{keyword: value}))
    text = input_error(tmp_path)
    assert "2 CT series" in text
    assert uid in text
    by_label = {label: read_volume(f"{tmp_path}#{label}") for label in ("3a", "3b")}
    # labels follow the sorted values; DERIVED comes before ORIGINAL
    expected = (second, first) if keyword == "ImageType" else (first, second)
    for label, volume in zip(by_label, expected, strict=True):
        assert_same_scan(by_label[label], volume)
    assert "matches 2 series" in input_error(f"{tmp_path}#{uid}")


def test_two_interleaved_kernels_are_not_taken_for_one_finer_stack(tmp_path):
    expected = random_scan()
    slices = dicom_slices(expected)
    for k, ds in enumerate(slices):
        ds.ConvolutionKernel = "B30f" if k % 2 == 0 else "I70f"
    save_slices(tmp_path, slices)
    found = read_volume(f"{tmp_path}#3a")
    np.testing.assert_array_equal(found.array, expected.array[::2])
    assert found.grid.spacing_mm[2] == pytest.approx(2.5)
    assert found.acquisition.kernel == "B30f"


def test_phases_that_no_header_key_tells_apart_are_an_error(tmp_path):
    uid = generate_uid()
    for seed in (1, 2):
        save_slices(tmp_path, dicom_slices(random_scan(seed=seed), SeriesInstanceUID=uid))
    assert "7 slice positions occur more than once" in input_error(tmp_path)


# -- which series ---------------------------------------------------------------------------
def test_several_series_are_listed_without_the_patient_and_can_be_chosen(tmp_path):
    soft, lung = random_scan(seed=1), random_scan(seed=2)
    write_dicom(tmp_path / "a", soft, SeriesNumber=2, SeriesDescription="Soft", ConvolutionKernel="B30f")
    write_dicom(tmp_path / "a", lung, SeriesNumber=5, SeriesDescription="Lung of Doe", ConvolutionKernel=["I70f", "3"])
    text = input_error(tmp_path)
    for part in ("#2 'Soft', 7 image(s), 1.25 mm, kernel B30f, UID 1.2.", "#5 '", r"kernel I70f\3", f"'{tmp_path}#2'"):
        assert part in text
    for private in ("Doe", "Jane", "P-001"):
        assert private.lower() not in text.lower()
    assert_same_scan(read_volume(f"{tmp_path}#5"), lung)
    uid = next(one.uid for one in list_series(tmp_path) if one.label == "2")
    assert_same_scan(read_volume(f"{tmp_path}#{uid}"), soft)
    assert "'#9' matches no series" in input_error(f"{tmp_path}#9")


def test_what_is_no_ct_volume_is_passed_over(tmp_path):
    expected = random_scan()
    write_dicom(tmp_path / "CT", expected)
    report = Dataset()
    report.file_meta = pydicom.dataset.FileMetaDataset()
    report.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = RTStructureSetStorage
    report.SOPInstanceUID = report.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    report.SeriesInstanceUID, report.Modality = generate_uid(), "RTSTRUCT"
    save_slices(tmp_path / "other", [report])
    save_slices(
        tmp_path / "other", dicom_slices(random_scan(), SOPClassUID=SecondaryCaptureImageStorage, SeriesNumber=90)
    )
    save_slices(tmp_path / "other", dicom_slices(random_scan(), Modality="MR", SeriesNumber=91))
    save_slices(
        tmp_path / "other", dicom_slices(random_scan(), ImageType=["DERIVED", "SECONDARY", "MIP"], SeriesNumber=92)
    )
    save_slices(tmp_path / "other", dicom_slices(random_scan(), SeriesNumber=93)[:2])
    pages = dicom_slices(random_scan(), SeriesNumber=94)
    for ds in pages:
        del ds.ImagePositionPatient
    save_slices(tmp_path / "other", pages)
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "empty").write_bytes(b"")
    assert_same_scan(read_volume(tmp_path), expected)
    reasons = {one.label: one.problem for one in list_series(tmp_path)}
    assert reasons["3"] == ""
    assert "RTSTRUCT" in reasons["0"]
    assert "Secondary Capture" in reasons["90"]
    assert "modality MR" in reasons["91"]
    assert "projection" in reasons["92"]
    assert "2 slice position(s)" in reasons["93"]
    assert "7 images without ImagePositionPatient" in reasons["94"]


def test_a_localizer_in_the_series_is_left_out_with_a_note(tmp_path):
    expected = random_scan()
    slices = dicom_slices(expected)
    scout = dicom_slices(random_scan(seed=5))[0]
    scout.SeriesInstanceUID, scout.ImageType = slices[0].SeriesInstanceUID, ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    found = read_volume(save_slices(tmp_path, [*slices, scout]))
    assert_same_scan(found, expected)
    assert found.notes == ("1 image(s) of the series were left out: localizer.",)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"Modality": "MR"}, "modality MR"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "MONOCHROME1, expected MONOCHROME2"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "colour image (RGB)"),
        ({"ModalityLUTSequence": [Dataset()]}, "look-up table"),
    ],
)
def test_series_that_are_no_ct_in_hu_are_refused_with_the_reason(tmp_path, change, expected):
    text = input_error(write_dicom(tmp_path, random_scan(), **change))
    assert "no CT volume found" in text
    assert expected in text


def test_too_little_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no DICOM images found" in input_error(tmp_path / "empty")
    one = save_slices(tmp_path / "one", dicom_slices(random_scan())[:1])
    assert "1 slice position(s), expected a volume" in input_error(one)
    assert "1 slice position(s), expected a volume" in input_error(next(one.iterdir()))
