"""Findings: what is named new, resolved, grown or shrunk and what is not, on closed-form pairs."""

from __future__ import annotations

import numpy as np
import pytest
from finding_samples import CENTRE, FAINT, compare, only, pair
from lung_shapes import Tube, Wall, ball_ml, cube, scan
from phantoms import Sphere

from ChangeMapJointLib.change.findings import FindingOptions


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
    assert found.partner is None


def test_something_as_dense_as_metal_is_remarked() -> None:
    found = only(pair([Sphere(CENTRE, 5.0, hu=3000.0)], []))
    assert found.kind == "new"
    assert "metal" in found.remark
    assert "metal" not in only(pair([Sphere(CENTRE, 5.0, hu=900.0)], [])).remark  # calcified


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
    assert all(f.elongation > 4 and f.partner and "vessel" in f.remark for f in found.items)


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
    assert {f.kind: (f.lung, f.partner) for f in found.items} == {"new": ("right", None), "resolved": ("left", None)}


def test_lesions_of_unequal_size_are_no_displaced_one() -> None:
    found = pair([Sphere((-4.5, 0.0, 0.0), 2.8)], [Sphere((4.5, 0.0, 0.0), 5.5)], options=FAINT)
    assert {f.kind for f in found.items} == {"new", "resolved"}


def test_a_grown_lesion_that_is_displaced_is_still_grown() -> None:
    moved = (CENTRE[0] + 2.0, *CENTRE[1:])
    found = pair([Sphere(moved, 7.0)], [Sphere(CENTRE, 4.5)])
    assert found.items[0].kind == "grown"
    assert {f.kind for f in found.items[1:]} <= {"decrease", "increase"}


THICK = cube((1.4, 1.4, 3.0), edge_mm=45.0)


def test_a_few_voxels_that_tripled_have_grown_though_blur_makes_them_look_large() -> None:
    """4.2 to 6.6 mm in slices of 3 mm: each at half its own density, the volumes differ by 80 % only."""
    found = only(pair([Sphere(CENTRE, 3.3)], [Sphere(CENTRE, 2.1)], THICK, options=FAINT))
    assert found.kind == "grown"
    assert found.lesion_template is not None
    assert found.lesion_template.volume_ml == pytest.approx(ball_ml(2.1), rel=0.35)


def test_ground_glass_with_a_solid_part_is_measured_at_one_density_in_both_scans() -> None:
    """The solid part, and not the solid part now against the whole before, where blur made it pale."""
    glass = -600.0
    now = [Sphere(CENTRE, 6.5, hu=glass), Sphere(CENTRE, 3.3)]
    before = [Sphere(CENTRE, 4.3, hu=glass), Sphere(CENTRE, 2.1)]
    found = only(pair(now, before, THICK, options=FAINT))
    assert found.kind == "grown"
    assert found.volume_change_percent is not None
    assert found.volume_change_percent > 100


def test_a_lesion_that_its_surroundings_hide_before_is_measured_inside_its_outline() -> None:
    """On the wall, nothing ends by itself in the prior scan: what is as dense inside the outline has grown."""
    wall = Wall(8.0)
    grid = cube(edge_mm=60, centre_mm=(-8.0, 0.0, 0.0))
    now, before = Sphere((4.0, 0.0, 0.0), 5.5), Sphere((7.0, 0.0, 0.0), 3.4)
    found = only(pair([wall, now], [wall, before], grid, wall=wall, options=FAINT))
    assert found.kind == "grown"
