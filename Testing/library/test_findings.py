"""Findings: components, what is merged, what is listed, trust, on closed-form pairs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from finding_samples import CENTRE, compare, labels_of, only, pair
from lung_shapes import Tube, cube, scan
from phantoms import Sphere

from ChangeMapJointLib.change.findings import FindingOptions, Findings, list_findings
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.scan.pair import ScanPair
from ChangeMapJointLib.scan.volume import Volume

EMPTY = Grid((12, 12, 12))


def on_map(*spots: tuple[tuple[int, int, int], float], options: FindingOptions) -> Findings:
    """Findings of a hand-made map over empty lung: voxel (z, y, x) and signed value."""
    values = np.zeros(EMPTY.shape, dtype=np.float32)
    for voxel, value in spots:
        values[voxel] = value
    lung = Volume(np.full(EMPTY.shape, -850, dtype=np.int16), EMPTY)
    return list_findings(
        np.abs(values),
        (1050 * values).astype(np.int16),
        ScanPair.of(lung, lung, np.ones(EMPTY.shape, np.uint8), np.ones(EMPTY.shape, np.uint8)),
        DisplacementField.from_affine(np.eye(4), EMPTY),
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
        {"operating_point": "bold"},
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
    pair, field = ScanPair.of(volume, volume, labels, labels), DisplacementField.from_affine(np.eye(4), volume.grid)
    flat = np.zeros(volume.grid.shape, dtype=np.float32)
    with pytest.raises(ValueError, match="signed_hu"):
        list_findings(flat, flat[1:], pair, field)
    with pytest.raises(ValueError, match="change_map"):
        list_findings(flat[1:], flat, pair, field)
    with pytest.raises(ValueError, match="lungs: found shape"):
        ScanPair.of(volume, volume, labels, labels[1:])


# -- trust -------------------------------------------------------------------------------
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
