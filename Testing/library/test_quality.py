"""Trust and verdict: closed forms, and every bar from both sides."""

from dataclasses import replace

import numpy as np
import pytest

from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.registration.quality import (
    Figures,
    dice,
    judge,
    judge_rigid,
    mean_residual,
    rigid_figures,
)
from ChangeMapJointLib.registration.trust import TrustOptions, inside_template, inverse_consistency, trust_map

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
    overlap=1.0,
    trusted_percent=99.0,
)


def shift(grid: Grid, x_mm: float) -> DisplacementField:
    u = np.zeros((*grid.shape, 3), np.float32)
    u[..., 0] = x_mm
    return DisplacementField(u, grid)


def test_good_figures_are_good_and_say_why() -> None:
    verdict = judge(GOOD)
    assert verdict.verdict == "good"
    assert "0.990" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("name", "closely", "unusable", "word"),
    [
        ("lung_dice", 0.95, 0.85, "Dice 0."),
        ("inverse_consistency_mm", 2.5, 6.0, "mm in the mean"),
        ("inverse_consistency_p95_mm", 6.0, 20.0, "mm or more"),
        ("folding_percent", 0.01, 1.0, "folds"),
        ("overlap", 0.9, 0.3, "field of view"),
        ("trusted_percent", 90.0, 50.0, "confidence"),
    ],
)
def test_each_bar_turns_the_verdict_and_names_its_figure(name, closely, unusable, word) -> None:
    one = judge(replace(GOOD, **{name: closely}))
    assert one.verdict == "look closely"
    assert len(one.reasons) == 1
    assert word in one.reasons[0]
    assert judge(replace(GOOD, **{name: unusable})).verdict == "do not use"
    assert judge(replace(GOOD, **{name: float("nan")})).verdict == "do not use"


def test_the_worst_bar_decides_and_all_reasons_are_given() -> None:
    verdict = judge(replace(GOOD, lung_dice=0.8, folding_percent=0.01))
    assert verdict.verdict == "do not use"
    assert len(verdict.reasons) == 2


def test_a_deformation_that_makes_it_worse_is_not_to_be_used() -> None:
    verdict = judge(replace(GOOD, residual_hu=120.0))
    assert verdict.verdict == "do not use"
    assert "90 to 120 HU" in verdict.reasons[-1]
    assert judge(replace(GOOD, residual_hu=float("nan"))).verdict == "do not use"


def test_what_interpolation_alone_costs_is_no_fault() -> None:
    # a scan with slices of 5 mm against itself: rigid alignment leaves 1 HU, any interpolation some more
    assert judge(replace(GOOD, residual_rigid_hu=1.0, residual_hu=7.0)).verdict == "good"
    assert judge(replace(GOOD, residual_rigid_hu=36.0, residual_hu=40.0)).verdict == "good"


def test_no_way_back_is_no_reason() -> None:
    assert judge(replace(GOOD, inverse_consistency_mm=None, inverse_consistency_p95_mm=None)).verdict == "good"


def test_rigid_alone_is_never_called_good() -> None:
    verdict = judge_rigid(rigid_figures(80.0, 0.99, 1.0))
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


def test_forward_and_backward_that_undo_each_other_have_no_error() -> None:
    grid, far = Grid((5, 6, 7)), Grid((5, 6, 7), origin_mm=(20.0, 0.0, 0.0))
    assert inverse_consistency(shift(grid, 20.0), shift(far, -20.0)).max() == pytest.approx(0, abs=1e-5)
    error = inverse_consistency(shift(grid, 20.0), shift(far, -17.0))
    assert error == pytest.approx(np.full(grid.shape, 3.0), abs=1e-5)


def test_inside_template_is_where_y_lands() -> None:
    grid = Grid((3, 3, 10))
    inside = inside_template(shift(grid, 5.0), grid)
    assert inside[0, 0].tolist() == [True] * 5 + [False] * 5


def trust_of(error_mm: float, u: DisplacementField, lungs_t: np.ndarray | None = None) -> np.ndarray:
    lungs = np.ones(u.grid.shape, bool)
    theirs = lungs if lungs_t is None else lungs_t
    return trust_map(u, np.full(u.grid.shape, error_mm, np.float32), lungs, u.grid, theirs, u.grid)


def test_trust_is_one_half_at_the_half_error() -> None:
    still = shift(Grid((8, 8, 8), (2.0, 2.0, 2.0)), 0.0)
    assert trust_of(0.0, still) == pytest.approx(1.0)
    assert trust_of(TrustOptions().half_error_mm, still) == pytest.approx(0.5, abs=1e-5)
    assert trust_of(3 * TrustOptions().half_error_mm, still).max() < 0.01


def test_trust_ends_where_the_template_ends() -> None:
    grid = Grid((4, 4, 20), (2.0, 2.0, 2.0))
    trust = trust_of(0.0, shift(grid, 20.0))
    assert (trust[..., 10:] == 0).all()
    assert trust[2, 2, 0] > 0.9


def test_trust_falls_where_the_lungs_disagree() -> None:
    still = shift(Grid((20, 20, 20), (2.0, 2.0, 2.0)), 0.0)
    theirs = np.ones(still.grid.shape, bool)
    theirs[:10] = False
    trust = trust_of(0.0, still, theirs)
    assert trust[3, 10, 10] < 0.1
    assert trust[17, 10, 10] > 0.9


def test_trust_falls_where_volume_changes_beyond_breathing() -> None:
    grid = Grid((8, 8, 8), (2.0, 2.0, 2.0))
    matrix = np.eye(4)
    matrix[0, 0] = 0.25  # to a quarter: the lower bar
    squeezed = DisplacementField.from_affine(matrix, grid)
    assert trust_of(0.0, squeezed) == pytest.approx(0.5, abs=1e-4)
    matrix[0, 0] = 0.8
    assert trust_of(0.0, DisplacementField.from_affine(matrix, grid)).min() > 0.99
