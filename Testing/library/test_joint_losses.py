"""Eq. (2): golden values, gradients, and where no gradient may go."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.joint.warping import jacobian_on_network_grid
from ChangeMapJointLib.training.losses import (
    EpochRecall,
    LossOptions,
    LossWeights,
    Sample,
    change_target,
    joint_terms,
    keypoint_term,
    lesion_volume,
    recall_loss,
    robust_distance,
    total,
)

H = (2.0, 1.0, 0.5)
SHAPE = (8, 10, 12)


def axes() -> tuple[Tensor, Tensor, Tensor]:
    z, y, x = (torch.arange(n, dtype=torch.float64) for n in SHAPE)
    x, y, z = x * H[0], y * H[1], z * H[2]
    return x[None, None, :].expand(SHAPE), y[None, :, None].expand(SHAPE), z[:, None, None].expand(SHAPE)


def ball(radius: float, centre: tuple[float, float, float] = (11.0, 5.0, 2.0)) -> Tensor:
    x, y, z = axes()
    return (((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (2 * (z - centre[2])) ** 2) <= radius**2).double()


# ten voxels, nine of one class: method and values of a hand calculation
P_CHANGED = [0.1, 0.2, 0.3, 0.4, 0.6, 0.1, 0.2, 0.1, 0.7, 0.3]
TARGET = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1]


def ten() -> tuple[Tensor, Tensor, Tensor]:
    p = torch.tensor(P_CHANGED, dtype=torch.float64)
    logits = torch.stack([(1 - p).log(), p.log()]).reshape(2, 1, 2, 5)
    return logits, torch.tensor(TARGET, dtype=torch.bool).reshape(1, 2, 5), torch.ones(1, 2, 5)


def test_recall_loss_of_ten_voxels_by_hand() -> None:
    logits, target, where = ten()
    counts = EpochRecall()
    assert counts.weights.tolist() == [1, 1]
    plain = recall_loss(logits, target, counts.weights, where)
    assert float(plain) == pytest.approx(0.410681, abs=1e-6)  # the mean cross-entropy
    counts.add(logits, target, where)
    weights = counts.finish()
    assert weights.tolist() == pytest.approx([0.125, 0.5])
    assert float(recall_loss(logits, target, weights, where)) == pytest.approx(0.549297, abs=1e-6)


def test_counts_gather_over_an_epoch_and_absent_classes_keep_their_weight() -> None:
    logits, target, where = ten()
    whole, parts = EpochRecall(), EpochRecall()
    whole.add(logits, target, where)
    for half in (slice(0, 1), slice(1, 2)):
        parts.add(logits[:, :, half], target[:, half], where[:, half])
    resumed = EpochRecall()
    resumed.load(parts.state())
    assert whole.finish().tolist() == parts.finish().tolist() == resumed.finish().tolist()
    # only unchanged voxels, all said right: the other class stays, this one keeps a little
    whole.add(torch.stack([torch.ones(1, 2, 5), torch.zeros(1, 2, 5)]), torch.zeros(1, 2, 5, dtype=torch.bool), where)
    assert whole.finish().tolist() == pytest.approx([0.01, 0.5])


def test_a_least_weight_of_one_is_the_plain_cross_entropy_for_ever() -> None:
    logits, target, where = ten()
    counts = EpochRecall(least_weight=1.0)
    for _ in range(2):
        counts.add(logits, target, where)
        weights = counts.finish()
        assert float(recall_loss(logits, target, weights, where)) == pytest.approx(0.410681, abs=1e-6)
    for least in (0.0, 1.5):
        with pytest.raises(InputError, match=f"least_weight: found {least}"):
            LossOptions(least_weight=least)


def test_voxels_that_do_not_count_do_not_count() -> None:
    logits, target, where = ten()
    where = where.clone()
    where[0, 0, 4] = 0  # the false alarm
    counts = EpochRecall()
    counts.add(logits, target, where)
    assert counts.finish().tolist() == pytest.approx([0.01, 0.5])
    nothing = recall_loss(logits.requires_grad_(True), target, torch.ones(2), torch.zeros(1, 2, 5))
    assert float(nothing.detach()) == 0
    nothing.backward()
    assert not logits.grad.any()  # type: ignore[union-attr]


def test_pairs_without_change_and_all_right_do_not_crash() -> None:
    logits = torch.zeros(2, 2, 2, 2)
    logits[0] = 5.0
    counts = EpochRecall()
    for _ in range(2):
        counts.add(logits, torch.zeros(2, 2, 2, dtype=torch.bool), torch.ones(2, 2, 2))
        assert torch.isfinite(counts.finish()).all()


def test_the_determinant_of_an_affine_map_is_exact() -> None:
    x, y, z = axes()
    u = torch.stack([0.1 * x + 0.02 * y, -0.2 * y + 0.05 * z, 0.03 * x + 0.3 * z])
    assert jacobian_on_network_grid(u, H).flatten().tolist() == pytest.approx([1.144030] * x.numel(), abs=1e-9)


def test_lesions_that_keep_their_volume_cost_nothing_and_halved_ones_half() -> None:
    x, _, _ = axes()
    lesion, none = ball(4.0), torch.zeros(SHAPE, dtype=torch.float64)
    still = torch.zeros(3, *SHAPE, dtype=torch.float64)
    assert float(lesion_volume(still, H, lesion, none)) == 0
    squeezed = still.clone()
    squeezed[0] = -0.5 * x  # det = 0.5, psi = 0.5
    assert float(lesion_volume(squeezed, H, lesion, none)) == pytest.approx(0.5)
    assert float(lesion_volume(squeezed, H, none, lesion)) == pytest.approx(0.5)  # it was there before
    free = still.clone().requires_grad_(True)
    nothing = lesion_volume(free, H, none, none)
    nothing.backward()
    assert float(nothing.detach()) == 0
    assert not free.grad.any()  # type: ignore[union-attr]


def test_the_volume_term_counts_round_lesions_only() -> None:
    u = torch.zeros(3, *SHAPE, dtype=torch.float64)
    u[0, :, :, -3:] = torch.tensor([1.0, 2.0, 3.0])  # far from the lesion
    near, far = ball(2.0, (4.0, 5.0, 2.0)), ball(2.0, (20.0, 5.0, 2.0))
    none = torch.zeros_like(near)
    assert float(lesion_volume(u, H, near, none)) == 0
    assert float(lesion_volume(u, H, far, none)) > 0.01


def test_gradients_of_the_new_terms_are_right() -> None:
    generator = torch.Generator().manual_seed(0)
    small = (3, 4, 3)
    u = (0.3 * torch.randn(3, *small, generator=generator, dtype=torch.float64)).requires_grad_(True)
    lesion = (torch.rand(small, generator=generator) < 0.3).double()
    assert torch.autograd.gradcheck(lambda v: lesion_volume(v, H, lesion, torch.zeros_like(lesion)), (u,))
    logits = torch.randn(2, *small, generator=generator, dtype=torch.float64)
    target = torch.rand(small, generator=generator) < 0.3
    weights = torch.tensor([0.2, 0.9], dtype=torch.float64)
    probabilities = logits.softmax(0)
    leaf = logits.float().requires_grad_(True)  # the loss itself works in float32 whatever comes in
    recall_loss(leaf, target, weights, torch.ones(small)).backward()
    one_hot = torch.stack([~target, target]).double()
    w = weights[target.long()]
    expected = w * (probabilities - one_hot) / w.sum()
    assert torch.allclose(leaf.grad.double(), expected, atol=1e-6)  # type: ignore[union-attr]


def sample() -> Sample:
    generator = torch.Generator().manual_seed(1)
    image = 200 * torch.randn(SHAPE, generator=generator, dtype=torch.float64) - 600
    lungs = torch.zeros(SHAPE, dtype=torch.float64)
    lungs[1:-1, 1:-1, 1:-1] = 1
    points = torch.tensor([[3.0, 4.0, 2.0], [8.0, 5.0, 5.0]], dtype=torch.float64)
    return Sample(
        image, image.roll(1, 2), lungs, lungs, *(ball(4.0), ball(3.0)) * 2, points, torch.zeros(2, 3), (40.0, 40.0), H
    )


def test_no_gradient_of_the_change_reaches_the_deformation() -> None:
    given = sample()
    u = torch.zeros(3, *SHAPE, dtype=torch.float64, requires_grad=True)
    logits = torch.zeros(2, *SHAPE, dtype=torch.float64, requires_grad=True)
    terms, target = joint_terms(u, logits, given, torch.ones(2))
    assert target.any()
    assert not target.requires_grad
    gradient = torch.autograd.grad(terms["recall"], [u, logits], allow_unused=True, retain_graph=True)
    assert gradient[0] is None
    assert gradient[1].abs().max() > 0
    others = torch.stack([terms[name] for name in ("ngf", "mask", "keypoints", "curvature", "volume")]).sum()
    assert torch.autograd.grad(others, [u, logits], allow_unused=True)[1] is None


def test_the_sum_counts_every_term_by_its_weight() -> None:
    u = torch.zeros(3, *SHAPE, dtype=torch.float64)
    u[0] = 2.0  # one voxel: undoes the roll
    terms, _ = joint_terms(u, torch.zeros(2, *SHAPE), sample(), torch.ones(2))
    assert set(terms) == set(vars(LossWeights()))
    assert float(terms["keypoints"]) == pytest.approx(4.0)
    assert float(terms["curvature"]) == pytest.approx(0, abs=1e-12)
    assert float(terms["recall"]) == pytest.approx(0.693147, abs=1e-5)
    still, _ = joint_terms(torch.zeros_like(u), torch.zeros(2, *SHAPE), sample(), torch.ones(2))
    assert float(terms["ngf"]) < 0.5 * float(still["ngf"])
    weights = LossWeights(1, 2, 3, 4, 5, 6)
    expected = sum(
        n * float(terms[k]) for n, k in enumerate(("ngf", "curvature", "keypoints", "mask", "volume", "recall"), 1)
    )
    assert float(total(terms, weights)) == pytest.approx(expected, rel=1e-6)


def test_the_target_is_where_a_lesion_is_at_one_time_only() -> None:
    now, before = torch.tensor([1.0, 0.9, 0.0, 0.4]), torch.tensor([1.0, 0.2, 0.6, 0.3])
    assert change_target(now, before).tolist() == [False, True, True, False]


# -- options ------------------------------------------------------------------------------------
def test_far_keypoints_count_linearly() -> None:
    apart = torch.tensor([[0.0, 0.0, 0.0], [3.0, 0.0, 4.0], [0.0, 12.0, 0.0]], dtype=torch.float64)
    none = torch.zeros_like(apart)
    assert float(robust_distance(apart, none, 0.0)) == pytest.approx((25 + 144) / 3)
    # s = 9: 18 (sqrt(81 + 25) - 9) and 18 (15 - 9) = 108
    assert float(robust_distance(apart, none, 9.0)) == pytest.approx((18 * (106**0.5 - 9) + 108) / 3)
    assert float(robust_distance(apart[1:2] / 1000, none[:1], 3.0)) == pytest.approx(25e-6, rel=1e-4)
    leaf = none[:1].clone().requires_grad_(True)
    robust_distance(leaf, none[:1], 3.0).backward()
    assert leaf.grad is not None
    assert leaf.grad.abs().max() == 0  # no NaN where the distance is 0
    assert float(robust_distance(none[:0], none[:0], 3.0)) == 0.0


def test_coarser_blocks_are_judged_at_the_same_places() -> None:
    """A displacement that is linear in space is the same on every grid, but for the outer half voxel."""
    shape = (8, 8, 16)
    x = torch.arange(16, dtype=torch.float64) * H[0]
    fine = torch.stack([(0.1 * x).expand(shape), torch.zeros(shape), torch.zeros(shape)])
    coarse = torch.nn.functional.avg_pool3d(fine[None].double(), 2)[0]
    index = torch.tensor([[3.0, 4.0, 4.0], [7.25, 3.0, 2.0]], dtype=torch.float64)
    partners = torch.zeros(2, 3, dtype=torch.float64)
    partners[:, 0] = 0.1 * H[0] * index[:, 0]
    given = replace(sample(), keypoints_vox=index, partners_mm=partners)
    assert float(keypoint_term(fine, [coarse], given, LossOptions(coarser=1.0))) == pytest.approx(0, abs=1e-12)
    wrong = keypoint_term(fine, [coarse + 2.0, coarse], given, LossOptions(coarser=0.5))
    assert float(wrong) == pytest.approx(0.5 * (12.0 + 0.0) / 2)  # 2 mm along three axes, in one of two blocks
    assert float(keypoint_term(fine, [coarse + 2.0], given, LossOptions())) == pytest.approx(0, abs=1e-12)


def test_a_stable_lesion_is_no_change_when_only_changes_are_the_target() -> None:
    """Half a voxel beside itself, as printed it has a target along its border."""
    lesion, none = ball(4.0), torch.zeros(SHAPE, dtype=torch.float64)
    stable = replace(
        sample(), lesions_reference=lesion, lesions_template=lesion, changed_reference=none, changed_template=none
    )
    u = torch.zeros(3, *SHAPE, dtype=torch.float64)
    u[0] = 1.2
    terms = [
        joint_terms(u, torch.zeros(2, *SHAPE), stable, torch.ones(2), options=LossOptions(only_changed=c))
        for c in (False, True)
    ]
    assert terms[0][1].any()
    assert not terms[1][1].any()
    new = replace(stable, lesions_template=none, changed_reference=lesion)
    target = joint_terms(u, torch.zeros(2, *SHAPE), new, torch.ones(2), options=LossOptions(only_changed=True))[1]
    assert torch.equal(target, lesion > 0.5)
