"""How far the lungs' surfaces lie apart: known gaps, by region."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from test_quality import GOOD

from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.grid import FloatArray, Grid
from ChangeMapJointLib.registration.quality import Figures, assess_quality, surface_figures
from ChangeMapJointLib.registration.surface_agreement import surface_agreement, surface_regions
from ChangeMapJointLib.scan.lungs import LEFT, RIGHT
from ChangeMapJointLib.scan.pair import ScanPair
from ChangeMapJointLib.scan.scan import Scan
from ChangeMapJointLib.scan.volume import Volume

GRID = Grid((60, 50, 80), (2.0, 2.0, 2.0), (-79.0, -49.0, -59.0))


def box_lungs(*, deeper_mm: float = 0.0, grid: Grid = GRID) -> Scan:
    """Two boxes as lungs, 20 to 60 mm to either side, 60 mm high; the floor of both may lie deeper."""
    points = grid.to_physical(np.indices(grid.shape)[::-1].reshape(3, -1).T.astype(float)).reshape(*grid.shape, 3)
    x, y, z = np.moveaxis(points, -1, 0)
    inside = (np.abs(x) > 20) & (np.abs(x) < 60) & (np.abs(y) < 30) & (z < 36) & (z > -24 - deeper_mm)
    labels = np.where(inside, np.where(x < 0, RIGHT, LEFT), 0).astype(np.uint8)
    return Scan.of(Volume(np.where(inside, -850.0, 40.0).astype(np.float32), grid), labels)


def field_of(shift_mm: tuple[float, float, float]) -> DisplacementField:
    matrix = np.eye(4)
    matrix[:3, 3] = shift_mm
    return DisplacementField.from_affine(matrix, GRID.corners())


def test_equal_lungs_lie_on_one_another() -> None:
    scan = box_lungs()
    found = surface_agreement(ScanPair(scan, scan, np.eye(4)), field_of((0.0, 0.0, 0.0)))
    assert found is not None
    assert found.p95_mm < 0.3  # a tenth of a voxel
    assert set(found.regions) == {"ribs", "diaphragm", "mediastinum"}


def test_a_diaphragm_that_lies_deeper_is_told_from_the_ribs() -> None:
    pair = ScanPair(box_lungs(), box_lungs(deeper_mm=8.0), np.eye(4))
    found = surface_agreement(pair, field_of((0.0, 0.0, 0.0)))
    assert found is not None
    assert found.regions["diaphragm"].p95_mm == pytest.approx(8.0, abs=0.5)
    x, y = np.meshgrid(np.arange(0.5, 40), np.arange(0.5, 60))  # the floor; its edges lie nearer to T's walls
    nearest = np.minimum.reduce([np.full(x.shape, 8.0), x, 40 - x, y, 60 - y])
    assert found.regions["diaphragm"].mean_mm == pytest.approx(nearest.mean(), abs=0.4)
    assert found.regions["diaphragm"].max_mm == found.max_mm
    assert found.regions["mediastinum"].p95_mm < 0.5
    assert found.max_mm == pytest.approx(8.0, abs=1.0)


@pytest.mark.parametrize("higher_mm", [6.0, 14.0, 16.0, 24.0, 32.0])
def test_a_diaphragm_far_off_is_measured_however_far(higher_mm: float) -> None:
    """The prior's lungs end higher, by more than the box around them reaches."""
    pair = ScanPair(box_lungs(), box_lungs(deeper_mm=-higher_mm), np.eye(4))
    found = surface_agreement(pair, field_of((0.0, 0.0, 0.0)))
    assert found is not None
    assert found.regions["diaphragm"].p95_mm == pytest.approx(higher_mm, rel=0.1, abs=1.0)
    assert found.max_mm == pytest.approx(higher_mm, rel=0.15, abs=2.0)
    assert found.p95_mm > 3.0


@pytest.mark.parametrize("cut", ["reference", "template", "both"])
def test_a_round_field_of_view_that_ends_the_lungs_is_no_surface(cut: str) -> None:
    """Lungs that one or both scans show only to 45 mm beside their middle."""
    full = box_lungs()
    x, y, _ = np.moveaxis(full.grid.to_physical(np.indices(GRID.shape)[::-1].reshape(3, -1).T.astype(float)), -1, 0)
    unseen = (np.hypot(x, y) > 45).reshape(GRID.shape)
    hu = np.where(unseen, -1024, full.array).astype(np.float32)
    part = Scan.of(Volume(hu, GRID, unseen=unseen), np.where(unseen, 0, full.lungs.labels).astype(np.uint8))
    pair = ScanPair(*(part if cut in (side, "both") else full for side in ("reference", "template")), np.eye(4))
    found = surface_agreement(pair, field_of((0.0, 0.0, 0.0)))
    assert found is not None
    assert found.max_mm < 4.0  # at the edge of the circle; its middle lies 15 mm from the wall
    assert found.p95_mm < 1.0
    assert found.regions["diaphragm"].p95_mm < 1.5


def test_the_verdict_names_the_worst_region() -> None:
    pair = ScanPair(box_lungs(), box_lungs(deeper_mm=8.0), np.eye(4))
    found = surface_agreement(pair, field_of((0.0, 0.0, 0.0)))
    assert found is not None
    figures = surface_figures(found)
    assert set(figures) <= {field.name for field in fields(Figures)}
    (reason,) = assess_quality(replace(GOOD, **figures)).reasons
    assert "apart over 5 % of their area, most of all at the diaphragm (8." in reason


def test_where_the_prior_was_not_scanned_nothing_is_measured() -> None:
    scan = box_lungs()
    assert surface_agreement(ScanPair(scan, scan, np.eye(4)), field_of((900.0, 0.0, 0.0))) is None


@pytest.mark.parametrize(
    ("point", "outwards", "region"),
    [
        ((-20.0, 0.0, 0.0), (1.0, 0.0, 0.0), "mediastinum"),
        ((20.0, 0.0, 0.0), (-1.0, 0.0, 0.0), "mediastinum"),
        ((-60.0, 0.0, 0.0), (-1.0, 0.0, 0.0), "ribs"),
        ((60.0, 0.0, 0.0), (1.0, 0.0, 0.0), "ribs"),
        ((40.0, 30.0, 0.0), (0.0, 1.0, 0.0), "ribs"),
        ((40.0, 0.0, -24.0), (0.0, 0.0, -1.0), "diaphragm"),
        ((40.0, 0.0, 36.0), (0.0, 0.0, 1.0), "ribs"),
    ],
)
def test_regions_by_where_the_surface_faces(point: FloatArray, outwards: FloatArray, region: str) -> None:
    assert surface_regions(box_lungs(), np.array([point]), np.array([outwards])).tolist() == [region]
