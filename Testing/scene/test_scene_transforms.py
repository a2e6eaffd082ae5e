"""Transform nodes map RAS points as y(x) does."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from scene_samples import AFFINE, GRID, grid_with, rotation

from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import apply_affine, lps_to_ras
from ChangeMapJointLib.io.write import write_displacement, write_nrrd, write_rigid
from ChangeMapJointLib.scene.transforms import displacement, grid_transform, linear_transform, map_point

GRIDS = {"axial": GRID, "oblique": grid_with(rotation((15, -25, 40))), "flipped": grid_with(np.diag([-1.0, 1.0, -1.0]))}


def wavy(grid) -> DisplacementField:
    rng = np.random.default_rng(1)
    return DisplacementField(rng.normal(0, 4, (*grid.shape, 3)).astype(np.float32), grid)


def inside(grid, count=20) -> np.ndarray:
    """Points in the grid's box, LPS."""
    rng = np.random.default_rng(2)
    return grid.to_physical(rng.uniform(0, np.array(grid.size) - 1, (count, 3)))


@pytest.mark.parametrize("name", GRIDS)
def test_an_affine_field_maps_in_closed_form(scene, name):
    grid = GRIDS[name]
    node = grid_transform(DisplacementField.from_affine(AFFINE, grid), "u")
    for point in inside(grid):
        expected = lps_to_ras(apply_affine(AFFINE, point))
        np.testing.assert_allclose(map_point(node, lps_to_ras(point)), expected, atol=2e-4)


@pytest.mark.parametrize("name", GRIDS)
def test_any_field_maps_as_the_library_does_also_from_its_file(scene, name, tmp_path):
    field = wavy(GRIDS[name])
    write_displacement(tmp_path / "u.nrrd", field)
    for node in (grid_transform(field, "u"), grid_transform(tmp_path / "u.nrrd", "u")):
        for point in inside(field.grid):
            expected = lps_to_ras(field.apply(point[None])[0])
            np.testing.assert_allclose(map_point(node, lps_to_ras(point)), expected, atol=1e-3)


def test_slicers_own_reader_agrees_at_the_voxels(scene, tmp_path):
    field = wavy(GRIDS["oblique"])
    write_displacement(tmp_path / "u.nrrd", field)
    storage, theirs = slicer.vtkMRMLTransformStorageNode(), slicer.vtkMRMLTransformNode()
    storage.SetFileName(str(tmp_path / "u.nrrd"))
    assert storage.ReadData(theirs)
    ours = grid_transform(tmp_path / "u.nrrd", "u")
    point = lps_to_ras(field.grid.to_physical((4, 3, 2)))
    np.testing.assert_allclose(theirs.GetTransformFromParent().TransformPoint(point), map_point(ours, point), atol=1e-3)


def test_the_border_is_repeated_outside(scene):
    field = wavy(GRID)
    node = grid_transform(field, "u")
    outside = GRID.to_physical((-9, 4, 30))
    expected = lps_to_ras(field.apply(outside[None])[0])
    np.testing.assert_allclose(map_point(node, lps_to_ras(outside)), expected, atol=1e-3)


def test_a_template_under_the_node_is_moved_onto_the_reference(scene):
    node = grid_transform(DisplacementField.from_affine(AFFINE, GRID), "u")
    x = lps_to_ras(GRID.centre_mm)
    y = map_point(node, x)
    np.testing.assert_allclose(node.GetTransformToParent().TransformPoint(y), x, atol=1e-2)


def test_the_rigid_part_maps_in_closed_form(scene, tmp_path):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation((3, -4, 5)), (7, -8, 9)
    write_rigid(tmp_path / "rigid.tfm", matrix)
    node = linear_transform(tmp_path / "rigid.tfm", "rigid")
    assert node.IsA("vtkMRMLLinearTransformNode")
    np.testing.assert_allclose(
        map_point(node, (11, 12, 13)), lps_to_ras(apply_affine(matrix, (-11, -12, 13))), atol=1e-9
    )


def test_files_of_another_kind_are_refused(scene, tmp_path):
    write_nrrd(tmp_path / "map.nrrd", np.zeros(GRID.shape, np.float32), GRID)
    with pytest.raises(InputError, match="three-vectors"):
        grid_transform(tmp_path / "map.nrrd", "u")
    (tmp_path / "rigid.tfm").write_text("#nothing")
    with pytest.raises(InputError, match="linear"):
        linear_transform(tmp_path / "rigid.tfm", "rigid")


@pytest.mark.parametrize("name", GRIDS)
def test_displacement_is_the_length_of_u(scene, name):
    field = wavy(GRIDS[name])
    size, grid = displacement(grid_transform(field, "u"))
    assert grid.same_as(field.grid)
    np.testing.assert_allclose(size, np.linalg.norm(field.vectors_mm, axis=-1), rtol=1e-5)
