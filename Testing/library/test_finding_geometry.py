"""Findings: orientation, frames, resolution and masks do not change what is found."""

from __future__ import annotations

import numpy as np
import pytest
from finding_samples import CENTRE, compare, labels_of, only, pair
from lung_shapes import OBLIQUE, SAGITTAL, ball_ml, cube, scan
from phantoms import Sphere, voxel_points

from ChangeMapJointLib.change.lesion_pairs import local_motions
from ChangeMapJointLib.change.regions import Region
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.grid import Matrix3, Vector3, apply_affine


@pytest.mark.parametrize(
    ("spacing_mm", "direction"),
    [((1.5, 1.5, 1.5), SAGITTAL), ((1.5, 1.5, 1.5), OBLIQUE), ((1.0, 1.0, 2.5), OBLIQUE)],
    ids=["sagittal", "oblique", "oblique thick slices"],
)
def test_the_orientation_of_the_arrays_does_not_matter(spacing_mm: Vector3, direction: Matrix3) -> None:
    lesions = [Sphere(CENTRE, 6.5)], [Sphere(CENTRE, 4.0)]
    straight = only(pair(*lesions, grid=cube(spacing_mm)))
    turned = only(pair(*lesions, grid=cube(spacing_mm, direction=direction)))
    assert straight.kind == turned.kind == "grown"
    np.testing.assert_allclose(turned.centre_mm, straight.centre_mm, atol=0.7)
    assert turned.volume_ml == pytest.approx(straight.volume_ml, rel=0.15)
    assert turned.long_diameter_mm == pytest.approx(straight.long_diameter_mm, abs=1.5)
    for a, b in (
        (turned.lesion_reference, straight.lesion_reference),
        (turned.lesion_template, straight.lesion_template),
    ):
        assert a is not None
        assert b is not None
        assert a.volume_ml == pytest.approx(b.volume_ml, rel=0.05)
        assert a.long_diameter_mm == pytest.approx(b.long_diameter_mm, abs=1.0)


def test_scans_in_different_frames_and_resolutions() -> None:
    # the template is turned, shifted by (30, -20, 50) mm, and stored in another orientation at other spacings
    a = np.radians(8.0)
    matrix = np.eye(4)
    matrix[:3, :3] = [[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]
    matrix[:3, 3] = (30.0, -20.0, 50.0)
    grown, gone = np.array([-10.0, 4.0, 3.0]), np.array([11.0, -6.0, -5.0])
    to_template = lambda p: tuple(matrix[:3, :3] @ p + matrix[:3, 3])  # noqa: E731
    reference = scan(cube(), Sphere(tuple(grown), 6.5), noise_hu=15.0)
    template = scan(
        cube((1.2, 1.2, 2.0), edge_mm=72, centre_mm=(30.0, -20.0, 50.0), direction=SAGITTAL),
        Sphere(to_template(grown), 4.0),
        Sphere(to_template(gone), 5.0),
        noise_hu=15.0,
    )
    coarse = reference.grid.with_spacing((12.0, 12.0, 12.0))
    found = compare(reference, template, field=DisplacementField.from_affine(matrix, coarse))
    assert {f.kind for f in found.items} == {"grown", "resolved"}
    for finding in found.items:
        centre = grown if finding.kind == "grown" else gone
        np.testing.assert_allclose(finding.centre_mm, centre, atol=1.0)
        np.testing.assert_allclose(finding.centre_template_mm, to_template(np.array(finding.centre_mm)), atol=1e-3)
        assert finding.lesion_template is not None
        np.testing.assert_allclose(finding.lesion_template.centre_mm, to_template(centre), atol=0.5)
        assert finding.lesion_template.volume_ml == pytest.approx(
            ball_ml(4.0 if finding.kind == "grown" else 5.0), rel=0.08
        )


def test_a_mapping_that_stretches_the_prior_lesion_does_not_change_its_volume() -> None:
    # y(x) = c + 0.75 (x - c): in the warped template the lesion of 4 mm has a radius of 5.3 mm
    c = np.array(CENTRE)
    matrix = np.diag([0.75, 0.75, 0.75, 1.0])
    matrix[:3, 3] = 0.25 * c
    grid = cube()
    field = DisplacementField.from_affine(matrix, grid)
    found = only(pair([Sphere(CENTRE, 7.5)], [Sphere(CENTRE, 4.0)], grid, field=field))
    assert found.kind == "grown"
    assert found.lesion_template is not None
    assert found.lesion_template.volume_ml == pytest.approx(ball_ml(4.0), rel=0.05)


def test_a_mask_that_cuts_off_a_nodule_is_completed_by_the_other_scans() -> None:
    grid, shift = cube(), np.array([40.0, 0.0, 0.0])
    reference = scan(grid, Sphere(CENTRE, 6.0))
    template = scan(cube(centre_mm=(40.0, 0.0, 0.0)), Sphere(tuple(CENTRE + shift), 4.0))
    cut, whole = labels_of(reference), labels_of(template)
    cut[voxel_points(grid)[..., 1] > CENTRE[1] + 1.0] = 0  # nearly half of the nodule
    matrix = np.eye(4)
    matrix[:3, 3] = shift
    found = only(compare(reference, template, field=DisplacementField.from_affine(matrix, grid), lungs=(cut, whole)))
    assert found.kind == "grown"
    assert found.lesion_reference is not None
    assert found.lesion_reference.volume_ml == pytest.approx(ball_ml(6.0), rel=0.05)


def test_the_local_motion_of_an_affine_field_is_that_map() -> None:
    matrix = np.eye(4)
    matrix[:3] = [[0.9, 0.1, 0.0, 12.0], [-0.1, 1.1, 0.05, -7.0], [0.0, 0.1, 0.95, 30.0]]
    region = Region(1, np.add(np.argwhere(np.ones((3, 3, 3))), (14, 15, 16)), np.ones(27, dtype=np.float32))
    grid = cube()
    (motion,) = local_motions([region], grid, DisplacementField.from_affine(matrix, grid))
    points = region.points_mm(grid)
    np.testing.assert_allclose(motion.to_template(points), apply_affine(matrix, points), atol=1e-3)
    np.testing.assert_allclose(motion.to_reference(apply_affine(matrix, points)), points, atol=1e-3)


def test_a_torn_field_leaves_the_shift() -> None:
    matrix = np.diag([-1.0, 1.0, 1.0, 1.0])  # mirrored
    region = Region(1, np.add(np.argwhere(np.ones((3, 3, 3))), (14, 15, 16)), np.ones(27, dtype=np.float32))
    grid = cube()
    (motion,) = local_motions([region], grid, DisplacementField.from_affine(matrix, grid))
    middle = region.points_mm(grid).mean(axis=0, keepdims=True)
    np.testing.assert_allclose(motion.to_template(middle), apply_affine(matrix, middle), atol=1e-3)
    np.testing.assert_allclose(motion.matrix[:3, :3], np.eye(3))


def test_what_leaves_the_templates_field_of_view_is_no_change() -> None:
    reference = scan(cube(), Sphere((-18.0, 0.0, 0.0), 4.0), Sphere((12.0, 0.0, 0.0), 4.0))
    template = scan(cube(edge_mm=30, centre_mm=(9.0, 0.0, 0.0)))  # from x = -6 mm on
    found = only(compare(reference, template))
    assert found.kind == "new"
    assert found.centre_mm[0] == pytest.approx(12.0, abs=0.5)
