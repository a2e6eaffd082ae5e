"""The verdict: closed forms, and every bar from both sides."""

from dataclasses import replace

import numpy as np
import pytest

from ChangeMapJointLib.registration.quality import (
    Figures,
    assess_quality,
    assess_rigid_quality,
    dice,
    mean_residual,
    rigid_figures,
)

GOOD = Figures(
    residual_hu=30.0,
    residual_rigid_hu=90.0,
    folding_percent=0.0,
    jacobian_min=0.6,
    jacobian_max=1.5,
    sd_log_jacobian=0.1,
    lung_dice=0.99,
    lung_dice_rigid=0.85,
    inverse_consistency_mm=0.4,
    inverse_consistency_p95_mm=1.0,
    keypoint_error_mm=None,
    keypoints_found=None,
    keypoints_dropped=None,
    overlap=1.0,
    trusted_percent=99.0,
)


def test_good_figures_are_good_and_say_why() -> None:
    verdict = assess_quality(GOOD)
    assert verdict.verdict == "good"
    assert "0.990" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("name", "closely", "unusable", "word"),
    [
        ("lung_dice", 0.95, 0.85, "Dice 0."),
        ("inverse_consistency_mm", 2.5, 6.0, "mm on average"),
        ("inverse_consistency_p95_mm", 6.0, 20.0, "mm or more"),
        ("folding_percent", 0.01, 1.0, "folds"),
        ("overlap", 0.9, 0.3, "field of view"),
        ("trusted_percent", 90.0, 50.0, "confidence"),
    ],
)
def test_each_bar_turns_the_verdict_and_names_its_figure(name, closely, unusable, word) -> None:
    one = assess_quality(replace(GOOD, **{name: closely}))
    assert one.verdict == "look closely"
    assert len(one.reasons) == 1
    assert word in one.reasons[0]
    assert assess_quality(replace(GOOD, **{name: unusable})).verdict == "do not use"
    assert assess_quality(replace(GOOD, **{name: float("nan")})).verdict == "do not use"


def test_the_worst_bar_decides_and_all_reasons_are_given() -> None:
    verdict = assess_quality(replace(GOOD, lung_dice=0.8, folding_percent=0.01))
    assert verdict.verdict == "do not use"
    assert len(verdict.reasons) == 2


def test_a_deformation_that_makes_it_worse_is_not_to_be_used() -> None:
    verdict = assess_quality(replace(GOOD, residual_hu=120.0))
    assert verdict.verdict == "do not use"
    assert "90 to 120 HU" in verdict.reasons[-1]
    assert assess_quality(replace(GOOD, residual_hu=float("nan"))).verdict == "do not use"


def test_what_interpolation_alone_costs_is_no_fault() -> None:
    # a scan with slices of 5 mm against itself: rigid alignment leaves 1 HU, any interpolation some more
    assert assess_quality(replace(GOOD, residual_rigid_hu=1.0, residual_hu=7.0)).verdict == "good"
    assert assess_quality(replace(GOOD, residual_rigid_hu=36.0, residual_hu=40.0)).verdict == "good"


def test_no_way_back_is_no_reason() -> None:
    assert assess_quality(replace(GOOD, inverse_consistency_mm=None, inverse_consistency_p95_mm=None)).verdict == "good"


def test_rigid_alone_is_never_called_good() -> None:
    verdict = assess_rigid_quality(rigid_figures(80.0, 0.99, 1.0))
    assert verdict.verdict == "look closely"
    assert "breathing" in verdict.reasons[0]


def test_dice_and_residual_by_hand() -> None:
    a, b = np.array([1, 1, 0, 0], bool), np.array([1, 0, 1, 0], bool)
    assert dice(a, b) == pytest.approx(0.5)
    assert dice(a & False, b & False) == 0.0
    # bone saturates at 50 HU: |50 - 50| and |-900 - -800|
    r, t = np.array([700, -900, 0]), np.array([300, -800, 999])
    assert mean_residual(r, t, np.array([True, True, False])) == pytest.approx(50.0)
    assert np.isnan(mean_residual(r, t, np.zeros(3, bool)))
