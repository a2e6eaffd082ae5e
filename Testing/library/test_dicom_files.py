"""Single DICOM files: pixels, compression, damage, archives, multi-frame, and what the header says."""

from __future__ import annotations

import struct
import tempfile
import tracemalloc
import zipfile

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from phantoms import (
    SHAPE,
    assert_same_scan,
    dicom_slices,
    input_error,
    random_scan,
    rotation,
    save_slices,
    set_pixels,
    write_dicom,
)
from pydicom.dataset import Dataset
from pydicom.uid import MPEG2MPML, EnhancedCTImageStorage, JPEGLosslessSV1, RLELossless

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.gate.checks import check_ct
from ChangeMapJointLib.io.dicom.series import list_series
from ChangeMapJointLib.io.dicom.values import without_identity
from ChangeMapJointLib.io.read import read_volume
from ChangeMapJointLib.scan.volume import Volume


# -- pixels ---------------------------------------------------------------------------------
def test_rescale_is_applied_slice_by_slice(tmp_path):
    slices = dicom_slices(random_scan())
    stored = np.random.default_rng(0).integers(0, 4000, SHAPE)
    slopes, intercepts = np.linspace(0.25, 1.75, 7), np.linspace(-1020, -900, 7)
    for k, ds in enumerate(slices):
        set_pixels(ds, stored[k].astype(np.uint16))
        ds.RescaleSlope, ds.RescaleIntercept = f"{slopes[k]:.6f}", f"{intercepts[k]:.6f}"
    found = read_volume(save_slices(tmp_path, slices))
    assert found.array.dtype == np.float32
    np.testing.assert_allclose(found.array, stored * slopes[:, None, None] + intercepts[:, None, None], atol=1e-2)


def test_whole_numbers_stay_int16_under_a_fractional_slope(tmp_path):
    expected = random_scan()
    even = Volume((expected.array // 2 * 2).astype(np.int16), expected.grid)
    assert_same_scan(read_volume(write_dicom(tmp_path, even, slope=0.5)), even)


def test_a_missing_rescale_gives_stored_values_and_the_hu_check_says_so(tmp_path):
    volume = random_scan(shape=(60, 16, 16))
    hu = np.where(np.arange(16) < 6, -1000, 40) + np.zeros((60, 16, 1))
    grid = Grid(volume.grid.shape, (5.0, 5.0, 2.0))
    slices = dicom_slices(Volume(hu.astype(np.int16), grid))
    for ds in slices:
        del ds.RescaleSlope, ds.RescaleIntercept
    found = read_volume(save_slices(tmp_path, slices))
    np.testing.assert_array_equal(found.array, hu + 1024)
    with pytest.raises(InputError, match=r"\+1024.*rescale intercept"):
        check_ct(found)


@pytest.mark.parametrize(
    ("dtype", "padding", "tag"), [(np.int16, -2000, -2000), (np.int16, -2000, 63536), (np.uint16, 63536, 63536)]
)
def test_padding_and_values_below_any_ct_become_minus_1024(tmp_path, dtype, padding, tag):
    expected = random_scan()
    slices = dicom_slices(expected)
    for k, ds in enumerate(slices):
        stored = (expected.array[k].astype(int) + (0 if dtype == np.int16 else 1024)).astype(dtype)
        stored[0, :2] = padding
        set_pixels(ds, stored)
        ds.RescaleIntercept = 0 if dtype == np.int16 else -1024
        ds.add_new("PixelPaddingValue", "SS" if tag < 0 else "US", tag)
    expected.array[:, 0, :2] = -1024
    assert_same_scan(read_volume(save_slices(tmp_path, slices)), expected)


def test_padding_without_a_tag_is_raised_to_minus_1024(tmp_path):
    expected = random_scan()
    slices = dicom_slices(expected)
    for k, ds in enumerate(slices):
        stored = expected.array[k].copy()
        stored[1, 1] = -3024
        set_pixels(ds, stored)
        ds.RescaleIntercept = 0
    expected.array[:, 1, 1] = -1024
    assert_same_scan(read_volume(save_slices(tmp_path, slices)), expected)


def test_bits_beyond_bits_stored_are_no_hu(tmp_path):
    expected = random_scan()
    slices = dicom_slices(expected)
    for k, ds in enumerate(slices):
        stored = (expected.array[k].astype(int) + 1024).astype(np.uint16)
        set_pixels(ds, stored | np.uint16(0x8000))  # an overlay plane in the highest bit
        ds.BitsStored, ds.HighBit = 12, 11
    assert_same_scan(read_volume(save_slices(tmp_path, slices)), expected)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
@pytest.mark.parametrize("rest", [0, 0xF])  # what lies below the used bits counts for nothing
def test_left_justified_bits_are_shifted_down(tmp_path, dtype, rest):
    expected = random_scan()
    slices = dicom_slices(expected)
    for k, ds in enumerate(slices):
        stored = expected.array[k].astype(int) + (1024 if dtype == np.uint16 else 0)
        set_pixels(ds, ((stored << 4) | rest).astype(dtype))
        ds.BitsStored, ds.HighBit = 12, 15
        ds.RescaleIntercept = -1024 if dtype == np.uint16 else 0
    assert_same_scan(read_volume(save_slices(tmp_path, slices)), expected)


@pytest.mark.parametrize(("stored", "highest"), [(12, 10), (12, 16), (0, 11), (17, 16)])
def test_bits_that_cannot_be_are_refused(tmp_path, stored, highest):
    text = input_error(write_dicom(tmp_path, random_scan(), BitsStored=stored, HighBit=highest))
    assert "HighBit" in text or "Bits Stored" in text
    assert "export the series again" in text


def test_unsigned_wrap_is_explained(tmp_path):
    expected = random_scan(shape=(20, 20, 20))
    slices = dicom_slices(Volume(expected.array, Grid((20, 20, 20), (5.0, 5.0, 5.0))))
    hu = np.where(np.arange(20) < 8, -1000, 40).astype(np.int16) + np.zeros((20, 1), np.int16)
    for ds in slices:
        set_pixels(ds, hu.view(np.uint16))
        ds.RescaleIntercept = 0
    found = read_volume(save_slices(tmp_path, slices))
    assert found.array.dtype == np.float32  # 64536 does not fit int16
    with pytest.raises(InputError, match="stored as unsigned"):
        check_ct(found)


def test_rle_is_decoded(tmp_path):
    expected = random_scan()
    slices = dicom_slices(expected)
    for ds in slices:
        ds.compress(RLELossless, generate_instance_uid=False)
    assert_same_scan(read_volume(save_slices(tmp_path, slices)), expected)


def test_lossless_jpeg_is_decoded(tmp_path):
    expected = random_scan(shape=(4, 16, 16))
    plain = write_dicom(tmp_path / "plain", expected)
    (tmp_path / "jpeg").mkdir()
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.UseCompressionOn()
    writer.SetCompressor("JPEG")
    writer.KeepOriginalImageUIDOn()
    for path in plain.iterdir():
        plain_image = sitk.ReadImage(str(path))
        image = sitk.Cast(plain_image, sitk.sitkInt16)
        for key in plain_image.GetMetaDataKeys():
            image.SetMetaData(key, plain_image.GetMetaData(key))
        writer.SetFileName(str(tmp_path / "jpeg" / path.name))
        writer.Execute(image)
    written = pydicom.dcmread(next((tmp_path / "jpeg").iterdir()))
    assert written.file_meta.TransferSyntaxUID == JPEGLosslessSV1
    assert_same_scan(read_volume(tmp_path / "jpeg"), expected)


def test_a_syntax_without_decoder_is_named(tmp_path):
    write_dicom(tmp_path, random_scan())
    for path in tmp_path.iterdir():
        ds = pydicom.dcmread(path)
        ds.PixelData = pydicom.encaps.encapsulate([b"\0\0\1\xb3" * 8])
        ds.file_meta.TransferSyntaxUID = MPEG2MPML
        ds.save_as(path)
    assert MPEG2MPML.name in input_error(tmp_path)


def test_truncated_pixel_data_name_the_file(tmp_path):
    write_dicom(tmp_path, random_scan())
    victim = tmp_path / "0004.dcm"
    victim.write_bytes(victim.read_bytes()[:-10])
    text = input_error(tmp_path)
    assert "0004.dcm" in text
    assert "cannot be decoded" in text


# -- files ----------------------------------------------------------------------------------
def test_names_preambles_and_nesting_do_not_matter(tmp_path):
    expected = random_scan()
    folder = tmp_path / "Müller, Käthe 2024"
    slices = dicom_slices(expected)
    save_slices(folder / "IM 1" / "a", slices[:3], suffix="")
    save_slices(folder / "IM 2", slices[3:], suffix=".IMA")
    for path in (folder / "IM 2").iterdir():
        path.write_bytes(b"MZ" + b"\x90" * 126 + path.read_bytes()[128:])  # a program's preamble
    bare = next((folder / "IM 1" / "a").iterdir())
    content = pydicom.dcmread(bare)
    del content.file_meta
    content.preamble = None
    pydicom.dcmwrite(bare, content, implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert b"DICM" not in bare.read_bytes()[:132]
    assert_same_scan(read_volume(folder), expected)


def test_an_element_that_claims_to_be_huge_costs_nothing(tmp_path):
    folder = write_dicom(tmp_path / "series", random_scan())
    path = folder / "0000.dcm"
    content = path.read_bytes()
    place = content.index(b"LO", content.index(struct.pack("<HH", 0x0008, 0x103E)))
    path.write_bytes(content[:place] + b"UN\0\0" + struct.pack("<I", 0x70000000) + content[place + 4 :])
    tracemalloc.start()
    list_series(folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**25


def test_a_member_without_a_name_is_passed_over(tmp_path):
    expected = random_scan()
    folder = write_dicom(tmp_path / "series", expected)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x", b"nothing")
        for path in folder.iterdir():
            archive.write(path, path.name)
    content = (tmp_path / "a.zip").read_bytes()
    first = content.index(b"PK\x01\x02")  # of the directory at the end, where the length of the name is taken away
    content = content[: first + 28] + b"\0\0" + content[first + 30 : first + 46] + content[first + 47 :]
    end = content.index(b"PK\x05\x06")
    size = int.from_bytes(content[end + 12 : end + 16], "little") - 1
    (tmp_path / "a.zip").write_bytes(content[: end + 12] + size.to_bytes(4, "little") + content[end + 16 :])
    assert_same_scan(read_volume(tmp_path / "a.zip"), expected)


def test_a_zip_is_read_without_unpacking_it(tmp_path, monkeypatch):
    expected = random_scan()
    write_dicom(tmp_path / "series", expected)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    archive = tmp_path / "Überweisung 1.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for number, path in enumerate(sorted((tmp_path / "series").iterdir())):
            packed.write(path, f"../../Müller/{number}")  # a name that points outside
        packed.writestr("LIESMICH.txt", "kein Bild")
    before = sorted(tmp_path.rglob("*"))
    assert_same_scan(read_volume(archive), expected)
    assert sorted(tmp_path.rglob("*")) == before
    content = bytearray(archive.read_bytes())
    content[len(content) // 3] ^= 0xFF
    archive.write_bytes(content)
    assert "cannot be read" in input_error(archive) or "damaged" in input_error(archive)


def test_an_encrypted_or_broken_archive_is_refused(tmp_path):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("slice", b"secret")
    content = bytearray(archive.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + flags] |= 1
    archive.write_bytes(content)
    assert "encrypted" in input_error(archive)
    directory = content.index(b"PK\x01\x02")
    content[directory : directory + 4] = b"XXXX"
    archive.write_bytes(content)
    assert "not a readable zip archive" in input_error(archive)


@pytest.mark.parametrize("depth", [300, 3000])
def test_deeply_nested_sequences_are_a_clear_error(tmp_path, depth):
    write_dicom(tmp_path, random_scan())
    opened = struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    closed = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    victim = tmp_path / "0003.dcm"
    content = victim.read_bytes()
    place = content.index(struct.pack("<HH2s", 0x7FE0, 0x0010, b"OW"))
    victim.write_bytes(content[:place] + opened * depth + closed * depth + content[place:])
    assert "0003.dcm: damaged DICOM file" in input_error(tmp_path)


def test_a_damaged_header_names_the_file(tmp_path):
    write_dicom(tmp_path, random_scan(), SliceThickness="1.25")
    path = tmp_path / "0002.dcm"
    content = path.read_bytes()
    place = content.index(b"1.25")
    path.write_bytes(content[:place] + b"1,2 " + content[place + 4 :])
    assert "0002.dcm: SliceThickness is '1,2', expected 1 finite number(s)" in input_error(tmp_path)


# -- multi-frame ----------------------------------------------------------------------------
def enhanced_ct(volume: Volume, order: list[int]) -> Dataset:
    """An Enhanced CT object with its frames in ``order`` and an intercept of its own for each."""
    ds = dicom_slices(volume)[0]
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    direction = np.asarray(volume.grid.direction)
    shared, measures, plane = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = ds.PixelSpacing, "1.25"
    plane.ImageOrientationPatient = [f"{v:.10f}" for v in (*direction[:, 0], *direction[:, 1])]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    frames, stored = [], []
    for k in order:
        group, position, value = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [f"{v:.8f}" for v in volume.grid.to_physical((0, 0, k))]
        value.RescaleSlope, value.RescaleIntercept = "1", str(-1024 - 10 * k)
        group.PlanePositionSequence, group.PixelValueTransformationSequence = [position], [value]
        frames.append(group)
        stored.append((volume.array[k].astype(int) + 1024 + 10 * k).astype(np.uint16))
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope"):
        delattr(ds, keyword)
    del ds.RescaleIntercept
    ds.SharedFunctionalGroupsSequence, ds.PerFrameFunctionalGroupsSequence = [shared], frames
    ds.NumberOfFrames, ds.PixelData = len(order), np.stack(stored).tobytes()
    return ds


def test_an_enhanced_multiframe_file_is_read_by_its_functional_groups(tmp_path):
    expected = random_scan(rotation(5, 0, 10))
    ds = enhanced_ct(expected, [3, 0, 6, 1, 5, 2, 4])
    path = tmp_path / "enhanced.dcm"
    ds.save_as(path, enforce_file_format=True)
    assert_same_scan(read_volume(path), expected)
    assert_same_scan(read_volume(tmp_path), expected)
    ds.PerFrameFunctionalGroupsSequence = ds.PerFrameFunctionalGroupsSequence[:-1]
    ds.save_as(path, enforce_file_format=True)
    assert "7 frames, but 6 per-frame functional groups" in input_error(path)


# -- what travels with the scan --------------------------------------------------------------
@pytest.mark.filterwarnings("ignore:Invalid value for VR DA")
def test_the_acquisition_says_how_and_when_but_not_who(tmp_path):
    write_dicom(
        tmp_path / "a", random_scan(), ContrastBolusAgent="Iomeprol", PatientID="4711", PatientName="Doe^Jane^M"
    )
    write_dicom(tmp_path / "b", random_scan(), PatientID="4711", PatientName="DOE^JANE^M", AcquisitionDate="")
    write_dicom(tmp_path / "c", random_scan(), PatientID="4712", PatientName="Doe^Jane^M", AcquisitionDate="2023.02.28")
    one, same, other = (read_volume(tmp_path / name) for name in "abc")
    about = one.acquisition
    assert (about.date, about.modality, about.kernel, about.slice_thickness_mm) == ("2024-01-31", "CT", "I50f", 1.25)
    assert (about.contrast, about.manufacturer, about.series_description) == ("Iomeprol", "Phantoms Ltd", "Thorax 1.0")
    assert (same.acquisition.date, other.acquisition.date) == (None, "2023-02-28")
    assert about.patient_key == same.acquisition.patient_key
    assert about.patient_key != other.acquisition.patient_key
    for private in ("4711", "Doe", "Jane"):
        assert private not in repr(about)


def test_cancelling_stops_the_reading(tmp_path):
    class Stop(Exception):
        pass

    def stop_late(fraction: float, message: str = "") -> None:
        assert 0 <= fraction <= 1
        if fraction > 0.5:
            raise Stop

    write_dicom(tmp_path, random_scan())
    with pytest.raises(Stop):
        read_volume(tmp_path, progress=stop_late)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Thorax 1.0 B", "Thorax 1.0 B"),
        ("Thorax DOE", ""),
        ("Thorax P-0001", ""),
        ("x" * 64, "x" * 64),
        ("Thorax " + "y" * 58, ""),  # a damaged length swallowed what stands behind it
    ],
)
def test_descriptions_are_shown_without_the_patient(text: str, shown: str) -> None:
    assert without_identity(text, ["P-0001", "DOE^JANE"]) == shown
