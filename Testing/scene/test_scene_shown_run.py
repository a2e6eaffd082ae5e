"""A run in the browser viewer, without the browser: what it says of its map is the map's, not the overlay's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scene_samples import GRID, write_run

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.grid import lps_to_ras
from ChangeMapJointLib.io.opened_run import OpenedRun
from ChangeMapJointLib.io.read import read_array
from ChangeMapJointLib.io.write import write_nrrd
from ChangeMapJointLib.web.shown_run import ShownRun


def test_value_and_regions_are_those_of_the_map(views, tmp_path):
    folder, scan = write_run(tmp_path / "run"), tmp_path / "scan.nrrd"
    write_nrrd(scan, np.full(GRID.shape, -800, np.int16), GRID)
    shown = ShownRun(OpenedRun(folder, {"run": {"configuration": {"method": "sequential"}}}, scan, None, ()))
    shown.apply(replace(shown.settings, overlay=True))
    change, _ = read_array(folder / "change_map.nrrd")
    index = (GRID.size[0] - 2, 3, 4)  # x, y, z
    x, y, z = lps_to_ras(GRID.to_physical(index)).tolist()
    shown.navigation.place((x, y, z), centre=False)
    assert f"change {change[index[::-1]]:.2f}" in shown.values()
    np.testing.assert_array_equal(np.abs(shown._signed("change_map")[0]), change)
    shown.close()


def test_after_a_map_that_cannot_be_read_the_last_one_is_shown_again(views, tmp_path, monkeypatch):
    folder, scan = write_run(tmp_path / "run"), tmp_path / "scan.nrrd"
    write_nrrd(scan, np.full(GRID.shape, -800, np.int16), GRID)
    shown = ShownRun(OpenedRun(folder, {"run": {"configuration": {"method": "sequential"}}}, scan, None, ()))
    good, bad = shown.maps[:2]
    shown.apply(replace(shown.settings, overlay=True, map=good))
    nodes, read = len(shown._overlay.nodes), shown._files.signed
    monkeypatch.setattr(shown._files, "signed", lambda key: read("none") if key == bad else read(key))
    with pytest.raises((InputError, KeyError)):
        shown.apply(replace(shown.settings, map=bad))
    shown.apply(replace(shown.settings, map=good))
    assert len(shown._overlay.nodes) == nodes > 0
    assert shown._map is not None
    shown.close()
