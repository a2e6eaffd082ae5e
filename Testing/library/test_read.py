"""Reading NRRD, NIfTI and MetaImage files, and refusing what is no scan."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import SimpleITK as sitk
from image_samples import FORMATS, nifti, save
from phantoms import assert_same_scan, input_error, random_scan, rotation, write_dicom

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.hu import as_hu
from ChangeMapJointLib.io.read import read_array, read_volume, split_selector
from ChangeMapJointLib.io.sources import SourceFile


# -- what can be read -----------------------------------------------------------------------
@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("compress", [False, True])
def test_every_format_keeps_values_and_places(tmp_path, suffix, compress):
    expected = random_scan(rotation(10, -20, 30))
    folder = tmp_path / "Röntgen Zürich"
    folder.mkdir()
    path = folder / f"prüf bild.{suffix}"
    sitk.WriteImage(expected.grid.to_image(expected.array), str(path), compress)
    found = read_volume(path)
    np.testing.assert_array_equal(found.array, expected.array)
    assert found.array.dtype == np.int16
    assert found.grid.same_as(expected.grid, tolerance_mm=1e-3)  # NIfTI holds float32
    assert found.source == path
    assert found.notes == ()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_goes_from_ras_to_lps(tmp_path, order, suffix):
    """Voxel (i, j, k) of a hand-written file lies at sform (i, j, k), x and y with their signs turned."""
    array = random_scan().array
    turn = np.array(rotation(25, 10, -40)) * (2.0, 1.5, 3.0)
    sform = np.eye(4)
    sform[:3, :3], sform[:3, 3] = turn, (10.0, 20.0, 30.0)
    found = read_volume(
        nifti(tmp_path / f"a{suffix}", array, pixdim=(2.0, 1.5, 3.0), sform=sform, codes=(0, 2), order=order)
    )
    np.testing.assert_array_equal(found.array, array)
    for index in ((0, 0, 0), (4, 0, 0), (1, 5, 6)):
        ras = turn @ index + (10.0, 20.0, 30.0)
        np.testing.assert_allclose(found.grid.to_physical(index), ras * (-1, -1, 1), atol=1e-4)


def test_nifti_scaling_gives_whole_hu_back(tmp_path):
    stored = random_scan().array
    found = read_volume(nifti(tmp_path / "a.nii", stored, slope=(2.0, -24.0)))
    assert found.array.dtype == np.int16
    np.testing.assert_array_equal(found.array, np.maximum(2 * stored.astype(int) - 24, -1024))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_whole_numbers_become_int16(tmp_path, dtype):
    values = np.arange(7 * 6 * 5).reshape(7, 6, 5).astype(dtype)
    found = read_volume(save(tmp_path / "a.nrrd", values))
    assert found.array.dtype == np.int16
    np.testing.assert_array_equal(found.array, values)


def test_other_numbers_become_float32_and_nothing_lies_below_a_ct(tmp_path):
    values = random_scan().array + np.float64(0.25)
    values[0, 0, 0], values[1, 1, 1] = -3024.5, 40000.0
    found = read_volume(save(tmp_path / "a.mha", values))
    assert found.array.dtype == np.float32
    values[0, 0, 0] = -1024
    np.testing.assert_array_equal(found.array, values.astype(np.float32))
    whole = np.where(values > 3000, 100, np.floor(values)).astype(np.int16)
    whole[2, 2, 2] = -2000
    assert read_volume(save(tmp_path / "b.mha", whole)).array.min() == -1024


def test_numbers_too_large_for_float32_are_no_hu(tmp_path):
    values = random_scan().array.astype(np.float64)
    values[1, 2, 3] = 1e300
    assert "1 voxel(s) inside the volume are NaN or infinite" in input_error(save(tmp_path / "a.nrrd", values))


def test_int16_is_not_copied_again():
    array = np.full((3, 4, 5), -2000, dtype=np.int16)
    found = as_hu(array)
    assert np.shares_memory(found, array)
    assert (found == -1024).all()


def test_maps_masks_and_fields_keep_their_type(tmp_path):
    mask = (random_scan().array > 0).astype(np.uint8)
    found, grid = read_array(save(tmp_path / "mask.nrrd", mask))
    np.testing.assert_array_equal(found, mask)
    assert (found.dtype, grid.spacing_mm) == (np.uint8, (0.7, 0.8, 1.25))
    field = np.random.default_rng(0).normal(size=(4, 3, 2, 3)).astype(np.float32)
    image = sitk.GetImageFromArray(field, isVector=True)
    sitk.WriteImage(image, str(tmp_path / "field.nrrd"))
    np.testing.assert_array_equal(read_array(tmp_path / "field.nrrd")[0], field)
    with pytest.raises(InputError, match="no such file"):
        read_array(tmp_path / "missing.nrrd")


def test_a_number_sign_in_a_path_is_no_selector_when_the_path_exists(tmp_path):
    expected = random_scan()
    folder = write_dicom(tmp_path / "scan #2", expected)
    assert split_selector(folder) == (folder, None)
    assert split_selector(f"{folder}#3") == (folder, "3")
    assert split_selector("a/b") == (Path("a/b"), None)
    assert_same_scan(read_volume(folder), expected)
    assert_same_scan(read_volume(f"{folder}#3"), expected)
    assert "matches no series" in input_error(f"{folder}#2")
    assert "give the path without it" in input_error(f"{save(tmp_path / 'a.nrrd')}#1")


def test_a_file_that_does_not_say_how_the_patient_lies_gets_a_note(tmp_path):
    array = random_scan().array
    expected = "The file does not give the orientation of the patient."
    assert read_volume(nifti(tmp_path / "a.nii", array, codes=(0, 0))).notes[0] == expected
    header = b"NRRD0004\ntype: int16\ndimension: 3\nsizes: 5 6 7\nspacings: 1 2 3\nendian: little\nencoding: raw\n\n"
    (tmp_path / "a.nrrd").write_bytes(header + array.tobytes())
    assert read_volume(tmp_path / "a.nrrd").notes == (expected,)


# -- what is refused ------------------------------------------------------------------------
def test_missing_empty_and_foreign_files(tmp_path):
    assert "no such file or folder" in input_error(tmp_path / "missing.nrrd")
    assert "no DICOM images found" in input_error(tmp_path)
    for name, content in (("a.nrrd", b"hello"), ("a.nii", b"hello" * 100), ("a.nii.gz", b""), ("a.mha", b"\0" * 999)):
        (tmp_path / name).write_bytes(content)
        assert name in input_error(tmp_path / name)
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff" * 99)
    assert "unknown file format, expected NRRD" in input_error(tmp_path / "photo.jpg")
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 no archive")
    assert "unknown file format" in input_error(tmp_path / "a.zip")


def refused(name: str) -> PermissionError:
    return PermissionError(13, "Permission denied", name)


@pytest.mark.parametrize("name", ["scan.nrrd", "scan.nrrd#3"])
def test_a_folder_that_may_not_be_entered(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permission bits do not stop root, so the refusal itself is made."""

    def exists(path: Path) -> bool:
        raise refused(str(path))

    monkeypatch.setattr(Path, "exists", exists)
    path, _ = split_selector(tmp_path / name)
    with pytest.raises(InputError, match=r"cannot be reached \(Permission denied\); check its permissions"):
        read_volume(path)


def test_a_file_of_a_series_that_may_not_be_read(tmp_path: Path) -> None:
    def opener() -> BinaryIO:
        raise refused("/somewhere/else/0001.dcm")

    with pytest.raises(InputError) as caught:
        SourceFile("0001.dcm", 10, opener).read()
    assert str(caught.value) == "0001.dcm: cannot be read (Permission denied); check its permissions"


def test_images_that_are_no_volume(tmp_path):
    volume = sitk.GetImageFromArray(random_scan().array)
    real = sitk.Cast(volume, sitk.sitkFloat32)
    cases = {
        "two.nrrd": (volume[:, :, 1], "2-dimensional"),
        "four.nii": (sitk.JoinSeries([volume, volume]), "4-dimensional"),
        "vector.nrrd": (sitk.Compose(volume, volume, volume), "3 components"),
        "complex.nrrd": (sitk.RealAndImaginaryToComplex(real, real), "complex"),
        "one.mha": (volume[:, :, :1], "one slice"),
    }
    for name, (image, expected) in cases.items():
        sitk.WriteImage(image, str(tmp_path / name))
        assert expected in input_error(tmp_path / name)


def test_image_files_where_a_series_was_expected(tmp_path):
    """A folder or a zip with an image file in it, and half of a pair of files."""
    (tmp_path / "folder").mkdir()
    scan = save(tmp_path / "folder" / "scan.nii.gz")
    assert "1 image file(s): scan.nii.gz; give the file itself" in input_error(tmp_path / "folder")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(scan, "scan.nii.gz")
    assert "scan.nii.gz; unpack it and give the file" in input_error(tmp_path / "a.zip")
    for name in ("a.hdr", "a.img"):
        (tmp_path / name).write_bytes(bytes(348))
        assert "in two files" in input_error(tmp_path / name)


@pytest.mark.parametrize("size", [0.0, np.nan])
def test_voxel_sizes_that_are_none(tmp_path, size):
    array = random_scan().array
    expected = "expected three positive numbers"
    assert expected in input_error(nifti(tmp_path / "a.nii", array, pixdim=(1.0, size, 3.0), codes=(0, 0)))
    header = f"NRRD0004\ntype: int16\ndimension: 3\nsizes: 5 6 7\nspacings: 1 {size} 3\nendian: little\nencoding: raw"
    (tmp_path / "a.nrrd").write_bytes(f"{header}\n\n".encode() + array.tobytes())
    assert expected in input_error(tmp_path / "a.nrrd")
    content = save(tmp_path / "a.mha", spacing=(1.0, 2.0, 3.0)).read_bytes()
    (tmp_path / "a.mha").write_bytes(
        content.replace(b"ElementSpacing = 1 2 3", f"ElementSpacing = 1 {size} 3".encode())
    )
    assert expected in input_error(tmp_path / "a.mha")


def test_nrrd_without_voxel_size(tmp_path):
    header = b"NRRD0004\ntype: int16\ndimension: 3\nsizes: 5 6 7\nendian: little\nencoding: raw\n\n"
    (tmp_path / "a.nrrd").write_bytes(header + random_scan().array.tobytes())
    assert "expected three positive numbers" in input_error(tmp_path / "a.nrrd")


def test_axes_that_are_not_perpendicular(tmp_path):
    content = save(tmp_path / "a.nrrd", spacing=(1.0, 2.0, 3.0)).read_bytes()
    straight = b"space directions: (1,0,0) (0,2,0) (0,0,3)"
    assert straight in content
    (tmp_path / "a.nrrd").write_bytes(content.replace(straight, b"space directions: (1,0.3,0) (0,2,0) (0,0,3)"))
    assert "not perpendicular" in input_error(tmp_path / "a.nrrd")
    sheared = np.diag([1.0, 2.0, 3.0, 1.0])
    sheared[:2, 1] = 2 * np.sin(0.3), 2 * np.cos(0.3)
    assert "not perpendicular" in input_error(nifti(tmp_path / "a.nii", random_scan().array, sform=sheared))


def test_nifti_that_contradicts_itself(tmp_path):
    text = input_error(nifti(tmp_path / "a.nii", random_scan().array, sform=np.diag([1.0, 2.0, 4.0, 1.0])))
    assert "(1.0, 2.0, 3.0) mm in pixdim and (1.0, 2.0, 4.0) mm in sform" in text


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("compress", [False, True])
def test_truncated_files(tmp_path, suffix, compress):
    """Never a volume with made-up voxels."""
    path = save(tmp_path / f"a.{suffix}", compress=compress)
    voxels = [data for data in tmp_path.iterdir() if data.suffix in (".raw", ".zraw", ".gz") and data != path]
    victim = voxels[0] if suffix in ("nhdr", "mhd") else path
    victim.write_bytes(victim.read_bytes()[:-40])
    assert f"a.{suffix}" in input_error(path)


def test_a_flipped_bit_in_a_compressed_nifti(tmp_path):
    path = save(tmp_path / "a.nii.gz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    assert "damaged" in input_error(path)


def test_a_header_that_promises_too_much(tmp_path):
    header = (
        "NRRD0004\ntype: int16\ndimension: 3\nsizes: 90000 90000 90000\nspacings: 1 1 1\nendian: little\nencoding: raw"
    )
    (tmp_path / "a.nrrd").write_bytes(f"{header}\n\n".encode() + b"\0" * 1000)
    assert "expected 1 to" in input_error(tmp_path / "a.nrrd")
