"""The compiled kernels say what autograd says, in value and in gradient."""

import numpy as np
import pytest
import torch
from autograd_terms import AutogradData

from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.registration.deformable.bspline import ControlGrid
from ChangeMapJointLib.registration.deformable.data_terms import CompiledData
from ChangeMapJointLib.registration.pyramid import ScanView

pytest.importorskip("numba")
PERMUTED = ((0.0, -1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0))


def picture(grid: Grid, seed: int) -> ScanView:
    generator = torch.Generator().manual_seed(seed)
    image = 300 * torch.randn(grid.shape, generator=generator) - 400
    return ScanView(image, torch.rand(grid.shape, generator=generator), grid)


def compare(
    control: ControlGrid,
    template: ScanView,
    rigid: np.ndarray,
    weight: torch.Tensor,
    change_weight: torch.Tensor | None = None,
) -> None:
    r = picture(control.grid, 0)
    c = 2.0 * torch.randn(*control.shape, 3, generator=torch.Generator().manual_seed(2))
    given = {"edges": (30.0, 50.0), "weight": weight, "change_weight": change_weight}
    compiled, eager = (kind(r, template, control, rigid, **given) for kind in (CompiledData, AutogradData))
    for attempt in range(2):  # the second evaluation uses the same buffers
        terms, gradient = compiled.evaluate(c + attempt, 0.7, 0.3)
        expected, expected_gradient = eager.evaluate(c + attempt, 0.7, 0.3)
        assert terms == pytest.approx(expected, rel=1e-4)
        scale = float(expected_gradient.abs().max())
        assert scale > 0
        assert float((gradient - expected_gradient).abs().max()) < 2e-3 * scale


def test_on_skew_grids_with_anisotropic_voxels() -> None:
    control = ControlGrid(Grid((9, 11, 13), (1.0, 1.5, 2.5), (3.0, 4.0, 5.0), PERMUTED), (4.0, 4.0, 4.0))
    centre = np.asarray(control.grid.centre_mm)
    t = picture(Grid((12, 14, 15), (1.2, 1.4, 2.0), tuple(centre - (9, 9, 12))), 1)  # type: ignore[arg-type]
    angle = 0.2
    rigid = np.eye(4)
    rigid[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    rigid[:3, 3] = centre - rigid[:3, :3] @ centre
    compare(control, t, rigid, torch.ones(control.grid.shape))


def test_with_weights_that_leave_most_of_the_box_out() -> None:
    grid = Grid((12, 12, 16), (2.0, 2.0, 2.0))
    weight = torch.zeros(grid.shape)
    weight[3:7, 2:9, 4:6] = 1.0
    weight[4, 5, 12] = 0.5  # a second island in the same row
    weight[0, 0, 0] = weight[-1, -1, -1] = 1.0  # corners of the box
    compare(ControlGrid(grid, (4.0, 4.0, 3.0)), picture(grid, 1), np.eye(4), weight)


def test_where_some_voxels_have_no_partner() -> None:
    grid = Grid((10, 11, 12), (2.0, 2.0, 2.0))
    change_weight = torch.rand(grid.shape, generator=torch.Generator().manual_seed(7))
    change_weight[3:6] = 0.0
    weight = (torch.rand(grid.shape, generator=torch.Generator().manual_seed(8)) > 0.4).float()
    compare(ControlGrid(grid, (4.0, 4.0, 3.0)), picture(grid, 1), np.eye(4), weight, change_weight)


def test_voxels_without_a_partner_lower_the_distance_and_not_its_mean_over_the_lungs() -> None:
    """Half of the lung without a partner: NGF counts half, the mask term as before."""
    grid = Grid((8, 8, 8))
    r, t = picture(grid, 0), picture(grid, 1)
    control, everywhere = ControlGrid(grid, (4.0, 4.0, 4.0)), torch.ones(grid.shape)
    c = torch.zeros(*control.shape, 3)
    for kind in (CompiledData, AutogradData):
        whole, half = (
            kind(r, t, control, np.eye(4), edges=(30.0, 50.0), weight=everywhere, change_weight=share).evaluate(
                c, 1.0, 1.0
            )
            for share in (everywhere, 0.5 * everywhere)
        )
        assert half[0]["ngf"] == pytest.approx(0.5 * whole[0]["ngf"], rel=1e-5)
        assert half[0]["mask"] == pytest.approx(whole[0]["mask"], rel=1e-5)


def test_when_the_template_lies_mostly_elsewhere() -> None:
    grid = Grid((8, 8, 8), (2.0, 2.0, 2.0))
    away = np.eye(4)
    away[:3, 3] = (9.0, -9.0, 10.0)
    compare(ControlGrid(grid, (4.0, 4.0, 4.0)), picture(grid, 1), away, torch.ones(grid.shape))


def test_the_same_input_gives_the_same_bytes() -> None:
    control = ControlGrid(Grid((20, 20, 20), (2.0, 2.0, 2.0)), (4.0, 4.0, 4.0))
    r, t = picture(control.grid, 0), picture(control.grid, 1)
    data = CompiledData(r, t, control, np.eye(4), edges=(30.0, 30.0), weight=torch.ones(control.grid.shape))
    c = torch.randn(*control.shape, 3, generator=torch.Generator().manual_seed(5))
    first, again = data.evaluate(c, 1.0, 0.1), data.evaluate(c, 1.0, 0.1)
    assert first[0] == again[0]
    assert torch.equal(first[1], again[1])
