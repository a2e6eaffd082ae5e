"""What DICOM images come in: discs, archives, multi-frame files, compression; and headers that promise too much."""

from __future__ import annotations

import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from phantoms import assert_same_scan, dicom_slices, input_error, random_scan, save_slices, write_dicom
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    RLELossless,
    generate_uid,
)

from ChangeMapJointLib.io import sources
from ChangeMapJointLib.io.provenance import sha256_of
from ChangeMapJointLib.io.read import read_volume
from ChangeMapJointLib.scan.volume import Volume


def sequence_item(**values: object) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def multi_frame(volume: Volume, *, groups: bool = True, **tags: object) -> Dataset:
    """All slices of an axial scan in one dataset, with functional groups or without."""
    ds = dicom_slices(volume)[0]
    ds.NumberOfFrames = len(volume.array)
    ds.PixelData = (volume.array.astype(int) + 1024).astype("<u2").tobytes()
    if groups:
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
        places = [[f"{v:.6f}" for v in volume.grid.to_physical((0, 0, k))] for k in range(len(volume.array))]
        ds.SharedFunctionalGroupsSequence = [sequence_item()]
        ds.PerFrameFunctionalGroupsSequence = [
            sequence_item(PlanePositionSequence=[sequence_item(ImagePositionPatient=place)]) for place in places
        ]
    for keyword, value in tags.items():
        setattr(ds, keyword, value)
    return ds


def save(ds: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


# -- discs ----------------------------------------------------------------------------------
@pytest.fixture
def disc(tmp_path: Path) -> tuple[Path, Volume]:
    """A folder as on a disc, with a DICOMDIR and one series, and that series."""
    expected = random_scan()
    files = FileSet()
    for ds in dicom_slices(expected, StudyID="1", StudyDate="20240131", StudyTime="101112", AccessionNumber=""):
        files.add(ds)
    files.write(tmp_path / "disc")
    return tmp_path / "disc", expected


def test_a_dicomdir_stands_for_the_images_that_it_lists(disc, tmp_path):
    folder, expected = disc
    write_dicom(folder / "more", random_scan(seed=2), SeriesNumber=9)
    assert_same_scan(read_volume(folder / "DICOMDIR"), expected)
    assert_same_scan(read_volume(f"{folder / 'DICOMDIR'}#3"), expected)
    assert "2 CT series" in input_error(folder)
    renamed = folder / "contents.dcm"
    (folder / "DICOMDIR").rename(renamed)
    assert_same_scan(read_volume(renamed), expected)


def test_images_under_names_as_other_systems_write_them_are_found(disc):
    folder, expected = disc
    for path in [path for path in folder.rglob("*") if path.is_file() and path.name != "DICOMDIR"]:
        path.rename(path.with_name(path.name.lower() + ".dcm"))
    found = read_volume(folder / "DICOMDIR")
    assert_same_scan(found, expected)
    assert not any("DICOMDIR" in note for note in found.notes)


@pytest.mark.parametrize("given", ["DICOMDIR", ""])
def test_images_that_the_dicomdir_lists_and_that_are_not_there_are_said(disc, given):
    folder, expected = disc
    images = [path for path in folder.rglob("*") if path.is_file() and path.name != "DICOMDIR"]
    for path in sorted(images, key=lambda path: float(pydicom.dcmread(path).ImagePositionPatient[2]))[5:]:
        path.unlink()
    found = read_volume(folder / given)
    np.testing.assert_array_equal(found.array, expected.array[:5])
    assert any("lists 7 files of this series, 2 of which are missing" in note for note in found.notes)
    for path in images:
        path.unlink(missing_ok=True)
    assert "only a DICOMDIR that lists 7 missing files; copy the whole disc" in input_error(folder / given)


def test_the_hash_of_a_dicomdir_is_that_of_its_images(disc):
    folder, _ = disc
    before = sha256_of(folder / "DICOMDIR")
    write_dicom(folder / "more", random_scan(seed=2))
    assert sha256_of(folder / "DICOMDIR") == before
    image = next(path for path in folder.rglob("IM*") if path.is_file())
    image.write_bytes(image.read_bytes()[:-1] + b"\1")
    assert sha256_of(folder / "DICOMDIR") != before


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
def test_a_dicomdir_may_not_point_outside_its_folder(disc):
    folder, expected = disc
    secret = write_dicom(folder.parent / "elsewhere", random_scan(seed=8), SeriesNumber=8)
    table = pydicom.dcmread(folder / "DICOMDIR")
    images = [record for record in table.DirectoryRecordSequence if "ReferencedFileID" in record]
    images[0].ReferencedFileID = ["..", "elsewhere", next(secret.iterdir()).name]
    table.save_as(folder / "DICOMDIR")
    assert_same_scan(read_volume(folder / "DICOMDIR"), expected)  # its folder is looked at instead


# -- archives -------------------------------------------------------------------------------
@pytest.mark.parametrize(("method", "name"), [(9, "Deflate64"), (93, "Zstandard"), (77, "method 77")])
def test_a_zip_that_cannot_be_unpacked_says_so_and_what_to_do(tmp_path, method, name):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("IM0", b"\0" * 1000)
    content = bytearray(archive.read_bytes())
    for signature, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        content[content.index(signature) + place] = method
    archive.write_bytes(content)
    text = input_error(archive)
    assert name in text
    assert "unpack the archive and give the folder, or zip it again" in text
    assert "copy the data again" not in text


def test_an_archive_inside_the_folder_is_named(tmp_path):
    (tmp_path / "study.zip").write_bytes(b"PK\x05\x06" + b"\0" * 18)
    (tmp_path / "readme.txt").write_text("nothing")
    text = input_error(tmp_path)
    assert "packed files: study.zip" in text
    assert "unpack it and give the folder" in text


# -- multi-frame ----------------------------------------------------------------------------
def test_several_volumes_as_several_multi_frame_files_are_split_by_file_without_reading_them_again(
    tmp_path, monkeypatch
):
    uid, volumes = generate_uid(), [random_scan(shape=(9, 6, 5), seed=seed) for seed in range(4)]
    for number, volume in enumerate(volumes):
        save(multi_frame(volume, SeriesInstanceUID=uid, ContentTime=f"12000{number}"), tmp_path / f"{number}.dcm")
    opened: list[str] = []
    plain_file = sources.plain_file

    def counted(path: Path, name: str) -> sources.SourceFile:
        file = plain_file(path, name)

        def opener():
            opened.append(name)
            return file.opener()

        return sources.SourceFile(file.name, file.size, opener)

    monkeypatch.setattr(sources, "plain_file", counted)
    text = input_error(tmp_path)
    assert "4 CT series" in text
    for number in range(4):
        assert f"12:00:0{number}, file {number}.dcm" in text
    assert max(opened.count(name) for name in opened) <= 3  # start, header, and pixels at most once
    assert_same_scan(read_volume(f"{tmp_path}#3c"), volumes[2])
    monkeypatch.undo()
    assert_same_scan(read_volume(tmp_path / "1.dcm"), volumes[1])


def test_copies_of_a_multi_frame_file_are_read_no_more_than_twice(tmp_path, monkeypatch):
    expected = random_scan(shape=(9, 6, 5))
    for number in range(2):
        save(multi_frame(expected, SOPInstanceUID="1.2.3", SeriesInstanceUID="1.2"), tmp_path / f"{number}.dcm")
    from ChangeMapJointLib.io.dicom import pixels as dicom_pixels

    reads: list[str] = []
    read_dataset = dicom_pixels.read_dataset
    monkeypatch.setattr(
        dicom_pixels, "read_dataset", lambda file, tags: (reads.append(file.name), read_dataset(file, tags))[1]
    )
    found = read_volume(tmp_path)
    assert_same_scan(found, expected)
    assert "9 slice(s) occurred twice" in found.notes[0]
    assert max(reads.count(name) for name in reads) <= 3  # one frame, all frames, and the scan itself


@pytest.mark.parametrize(
    ("keyword", "values", "texts"),
    [
        ("TemporalPositionIndex", (1, 2), ("time point 1", "time point 2")),
        ("FrameAcquisitionDateTime", ("20240131101112", "20240131101115"), ("20240131101112", "20240131101115")),
        ("", (), ("pass 1", "pass 2")),
    ],
)
def test_phases_in_one_multi_frame_file_are_told_apart(tmp_path, keyword, values, texts):
    both = random_scan(shape=(12, 6, 5))
    ds = multi_frame(both)
    for k, item in enumerate(ds.PerFrameFunctionalGroupsSequence):
        place = both.grid.to_physical((0, 0, k // 2))
        item.PlanePositionSequence[0].ImagePositionPatient = [f"{v:.6f}" for v in place]
        if keyword:
            item.FrameContentSequence = [sequence_item(**{keyword: values[k % 2]})]
    path = save(ds, tmp_path / "both.dcm")
    text = input_error(path)
    for part in texts:
        assert part in text
    np.testing.assert_array_equal(read_volume(f"{path}#3b").array, both.array[1::2])


def test_a_multi_frame_file_without_positions_says_so(tmp_path):
    text = input_error(save(multi_frame(random_scan(), groups=False), tmp_path / "old.dcm"))
    assert "7 frames without a position for each" in text
    assert "as single CT images or as Enhanced CT" in text
    picture = multi_frame(random_scan(), groups=False, SOPClassUID=MultiFrameGrayscaleWordSecondaryCaptureImageStorage)
    text = input_error(save(picture, tmp_path / "capture" / "picture.dcm"))
    assert "Multi-frame Grayscale Word Secondary Capture Image Storage, expected CT images" in text


def test_a_series_that_cannot_be_read_does_not_hide_another(tmp_path):
    save(multi_frame(random_scan(), groups=False, SeriesNumber=8), tmp_path / "old.dcm")
    expected = random_scan(seed=2)
    write_dicom(tmp_path / "good", expected)
    assert "2 CT series" in input_error(tmp_path)
    assert_same_scan(read_volume(f"{tmp_path}#3"), expected)


@pytest.mark.parametrize(
    "tags",
    [
        {"GridFrameOffsetVector": [1.25 * k for k in range(7)]},
        {"SliceLocationVector": [-50 + 1.25 * k for k in range(7)]},
        {"SliceVector": list(range(1, 8)), "SpacingBetweenSlices": "1.25"},
    ],
    ids=lambda tags: next(iter(tags)),
)
def test_positions_may_stand_in_a_vector_at_the_top(tmp_path, tags):
    expected = random_scan()
    assert_same_scan(read_volume(save(multi_frame(expected, groups=False, **tags), tmp_path / "a.dcm")), expected)
    short = {keyword: value[:-1] for keyword, value in tags.items() if isinstance(value, list)}
    text = input_error(save(multi_frame(expected, groups=False, **{**tags, **short}), tmp_path / "a.dcm"))
    assert "does not hold 7 finite numbers" in text


# -- compression ----------------------------------------------------------------------------
def compressed(folder: Path, volume: Volume, compressor: str) -> list[Dataset]:
    """The slices of ``volume``, compressed by GDCM."""
    plain = write_dicom(folder / "plain", volume)
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.UseCompressionOn()
    writer.SetCompressor(compressor)
    writer.KeepOriginalImageUIDOn()
    (folder / "packed").mkdir()
    for path in plain.iterdir():
        image = sitk.ReadImage(str(path))
        whole = sitk.Cast(image, sitk.sitkInt16)
        for key in image.GetMetaDataKeys():
            whole.SetMetaData(key, image.GetMetaData(key))
        writer.SetFileName(str(folder / "packed" / path.name))
        writer.Execute(whole)
    slices = [pydicom.dcmread(path) for path in (folder / "packed").iterdir()]
    return sorted(slices, key=lambda ds: float(ds.ImagePositionPatient[2]))


@pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000"])
def test_compressed_frames_are_decoded_one_by_one(tmp_path, compressor):
    expected = random_scan(shape=(4, 16, 16))
    slices = compressed(tmp_path, expected, compressor)
    assert slices[0].file_meta.TransferSyntaxUID.is_compressed
    assert_same_scan(read_volume(tmp_path / "packed"), expected)
    frames = [pydicom.encaps.get_frame(ds.PixelData, 0, number_of_frames=1) for ds in slices]
    ds = multi_frame(expected)
    for keyword in ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "RescaleIntercept"):
        setattr(ds, keyword, slices[0][keyword].value)
    ds.PixelData = pydicom.encaps.encapsulate(frames)
    ds.file_meta.TransferSyntaxUID = slices[0].file_meta.TransferSyntaxUID
    assert_same_scan(read_volume(save(ds, tmp_path / "frames" / "all.dcm")), expected)


def test_floating_point_pixels_are_named(tmp_path):
    slices = dicom_slices(random_scan())
    for ds in slices:
        del ds.PixelData
        ds.BitsAllocated = 32
        ds.FloatPixelData = np.zeros((ds.Rows, ds.Columns), "<f4").tobytes()
    text = input_error(save_slices(tmp_path, slices))
    assert "floating-point numbers" in text
    assert "no pixel data" not in text


def test_a_deflated_series_is_read_and_one_that_bursts_is_refused(tmp_path):
    expected = random_scan()
    for k, ds in enumerate(dicom_slices(expected)):
        ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        save(ds, tmp_path / "good" / f"{k}.dcm")
    assert_same_scan(read_volume(tmp_path / "good"), expected)
    victim = tmp_path / "good" / "3.dcm"
    start = victim.read_bytes()
    head = start[: 144 + int.from_bytes(start[140:144], "little")]
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = b"".join([packer.compress(bytes(2**20)) for _ in range(96)]) + packer.flush()
    victim.write_bytes(head + bomb)
    assert "unpack to more than" in input_error(tmp_path / "good")


# -- headers that promise too much ----------------------------------------------------------
def test_huge_sizes_with_little_data_are_refused_before_anything_is_allocated(tmp_path):
    expected = random_scan()
    plain = dicom_slices(expected, Rows=65535, Columns=65535)
    save_slices(tmp_path / "plain", plain)
    frames = multi_frame(expected, groups=False, Rows=65535, Columns=65535, NumberOfFrames=100_000)
    save(frames, tmp_path / "frames" / "a.dcm")
    packed = dicom_slices(expected)
    for ds in packed:
        ds.compress(RLELossless, generate_instance_uid=False)
        ds.Rows = ds.Columns = 8000
    save_slices(tmp_path / "packed", packed)
    for ds in packed:
        ds.Rows = ds.Columns = 65535
    save_slices(tmp_path / "wide", packed)
    none = multi_frame(expected, groups=False, NumberOfFrames=-1)
    save(none, tmp_path / "none" / "a.dcm")
    tracemalloc.start()
    assert "1 image(s) of 65535 x 65535 pixels are 8589672450 bytes" in input_error(tmp_path / "plain")
    assert "100000 image(s) of 65535 x 65535 pixels" in input_error(tmp_path / "frames")
    assert "their compressed files have only" in input_error(tmp_path / "packed")
    assert "images of 65535 x 65535 pixels, expected at most" in input_error(tmp_path / "wide")
    assert "NumberOfFrames is -1" in input_error(tmp_path / "none")
    assert tracemalloc.get_traced_memory()[1] < 30e6
    tracemalloc.stop()
