"""NRRD and MetaImage: what headers say, files that are cut short or missing, and headers that promise too much."""

from __future__ import annotations

import bz2
import gzip
import subprocess
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
import SimpleITK as sitk
from image_samples import meta, nifti, nrrd, save
from phantoms import input_error, random_scan, rotation, voxel_points

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.io.placing import NO_ORIENTATION, TURNED_AXIS
from ChangeMapJointLib.io.read import read_array, read_volume

SIZES = ("type: int16", "dimension: 3", "sizes: 5 6 7", "endian: little")
ARRAY = random_scan().array
CONTENT = ARRAY.tobytes()
TILTED = ("space: LPS", "space directions: (1,0,0) (0,2,0) (0,0.5,3)", "space origin: (1,2,3)", "encoding: raw")


# -- voxel sizes and orientation ------------------------------------------------------------
@pytest.mark.parametrize("fields", [{"ElementSpacing": None}, {"ElementSpacing": "1 2"}, {"ElementSpacing": "1 a 3"}])
def test_metaimage_without_voxel_sizes(tmp_path, fields):
    text = input_error(meta(tmp_path / "a.mha", CONTENT, **fields))
    assert "expected three positive numbers" in text or "expected 3 number(s)" in text


def test_element_size_stands_in_for_element_spacing(tmp_path):
    found = read_volume(meta(tmp_path / "a.mha", CONTENT, ElementSpacing=None, ElementSize="1 2 4"))
    assert found.grid.spacing_mm == (1.0, 2.0, 4.0)
    both = read_volume(meta(tmp_path / "b.mha", CONTENT, ElementSize="9 9 9"))
    assert both.grid.spacing_mm == (1.0, 2.0, 3.0)


@pytest.mark.parametrize("spacing", ["1 0 3", "1 nan 3", "1 inf 3"])
def test_metaimage_with_voxel_sizes_that_are_none(tmp_path, spacing):
    assert "expected three positive numbers" in input_error(meta(tmp_path / "a.mha", CONTENT, ElementSpacing=spacing))


@pytest.mark.parametrize("spacing", ["1 2 -3", "-1 2 3", "-1 -2 3"])
@pytest.mark.parametrize("suffix", ["mha", "nrrd"])
def test_a_negative_voxel_size_turns_its_axis_as_in_itk(tmp_path, suffix, spacing):
    path = tmp_path / f"a.{suffix}"
    if suffix == "mha":
        meta(path, CONTENT, ElementSpacing=spacing, Offset="4 5 -6")
    else:
        nrrd(path, *SIZES, f"spacings: {spacing}", "encoding: raw", content=CONTENT)
    expected, found = sitk.ReadImage(str(path)), read_volume(path)
    assert np.asarray(found.grid.direction).ravel().tolist() == list(expected.GetDirection())
    assert found.grid.origin_mm == expected.GetOrigin()
    assert found.grid.spacing_mm == expected.GetSpacing()
    assert TURNED_AXIS in found.notes


def test_metaimage_without_orientation(tmp_path):
    found = read_volume(meta(tmp_path / "a.mha", CONTENT, TransformMatrix=None))
    assert found.notes == (NO_ORIENTATION,)
    assert read_volume(meta(tmp_path / "b.mha", CONTENT)).notes == ()


@pytest.mark.parametrize("name", ["TransformMatrix", "Rotation", "Orientation"])
def test_metaimage_lies_where_itk_puts_it(tmp_path, name):
    turn = " ".join(str(value) for value in np.asarray(rotation(25, 10, -40)).T.ravel())
    path = meta(tmp_path / "a.mha", CONTENT, **{"TransformMatrix": None, "Offset": "4 5 -6", name: turn})
    expected, found = sitk.ReadImage(str(path)), read_volume(path)
    np.testing.assert_allclose(np.asarray(found.grid.direction).ravel(), expected.GetDirection(), atol=1e-9)
    assert found.grid.origin_mm == expected.GetOrigin()


@pytest.mark.parametrize("spacings", ["spacings: 1 2", "spacings: 1 nan 3", "spacings: a b c", "spacings:"])
def test_nrrd_with_some_voxel_sizes_only(tmp_path, spacings):
    text = input_error(nrrd(tmp_path / "a.nrrd", *SIZES, spacings, "encoding: raw", content=CONTENT))
    assert "expected three positive numbers" in text or "expected numbers" in text


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("left-posterior-superior", (1, 1, 1)),
        ("LPS", (1, 1, 1)),
        ("right-anterior-superior", (-1, -1, 1)),
        ("RAS", (-1, -1, 1)),
        ("left-anterior-superior", (1, -1, 1)),
    ],
)
def test_spaces_of_nrrd(tmp_path, space, signs):
    fields = (*SIZES, f"space: {space}", "space directions: (1,0,0) (0,2,0) (0,0,3)", "space origin: (4,5,6)")
    found = read_volume(nrrd(tmp_path / "a.nrrd", *fields, "encoding: raw", content=CONTENT))
    np.testing.assert_allclose(found.grid.to_physical((1, 1, 1)), np.array([5, 7, 9]) * signs)
    assert found.notes == ()
    expected = sitk.ReadImage(str(tmp_path / "a.nrrd"))
    np.testing.assert_allclose(found.grid.origin_mm, expected.GetOrigin())


@pytest.mark.parametrize("space", ["space dimension: 3", "space: scanner-xyz", "space: 3D-right-handed"])
def test_nrrd_in_a_space_that_is_no_patients(tmp_path, space):
    fields = (*SIZES, space, "space directions: (1,0,0) (0,2,0) (0,0,3)", "encoding: raw")
    assert read_volume(nrrd(tmp_path / "a.nrrd", *fields, content=CONTENT)).notes == (NO_ORIENTATION,)


def test_slices_of_an_nrrd_that_drift_are_sheared_straight(tmp_path):
    k, j, i = np.indices((7, 20, 15))
    values = (3.0 * i - 4.0 * (2 * j + 0.5 * k) + 5.0 * 3 * k).astype(np.float32)
    fields = ("type: float", "dimension: 3", "sizes: 15 20 7", "endian: little", *TILTED)
    found = read_volume(nrrd(tmp_path / "a.nrrd", *fields, content=values.tobytes()))
    assert found.notes == ("The slices are tilted by 9.5 degrees (gantry tilt); the tilt was corrected.",)
    expected = (voxel_points(found.grid) - (1, 2, 3)) @ np.array([3.0, -4.0, 5.0])
    inner = (slice(None), slice(3, -3), slice(None))
    np.testing.assert_allclose(found.array[inner], expected[inner], atol=1e-3)


def test_directions_of_an_nrrd_with_three_decimals(tmp_path):
    axes = np.round(np.asarray(rotation(20, -10, 15)) * (0.7, 0.7, 1.25), 3).T
    directions = " ".join(f"({','.join(str(value) for value in axis)})" for axis in axes)
    fields = ("type: int16", "dimension: 3", "sizes: 40 40 40", "endian: little", "space: LPS")
    array = random_scan(shape=(40, 40, 40)).array
    path = nrrd(
        tmp_path / "a.nrrd", *fields, f"space directions: {directions}", "encoding: raw", content=array.tobytes()
    )
    assert ["nearest" in note for note in read_volume(path).notes] == [True]


@pytest.mark.parametrize(
    ("units", "factor", "note"),
    [
        ('"mm" "mm" "mm"', 1.0, ""),
        ('"cm" "cm" "cm"', 10.0, "lengths in cm; they were converted to mm"),
        ("um um um", 1.0, "lengths in um, which cannot be; they were taken for mm"),  # voxels of 3 um
        ("m m m", 1.0, "lengths in m, which cannot be"),
    ],
)
def test_units_of_nrrd_and_metaimage(tmp_path, units, factor, note):
    fields = (*SIZES, "space: LPS", "space directions: (1,0,0) (0,2,0) (0,0,3)", f"space units: {units}")
    unit = units.split()[0].strip('"')
    files = (
        nrrd(tmp_path / "a.nrrd", *fields, "encoding: raw", content=CONTENT),
        meta(tmp_path / "a.mha", CONTENT, DistanceUnits=unit),
    )
    for found in map(read_volume, files):
        assert found.grid.spacing_mm == pytest.approx((factor, 2 * factor, 3 * factor))
        assert len(found.notes) == bool(note)
        assert note in "".join(found.notes)
    assert "expected mm" in input_error(meta(tmp_path / "b.mha", CONTENT, DistanceUnits="inch"))


# -- kinds of files -------------------------------------------------------------------------
@pytest.mark.parametrize("encoding", ["raw", "gzip", "gz", "bzip2", "bz2", "ascii", "text"])
@pytest.mark.parametrize("endian", ["little", "big"])
def test_encodings_of_nrrd(tmp_path, encoding, endian):
    plain = ARRAY.astype(">i2" if endian == "big" else "<i2").tobytes()
    text = " ".join(map(str, ARRAY.ravel())).encode()
    packed = {"r": plain, "g": gzip.compress(plain), "b": bz2.compress(plain), "a": text, "t": text}[encoding[0]]
    fields = (*SIZES[:3], f"endian: {endian}", "spacings: 1 2 3", f"encoding: {encoding}")
    np.testing.assert_array_equal(read_volume(nrrd(tmp_path / "a.nrrd", *fields, content=packed)).array, ARRAY)
    (tmp_path / "daten ü.bin").write_bytes(packed)
    detached = nrrd(tmp_path / "b.nhdr", *fields, "data file: daten ü.bin")
    np.testing.assert_array_equal(read_volume(detached).array, ARRAY)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("MET_UCHAR", "u1"), ("MET_USHORT", "u2"), ("MET_INT", "i4"), ("MET_LONG_LONG", "i8"), ("MET_DOUBLE", "f8")],
)
@pytest.mark.parametrize("msb", [False, True])
def test_kinds_of_numbers_in_metaimage(tmp_path, kind, dtype, msb):
    values = np.arange(210).reshape(7, 6, 5).astype(dtype)
    content = values.astype(values.dtype.newbyteorder(">" if msb else "<")).tobytes()
    for name, packed in (("a.mha", content), ("b.mha", zlib.compress(content))):
        fields = {
            "BinaryDataByteOrderMSB": msb,
            "CompressedData": packed is not content,
            "CompressedDataSize": len(packed),
        }
        path = meta(tmp_path / name, packed, ElementType=kind, **fields)
        np.testing.assert_array_equal(read_volume(path).array, values)
        np.testing.assert_array_equal(read_array(path)[0], sitk.GetArrayFromImage(sitk.ReadImage(str(path))))


def test_metaimage_as_text_and_with_a_header_to_skip(tmp_path):
    text = " ".join(map(str, ARRAY.ravel())).encode()
    np.testing.assert_array_equal(read_volume(meta(tmp_path / "a.mha", text, BinaryData=False)).array, ARRAY)
    (tmp_path / "a.raw").write_bytes(b"x" * 99 + CONTENT)
    for size in (99, -1):
        found = read_volume(meta(tmp_path / "b.mhd", ElementDataFile="a.raw", HeaderSize=size))
        np.testing.assert_array_equal(found.array, ARRAY)
        assert found.notes == ()


@pytest.mark.parametrize(
    "name", ["LIST\ns01.raw\ns02.raw\ns03.raw\ns04.raw\ns05.raw\ns06.raw\ns07.raw", "s%02d.raw 1 7 1"]
)
def test_a_file_for_each_slice(tmp_path, name):
    for k, picture in enumerate(ARRAY, 1):
        (tmp_path / f"s{k:02d}.raw").write_bytes(picture.tobytes())
    np.testing.assert_array_equal(read_volume(meta(tmp_path / "a.mhd", ElementDataFile=name)).array, ARRAY)
    fields = (*SIZES, "spacings: 1 2 3", "encoding: raw", f"data file: {name}")
    np.testing.assert_array_equal(read_volume(nrrd(tmp_path / "a.nhdr", *fields)).array, ARRAY)
    (tmp_path / "s03.raw").unlink()
    assert "s03.raw: the data file is missing" in input_error(tmp_path / "a.mhd")


def test_bytes_behind_the_voxels_are_told(tmp_path):
    (tmp_path / "a.raw").write_bytes(CONTENT + b"12345")
    (note,) = read_volume(meta(tmp_path / "a.mhd", ElementDataFile="a.raw")).notes
    assert note.startswith("5 byte(s) after the voxels were ignored")


# -- more than one volume -------------------------------------------------------------------
def test_a_time_series_is_called_one(tmp_path):
    volume = sitk.GetImageFromArray(ARRAY)
    for suffix in ("nrrd", "mha", "nii"):
        path = tmp_path / f"four.{suffix}"
        sitk.WriteImage(sitk.JoinSeries([volume] * 4), str(path))
        assert (
            "4-dimensional image: a series of 4 volumes (time points, phases, ...), expected one volume; save"
            in input_error(path)
        )
        sitk.WriteImage(sitk.JoinSeries([volume]), str(path))
        np.testing.assert_array_equal(read_volume(path).array, ARRAY)
    fields = ("type: int16", "dimension: 4", "sizes: 2 5 6 7", "kinds: list domain domain domain", "endian: little")
    turn = "space directions: none (1,0,0) (0,2,0) (0,0,3)"  # as Slicer writes a sequence
    path = nrrd(tmp_path / "list.nrrd", *fields, "space: LPS", turn, "encoding: raw", content=CONTENT * 2)
    assert "a series of 2 volumes" in input_error(path)


def test_colours_and_vectors_are_called_so(tmp_path):
    volume = sitk.GetImageFromArray((ARRAY % 256).astype(np.uint8))
    for suffix in ("nrrd", "mha"):
        path = tmp_path / f"colour.{suffix}"
        sitk.WriteImage(sitk.Compose(volume, volume, volume), str(path))
        assert "3 components per voxel (" in input_error(path)
        assert "give the scan itself, in grey values" in input_error(path)


def test_vectors_at_either_end_of_an_nrrd(tmp_path):
    field = np.random.default_rng(0).normal(size=(4, 3, 2, 3)).astype(np.float32)
    fields = ("type: float", "dimension: 4", "endian: little", "encoding: raw", "space: LPS")
    first = ("sizes: 3 2 3 4", "kinds: vector domain domain domain", "space directions: none (1,0,0) (0,2,0) (0,0,3)")
    last = ("sizes: 2 3 4 3", "kinds: domain domain domain vector", "space directions: (1,0,0) (0,2,0) (0,0,3) none")
    found, _ = read_array(nrrd(tmp_path / "a.nrrd", *fields, *first, content=field.tobytes()))
    np.testing.assert_array_equal(found, field)
    found, _ = read_array(nrrd(tmp_path / "b.nrrd", *fields, *last, content=np.moveaxis(field, -1, 0).tobytes()))
    np.testing.assert_array_equal(found, field)


# -- truncated, missing, too much -----------------------------------------------------------
@pytest.mark.parametrize("suffix", ["nrrd", "nii", "mha"])
def test_a_raw_file_that_was_cut_says_how_much_is_there(tmp_path, suffix):
    path = save(tmp_path / f"a.{suffix}")
    path.write_bytes(path.read_bytes()[:-40])
    expected = f"{path}: truncated, {ARRAY.nbytes - 40} of {ARRAY.nbytes} bytes; copy or export it again"
    assert input_error(path) == expected


@pytest.mark.parametrize("suffix", ["nrrd", "nii.gz", "mha"])
def test_a_packed_file_that_was_cut_says_so(tmp_path, suffix):
    array = random_scan(shape=(30, 40, 50)).array
    path = save(tmp_path / f"a.{suffix}", array, compress=True)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    text = input_error(path)
    assert f" of {array.nbytes} bytes; copy or export it again" in text
    assert 0.3 < int(text.split("truncated, ")[1].split()[0]) / array.nbytes < 0.7
    path.write_bytes(whole[:-2])
    assert "checksum is missing" in input_error(path)
    path.write_bytes(whole[: len(whole) // 2] + b"\xff" * 40 + whole[len(whole) // 2 + 40 :])
    assert "damaged" in input_error(path)


@pytest.mark.parametrize("suffix", ["nhdr", "mhd"])
def test_a_data_file_that_is_short_or_missing_is_named(tmp_path, suffix):
    path = save(tmp_path / f"a.{suffix}")
    data = tmp_path / "a.raw"
    data.write_bytes(data.read_bytes()[:100])
    assert input_error(path) == f"{path}: a.raw: truncated, 100 of {ARRAY.nbytes} bytes; copy or export it again"
    data.unlink()
    assert input_error(path) == f"{path}: a.raw: the data file is missing; copy both files into one folder"
    data.mkdir()
    assert "a.raw: the data file is missing" in input_error(path)


def test_nothing_is_printed_beside_the_error(tmp_path):
    path = save(tmp_path / "a.mha", random_scan(shape=(30, 40, 50)).array, compress=True)
    path.write_bytes(path.read_bytes()[:-5000])
    code = "import sys\nfrom ChangeMapJointLib.io.read import read_volume\n"
    code += "try: read_volume(sys.argv[1])\nexcept ValueError: pass"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


@pytest.mark.parametrize(
    "name", ["raw.nrrd", "gzip.nrrd", "bzip2.nrrd", "text.nrrd", "a.mha", "z.mha", "a.nii", "a.nii.gz"]
)
def test_a_header_that_promises_100_gb_costs_nothing(tmp_path, name):
    """The size of the file is looked at before memory is asked for, in what is packed as well."""
    path, size, packed = tmp_path / name, (1200, 1200, 1400), b"\0" * 1000
    if name.endswith("nrrd"):
        kind = name.partition(".")[0]
        packed = {"gzip": gzip.compress, "bzip2": bz2.compress}.get(kind, bytes)(packed)
        fields = ("type: double", "dimension: 3", f"sizes: {size[0]} {size[1]} {size[2]}", "spacings: 1 1 1")
        nrrd(path, *fields, "endian: little", f"encoding: {kind}", content=packed)
    elif name.endswith("mha"):
        packed = zlib.compress(packed) if name == "z.mha" else packed
        sizes = " ".join(map(str, size))
        meta(path, packed, DimSize=sizes, CompressedData=name == "z.mha", ElementType="MET_DOUBLE")
    else:
        nifti(path, np.zeros((5, 5, 5)), dim=(3, *size))
    tracemalloc.start()
    text = input_error(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "truncated" in text
    assert peak < 2**25


def test_a_file_that_unpacks_to_far_more_than_its_voxels(tmp_path):
    bomb = zlib.compress(CONTENT + bytes(2**26))
    tracemalloc.start()
    found = read_volume(meta(tmp_path / "a.mha", bomb, CompressedData=True))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(found.array, ARRAY)
    assert peak < 2**25


def test_a_pipe_is_no_file(tmp_path):
    os = pytest.importorskip("os")
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes here")
    os.mkfifo(tmp_path / "a.nrrd")
    with pytest.raises(InputError, match="neither a file nor a folder"):
        read_volume(tmp_path / "a.nrrd")
    os.mkfifo(tmp_path / "a.raw")
    assert "a.raw: the data file is missing" in input_error(meta(tmp_path / "a.mhd", ElementDataFile="a.raw"))


def test_what_a_damaged_header_holds_is_quoted_on_one_line(tmp_path):
    text = input_error(
        nrrd(
            tmp_path / "a.nrrd",
            *SIZES,
            "spacings: 1 2 3",
            "encoding: \x1b[31m\x00\x85ra\udcff".encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
            content=CONTENT,
        )
    )
    assert text.isprintable()
    (tmp_path / "b.mha").write_bytes(b"ObjectType = \xff\xfe\x1b[0m\nElementDataFile = LOCAL\n")
    assert input_error(tmp_path / "b.mha").isprintable()
