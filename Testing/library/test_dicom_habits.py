"""What programs, anonymisers and archives do to good CT series: odd JPEG, left-out elements, links, lost UIDs."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from phantoms import (
    assert_same_scan,
    dicom_slices,
    input_error,
    random_scan,
    rotation,
    save_slices,
    set_pixels,
    write_dicom,
)
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000, UID, JPEGExtended12Bit, generate_uid

from ChangeMapJointLib.gate.checks import check_pair
from ChangeMapJointLib.io.dicom.series import list_series
from ChangeMapJointLib.io.dicom.values import lossy_ratio
from ChangeMapJointLib.io.read import read_volume

# 16 x 16 pixels of 12 bits, 1024 + 20 x + 30 y, quality 90
JPEG_12 = (
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4RDgsLEBYQERMUFRUVDA8XGBYUGBIUFRT/"
    "wQALDAAQABABAREA/8QAFgABAQEAAAAAAAAAAAAAAAAACQgM/8QAGhAAAAcAAAAAAAAAAAAAAAAAAAgJJTRCUf/aAAgBAQAAPwDOSFJTuhNmUDVlJTuhNmUFql"
    "JTuhNmUDVlJTuhNmUH///Z"
)


def test_jpeg_of_12_bits_is_decoded_in_silence(tmp_path, capfd):
    """pydicom has no decoder for it; the one of SimpleITK tries 8 bits first and says so for every slice."""
    y, x = np.mgrid[:16, :16]
    expected = (20 * x + 30 * y).astype(np.int16)
    slices = dicom_slices(random_scan(shape=(3, 16, 16)))
    for ds in slices:
        set_pixels(ds, (expected + 1024).astype(np.uint16))
        ds.BitsStored, ds.HighBit = 12, 11
        ds.PixelData = encapsulate([base64.b64decode(JPEG_12)])
        ds["PixelData"].is_undefined_length = True
        ds.file_meta.TransferSyntaxUID = JPEGExtended12Bit
    found = read_volume(save_slices(tmp_path, slices))
    assert np.abs(found.array - expected).max() <= 3  # it loses a little
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("keyword", ["PhotometricInterpretation", "SamplesPerPixel", "BitsStored", "HighBit"])
def test_elements_that_only_one_value_fits_may_be_missing(tmp_path, keyword):
    expected = random_scan()
    slices = dicom_slices(expected)
    for ds in slices:
        delattr(ds, keyword)
    assert_same_scan(read_volume(save_slices(tmp_path, slices)), expected)


@pytest.mark.parametrize("keyword", ["PixelRepresentation", "BitsAllocated"])
def test_elements_that_cannot_be_guessed_are_named(tmp_path, keyword):
    slices = dicom_slices(random_scan())
    for ds in slices:
        delattr(ds, keyword)
    name = {"PixelRepresentation": "Pixel Representation", "BitsAllocated": "Bits Allocated"}[keyword]
    assert name in input_error(save_slices(tmp_path, slices))


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
def test_a_modality_in_small_letters(tmp_path):
    expected = random_scan()
    assert_same_scan(read_volume(write_dicom(tmp_path, expected, Modality="ct")), expected)


def test_a_transfer_syntax_that_nobody_knows_is_named_without_a_traceback(tmp_path):
    slices = dicom_slices(random_scan())
    for ds in slices:
        ds.file_meta.TransferSyntaxUID = UID("1.2.840.113619.5.2")  # of a vendor: header and pixels in different orders
    folder = save_slices(tmp_path, [])
    for number, ds in enumerate(slices):
        ds.save_as(folder / f"{number}.dcm", implicit_vr=True, little_endian=True, enforce_file_format=True)
    text = input_error(folder)
    assert "unknown transfer syntax (1.2.840.113619.5.2); export the series again, uncompressed" in text
    assert "Traceback" not in text


def test_links_to_folders_are_followed_once(tmp_path):
    """Also one that leads back up, and two to the same folder."""
    expected = random_scan()
    write_dicom(tmp_path / "archive" / "series", expected)
    (tmp_path / "study").mkdir()
    for name in ("a", "b"):
        (tmp_path / "study" / name).symlink_to(tmp_path / "archive", target_is_directory=True)
    (tmp_path / "archive" / "up").symlink_to(tmp_path / "study", target_is_directory=True)
    found = read_volume(tmp_path / "study")
    assert_same_scan(found, expected)
    assert found.notes == ()


def test_images_with_a_series_uid_each_are_one_series(tmp_path):
    """As an anonymiser leaves them that draws a new UID for every file; other series stay apart."""
    expected = random_scan()
    slices = dicom_slices(expected)
    for ds in slices:
        ds.SeriesInstanceUID = generate_uid()
    found = read_volume(save_slices(tmp_path / "one", slices))
    assert_same_scan(replace(found, notes=()), expected)
    assert found.notes == ("The images have 7 different SeriesInstanceUIDs; they were taken for one series.",)
    for number in (3, 4):
        other = dicom_slices(random_scan(seed=number), SeriesNumber=number)
        for ds in other:
            ds.SeriesInstanceUID = generate_uid()
        save_slices(tmp_path / "two" / str(number), other)
    assert [(one.label, one.slices) for one in list_series(tmp_path / "two")] == [("3", 7), ("4", 7)]
    write_dicom(tmp_path / "one" / "whole", random_scan(seed=5), SeriesNumber=9)
    assert [one.label for one in list_series(tmp_path / "one") if not one.excluded] == ["9"]


@pytest.mark.parametrize(
    ("positions", "reason"),
    [
        (None, "7 images without ImagePositionPatient: their order and distance are unknown"),
        ([0, 0, 0], "7 images that all have the same ImagePositionPatient"),
    ],
)
def test_positions_that_are_lost_are_the_reason(tmp_path: Path, positions, reason):
    slices = dicom_slices(random_scan())
    for ds in slices:
        ds.ImagePositionPatient = positions
    assert reason in input_error(save_slices(tmp_path, slices))


@pytest.mark.parametrize(
    ("keywords", "reason"),
    [
        (["PixelSpacing"], "has no PixelSpacing (ImagerPixelSpacing, that of a detector, is no substitute); export"),
        (["ImageOrientationPatient"], "has no ImageOrientationPatient; export the series again"),
        (["PixelSpacing", "ImageOrientationPatient"], "has no ImageOrientationPatient and no PixelSpacing"),
    ],
)
def test_what_is_missing_for_the_geometry_is_named(tmp_path: Path, keywords, reason):
    slices = dicom_slices(random_scan(), ImagerPixelSpacing=["0.8", "0.7"])
    for ds in slices:
        for keyword in keywords:
            delattr(ds, keyword)
    assert reason in input_error(save_slices(tmp_path, slices))


def test_positions_in_two_frames_of_reference_are_said(tmp_path: Path):
    slices = dicom_slices(random_scan())
    for ds in slices[3:]:
        ds.FrameOfReferenceUID = "1.2.3"
    (note,) = read_volume(save_slices(tmp_path / "two", slices)).notes
    assert note.startswith("The images name 2 frames of reference")
    for ds in slices[3:]:
        del ds.FrameOfReferenceUID
    assert read_volume(save_slices(tmp_path / "one", slices)).notes == ()  # some do not say: no contradiction


def test_a_stated_tilt_that_the_positions_lack_is_said(tmp_path: Path):
    write_dicom(tmp_path / "lost", random_scan(), GantryDetectorTilt="-12")
    (note,) = read_volume(tmp_path / "lost").notes
    assert "gantry tilt of -12 degrees that positions and orientation do not show" in note
    for name, tilt in (("none", "0"), ("little", "0.5"), ("empty", "")):
        write_dicom(tmp_path / name, random_scan(), GantryDetectorTilt=tilt)
        assert read_volume(tmp_path / name).notes == ()
    turned = random_scan(rotation(12, 0, 0))
    write_dicom(tmp_path / "straightened", turned, GantryDetectorTilt="12")
    assert read_volume(tmp_path / "straightened").notes == ()


@pytest.mark.parametrize("first", ["meta", "without its length"])
def test_files_without_the_preamble(tmp_path: Path, first: str):
    expected = random_scan()
    for number, ds in enumerate(dicom_slices(expected)):
        path = tmp_path / f"{number}.dcm"
        ds.save_as(path, enforce_file_format=True)
        content = path.read_bytes()[132:]
        path.write_bytes(content if first == "meta" else content[12:])
    assert_same_scan(read_volume(tmp_path), expected)


# -- compression that loses detail ----------------------------------------------------------
@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"LossyImageCompression": "01", "LossyImageCompressionRatio": "12.5"}, "with loss (ratio 12.5:1)"),
        ({"LossyImageCompression": "01", "LossyImageCompressionRatio": ["4", "10"]}, "with loss (ratio 10:1)"),
        ({"LossyImageCompression": "01"}, "with loss (ratio not given)"),
        ({"LossyImageCompression": "00", "LossyImageCompressionRatio": "3"}, ""),
        ({}, ""),
    ],
)
def test_lossy_compression_is_a_reason_to_look(tmp_path, tags, words):
    lossy, plain = read_volume(write_dicom(tmp_path / "a", random_scan(), **tags)), random_scan()
    reasons = [one for one in check_pair(plain, lossy).reasons if one.rule == "lossy"]
    assert [(one.answer, one.scan) for one in reasons] == ([("look", "Template")] if words else [])
    assert all(words in one.text for one in reasons)
    assert lossy.notes == ()


def test_a_transfer_syntax_that_always_loses_detail_tells_by_itself():
    assert lossy_ratio("", "", JPEGExtended12Bit) == 1.0
    assert lossy_ratio("00", "", JPEG2000) is None  # may be lossless
