"""Padding round the field of view is found, and is neither air nor change."""

from __future__ import annotations

import numpy as np
import pytest

from ChangeMapJointLib.change.maps import change_map, match_resolution, signed_change
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.volumes.padding import padded

GRID = Grid((6, 60, 80), (1.5, 1.5, 1.5))
Y, X = np.mgrid[:60, :80]
ROUND = np.hypot(Y - 29.5, X - 39.5) < 25.0


def lung_with_vessels(seed: int = 0) -> np.ndarray:
    hu = np.random.default_rng(seed).normal(-850.0, 30.0, GRID.shape)
    hu[:, :, ::8] = 40.0
    return np.maximum(np.rint(hu), -1024).astype(np.int16)


def test_what_lies_outside_a_round_field_of_view_is_padding() -> None:
    hu = lung_with_vessels()
    hu[:, ~ROUND] = -1024
    found = padded(hu)
    assert found is not None
    assert found[:, ~ROUND].all()
    assert not found[:, np.hypot(Y - 29.5, X - 39.5) < 21.0].any()


def test_a_scan_without_padding_has_none() -> None:
    assert padded(lung_with_vessels()) is None
    assert padded(np.full(GRID.shape, -1000, np.int16)) is None


def test_the_darkest_air_inside_is_no_padding() -> None:
    hu = lung_with_vessels()
    hu[2:4, 20:30, 30:44] = -1024  # a bulla in a scan without noise
    assert padded(hu) is None
    hu[:, ~ROUND] = -1024
    found = padded(hu)
    assert found is not None
    assert not found[2:4, 20:30, 30:44].any()


@pytest.mark.parametrize("side", ["reference", "template"])
@pytest.mark.parametrize("template_mm", [1.5, 3.0])
def test_nothing_has_changed_where_one_scan_is_padded(side: str, template_mm: float) -> None:
    whole, cut = lung_with_vessels(), lung_with_vessels()
    cut[:, ~ROUND] = -1024
    pair = (cut, whole) if side == "reference" else (whole, cut)
    template_grid = Grid(GRID.shape, (1.5, 1.5, template_mm))  # only its voxel size matters here
    r, t = match_resolution(pair[0], GRID, pair[1], template_grid)
    everywhere = np.ones(GRID.shape, dtype=bool)
    cm, signed = change_map(r, t, everywhere), signed_change(r, t)
    assert not cm[:, ~ROUND].any()
    assert not signed[:, ~ROUND].any()
    assert np.isfinite(r[:, np.hypot(Y - 29.5, X - 39.5) < 21.0]).all()
    if template_mm == 1.5:
        assert not cm.any()
