"""The network: shapes, what splits where, how far it sees, warping and composing."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ChangeMapJointLib.joint import network as joint_network
from ChangeMapJointLib.joint.network import JointNetwork, NetworkOptions, TwoHeadUNet, best_shift, similarity
from ChangeMapJointLib.joint.warping import compose, displacement_at, inverse, warp_tensor

H = (2.0, 1.0, 0.5)
PAPER = NetworkOptions(factors=(1,), channels=(4,), reach=(0,))
SMALL = NetworkOptions(factors=(2, 1), channels=(2, 2), reach=(1, 0), depth=1)
ALONE = replace(SMALL, reach=(0, 0))


def volume(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return 300 * torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(seed)) - 500


def network(options: NetworkOptions, seed: int = 0) -> JointNetwork:
    torch.manual_seed(seed)
    return JointNetwork(options)


@pytest.mark.parametrize(
    "options", [PAPER, SMALL, NetworkOptions(factors=(4, 2, 1), channels=(3, 2, 2), reach=(0, 2, 1))]
)
def test_both_heads_have_the_shape_of_the_scan(options: NetworkOptions) -> None:
    with torch.no_grad():
        found = network(options)(volume((16, 32, 48)), volume((16, 32, 48), 1), H)
    assert found.displacement_mm.shape == (1, 3, 16, 32, 48)
    assert found.logits.shape == (1, 2, 16, 32, 48)
    assert [u.shape[2] for u in found.coarser_mm] == [16 // f for f in options.factors[:-1]]
    assert 0 <= float(found.change.min()) <= float(found.change.max()) <= 1


def test_the_heads_split_in_the_last_convolution_alone() -> None:
    block = TwoHeadUNet(channels=4, depth=2)
    alone = {"deformation.weight", "deformation.bias", "change.weight", "change.bias"}
    change = block(torch.randn(1, 2, 8, 8, 8))[1].sum()
    named = dict(block.named_parameters())
    reached = torch.autograd.grad(change, list(named.values()), allow_unused=True)
    untouched = {name for name, g in zip(named, reached, strict=True) if g is None}
    assert untouched == {"deformation.weight", "deformation.bias"}
    assert {name for name in named if not name.startswith(("down", "up"))} == alone
    assert block.deformation.weight.shape[0] == 3
    assert block.change.weight.shape[0] == 2


def test_untrained_it_moves_nothing_by_much() -> None:
    found = network(ALONE)(volume((8, 8, 8)), volume((8, 8, 8), 1), (1.0, 1.0, 1.0))
    assert 0 < float(found.displacement_mm.detach().abs().max()) < 0.5


def test_shapes_that_do_not_divide_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="multiples of 16"):
        network(NetworkOptions(factors=(4, 2, 1), channels=(1, 1, 1)))(volume((16, 16, 24)), volume((16, 16, 24)), H)
    with pytest.raises(ValueError, match="equal"):
        network(PAPER)(volume((16, 16, 16)), volume((16, 16, 32)), H)
    for factors in ((), (1, 2), (4, 3, 1), (2,), (4, 0, 1), (-1,)):
        with pytest.raises(ValueError, match="factors"):
            NetworkOptions(factors=factors)


def test_checkpointing_changes_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    gradients, calls = [], []

    def counted(stage: torch.nn.Module, x: Tensor, **named: bool) -> Tensor:
        calls.append(stage)
        return checkpoint(stage, x, **named)

    monkeypatch.setattr(joint_network, "checkpoint", counted)
    for checkpointing in (False, True):
        made = network(replace(SMALL, checkpointing=checkpointing)).train()
        found = made(volume((8, 8, 8)), volume((8, 8, 8), 1), H)
        (found.displacement_mm.square().sum() + found.logits.square().sum()).backward()
        gradients.append([p.grad for p in made.parameters()])
    assert len(calls) == 6  # three stages of two blocks
    for plain, again in zip(*gradients, strict=True):
        assert torch.allclose(plain, again, rtol=1e-4, atol=1e-6)


def test_blocks_add_up_in_their_own_voxels() -> None:
    """Constant displacements in voxels: the sum of each times its voxel size, however they are composed."""
    made = network(ALONE)
    steps = torch.tensor([[0.5, -1.0, 2.0], [0.25, 3.0, -0.5]])
    with torch.no_grad():
        for block, step in zip(made.blocks, steps, strict=True):
            block.deformation.weight.zero_()  # type: ignore[union-attr]
            block.deformation.bias.copy_(step)  # type: ignore[union-attr]
        found = made(volume((8, 8, 16)), volume((8, 8, 16), 1), H)
    wanted = (2 * steps[0] + steps[1]) * torch.tensor(H)
    assert torch.allclose(found.displacement_mm, wanted.view(1, 3, 1, 1, 1).expand_as(found.displacement_mm))
    assert torch.allclose(found.coarser_mm[0][0, :, 0, 0, 0], 2 * steps[0] * torch.tensor(H))


class Fixed(torch.nn.Module):
    """In the place of a block: a given displacement, and what it was shown."""

    def __init__(self, step_vox: Tensor) -> None:
        super().__init__()
        self.step_vox, self.shown = step_vox, torch.zeros(0)

    def forward(self, pair: Tensor) -> tuple[Tensor, Tensor]:
        self.shown = pair
        return self.step_vox, torch.ones_like(pair[:, :2])


def test_the_finer_block_sees_what_the_coarser_one_moved_and_warps_it_on() -> None:
    made = network(SMALL)
    generator = torch.Generator().manual_seed(2)
    rough = torch.nn.functional.interpolate(
        torch.randn(1, 3, 2, 2, 2, generator=generator), (8, 8, 8), mode="trilinear"
    )
    first, then = Fixed(2 * rough[..., ::2, ::2, ::2]), Fixed(rough.flip(2))
    made.blocks = torch.nn.ModuleList([first, then])
    r, t = volume((8, 8, 8)), torch.nn.functional.avg_pool3d(volume((16, 16, 16), 1), 2)
    found = made(r, t, H)
    coarse = warp_tensor(joint_network.normalised(t), joint_network.resize(found.coarser_mm[0], (8, 8, 8)), H)
    assert torch.allclose(then.shown[:, 1:], coarse, atol=1e-5)
    assert torch.allclose(then.shown[:, :1], joint_network.normalised(r))
    step = then.step_vox * torch.tensor(H).view(1, 3, 1, 1, 1)
    wanted = step + warp_tensor(joint_network.resize(found.coarser_mm[0], (8, 8, 8)), step, H)  # u2(x) + u1(x + u2(x))
    assert torch.allclose(found.displacement_mm, wanted, atol=1e-5)
    assert torch.equal(found.logits, torch.full_like(found.logits, 2.0))  # they add up


# -- warping ------------------------------------------------------------------------------------
def ramp() -> Tensor:
    z, y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in (8, 10, 12)), indexing="ij")
    return (x * H[0] + 10 * y * H[1] + 100 * z * H[2])[None, None]


def test_warping_moves_by_millimetres_along_x_y_z() -> None:
    u = torch.zeros(1, 3, 8, 10, 12, dtype=torch.float64)
    u[:, 0], u[:, 1], u[:, 2] = 2.0, -1.0, 0.25
    moved = warp_tensor(ramp(), u, H)
    inner = (..., slice(1, -1), slice(1, -1), slice(1, -1))
    assert torch.allclose(moved[inner], ramp()[inner] + 2.0 - 10.0 + 25.0)
    assert torch.allclose(warp_tensor(ramp(), 0 * u, H), ramp(), atol=1e-9)


def test_composing_is_warping_twice() -> None:
    generator = torch.Generator().manual_seed(3)
    coarse = torch.randn(2, 3, 2, 3, 3, generator=generator, dtype=torch.float64)
    first, then = torch.nn.functional.interpolate(coarse, (8, 10, 12), mode="trilinear", align_corners=True)[:, None]
    step = warp_tensor(warp_tensor(ramp(), 0.3 * first, H), 0.3 * then, H)
    once = warp_tensor(ramp(), compose(0.3 * first, 0.3 * then, H), H)
    inner = (..., slice(2, -2), slice(3, -3), slice(2, -2))
    assert torch.allclose(step[inner], once[inner], atol=1e-6)  # the ramp is linear, u nearly so between voxels


def test_a_crop_is_warped_and_composed_as_the_whole_is() -> None:
    generator = torch.Generator().manual_seed(4)
    u, then = torch.randn(2, 1, 3, 8, 10, 12, generator=generator, dtype=torch.float64)
    box = (..., slice(2, 6), slice(3, 10), slice(4, 9))
    offset = (4, 3, 2)  # (x, y, z)
    assert torch.allclose(warp_tensor(ramp(), u[box], H, offset), warp_tensor(ramp(), u, H)[box], atol=1e-9)
    assert torch.allclose(compose(u, then[box], H, offset), compose(u, then, H)[box], atol=1e-9)
    assert not torch.allclose(warp_tensor(ramp(), u[box], H, (3, 4, 2)), warp_tensor(ramp(), u, H)[box], atol=0.1)


def test_the_inverse_brings_points_back() -> None:
    coarse = 0.4 * torch.randn(1, 3, 3, 3, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    u = torch.nn.functional.interpolate(coarse, (8, 10, 12), mode="trilinear", align_corners=True)
    inner = (..., slice(2, -2), slice(3, -3), slice(3, -3))
    assert float(u[inner].abs().max()) > 0.2
    assert float(compose(u, inverse(u, H), H)[inner].abs().max()) < 1e-6
    assert float(compose(inverse(u, H), u, H)[inner].abs().max()) < 0.1  # its kinks are smoothed


def test_displacement_at_points() -> None:
    u = torch.cat([ramp(), 2 * ramp(), -ramp()], dim=1)[0]
    index = torch.tensor([[3.0, 4.0, 5.0], [0.5, 8.25, 6.75], [-4.0, 99.0, 0.0]], dtype=torch.float64)
    inside = index.clone()
    inside[2] = torch.tensor([0.0, 9.0, 0.0])
    wanted = inside @ torch.tensor([H[0], 10 * H[1], 100 * H[2]], dtype=torch.float64)
    found = displacement_at(u, index)
    assert torch.allclose(found, torch.stack([wanted, 2 * wanted, -wanted], dim=1))


@pytest.mark.parametrize("axis", [2, 3, 4])
@pytest.mark.parametrize(("depth", "sizes"), [(1, [62, 62]), (2, [60, 88, 60])])
def test_slabs_give_what_the_whole_gives(
    depth: int, sizes: list[int], axis: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Across the longest axis, with all that a block sees in common; in double precision a voxel less would show."""
    made = network(NetworkOptions(factors=(1,), channels=(2,), reach=(0,), depth=depth, kept_statistics=True)).double()
    torch.nn.init.normal_(made.blocks[0].deformation.weight)
    pair = torch.randn(1, 2, 96, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    pair = pair.transpose(2, axis).contiguous()
    with torch.no_grad():
        made.train()._run_block(-1, pair)  # statistics
        whole = made.eval()._run_block(-1, pair)
        seen = []
        hook = made.blocks[0].register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[axis]))
        monkeypatch.setattr(joint_network, "SLAB_VOXELS", 8 * 8 * 64)
        slabs = made._run_block(-1, pair)
        hook.remove()
    assert seen == sizes
    for ours, theirs in zip(slabs, whole, strict=True):
        assert float((ours - theirs).abs().max()) < 1e-13 < 0.01 < float(theirs.abs().max())


# -- the shift before a block ---------------------------------------------------------------------
def scan_and_moved() -> tuple[Tensor, Tensor]:
    """R, and T with T(x + shift) = R(x) for the shift (x, y, z) = (-2, 0, 1)."""
    scan = torch.randn(1, 1, 12, 14, 16, generator=torch.Generator().manual_seed(3))
    return scan, scan.roll((1, -2), (2, 4))


def test_similarity_is_one_at_the_shift_that_undoes_the_motion() -> None:
    found = similarity(*scan_and_moved(), 2)
    assert found.shape == (1, 125, 12, 14, 16)
    inner = found[0, :, 5:-5, 4:-4, 5:-5]
    number = ((1 + 2) * 5 + (0 + 2)) * 5 + (-2 + 2)
    assert (inner.argmax(0) == number).all()
    assert float(inner[number].min()) > 0.999
    others = torch.cat([inner[:number], inner[number + 1 :]])
    assert float(others.max()) < 0.9
    assert torch.allclose(-inner.log().mean(0), torch.ones(()), atol=1e-5)  # d / mean d over all shifts


def test_similarity_does_not_mind_another_density() -> None:
    scan, moved = scan_and_moved()
    assert torch.allclose(similarity(scan, moved, 1), similarity(scan, moved + 0.4, 1), atol=1e-4)


def test_the_best_shift_is_the_motion_in_voxels_x_y_z() -> None:
    found = best_shift(*scan_and_moved(), 2)
    wanted = torch.tensor([-2.0, 0.0, 1.0]).view(3, 1, 1, 1)
    assert (found[0, :, 5:-5, 4:-4, 6:-6] - wanted).abs().max() < 0.02
    scan = scan_and_moved()[0]
    still = torch.zeros_like(scan)
    assert best_shift(still, still, 2).abs().max() < 1e-5  # all shifts are alike


def test_the_shift_comes_before_the_block_and_has_no_gradient() -> None:
    """With blocks that add nothing, u is the shift in mm, the finer one on top of the coarser."""
    made = network(SMALL)
    assert [block.down[0].layers[0].weight.shape[1] for block in made.blocks] == [5, 2]  # type: ignore[union-attr]
    for block in made.blocks:
        torch.nn.init.zeros_(block.deformation.weight)  # type: ignore[union-attr,arg-type]
    scan = torch.nn.functional.interpolate(scan_and_moved()[0], scale_factor=2.0) * 700 - 300
    template = scan.roll(2, 4).requires_grad_(True)
    assert not best_shift(scan, template, 1).requires_grad
    found = made(scan, template, H).displacement_mm
    assert (found[0, 0, 8:-8, 8:-8, 8:-8] - 2 * H[0]).abs().max() < 0.2
    assert found[0, 1:, 8:-8, 8:-8, 8:-8].abs().max() < 0.2
    for wrong in ((1,), (9, 0)):
        with pytest.raises(ValueError, match="reach"):
            NetworkOptions(factors=(2, 1), channels=(2, 2), reach=wrong)
