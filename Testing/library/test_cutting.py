"""Lesions cut from a CT: their outline, their tissue alone, and how they are inserted elsewhere."""

from dataclasses import replace

import numpy as np
import pytest
from lung_shapes import OBLIQUE
from scipy.ndimage import gaussian_filter

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.synthesis.cutting import CutLesion, cut_lesions
from ChangeMapJointLib.synthesis.draw import DrawOptions, draw_pair
from ChangeMapJointLib.synthesis.lesions import SyntheticLesion, paint_lesion

GRID = Grid((40, 48, 48), (1.5, 1.0, 2.0), (-30.0, 10.0, 100.0))
TURNED = replace(GRID, direction=OBLIQUE)


def ellipsoid(grid: Grid, centre_index=(24, 24, 20), half_axes_mm=(12.0, 8.0, 9.0)) -> tuple[np.ndarray, np.ndarray]:
    """A mask, and its points' offsets from the centre, both ``[z, y, x]``; half axes along LPS."""
    points = grid.to_physical(np.indices(grid.shape)[::-1].transpose(1, 2, 3, 0))
    offsets = points - grid.to_physical(np.array(centre_index, dtype=float))
    return np.linalg.norm(offsets / half_axes_mm, axis=-1) <= 1, offsets


def cut_one(grid: Grid, hu: float = 50.0, slope: float = 4.0) -> tuple[CutLesion, np.ndarray, np.ndarray]:
    """A lesion of tissue that becomes denser along x, beside a wall of 900 HU; its mask and its offsets."""
    mask, offsets = ellipsoid(grid)
    array = np.full(grid.shape, -850.0, np.float32)
    array[:, 34:] = 900.0
    array[mask] = (hu + slope * offsets[..., 0])[mask]
    (found,) = cut_lesions(array, mask, grid)
    return found, mask, offsets


@pytest.mark.parametrize("grid", [GRID, TURNED])
def test_the_outline_is_that_of_the_mask(grid: Grid) -> None:
    found, mask, offsets = cut_one(grid)
    volume = mask.sum() * grid.voxel_volume_ml * 1000
    assert found.shape.full_mm == pytest.approx((6 * volume / np.pi) ** (1 / 3), abs=0.01)
    again = found.shape.signed_distance(offsets, found.shape.full_mm) <= 0
    assert 2 * (again & mask).sum() / (again.sum() + mask.sum()) > 0.95


@pytest.mark.parametrize("grid", [GRID, TURNED])
def test_the_inside_is_the_lesions_tissue_alone(grid: Grid) -> None:
    found, _, offsets = cut_one(grid)
    assert found.inside.hu.min() >= 50 - 4 * 12 - 1  # no air
    assert found.inside.hu.max() <= 50 + 4 * 12 + 1  # and nothing of the wall
    deep = np.linalg.norm(offsets, axis=-1) < 5
    np.testing.assert_allclose(found.inside.at(offsets[deep]), 50 + 4 * offsets[deep][:, 0], atol=4.0)


@pytest.mark.parametrize(
    ("hu", "core", "texture"), [(50, 50, "solid"), (-600, -600, "ground-glass"), (-600, 40, "part-solid")]
)
def test_texture_is_told_by_the_solid_share(hu: float, core: float, texture: str) -> None:
    mask, offsets = ellipsoid(GRID)
    array = np.full(GRID.shape, -850.0, np.float32)
    array[mask] = hu
    array[np.linalg.norm(offsets, axis=-1) < 6] = core
    assert [one.texture for one in cut_lesions(array, mask, GRID)] == [texture]


def test_each_part_of_a_mask_is_a_lesion_but_for_specks() -> None:
    mask = ellipsoid(GRID, (12, 24, 10))[0] | ellipsoid(GRID, (36, 24, 28), (8.0, 8.0, 8.0))[0]
    mask[0, 0, 0] = True
    sizes = [one.shape.full_mm for one in cut_lesions(np.zeros(GRID.shape, np.float32), mask, GRID)]
    assert sorted(sizes) == pytest.approx([16.0, 19.05], abs=0.4)
    assert cut_lesions(np.zeros(GRID.shape), np.zeros(GRID.shape, bool), GRID) == []


def test_what_the_scans_border_cuts_off_is_left_out() -> None:
    for centre in ((24, 24, 2), (2, 24, 20), (24, 45, 20)):
        assert cut_lesions(np.zeros(GRID.shape), ellipsoid(GRID, centre)[0], GRID) == []


def test_a_mask_of_another_scan_is_refused() -> None:
    for shape in ((40, 48, 30), (40, 48, 60)):
        with pytest.raises(InputError, match=r"found a mask of shape .*expected the scan's \(40, 48, 48\)"):
            cut_lesions(np.zeros(GRID.shape), np.zeros(shape, bool), GRID)


@pytest.mark.parametrize("radius", [4.0, 6.0, 10.0])
def test_a_rim_of_partial_volume_is_not_faded_twice(radius: float) -> None:
    """A ball as a scanner shows it, cut at its half level, is as large and nearly as heavy where it is inserted."""
    grid = Grid((40, 40, 40))
    offsets = np.indices(grid.shape)[::-1].transpose(1, 2, 3, 0) - np.array([20.0, 20.0, 20.0])
    ball = (np.linalg.norm(offsets, axis=-1) <= radius).astype(np.float32)
    seen = gaussian_filter(ball, 0.8) * 890 - 850
    mask = seen > -405
    (found,) = cut_lesions(seen, mask, grid)
    array = np.full(grid.shape, -850.0, np.float32)
    painted = paint_lesion(
        array, grid, SyntheticLesion(found.shape, cut=found.inside), centre_mm=np.array([20.0, 20.0, 20.0]),
        diameter_mm=found.shape.full_mm, lungs=np.ones(grid.shape, bool), rng=np.random.default_rng(0),
    )  # fmt: skip
    assert (array > -405).sum() == pytest.approx(mask.sum(), rel=0.05)
    assert painted.sum() == pytest.approx(mask.sum(), rel=0.05)
    mass = (array + 850).sum() / (seen + 850).sum()
    assert (0.75 if radius < 5 else 0.9) < mass < 1.05


def test_inserted_elsewhere_it_is_as_it_was_and_smaller_it_is_eroded() -> None:
    found, _, offsets = cut_one(GRID)
    lesion = SyntheticLesion(found.shape, cut=found.inside)
    place = GRID.to_physical(np.array([20.0, 26.0, 18.0]))
    away = offsets + GRID.to_physical(np.array([24.0, 24.0, 20.0])) - place
    supports = []
    for diameter in (found.shape.full_mm, 10.0):
        array = np.full(GRID.shape, -850.0, np.float32)
        supports.append(
            paint_lesion(
                array, GRID, lesion, centre_mm=place, diameter_mm=diameter,
                lungs=np.ones(GRID.shape, bool), rng=np.random.default_rng(0),
            )
        )  # fmt: skip
        deep = found.shape.signed_distance(away, diameter) < -2
        np.testing.assert_allclose(array[deep], 50 + 4 * away[deep][:, 0], atol=6.0)
        far = found.shape.signed_distance(away, diameter) > 3
        assert (array[far] == -850).all()
        border = ~deep & ~far
        assert (np.abs(array[border] + 400) < 300).any()  # it fades
    whole, eroded = supports
    assert (whole | ~eroded).all()
    assert eroded.sum() * GRID.voxel_volume_ml * 1000 == pytest.approx(np.pi / 6 * 10**3, rel=0.1)


def test_plans_take_them_turned_and_keep_how_much_they_grow() -> None:
    found, _, _ = cut_one(GRID)
    for seed in range(20):
        plain = draw_pair(seed, DrawOptions(cut_share=0.0, eroded_share=0.0)).lesions
        cut = draw_pair(seed, DrawOptions(cut_share=1.0), cut=[found]).lesions
        for one, other in zip(cut, plain, strict=True):
            assert one.cut is not None
            assert one.shape is not None
            assert one.kind == other.kind
            assert 0.59 * found.shape.full_mm <= one.largest_mm <= found.shape.full_mm
            smaller = min(one.diameter_reference_mm, one.diameter_template_mm)
            before = min(other.diameter_reference_mm, other.diameter_template_mm)
            assert smaller / one.largest_mm == pytest.approx(before / other.largest_mm, abs=0.01)
        assert all(plan.cut is None for plan in draw_pair(seed, DrawOptions(cut_share=0.0), cut=[found]).lesions)
    turned = {tuple(np.round(plan.cut.rotation.ravel(), 6)) for plan in cut if plan.cut is not None}
    assert len(turned) == len(cut)
