"""Recall against false positives per scan, and what the network is told of itself during training."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from training_samples import Pairs

from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.evaluation import regions
from ChangeMapJointLib.evaluation.froc import THRESHOLDS, count_scan, false_positives, recall_at
from ChangeMapJointLib.evaluation.network import evaluate_pair, summarise
from ChangeMapJointLib.evaluation.regions import MapRegions, connected_regions
from ChangeMapJointLib.joint.network import JointNetwork, JointOutput, NetworkOptions
from ChangeMapJointLib.synthesis.truth import TrueChange

GRID = Grid((20, 20, 40), (1.0, 1.0, 1.0))
LARGE = TrueChange(1, "new", (8.0, 10.0, 10.0), (8.0, 10.0, 10.0), 8.0, 0.0)
SMALL = TrueChange(2, "grown", (22.0, 10.0, 10.0), (22.0, 10.0, 10.0), 8.0, 5.0)
STABLE = TrueChange(3, "stable", (33.0, 10.0, 10.0), (33.0, 10.0, 10.0), 6.0, 6.0)


def ball(centre: tuple[float, float, float], radius: float) -> np.ndarray:
    x, y, z = np.indices(GRID.shape)[::-1]
    return (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2 <= radius**2


def change_map() -> np.ndarray:
    """0.9 on the large change, 0.5 on the rim of the small one, 0.7 on a stable lesion, 0.3 on noise of 5 voxels."""
    values = np.zeros(GRID.shape, np.float32)
    values[ball(LARGE.centre_reference_mm, 4.0)] = 0.9
    rim = ball(SMALL.centre_reference_mm, 4.0) & ~ball(SMALL.centre_reference_mm, 2.5)
    values[rim] = 0.5
    values[ball(STABLE.centre_reference_mm, 3.0)] = 0.7
    values[2, 2, 2:7] = 0.3
    values[17, 17, 2:6] = 1.0  # four voxels: too few
    return values


def test_hits_and_false_positives_at_every_threshold() -> None:
    counts = count_scan(change_map(), [LARGE, SMALL, STABLE], GRID, thresholds=np.array([0.2, 0.4, 0.6, 0.8, 0.95]))
    assert counts.changes == (LARGE, SMALL)
    assert counts.hit.tolist() == [[True, True], [True, True], [True, False], [True, False], [False, False]]
    assert counts.false.tolist() == [2, 1, 1, 0, 0]
    assert recall_at([counts], 0.0) == 0.5
    assert recall_at([counts], 1.0) == 1.0
    assert recall_at([counts], 0.0, below_mm=5.8) == 0.0  # the small change is the only one below
    assert recall_at([counts], 1.0, below_mm=5.8) == 1.0
    assert np.isnan(recall_at([counts], 1.0, below_mm=1.0))
    nothing = count_scan(np.zeros(GRID.shape), [STABLE], GRID, thresholds=np.array([0.2, 0.4, 0.6, 0.8, 0.95]))
    assert false_positives([counts, nothing]).tolist() == [1.0, 0.5, 0.5, 0.0, 0.0]
    assert recall_at([counts, nothing], 0.5) == 1.0


def test_below_too_many_false_regions_nothing_is_looked_at() -> None:
    limits = np.array([0.2, 0.4, 0.6, 0.8])
    counts = count_scan(change_map(), [LARGE, SMALL, STABLE], GRID, thresholds=limits, most_false=0)
    assert counts.false.tolist() == [1, 1, 1, 0]
    assert counts.hit.tolist() == [[True, False]] * 4  # as at 0.6
    whole = count_scan(change_map(), [LARGE, SMALL, STABLE], GRID, thresholds=limits, most_false=1)
    assert whole.false.tolist() == [2, 1, 1, 0]


def test_regions_of_fewer_than_five_voxels_do_not_count() -> None:
    labels = connected_regions(change_map() > 0.2)
    assert labels.max() == 4
    assert labels[17, 17, 3] == 0
    assert (labels[2, 2, 2:7] == labels[2, 2, 2]).all()
    assert labels[2, 2, 2] > 0


def test_few_voxels_are_labelled_as_the_whole_volume_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blobs and single voxels, at the borders too, where the next row begins one voxel further."""
    noise = np.random.default_rng(4).normal(size=GRID.shape)
    values = ndimage.gaussian_filter(noise, 1.0, mode="wrap")
    limits = np.quantile(values, [0.8, 0.9, 0.95, 0.99, 0.999, 1.0])
    components = MapRegions(values)
    counts = []
    for limit, few in zip(limits, (1.0, 0.0, 1.0, 1.0, 0.0, 1.0), strict=True):  # 0: the whole volume
        monkeypatch.setattr(regions, "SPARSE_FRACTION", few)
        (found, sizes), expected = components.above(limit), connected_regions(values >= limit)
        counts.append(expected.max())
        assert found.max() == expected.max()
        assert sizes.tolist() == np.bincount(found.ravel()).tolist()
        assert len({*zip(found.ravel().tolist(), expected.ravel().tolist(), strict=True)}) == expected.max() + 1
    assert max(counts) > 20
    assert counts[-1] == 0


def test_thresholds_rise_on_a_logarithmic_scale() -> None:
    assert (np.diff(THRESHOLDS) > 0).all()
    assert THRESHOLDS[0] == pytest.approx(0.01)
    assert THRESHOLDS[-1] < 1
    assert np.abs(THRESHOLDS - 0.68).min() < 0.005
    assert (THRESHOLDS[1:] / THRESHOLDS[:-1])[THRESHOLDS[1:] > 0.1].max() < 1.03


class Knowing(JointNetwork):
    """Answers with a given displacement and CM_learn."""

    def __init__(self, displacement_mm: torch.Tensor, change: torch.Tensor) -> None:
        super().__init__(NetworkOptions(factors=(1,), channels=(1,), reach=(0,), depth=1))
        self.u, self.logits = displacement_mm, torch.stack([torch.zeros_like(change), change.logit()])

    def forward(self, reference: torch.Tensor, template: torch.Tensor, spacing_mm: object) -> JointOutput:
        return JointOutput(self.u[None], self.logits[None])


def test_a_network_that_knows_all_is_judged_so() -> None:
    sample = Pairs()[1]
    lesion = sample.lesions_reference
    u = torch.zeros(3, *lesion.shape)
    u[0] = 2.0  # what the pair moved by
    right = evaluate_pair(Knowing(u, 0.01 + 0.98 * lesion), sample)
    assert right.tre_before_mm == pytest.approx(2.0)
    assert right.tre_mm == pytest.approx(0.0, abs=1e-6)
    assert right.folding_percent == 0.0
    assert right.dice == pytest.approx(1.0)
    assert np.allclose(right.warped[:, :, :-1], sample.template.roll(-1, 2)[:, :, :-1], atol=0.01)
    figures = summarise([right])
    assert figures["recall_learned_1"] == figures["recall_combined_1"] == 1.0
    assert right.maps["combined"] == pytest.approx(right.maps["difference"] * right.maps["learned"])
    wrong = evaluate_pair(Knowing(0 * u, torch.full_like(lesion, 0.01)), replace(sample, mask_template=0 * lesion))
    assert wrong.counts["learned"].changes == right.counts["learned"].changes  # the truth is not the network's
    assert wrong.tre_mm == pytest.approx(2.0)
    assert wrong.dice == 0.0
    assert summarise([wrong])["recall_learned_4"] == 0.0
    folded = u.clone()
    folded[0] = torch.arange(16.0) * -4  # x - 2 x: turned round
    assert evaluate_pair(Knowing(folded, 0.01 + 0 * lesion), sample).folding_percent == 100.0


def test_a_pair_without_change_has_no_recall_but_false_positives() -> None:
    sample = Pairs()[0]
    lesion = torch.zeros_like(sample.lesions_reference)
    lesion[3:5, 3:5, 6:9] = 1.0
    judged = evaluate_pair(Knowing(torch.zeros(3, *lesion.shape), 0.01 + 0.98 * lesion), sample)
    assert not judged.counts["learned"].changes
    assert judged.counts["learned"].false.max() == 1
    assert summarise([judged])["recall_learned_1"] is None


def test_lesions_of_the_template_are_put_where_the_true_motion_says() -> None:
    """A lesion that was there and is gone: T's voxels lie 2 mm, one voxel, away from where R lacks it."""
    sample = Pairs()[1]
    gone = replace(
        sample,
        changed_reference=0 * sample.lesions_reference,
        changed_template=sample.lesions_reference.roll(1, 2),
    )
    there = sample.lesions_reference
    found = evaluate_pair(Knowing(torch.zeros(3, *there.shape), 0.01 + 0.98 * there), gone)
    (change,) = found.counts["learned"].changes
    assert change.kind == "resolved"
    assert summarise([found])["recall_learned_1"] == 1.0
    nowhere = evaluate_pair(
        Knowing(torch.zeros(3, *there.shape), 0.01 + 0 * there),
        replace(gone, keypoints_vox=torch.zeros(0, 3), partners_mm=torch.zeros(0, 3)),
    )
    assert summarise([nowhere])["tre_mm"] is None
