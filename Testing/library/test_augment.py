"""Variants of a pair: keypoints must still point at the same grey values, and no lesion may change its kind."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.joint.warping import displacement_at
from ChangeMapJointLib.training.augment import (
    STEEPEST,
    AugmentOptions,
    augmented,
    draw_smooth_motion,
    exchanged,
    mirrored,
    move_reference,
)
from ChangeMapJointLib.training.losses import Sample

SHAPE = (24, 28, 32)
H = (2.0, 1.5, 3.0)
SHIFT_MM = torch.tensor([4.0, -3.0, 3.0])  # T(x + u) = R(x): two, minus two and one voxel


def smooth(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, 1, 8, 8, 8, generator=generator)
    return 300 * torch.nn.functional.interpolate(noise, SHAPE, mode="trilinear")[0, 0] - 500


def box(*low: int) -> Tensor:
    made = torch.zeros(SHAPE)
    made[tuple(slice(a, a + 4) for a in low)] = 1.0
    return made


def pair() -> Sample:
    reference = smooth(1)
    template = reference.roll((1, -2, 2), (0, 1, 2))
    generator = torch.Generator().manual_seed(2)
    keypoints = 8 + torch.rand(50, 3, generator=generator) * torch.tensor([15.0, 11.0, 7.0])
    new, stable = box(6, 8, 8), box(14, 16, 20)
    moved_stable = stable.roll((1, -2, 2), (0, 1, 2))
    return Sample(
        reference,
        template,
        mask_reference=torch.ones(SHAPE),
        mask_template=torch.ones(SHAPE),
        lesions_reference=new + stable,
        lesions_template=moved_stable,
        changed_reference=new,
        changed_template=torch.zeros(SHAPE),
        keypoints_vox=keypoints,
        partners_mm=SHIFT_MM.expand(50, 3).clone(),
        edges=(10.0, 20.0),
        spacing_mm=H,
        true_mm=SHIFT_MM.view(3, 1, 1, 1).expand(3, 12, 14, 16).clone(),
    )


def off_truth(sample: Sample) -> float:
    """Largest distance in mm between the true u at the keypoints and their partners."""
    assert sample.true_mm is not None
    fewer = torch.tensor(sample.reference.shape[::-1]) / torch.tensor(sample.true_mm.shape[:0:-1])
    true = displacement_at(sample.true_mm, (sample.keypoints_vox + 0.5) / fewer - 0.5)
    return float((true - sample.partners_mm).norm(dim=1).max())


def mismatch(sample: Sample) -> float:
    """Largest difference in HU between R at its keypoints and T at their partners."""
    partners = sample.keypoints_vox + sample.partners_mm / torch.tensor(H)
    r = displacement_at(sample.reference[None], sample.keypoints_vox)
    t = displacement_at(sample.template[None], partners)
    return float((r - t).abs().max())


def test_the_pair_itself_matches() -> None:
    assert mismatch(pair()) < 1e-2
    assert mismatch(replace(pair(), partners_mm=-pair().partners_mm)) > 100


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mirrored_pair_matches_and_twice_is_the_same(axis: int) -> None:
    made = mirrored(pair(), axis)
    assert mismatch(made) < 1e-2
    assert torch.equal(made.reference, pair().reference.flip(2 - axis))
    again = mirrored(made, axis)
    assert torch.equal(again.lesions_template, pair().lesions_template)
    assert torch.allclose(again.keypoints_vox, pair().keypoints_vox, atol=1e-5)


def test_exchanged_scans_match_and_a_new_lesion_is_a_resolved_one() -> None:
    made = exchanged(pair())
    assert mismatch(made) < 1e-2
    assert torch.equal(made.changed_template, pair().changed_reference)
    assert not made.changed_reference.any()
    assert made.edges == (20.0, 10.0)


def test_further_motion_is_what_was_asked_and_keypoints_move_along() -> None:
    sample = pair()
    v = torch.zeros(1, 3, *SHAPE)
    v[:, 0] = 3.0  # R'(x) = R(x + 3 mm): a voxel and a half
    made = move_reference(sample, v)
    assert torch.allclose(made.keypoints_vox[:, 0], sample.keypoints_vox[:, 0] - 1.5, atol=1e-4)
    assert torch.allclose(made.partners_mm, sample.partners_mm + torch.tensor([3.0, 0.0, 0.0]), atol=1e-3)
    knots = 6 * torch.randn(1, 3, 4, 4, 4, generator=torch.Generator().manual_seed(3))
    drawn = move_reference(sample, draw_smooth_motion(knots, sample))
    assert float((drawn.partners_mm - sample.partners_mm).norm(dim=1).max()) > 1.0
    assert mismatch(drawn) < 60  # interpolated twice; untouched partners are off by hundreds
    assert mismatch(replace(drawn, partners_mm=sample.partners_mm)) > 100


def test_the_true_displacement_moves_along() -> None:
    waves = pair()
    assert waves.true_mm is not None
    z, y, x = torch.meshgrid(*(torch.linspace(0, 3, n) for n in (12, 14, 16)), indexing="ij")
    true = torch.stack([4 + 2 * torch.sin(x), 2 * torch.cos(y + x) - 3, 3 + torch.sin(z)])
    at = (waves.keypoints_vox + 0.5) / 2 - 0.5
    waves = replace(waves, true_mm=true, registered_mm=true.clone(), partners_mm=displacement_at(true, at))
    assert off_truth(waves) < 1e-4
    assert off_truth(replace(waves, true_mm=-true)) > 5
    assert exchanged(pair()).registered_mm is None
    knots = 6 * torch.randn(1, 3, 4, 4, 4, generator=torch.Generator().manual_seed(3))
    for made in (
        *(mirrored(waves, axis) for axis in range(3)),
        exchanged(waves),
        move_reference(waves, draw_smooth_motion(knots, waves)),
        move_reference(mirrored(exchanged(waves), 1), draw_smooth_motion(knots, waves)),
    ):
        assert off_truth(made) < 0.15  # interpolated once more
        assert made.registered_mm is not None
        assert torch.equal(made.registered_mm, made.true_mm)  # they were the same
        assert not torch.allclose(made.partners_mm, waves.partners_mm)


def test_further_motion_is_far_from_folding() -> None:
    v = draw_smooth_motion(100 * torch.randn(1, 3, 4, 4, 4, generator=torch.Generator().manual_seed(5)), pair())
    for axis, h in enumerate(H):
        assert float(torch.gradient(v, spacing=h, dim=4 - axis)[0].abs().max()) <= STEEPEST + 1e-5


def test_the_seed_decides_and_nothing_is_varied_by_default() -> None:
    sample = pair()
    same = augmented(sample, AugmentOptions(), seed=(1, 2, 3))
    assert torch.equal(same.reference, sample.reference)
    options = AugmentOptions(mirror=0.5, exchange=0.5, motion_mm=3.0)
    one, two = (augmented(sample, options, seed=(1, 2, 3)) for _ in range(2))
    assert torch.equal(one.reference, two.reference)
    assert any(
        not torch.equal(one.reference, augmented(sample, options, seed=(1, epoch, 3)).reference) for epoch in (3, 4)
    )
    assert mismatch(one) < 60


def test_options_out_of_range_are_refused() -> None:
    for wrong in ({"mirror": 1.5}, {"exchange": -0.1}, {"motion_mm": 40.0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            AugmentOptions(**wrong)
