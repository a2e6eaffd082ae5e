"""Where the voxels of a NIfTI file are, and what they are worth."""

from __future__ import annotations

import gzip
from itertools import permutations

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from image_samples import nifti
from phantoms import centred_grid, chest_hu, chest_phantom, input_error, random_scan, rotation, voxel_points
from scipy import ndimage

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import LPS_TO_RAS
from ChangeMapJointLib.core.resample import sample_array
from ChangeMapJointLib.io.nifti import READ_AS_ITK
from ChangeMapJointLib.io.placing import NO_ORIENTATION, find_placement
from ChangeMapJointLib.io.read import read_array, read_volume

RAMP = np.array([3.0, -4.0, 5.0])  # HU per mm


def affine(turn, spacing, origin=(10.0, 20.0, 30.0)) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = np.asarray(turn) * spacing, origin
    return matrix


def quaternion(turn) -> tuple[float, float, float]:
    """b, c and d of a rotation by less than 180 degrees."""
    m = np.asarray(turn)
    a = np.sqrt(1 + np.trace(m)) / 2
    return tuple(float(v) for v in np.array([m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]]) / (4 * a))


def corners(shape) -> np.ndarray:
    return np.array(np.meshgrid(*[(0, n - 1) for n in shape[::-1]])).reshape(3, -1).T


def ramp_file(path, matrix, shape=(9, 20, 16), **options):
    """A file whose values are a linear function of the place that ``matrix`` (RAS) gives them."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")[::-1], -1)
    ras = index @ matrix[:3, :3].T + matrix[:3, 3]
    values = (ras * (-1, -1, 1)) @ RAMP
    return nifti(path, values.astype(np.float32), sform=matrix, **options)


def assert_ramp(volume) -> None:
    """Every voxel that a slice covered has the ramp's value at its place."""
    expected = voxel_points(volume.grid) @ RAMP
    covered = ndimage.binary_erosion(volume.array > -1000, np.ones((1, 3, 3)))  # not mixed with what is outside
    assert covered.sum() > 0.4 * 9 * 20 * 16
    assert np.abs(volume.array - expected)[covered].max() < 0.05


# -- tilted slices --------------------------------------------------------------------------
@pytest.mark.parametrize("qform", ["none", "straight"])
@pytest.mark.parametrize("degrees", [-20.0, 5.0, 12.0])
@pytest.mark.parametrize("height", ["straight up", "along the drift"])
def test_a_tilt_in_sform_is_sheared_straight(tmp_path, qform, degrees, height):
    """As converters leave it: slices as acquired, the drift in sform, a plain qform or none."""
    spacing = (0.8, 0.7, 2.0)
    matrix = affine(np.diag([-1, -1, 1]), spacing, (100.0, 80.0, -50.0))
    straight = matrix.copy()
    matrix[1, 2] = -np.tan(np.radians(degrees)) * 2.0
    length = float(np.linalg.norm(matrix[:3, 2])) if height == "along the drift" else 2.0
    options = {"pixdim": (0.8, 0.7, length)}
    if qform == "straight":
        options |= {"qform": (0.0, 0.0, 1.0, *straight[:3, 3]), "codes": (1, 1)}
    found = read_volume(ramp_file(tmp_path / "a.nii.gz", matrix, **options))
    angle = f"{abs(degrees):.1f}"
    if height == "straight up" or qform == "none":
        assert found.notes == (f"The slices are tilted by {angle} degrees (gantry tilt); the tilt was corrected.",)
    assert found.grid.spacing_mm == pytest.approx(spacing)
    assert_ramp(found)


def test_a_tilted_scan_shows_the_same_points_at_the_same_places(tmp_path):
    """Every slice of a phantom drifts by 1.5 mm; straightened it is the phantom again."""
    grid = centred_grid((20, 60, 70), (3.0, 3.0, 6.0))
    straight = chest_phantom(grid=grid, edge_mm=12.0)
    matrix = LPS_TO_RAS @ grid.affine
    matrix[1, 2] = 1.5
    points = voxel_points(grid)
    points[..., 1] -= 1.5 * np.arange(20)[:, None, None]  # RAS to LPS turns the sign
    stored = np.rint(chest_hu(points, edge_mm=12.0)).astype(np.int16)
    found = read_volume(nifti(tmp_path / "a.nii", stored, pixdim=(3.0, 3.0, 6.0), sform=matrix))
    again = sample_array(found.array, found.grid, voxel_points(grid).reshape(-1, 3)).reshape(grid.shape)
    inner = (slice(None), slice(14, -14), slice(3, -3))
    assert np.abs(again - straight.array)[inner].max() < 60  # of 1000, by interpolation at edges of 12 mm
    assert np.abs(again - straight.array)[inner].mean() < 2


def test_tilts_that_cannot_be_taken_out(tmp_path):
    array = random_scan().array
    within = affine([[1, 0.1, 0], [0, 1, 0], [0, 0, 1]], (1.0, 2.0, 3.0))  # pixels that are no rectangles
    assert "not perpendicular (sheared: " in input_error(nifti(tmp_path / "a.nii", array, sform=within))
    steep = np.diag([1.0, 2.0, 3.0, 1.0])
    steep[0, 2] = 4.0
    length = float(np.linalg.norm(steep[:3, 2]))
    text = input_error(nifti(tmp_path / "b.nii", array, pixdim=(1.0, 2.0, length), sform=steep))
    assert "resample it to a straight grid" in text


def test_a_mask_is_not_sheared(tmp_path):
    matrix = np.diag([1.0, 2.0, 3.0, 1.0])
    matrix[1, 2] = 0.5
    with pytest.raises(InputError, match="not perpendicular"):
        read_array(nifti(tmp_path / "a.nii", random_scan().array, sform=matrix))


# -- rounded axes ---------------------------------------------------------------------------
def test_an_sform_rounded_to_three_decimals_is_straightened(tmp_path):
    """On the size of a whole scan; the voxels stay where the header has them within a tenth of a voxel."""
    shape, spacing = (137, 256, 256), (1.5625, 1.5625, 2.0)
    matrix = np.round(affine(rotation(3, 2, 5), spacing), 3)
    found = find_placement(LPS_TO_RAS @ matrix, shape)
    assert found.shear_mm == (0.0, 0.0)
    assert len(found.notes) == 1
    assert found.notes[0].startswith(
        "The axes in the header are not quite perpendicular; the nearest perpendicular axes were"
    )
    header = corners(shape) @ matrix[:3, :3].T + matrix[:3, 3]
    off_mm = np.linalg.norm(found.grid.to_physical(corners(shape)) - header * (-1, -1, 1), axis=1).max()
    assert off_mm < 0.15
    assert f"{off_mm:.3f} mm off" in found.notes[0]
    direction = np.asarray(found.grid.direction)
    np.testing.assert_allclose(direction.T @ direction, np.eye(3), atol=1e-12)


def test_a_rounded_sform_of_a_file(tmp_path):
    array = random_scan(shape=(40, 40, 40)).array
    matrix = np.round(affine(rotation(20, -10, 15), (0.7, 0.7, 1.25)), 3)
    found = read_volume(nifti(tmp_path / "a.nii", array, pixdim=(0.7, 0.7, 1.25), sform=matrix))
    np.testing.assert_array_equal(found.array, array)
    assert ["nearest" in note for note in found.notes] == [True]
    with pytest.raises(InputError, match=r"not perpendicular \(sheared: .* mm off"):
        find_placement(LPS_TO_RAS @ np.round(matrix, 1), (40, 40, 40))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    angles=st.tuples(*[st.floats(-89, 89)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 5)] * 3),
    order=st.sampled_from(list(permutations(range(3)))),
    signs=st.tuples(*[st.sampled_from([-1, 1])] * 3),
)
def test_straight_axes_in_any_order_and_of_either_hand_are_taken_as_they_are(angles, spacing, order, signs):
    turn = np.asarray(rotation(*angles))[:, order] * signs
    matrix = affine(turn, spacing, (-150.0, 200.0, 1000.0)).astype(np.float32).astype(float)  # as NIfTI-1 holds it
    shape = (60, 512, 500)
    found = find_placement(matrix, shape)
    assert found.notes == ()
    expected = corners(shape) @ matrix[:3, :3].T + matrix[:3, 3]
    np.testing.assert_allclose(found.grid.to_physical(corners(shape)), expected, atol=1e-3)


# -- qform ----------------------------------------------------------------------------------
@pytest.mark.parametrize("qfac", [1.0, -1.0, 0.0])
def test_qform_alone_is_read_as_itk_reads_it(tmp_path, qfac):
    turn = rotation(25, 10, -40)
    path = nifti(
        tmp_path / "a.nii",
        random_scan().array,
        pixdim=(0.7, 0.8, 1.5),
        qform=(*quaternion(turn), 5.0, -6.0, 7.0),
        qfac=qfac,
        codes=(1, 0),
    )
    found, expected = read_volume(path), sitk.ReadImage(str(path))
    np.testing.assert_array_equal(found.array, np.maximum(sitk.GetArrayFromImage(expected), -1024))
    np.testing.assert_allclose(np.asarray(found.grid.direction).ravel(), expected.GetDirection(), atol=1e-6)
    np.testing.assert_allclose(found.grid.origin_mm, expected.GetOrigin(), atol=1e-5)
    assert found.notes == ()


# -- voxel sizes that are none ----------------------------------------------------------------
@pytest.mark.parametrize(
    ("pixdim", "note"),
    [
        ((-1.0, 2.0, 3.0), "negative voxel sizes in pixdim; the position is that of sform"),
        ((1.0, 2.0, -3.0), "negative voxel sizes in pixdim; the position is that of sform"),
        ((1.0, 2.0, 0.0), "no voxel size in pixdim; that of sform was used"),
        ((np.nan, 2.0, 3.0), "no voxel size in pixdim; that of sform was used"),
    ],
)
@pytest.mark.parametrize("codes", [(0, 1), (1, 1)])
@pytest.mark.filterwarnings("ignore")
def test_sform_needs_no_pixdim_as_in_nibabel(tmp_path, pixdim, note, codes):
    """Programs of the Analyze format left negative sizes behind; NIfTI gives them no meaning."""
    turn = rotation(0, 0, 10)
    q = (*quaternion(turn), 10.0, 20.0, 30.0)
    path = nifti(
        tmp_path / "a.nii",
        random_scan().array,
        pixdim=pixdim,
        sform=affine(turn, (1.0, 2.0, 3.0)),
        qform=q,
        codes=codes,
    )
    found = read_volume(path)
    expected = np.diag([-1.0, -1.0, 1.0, 1.0]) @ nib.load(path).affine
    np.testing.assert_allclose(found.grid.affine, expected, atol=1e-5)
    assert len(found.notes) == 1
    assert note in found.notes[0]


@pytest.mark.parametrize("codes", [(0, 0), (1, 0)])
def test_negative_sizes_that_programs_read_differently_are_refused(tmp_path, codes):
    text = input_error(nifti(tmp_path / "a.nii", random_scan().array, pixdim=(-1.0, 2.0, 3.0), codes=codes))
    assert "negative voxel sizes in pixdim, (-1.0, 2.0, 3.0) mm, and no sform" in text
    assert "right and left are unknown, expected three positive numbers; convert the original DICOM again" in text


def test_without_any_position_it_lies_as_in_itk_and_others_are_named(tmp_path):
    path = nifti(tmp_path / "a.nii", random_scan().array, codes=(0, 0))
    found, expected = read_volume(path), sitk.ReadImage(str(path))
    assert np.asarray(found.grid.direction).ravel().tolist() == list(expected.GetDirection())
    assert found.grid.origin_mm == expected.GetOrigin()
    assert found.notes == (NO_ORIENTATION, READ_AS_ITK)
    assert nib.load(path).affine[1, 1] > 0  # RAS: the rows run from back to front, as the note says


def test_two_positions_that_contradict_each_other(tmp_path):
    """sform counts, and the note says by how much the other is off."""
    array, here = random_scan().array, affine(rotation(0, 0, 10), (1.0, 2.0, 3.0))
    q = quaternion(rotation(0, 0, 10))
    agreed = nifti(tmp_path / "a.nii", array, sform=here, qform=(*q, 10.05, 20.0, 30.0), codes=(1, 1))
    assert read_volume(agreed).notes == ()
    moved = read_volume(nifti(tmp_path / "b.nii", array, sform=here, qform=(*q, 10.0, 25.0, 30.0), codes=(1, 1)))
    assert len(moved.notes) == 1
    assert moved.notes[0].startswith("The positions in sform and qform differ by up to 5.0 mm; sform was used")
    assert moved.grid.same_as(read_volume(agreed).grid)


def test_positions_of_either_hand_are_refused(tmp_path):
    """One of them has the patient's left on the right."""
    mirrored = affine(np.diag([-1, 1, 1]), (1.0, 2.0, 3.0))
    path = nifti(tmp_path / "a.nii", random_scan().array, sform=mirrored, qform=(0,) * 6, codes=(1, 1))
    assert "contradict each other about left and right" in input_error(path)


def test_an_sform_that_is_none(tmp_path):
    array, zeros = random_scan().array, np.zeros((4, 4))
    assert "sform in the header is not a position" in input_error(nifti(tmp_path / "a.nii", array, sform=zeros))
    found = read_volume(nifti(tmp_path / "b.nii", array, sform=zeros, codes=(1, 1)))
    assert found.notes == ("The sform in the header is not a position (zeros or no numbers); qform was used.",)
    assert "qform in the header is no" in input_error(nifti(tmp_path / "c.nii", array, qform=(2.0,) * 6, codes=(1, 0)))


# -- versions, packing, units, numbers ------------------------------------------------------
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [False, True])
def test_nifti_2_and_whatever_the_name_says_of_the_packing(tmp_path, order, packed):
    array = random_scan().array
    expected = read_volume(nifti(tmp_path / "plain.nii", array))
    for version in (1, 2):
        for name in ("a.nii", "a.nii.gz"):
            found = read_volume(nifti(tmp_path / name, array, order=order, packed=packed, version=version))
            np.testing.assert_array_equal(found.array, array)
            assert found.grid.same_as(expected.grid)
            assert found.notes == ()


def test_gzip_of_two_parts(tmp_path):
    path = nifti(tmp_path / "a.nii", random_scan().array)
    content = path.read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(content[:400]) + gzip.compress(content[400:]) + b"rubbish")
    np.testing.assert_array_equal(read_volume(tmp_path / "b.nii.gz").array, read_volume(path).array)


@pytest.mark.parametrize(("units", "factor", "name"), [(1, 1000.0, "m"), (3, 0.001, "um"), (10, 1.0, ""), (0, 1.0, "")])
def test_units_of_length(tmp_path, units, factor, name):
    sizes = np.array([1.0, 2.0, 3.0]) / factor
    path = nifti(tmp_path / "a.nii", random_scan().array, pixdim=tuple(sizes), units=units)
    found = read_volume(path)
    assert found.grid.spacing_mm == pytest.approx((1.0, 2.0, 3.0), rel=1e-6)
    assert found.notes == ((f"The header gives lengths in {name}; they were converted to mm.",) if name else ())


@pytest.mark.parametrize("kind", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_kind_of_number(tmp_path, kind, order):
    values = np.arange(105).reshape(7, 5, 3).astype(kind)
    found = read_volume(nifti(tmp_path / "a.nii", values, order=order))
    assert found.array.dtype == np.int16
    np.testing.assert_array_equal(found.array, values)
    assert read_array(tmp_path / "a.nii")[0].dtype == np.dtype(kind)


@pytest.mark.parametrize("slope", [0.0, np.nan])
def test_no_scale_is_none(tmp_path, slope):
    array = random_scan().array
    np.testing.assert_array_equal(read_volume(nifti(tmp_path / "a.nii", array, slope=(slope, 7.0))).array, array)


def test_scales_that_are_no_numbers(tmp_path):
    for slope in ((np.inf, 0.0), (1.0, np.nan)):
        assert "expected numbers" in input_error(nifti(tmp_path / "a.nii", random_scan().array, slope=slope))
    huge = nifti(tmp_path / "b.nii", random_scan().array, slope=(1e38, 0.0))
    assert "NaN or infinite" in input_error(huge)


def test_a_scale_on_fractions(tmp_path):
    array = random_scan().array
    found = read_volume(nifti(tmp_path / "a.nii", array, slope=(0.5, -0.25)))
    assert found.array.dtype == np.float32
    np.testing.assert_allclose(found.array, np.maximum(array * 0.5 - 0.25, -1024))


# -- what is no scan ------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("dim", "datatype", "expected"),
    [
        ((4, 5, 6, 7, 2), None, "4-dimensional image: a series of 2 volumes (time points"),
        ((5, 5, 6, 7, 1, 2), None, "2 components per voxel (vectors), expected one number per voxel"),
        ((6, 5, 6, 7, 1, 1, 2), None, "expected one 3-D volume"),
        ((2, 5, 42), None, "2-dimensional image"),
        ((0, 5, 6, 7), None, "0 dimensions in the header"),
        ((3, 5, 6, -7), None, "size (5, 6, -7), expected"),
        (None, 128, "voxels are colours (RGB), expected one number"),
        (None, 32, "voxels are complex numbers"),
        (None, 77, "voxels are datatype 77"),
    ],
)
def test_headers_of_other_images(tmp_path, dim, datatype, expected):
    array = np.zeros((14, 6, 5), dtype=np.int16)
    assert expected in input_error(nifti(tmp_path / "a.nii.gz", array, dim=dim, datatype=datatype))


@pytest.mark.parametrize("dim", [(4, 5, 6, 7, 1), (5, 5, 6, 7, 1, 1), (7, 5, 6, 7, 1, 1, 1, 1)])
def test_one_time_point_is_a_volume(tmp_path, dim):
    array = random_scan().array
    np.testing.assert_array_equal(read_volume(nifti(tmp_path / "a.nii", array, dim=dim)).array, array)


def test_vectors_of_a_field(tmp_path):
    """NIfTI keeps each component as a volume of its own."""
    field = np.random.default_rng(0).normal(size=(3, 4, 3, 2)).astype(np.float32)
    found, _ = read_array(nifti(tmp_path / "a.nii", field.reshape(12, 3, 2), dim=(5, 2, 3, 4, 1, 3)))
    np.testing.assert_array_equal(found, np.moveaxis(field, 0, -1))


def test_marks_of_other_formats(tmp_path):
    content = nifti(tmp_path / "a.nii", random_scan().array).read_bytes()
    for mark, expected in ((b"ni1\0", "voxels are in another file (.img)"), (b"\0\0\0\0", "not a NIfTI file (mark")):
        (tmp_path / "b.nii").write_bytes(content[:344] + mark + content[348:])
        assert expected in input_error(tmp_path / "b.nii")


@pytest.mark.parametrize("packed", [False, True])
def test_a_header_of_100_gb(tmp_path, packed):
    """Refused by the size of the file, before memory is asked for."""
    small = random_scan().array
    path = nifti(tmp_path / "a.nii", small, dim=(3, 1200, 1200, 1400), packed=packed)
    assert f"truncated, {small.nbytes} of {1200 * 1200 * 1400 * 2} bytes; copy or export it again" in input_error(path)
    assert "expected 1 to" in input_error(nifti(path, small, dim=(3, 4000, 4000, 4000), packed=packed))
