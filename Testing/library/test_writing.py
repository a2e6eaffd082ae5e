"""Writing volumes, displacement fields and rigid transforms: read back by other programs' libraries."""

from __future__ import annotations

import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
from phantoms import centred_grid, random_scan, rotation

from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.io.read import read_array, read_volume
from ChangeMapJointLib.io.write import (
    atomic_path,
    read_displacement,
    read_rigid,
    write_displacement,
    write_nrrd,
    write_rigid,
)

OBLIQUE = rotation(10, -20, 30)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64, ">i2"])
@pytest.mark.parametrize("compress", [True, False])
def test_simpleitk_reads_what_was_written(tmp_path, dtype, compress):
    scan = random_scan(OBLIQUE)
    array = (scan.array > 0 if dtype is bool else np.abs(scan.array) % 200).astype(dtype)
    path = tmp_path / "Änderung 1.nrrd"
    write_nrrd(path, array, scan.grid, compress=compress)
    image = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), array.astype(np.uint8) if dtype is bool else array)
    assert Grid.of_image(image).same_as(scan.grid, tolerance_mm=1e-9)
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_pynrrd_reads_what_was_written(tmp_path):
    scan = random_scan()
    array = np.asfortranarray(scan.array)[:, ::-1]  # memory in any order
    metadata = {"made by": "a test", "two lines": "one\ntwo"}
    write_nrrd(tmp_path / "a.nrrd", array, scan.grid, metadata=metadata)
    found, header = nrrd.read(str(tmp_path / "a.nrrd"), index_order="C")
    np.testing.assert_array_equal(found, array)
    assert (header["space"], header["encoding"], header["made by"]) == ("left-posterior-superior", "gzip", "a test")
    np.testing.assert_allclose(header["space directions"], np.diag(scan.grid.spacing_mm))


def test_the_same_volume_gives_the_same_bytes(tmp_path):
    scan = random_scan()
    for name in ("a.nrrd", "b.nrrd"):
        write_nrrd(tmp_path / name, scan.array.astype(np.float32), scan.grid)
    assert (tmp_path / "a.nrrd").read_bytes() == (tmp_path / "b.nrrd").read_bytes()


def test_slabs_of_a_large_volume_join(tmp_path, monkeypatch):
    monkeypatch.setattr("ChangeMapJointLib.io.write.SLAB_BYTES", 100)
    scan = random_scan()
    write_nrrd(tmp_path / "a.nrrd", scan.array, scan.grid)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nrrd").array, scan.array)


def test_arrays_that_do_not_fit_are_refused(tmp_path):
    scan = random_scan()
    for array in (scan.array[1:], scan.array.astype(np.complex64), scan.array.astype(np.int64)):
        with pytest.raises(ValueError, match="'array' must"):
            write_nrrd(tmp_path / "a.nrrd", array, scan.grid)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.nrrd"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as temporary:  # noqa: PT012
        assert (temporary.parent, temporary.suffix) == (tmp_path, ".nrrd")
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["a.nrrd"]
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert [item.name for item in tmp_path.iterdir()] == ["a.nrrd"]


def test_places_that_cannot_be_written_to_are_named(tmp_path):
    scan = random_scan()
    (tmp_path / "file").write_text("")
    for folder in ("missing", "file"):
        with pytest.raises(InputError, match="cannot be written"):
            write_nrrd(tmp_path / folder / "a.nrrd", scan.array, scan.grid)
        with pytest.raises(InputError, match="cannot be written"):
            write_rigid(tmp_path / folder / "a.tfm", np.eye(4))
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


# -- displacement fields --------------------------------------------------------------------
def field() -> DisplacementField:
    grid = centred_grid((5, 6, 7), (2.0, 3.0, 4.0), centre_mm=(10.0, -20.0, 300.0), direction=OBLIQUE)
    vectors = np.random.default_rng(0).normal(0.0, 5.0, (5, 6, 7, 3)).astype(np.float32)
    return DisplacementField(vectors, grid)


def test_a_displacement_field_has_slicers_header_and_comes_back(tmp_path):
    expected = field()
    write_displacement(tmp_path / "u.nrrd", expected)
    _, header = nrrd.read(str(tmp_path / "u.nrrd"))
    assert header["kinds"] == ["vector", "domain", "domain", "domain"]
    assert header["displacement field type"] == "resampling"
    assert (header["intent_code"], header["type"], header["space"]) == ("1006", "float", "left-posterior-superior")
    found = read_displacement(tmp_path / "u.nrrd")
    np.testing.assert_array_equal(found.vectors_mm, expected.vectors_mm)
    assert found.grid.same_as(expected.grid, tolerance_mm=1e-9)


def breathing(shape=(21, 16, 30)) -> DisplacementField:
    """A smooth motion of 6 mm on an oblique grid, with axes of odd and of even length."""
    grid = centred_grid(shape, (1.5, 2.0, 2.5), centre_mm=(10.0, -20.0, 300.0), direction=OBLIQUE)
    z, y, x = np.indices(shape) / np.reshape(np.array(shape) - 1.0, (3, 1, 1, 1))
    waves = np.stack([np.sin(3 * x + y), np.cos(2 * y + z), 2 * np.sin(2.5 * z + x)], -1)
    return DisplacementField((3 * waves).astype(np.float32), grid)


def test_a_smooth_field_is_stored_in_a_twelfth_and_comes_back(tmp_path):
    expected = breathing()
    whole, thin = tmp_path / "whole.nrrd", tmp_path / "thin.nrrd"
    write_displacement(whole, expected)
    write_displacement(thin, expected, lungs=np.ones(expected.grid.shape, dtype=bool))
    assert thin.stat().st_size < whole.stat().st_size / 6
    found = read_displacement(thin)
    assert np.linalg.norm(found.vectors_mm - expected.vectors_mm, axis=-1).max() < 0.02
    assert found.grid.shape == expected.grid.shape
    assert found.grid.same_as(expected.grid, tolerance_mm=1e-9)
    stored, header = nrrd.read(str(thin))  # what other programs see: vectors in mm on every second voxel
    assert (header["type"], header["displacement field type"]) == ("float", "resampling")
    kept = expected.vectors_mm[::2, ::2, ::2]
    np.testing.assert_allclose(stored.transpose(3, 2, 1, 0)[:11, :8, :15], kept, atol=0.002)


def test_only_a_smooth_field_is_thinned_and_only_the_lungs_are_exact(tmp_path):
    smooth, lungs = breathing(), np.zeros((21, 16, 30), dtype=bool)
    lungs[:, :, :15] = True
    for bend_mm, side, thinned in ((0.1, 20, True), (0.1, 9, False), (2.0, 20, False)):
        vectors = smooth.vectors_mm.copy()
        vectors[10, 7, side] += bend_mm
        write_displacement(tmp_path / "u.nrrd", DisplacementField(vectors, smooth.grid), lungs=lungs)
        assert (read_array(tmp_path / "u.nrrd")[0].shape[:3] != smooth.grid.shape) is thinned
        error = np.linalg.norm(read_displacement(tmp_path / "u.nrrd").vectors_mm - vectors, axis=-1)
        assert error[lungs].max() < 0.02
        assert error.max() < 0.25


def test_a_thinned_field_with_a_damaged_header_is_refused(tmp_path):
    write_displacement(tmp_path / "u.nrrd", breathing(), lungs=np.ones((21, 16, 30), dtype=bool))
    content = (tmp_path / "u.nrrd").read_bytes()
    for words in (b"99 16 21", b"30 16", b"-30 16 21", b"30 16 21 4"):
        (tmp_path / "u.nrrd").write_bytes(content.replace(b"30 16 21", words))
        with pytest.raises(InputError, match="do not belong to"):
            read_displacement(tmp_path / "u.nrrd")


def test_rounded_maps_differ_by_half_a_step_and_are_smaller(tmp_path):
    values = np.random.default_rng(3).random((8, 30, 30), dtype=np.float32)
    grid = centred_grid(values.shape, (1.0, 1.0, 1.0))
    write_nrrd(tmp_path / "a.nrrd", values, grid)
    write_nrrd(tmp_path / "b.nrrd", values, grid, step=2.0**-12)
    found = read_array(tmp_path / "b.nrrd")[0]
    assert found.dtype == np.float32
    assert np.abs(found - values).max() <= 2.0**-13
    assert (tmp_path / "b.nrrd").stat().st_size < 0.75 * (tmp_path / "a.nrrd").stat().st_size


def test_itk_maps_points_with_the_field_as_we_do(tmp_path):
    """SimpleITK's DisplacementFieldTransform is the resampling transform y(x) = x + u(x)."""
    expected = field()
    write_displacement(tmp_path / "u.nrrd", expected)
    transform = sitk.DisplacementFieldTransform(sitk.ReadImage(str(tmp_path / "u.nrrd"), sitk.sitkVectorFloat64))
    points = expected.grid.to_physical(np.random.default_rng(1).uniform(0.1, 3.9, (20, 3)))
    for point, moved in zip(points, expected.apply(points), strict=True):
        np.testing.assert_allclose(transform.TransformPoint(point.tolist()), moved, atol=1e-3)


def test_a_scalar_volume_is_no_displacement_field(tmp_path):
    scan = random_scan()
    write_nrrd(tmp_path / "a.nrrd", scan.array, scan.grid)
    with pytest.raises(InputError, match="three-vectors"):
        read_displacement(tmp_path / "a.nrrd")
    assert read_array(tmp_path / "a.nrrd")[0].ndim == 3


# -- rigid transforms -----------------------------------------------------------------------
def test_a_rigid_transform_maps_reference_to_template_points_in_itk(tmp_path):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = OBLIQUE, (8.0, -5.0, 12.0)
    write_rigid(tmp_path / "rigid.tfm", matrix)
    transform = sitk.ReadTransform(str(tmp_path / "rigid.tfm"))
    for point in ((0.0, 0.0, 0.0), (100.0, -50.0, 900.0)):
        np.testing.assert_allclose(transform.TransformPoint(point), matrix[:3, :3] @ point + matrix[:3, 3], atol=1e-9)
    np.testing.assert_allclose(read_rigid(tmp_path / "rigid.tfm"), matrix, atol=1e-9)


def test_itks_own_rigid_transforms_are_read(tmp_path):
    euler = sitk.Euler3DTransform((1.0, 2.0, 3.0), 0.1, -0.2, 0.3, (4.0, 5.0, 6.0))
    sitk.WriteTransform(euler, str(tmp_path / "euler.tfm"))
    matrix = read_rigid(tmp_path / "euler.tfm")
    np.testing.assert_allclose(matrix[:3, :3] @ (7, 8, 9) + matrix[:3, 3], euler.TransformPoint((7, 8, 9)), atol=1e-9)
    (tmp_path / "junk.tfm").write_text("junk")
    with pytest.raises(InputError, match="not a readable ITK transform"):
        read_rigid(tmp_path / "junk.tfm")
    sitk.WriteTransform(sitk.BSplineTransform(3), str(tmp_path / "spline.tfm"))
    with pytest.raises(InputError, match="expected a linear transform"):
        read_rigid(tmp_path / "spline.tfm")
    with pytest.raises(ValueError, match="4x4"):
        write_rigid(tmp_path / "a.tfm", np.eye(3))
