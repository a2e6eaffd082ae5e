"""Voxels without a partner: beyond the template, and where the residual says change."""

import numpy as np
import pytest
import torch

from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.registration.deformable.bspline import ControlGrid
from ChangeMapJointLib.registration.deformable.change_weight import change_weight, gaussian, warp_view
from ChangeMapJointLib.registration.pyramid import ScanView

GRID = Grid((20, 24, 28), (2.0, 1.5, 3.0), (7.0, -8.0, 9.0))


def picture(image: torch.Tensor, grid: Grid = GRID) -> ScanView:
    return ScanView(image, torch.ones_like(image), grid)


def still(grid: Grid = GRID) -> tuple[torch.Tensor, ControlGrid]:
    control = ControlGrid(grid, (4.0, 4.0, 4.0))
    return torch.zeros(*control.shape, 3), control


def test_equal_scans_have_partners_everywhere() -> None:
    image = torch.randn(GRID.shape, generator=torch.Generator().manual_seed(0)) * 200 - 800
    weight = change_weight(picture(image), picture(image), *still(), np.eye(4), change_hu=150.0)
    assert torch.allclose(weight, torch.ones(GRID.shape))


def test_a_new_nodule_has_no_partner_and_a_denser_lung_has() -> None:
    template = torch.full(GRID.shape, -850.0)
    reference = template + 100.0  # breathed out
    reference[6:13, 6:15, 10:15] = 30.0
    weight = change_weight(picture(reference), picture(template), *still(), np.eye(4), change_hu=150.0)
    assert weight[9, 10, 12] < 0.01
    assert weight[9, 10, 25] == pytest.approx(1.0, abs=1e-4)
    assert weight[2, 2, 2] == pytest.approx(1.0, abs=1e-4)
    same = change_weight(picture(reference), picture(template), *still(), np.eye(4))
    assert torch.equal(same, torch.ones(GRID.shape))  # 0 HU: change is not looked for


def test_a_residual_of_the_given_size_counts_half() -> None:
    template, reference = torch.full(GRID.shape, -850.0), torch.full(GRID.shape, -850.0)
    reference[:, :, :9] += 200.0  # less than half of the voxels: the median stays 0
    weight = change_weight(picture(reference), picture(template), *still(), np.eye(4), change_hu=200.0)
    assert weight[10, 12, 2] == pytest.approx(0.5, abs=1e-3)
    assert weight[10, 12, 20] == pytest.approx(1.0, abs=1e-4)


def test_bone_and_contrast_medium_are_no_change() -> None:
    template, reference = torch.full(GRID.shape, 60.0), torch.full(GRID.shape, 900.0)
    weight = change_weight(picture(reference), picture(template), *still(), np.eye(4), change_hu=150.0)
    assert torch.equal(weight, torch.ones(GRID.shape))


def test_beyond_the_template_there_is_no_partner() -> None:
    """T ends in the middle of R: its lower half has no partner, with and without a search for change."""
    image = torch.full(GRID.shape, -850.0)
    upper = GRID.crop((10, 0, 0), GRID.shape)
    for change_hu in (0.0, 150.0):
        weight = change_weight(picture(image), picture(image[10:], upper), *still(), np.eye(4), change_hu=change_hu)
        assert torch.equal(weight[:10], torch.zeros(10, 24, 28))
        assert torch.equal(weight[10:], torch.ones(10, 24, 28))


def test_the_warp_follows_rigid_part_and_coefficients() -> None:
    """T is linear in x, y, z: T(y) = T + slope . shift, away from the border."""
    points = GRID.to_physical(np.argwhere(np.ones(GRID.shape, bool))[:, ::-1].astype(float)).reshape(*GRID.shape, 3)
    slope = np.array([1.0, -2.0, 0.5])
    image = torch.as_tensor(points @ slope, dtype=torch.float32)
    coefficients, control = still()
    coefficients += torch.tensor([1.0, 0.0, 2.0])  # splines add up to 1: a shift by (1, 0, 2) mm
    rigid = np.eye(4)
    rigid[:3, 3] = (0.0, 3.0, 0.0)
    warped, mask, inside = warp_view(picture(image), picture(image), coefficients, control, rigid)
    inner = (slice(3, -3),) * 3
    assert torch.allclose(warped[inner], image[inner] + float(slope @ [1.0, 3.0, 2.0]), atol=1e-3)
    assert torch.allclose(mask[inner], torch.ones_like(mask[inner]))
    assert torch.equal(inside[inner], torch.ones_like(inside[inner]))


def test_gaussian_against_its_closed_form() -> None:
    impulse = torch.zeros(1, 21, 21, 21, dtype=torch.float64)
    impulse[0, 10, 10, 10] = 1.0
    smooth = gaussian(impulse, [2.0, 1.0, 1.5])[0]
    assert float(smooth.sum()) == pytest.approx(1.0)
    for axis, sigma in enumerate((2.0, 1.0, 1.5)):
        line = smooth.sum(dim=[a for a in range(3) if a != axis])
        variance = float((line * (torch.arange(21) - 10.0) ** 2).sum())
        assert variance == pytest.approx(sigma**2, rel=0.05)  # cut at 3 sigma
