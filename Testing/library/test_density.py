"""The lung's density follows its volume: what the network's last block is shown of T."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.joint.density import scale_density
from ChangeMapJointLib.joint.network import JointNetwork, JointOutput, NetworkOptions
from ChangeMapJointLib.joint.warping import jacobian_on_network_grid
from ChangeMapJointLib.synthesis.acquisition import breathe_density

H = (2.0, 1.0, 0.5)
SIZE = (16, 16, 16)


def one(value: float) -> torch.Tensor:
    return torch.full((1, 1, 1, 1, 1), value)


@pytest.mark.parametrize(
    ("hu", "det", "expected"),
    [
        (-850, 1.3, -805),  # 150 g/l times 1.3
        (-850, 0.5, -925),
        (-850, 1.0, -850),
        (-600, 1.5, -400),  # a vessel thinner than the voxel
        (-300, 1.3, -195),  # half way up the ramp: 700 g/l times 1.15
        (-100, 1.3, -100),
        (40, 2.0, 40),  # a nodule does not compress
        (-1000, 2.0, -1000),
        (-850, -4.0, -955),  # where y folds: 0.3
        (-850, 9.0, -550),  # 3
    ],
)
def test_golden_values(hu: float, det: float, expected: float) -> None:
    assert float(scale_density(one(hu), one(det)[0])) == pytest.approx(expected, abs=1e-3)


def test_in_the_lungs_it_is_what_the_synthetic_pairs_have() -> None:
    rng = np.random.default_rng(0)
    hu = rng.uniform(-1000, 200, SIZE).astype(np.float32)
    det = rng.uniform(0.4, 2.0, SIZE).astype(np.float32)
    made = breathe_density(hu, det, np.ones(SIZE))
    found = scale_density(torch.from_numpy(hu)[None, None], torch.from_numpy(det)[None])
    np.testing.assert_allclose(found[0, 0].numpy(), made, atol=1e-3)


def test_no_gradient_reaches_the_deformation() -> None:
    u = torch.zeros(1, 3, *SIZE, requires_grad=True)
    template = torch.full((1, 1, *SIZE), -850.0, requires_grad=True)
    found = scale_density(template, jacobian_on_network_grid(u, H))
    found.sum().backward()
    assert u.grad is None
    assert template.grad is not None


@pytest.mark.parametrize("match_density", [False, True])
def test_the_last_block_is_shown_t_as_dense_as_r(match_density: bool) -> None:
    """R is a lung at rest, T the same one with 1.21 times the room for its tissue, and so less dense."""
    stretched = torch.zeros(1, 3, *SIZE)
    x, y = (torch.arange(16) * h for h in H[:2])
    stretched[:, 0], stretched[:, 1] = 0.1 * (x - x.mean()), 0.1 * (y - y.mean())[:, None]
    template = torch.full((1, 1, *SIZE), -870.0)
    reference = template + 0.21 * 130
    options = NetworkOptions(factors=(2, 1), channels=(2, 2), reach=(0, 0), depth=1, match_density=match_density)
    torch.manual_seed(0)
    network = JointNetwork(options)
    shown = []
    network.blocks[-1].register_forward_pre_hook(lambda _, given: shown.append(given[0]))
    with torch.no_grad():
        network.finest(reference, template, H, JointOutput(stretched, torch.zeros(1, 2, *SIZE)))
    apart_hu = (shown[0][0, 0] - shown[0][0, 1]) * 700
    expected = 0.0 if match_density else 27.3
    np.testing.assert_allclose(apart_hu.numpy(), expected, atol=0.01)
    for wrong in ({"factors": (1,), "channels": (2,), "reach": (0,)}, {"reach": (0, 1)}):  # no smooth y to go by
        with pytest.raises(InputError, match="match_density"):
            replace(options, **{"match_density": True, **wrong})  # type: ignore[arg-type]
    plain = JointNetwork(replace(options, match_density=False))
    assert network.state_dict().keys() == plain.state_dict().keys()  # the same weights serve both
