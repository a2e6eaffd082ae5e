"""What a comparison cannot see: limits by noise and voxels, and regions, in words and numbers."""

from __future__ import annotations

import numpy as np
import pytest
from judge_samples import evidence
from lung_shapes import cube
from scipy import ndimage

from ChangeMapJointLib.change.not_seen import ball_response, not_seen, nothing_seen
from ChangeMapJointLib.change.sections import NOTHING_SEEN
from ChangeMapJointLib.export.unseen import unseen_of_records


@pytest.mark.parametrize(("diameter_mm", "sigma_mm"), [(4.0, 1.1), (8.0, 2.0), (14.0, 3.6)])
def test_the_response_of_a_ball_is_that_of_a_smoothed_ball(diameter_mm: float, sigma_mm: float) -> None:
    step = 0.5
    axis = np.arange(-60, 61) * step
    ball = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2 <= (diameter_mm / 2) ** 2).astype(np.float32)
    near = ndimage.gaussian_filter(ball, sigma_mm / step)
    wide = ndimage.gaussian_filter(ball, 3 * sigma_mm / step)
    assert ball_response(diameter_mm, sigma_mm, sigma_mm) == pytest.approx(float((near - wide)[60, 60, 60]), abs=0.02)


def test_noisier_scans_see_less() -> None:
    quiet, noisy = (
        {s.key: s.value for s in not_seen(evidence([], [], noise_hu=hu), shared_percent=100, trusted_percent=100)}
        for hu in (10.0, 120.0)
    )
    assert noisy["ground_glass"] > quiet["ground_glass"] > 50
    assert noisy["small"] >= quiet["small"] >= 2.5
    assert noisy["growth"] == quiet["growth"]  # a matter of voxels


def test_thicker_slices_hide_more_growth() -> None:
    fine, thick = (
        {s.key: s.value for s in not_seen(evidence([], [], grid), shared_percent=100, trusted_percent=100)}["growth"]
        for grid in (cube((1.0, 1.0, 1.0), edge_mm=30), cube((1.0, 1.0, 5.0), edge_mm=30))
    )
    assert thick > 2 * fine > 0


def test_regions_are_named_only_where_there_are_any_and_the_rest_always() -> None:
    found = evidence([], [])
    keys = [s.key for s in not_seen(found, shared_percent=100, trusted_percent=100)]
    assert keys == ["ground_glass", "small", "growth", "not_lung"]
    statements = {s.key: s for s in not_seen(found, shared_percent=88, trusted_percent=93)}
    assert "12 %" in statements["outside"].sentence
    assert statements["distrusted"].value == pytest.approx(7.0)
    assert all(s.sentence.endswith(".") for s in statements.values())


def test_small_nodules_are_said_to_be_missed_only_where_voxels_would_show_them() -> None:
    fine = {s.key: s for s in not_seen(evidence([], []), shared_percent=100, trusted_percent=100)}["small"]
    assert fine.value < 6.0
    assert "Of those below 6 mm many are missed." in fine.sentence


def test_a_failed_registration_has_seen_nothing_whatever_an_older_run_states() -> None:
    (statement,) = nothing_seen()
    assert statement.sentence == NOTHING_SEEN
    assert statement.value is None
    stated = [{"key": "small", "sentence": "Solid nodules below about 3 mm."}]
    failed = {"findings": {}, "quality": {"quality": {"verdict": "do not use"}, "not_seen": stated}}
    assert unseen_of_records(failed) == (NOTHING_SEEN,)
    assert unseen_of_records({**failed, "quality": {"not_seen": stated}}) == ("Solid nodules below about 3 mm.",)
