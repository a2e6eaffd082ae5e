"""Findings: components, what is merged, what is named and what is not, on closed-form pairs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from lung_shapes import OBLIQUE, SAGITTAL, Shape, Tube, Wall, ball_ml, cube, inside, scan
from phantoms import Sphere, voxel_points

from ChangeMapJointLib.change.counterpart import local_motions
from ChangeMapJointLib.change.findings import Finding, FindingOptions, Findings, find_changes
from ChangeMapJointLib.change.maps import change_map, signed_change
from ChangeMapJointLib.change.regions import Region
from ChangeMapJointLib.core.displacement import DisplacementField, warp
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import Grid, Matrix3, Vector3, apply_affine
from ChangeMapJointLib.volumes.volume import Volume

CENTRE: Vector3 = (0.4, -0.9, 0.6)
FAINT = FindingOptions(threshold=0.3)
EMPTY = Grid((12, 12, 12))


def labels_of(volume: Volume, wall: Wall | None = None) -> np.ndarray:
    """Right lung where x < 0, left elsewhere (LPS: x grows to the patient's left)."""
    points = voxel_points(volume.grid)
    labels = np.where(points[..., 0] < 0, 1, 2).astype(np.uint8)
    if wall is not None:
        labels[inside(wall, points)] = 0
    return labels


def compare(
    reference: Volume,
    template: Volume,
    *,
    field: DisplacementField | None = None,
    wall: Wall | None = None,
    lungs: tuple[np.ndarray, np.ndarray] | None = None,
    trust: Any = None,
    options: FindingOptions | None = None,
) -> Findings:
    """Maps and findings of a pair whose registration is given (identity by default)."""
    grid = reference.grid
    field = field or DisplacementField.from_affine(np.eye(4), grid)
    lungs_r, lungs_t = lungs or (labels_of(reference, wall), labels_of(template, wall))
    moved = warp(template.array, template.grid, grid, field, outside=np.nan)
    union = (lungs_r > 0) | (warp(lungs_t > 0, template.grid, grid, field) >= 0.5)
    return find_changes(
        change_map(reference.array, moved, union),
        signed_change(reference.array, moved),
        grid,
        reference=reference,
        template=template,
        field=field,
        reference_lungs=lungs_r,
        template_lungs=lungs_t,
        trust=trust,
        options=options,
    )


def pair(now: list[Shape], before: list[Shape], grid: Grid | None = None, **kwargs: Any) -> Findings:
    grid = grid or cube()
    reference = scan(grid, *now, noise_hu=15.0, seed=1)
    return compare(reference, scan(grid, *before, noise_hu=15.0, seed=2), **kwargs)


def only(findings: Findings) -> Finding:
    assert len(findings.items) == 1
    return findings.items[0]


def on_map(*spots: tuple[tuple[int, int, int], float], options: FindingOptions) -> Findings:
    """Findings of a hand-made map over empty lung: voxel (z, y, x) and signed value."""
    values = np.zeros(EMPTY.shape, dtype=np.float32)
    for voxel, value in spots:
        values[voxel] = value
    lung = Volume(np.full(EMPTY.shape, -850, dtype=np.int16), EMPTY)
    return find_changes(
        np.abs(values),
        (1050 * values).astype(np.int16),
        EMPTY,
        reference=lung,
        template=lung,
        field=DisplacementField.from_affine(np.eye(4), EMPTY),
        reference_lungs=np.ones(EMPTY.shape, np.uint8),
        template_lungs=np.ones(EMPTY.shape, np.uint8),
        options=options,
    )


# -- components -----------------------------------------------------------------------
@pytest.mark.parametrize(("connectivity", "joined"), [(6, False), (18, False), (26, True)])
def test_two_voxels_that_touch_by_a_corner(connectivity: int, joined: bool) -> None:
    options = FindingOptions(min_voxels=2, connectivity=connectivity)
    found = on_map(((5, 5, 5), 0.9), ((6, 6, 6), 0.8), options=options)
    assert [f.voxels for f in found.items] == ([2] if joined else [])


@pytest.mark.parametrize(("connectivity", "joined"), [(6, False), (18, True), (26, True)])
def test_two_voxels_that_touch_by_an_edge(connectivity: int, joined: bool) -> None:
    options = FindingOptions(min_voxels=2, connectivity=connectivity)
    found = on_map(((5, 5, 5), 0.9), ((5, 6, 6), 0.8), options=options)
    assert [f.voxels for f in found.items] == ([2] if joined else [])


def test_components_below_five_voxels_are_dropped() -> None:
    row = [((4, 4, x), 0.7) for x in range(2, 6)]
    assert on_map(*row, options=FindingOptions()).items == ()
    found = only(on_map(*row, ((4, 4, 6), 0.95), options=FindingOptions()))
    assert found.voxels == 5
    assert found.volume_ml == pytest.approx(0.005)
    assert found.peak == pytest.approx(0.95)
    assert found.peak_hu == pytest.approx(997, abs=1)
    assert found.centre_mm == pytest.approx((4, 4, 4))
    assert (found.long_diameter_mm, found.perpendicular_diameter_mm) == pytest.approx((5, 1))
    assert found.elongation == pytest.approx(5)


def test_the_threshold_itself_counts() -> None:
    row = [((4, 4, x), 0.68) for x in range(5)]
    assert len(on_map(*row, options=FindingOptions(threshold=0.68)).items) == 1
    assert on_map(*row, options=FindingOptions(threshold=0.6801)).items == ()


def test_increase_and_decrease_stay_apart() -> None:
    up = [((4, 4, x), 0.8) for x in range(6)]
    down = [((4, 5, x), -0.9) for x in range(5)]
    found = on_map(*up, *down, options=FindingOptions())
    assert [(f.kind, f.voxels) for f in found.items] == [("increase", 6), ("decrease", 5)]
    assert found.items[1].peak_hu < 0 < found.items[0].peak_hu


def gap(width: int, value: float) -> list[tuple[tuple[int, int, int], float]]:
    """Two rows of five voxels with ``width`` voxels of another value between."""
    ends = [((y, 4, 4), 0.8) for y in (*range(5), *range(5 + width, 10 + width)) if y < 12]
    return ends + [((5 + w, 4, 4), value) for w in range(width)]


@pytest.mark.parametrize(
    ("spots", "merge_mm", "count"),
    [
        (gap(2, 0.45), 4.0, 1),  # bridged: 0.45 >= 0.6 * 0.68
        (gap(2, 0.45), 1.0, 2),  # too far for the bridge
        (gap(2, 0.45), 0.0, 2),
        (gap(2, 0.35), 4.0, 2),  # too weak
        (gap(2, -0.45), 4.0, 2),  # of the other sign
    ],
)
def test_fragments_are_joined_over_a_near_bridge_of_weaker_change(spots: Any, merge_mm: float, count: int) -> None:
    found = on_map(*spots, options=FindingOptions(merge_mm=merge_mm))
    assert len(found.items) == count
    assert sum(f.voxels for f in found.items) == 10  # the bridge itself is no finding


def test_order_ids_labels_and_the_number_of_findings_kept() -> None:
    rows = [((2 * y, 2 * y, x), 0.7 + 0.02 * y) for y in range(6) for x in range(5 + y)]
    found = on_map(*rows, options=FindingOptions(merge_mm=0, max_findings=4))
    assert [f.voxels for f in found.items] == [10, 9, 8, 7]
    assert [f.id for f in found.items] == [1, 2, 3, 4]
    assert found.dropped == 2
    assert found.labels.dtype == np.int32
    assert np.bincount(found.labels.ravel())[1:].tolist() == [10, 9, 8, 7]
    weights = [f.volume_ml * f.peak for f in found.items]
    assert weights == sorted(weights, reverse=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 0.0},
        {"threshold": 1.2},
        {"threshold": float("nan")},
        {"proven_threshold": 0.7},
        {"min_voxels": 0},
        {"connectivity": 8},
        {"merge_mm": -1.0},
        {"max_findings": 0},
    ],
)
def test_options_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        FindingOptions(**wrong)  # type: ignore[arg-type]


def test_arrays_of_another_shape_are_refused() -> None:
    volume = scan(cube(edge_mm=18))
    labels = labels_of(volume)
    arguments: dict[str, Any] = {
        "reference": volume,
        "template": volume,
        "field": DisplacementField.from_affine(np.eye(4), volume.grid),
        "reference_lungs": labels,
        "template_lungs": labels,
    }
    flat = np.zeros(volume.grid.shape, dtype=np.float32)
    with pytest.raises(ValueError, match="signed_hu"):
        find_changes(flat, flat[1:], volume.grid, **arguments)
    with pytest.raises(ValueError, match="template_lungs"):
        find_changes(flat, flat, volume.grid, **{**arguments, "template_lungs": labels[1:]})


# -- kinds ----------------------------------------------------------------------------
def test_a_scan_against_itself_has_no_findings() -> None:
    volume = scan(cube(), Sphere(CENTRE, 6.0), Tube(CENTRE, (0.2, 1, 0.3), 2.0), noise_hu=20.0)
    found = compare(volume, volume, options=FindingOptions(threshold=0.05))
    assert found.items == ()
    assert not found.labels.any()
    assert found.dropped == 0


def test_a_new_lesion() -> None:
    found = only(pair([Sphere(CENTRE, 4.0)], []))
    assert found.kind == "new"
    assert found.lesion_template is None
    assert found.lesion_reference is not None
    assert found.lesion_reference.volume_ml == pytest.approx(ball_ml(4.0), rel=0.06)
    assert found.lesion_reference.long_diameter_mm == pytest.approx(8.0, abs=1.5)
    assert found.peak == pytest.approx(0.848, abs=0.08)
    assert found.peak_hu == pytest.approx(890, abs=80)
    np.testing.assert_allclose(found.centre_mm, CENTRE, atol=0.5)
    assert found.volume_ml < ball_ml(4.0)  # the blurred surface stays below the threshold
    assert found.volume_change_percent is None
    assert found.trust is None
    assert not found.dipole


def test_a_resolved_lesion() -> None:
    found = only(pair([], [Sphere(CENTRE, 4.0)]))
    assert found.kind == "resolved"
    assert found.lesion_reference is None
    assert found.lesion_template is not None
    assert found.lesion_template.volume_ml == pytest.approx(ball_ml(4.0), rel=0.06)
    assert found.peak_hu == pytest.approx(-890, abs=80)


@pytest.mark.parametrize(("now_mm", "before_mm", "kind"), [(7.0, 4.5, "grown"), (4.5, 7.0, "shrunk")])
def test_growth_and_shrinkage_are_one_finding_each(now_mm: float, before_mm: float, kind: str) -> None:
    found = only(pair([Sphere(CENTRE, now_mm)], [Sphere(CENTRE, before_mm)]))
    assert found.kind == kind
    assert found.lesion_reference is not None
    assert found.lesion_template is not None
    assert found.lesion_reference.volume_ml == pytest.approx(ball_ml(now_mm), rel=0.05)
    assert found.lesion_template.volume_ml == pytest.approx(ball_ml(before_mm), rel=0.05)
    true_percent = 100 * ((now_mm / before_mm) ** 3 - 1)
    assert found.volume_change_interval_percent is not None
    low, high = found.volume_change_interval_percent
    assert low < true_percent < high
    assert found.diameter_change_mm == pytest.approx(2 * (now_mm - before_mm), abs=1.5)
    np.testing.assert_allclose(found.centre_mm, CENTRE, atol=1.0)


def test_growth_within_the_error_of_measurement_is_not_named() -> None:
    found = pair([Sphere(CENTRE, 5.3)], [Sphere(CENTRE, 5.0)], options=FindingOptions(threshold=0.15))
    assert found.items
    assert {f.kind for f in found.items} == {"increase"}
    assert found.items[0].volume_change_interval_percent is not None
    low, high = found.items[0].volume_change_interval_percent
    assert low < 0 < high
    assert "not proven" in found.items[0].remark


def test_ground_glass_that_became_solid_is_not_new() -> None:
    found = only(pair([Sphere(CENTRE, 6.0)], [Sphere(CENTRE, 6.0, hu=-600.0)], options=FAINT))
    assert found.kind == "increase"
    assert found.lesion_template is not None
    assert found.lesion_template.mean_hu == pytest.approx(-620, abs=60)


def test_a_new_lesion_on_the_pleura() -> None:
    wall = Wall(8.0)
    grid = cube(edge_mm=60, centre_mm=(-8.0, 0.0, 0.0))
    found = only(pair([wall, Sphere((3.5, 0.0, 0.0), 5.0)], [wall], grid, wall=wall))
    assert found.kind == "new"
    assert found.lung == "left"
    assert found.lesion_reference is not None
    assert found.lesion_reference.volume_ml == pytest.approx(ball_ml(5.0), rel=0.15)


def test_a_new_lesion_on_a_vessel() -> None:
    vessel = Tube(CENTRE, (0.3, 1.0, 0.2), 1.5)
    found = only(pair([vessel, Sphere(CENTRE, 5.0)], [vessel]))
    assert found.kind == "new"
    assert found.lesion_reference is not None
    assert found.lesion_reference.volume_ml == pytest.approx(ball_ml(5.0), rel=0.25)


def test_change_where_the_prior_scan_is_dense_is_not_new() -> None:
    found = pair([Sphere(CENTRE, 6.0)], [Tube(CENTRE, (0.2, 1.0, 0.1), 4.0)], options=FAINT)
    assert "new" not in {f.kind for f in found.items}
    nodule = next(f for f in found.items if f.lesion_reference is not None)
    assert nodule.lesion_template is None
    assert "cannot be told" in nodule.remark


def test_a_new_lesion_on_a_massive_structure_is_outlined_by_its_change() -> None:
    hilum = Tube((-14.0, 0.0, 0.0), (0.0, 0.2, 1.0), 9.0)
    found = only(pair([hilum, Sphere((-4.0, 0.0, 0.0), 5.0)], [hilum]))
    assert found.kind == "new"
    assert found.lesion_reference is not None  # and not with the hilum
    assert 0.3 * ball_ml(5.0) < found.lesion_reference.volume_ml < ball_ml(5.0)


def test_a_trifle_on_a_massive_structure_is_not_measured_with_it() -> None:
    hilum = Tube((-14.0, 0.0, 0.0), (0.0, 0.2, 1.0), 9.0)
    found = only(pair([hilum, Sphere((-4.2, 0.0, 0.0), 2.8)], [hilum], options=FindingOptions(threshold=0.5)))
    assert found.kind == "increase"
    assert found.lesion_reference is None


def test_two_caps_of_one_lesion_are_one_finding() -> None:
    lesion, cut = Sphere(CENTRE, 8.0), [Sphere((CENTRE[0] + dx, *CENTRE[1:]), 6.0, hu=-850.0) for dx in (-9.0, 9.0)]
    options = FindingOptions(merge_mm=0.0)
    found = only(pair([lesion], [lesion, *cut], options=options))
    assert found.lesion_reference is not None
    assert found.lesion_reference.volume_ml == pytest.approx(ball_ml(8.0), rel=0.05)
    np.testing.assert_allclose(found.centre_mm, CENTRE, atol=1.0)


def test_a_vessel_that_the_registration_missed_is_listed_but_not_named() -> None:
    moved = Tube((CENTRE[0] + 2.5, *CENTRE[1:]), (0.1, 1.0, 0.3), 2.0)
    found = pair([moved], [Tube(CENTRE, (0.1, 1.0, 0.3), 2.0)])
    assert {f.kind for f in found.items} == {"increase", "decrease"}
    assert all(f.elongation > 4 and f.dipole and "vessel" in f.remark for f in found.items)


# -- displaced lesions ----------------------------------------------------------------
@pytest.mark.parametrize("shift_mm", [3.0, 8.0], ids=["overlapping", "apart"])
def test_a_displaced_lesion_is_not_new_and_resolved(shift_mm: float) -> None:
    moved = (CENTRE[0], CENTRE[1] + shift_mm, CENTRE[2])
    found = pair([Sphere(moved, 4.0)], [Sphere(CENTRE, 4.0)])
    assert sorted(f.kind for f in found.items) == ["decrease", "increase"]
    first, second = found.items
    assert (first.partner, second.partner) == (second.id, first.id)
    assert f"finding {second.id}" in first.remark


def test_a_new_and_a_resolved_lesion_far_apart_are_two_changes() -> None:
    found = pair([Sphere((-12.0, 0.0, 0.0), 4.0)], [Sphere((12.0, 0.0, 0.0), 4.0)])
    assert {f.kind: (f.lung, f.dipole) for f in found.items} == {"new": ("right", False), "resolved": ("left", False)}


def test_lesions_of_unequal_size_are_no_displaced_one() -> None:
    found = pair([Sphere((-4.5, 0.0, 0.0), 2.8)], [Sphere((4.5, 0.0, 0.0), 5.5)], options=FAINT)
    assert {f.kind for f in found.items} == {"new", "resolved"}


def test_a_grown_lesion_that_is_displaced_is_still_grown() -> None:
    moved = (CENTRE[0] + 2.0, *CENTRE[1:])
    found = pair([Sphere(moved, 7.0)], [Sphere(CENTRE, 4.5)])
    assert found.items[0].kind == "grown"
    assert {f.kind for f in found.items[1:]} <= {"decrease", "increase"}


# -- geometry -------------------------------------------------------------------------
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


# -- weaker change that is proven, and trust --------------------------------------------
def test_weak_change_is_listed_where_it_can_be_named() -> None:
    vessel, moved = Tube((12, 0, 0), (0.1, 0.2, 1), 1.5), Tube((13, 0, 0), (0.1, 0.2, 1), 1.5)
    now, before = [Sphere((-8, 0, 0), 4.6), moved], [Sphere((-8, 0, 0), 3.7), vessel]
    assert pair(now, before).items == ()  # the shell is thinner than a voxel, the vessel less than one off
    plain = pair(now, before, options=FAINT)
    assert {f.kind for f in plain.items} == {"grown", "increase", "decrease"}
    proven = only(pair(now, before, options=FindingOptions(proven_threshold=0.3)))
    assert proven.kind == "grown"
    assert proven.centre_mm[0] == pytest.approx(-8, abs=1)


def test_proven_change_does_not_repeat_what_is_listed() -> None:
    found = pair([Sphere(CENTRE, 7.0)], [Sphere(CENTRE, 4.5)], options=FindingOptions(proven_threshold=0.2))
    plain = pair([Sphere(CENTRE, 7.0)], [Sphere(CENTRE, 4.5)])
    assert only(found) == only(plain)


def test_trust_from_a_map_or_a_function() -> None:
    grid = cube()
    low = np.full(grid.shape, 0.2, dtype=np.float32)
    by_map = only(pair([Sphere(CENTRE, 4.0)], [], grid, trust=low))
    by_function = only(pair([Sphere(CENTRE, 4.0)], [], grid, trust=lambda points: 0.9 + 0 * points[:, 0]))
    assert by_map.trust == pytest.approx(0.2)
    assert "uncertain" in by_map.remark
    assert by_function.trust == pytest.approx(0.9)
    assert "uncertain" not in by_function.remark
    assert replace(by_map, trust=None, remark="") == replace(by_function, trust=None, remark="")


def test_a_failed_registration_stays_bounded_and_names_little() -> None:
    rng = np.random.default_rng(0)
    tubes = [Tube(tuple(rng.uniform(-20, 20, 3)), tuple(rng.normal(size=3)), 1.8) for _ in range(12)]
    grid = cube()
    matrix = np.eye(4)
    matrix[:3, 3] = (6.0, -5.0, 4.0)
    volume = scan(grid, *tubes)
    found = compare(
        volume,
        volume,
        field=DisplacementField.from_affine(matrix, grid),
        options=FindingOptions(threshold=0.4, max_findings=10),
    )
    assert len(found.items) == 10
    assert found.dropped > 0
    assert sum(f.kind in ("new", "resolved", "grown", "shrunk") for f in found.items) <= 1
