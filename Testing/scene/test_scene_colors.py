"""One table a kind, and colors that color-blind readers tell apart."""

from __future__ import annotations

import numpy as np
import pytest

from ChangeMapJointLib.scene.colors import MARKS, SCALES, change_table, rgba_of

# linear RGB as dichromats see it, G. Machado et al., IEEE TVCG 15(6), 2009, severity 1.0
SIGHT = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("kind", [*SCALES, *MARKS])
def test_a_table_is_made_once_and_filled_again_when_emptied(scene, kind):
    table = change_table(kind)
    assert table.GetName() == f"ChangeMap {kind}"
    count = scene.GetNumberOfNodes()
    assert change_table(kind) is table
    table.SetNumberOfColors(0)
    assert change_table(kind) is table
    assert scene.GetNumberOfNodes() == count
    color = [0.0] * 4
    for index, expected in enumerate(rgba_of(kind)):
        table.GetColor(index, color)
        np.testing.assert_allclose(color, expected, atol=1 / 255)


def test_an_unknown_kind_is_refused(scene):
    with pytest.raises(ValueError, match="increase"):
        change_table("rainbow")


@pytest.mark.parametrize("sight", SIGHT)
def test_increase_and_decrease_differ_for_every_reader(sight):
    matrix = np.array(SIGHT[sight])
    seen = [np.clip(rgba_of(kind)[:, :3] ** 2.2 @ matrix.T, 0, 1) ** (1 / 2.2) for kind in ("increase", "decrease")]
    distance = np.linalg.norm(seen[0][:, None] - seen[1][None], axis=-1)
    assert distance.min() > 0.25  # of 1.73 from black to white


def test_the_middle_of_diverging_tables_is_transparent():
    for kind in ("change", "Jacobian"):
        alpha = rgba_of(kind)[:, 3]
        assert alpha[127] == alpha[128] == 0
        assert alpha[0] == alpha[-1] == 1
        np.testing.assert_array_equal(alpha, alpha[::-1])
