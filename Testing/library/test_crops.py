"""Crops for the last block: they say what the whole pair says, and lie where lesions are."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_augment import SHAPE, SHIFT_MM, H, pair
from torch import Tensor

from ChangeMapJointLib.core.errors import Cancelled, InputError
from ChangeMapJointLib.joint.checkpoint import Checkpoint
from ChangeMapJointLib.joint.network import JointNetwork, JointOutput, NetworkOptions
from ChangeMapJointLib.joint.warping import jacobian_on_network_grid
from ChangeMapJointLib.training import pair_loss
from ChangeMapJointLib.training.augment import combine_seed, crop_seed
from ChangeMapJointLib.training.crops import (
    Crop,
    CropOptions,
    block_input,
    block_output,
    cropped,
    draw_offsets,
    starting_point,
)
from ChangeMapJointLib.training.losses import EpochRecall, LossOptions, LossWeights, Sample
from ChangeMapJointLib.training.pair_loss import crop_loss, whole_loss
from ChangeMapJointLib.training.trainer import TrainingOptions, train

SIZE = (24, 32, 32)  # (z, y, x)
NETWORK = NetworkOptions(factors=(2, 1), channels=(2, 2), reach=(1, 0), depth=1, kept_statistics=True)
COARSE_ONLY = CropOptions(count=3, shape=(8, 16, 16), near_truth=0.0)
TRUTH_ONLY = replace(COARSE_ONLY, near_truth=1.0, residual_mm=0.0)


def trained_a_little(*, match_density: bool = False) -> JointNetwork:
    """With statistics and steps that are no longer those of a fresh network."""
    torch.manual_seed(3)
    network = JointNetwork(replace(NETWORK, match_density=match_density))
    for block in network.blocks:
        torch.nn.init.normal_(block.deformation.weight, std=0.02)
    with torch.no_grad():
        network.train()(*(v[None, None] for v in (whole().reference, whole().template)), H)
    return network.eval()


def whole() -> Sample:
    """The pair of the augmentation's tests on a size that the network takes, with its true u."""

    def padded(v: Tensor) -> Tensor:
        return torch.nn.functional.pad(v[None, None], (0, 0, 0, 4, 0, 0), mode="replicate")[0, 0]

    sample = pair()
    volumes = {name: padded(v) for name, v in vars(sample).items() if isinstance(v, Tensor) and v.ndim == 3}
    true = SHIFT_MM.view(3, 1, 1, 1).expand(3, 12, 16, 16).clone()
    assert SHAPE == (24, 28, 32)
    return replace(sample, **volumes, true_mm=true)


@pytest.mark.parametrize("match_density", [False, True])
def test_a_crop_is_answered_as_the_whole_is(match_density: bool) -> None:
    network, sample = trained_a_little(match_density=match_density), whole()
    with torch.no_grad():
        wanted = network(sample.reference[None, None], sample.template[None, None], H)
        start = starting_point(network, sample, COARSE_ONLY, torch.Generator())
        crop = cropped(sample, start.displacement_mm, (8, 6, 4), (16, 20, 20))
        shown = block_input(crop, match_density=match_density)
        found = block_output(crop, start, *network.last_block(shown))
        at_border = cropped(sample, start.displacement_mm, (16, 12, 0), (16, 20, 16))
    det = jacobian_on_network_grid(start.displacement_mm, H)
    assert float(det.std()) > 0.01
    assert torch.equal(crop.det, det[:, 4:20, 6:26, 8:28])
    assert torch.equal(at_border.det, det[:, :16, 12:, 16:])
    inside, same = (slice(5, -5),) * 3, (slice(9, 15), slice(11, 21), slice(13, 23))  # the block sees five voxels
    assert wanted.displacement_mm.abs().max() > 0.1
    for ours, theirs in ((found.displacement_mm, wanted.displacement_mm), (found.logits, wanted.logits)):
        assert torch.allclose(ours[(..., *inside)], theirs[(..., *same)], atol=2e-3)
    assert torch.equal(crop.sample.changed_reference, sample.changed_reference[4:20, 6:26, 8:28])


@pytest.mark.parametrize("match_density", [False, True])
def test_the_loss_of_a_crop_of_everything_is_that_of_the_whole(match_density: bool) -> None:
    network, sample = trained_a_little(match_density=match_density), whole()
    everything = replace(COARSE_ONLY, count=1, shape=SIZE)
    counts = EpochRecall(), EpochRecall()
    with torch.no_grad():
        loss, terms = whole_loss(network, rounded(sample), counts[0], LossWeights(), LossOptions())
        other, parts = crop_loss(
            network, network, rounded(sample), counts[1], LossWeights(), LossOptions(), everything, seed=1
        )
    assert set(terms) == set(parts) == set(vars(LossWeights()))
    assert float(other) == pytest.approx(float(loss), rel=1e-4)
    for name, value in terms.items():
        assert float(parts[name]) == pytest.approx(float(value), rel=1e-3, abs=1e-6)
    assert torch.equal(counts[0].seen, counts[1].seen)


def rounded(sample: Sample) -> Sample:
    return replace(sample, reference=sample.reference.round(), template=sample.template.round())


def test_keypoints_of_a_crop_point_at_the_same_places() -> None:
    sample, first = whole(), torch.tensor([10.0, 9.0, 9.0])
    crop = cropped(sample, torch.zeros(1, 3, *SIZE), (10, 9, 9), (6, 8, 10)).sample
    inside = [
        bool((k >= first).all() and (k <= first + torch.tensor([9.0, 7.0, 5.0])).all()) for k in sample.keypoints_vox
    ]
    assert 0 < sum(inside) < 50
    assert torch.equal(crop.keypoints_vox, sample.keypoints_vox[inside] - first)
    assert torch.equal(crop.partners_mm, sample.partners_mm[inside])
    i, j, k = crop.offset  # T lies under R as it did
    assert torch.equal(crop.template[k, j, i], sample.template[9, 9, 10])


def test_near_the_truth_is_the_truth_but_for_the_residual() -> None:
    network, sample = trained_a_little(), whole()
    for residual, lowest, highest in ((0.0, 0.0, 1e-5), (3.0, 0.01, 15.0)):
        options = replace(TRUTH_ONLY, residual_mm=residual)
        start = starting_point(network, sample, options, torch.Generator().manual_seed(1))
        error = (start.displacement_mm[0] - SHIFT_MM.view(3, 1, 1, 1)).abs().max()
        assert lowest <= float(error) <= highest
    unknown = replace(sample, true_mm=None)
    start = starting_point(network, unknown, TRUTH_ONLY, torch.Generator())
    coarse = starting_point(network, sample, COARSE_ONLY, torch.Generator())
    assert torch.equal(start.displacement_mm, coarse.displacement_mm)
    assert not torch.equal(start.displacement_mm, torch.zeros_like(start.displacement_mm))


def test_a_registered_start_is_where_eq_1_put_it_as_often_as_asked() -> None:
    network, sample = trained_a_little(), whole()
    assert sample.true_mm is not None
    sample = replace(sample, registered_mm=sample.true_mm + 1.0)
    wanted = (SHIFT_MM + 1.0).view(3, 1, 1, 1)
    options = replace(TRUTH_ONLY, registered=0.5)
    apart = [
        float((starting_point(network, sample, options, seeded(n)).displacement_mm[0] - wanted).abs().max())
        for n in range(40)
    ]
    there, at_the_truth = (sum(abs(one - a) < 1e-5 for one in apart) for a in (0.0, 1.0))
    assert there + at_the_truth == 40
    assert 10 < there < 30
    start = starting_point(network, sample, TRUTH_ONLY, seeded(3))
    assert torch.allclose(start.displacement_mm[0], SHIFT_MM.view(3, 1, 1, 1).expand(3, *SIZE), atol=1e-5)
    with pytest.raises(InputError, match="with_registration=True"):
        starting_point(network, whole(), replace(options, registered=1.0), seeded(3))


def seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def test_crops_lie_round_lesions_of_both_scans_and_within_the_scan() -> None:
    sample, options = whole(), replace(COARSE_ONLY, count=200, shape=(8, 8, 8))
    none, resolved = torch.zeros(SIZE), torch.zeros(SIZE)
    resolved[10:14, 20:24, 8:12] = 1.0
    u = torch.zeros(1, 3, *SIZE)
    u[:, 0] = 6.0 * H[0]  # T's lesion belongs six voxels further left
    generator = torch.Generator().manual_seed(0)

    def shown(sample: Sample, where: tuple[slice, ...]) -> float:
        """How many of the crops show some of it."""
        marked = torch.zeros(SIZE)
        marked[where] = 1.0
        offsets = draw_offsets(sample, u, options, generator)
        assert len(offsets) == 200
        for offset in offsets:
            assert all(0 <= a <= n - 8 for a, n in zip(offset, SIZE[::-1], strict=True))
        parts = [marked[k : k + 8, j : j + 8, i : i + 8] for i, j, k in offsets]
        return sum(bool(part.any()) for part in parts) / 200

    nothing = dict.fromkeys(("lesions_reference", "lesions_template", "changed_reference", "changed_template"), none)
    empty = replace(sample, **nothing)
    before = (slice(10, 14), slice(20, 24), slice(2, 6))
    anywhere = shown(empty, before)
    gone = replace(empty, changed_template=resolved, lesions_template=resolved)
    assert shown(gone, before) > 0.5 > 2 * anywhere
    new = replace(empty, changed_reference=resolved, lesions_reference=resolved)
    assert shown(new, (slice(10, 14), slice(20, 24), slice(8, 12))) > 0.5
    stable = replace(empty, lesions_reference=resolved)
    assert 2 * anywhere < shown(stable, (slice(10, 14), slice(20, 24), slice(8, 12))) < 0.5


class Whole(torch.utils.data.Dataset[Sample]):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Sample:
        return whole()


OPTIONS = TrainingOptions(
    network=NETWORK,
    crops=CropOptions(count=2, shape=(8, 16, 16)),
    shape=SIZE,
    frozen=1,
    epochs=3,
    steady_from=2,
    warm_up_epochs=0,
    learning_rate=0.01,
    checkpoint_steps=1,
)


def coarse() -> Checkpoint:
    torch.manual_seed(5)
    return Checkpoint(JointNetwork(NetworkOptions(factors=(1,), channels=(2,), reach=(1,), depth=1)), {}, "")


def test_the_last_block_alone_learns_and_keeps_its_statistics_in_the_end(tmp_path: Path) -> None:
    start = coarse()
    means: list[Tensor] = []

    def validate(network: JointNetwork, epoch: int) -> dict[str, float | None]:
        means.append(network.blocks[-1].down[0].layers[1].running_mean.clone())
        return {}

    network = train(Whole(), OPTIONS, tmp_path, start=start, validate=validate)
    for ours, theirs in zip(network.blocks[0].parameters(), start.network.blocks[0].parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(means[0], means[1])
    assert torch.equal(means[1], means[2])
    assert float(network.blocks[-1].down[0].layers[1].running_mean.abs().sum()) > 0
    with (tmp_path / "steps.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert len(table) == 6
    assert all(float(row["recall"]) > 0 for row in table)


def test_the_temperature_softens_answers_and_not_training() -> None:
    network, sample = trained_a_little(), whole()
    soft = JointNetwork(replace(NETWORK, temperature=3.0))
    soft.load_state_dict(network.state_dict())
    r, t = sample.reference[None, None], sample.template[None, None]
    with torch.no_grad():
        found, wanted = soft.eval()(r, t, H), network(r, t, H)
        assert torch.allclose(found.logits, wanted.logits / 3, atol=1e-6)
        assert torch.equal(found.displacement_mm, wanted.displacement_mm)
        assert torch.allclose(soft.train()(r, t, H).logits, network.train()(r, t, H).logits)


def test_a_run_on_crops_goes_on_exactly(tmp_path: Path) -> None:
    start = coarse()
    short = replace(OPTIONS, epochs=1, steady_from=1)
    run_parallel = train(Whole(), replace(short, epochs=2), tmp_path / "once", start=start).state_dict()
    train(Whole(), short, tmp_path / "twice", start=start)
    again = train(Whole(), replace(short, epochs=2), tmp_path / "twice", start=start).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in run_parallel.items())


def test_a_run_on_crops_stopped_within_an_epoch_goes_on_exactly(tmp_path: Path) -> None:
    wanted = train(Whole(), OPTIONS, tmp_path / "once", start=coarse()).state_dict()
    calls: list[float] = []

    def stop(fraction: float, message: str = "") -> None:
        calls.append(fraction)
        if len(calls) == 3:  # the first pair of the second epoch
            raise Cancelled

    with pytest.raises(Cancelled):
        train(Whole(), OPTIONS, tmp_path / "twice", start=coarse(), progress=stop)
    again = train(Whole(), OPTIONS, tmp_path / "twice", start=coarse()).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in wanted.items())


def test_where_crops_start_has_nothing_to_do_with_mirroring() -> None:
    table = torch.zeros(2, 2)
    for epoch in range(10):
        for index in range(40):
            seed = (0, epoch, index)
            first = [torch.rand(1, generator=torch.Generator().manual_seed(n(seed))) for n in (combine_seed, crop_seed)]
            table[int(first[0] < 0.5), int(first[1] < 0.5)] += 1
    assert float(table.min()) > 70  # of 100


@pytest.mark.parametrize(("precision", "wanted"), [("bf16-mixed", torch.bfloat16), ("32-true", torch.float32)])
def test_the_block_computes_in_the_precision_asked_for(
    precision: str, wanted: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    unpatched = pair_loss.block_output

    def watched(crop: Crop, start: JointOutput, step_vox: Tensor, logits: Tensor) -> JointOutput:
        seen.update({step_vox.dtype, logits.dtype})
        return unpatched(crop, start, step_vox, logits)

    monkeypatch.setattr(pair_loss, "block_output", watched)
    train(Whole(), replace(OPTIONS, epochs=1, precision=precision), tmp_path, start=coarse())
    assert seen == {wanted}


def test_a_start_gives_the_blocks_that_fit(tmp_path: Path) -> None:
    """The last block of the start has other statistics: the coarse one is taken, the last one begins anew."""
    start = Checkpoint(JointNetwork(replace(NETWORK, kept_statistics=False)), {}, "")
    network = train(Whole(), replace(OPTIONS, epochs=1), tmp_path / "a", start=start)
    for ours, theirs in zip(network.blocks[0].parameters(), start.network.blocks[0].parameters(), strict=True):
        assert torch.equal(ours, theirs)
    further = Checkpoint(JointNetwork(replace(NETWORK, reach=(2, 0))), {}, "")
    with pytest.raises(InputError, match=r"start: found .*reach=\(2, 0\)"):
        train(Whole(), replace(OPTIONS, epochs=1), tmp_path / "b", start=further)


def test_crops_that_cannot_teach_are_refused() -> None:
    for wrong in (
        {"frozen": 0},
        {"crops": CropOptions(count=1, shape=(9, 16, 16))},
        {"crops": CropOptions(count=1, shape=(32, 16, 16))},
        {"crops": CropOptions(count=1, shape=(8, 8, 8)), "network": replace(NETWORK, depth=3), "shape": (32, 32, 64)},
        {"network": replace(NETWORK, kept_statistics=False)},
        {"network": replace(NETWORK, reach=(1, 1))},
    ):
        with pytest.raises(InputError, match="crops"):
            replace(OPTIONS, **wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="steady_from"):
        TrainingOptions(steady_from=2)
    for options in ({"count": -1}, {"shape": (8, 8)}, {"near_truth": 1.5}, {"residual_mm": 11.0}):
        with pytest.raises(InputError, match=next(iter(options))):
            CropOptions(**options)  # type: ignore[arg-type]


def test_an_answer_from_a_better_start_is_that_of_the_last_block_there() -> None:
    network, sample = trained_a_little(), whole()
    r, t = sample.reference[None, None], sample.template[None, None]
    with torch.no_grad():
        before = network.coarse(r, t, H)
        first = network(r, t, H)
        assert torch.equal(network.finest(r, t, H, before[-1]).logits, first.logits)
        better = JointOutput(SHIFT_MM.view(1, 3, 1, 1, 1).expand(1, 3, *SIZE), before[-1].logits)
        again = network.finest(r, t, H, better)
    assert float((again.displacement_mm[0] - SHIFT_MM.view(3, 1, 1, 1)).abs().mean()) < 0.5 * float(
        (first.displacement_mm[0] - SHIFT_MM.view(3, 1, 1, 1)).abs().mean()
    )
