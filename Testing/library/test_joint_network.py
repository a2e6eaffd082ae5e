"""The network: shapes, what splits where, how far it sees, warping and composing; and its files."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.joint.checkpoint import read_checkpoint, write_checkpoint
from ChangeMapJointLib.joint.network import JointNetwork, NetworkOptions, TwoHeadUNet
from ChangeMapJointLib.joint.warping import at_points, compose, warp

H = (2.0, 1.0, 0.5)
PAPER = NetworkOptions(factors=(1,), channels=4)
SMALL = NetworkOptions(factors=(2, 1), channels=2, depth=1)


def volume(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return 300 * torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(seed)) - 500


def network(options: NetworkOptions, seed: int = 0) -> JointNetwork:
    torch.manual_seed(seed)
    return JointNetwork(options)


@pytest.mark.parametrize("options", [PAPER, SMALL, NetworkOptions(channels=2)])
def test_both_heads_have_the_shape_of_the_scan(options: NetworkOptions) -> None:
    with torch.no_grad():
        found = network(options)(volume((16, 32, 48)), volume((16, 32, 48), 1), H)
    assert found.displacement_mm.shape == (1, 3, 16, 32, 48)
    assert found.logits.shape == (1, 2, 16, 32, 48)
    assert [u.shape[2] for u in found.coarser_mm] == [16 // f for f in options.factors[:-1]]
    assert 0 <= float(found.change.min()) <= float(found.change.max()) <= 1


def test_the_heads_split_in_the_last_convolution_alone() -> None:
    block = TwoHeadUNet(PAPER)
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
    found = network(SMALL)(volume((8, 8, 8)), volume((8, 8, 8), 1), (1.0, 1.0, 1.0))
    assert 0 < float(found.displacement_mm.detach().abs().max()) < 0.5


def test_shapes_that_do_not_divide_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="multiples of 16"):
        network(NetworkOptions(channels=1))(volume((16, 16, 24)), volume((16, 16, 24)), H)
    with pytest.raises(ValueError, match="equal"):
        network(PAPER)(volume((16, 16, 16)), volume((16, 16, 32)), H)
    for factors in ((), (1, 2), (4, 3, 1), (2,)):
        with pytest.raises(ValueError, match="factors"):
            NetworkOptions(factors=factors)


def test_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        made = network(NetworkOptions(factors=(2, 1), channels=2, depth=1, checkpointing=checkpointing)).train()
        found = made(volume((8, 8, 8)), volume((8, 8, 8), 1), H)
        (found.displacement_mm.square().sum() + found.logits.square().sum()).backward()
        gradients.append([p.grad for p in made.parameters()])
    for plain, again in zip(*gradients, strict=True):
        assert torch.allclose(plain, again, rtol=1e-4, atol=1e-6)


# -- warping ------------------------------------------------------------------------------------
def ramp() -> Tensor:
    z, y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in (8, 10, 12)), indexing="ij")
    return (x * H[0] + 10 * y * H[1] + 100 * z * H[2])[None, None]


def test_warping_moves_by_millimetres_along_x_y_z() -> None:
    u = torch.zeros(1, 3, 8, 10, 12, dtype=torch.float64)
    u[:, 0], u[:, 1], u[:, 2] = 2.0, -1.0, 0.25
    moved = warp(ramp(), u, H)
    inner = (..., slice(1, -1), slice(1, -1), slice(1, -1))
    assert torch.allclose(moved[inner], ramp()[inner] + 2.0 - 10.0 + 25.0)
    assert torch.allclose(warp(ramp(), 0 * u, H), ramp(), atol=1e-9)


def test_composing_is_warping_twice() -> None:
    generator = torch.Generator().manual_seed(3)
    coarse = torch.randn(2, 3, 2, 3, 3, generator=generator, dtype=torch.float64)
    first, then = torch.nn.functional.interpolate(coarse, (8, 10, 12), mode="trilinear", align_corners=True)[:, None]
    step = warp(warp(ramp(), 0.3 * first, H), 0.3 * then, H)
    once = warp(ramp(), compose(0.3 * first, 0.3 * then, H), H)
    inner = (..., slice(2, -2), slice(3, -3), slice(2, -2))
    assert torch.allclose(step[inner], once[inner], atol=1e-6)  # the ramp is linear, u nearly so between voxels


def test_displacement_at_points() -> None:
    u = torch.cat([ramp(), 2 * ramp(), -ramp()], dim=1)[0]
    index = torch.tensor([[3.0, 4.0, 5.0], [0.5, 8.25, 6.75], [-4.0, 99.0, 0.0]], dtype=torch.float64)
    inside = index.clone()
    inside[2] = torch.tensor([0.0, 9.0, 0.0])
    wanted = inside @ torch.tensor([H[0], 10 * H[1], 100 * H[2]], dtype=torch.float64)
    found = at_points(u, index)
    assert torch.allclose(found, torch.stack([wanted, 2 * wanted, -wanted], dim=1))


# -- files --------------------------------------------------------------------------------------
def stored(folder: Path) -> Path:
    path = folder / "small.safetensors"
    write_checkpoint(path, network(SMALL, seed=5), {"data": "none: a test"})
    return path


def test_weights_come_back_as_they_were(tmp_path: Path) -> None:
    path = stored(tmp_path)
    found = read_checkpoint(path)
    assert found.card["data"] == "none: a test"
    assert found.card["sha256"] == found.sha256
    assert found.network.options == SMALL
    assert not found.network.training
    for name, value in network(SMALL, seed=5).state_dict().items():
        assert torch.equal(found.network.state_dict()[name], value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small.json", "small.safetensors"]


class Bomb:
    """A pickle that would leave a trace if anything unpickled it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.trace),)


def put(path: Path, content: bytes, *, honest: bool) -> None:
    """Exchange the weights; ``honest``: with their hash in the card."""
    import hashlib

    path.write_bytes(content)
    if honest:
        card = json.loads(path.with_suffix(".json").read_text())
        card["sha256"] = hashlib.sha256(content).hexdigest()
        path.with_suffix(".json").write_text(json.dumps(card))


def test_wrong_files_are_one_clear_line_each(tmp_path: Path) -> None:
    path = stored(tmp_path)
    content = path.read_bytes()
    put(path, content[:-10], honest=False)
    with pytest.raises(InputError, match=r"SHA-256.*cut short or changed"):
        read_checkpoint(path)
    put(path, content[:200], honest=True)
    with pytest.raises(InputError, match="not safetensors"):
        read_checkpoint(path)
    put(path, b"", honest=True)
    with pytest.raises(InputError, match="not safetensors"):
        read_checkpoint(path)
    put(path, content, honest=True)
    renamed = path.rename(tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"other\.json: cannot be read"):
        read_checkpoint(renamed)
    path.with_suffix(".json").rename(tmp_path / "other.json")
    with pytest.raises(InputError, match=r"its weights are 'small\.safetensors'"):
        read_checkpoint(renamed)
    with pytest.raises(InputError, match="cannot be read"):
        read_checkpoint(tmp_path / "nowhere.safetensors")


def test_a_pickle_in_the_place_of_weights_is_not_opened(tmp_path: Path) -> None:
    path, trace = stored(tmp_path), tmp_path / "trace"
    put(path, pickle.dumps(Bomb(trace)), honest=True)
    with pytest.raises(InputError, match="not safetensors"):
        read_checkpoint(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "changemap-joint-9"}, "format is 'changemap-joint-9'"),
        ({"network": {"channels": 3}}, "do not fit the network"),
        ({"network": {"factors": [2, 1], "channels": 2, "depth": 1, "layers": 4}}, "unknown option 'layers'"),
        ({"network": [1]}, "no object of options"),
        ({"network": {"channels": 10**9}}, "channels"),
    ],
)
def test_cards_that_do_not_fit(tmp_path: Path, change: dict[str, object], said: str) -> None:
    path = stored(tmp_path)
    card = json.loads(path.with_suffix(".json").read_text()) | change
    path.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(InputError, match=said):
        read_checkpoint(path)


@pytest.mark.parametrize("content", ["", "[]", "{", "null", "[" * 100_000])
def test_cards_that_are_none(tmp_path: Path, content: str) -> None:
    path = stored(tmp_path)
    path.with_suffix(".json").write_text(content)
    with pytest.raises(InputError, match=r"small\.json"):
        read_checkpoint(path)
